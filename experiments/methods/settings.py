"""Hyperparameters from a command line: one value each, or several to try."""

import ast
import dataclasses
import itertools
import math
import typing
from collections.abc import Iterable, Iterator
from typing import Any

from experiments.methods import METHODS, Method, name_of
from experiments.methods.composition import Composed

Settings = dict[str, dict[str, Any]]
"""Hyperparameters by method."""

_OPENING, _CLOSING = "([{", ")]}"


def parse_settings(settings: Iterable[str]) -> Settings:
  """Hyperparameters by method.

  Raises:
    ValueError: If one is not NAME.FIELD=VALUE with a registered name, is given
      twice, or has several values.

  Example:
    >>> parse_settings(["gmixout.sampler=uniform", "gmixout.sparsity=0.8"])
    {'gmixout': {'sampler': 'uniform', 'sparsity': 0.8}}
  """
  settings = list(settings)
  found = parse_grid(settings)
  if len(found) > 1:
    several = next(one for one in settings if len(_values(one)) > 1)
    raise ValueError(f"a setting must have one value here, got {several!r}.")
  return found[0]


def parse_grid(settings: Iterable[str]) -> list[Settings]:
  """Every combination of hyperparameters that may have several values.

  Args:
    settings: NAME.FIELD=VALUE, or NAME.FIELD=VALUE,VALUE,... A value that holds
      commas of its own stands in brackets: uniform_soup.factors=(1,2),(1,3).

  Returns:
    The combinations, the last setting varying fastest; one without settings if
    there are none.

  Raises:
    ValueError: If one is not of this form with a registered name, if a field is
      given twice, or a value is, or a value is not of the field's type.

  Example:
    >>> parse_grid(["gmixout.anchor_decay=0,0.3", "gmixout.rescale=true"])
    [{'gmixout': {'anchor_decay': 0.0, 'rescale': True}}, \
{'gmixout': {'anchor_decay': 0.3, 'rescale': True}}]
  """
  fields: dict[tuple[str, str], str] = {}
  choices: list[list[Any]] = []
  for setting in settings:
    name, field = _field(setting)
    if (name, field) in fields:
      raise ValueError(
        f"{name}.{field} is given twice, as {fields[name, field]!r} and"
        f" {setting!r}: give it once; several values have commas between."
      )
    fields[name, field] = setting
    kind = typing.get_type_hints(METHODS[name])[field]
    values = [_typed(kind, value, setting) for value in _values(setting)]
    for index, value in enumerate(values):
      if value in values[:index]:
        raise ValueError(f"{setting!r} has the value {value!r} twice.")
    choices.append(values)
  return [_nested(fields, values) for values in itertools.product(*choices)]


def parts(method: Method) -> set[str]:
  """The names of a method, and of those that it works on."""
  found = {name_of(method).split("+")[-1]}
  return found | parts(method.of) if isinstance(method, Composed) else found


def changed(method: Method, settings: Settings) -> Method:
  """The method with other hyperparameters, wherever a name occurs in it.

  Example:
    >>> from experiments.methods import from_name
    >>> soup = from_name("gmixout+wise_ft")
    >>> changed(soup, {"gmixout": {"sparsity": 0.5}}).of.sparsity
    0.5
  """
  if isinstance(method, Composed):
    method = dataclasses.replace(method, of=changed(method.of, settings))
  name = name_of(method).split("+")[-1]
  return dataclasses.replace(method, **settings.get(name, {}))


def _typed(kind: Any, value: Any, setting: str) -> Any:
  """A value as a field holds it: a line is found again by its text.

  Args:
    kind: The field's type.
    value: A Python value, or a bare word.
    setting: What the user wrote, for the message.

  Raises:
    ValueError: If the field holds no such value.
  """
  is_number = isinstance(value, int | float) and not isinstance(value, bool)
  if typing.get_origin(kind) is typing.Literal:
    allowed = typing.get_args(kind)
    if value in allowed:
      return value
    wanted = f"one of {', '.join(allowed)}"
  elif kind is bool:
    words = {"true": True, "false": False, "1": True, "0": False}
    if (word := str(value).lower()) in words:
      return words[word]
    wanted = "true or false"
  elif kind is float:
    if is_number and math.isfinite(value):
      return float(value)
    wanted = "a finite number"
  elif kind is int:
    if isinstance(value, int) and is_number:
      return value
    wanted = "a whole number"
  elif typing.get_origin(kind) is tuple:
    if isinstance(value, list | tuple):
      one = typing.get_args(kind)[0]
      return tuple(_typed(one, each, setting) for each in value)
    wanted = "numbers in brackets, such as (1,2)"
  else:
    if isinstance(value, str):
      return value
    wanted = "a word"
  raise ValueError(
    f"--set {setting}: the value must be {wanted}, got {value!r}."
  )


def _nested(
  fields: Iterable[tuple[str, str]], values: Iterable[Any]
) -> Settings:
  found: Settings = {}
  for (name, field), value in zip(fields, values, strict=True):
    found.setdefault(name, {})[field] = value
  return found


def _field(setting: str) -> tuple[str, str]:
  where, equals, _ = setting.partition("=")
  name, dot, field = where.partition(".")
  if not (equals and dot and name in METHODS):
    raise ValueError(
      f"--set must be NAME.FIELD=VALUE with a method's name, got {setting!r}."
    )
  # What a method works on is said by its name, as in gmixout+wise_ft.
  fields = dataclasses.fields(METHODS[name])
  known = [f.name for f in fields if f.name != "of"]
  if field not in known:
    raise ValueError(f"{name} has {', '.join(known)}, got {setting!r}.")
  return name, field


def _values(setting: str) -> list[Any]:
  """The values of a setting, in order."""
  found = []
  for part in _split(setting.partition("=")[2]):
    if not part.strip():
      raise ValueError(f"{setting!r} has a value that is empty.")
    try:
      found.append(ast.literal_eval(part.strip()))
    except (SyntaxError, ValueError):
      found.append(part.strip())  # a bare word
  return found


def _split(text: str) -> Iterator[str]:
  """Cuts at the commas that stand outside of brackets and quotes."""
  part, depth, quote = "", 0, ""
  for letter in text:
    if quote:
      quote = "" if letter == quote else quote
    elif letter in "'\"":
      quote = letter
    elif letter in _OPENING:
      depth += 1
    elif letter in _CLOSING:
      depth -= 1
    elif letter == "," and depth == 0:
      yield part
      part = ""
      continue
    part += letter
  yield part
