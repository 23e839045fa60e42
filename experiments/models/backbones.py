"""Pretrained classifiers from files: what every experiment starts from.

A folder is a CLIP as Hugging Face saves it, and its head is made of words. A
file is a vision transformer with timm's names, and its head is blank, for a
linear probe to fill, or the file's own.
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
from gmixout_jax.clip import convert, timm

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
      f"no weights at {path}: --backbone must name a CLIP folder of Hugging"
      " Face's form, or a ViT in safetensors with timm's names."
    )


def image_size(path: Path) -> int:
  """Side of the images, in pixels, that a backbone was trained on.

  Raises:
    FileNotFoundError: If there is nothing at the path.
    ValueError: If it is neither a CLIP nor a ViT.
  """
  check_path(path)
  if pathlib.Path(path).is_dir():
    return convert.read_config(path).vision.image_size
  return timm.pretrained_image_size(path)


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
    path: A Hugging Face CLIP folder, or a ViT in safetensors.
    classes: How many outputs.
    words: What the classes are called in prompts; asked of a CLIP only.
    templates: Prompts of a CLIP.
    own_head: Whether a ViT that comes with as many outputs keeps its head. Only
      where the order of the classes is known to be the file's, as on ImageNet.
    mean: Of the pixels the backbone was trained on; by default what the
      folder of a CLIP says, and 0.5 for a ViT.
    std: Likewise.
    **settings: `image_size`, `dtype`, `remat`, `attention` and the like, as
      for `clip.from_pretrained` and `clip.vit_from_safetensors`. Parameters
      and heads are float32 whatever the model computes in.

  Raises:
    FileNotFoundError: If there is nothing at the path.
    ValueError: If it is neither, or a number of words that is not `classes`.
  """
  path = pathlib.Path(path)
  if path.is_dir():
    names = tuple(words())
    if len(names) != classes:
      raise ValueError(
        f"there are {len(names)} words such as {names[:2]} for {classes}"
        " classes."
      )
    return from_clip(path, names, templates, mean=mean, std=std, **settings)
  check_path(path)
  return from_timm(
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
    folder: With config.json, model.safetensors and tokenizer.json;
      preprocessor_config.json says how pixels are normalised, else it is
      CLIP's way.
    names: What the classes are called; "_" is read as a space.
    templates: Prompts, each with {} where a name goes.
    mean: See `load`.
    std: See `load`.
    **settings: As for `clip.from_pretrained`.
  """
  model = clip.from_pretrained(folder, **settings)
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


def from_timm(
  path: Path,
  classes: int | None = None,
  *,
  own_head: bool = False,
  mean: Sequence[float] | None = None,
  std: Sequence[float] | None = None,
  **settings: Any,
) -> Classifier:
  """A ViT with timm's names under a head of zeros, or its own.

  Args:
    path: The safetensors file.
    classes: How many outputs; None takes the file's own head.
    own_head: See `load`.
    mean: See `load`.
    std: See `load`.
    **settings: As for `clip.vit_from_safetensors`.

  Raises:
    ValueError: If the file's own head is wanted and it has none.
  """
  kernel = bias = None
  if classes is None or own_head:
    whole = clip.vit_from_safetensors(path, **settings)
    found = whole.config.num_classes
    if classes is None and not found:
      raise ValueError(f"{path} has no head, which was to be the classifier's.")
    if classes is None or classes == found:
      head: Any = whole.head
      kernel, bias = head.kernel[...], head.bias[...]
  vit = clip.vit_from_safetensors(path, num_classes=0, **settings)
  if kernel is None:
    kernel = jnp.zeros((vit.config.width, classes or 0))
  return Classifier(
    vit, kernel, bias, mean=mean or clip.HALF, std=std or clip.HALF
  )
