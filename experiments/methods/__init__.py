"""The methods by name: one file for each paper, one line for each here.

`METHODS["gmixout"](sparsity=0.95)` is a configured method;
`from_name("gmixout+wise_ft")` is WiSE-FT on GMixout, with defaults.
"""

import dataclasses
import importlib
from typing import Any

from experiments.methods.composition import Composed
from experiments.methods.method import Member as Member
from experiments.methods.method import Method as Method
from experiments.methods.method import Params as Params
from experiments.methods.method import Schedule as Schedule
from experiments.methods.run import Combined as Combined
from experiments.methods.run import Run as Run

# Each name, and where its class is: file.Class.
_CLASSES = {
  "zero_shot": "zero_shot.ZeroShot",
  "linear_probe": "linear_probe.LinearProbe",
  "full_finetuning": "full_finetuning.FullFinetuning",
  "full_finetuning_of_blocks": (
    "full_finetuning_of_blocks.FullFinetuningOfBlocks"
  ),
  "lp_ft": "lp_ft.LPFT",
  "flyp": "flyp.FLYP",
  "l2_sp": "l2_sp.L2SP",
  "spd": "spd.SPD",
  "ftp": "ftp.FTP",
  "ema": "ema.EMA",
  "swa": "swa.SWA",
  "swad": "swad.SWAD",
  "very_large_dropout": "very_large_dropout.VeryLargeDropout",
  "lora": "lora.LoRA",
  "random_mask": "random_mask.RandomMask",
  "mixout": "mixout.Mixout",
  "neuron_mixout": "mixout.NeuronMixout",
  "high_rate_mixout": "high_rate_mixout.HighRateMixout",
  "gmixout": "gmixout.GMixout",
  "wise_ft": "wise_ft.WiseFT",
  "uniform_soup": "model_soups.UniformSoup",
  "greedy_soup": "model_soups.GreedySoup",
  "learned_soup": "model_soups.LearnedSoup",
  "output_ensemble": "output_ensemble.OutputEnsemble",
  "diwa": "diwa.DiWA",
  "restricted_diwa": "diwa.RestrictedDiWA",
  "model_stock": "model_stock.ModelStock",
  "manifold_mixing": "manifold_mixing.ManifoldMixing",
}


def _load(place: str) -> type[Method]:
  module, name = place.split(".")
  return getattr(importlib.import_module(f"{__name__}.{module}"), name)


METHODS: dict[str, type[Method]] = {
  name: _load(place) for name, place in _CLASSES.items()
}


def name_of(method: Method) -> str:
  """The name that a method is registered under.

  A method on top of another one than full fine-tuning has both names, joined
  by "+".

  Raises:
    ValueError: If its class is not registered.

  Example:
    >>> name_of(METHODS["wise_ft"]())
    'wise_ft'
    >>> name_of(METHODS["wise_ft"](of=METHODS["gmixout"]()))
    'gmixout+wise_ft'
  """
  for name, cls in METHODS.items():
    if type(method) is cls:
      if isinstance(method, Composed):
        of = name_of(method.of)
        return name if of == "full_finetuning" else f"{of}+{name}"
      return name
  raise ValueError(f"{type(method).__name__} is not in METHODS.")


def from_name(name: str, **changes: dict[str, Any]) -> Method:
  """The method of a name: the inverse of `name_of`.

  Args:
    name: A name, or several with "+" between, the innermost first.
    **changes: Hyperparameters by the name of the method that has them.

  Raises:
    ValueError: If a name is not registered, a method after a "+" does not work
      on other methods, or a hyperparameter is out of range.
    TypeError: If a method has no such hyperparameter.

  Example:
    >>> from_name("gmixout+wise_ft", wise_ft={"alpha": 0.25}).alpha
    0.25
    >>> from_name("gmixout+wise_ft").of == METHODS["gmixout"]()
    True
  """
  method: Method | None = None
  for part in name.split("+"):
    if part not in METHODS:
      raise ValueError(
        f"method {part!r} is not one of {', '.join(sorted(METHODS))}."
      )
    cls, given = METHODS[part], changes.get(part, {})
    if method is None:
      method = cls(**given)
      if isinstance(method, Composed):
        inner = from_name("full_finetuning", **changes)
        method = dataclasses.replace(method, of=inner)
    elif issubclass(cls, Composed):
      method = cls(of=method, **given)
    else:
      raise ValueError(f"{part!r} in {name!r} does not work on other methods.")
  assert method is not None
  return method


def described(method: Method) -> dict[str, Any]:
  """Name and hyperparameters, for a line of results.

  Fields with ``compare=False``, which do not affect the weights, are left out.
  """
  fields = {
    field.name: getattr(method, field.name)
    for field in dataclasses.fields(method)
    if field.compare
  }
  inner = {
    name: described(value)
    for name, value in fields.items()
    if isinstance(value, Method)
  }
  return {"name": name_of(method), **fields, **inner}
