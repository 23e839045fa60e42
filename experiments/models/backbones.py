"""Pretrained classifiers from files: what every experiment starts from.

A CLIP's head is made of words. A vision transformer's is blank, for a linear
probe to fill, or its own. Which it is, is told by what lies at the path, see
`clip.load`.
"""

import functools
import hashlib
import os
import pathlib
from collections.abc import Callable, Sequence
from typing import Any, Literal

import jax.numpy as jnp

from experiments.models import export
from experiments.models.classifier import Classifier, ClipImageEncoder, Prompts
from gmixout_jax import clip
from gmixout_jax.clip import attention as attention_lib
from gmixout_jax.clip import loading

Path = str | os.PathLike[str]
Dtype = Literal["float32", "bfloat16"]
Attention = attention_lib.Implementation


def check(*, dtype: Dtype, attention: Attention) -> None:
  """Refuses what this machine cannot compute, before anything is read.

  Args:
    dtype: As for `load`.
    attention: As for `load`.

  Raises:
    ValueError: If `attention` is "cudnn", and the type or the device is not
      one that has it.
  """
  attention_lib.check(attention, dtype)
  attention_lib.check_device(attention)


def check_path(path: Path) -> None:
  """Whether there is anything to load.

  Raises:
    FileNotFoundError: If there is nothing at the path.
  """
  if not pathlib.Path(path).exists():
    raise FileNotFoundError(
      f"no weights at {path}: --backbone must name a folder as Hugging Face,"
      " open_clip or timm save it, or a ViT in safetensors with timm's names."
    )


def image_size(path: Path) -> int:
  """Side of the images, in pixels, that a backbone was trained on.

  Raises:
    FileNotFoundError: If there is nothing at the path.
    ValueError: If it is neither a CLIP nor a ViT.
  """
  check_path(path)
  config = loading.describe(path)
  if isinstance(config, clip.CLIPConfig):
    config = config.vision
  return config.image_size


def is_clip(path: Path) -> bool:
  """Whether there is a CLIP or a SigLIP at a path, or a vision transformer.

  Raises:
    FileNotFoundError: If there is nothing at the path.
    ValueError: If a folder is neither.
  """
  check_path(path)
  return loading.holds_clip(path)


def digest(path: Path) -> str:
  """What tells a backbone from others of its name: a hash of its content.

  Args:
    path: A file; or a folder, of which weights and JSON files count.

  Raises:
    FileNotFoundError: If there is nothing at the path.
  """
  check_path(path)
  path = pathlib.Path(path)
  files = [path]
  if path.is_dir():
    # Pixels are normalised as a JSON file says, and so are words cut.
    found = {*path.glob("*.json"), *path.glob("*.safetensors")}
    files = sorted(found - {path / export.HEAD})
  state = tuple((str(f.absolute()), *_state(f)) for f in files if f.is_file())
  return _digest(state)


def _state(file: pathlib.Path) -> tuple[int, int]:
  found = file.stat()
  return found.st_size, found.st_mtime_ns


@functools.cache
def _digest(state: tuple[tuple[str, int, int], ...]) -> str:
  found = hashlib.sha256()
  for name, _, _ in state:
    with open(name, "rb") as content:
      found.update(hashlib.file_digest(content, "sha256").digest())
  return found.hexdigest()[:12]


