"""How a backbone wants its images, and the view that gives them so."""

import dataclasses
import os
import pathlib
from collections.abc import Sequence

from experiments.data.decode import View
from gmixout_jax import clip

Path = str | os.PathLike[str]


def load(
  path: Path,
  *,
  mean: Sequence[float] | None = None,
  std: Sequence[float] | None = None,
) -> clip.Preprocessing:
  """What a backbone's files say; of a CLIP that says nothing, CLIP's.

  Args:
    path: The folder or the file.
    mean: In the place of what the files say.
    std: Likewise.

  Raises:
    ValueError: If nothing says mean and deviation, or a file is damaged.
  """
  found = clip.load_preprocessing(path)
  if found is None:
    usual = (), ()
    if mean is None or std is None:
      try:
        usual = clip.load_normalization(path)
      except ValueError as error:
        raise ValueError(
          f"{error} On the command line: --mean R G B --std R G B."
        ) from None
    # CLIP's: the shorter side to the size, and the central square.
    found = clip.Preprocessing(*usual, interpolation="bicubic")
  return dataclasses.replace(
    found, mean=tuple(mean or found.mean), std=tuple(std or found.std)
  )


def check_pixels(
  mean: Sequence[float] | None, std: Sequence[float] | None
) -> None:
  """Whether these are of pixels in [0, 1].

  Raises:
    ValueError: If not; the values are quoted.
  """
  for name, values in (("mean", mean), ("std", std)):
    for value in values or ():
      if not 0 <= value <= 1 or (name == "std" and value == 0):
        raise ValueError(
          f"{name} must be of pixels in [0, 1], and std above 0, got"
          f" {' '.join(map(str, values or ()))}."
        )


def is_guessed(
  path: Path,
  *,
  mean: Sequence[float] | None = None,
  std: Sequence[float] | None = None,
) -> bool:
  """Whether `load` has no more than what CLIP is documented with.

  Arguments and errors are those of `load`.
  """
  if (mean is not None and std is not None) or not pathlib.Path(path).is_dir():
    return False  # a file is asked about, see `load`
  if clip.load_preprocessing(path) is not None:
    return False
  load(path, mean=mean, std=std)  # which is an error of all but a CLIP
  return True


def view(preprocessing: clip.Preprocessing, size: int) -> View:
  """What evaluation sees of images that are prepared so.

  Args:
    preprocessing: How.
    size: Side of the square, in pixels, whatever that of the backbone is.
  """
  return View(
    size,
    fit=preprocessing.resize,
    zoom=preprocessing.zoom,
    interpolation=preprocessing.interpolation,
  ).in_whole_pixels()


def of_view(
  view: View, mean: Sequence[float], std: Sequence[float]
) -> clip.Preprocessing:
  """Inverse of `view`, for the files of what was trained on such images."""
  return clip.Preprocessing(
    tuple(mean),
    tuple(std),
    view.size,
    view.fit,
    view.zoom,
    view.resampling,
  )
