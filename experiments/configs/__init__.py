"""The experiments by name: one file each, and nothing to register.

`load("imagenet")` is what `experiments.run` runs; the name is the file's.
"""

import importlib
import pkgutil

from experiments.experiment import Experiment


def names() -> tuple[str, ...]:
  """All experiments, in order of their names."""
  return tuple(sorted(found.name for found in pkgutil.iter_modules(__path__)))


def load(name: str) -> Experiment:
  """The experiment of a name.

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
      f"the experiment must be one of {', '.join(names())}; got {name!r}."
    )
  return importlib.import_module(f"{__name__}.{name}")
