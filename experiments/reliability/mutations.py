"""Damage to files and folders, drawn by a seed.

To bytes, to JSON, to lines of text, and to the names in a folder. Values in the
place of others are extremes, or structures that Hypothesis makes up.
"""

import copy
import functools
import json
import os
import pathlib
import random
import shutil
from typing import Any

import hypothesis
from hypothesis import strategies

EXTREMES: tuple[Any, ...] = (
  None, True, False, 0, -1, 1, 2, 3, 7, 255, 10**9, 2**31, 2**63, 10**30,
  -(10**30), 0.5, 1e308, float("nan"), float("inf"), -float("inf"), "", "0",
  "1e9", "nan", "gs://bucket/x", "../../etc/passwd", "/dev/zero", "[/red]",
  "<script>", "a" * 5000, "\u0000", "Größe\u202e", [], {}, [[]], [0], [None],
  {"": None}, {"a": {"b": []}},
)  # fmt: skip
"""Values in the place of others."""

_STRUCTURES = strategies.recursive(
  strategies.none()
  | strategies.booleans()
  | strategies.integers()
  | strategies.floats()
  | strategies.text(strategies.characters(codec="utf-8"), max_size=8),
  lambda inner: (
    strategies.lists(inner, max_size=4)
    | strategies.dictionaries(
      strategies.text(strategies.characters(codec="utf-8"), max_size=8),
      inner,
      max_size=4,
    )
  ),
  max_leaves=12,
)
_POOLS = 8

NAMES: tuple[str, ...] = (
  " ", "-", "--help", "~", "*", "[red]", "<b>", "%s%n", "a\nb", "x\u202ey",
  "Größe", "Gro\u0308ße", "犬", "0", "07", "1e9", "nan", "n01440764", "a" * 255,
  "NUL", ".hidden", ".png", "a.png", "a.PNG", "b.jpg", "image.tif", "x.png.txt",
  "gs:", "..x", "train", "val",
)  # fmt: skip
"""Of files and folders."""

TEXTS: tuple[bytes, ...] = (
  b"", b"\n", b"\0", b"\xff\xfe", b"\xef\xbb\xbf", b"{", b"[" * 50_000,
  b'"' * 99, b'{"a": ' * 20_000, b"1" * 5000, b"NaN", b",,,,\n" * 50, b"\r\n\r",
  b";" * 40, b"99999999999999999999", b"%s%n", "é".encode("latin-1"),
  "é".encode("utf-16"),
)  # fmt: skip
"""Bytes in the place of others, or of all."""


def of_bytes(data: bytes, rng: random.Random) -> bytes:
  """A file with some of its bytes replaced, cut out, doubled or cut off."""
  found = bytearray(data)
  for _ in range(rng.choice((1, 1, 1, 2, 5, 20))):
    # Mostly in the header, which is what parsers look at.
    end = len(found) if rng.random() < 0.5 else min(len(found), 300)
    start = rng.randint(0, end)
    stop = min(len(found), start + rng.choice((0, 1, 1, 4, 8, 60, 900)))
    kind = rng.randrange(6)
    if kind == 0:
      found[start:stop] = rng.randbytes(stop - start)
    elif kind == 1:
      found[start:stop] = b""
    elif kind == 2:
      found[start:start] = found[start:stop]
    elif kind == 3:
      found[start:stop] = rng.choice(TEXTS)
    elif kind == 4 and start < len(found):
      found[start] ^= 1 << rng.randrange(8)
    elif kind == 5:
      del found[stop:]
  return bytes(found)


def of_json(data: bytes, rng: random.Random) -> bytes:
  """JSON with values replaced, dropped, renamed or nested; or bytes damaged."""
  if rng.random() < 0.25:
    return rng.choice((of_bytes(data, rng), rng.choice(TEXTS)))
  value = json.loads(data)
  for _ in range(rng.choice((1, 1, 2, 4))):
    value = _changed(value, rng)
  return json.dumps(value).encode()


