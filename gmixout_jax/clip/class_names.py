"""What the outputs of a head mean, as a model's files say it."""

import re
from collections.abc import Mapping, Sequence
from typing import Any

from gmixout_jax.checkpoint.files import Path, local_path
from gmixout_jax.clip import huggingface, timm_config, weights

_NUMBERED = re.compile(r"LABEL_\d+")  # by Hugging Face, where nobody named them


def load_class_names(path: Path) -> tuple[str, ...] | None:
  """The names of a head's outputs in order; None if no file has them.

  They are read from `id2label` of Hugging Face's config.json, `label_names` of
  timm's, or the notes of `vit_to_safetensors` in its file.

  Args:
    path: The folder, or the file of safetensors.

  Raises:
    ValueError: They are damaged; file and field are named. Or `path` is the
      address of a bucket.

  Example:
    >>> import tempfile
    >>> from flax import nnx
    >>> from gmixout_jax import clip
    >>> config = clip.VisionConfig.vit(
    ...   image_size=16, patch_size=8, width=64, depth=1, heads=1, mlp_width=8,
    ...   num_classes=2,
    ... )
    >>> vit = clip.ViT(config, rngs=nnx.Rngs(0))
    >>> with tempfile.TemporaryDirectory() as folder:
    ...   clip.save(vit, folder, class_names=["dog", "horse"])
    ...   clip.load_class_names(folder)
    ('dog', 'horse')
  """
  path = local_path("path", path)
  if path.is_file():
    noted = timm_config.noted(weights.Files([path]).metadata, str(path))
    return _as_names(f"{path}: class_names", noted.get("class_names"))
  config = path / "config.json"
  raw = huggingface.read_object(config) if config.is_file() else {}
  if (numbered := raw.get("id2label")) is not None:
    name = f"{config}: id2label"
    found = _as_names(name, _in_order(name, numbered))
    return None if all(map(_NUMBERED.fullmatch, found or ())) else found
  return _as_names(f"{config}: label_names", raw.get("label_names"))


def checked(
  class_names: Sequence[str] | None, outputs: int
) -> list[str] | None:
  """Names to write, one for each output.

  Raises:
    ValueError: If there are more or fewer.
  """
  if class_names is None:
    return None
  if isinstance(class_names, str) or len(class_names) != outputs:
    raise ValueError(
      f"class_names must be one name for each of {outputs} outputs, got"
      f" {class_names!r}."
    )
  return list(class_names)


def _in_order(name: str, numbered: Any) -> list[Any]:
  """The values of an object whose keys count from 0."""
  numbers = isinstance(numbered, Mapping) and {
    str(key): value for key, value in numbered.items()
  }
  keys = [str(n) for n in range(len(numbers or ()))]
  if not isinstance(numbers, dict) or {*keys} != {*numbers}:
    raise ValueError(f"{name} must number names from 0, got {numbered!r}.")
  return [numbers[key] for key in keys]


def _as_names(name: str, names: Any) -> tuple[str, ...] | None:
  if names is None:
    return None
  if not isinstance(names, list) or not all(isinstance(n, str) for n in names):
    raise ValueError(f"{name} must be a list of names, got {names!r}.")
  return tuple(names)
