"""What a corruption is."""

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
from jaxtyping import Float

Pixels = Float[np.ndarray, "height width 3"]  # in [0, 1] before, any after


class Corruption(NamedTuple):
  """A way to spoil an image, with a strength for every severity.

  Attributes:
    change: From pixels in [0, 1], a strength and a generator to pixels, which
      are clipped afterwards.
    strengths: Of severity 1 to 5; what they measure says ``change``.
    group: "noise", "blur", "weather" or "digital".
  """

  change: Callable[[Pixels, float, np.random.Generator], Pixels]
  strengths: tuple[float, float, float, float, float]
  group: str
