"""Several sets as one with a domain each, such as the domains of a TFDS set."""

import bisect
import dataclasses
from collections.abc import Mapping

import numpy as np
from jaxtyping import UInt8

from experiments.data.images import ImageSet, Loader, Pixels
from experiments.data.split import Split


@dataclasses.dataclass(frozen=True)
class _Loaders:
  """Loaders one after the other.

  Attributes:
    loaders: At least one.
    starts: The first row of each, rising from 0.
  """

  loaders: tuple[Loader, ...]
  starts: tuple[int, ...]

  def _find(self, row: int) -> tuple[Loader, int]:
    which = bisect.bisect_right(self.starts, row) - 1
    return self.loaders[which], row - self.starts[which]

  def load(self, row: int) -> UInt8[np.ndarray, "height width 3"]:
    loader, within = self._find(row)
    return loader.load(within)

  def name(self, row: int) -> str:
    loader, within = self._find(row)
    return loader.name(within)


def join(sets: Mapping[str, ImageSet]) -> ImageSet:
  """One set whose domains are the sets given; theirs are forgotten.

  Leaving a domain out (:func:`experiments.data.folds.leave_out`) so works on
  sets that come one by one, such as `domainnet/real` and its sisters from TFDS.

  Args:
    sets: By the name of the domain; at least one, of the same classes.

  Raises:
    ValueError: If there is none, or if classes or their outputs differ; it
      names the domain.
  """
  if not sets:
    raise ValueError("there are no sets to join.")
  first_name, first = next(iter(sets.items()))
  for name, images in sets.items():
    if (images.class_names, images.outputs) != (
      first.class_names,
      first.outputs,
    ):
      raise ValueError(
        f"domain {name!r} has other classes than {first_name!r}:"
        f" {_some(images.class_names)} and {_some(first.class_names)}."
      )
  # Rows count from the start of each loader, of which a set may use a part.
  sizes = [int(images.rows.max(initial=-1)) + 1 for images in sets.values()]
  starts = np.cumsum([0, *sizes[:-1]]).tolist()
  return ImageSet(
    _Loaders(tuple(images.loader for images in sets.values()), tuple(starts)),
    np.concatenate(
      [
        images.rows + start
        for images, start in zip(sets.values(), starts, strict=True)
      ]
    ),
    np.concatenate([images.labels for images in sets.values()]),
    first.class_names,
    np.repeat(
      np.arange(len(sets), dtype=np.int32),
      [len(each) for each in sets.values()],
    ),
    tuple(sets),
    first.outputs,
    tuple(broken for images in sets.values() for broken in images.broken),
  )


def of_splits(splits: Mapping[str, Split]) -> ImageSet:
  """Sets in memory as one with a domain each; errors as of :func:`join`."""
  return join(
    {
      name: ImageSet.of(
        Pixels(split.images, origin=name), split.labels, split.class_names
      )
      for name, split in splits.items()
    }
  )


def _some(names: tuple[str, ...]) -> str:
  shown = ", ".join(names[:3])
  return f"{len(names)} ({shown}, ...)" if len(names) > 3 else f"({shown})"
