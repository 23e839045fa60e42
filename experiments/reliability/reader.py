"""A kind of input that `fuzz` damages, how it is read, and what may come of it.

A kind writes small files that are good, and reads them. What is read of damaged
ones is an error that names the input, or a value that passes `right`.
"""

import pathlib
from collections.abc import Callable
from random import Random
from typing import Any, NamedTuple

Path = pathlib.Path


class Reader(NamedTuple):
  """A kind of input.

  Attributes:
    name: Of it.
    make: Writes good files into a folder.
    damaged: The names of those that are damaged, as patterns.
    damage: From their bytes to others.
    read: Reads the folder.
    right: Whether what was read may be right.
    names_input: Whether an error must name the file, or the folder.
    disturb: Damages the folder itself, and no file in it, if it is set.
  """

  name: str
  make: Callable[[Path], None]
  damaged: str
  damage: Callable[[bytes, Random], bytes]
  read: Callable[[Path], Any]
  right: Callable[[Any], bool]
  names_input: bool = True
  disturb: Callable[[Path, Random], None] | None = None
