"""What the axes of a leaf mean, one letter each.

======  ==========================================================
``i``   input
``o``   output
``s``   position in the window of a convolution
``l``   layer of a stack, as `nnx.scan`, `linen.scan` or `vmap` make
======  ==========================================================

A sampler of whole inputs must know which axes they are. Names and ranks tell
for most leaves; where they do not, nobody guesses.
"""

import re
from collections.abc import Callable
from typing import Any, Literal

Axes = Literal["flax", "torch"] | Callable[[str, Any], str | None]

_FLAX = {2: "io", 4: "ssio"}
_TORCH = {2: "oi", 4: "oiss"}

# Of an attention with a head axis: [d, heads, head_dim], [heads, head_dim, d].
_TO_HEADS = re.compile(r"(^|/)(query|key|value)/kernel$")
_FROM_HEADS = re.compile(r"(attn|attention|mha)\w*/(.*/)?out/kernel$", re.I)

# A container of many layers without the number of one.
_STACK = re.compile(
  r"(^|/)(\w*blocks|\w*layers|encoderblock|decoderblock|\w*scan\w*|\w*stack\w*)"
  r"/(?!\d)",
  re.IGNORECASE,
)


def check_axes(axes: Any) -> None:
  """Raises ValueError unless it is "flax", "torch" or a function."""
  if axes not in ("flax", "torch") and not callable(axes):
    raise ValueError(
      "axes must be 'flax', 'torch' or a function (path, leaf) -> string of"
      f" the letters i, o, s and l, got {axes!r}."
    )


def letters(axes: Axes, path: str, leaf: Any) -> str | None:
  """The letters of a leaf's axes; None if they are not known.

  Args:
    axes: "flax": `query`, `key` and `value` kernels of three axes are ``ioo``,
      an attention's `out` kernels ``iio``, each with an ``l`` before if they
      have one axis more; other leaves of two axes are ``io``, of four
      ``ssio``. "torch": ``oi`` and ``oiss``. A function
      (path, leaf) → letters, or None for a leaf that it does not know.
    path: The leaf's '/'-joined path.
    leaf: The leaf; its shape counts.

  Returns:
    One letter an axis. None for all other ranks, and where the name tells of a
    stack of layers but the shape does not say which axis is the layers'.

  Raises:
    ValueError: If the function returns something else; it names the leaf.

  >>> import jax.numpy as jnp
  >>> letters("flax", "attn/query/kernel", jnp.ones((8, 2, 4)))
  'ioo'
  >>> letters("flax", "blocks/fc/kernel", jnp.ones((12, 8, 32)))
  """
  rank = len(leaf.shape)
  if callable(axes):
    return _checked(axes(path, leaf), path, leaf)
  stacked = _STACK.search(path) is not None
  if axes == "torch":
    return None if rank > 2 and stacked else _TORCH.get(rank)
  for name, heads in ((_TO_HEADS, "ioo"), (_FROM_HEADS, "iio")):
    if name.search(path):
      if rank == 3 and not stacked:
        return heads
      if rank == 4 and tuple(leaf.shape[:2]) != (1, 1):  # no 1x1 convolution
        return "l" + heads
  return None if rank > 2 and stacked else _FLAX.get(rank)


def _checked(answer: Any, path: str, leaf: Any) -> str | None:
  if answer is None:
    return None
  fits = (
    isinstance(answer, str)
    and len(answer) == len(leaf.shape)
    and set(answer) <= set("iosl")
  )
  if not fits or re.fullmatch(r"[^i]*i+[^i]*", answer) is None:
    raise ValueError(
      f"axes must give leaf {path!r} of shape {tuple(leaf.shape)} one letter"
      " of i (input), o (output), s (space) and l (layer) an axis, with the i"
      f" side by side, got {answer!r}."
    )
  return answer
