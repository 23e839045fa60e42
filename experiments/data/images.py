"""Labelled images that are decoded when they are asked for.

Every reader of this package returns an `ImageSet`: a random-access
source for Grain. What is where (labels, domains, files) is known at once and
small; pixels are decoded by the threads or processes that ask for them. Order
is fixed when the set is opened, so batch t of a shuffled, augmented stream is a
function of the seed and t alone (see `experiments.data.batches`): a run
resumes from its step, or from the state of Grain's iterator.
"""

import concurrent.futures
import dataclasses
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple, Protocol, Self

import numpy as np
from jaxtyping import Bool, Int, UInt8

from experiments.data.augmentation import Policy
from experiments.data.decode import Content, View, decode
from experiments.data.split import Split
from experiments.data.workers import chosen


class Loader(Protocol):
  """Where pixels come from. It is pickled when processes decode."""

  @property
  def view(self) -> View | None:
    """What evaluation sees of an image; None for all its pixels."""
    ...

  def read(self, row: int, /) -> Content:
    """The original of one image, of which training draws crops."""
    ...

  def load(self, row: int, /) -> UInt8[np.ndarray, "height width 3"]:
    """The pixels of its view; ValueError names the image if it is broken."""
    ...

  def name(self, row: int, /) -> str:
    """What to call the image in a message, such as its path."""
    ...


@dataclasses.dataclass(frozen=True)
class Files:
  """Image files.

  Attributes:
    paths: One per row.
    view: What to see of each.
  """

  paths: Sequence[str]
  view: View

  def read(self, row: int) -> str:
    """Its path."""
    return self.paths[row]

  def load(self, row: int) -> np.ndarray:
    """Decodes a file."""
    return decode(self.paths[row], self.view)

  def name(self, row: int) -> str:
    """Its path."""
    return str(self.paths[row])


class Broken(NamedTuple):
  """An image that could not be decoded, and why."""

  name: str
  reason: str