def load(
  path: Path,
  *,
  classes: int,
  words: Callable[[], Sequence[str]],
  templates: Sequence[str] = clip.PHOTO_TEMPLATES,
  own_head: bool = False,
  mean: Sequence[float] | None = None,
  std: Sequence[float] | None = None,
  **settings: Any,
) -> Classifier:
  """A classifier on whatever the path is.

  Args:
    path: The folder or file; see `clip.load`.
    classes: How many outputs.
    words: What the classes are called in prompts; asked of a CLIP only.
    templates: Prompts of a CLIP.
    own_head: Whether a ViT that comes with as many outputs keeps its head. Only
      where the order of the classes is known to be the file's, as on ImageNet.
    mean: Of the pixels the backbone was trained on; by default what the
      folder says, and 0.5 for a ViT that is a file.
    std: Likewise.
    **settings: `image_size`, `dtype`, `remat`, `attention` and the like, as
      for `clip.load`. Parameters
      and heads are float32 whatever the model computes in.

  Raises:
    FileNotFoundError: If there is nothing at the path.
    ValueError: If it is neither, or a number of words that is not `classes`.
  """
  path = pathlib.Path(path)
  if is_clip(path):
    names = tuple(words())
    if len(names) != classes:
      raise ValueError(
        f"there are {len(names)} words such as {names[:2]} for {classes}"
        " classes."
      )
    return from_clip(path, names, templates, mean=mean, std=std, **settings)
  return from_vit(
    path, classes, own_head=own_head, mean=mean, std=std, **settings
  )


def from_clip(
  folder: Path,
  names: Sequence[str],
  templates: Sequence[str],
  *,
  mean: Sequence[float] | None = None,
  std: Sequence[float] | None = None,
  **settings: Any,
) -> Classifier:
  """The image tower of a CLIP under the zero-shot head of its text tower.

  Args:
    folder: Of the model, with tokenizer.json; a file beside it says how pixels
      are normalised, else it is CLIP's way.
    names: What the classes are called; "_" is read as a space.
    templates: Prompts, each with {} where a name goes.
    mean: See `load`.
    std: See `load`.
    **settings: As for `clip.load`.

  Raises:
    ValueError: If it is no CLIP.
  """
  model = clip.load(folder, **settings)
  if not isinstance(model, clip.CLIP):
    raise ValueError(
      f"{folder} holds a vision transformer, which has no words: a CLIP is"
      " needed for a zero-shot head."
    )
  tokenizer = clip.load_tokenizer(folder)
  names = [name.replace("_", " ") for name in names]
  usual_mean, usual_std = clip.load_normalization(folder)
  head = clip.zero_shot_head(model, tokenizer, names, templates, scaled=True)
  texts = [text.replace("{}", name) for name in names for text in templates]
  token_ids = tokenizer(texts).reshape(len(names), len(templates), -1)
  return Classifier(
    ClipImageEncoder(model),
    head,
    mean=mean or usual_mean,
    std=std or usual_std,
    prompts=Prompts(model, token_ids, pathlib.Path(folder) / "tokenizer.json"),
  )


def from_vit(
  path: Path,
  classes: int | None = None,
  *,
  own_head: bool = False,
  mean: Sequence[float] | None = None,
  std: Sequence[float] | None = None,
  **settings: Any,
) -> Classifier:
  """A ViT under a head of zeros, or its own.

  Args:
    path: The folder or file.
    classes: How many outputs; None takes the file's own head.
    own_head: See `load`.
    mean: See `load`.
    std: See `load`.
    **settings: As for `clip.load`.

  Raises:
    ValueError: If its own head is wanted and it has none, or it is a CLIP; or
      nothing says how pixels are normalised.
  """
  kernel = bias = None
  usual = clip.HALF, clip.HALF
  if pathlib.Path(path).is_dir() and (mean is None or std is None):
    usual = clip.load_normalization(path)
  if classes is None or own_head:
    whole = _vit(path, **settings)
    found = whole.config.num_classes
    if classes is None and not found:
      raise ValueError(f"{path} has no head, which was to be the classifier's.")
    if classes is None or classes == found:
      head: Any = whole.head
      kernel, bias = head.kernel[...], head.bias[...]
  vit = _vit(path, num_classes=0, **settings)
  if kernel is None:
    kernel = jnp.zeros((vit.config.width, classes or 0))
  return Classifier(
    vit, kernel, bias, mean=mean or usual[0], std=std or usual[1]
  )


def _vit(path: Path, **settings: Any) -> clip.ViT:
  found = clip.load(path, **settings)
  if not isinstance(found, clip.ViT):
    raise ValueError(f"{path} holds a CLIP, and no vision transformer.")
  return found
