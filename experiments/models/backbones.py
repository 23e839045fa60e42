"""Pretrained classifiers from files: what every experiment starts from.

A CLIP gets a zero-shot head. A vision transformer gets a blank one, for a
linear probe to fill, or keeps its own. See `clip.load` for the files.
"""

import dataclasses
import functools
import hashlib
import os
import pathlib
from collections.abc import Callable, Sequence
from typing import Any, Literal

import jax.numpy as jnp

from experiments.models import own_head, preprocessing
from experiments.models.classifier import Classifier, ClipImageEncoder, Prompts
from gmixout_jax import clip
from gmixout_jax.clip import attention as attention_lib
from gmixout_jax.clip import loading

Path = str | os.PathLike[str]
Dtype = Literal["float32", "bfloat16"]
Attention = attention_lib.Implementation
UseHead = Literal["never", "named", "any"]
"""Whether to start from the head in a backbone's files. "named": where they say
that it is of these classes, as our exports do. "any": that of a ViT also where
it has as many outputs and they have no names, as on ImageNet, whose order is
known."""


def check(*, dtype: Dtype, attention: Attention) -> None:
  """Checks, before anything is read, that this machine can compute it.

  Args:
    dtype: As for `load`.
    attention: As for `load`.

  Raises:
    ValueError: If `attention` is "cudnn", and the type or the device is not
      one that has it.
  """
  attention_lib.check(attention, dtype)
  attention_lib.check_device(attention)


def check_path(path: Path, flag: str = "--backbone") -> None:
  """Whether there is anything to load.

  Args:
    path: The folder or the file.
    flag: That names it, for the message.

  Raises:
    FileNotFoundError: If there is nothing at the path, or a folder that holds
      folders of models.
  """
  path = pathlib.Path(path)
  meant = [path.with_suffix(""), path.with_name(f"{path.name}.safetensors")]
  if path.is_dir():
    if any(inner.is_file() for inner in path.iterdir()):
      return  # whoever loads it says what they are
    meant = sorted(found.parent for found in path.glob("*/config.json"))
  elif path.exists():
    return
  hint = "".join(f" Did you mean {one}?" for one in meant[:3] if one.exists())
  raise FileNotFoundError(
    f"no weights at {path}: {flag} must name a folder as Hugging Face,"
    " open_clip or timm save it, or a ViT in safetensors with timm's names."
    f"{hint}"
  )


def check_templates(path: Path, templates: Sequence[str]) -> None:
  """Checks that a backbone takes prompts, and that they have a place for names.

  Raises:
    FileNotFoundError: If there is nothing at the path.
    ValueError: If it is a vision transformer, or there is no place for a name.
  """
  if not is_clip(path):
    raise ValueError(
      "--templates needs a CLIP, whose text tower reads them:"
      f" {path} holds a vision transformer."
    )
  if not templates:
    raise ValueError("--templates must be one prompt at least, got none.")
  for template in templates:
    if "{}" not in template:
      raise ValueError(
        "--templates must each hold {} where the name of a class goes, got"
        f" {template!r}."
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
    files = sorted({*path.glob("*.json"), *path.glob("*.safetensors")})
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
  class_names: Sequence[str],
  *,
  words: Callable[[], Sequence[str]],
  templates: Sequence[str] = clip.PHOTO_TEMPLATES,
  use_head: UseHead = "named",
  mean: Sequence[float] | None = None,
  std: Sequence[float] | None = None,
  **settings: Any,
) -> Classifier:
  """A classifier on whatever the path is.

  Args:
    path: The folder or file; see `clip.load`.
    class_names: What the outputs mean, in order.
    words: The class names for prompts; called for a CLIP only.
    templates: Prompts of a CLIP.
    use_head: See `UseHead`.
    mean: Of the pixels the backbone was trained on; by default what its files
      say.
    std: Likewise.
    **settings: `image_size`, `dtype`, `remat`, `attention` and the like, as
      for `clip.load`. Parameters and heads are float32 whatever the model
      computes in.

  Raises:
    FileNotFoundError: If there is nothing at the path.
    ValueError: If it is neither, or there are not as many words as classes.
  """
  path = pathlib.Path(path)
  outputs = None if use_head == "never" else own_head_of(path, class_names)
  pixels = {"mean": mean, "std": std}
  if not is_clip(path):
    if outputs is None and use_head == "any":
      outputs = range(len(class_names))
    return from_vit(path, len(class_names), outputs, **pixels, **settings)
  names = tuple(words())
  if len(names) != len(class_names):
    raise ValueError(
      f"there are {len(names)} words such as {names[:2]} for"
      f" {len(class_names)} classes."
    )
  return from_clip(path, names, templates, outputs, **pixels, **settings)


