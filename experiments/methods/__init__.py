"""The methods by name: one file each, and one line each in this one.

`METHODS["gmixout"](sparsity=0.95)` is a configured method.
"""

import importlib

from experiments.methods.method import Method as Method
from experiments.methods.method import Params as Params
from experiments.methods.method import Schedule as Schedule

# The name of a method is that of its file; the value is the class in there.
_CLASSES = {
  "zero_shot": "ZeroShot",
  "linear_probe": "LinearProbe",
  "full_finetuning": "FullFinetuning",
  "mixout": "Mixout",
  "gmixout": "GMixout",
  "random_mask": "RandomMask",
}

METHODS: dict[str, type[Method]] = {
  name: getattr(importlib.import_module(f"{__name__}.{name}"), class_name)
  for name, class_name in _CLASSES.items()
}


def name_of(method: Method) -> str:
  """The name that a method is registered under.

  Raises:
    ValueError: If its class is not registered.
  """
  for name, cls in METHODS.items():
    if type(method) is cls:
      return name
  raise ValueError(f"{type(method).__name__} is not in METHODS.")
