"""What the towers of a CLIP make of images and texts that are many."""

import functools
import os
from collections.abc import Callable, Sequence

import jax
import jax.numpy as jnp
import numpy as np
import rich.progress
from flax import nnx
from jaxtyping import Array, Float

from experiments import metrics
from experiments.data.captions import CaptionSet
from experiments.data.images import ImageSet
from experiments.models import evaluation
from experiments.pretraining import contrastive
from gmixout_jax import clip


@functools.partial(jax.jit, static_argnames=("graph", "views"))
def _views(graph, state, pixels, views):
  model = nnx.merge(graph, state)
  sides = [pixels, pixels[:, :, ::-1]][:views]
  return jnp.stack([model.features(side) for side in sides], axis=1)


def tower_features(
  tower: clip.ViT,
  images: ImageSet,
  *,
  mean: Sequence[float],
  std: Sequence[float],
  flips: bool,
) -> Float[np.ndarray, "n views width"]:
  """What an image tower makes of every image.

  Args:
    tower: The tower.
    images: Each is decoded and seen once.
    mean: Of the tower's training pixels, per channel, in [0, 1].
    std: Likewise.
    flips: Whether mirrored images follow as a second view.
  """
  graph, state = nnx.split(tower)
  views = 2 if flips else 1

  def features(batch: np.ndarray) -> Array:
    pixels = clip.preprocess(batch, mean=mean, std=std)
    return _views(graph, state, pixels, views)

  return _with_progress(features, images, "image features")


def retrieval(
  folder: str | os.PathLike[str], held_out: CaptionSet
) -> dict[str, dict[str, float]]:
  """How often a CLIP's images and captions find each other.

  Args:
    folder: Of the CLIP.
    held_out: Images that it was not trained on, with all their captions.

  Returns:
    See `experiments.metrics.recall`.
  """
  model = clip.from_pretrained(folder)
  mean, std = clip.load_normalization(folder)
  images = embed_images(model, held_out.images, mean=mean, std=std)
  texts = embed_texts(model, clip.load_tokenizer(folder)(held_out.texts()))
  return metrics.recall(images @ texts.T, held_out.owners())


def embed_images(
  model: clip.CLIP,
  images: ImageSet,
  *,
  mean: Sequence[float],
  std: Sequence[float],
) -> Float[np.ndarray, "n dim"]:
  """The embeddings of images."""
  graph, state = nnx.split(model)
  embed = contrastive.embed_pixels(mean, std)
  apply = jax.jit(lambda state, batch: embed(nnx.merge(graph, state), batch))
  return _with_progress(
    functools.partial(apply, state), images, "held-out images"
  )


def _with_progress(
  apply: Callable[[np.ndarray], Array], images: ImageSet, title: str
) -> np.ndarray:
  with rich.progress.Progress(transient=True) as bar:
    task = bar.add_task(title, total=len(images))

    def counted(batch: np.ndarray) -> Array:
      # Waits, or the bar would tell how fast work is handed out.
      done = jax.block_until_ready(apply(batch))
      bar.advance(task, len(batch))
      return done

    return evaluation.map_batches(counted, images, batch_size=128)


def embed_texts(
  model: clip.CLIP, token_ids: np.ndarray
) -> Float[np.ndarray, "n dim"]:
  """The embeddings of captions."""
  graph, state = nnx.split(model)
  apply = jax.jit(lambda ids: nnx.merge(graph, state).encode_text(ids))
  return evaluation.map_batches(apply, token_ids, batch_size=256)
