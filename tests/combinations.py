"""Which combinations of parameters `make test` tries, and `make test-all`.

The latter tries all. Those that the former leaves out are marked `exhaustive`:
each is another combination of values that are tested anyway.
"""

import collections
import itertools
from collections.abc import Callable, Iterable
from typing import Any

import pytest

EXHAUSTIVE = pytest.mark.exhaustive


def every_value(*lists: Iterable[Any]) -> list:
  """All combinations; `make test` tries a few with every value in one."""
  return _all_but_marked(lists, together=1)


def every_pair(*lists: Iterable[Any]) -> list:
  """All combinations; `make test` tries some with any two values in one."""
  return _all_but_marked(lists, together=2)


def tried(cases: Iterable[Any], often: Callable[..., bool]) -> list:
  """All cases, each a value or a tuple; `make test` tries some of them."""
  return [_case(case, often(*case)) if isinstance(case, tuple)
          else _case((case,), often(case)) for case in cases]  # fmt: skip


def _case(values, often):
  return pytest.param(*values, marks=() if often else EXHAUSTIVE)


def _all_but_marked(lists, together):
  lists = [list(values) for values in lists]
  numbered = [range(len(values)) for values in lists]

  def tuples(combination):
    return set(itertools.combinations(enumerate(combination), together))

  combinations = list(itertools.product(*numbered))
  missing = set().union(*map(tuples, combinations))
  chosen, uses = set(), collections.Counter()
  while missing:
    # Of those with as much that is new, the one of values that are rare so far.
    best = max(
      combinations,
      key=lambda one: (
        len(missing & tuples(one)),
        -sum(uses[value] for value in enumerate(one)),
      ),
    )
    chosen.add(best)
    uses.update(enumerate(best))
    missing -= tuples(best)
  return [
    _case([lists[i][j] for i, j in enumerate(one)], one in chosen)
    for one in combinations
  ]