@dataclasses.dataclass(frozen=True, eq=False)
class ImageSet:
  """Images of one or several domains with their labels.

  Item i is ``{"image": uint8 [height, width, 3], "label": int32, "domain":
  int32}``.

  Attributes:
    loader: Decodes a row.
    rows: Which of the loader's rows belong to the set, in order.
    labels: Indices into ``class_names``.
    class_names: What the labels mean.
    domains: Indices into ``domain_names``.
    domain_names: What the domains are called.
    outputs: Per class the outputs of the head that mean it; None if output c is
      class c. ImageNet-A's 200 classes name one of 1,000 outputs each, some of
      ObjectNet's several; see `experiments.metrics.select`.
    broken: What was left out because it could not be decoded.
    left_out: Sentences on what was passed over when files were listed.
  """

  loader: Loader
  rows: Int[np.ndarray, " n"]
  labels: Int[np.ndarray, " n"]
  class_names: tuple[str, ...]
  domains: Int[np.ndarray, " n"]
  domain_names: tuple[str, ...]
  outputs: tuple[tuple[int, ...], ...] | None = None
  broken: tuple[Broken, ...] = ()
  left_out: tuple[str, ...] = ()

  @classmethod
  def of(
    cls,
    loader: Loader,
    labels: Sequence[int] | np.ndarray,
    class_names: Sequence[str],
    *,
    domains: Sequence[int] | np.ndarray | None = None,
    domain_names: Sequence[str] = ("all",),
    outputs: Sequence[Sequence[int]] | None = None,
    left_out: tuple[str, ...] = (),
  ) -> Self:
    """All rows of a loader.

    Args:
      loader: It has ``len(labels)`` rows.
      labels: One per row.
      class_names: What they mean.
      domains: One per row; 0 if None.
      domain_names: What they are called.
      outputs: See the class.
      left_out: Likewise.

    Raises:
      ValueError: If a label or a domain is out of range; it names the image.
    """
    labels = np.asarray(labels, np.int32)
    if domains is None:
      domains = np.zeros(len(labels), np.int32)
    domains = np.asarray(domains, np.int32)
    for what, values, names in (
      ("label", labels, class_names),
      ("domain", domains, domain_names),
    ):
      wrong = np.flatnonzero((values < 0) | (values >= len(names)))
      if wrong.size:
        row = int(wrong[0])
        raise ValueError(
          f"{loader.name(row)} has {what} {values[row]}: expected 0 to"
          f" {len(names) - 1}, for there are {len(names)} names."
        )
    if outputs is not None and len(outputs) != len(class_names):
      raise ValueError(
        f"outputs has {len(outputs)} entries for {len(class_names)} classes."
      )
    return cls(
      loader,
      np.arange(len(labels)),
      labels,
      tuple(class_names),
      domains,
      tuple(domain_names),
      None if outputs is None else tuple(tuple(group) for group in outputs),
      left_out=left_out,
    )

  def __len__(self) -> int:
    return len(self.rows)

  def __getitem__(self, index: int) -> dict[str, Any]:
    return {
      "image": self.loader.load(int(self.rows[index])),
      "label": self.labels[index],
      "domain": self.domains[index],
    }

  def drawn(
    self, index: int, policy: Policy, rng: np.random.Generator
  ) -> dict[str, Any]:
    """An image as training sees it: a crop of the original, of the view's size.

    Args:
      index: Which.
      policy: The augmentation.
      rng: What draws.

    Raises:
      ValueError: If it is not a readable image; it names the file.
    """
    row = int(self.rows[index])
    content, view = self.loader.read(row), self.loader.view
    if view is not None:
      size = (view.size, view.size)
    else:
      assert isinstance(content, np.ndarray)  # or there would be a view
      size = content.shape[:2]
    pixels = policy.drawn(
      content,
      size,
      rng,
      border=0 if view is None else view.border,
      name=self.loader.name(row),
    )
    return {
      "image": pixels,
      "label": self.labels[index],
      "domain": self.domains[index],
    }

  def name(self, index: int) -> str:
    """What to call an image in a message, such as its path."""
    return self.loader.name(int(self.rows[index]))

  def take(
    self, chosen: Int[np.ndarray, " m"] | Bool[np.ndarray, " n"]
  ) -> Self:
    """These images, by index in this order, or those where a mask is true."""
    return dataclasses.replace(
      self,
      rows=self.rows[chosen],
      labels=self.labels[chosen],
      domains=self.domains[chosen],
    )

  def domain(self, name: str) -> Self:
    """The images of one domain.

    Raises:
      ValueError: There is no such domain; it lists those that there are.
    """
    if name not in self.domain_names:
      raise ValueError(
        f"domain must be one of {', '.join(self.domain_names)}; got {name!r}."
      )
    return self.take(self.domains == self.domain_names.index(name))

  def by_domain(self) -> dict[str, Self]:
    """Every domain on its own; labels mean the same in all of them."""
    return {name: self.domain(name) for name in self.domain_names}

  def counts(self) -> Int[np.ndarray, "domains classes"]:
    """How many images there are."""
    table = np.zeros((len(self.domain_names), len(self.class_names)), int)
    np.add.at(table, (self.domains, self.labels), 1)
    return table

  def chunks(
    self, size: int, *, workers: int | None = None
  ) -> Iterator[UInt8[np.ndarray, "m height width 3"]]:
    """All images in order, a few at a time, decoded by threads.

    Threads suffice, for PIL releases the GIL. The next chunk is decoded while
    the caller works on this one, and no more than two are held.
    """
    workers = workers or chosen().resolved()[0]
    with concurrent.futures.ThreadPoolExecutor(workers) as pool:

      def start(first: int) -> list[concurrent.futures.Future[np.ndarray]]:
        rows = self.rows[first : first + size]
        return [pool.submit(self.loader.load, int(row)) for row in rows]

      ahead = start(0)
      try:
        for first in range(size, len(self) + size, size):
          current, ahead = ahead, start(first)
          yield np.stack([future.result() for future in current])
      finally:
        pool.shutdown(cancel_futures=True)  # one broken image is enough

  def intact(self, *, workers: int | None = None) -> Self:
    """The set without the images that cannot be decoded.

    It decodes every image once, so that the images of a batch stay a function
    of seed and step. What was left out is counted in ``broken``.
    """
    workers = workers or chosen().resolved()[0]

    def reason(row: np.integer) -> str | None:
      try:
        self.loader.load(int(row))
      except ValueError as error:
        return str(error)
      return None

    with concurrent.futures.ThreadPoolExecutor(workers) as pool:
      reasons = list(pool.map(reason, self.rows))
    bad = tuple(
      Broken(self.name(index), why)
      for index, why in enumerate(reasons)
      if why is not None
    )
    good = self.take(np.array([why is None for why in reasons], bool))
    return dataclasses.replace(good, broken=self.broken + bad)

  def in_memory(self, *, workers: int | None = None) -> Split:
    """Every image decoded, for sets that fit.

    Raises:
      ValueError: If there is no image, or one is broken; it names the file.
    """
    if not len(self):
      where = ", ".join(self.domain_names[:5])
      where += ", ..." if len(self.domain_names) > 5 else ""
      why = (
        f": {len(self.broken)} could not be decoded, the first is"
        f" {self.broken[0].name}"
        if self.broken
        else ""
      )
      raise ValueError(
        f"there are no images to decode in a set of the domains {where}{why}."
      )
    first = self.loader.load(int(self.rows[0]))
    images = np.empty((len(self), *first.shape), np.uint8)
    done = 0
    for chunk in self.chunks(256, workers=workers):
      images[done : done + len(chunk)] = chunk
      done += len(chunk)
    return Split(images, self.labels, self.class_names)


@dataclasses.dataclass(frozen=True, eq=False)
class Pixels:
  """Pixels that are in memory already, or in a memory-mapped file.

  Attributes:
    images: One image per row.
    view: What to see of each; None for the image unchanged.
    origin: Where they come from, for messages.
  """

  images: UInt8[np.ndarray, "n height width 3"]
  view: View | None = None
  origin: str = "array"

  def read(self, row: int) -> np.ndarray:
    """An image, unchanged."""
    return np.asarray(self.images[row])

  def load(self, row: int) -> np.ndarray:
    """An image, resized if there is a view."""
    pixels = self.read(row)
    return pixels if self.view is None else decode(pixels, self.view)

  def name(self, row: int) -> str:
    """The origin and the row."""
    return f"{self.origin}[{row}]"
