"""A corruption suite of our own, for any set of images.

Eighteen corruptions in four groups, severities 1 to 5. They take the ideas of
ImageNet-C (Hendrycks and Dietterich, 2019, https://arxiv.org/abs/1903.12261)
but neither its code nor its constants, so numbers on the two are *not*
comparable; for CIFAR-100-C as published read `experiments.data.cifar_c`.
What a strength measures, each corruption's docstring says; lengths are shares
of the shorter side, so that a severity looks alike at every resolution.

An image's noise is a function of the seed, the corruption, the severity and the
image's row, never of the order in which images are read.
"""

import dataclasses
import zlib
from collections.abc import Sequence

import numpy as np
from jaxtyping import UInt8

from experiments.data.corruptions import blur, digital, noise, weather
from experiments.data.corruptions.kind import Corruption
from experiments.data.images import ImageSet, Loader

SEVERITIES = (1, 2, 3, 4, 5)

CORRUPTIONS = {
  "gaussian_noise": Corruption(
    noise.gaussian, (0.06, 0.10, 0.16, 0.24, 0.34), "noise"
  ),
  "shot_noise": Corruption(noise.shot, (80, 40, 20, 10, 5), "noise"),
  "impulse_noise": Corruption(
    noise.impulse, (0.02, 0.05, 0.09, 0.15, 0.24), "noise"
  ),
  "speckle_noise": Corruption(
    noise.speckle, (0.12, 0.20, 0.30, 0.42, 0.56), "noise"
  ),
  "gaussian_blur": Corruption(
    blur.gaussian, (0.006, 0.010, 0.016, 0.024, 0.034), "blur"
  ),
  "defocus_blur": Corruption(
    blur.defocus, (0.012, 0.018, 0.026, 0.036, 0.048), "blur"
  ),
  "motion_blur": Corruption(
    blur.motion, (0.04, 0.06, 0.09, 0.13, 0.18), "blur"
  ),
  "zoom_blur": Corruption(blur.zoom, (0.06, 0.11, 0.16, 0.23, 0.32), "blur"),
  "fog": Corruption(weather.fog, (0.35, 0.50, 0.62, 0.74, 0.85), "weather"),
  "frost": Corruption(weather.frost, (0.10, 0.18, 0.28, 0.40, 0.54), "weather"),
  "snow": Corruption(
    weather.snow, (0.006, 0.012, 0.02, 0.032, 0.048), "weather"
  ),
  "rain": Corruption(
    weather.rain, (0.004, 0.008, 0.014, 0.022, 0.032), "weather"
  ),
  "brightness": Corruption(
    weather.brightness, (0.10, 0.20, 0.30, 0.40, 0.50), "weather"
  ),
  "contrast": Corruption(
    digital.contrast, (0.60, 0.45, 0.32, 0.20, 0.10), "digital"
  ),
  "saturate": Corruption(
    digital.saturate, (0.5, 0.2, 1.8, 2.8, 5.0), "digital"
  ),
  "pixelate": Corruption(
    digital.pixelate, (0.50, 0.38, 0.28, 0.20, 0.14), "digital"
  ),
  "jpeg": Corruption(digital.jpeg, (25, 18, 12, 8, 5), "digital"),
  "elastic": Corruption(
    digital.elastic, (0.006, 0.010, 0.015, 0.021, 0.028), "digital"
  ),
}
"""Every corruption by name, with its strengths at severity 1 to 5.

"saturate" takes colour away at 1 and 2 and exaggerates it from 3, as its
namesake does, so its severities are no order of difficulty.
"""


def corrupt(
  image: UInt8[np.ndarray, "height width 3"],
  name: str,
  severity: int,
  *,
  seed: int | Sequence[int],
) -> UInt8[np.ndarray, "height width 3"]:
  """One image, spoilt.

  Args:
    image: Any size of at least 8 x 8 pixels.
    name: A key of `CORRUPTIONS`.
    severity: 1 to 5.
    seed: The same arguments give the same image; two corruptions or severities
      never share a stream.

  Returns:
    An image of the same size.

  Raises:
    ValueError: On an unknown name or severity, or a smaller image.

  Example:
    >>> import numpy as np
    >>> grey = np.full((32, 32, 3), 128, np.uint8)
    >>> corrupt(grey, "brightness", 1, seed=0)[0, 0]  # 128 + 0.10 · 255
    array([154, 154, 154], dtype=uint8)
  """
  if name not in CORRUPTIONS:
    raise ValueError(
      f"name must be one of {', '.join(CORRUPTIONS)}; got {name!r}."
    )
  if severity not in SEVERITIES:
    raise ValueError(f"severity must be 1 to 5, got {severity}.")
  if min(image.shape[:2]) < 8:
    raise ValueError(
      f"an image of at least 8 x 8 is wanted, got {image.shape}."
    )
  seeds = [seed] if isinstance(seed, int | np.integer) else list(seed)
  rng = np.random.default_rng([*seeds, zlib.crc32(name.encode()), severity])
  change, strengths, _ = CORRUPTIONS[name]
  spoilt = change(image / 255, strengths[severity - 1], rng)
  return np.round(255 * spoilt.clip(0, 1)).astype(np.uint8)


@dataclasses.dataclass(frozen=True)
class Corrupted:
  """A loader whose images are spoilt on the way.

  Attributes:
    loader: Where the images come from.
    corruption: Its name.
    severity: 1 to 5.
    seed: Of the noise.
  """

  loader: Loader
  corruption: str
  severity: int
  seed: int

  def load(self, row: int) -> np.ndarray:
    """The spoilt image."""
    image = self.loader.load(row)
    return corrupt(image, self.corruption, self.severity, seed=(self.seed, row))

  def name(self, row: int) -> str:
    """That of the image, and how it was spoilt."""
    return f"{self.loader.name(row)} ({self.corruption}/{self.severity})"


def suite(
  images: ImageSet,
  *,
  names: Sequence[str] = tuple(CORRUPTIONS),
  severities: Sequence[int] = SEVERITIES,
  seed: int = 0,
) -> dict[str, ImageSet]:
  """A set under every corruption and severity.

  Args:
    images: Any set; spoilt after its view was taken.
    names: Keys of `CORRUPTIONS`.
    severities: Of 1 to 5.
    seed: Of all noise.

  Returns:
    Sets by names such as "fog/3".

  Raises:
    ValueError: On an unknown name or severity.
  """
  for name in names:
    for severity in severities:
      # Fails here, not when the first image is read by some thread.
      if name not in CORRUPTIONS or severity not in SEVERITIES:
        raise ValueError(
          f"{name}/{severity} is not among {', '.join(CORRUPTIONS)} at 1 to 5."
        )
  return {
    f"{name}/{severity}": dataclasses.replace(
      images, loader=Corrupted(images.loader, name, severity, seed)
    )
    for name in names
    for severity in severities
  }
