"""GPU kernels for the sparse masked mix, and what they share with masks."""

from pallas_kernels.masked_mix.api import masked_mix
from pallas_kernels.pack.api import pack
from pallas_kernels.packed_step.api import packed_step

__all__ = [
  "masked_mix",
  "pack",
  "packed_step",
]
