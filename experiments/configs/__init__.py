"""The experiments by name: one file each, and nothing to register.

`load("imagenet")` is what `experiments.sweep --config imagenet` runs; the name
is the file's.
"""

import importlib
import pkgutil
from typing import Any


def names() -> tuple[str, ...]:
  """All experiments, in order of their names."""
  found = pkgutil.iter_modules(__path__)
  return tuple(sorted(one.name for one in found if not one.ispkg))


def load(name: str) -> Any:
  """The experiment of a name, of one of three kinds.

  Returns:
    `experiments.tasks.experiment.Experiment`, a paper's; or another object with
    `methods`, `seeds` and `tasks`, as the demo; or one with `stages`, whose
    later cells depend on earlier ones, as the study.

  Raises:
    ValueError: If there is none; it lists those that there are.
  """
  return _module(name).EXPERIMENT


def docstring(name: str) -> str:
  """What it claims, what it needs, and the command; errors as of `load`."""
  return _module(name).__doc__ or ""


def _module(name: str):
  if name not in names():
    raise ValueError(
      f"--config must be one of {', '.join(names())}; got {name!r}."
    )
  return importlib.import_module(f"{__name__}.{name}")
