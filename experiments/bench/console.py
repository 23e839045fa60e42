"""What benchmarks show while they run and at their end.

By rich, and as plain text where that is missing: a machine with a GPU need
have no more than the library and its tests need.
"""

import contextlib
from collections.abc import Iterable, Sequence
from typing import Any


def track[Item](items: Sequence[Item], what: str) -> Iterable[Item]:
  """Goes through some items and shows how far it is."""
  rich = _rich()
  if rich is None:
    return items
  return rich.progress.track(items, what, transient=True)


def status(what: str) -> contextlib.AbstractContextManager[Any]:
  """Shows what is being done as long as it lasts."""
  rich = _rich()
  if rich is None:
    return contextlib.nullcontext()
  return rich.get_console().status(what)


def table(
  title: str,
  head: Sequence[str],
  rows: Sequence[Sequence[str]],
  marked: Sequence[bool],
) -> None:
  """Prints a table: names on the left, the other columns to the right.

  Args:
    title: Its heading.
    head: Names of the columns.
    rows: As many cells each.
    marked: Whether a row stands out.
  """
  rich = _rich()
  if rich is None:
    _plain(title, head, rows, marked)
    return
  shown = rich.table.Table(title=title)
  for number, name in enumerate(head):
    shown.add_column(name, justify="right" if number else "left")
  for row, stands_out in zip(rows, marked, strict=True):
    shown.add_row(*row, style="red" if stands_out else None)
  rich.print(shown)


def _plain(
  title: str,
  head: Sequence[str],
  rows: Sequence[Sequence[str]],
  marked: Sequence[bool],
) -> None:
  widths = [max(map(len, column)) for column in zip(head, *rows, strict=True)]
  print(title)
  for row, stands_out in zip([head, *rows], [False, *marked], strict=True):
    name, *numbers = (
      cell.rjust(width) if number else cell.ljust(width)
      for number, (cell, width) in enumerate(zip(row, widths, strict=True))
    )
    line = "  ".join([name, *numbers]) + ("  missed" if stands_out else "")
    print(line.rstrip())


def _rich() -> Any:
  """The package, or None where it is missing."""
  try:
    import rich.progress
    import rich.table
  except ImportError:
    return None
  return rich