def needs_words(path: Path) -> bool:
  """Whether it is a CLIP without a head, which gets a zero-shot head."""
  return is_clip(path) and not (pathlib.Path(path) / own_head.FILE).is_file()


def own_head_of(path: Path, class_names: Sequence[str]) -> list[int] | None:
  """Which outputs of a backbone's own head mean these classes.

  Args:
    path: The folder or file.
    class_names: Of the classes, in any order.

  Returns:
    The outputs in the order of the classes; None if it has no head whose
    classes are called so.
  """
  if needs_words(path):
    return None
  return own_head.outputs_of(path, class_names)


def from_clip(
  folder: Path,
  names: Sequence[str],
  templates: Sequence[str],
  outputs: Sequence[int] | None = None,
  *,
  mean: Sequence[float] | None = None,
  std: Sequence[float] | None = None,
  **settings: Any,
) -> Classifier:
  """The image tower of a CLIP under the zero-shot head of its text tower.

  Args:
    folder: Of the model, with tokenizer.json; files beside it say how pixels
      are normalised, else it is CLIP's way.
    names: What the classes are called; "_" is read as a space.
    templates: Prompts, each with {} where a name goes.
    outputs: Of the head beside the model, which then is in the place of the
      zero-shot one.
    mean: See `load`.
    std: See `load`.
    **settings: As for `clip.load`.

  Raises:
    ValueError: If it is no CLIP.
  """
  model = load_clip(folder, **settings)
  found = prompts(folder, model, names, templates)
  tokenizer, spoken = clip.load_tokenizer(folder), list(map(_spoken, names))
  kernel: Any = clip.zero_shot_head(
    model, tokenizer, spoken, templates, scaled=True
  )
  bias = None
  head = None if outputs is None else own_head.load(folder, model)
  if head is not None and outputs is not None:
    found = dataclasses.replace(found, kernel=kernel)
    kernel, bias = head.take(outputs)
  prepared = preprocessing.load(folder, mean=mean, std=std)
  return Classifier(
    ClipImageEncoder(model),
    kernel,
    bias,
    mean=prepared.mean,
    std=prepared.std,
    prompts=found,
  )


def prompts(
  folder: Path,
  model: clip.CLIP,
  names: Sequence[str],
  templates: Sequence[str],
) -> Prompts:
  """The prompts of the classes, for methods that train the text tower too.

  Args:
    folder: Of the model, with its tokenizer.
    model: From there.
    names: See `from_clip`.
    templates: See `from_clip`.
  """
  texts = [t.replace("{}", name) for name in map(_spoken, names)
           for t in templates]  # fmt: skip
  tokenizer = clip.load_tokenizer(folder)
  token_ids = tokenizer(texts).reshape(len(names), len(templates), -1)
  return Prompts(model, token_ids, pathlib.Path(folder))


def _spoken(name: str) -> str:
  return name.replace("_", " ")


def from_vit(
  path: Path,
  classes: int,
  outputs: Sequence[int] | None = None,
  *,
  mean: Sequence[float] | None = None,
  std: Sequence[float] | None = None,
  **settings: Any,
) -> Classifier:
  """A ViT under a head of zeros, or its own.

  Args:
    path: The folder or file.
    classes: How many outputs.
    outputs: Of its own head, which is taken if it has as many as these.
    mean: See `load`.
    std: See `load`.
    **settings: As for `clip.load`.

  Raises:
    ValueError: If it is a CLIP, or nothing says how pixels are normalised.
  """
  prepared = preprocessing.load(path, mean=mean, std=std)
  head = None
  if outputs is not None:
    whole = load_vit(path, **settings)
    if whole.config.num_classes == classes:
      head = own_head.load(path, whole)
  vit = load_vit(path, num_classes=0, **settings)
  if head is None or outputs is None:
    kernel, bias = jnp.zeros((vit.config.width, classes)), None
  else:
    kernel, bias = head.take(outputs)
  return Classifier(vit, kernel, bias, mean=prepared.mean, std=prepared.std)


def load_clip(folder: Path, **settings: Any) -> clip.CLIP:
  """As `clip.load`, where a CLIP is needed.

  Raises:
    ValueError: If it is none.
  """
  model = clip.load(folder, **settings)
  if not isinstance(model, clip.CLIP):
    raise ValueError(
      f"{folder} holds a vision transformer without a text tower: a CLIP is"
      " needed for a zero-shot head."
    )
  return model


def load_vit(path: Path, **settings: Any) -> clip.ViT:
  """As `clip.load`, where a vision transformer is needed.

  Raises:
    ValueError: If it is none.
  """
  if is_clip(path):
    raise ValueError(f"{path} holds a CLIP, and no vision transformer.")
  found = clip.load(path, **settings)
  assert isinstance(found, clip.ViT)
  return found
