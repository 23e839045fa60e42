"""What a kernel's bench.py hands to the benchmark: work, and its bytes."""

import dataclasses
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from pallas_kernels import leaf as leaves

KEPT = 0.1
SECTOR = 32  # bytes that a GPU reads or writes at least


@dataclasses.dataclass(frozen=True)
class Workload:
  """Work that is timed.

  Attributes:
    step: Function (carry, turn) -> carry, to be repeated inside one jitted
      loop, as a launch from Python takes longer than a kernel. It depends on
      the turn, or XLA would do it once.
    carry: What it starts from; is donated. Arrays that only are read are in it
      too: what `step` closes over is a constant, written into the program.
    bytes: What it must at least read and write, in whole sectors.
  """

  step: Callable[[Any, jax.Array], Any]
  carry: Any
  bytes: int


def normal(seed: int, shape: tuple[int, ...], dtype: Any) -> jax.Array:
  """Weights as one finds them in a model: zeros would flatter a cache."""
  return jax.random.normal(jax.random.key(seed), shape, dtype) * 0.02


def turn_key(turn: jax.Array) -> jax.Array:
  """Raw key data that no two turns share, without the work of `fold_in`."""
  return jnp.stack([turn, turn + 1]).astype(jnp.uint32)


def sector_bytes(leaf: leaves.StratifiedLeaf, dtype: Any) -> int:
  """Bytes of the sectors that the active entries of a leaf lie in."""
  slots = jnp.arange(leaf.packed_size, dtype=jnp.uint32)
  key = jax.random.key(0, impl="threefry2x32")
  positions = np.asarray(jax.jit(leaf.positions)(slots, leaves.seed(key)))
  sectors = positions.astype(np.int64) * jnp.dtype(dtype).itemsize // SECTOR
  return SECTOR * (1 + int(np.count_nonzero(np.diff(sectors))))
