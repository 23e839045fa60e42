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

_TORCH = {2: "oi", 4: "oiss"}

# Of an attention with a head axis: [d, heads, head_dim], [heads, head_dim, d].
_TO_HEADS = re.compile(r"(^|/)(query|key|value)/kernel$")
_FROM_HEADS = re.compile(r"(^|/)out/kernel$")
_ATTENTION = re.compile(r"att(n|ention)|mha|multi_?head", re.I)

# A container of many layers without the number of one.
_STACK = re.compile(
  r"(^|/)(\w*blocks?|\w*layers?|\w*experts?|encoderblock|decoderblock|moe|h"
  r"|\w*scan\w*|\w*stack\w*|repeat)/(?!\d)",
  re.I,
)
_CONVOLUTION = re.compile(r"conv|patch", re.I)
_WEIGHT = re.compile(r"(^|/)\w*weight\w*$")


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
    axes: "flax": `query`, `key` and `value` kernels of three axes are ``ioo``
      and an attention's `out` kernels ``iio``, each with an ``l`` before if
      they have one axis more; other leaves of two axes are ``io``; of four
      axes ``ssio`` if the name says so or the window is square. A leaf named
      `weight`, as PyTorch's and Equinox's are, is not known. "torch": ``oi``
      and ``oiss``. A function (path, leaf) → letters, or None for a leaf that
      it does not know.
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
  if _WEIGHT.search(path):
    return None
  if rank == 2:
    return "io"
  heads = _of_heads(path, tuple(leaf.shape), stacked)
  if heads is None and rank == 4 and not stacked:
    square = leaf.shape[0] == leaf.shape[1]
    return "ssio" if square or _CONVOLUTION.search(path) else None
  return heads


def _of_heads(path: str, shape: tuple[int, ...], stacked: bool) -> str | None:
  """Letters of a kernel with a head axis; None if it has none, or may not."""
  layers = "l" * (len(shape) - 3)
  of_layer = shape[len(layers) :]
  if len(of_layer) != 3 or (stacked and not layers):
    return None  # not one of a head axis, or a stack of plain matrices
  if layers and not stacked and shape[0] == shape[1]:
    return None  # as likely the square window of a convolution
  if _TO_HEADS.search(path) and of_layer[0] >= of_layer[1]:
    return layers + "ioo"  # no model has more heads than it is wide
  if (
    _FROM_HEADS.search(path)
    and (_ATTENTION.search(path) or path == "out/kernel")
    and of_layer[2] >= of_layer[0]
  ):
    return layers + "iio"
  return None


def inputs_are_together(letters: str) -> bool:
  """Whether there are inputs, and nothing stands between them."""
  return re.fullmatch(r"[^i]*i+[^i]*", letters) is not None


def _checked(answer: Any, path: str, leaf: Any) -> str | None:
  if answer is None:
    return None
  fits = (
    isinstance(answer, str)
    and len(answer) == len(leaf.shape)
    and set(answer) <= set("iosl")
  )
  if not (fits and inputs_are_together(answer) and "o" in answer):
    raise ValueError(
      f"axes must give leaf {path!r} of shape {tuple(leaf.shape)} one letter"
      " of i (input), o (output), s (space) and l (layer) an axis, with an o"
      f" and with the i side by side, got {answer!r}."
    )
  return answer