@functools.cache
def _structures(seed: int) -> tuple[Any, ...]:
  """Values that JSON can hold, which Hypothesis makes up by a seed."""
  found: list[Any] = []

  @hypothesis.seed(seed)
  @hypothesis.settings(
    max_examples=100,
    database=None,
    deadline=None,
    phases=[hypothesis.Phase.generate],
    suppress_health_check=list(hypothesis.HealthCheck),  # pyright: ignore
  )
  @hypothesis.given(_STRUCTURES)
  def keep(value: Any) -> None:
    found.append(value)

  keep()
  return tuple(found)


def _other(rng: random.Random) -> Any:
  """A value in the place of another one."""
  pool = EXTREMES if rng.random() < 0.6 else _structures(rng.randrange(_POOLS))
  return copy.deepcopy(rng.choice(pool))


def _changed(value: Any, rng: random.Random) -> Any:
  """One value somewhere below is another."""
  inner = list(value) if isinstance(value, dict) else []
  if isinstance(value, list):
    inner = list(range(len(value)))
  if not inner or rng.random() < 0.1:
    return _other(rng)
  key = rng.choice(inner)
  kind = rng.random()
  if kind < 0.1:
    del value[key]
  elif kind < 0.2 and isinstance(value, dict):
    value[rng.choice(("", "x", f"{key} ", "model_type"))] = value.pop(key)
  elif kind < 0.25 and isinstance(value, list):
    value += copy.deepcopy(value)
  else:
    value[key] = _changed(value[key], rng)
  return value


def of_lines(data: bytes, rng: random.Random) -> bytes:
  """Text with lines doubled, dropped, swapped or changed; or bytes damaged."""
  if rng.random() < 0.3:
    return rng.choice((of_bytes(data, rng), rng.choice(TEXTS)))
  lines = data.splitlines(keepends=True) or [b"\n"]
  for _ in range(rng.choice((1, 1, 2, 4))):
    at = rng.randrange(len(lines))
    kind = rng.randrange(5)
    if kind == 0:
      lines.insert(at, lines[at])
    elif kind == 1 and len(lines) > 1:
      del lines[at]
    elif kind == 2:
      other = rng.randrange(len(lines))
      lines[at], lines[other] = lines[other], lines[at]
    else:
      cells = lines[at].rstrip(b"\n").split(rng.choice((b",", b" ", b": ")))
      cell = str(rng.choice(EXTREMES)).encode(errors="surrogatepass")
      cells[rng.randrange(len(cells))] = cell
      lines[at] = rng.choice((b",", b" ")).join(cells) + b"\n"
  return b"".join(lines)


def of_folder(folder: pathlib.Path, rng: random.Random) -> None:
  """Names in a folder and below it added, renamed, emptied or dropped.

  What is added are files, folders, pipes, and links to nothing, to a folder
  above, to a file, or to a device.
  """
  for _ in range(rng.choice((1, 1, 2, 4))):
    every = sorted(path for path in folder.rglob("*") if not path.is_symlink())
    inner = [folder, *(path for path in every if path.is_dir())]
    new = rng.choice(inner) / rng.choice(NAMES)
    if rng.random() < 0.5 and not new.suffix:
      new = new.with_name(f"{new.name[:250]}.png")
    old = rng.choice(every) if every else None
    kind = rng.randrange(8)
    if kind == 0 and old is not None:
      shutil.rmtree(old) if old.is_dir() else old.unlink()
    elif os.path.lexists(new):
      continue
    elif kind == 1 and old is not None and old not in new.parents:
      old.rename(new)
    elif kind == 2:
      new.mkdir()
    elif kind == 3:
      os.mkfifo(new)
    elif kind == 4:
      new.write_bytes(rng.choice(TEXTS))
    elif kind == 5:
      targets = ("nowhere", "..", ".", "/dev/zero", "/dev/null", new.name)
      new.symlink_to(rng.choice(targets))
    elif kind == 6 and old is not None:
      new.symlink_to(old)
    elif kind == 7 and old is not None and old.is_dir():
      shutil.rmtree(old)
      old.mkdir()
