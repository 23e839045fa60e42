"""The smallest data and models that the experiments run on."""

import dataclasses
import functools
import pathlib
from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from PIL import Image

from experiments.data.images import ImageSet, Pixels
from experiments.data.source import Source
from experiments.data.split import Split
from experiments.models.classifier import (
  Classifier,
  ClipImageEncoder,
  Prompts,
)
from experiments.task_options import TaskOptions
from experiments.tasks import length
from experiments.tasks.task import Opened
from gmixout_jax import clip

DOMAINS = ("art", "cartoon", "photo", "sketch")
CLASSES = ("cat", "dog", "owl")
SIZE = 16


def domainbed(root: pathlib.Path, *, per_class: int = 5) -> pathlib.Path:
  """Writes a DomainBed folder whose classes differ in brightness."""
  rng = np.random.default_rng(0)
  for domain in DOMAINS:
    for label, name in enumerate(CLASSES):
      folder = root / domain / name
      folder.mkdir(parents=True)
      for index in range(per_class):
        pixels = 80 * label + rng.integers(0, 60, (SIZE, SIZE, 3))
        suffix = ("png", "JPG")[index % 2]
        image = Image.fromarray(pixels.astype(np.uint8))
        image.save(folder / f"{index}.{suffix}", quality=95)
  return root


def split(*, per_class: int = 8, classes: int = 3, seed: int = 0) -> Split:
  """Images whose classes differ in brightness."""
  rng = np.random.default_rng(seed)
  labels = np.repeat(np.arange(classes, dtype=np.int32), per_class)
  noise = rng.integers(0, 60, (len(labels), SIZE, SIZE, 3))
  images = (60 * labels[:, None, None, None] + noise).astype(np.uint8)
  return Split(images, labels, tuple(f"class {i}" for i in range(classes)))


def of_splits(splits: Mapping[str, Split]) -> ImageSet:
  """Splits of the same classes as one set, with a domain each."""
  parts = list(splits.values())
  return ImageSet.of(
    Pixels(np.concatenate([part.images for part in parts])),
    np.concatenate([part.labels for part in parts]),
    parts[0].class_names,
    domains=np.repeat(np.arange(len(parts)), [len(part) for part in parts]),
    domain_names=tuple(splits),
  )


def source(*, classes: int = 3) -> Source:
  """Training and validation images of one distribution."""
  return Source(
    split(classes=classes), split(per_class=4, classes=classes, seed=1)
  )


def vit(*, width: int = 16, heads: int = 2, **settings: Any) -> clip.ViT:
  """A ViT of one block on 16x16 images; settings are its config's."""
  config = clip.VisionConfig.vit(
    image_size=SIZE,
    patch_size=8,
    width=width,
    depth=1,
    heads=heads,
    mlp_width=24,
    num_classes=0,
    **settings,
  )
  return filled(lambda: clip.ViT(config, rngs=nnx.Rngs(0)))


def save_vit(path: pathlib.Path) -> None:
  """Writes a ViT of one block without a head, which says how it sees images."""
  prepared = clip.Preprocessing(clip.HALF, clip.HALF, SIZE)
  clip.save(vit(width=64, heads=1), path, preprocessing=prepared)


def filled[M: nnx.Module](make: Callable[[], M]) -> M:
  """A model with weights from NumPy, which has no initialisers to compile."""
  rng = np.random.default_rng(0)
  graphdef, state = nnx.split(nnx.eval_shape(make))

  def draw(leaf):
    return jnp.asarray(0.2 * rng.standard_normal(leaf.shape), leaf.dtype)

  return nnx.merge(graphdef, jax.tree.map(draw, state))


class Mlp(nnx.Module):
  """A backbone of two blocks that compiles ten times faster than the ViT."""

  def __init__(self, *, width: int = 16, dtype: str | None = None):
    make = functools.partial(nnx.Linear, dtype=dtype, rngs=nnx.Rngs(0))
    self.embedding = make(3 * 4 * 4, width)
    self.blocks = nnx.List([make(width, width) for _ in range(2)])

  def features(self, pixels):
    coarse = pixels.reshape(-1, 4, 4, 4, 4, 3).mean(axis=(2, 4))
    x = self.embedding(coarse.reshape(len(pixels), -1))
    for block in self.blocks:
      x = x + nnx.relu(block(x))
    return x


@dataclasses.dataclass(frozen=True)
class TinyTask:
  """The MLP on made-up images, as the flags of a command say."""

  options: TaskOptions

  @property
  def config(self):
    options = self.options
    return {
      "data": "tiny",
      "steps": options.steps,
      "batch_size": options.batch_size,
      **options.training.described(),
    }

  def open(self, seed: int) -> Opened:
    options, parts = self.options, source()
    return Opened(
      model=classifier(),
      source=parts,
      steps=length.steps(
        options.steps,
        options.epochs,
        images=len(parts.train),
        batch=options.batch_size or 8,
      ),
      batch_size=options.batch_size or 8,
      seed=seed,
      recipe=options.training,
      ood={"photo": split(per_class=2, seed=2)},
    )


def use_tiny_task(monkeypatch) -> None:
  """Lets commands train on `TinyTask`, whatever images they name."""
  monkeypatch.setattr(TaskOptions, "task", lambda self: TinyTask(self))


def classifier(*, classes: int = 3, dtype: str | None = None) -> Classifier:
  """A classifier on the MLP; its logits are all 0."""
  backbone = Mlp(dtype=dtype)
  return Classifier.with_zero_head(backbone, width=16, classes=classes)


def words() -> Classifier:
  """A classifier of words on a tiny CLIP, and its tokens."""
  tower = dict(width=8, depth=1, heads=2, mlp_width=16)
  config = clip.CLIPConfig(
    vision=clip.VisionConfig(image_size=SIZE, patch_size=8, **tower),
    text=clip.TextConfig(vocab_size=20, eos_token_id=19, **tower),
    projection_dim=4,
  )
  model = filled(lambda: clip.CLIP(config, rngs=nnx.Rngs(0)))

  def tokenizer(texts):
    return np.array([[18, 1 + "abc".index(t[0]), len(t), 19] for t in texts])

  templates = ("{}", "{} a")
  head = clip.zero_shot_head(model, tokenizer, ["a", "b", "c"], templates)
  texts = [t.replace("{}", name) for name in "abc" for t in templates]
  tokens = tokenizer(texts).reshape(3, 2, -1)
  scaled = head * jnp.exp(model.logit_scale[...])
  return Classifier(
    ClipImageEncoder(model), scaled, prompts=Prompts(model, tokens)
  )
