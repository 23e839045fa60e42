"""Whether two functions are the same function, written or made twice.

The metadata of a pytree decides whether two states have one structure and
whether a jitted step is compiled again. Schedules and predicates stand in it,
and ``optax.linear_schedule(0, 1, 10)`` called twice returns two functions.
"""

import functools
import types
from typing import Any


def same(one: Any, other: Any) -> bool:
  """Whether two values are equal, and functions among them made alike.

  Functions are, if they have the same code, of one module, and the same
  defaults and enclosed values. What cannot be compared is equal to itself only.

  >>> import optax
  >>> make = lambda: optax.linear_schedule(0.0, 1.0, 10)
  >>> make() == make(), same(make(), make())
  (False, True)
  >>> same(make(), optax.linear_schedule(0.0, 1.0, 11))
  False
  """
  return _same(one, other, frozenset())


def _same(one: Any, other: Any, within: frozenset[tuple[int, int]]) -> bool:
  pair = (id(one), id(other))
  if one is other or pair in within:  # a function may enclose itself
    return True
  if type(one) is not type(other):
    return False
  alike = functools.partial(_same, within=within | {pair})
  match one:
    case types.FunctionType():
      return (
        one.__code__ == other.__code__
        and one.__globals__ is other.__globals__
        and alike(_enclosed(one), _enclosed(other))
      )
    case types.MethodType():
      return one.__func__ is other.__func__ and alike(
        one.__self__, other.__self__
      )
    case functools.partial():
      return all(
        alike(getattr(one, name), getattr(other, name))
        for name in ("func", "args", "keywords")
      )
    case tuple() | list():
      return len(one) == len(other) and all(map(alike, one, other))
    case dict():
      return one.keys() == other.keys() and all(
        alike(one[key], other[key]) for key in one
      )
  try:
    return bool(one == other)
  except Exception:  # arrays, and what else has no single answer
    return False


def _enclosed(function: types.FunctionType) -> list[Any]:
  """Defaults and enclosed values; a cell not yet filled is like none other."""
  cells = function.__closure__ or ()
  try:
    inside = [cell.cell_contents for cell in cells]
  except ValueError:
    inside = [object()]
  return [function.__defaults__, function.__kwdefaults__, inside]
