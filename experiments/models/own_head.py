"""The head that a model's files hold, and what its outputs mean.

A ViT's lies among its weights. A CLIP, whose forms have no place for one, has
it in a file of its own beside the model, as `export` writes it.
"""

import json
import os
import pathlib
from collections.abc import Sequence
from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from gmixout_jax import clip
from gmixout_jax.clip import weights

Path = str | os.PathLike[str]

FILE = "head.safetensors"
"""Of a CLIP: the weight and the bias of a linear layer in PyTorch."""

_NOTE = "gmixout_jax.class_names"


class Head(NamedTuple):
  """A linear layer.

  Attributes:
    kernel: From features to logits.
    bias: Of the logits.
  """

  kernel: Float[Array, "width classes"]
  bias: Float[Array, " classes"]

  def take(self, outputs: Sequence[int]) -> "Head":
    """The head of these outputs, in this order."""
    chosen = np.asarray(outputs)
    return Head(self.kernel[:, chosen], self.bias[chosen])


def load(path: Path, model: clip.CLIP | clip.ViT) -> Head | None:
  """The head at a path; None if there is none.

  Args:
    path: The folder or the file.
    model: What was loaded from there, a ViT with its head.

  Raises:
    CheckpointError: A `ValueError`: if a file is damaged, or does not fit.
  """
  if isinstance(model, clip.ViT):
    layer: Any = model.head
    return layer and Head(layer.kernel[...], layer.bias[...])
  file = pathlib.Path(path) / FILE
  if not file.is_file():
    return None
  tensors, width = weights.Files([file]), model.config.projection_dim
  shape = tensors.shapes.get("weight", ())
  if len(shape) != 2 or tensors.shapes != {
    "weight": (shape[0], width),
    "bias": (shape[0],),
  }:
    raise clip.CheckpointError(
      f"{file} must hold a weight [classes, {width}] and a bias [classes], got"
      f" {tensors.shapes}."
    )
  return Head(jnp.asarray(tensors["weight"].T), jnp.asarray(tensors["bias"]))


def save(
  folder: pathlib.Path, head: Head, class_names: Sequence[str] | None
) -> None:
  """Writes the head of a CLIP beside it."""
  tensors = {
    "weight": np.ascontiguousarray(np.asarray(head.kernel).T),
    "bias": np.asarray(head.bias),
  }
  note = {}
  if class_names is not None:
    note = {_NOTE: json.dumps(list(class_names))}
  weights.save(tensors, folder / FILE, note)


def class_names(path: Path) -> tuple[str, ...] | None:
  """What the outputs of the head at a path mean; None if nothing says it.

  Raises:
    ValueError: If it is damaged; the file is named.
  """
  file = pathlib.Path(path) / FILE
  if not file.is_file():
    return clip.load_class_names(path)
  note = weights.Files([file]).metadata.get(_NOTE)
  if note is None:
    return None
  try:
    names = json.loads(note)
    if not isinstance(names, list) or not all(
      isinstance(name, str) for name in names
    ):
      raise ValueError("no list of names")
  except (ValueError, RecursionError) as error:
    raise clip.CheckpointError(
      f"{file}: {_NOTE} must be a list of names, got {note!r}: {error}."
    ) from None
  return tuple(names)


def outputs_of(path: Path, wanted: Sequence[str]) -> list[int] | None:
  """Which outputs of the head at a path mean these classes, in their order.

  Args:
    path: The folder or the file.
    wanted: Names of classes.

  Returns:
    None if it has no head whose classes are these, whatever their order.
  """
  found = class_names(path)
  if found is None or sorted(found) != sorted(wanted):
    return None
  if len(set(found)) != len(found):
    return None  # of two of one name nobody knows which is which
  return [found.index(name) for name in wanted]
