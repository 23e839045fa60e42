"""Reads a folder in DomainBed's layout: ``root/<domain>/<class>/<image>``.

PACS, VLCS, OfficeHome, TerraIncognita and DomainNet are distributed this way.
"""

import os
import pathlib
from collections import Counter

from experiments.data import folders
from experiments.data.decode import View
from experiments.data.images import Files, ImageSet

_LAYOUT = "expected <root>/<domain>/<class>/<image>"


def find(
  root: str | os.PathLike[str],
  *,
  same_classes: bool = True,
  left_out: folders.LeftOut | None = None,
) -> dict[str, dict[str, list[pathlib.Path]]]:
  """Lists the image files of every class of every domain.

  Args:
    root: The folder that holds one folder per domain.
    same_classes: Whether a class that a domain lacks is an error.
    left_out: Where what is passed over is counted.

  Returns:
    domain -> class -> files, all three sorted by name. Every class has a file
    and, with ``same_classes``, every domain has the same classes.

  Raises:
    FileNotFoundError: If there is no such folder or no domain in it.
    ValueError: If a domain lacks a class that another one has.
  """
  root = pathlib.Path(root)
  if not root.is_dir():
    raise FileNotFoundError(f"no folder {root}: {_LAYOUT}.")
  left_out = Counter() if left_out is None else left_out
  found = {
    domain.name: folders.by_class(domain, left_out)
    for domain in folders.subfolders(root, left_out)
  }
  classes = sorted(set().union(*found.values()))
  if not classes:
    raise FileNotFoundError(f"no images in {root}: {_LAYOUT}.")
  if not same_classes:
    if empty := sum(not files for files in found.values()):
      left_out["domains without an image"] += empty
    return {domain: files for domain, files in found.items() if files}
  for domain, files in found.items():
    if missing := [name for name in classes if name not in files]:
      raise ValueError(
        f"domain {domain!r} in {root} has no images of class"
        f" {', '.join(map(repr, missing))}, which another domain has: {_LAYOUT}"
        " with the same classes in every domain."
      )
  return found


def open_images(
  root: str | os.PathLike[str], *, view: View, same_classes: bool = True
) -> ImageSet:
  """Opens every domain of a DomainBed folder without decoding anything.

  Args:
    root: The folder that holds one folder per domain.
    view: What to see of every image; DomainBed squeezes.
    same_classes: Whether a class that a domain lacks is an error. If not, the
      classes are the union over domains.

  Returns:
    All images, ordered by domain, class and file name. All domains share one
    list of classes, so a label means the same everywhere.

  Raises:
    FileNotFoundError: If the folder or its images are missing.
    ValueError: If classes differ between domains.
  """
  left_out: folders.LeftOut = Counter()
  found = find(root, same_classes=same_classes, left_out=left_out)
  names = sorted(set().union(*found.values()))
  paths, labels, domains = [], [], []
  for domain, classes in enumerate(found.values()):
    for name, files in classes.items():
      paths += [str(file) for file in files]
      labels += [names.index(name)] * len(files)
      domains += [domain] * len(files)
  return ImageSet.of(
    Files(tuple(paths), view),
    labels,
    names,
    domains=domains,
    domain_names=tuple(found),
    left_out=folders.notes(root, left_out),
  )
