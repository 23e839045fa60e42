"""What a model's files say of how its images were prepared."""

import json
import pathlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from gmixout_jax.checkpoint.files import Path, local_path, replacing
from gmixout_jax.clip import huggingface, open_clip, timm_config, weights
from gmixout_jax.clip import preprocessing_configs as configs
from gmixout_jax.clip.images import (
  CLIP_MEAN,
  CLIP_STD,
  IMAGENET_MEAN,
  IMAGENET_STD,
)
from gmixout_jax.clip.preprocessing_configs import Preprocessing

PREPROCESSOR = "preprocessor_config.json"
_PROCESSOR = "processor_config.json"  # since version 5 of transformers


def load_preprocessing(directory: Path) -> Preprocessing | None:
  """How a model's files say images are prepared; None if they do not.

  It is read from preprocessor_config.json or processor_config.json of Hugging
  Face, `preprocess_cfg` of open_clip, `pretrained_cfg` of timm, or the notes of
  `vit_to_safetensors` in its file.

  Args:
    directory: The folder, or the file of safetensors.

  Raises:
    ValueError: A file is damaged, or asks for something unsupported; file and
      field are named. Or `directory` is the address of a bucket.

  Example:
    >>> import tempfile
    >>> from gmixout_jax import clip
    >>> wanted = clip.Preprocessing(clip.HALF, clip.HALF, 224, "squeeze")
    >>> with tempfile.TemporaryDirectory() as folder:
    ...   clip.save_preprocessing(folder, wanted)
    ...   clip.load_preprocessing(folder) == wanted
    True
  """
  path = local_path("directory", directory)
  for file, part, raw, read in _said(path):
    try:
      if not isinstance(raw, Mapping):
        raise ValueError(f"{part} must be an object, got {raw!r}.")
      if (found := read(raw)) is not None:
        return found
    except ValueError as error:
      raise ValueError(f"{file}: {error}") from None
  return None


def _said(
  path: pathlib.Path,
) -> Iterator[tuple[pathlib.Path, str, Any, Callable[..., Any]]]:
  """File, name and content of what tells something, and its reader."""
  if path.is_file():
    raw = timm_config.noted(weights.Files([path]).metadata, str(path)).get(
      "images"
    )
    if raw is not None:
      yield path, "images", raw, configs.of_timm
    return
  for name, part, read in (
    (open_clip.CONFIG, "preprocess_cfg", configs.of_open_clip),
    (PREPROCESSOR, "", configs.of_hugging_face),
    (_PROCESSOR, "image_processor", configs.of_hugging_face),
    ("config.json", "pretrained_cfg", configs.of_timm),
  ):
    file = path / name
    if file.is_file():
      raw = huggingface.read_object(file)
      if (found := raw.get(part) if part else raw) is not None:
        yield file, part, found, read


def load_normalization(
  directory: Path,
) -> tuple[tuple[float, ...], tuple[float, ...]]:
  """The mean and deviation of a model's images.

  Args:
    directory: The folder or file; see `load_preprocessing`.

  Returns:
    `mean` and `std` for `preprocess`. For a CLIP without them, CLIP's
    documented values.

  Raises:
    ValueError: As `load_preprocessing`; or another model's files lack them.

  Example:
    >>> import tempfile
    >>> from gmixout_jax import clip
    >>> with tempfile.TemporaryDirectory() as folder:
    ...   clip.save_normalization(folder, clip.HALF, clip.HALF)
    ...   clip.load_normalization(folder)
    ((0.5, 0.5, 0.5), (0.5, 0.5, 0.5))
  """
  found = load_preprocessing(directory)
  if found is not None:
    return found.mean, found.std
  path = pathlib.Path(directory)
  config = path / "config.json"
  raw = huggingface.read_object(config) if config.is_file() else {}
  clips = raw.get("model_type", "clip") in ("clip", huggingface.OTHER_FORM)
  if "architecture" in raw or not clips or path.is_file():
    raise ValueError(
      f"mean and std must be given: nothing in {path} says how its images were"
      " normalised. Many ViTs of timm have 0.5 for all channels of both, others"
      f" ImageNet's {IMAGENET_MEAN} and {IMAGENET_STD}."
    )
  return CLIP_MEAN, CLIP_STD


def save_preprocessing(directory: Path, preprocessing: Preprocessing) -> None:
  """Writes preprocessor_config.json; inverse of `load_preprocessing`.

  Args:
    directory: The folder of a model; it must exist.
    preprocessing: What to say; without a size, mean and deviation alone.

  Raises:
    ValueError: If `directory` is the address of a bucket.
  """
  folder = local_path("directory", directory)
  raw = configs.to_hugging_face(preprocessing)
  with replacing(folder / PREPROCESSOR) as temporary:
    temporary.write_text(json.dumps(raw, indent=2) + "\n")


def save_normalization(
  directory: Path, mean: Sequence[float], std: Sequence[float]
) -> None:
  """Writes mean and deviation alone; inverse of `load_normalization`.

  Args:
    directory: The folder of a model; it must exist.
    mean: One value per channel, on the scale [0, 1].
    std: Likewise.

  Raises:
    ValueError: If `directory` is the address of a bucket.
  """
  save_preprocessing(directory, Preprocessing(tuple(mean), tuple(std)))
