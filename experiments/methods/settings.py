"""Hyperparameters as a command line gives them."""

import ast
import dataclasses
from collections.abc import Iterable
from typing import Any

from experiments.methods import METHODS


def parse_settings(settings: Iterable[str]) -> dict[str, dict[str, Any]]:
  """Hyperparameters by method.

  Raises:
    ValueError: If one is not NAME.FIELD=VALUE with a registered name.

  Example:
    >>> parse_settings(["gmixout.sampler=uniform", "gmixout.sparsity=0.8"])
    {'gmixout': {'sampler': 'uniform', 'sparsity': 0.8}}
  """
  changes: dict[str, dict[str, Any]] = {}
  for setting in settings:
    where, equals, value = setting.partition("=")
    name, dot, field = where.partition(".")
    if not (equals and dot and name in METHODS):
      raise ValueError(
        f"--set must be NAME.FIELD=VALUE with a method's name, got {setting!r}."
      )
    known = [f.name for f in dataclasses.fields(METHODS[name])]
    if field not in known:
      raise ValueError(f"{name} has {', '.join(known)}, got {setting!r}.")
    try:
      changes.setdefault(name, {})[field] = ast.literal_eval(value)
    except (SyntaxError, ValueError):
      changes.setdefault(name, {})[field] = value  # a bare word
  return changes
