"""Files of others that may be damaged: errors that name them, and bounds."""

import contextlib
import csv
import os
import pathlib
from collections.abc import Iterator

MOST_NAMES = 100_000
"""Classes, or places, that numbers in a file may ask for."""


@contextlib.contextmanager
def parsing(path: str | os.PathLike[str]) -> Iterator[None]:
  """Turns what a damaged file makes its reader raise into an error.

  Args:
    path: The file, for the message.

  Raises:
    ValueError: If something is raised that is no error of a user's input yet;
      it names the file.
  """
  try:
    yield
  except UnicodeDecodeError as error:
    raise ValueError(f"{path} is not in UTF-8: {error}.") from None
  except IsADirectoryError:
    raise ValueError(f"{path} is a folder, and a file is expected.") from None
  except (
    *(LookupError, TypeError, AttributeError, ArithmeticError),
    *(RecursionError, EOFError, SyntaxError, MemoryError, csv.Error),
  ) as error:
    raise ValueError(f"{path} is damaged: {error!r}.") from None


def numbered(largest: int, where: str) -> tuple[str, ...]:
  """Names for the numbers up to the largest one that a file has.

  Raises:
    ValueError: If it is too large; `where` says whose it is.
  """
  if largest >= MOST_NAMES:
    raise ValueError(
      f"{where} must be a number below {MOST_NAMES}, got {largest}."
    )
  return tuple(map(str, range(largest + 1)))


def inside(folder: pathlib.Path, name: str, where: str) -> pathlib.Path:
  """A file that a list names, below its folder.

  Args:
    folder: The folder.
    name: Relative to it.
    where: The line that names it, for the message.

  Raises:
    ValueError: If it lies elsewhere.

  Example:
    >>> inside(pathlib.Path("a"), "b/../c.png", "list.csv:3").as_posix()
    'a/b/../c.png'
  """
  plain = os.path.normpath(name)
  if os.path.isabs(name) or plain.split(os.sep)[0] == ".." or "\0" in name:
    raise ValueError(f"{where}: {name!r} does not lie in {folder}.")
  return folder / name
