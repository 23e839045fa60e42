"""A folder in DomainBed's layout: one domain is trained on, or left out.

One domain trains and all others are OOD, or all but one train and that one is
OOD (`experiments.data.folds`).
"""

import dataclasses
import functools
import os
import pathlib
from typing import Any

import numpy as np

from experiments.data import domainbed, folds
from experiments.data.decode import View
from experiments.data.images import ImageSet
from experiments.data.source import hold_out
from experiments.reporting.records import Record
from experiments.tasks import fingerprint, memory
from experiments.tasks.image_task import Sets


@dataclasses.dataclass(frozen=True, kw_only=True)
class Domains:
  """The domains of a folder.

  Attributes:
    root: <root>/<domain>/<class>/<image>.
    source: The domain to train on; all others are OOD.
    target: Or the domain to leave out: all others train.
    held_out: The fraction of each training domain held out for validation.
    skip_broken: Leave out images that cannot be decoded, with a warning.
    balanced: If a domain is left out, whether a batch has equally many images
      of each other domain; else they are drawn in proportion.
    per_domain: How many images of each OOD domain to evaluate on, drawn once
      and for all; all if None.
    fingerprint: Whether lines record a hash of the images, beside the folder's
      name.

  Raises:
    ValueError: Unless there is one of source and target.
  """

  root: pathlib.Path
  source: str | None = None
  target: str | None = None
  held_out: float = 0.2
  skip_broken: bool = False
  balanced: bool = True
  per_domain: int | None = None
  fingerprint: bool = True

  def __post_init__(self):
    if (self.source is None) == (self.target is None):
      raise ValueError(
        "--source names the one domain to train on, --target the one to leave"
        f" out: give one of them, got {self.source!r} and {self.target!r}."
      )

  @property
  def view(self) -> View:
    """See `Images`: DomainBed squeezes."""
    return View(1, fit="squeeze")

  @property
  def chosen(self) -> tuple[str, str]:
    """The option that says what trains, and the domain that it names."""
    if self.target is not None:
      return "target", self.target
    return "source", self.source or ""

  def described(self, image_size: int, batch_size: int) -> Record:
    """See `Images`; in the form that lines of domains always had."""
    option, name = self.chosen
    found: dict[str, Any] = {
      # The last part of "." or "a/.." is no name.
      "root": pathlib.Path(os.path.normpath(self.root.absolute())).name,
      option: name,
      "image_size": image_size,
      "batch_size": batch_size,
      "held_out": self.held_out,
      "skip_broken": self.skip_broken or None,
      "per_domain": self.per_domain,
      "balanced": (option == "target" and self.balanced) or None,
    }
    if self.fingerprint:
      found["digest"] = _digest(self.root)
    return {"data": {k: v for k, v in found.items() if v is not None}}

  def open(self, view: View, seed: int) -> Sets:
    """See `Images`.

    Raises:
      FileNotFoundError: If the folder is not there.
      ValueError: If the source or target is not one of its domains, or is the
        only one; if domains differ in classes, or an image is broken.
    """
    # Before the images are decoded, which takes longer.
    available = _listed(self.root, view).domain_names
    option, name = self.chosen
    if name not in available or len(available) < 2:
      raise ValueError(
        f"--{option} must be one of at least two domains of {self.root}, got"
        f" {name!r} and the domains {', '.join(available)}."
      )
    images = _images(self.root, view, self.skip_broken)
    if option == "source":
      source = hold_out(images.domain(name), fraction=self.held_out, seed=seed)
    else:
      fold = folds.leave_out(images, name, fraction=self.held_out, seed=seed)
      source = fold.source
    ood = {
      domain: _some(images.domain(domain), self.per_domain)
      for domain in images.domain_names
      if (domain == name) == (option == "target")
    }
    return Sets(
      source,
      ood,
      words=lambda: images.class_names,
      balanced=option == "target" and self.balanced,
      notes=memory.notes(images),
    )


@functools.lru_cache(maxsize=2)
def _listed(root: pathlib.Path, view: View) -> ImageSet:
  return domainbed.open_images(root, view=view)


# Decoded once for all the seeds and tasks of a process.
@functools.lru_cache(maxsize=2)
def _images(root: pathlib.Path, view: View, skip_broken: bool) -> ImageSet:
  images = _listed(root, view)
  if skip_broken:
    images = memory.without_broken(images)
  fits = memory.fits(len(images), view)
  return memory.decoded_once(images) if fits else images


@functools.cache
def _digest(root: pathlib.Path) -> str:
  found = domainbed.find(root)
  files = [
    f for by_class in found.values() for fs in by_class.values() for f in fs
  ]
  return fingerprint.of_files(root, files)


def _some(images: ImageSet, count: int | None) -> ImageSet:
  """The same images for every seed and method, so that all are paired."""
  if count is None or count >= len(images):
    return images
  order = np.random.default_rng(0).permutation(len(images))
  return images.take(np.sort(order[:count]))
