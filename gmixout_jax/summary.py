"""Which leaves would be mixed, and at what cost, as a table."""

import dataclasses
import math
from typing import Any, Unpack

import jax
import jax.numpy as jnp

from gmixout_jax._core import axes
from gmixout_jax._core.settings import MixSettings, Settings, takes_settings
from gmixout_jax.labels import named_leaves


@dataclasses.dataclass(frozen=True)
class LeafSummary:
  """One leaf.

  Attributes:
    path: Its '/'-joined path.
    label: "mixed", "dense" or "frozen".
    shape: Its shape.
    axes: What its axes mean, one letter each; None if unknown.
    active: How many of its entries train in an episode; if that varies between
      draws ("bernoulli"), the packed capacity.
    kept_fraction: s, the fraction of its entries that train: 1 for a dense
      leaf, 0 for a frozen one.
    state_bytes: What is stored besides the weights: the anchor, and A + Δ if
      the weights do not determine it. The inner optimizer's moments come on
      top; each takes as much as an anchor.
  """

  path: str
  label: str
  shape: tuple[int, ...]
  axes: str | None
  active: int
  kept_fraction: float
  state_bytes: int

  @property
  def size(self) -> int:
    """Number of its entries."""
    return math.prod(self.shape)


@dataclasses.dataclass(frozen=True)
class Summary:
  """All leaves; prints as a table.

  Attributes:
    leaves: One entry a leaf, in the order of `jax.tree.leaves`.
  """

  leaves: tuple[LeafSummary, ...]

  @property
  def active(self) -> int:
    """How many entries train in an episode, of mixed and of dense leaves."""
    return sum(leaf.active for leaf in self.leaves)

  @property
  def size(self) -> int:
    """How many entries there are."""
    return sum(leaf.size for leaf in self.leaves)

  @property
  def state_bytes(self) -> int:
    """What is stored besides the weights."""
    return sum(leaf.state_bytes for leaf in self.leaves)

  def __str__(self) -> str:
    rows = [("leaf", "label", "shape", "axes", "active", "kept", "state bytes")]
    rows += [
      (
        leaf.path,
        leaf.label,
        "x".join(map(str, leaf.shape)) or "scalar",
        leaf.axes or ("?" if leaf.label == "mixed" else ""),
        f"{leaf.active:,}",
        f"{leaf.kept_fraction:.4f}",
        f"{leaf.state_bytes:,}",
      )
      for leaf in self.leaves
    ]
    share = self.active / self.size if self.size else 0.0
    total = ("total", "", f"{self.size:,}", "", f"{self.active:,}")
    rows.append((*total, f"{share:.4f}", f"{self.state_bytes:,}"))
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    # Words to the left, numbers to the right.
    aligned = [
      "  ".join(
        cell.ljust(width) if i < 4 else cell.rjust(width)
        for i, (cell, width) in enumerate(zip(row, widths, strict=True))
      ).rstrip()
      for row in rows
    ]
    rule = "-" * max(map(len, aligned))
    return "\n".join([aligned[0], rule, *aligned[1:-1], rule, aligned[-1]])


@takes_settings
def gmixout_summary(params: Any, **settings: Unpack[MixSettings]) -> Summary:
  """What `gmixout` or `MixedParams` would do with each leaf; prints as a table.

  Check before a run which leaves `target` selects, how their axes are read,
  and how many of their entries train.

  Args:
    params: The parameters: arrays or `jax.ShapeDtypeStruct`s.
    **settings: As for `gmixout` and `MixedParams.create`.

  Returns:
    One entry a leaf, and totals.

  Raises:
    ValueError: As those two.

  Example:
    >>> import jax.numpy as jnp
    >>> import gmixout_jax as gx
    >>> params = {
    ...   "blocks": [{"kernel": jnp.ones((8, 40)), "bias": jnp.ones(40)}],
    ...   "head": {"kernel": jnp.ones((8, 2))},
    ... }
    >>> print(gx.gmixout_summary(params, target=gx.VIT_RULES))
    leaf             label   shape  axes  active    kept  state bytes
    -----------------------------------------------------------------
    blocks/0/bias    frozen  40                0  0.0000            0
    blocks/0/kernel  mixed   8x40   io        32  0.1000          128
    head/kernel      dense   8x2              16  1.0000            0
    -----------------------------------------------------------------
    total                    376              48  0.1277          128
  """
  mix = Settings(**settings)
  labels, mixes = mix.mixed_leaves(params)
  rows = []
  for i, ((path, leaf), label) in enumerate(
    zip(named_leaves(params), labels, strict=True)
  ):
    shape = jnp.shape(leaf)
    active = math.prod(shape) if label == "dense" else 0
    kept, state, letters = float(label == "dense"), 0, None
    if i in mixes:
      layout = mixes[i].layout
      active = math.prod(layout.packed_shape)
      kept = layout.kept_fraction
      letters = axes.letters(mix.axes, path, leaf)
      memory = jax.eval_shape(
        mixes[i].init, jax.ShapeDtypeStruct(shape, leaf.dtype)
      )
      state = sum(
        array.size * array.dtype.itemsize for array in jax.tree.leaves(memory)
      )
    rows.append(LeafSummary(path, label, shape, letters, active, kept, state))
  return Summary(tuple(rows))
