"""Tells whether a copy of a data set is complete."""

import pathlib
import sys
from typing import Annotated

import numpy as np
import rich
import rich.table
import tyro
from rich.markup import escape

from experiments.command_line import WRONG_INPUT
from experiments.data.decode import View
from experiments.data.known import KNOWN, Known, Parts
from gmixout_jax.checkpoint.files import local_path


def compare(parts: Parts, known: Known) -> list[str]:
  """What differs from what was expected, a sentence each; nothing if all is.

  Args:
    parts: What was found.
    known: What should be there.
  """
  found = {name: len(images) for name, images in parts.items()}
  problems = [
    f"{name}: found {found.get(name, 0)} images, expected {expected}"
    for name, expected in known.images.items()
    if found.get(name, 0) != expected
  ]
  if known.images and (extra := sorted(found.keys() - known.images.keys())):
    problems.append(f"found {', '.join(extra)}, which should not be there")
  total = sum(found.values())
  if known.total is not None and total != known.total:
    problems.append(f"found {total} images in all, expected {known.total}")
  classes = {name for images in parts.values() for name in images.class_names}
  if known.classes is not None and len(classes) != known.classes:
    problems.append(f"found {len(classes)} classes, expected {known.classes}")
  for name, images in parts.items():
    counts = images.counts().sum(axis=0)
    empty = [
      c for c, n in zip(images.class_names, counts, strict=True) if not n
    ]
    if empty:
      problems.append(
        f"{name}: no images of {len(empty)} classes, such as {empty[0]}"
      )
    expected = known.per_class.get(name)
    if expected is not None:
      off = np.flatnonzero((counts != expected) & (counts > 0))
      if off.size:
        problems.append(
          f"{name}: {off.size} classes do not have {expected} images; class"
          f" {images.class_names[off[0]]} has {counts[off[0]]}"
        )
  return problems


def table(parts: Parts, known: Known) -> rich.table.Table:
  """Counts per part, and per class while they fit.

  Args:
    parts: What was found.
    known: What should be there.
  """
  view = rich.table.Table(title="images, found")
  view.add_column("class")
  for name in parts:
    view.add_column(escape(name), justify="right")
  classes = list(next(iter(parts.values())).class_names)
  counts = [images.counts().sum(axis=0) for images in parts.values()]
  if len(classes) <= 40:
    for c, name in enumerate(classes):
      view.add_row(
        escape(name), *(str(n[c]) if c < len(n) else "" for n in counts)
      )
  else:
    for what, index in (("fewest", 0), ("most", -1)):
      view.add_row(
        f"{what} of {len(classes)} classes",
        *(str(sorted(n)[index]) for n in counts),
      )
  view.add_section()
  view.add_row("all", *(str(len(images)) for images in parts.values()))
  if known.images:
    expected = (str(known.images.get(name, "")) for name in parts)
    view.add_row("expected", *expected)
  return view


def check(
  path: tyro.conf.Positional[pathlib.Path],
  as_: Annotated[str, tyro.conf.arg(name="as")],
  decode: bool = False,
) -> int:
  """Counts the images of a copy, found against expected.

  Args:
    path: Where the copy lies.
    as_: What it should be: a key of `experiments.data.known.KNOWN`.
    decode: Also decode every image, and name the broken ones.

  Returns:
    0 if all is there, 1 if something differs, 2 if the copy cannot be read.
  """
  if as_ not in KNOWN:
    allowed = ", ".join(KNOWN)
    said = f"error: --as must be one of {allowed}; got {as_!r}."
    print(said, file=sys.stderr)
    return 2
  known = KNOWN[as_]
  try:
    parts = known.parts(local_path("the copy", path), View(32))
  except WRONG_INPUT as error:
    print(f"error: {error}\n{as_} is {known.layout}.", file=sys.stderr)
    return 2
  rich.print(table(parts, known))
  problems = compare(parts, known)
  if decode:
    for name, images in parts.items():
      for broken in images.intact().broken:
        problems.append(f"{name}: {broken.reason}")
  notes = (note for images in parts.values() for note in images.left_out)
  for sentence in dict.fromkeys([*notes, *problems]):
    print(sentence)
  total = sum(map(len, parts.values()))
  if problems:
    print(f"{total} images; {len(problems)} differences from {as_}.")
  elif known.total is None and not known.images:
    print(f"{total} images; how many there should be is not known.")
  else:
    print(f"{total} images, as expected ({known.source}).")
  return int(bool(problems))
