"""Contrastive pretraining: CLIP's loss, its optimizer and the loop."""

import functools
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import nnx
from jaxtyping import Array, Float, Int
from rich import progress

from experiments.training.run_checkpoints import Stopped
from gmixout_jax import clip
from gmixout_jax.checkpoint import Checkpoints
from gmixout_jax.clip.model import normalize

Batch = dict[str, Any]  # image: pixels or features; tokens: [batch, length]
Embed = Callable[[clip.CLIP, Array], Float[Array, "batch dim"]]


def contrastive_loss(
  logits: Float[Array, "batch batch"], token_ids: Int[Array, "batch length"]
) -> Float[Array, ""]:
  """CLIP's loss: each image finds its caption, each caption its image.

  L = −½ mean_i Σ_j T_ij (log softmax(logits[i, :])_j
                          + log softmax(logits[:, i])_j)

  T_ij is 1 / n_i if captions i and j are equal, where n_i counts the captions
  equal to i, and 0 otherwise. With distinct captions T is the identity and
  this is the loss of the paper; but "a photo of the digit seven" occurs
  several times in a batch, and is right each time.
  """
  equal = (token_ids[:, None] == token_ids[None]).all(-1)
  targets = equal / equal.sum(1, keepdims=True)
  cross_entropy = optax.softmax_cross_entropy
  return 0.5 * (
    cross_entropy(logits, targets).mean()
    + cross_entropy(logits.T, targets).mean()
  )


def make_optimizer(
  rate: float, *, steps: int, warmup: int, decay: float
) -> optax.GradientTransformation:
  """AdamW with warm-up and cosine; biases, norms and the scale not decayed."""
  schedule = optax.warmup_cosine_decay_schedule(0.0, rate, warmup, steps)
  return optax.chain(
    optax.clip_by_global_norm(1.0),
    optax.adamw(
      schedule,
      b2=0.98,
      weight_decay=decay,
      mask=functools.partial(jax.tree.map, lambda leaf: leaf.ndim > 1),
    ),
  )


def embed_pixels(mean: Sequence[float], std: Sequence[float]) -> Embed:
  """Embeds uint8 images, normalised by a mean and a deviation."""
  return lambda model, images: model.encode_image(
    clip.preprocess(images, mean=mean, std=std)
  )


def embed_features(model: clip.CLIP, features: Array) -> Array:
  """Embeds what the image tower has made of images before."""
  return normalize(model.project_image(features))


def fit(
  model: clip.CLIP,
  batches: Callable[[int], Iterable[Batch]],
  optimizer: optax.GradientTransformation,
  *,
  steps: int,
  embed: Embed,
  locked: bool = False,
  checkpoints: Checkpoints | None = None,
  save_every: int = 100,
  stop: Callable[[int], bool] = lambda step: False,
) -> tuple[clip.CLIP, Float[np.ndarray, " steps"]]:
  """Trains a model on images and their captions.

  Args:
    model: It is not changed.
    batches: Those from a step on, of images or features and their tokens.
    optimizer: Of what trains.
    steps: How many steps to take.
    embed: What becomes of a batch's images.
    locked: Whether the image tower rests; its projection never does.
    checkpoints: Where to save the run, and to go on from.
    save_every: Steps between two checkpoints, at least 1.
    stop: Whether to save and stop after a number of steps.

  Returns:
    The trained model, and the loss of each step.

  Raises:
    FloatingPointError: If a loss is not finite.
    Stopped: If `stop` said so; the run is saved by then.
    ValueError: If `save_every` is out of range, or the checkpoint is of another
      run.
  """
  if save_every < 1:
    raise ValueError(f"save_every must be at least 1 step, got {save_every}.")
  # A tower that rests has no gradient, hence no backward pass.
  trains = nnx.All(nnx.Param, nnx.Not(nnx.PathContains("vision")))
  graph, params, rest = nnx.split(model, trains if locked else nnx.Param, ...)
  params = jax.tree.map(jnp.copy, params)  # a step gives its inputs away

  @functools.partial(jax.jit, donate_argnums=(0, 1))
  def train_step(params, state, batch):
    def loss_fn(params):
      model = nnx.merge(graph, params, rest)
      images = embed(model, batch["image"])
      texts = model.encode_text(batch["tokens"])
      scale = jnp.exp(model.logit_scale[...].astype(images.dtype))
      return contrastive_loss(scale * (images @ texts.T), batch["tokens"])

    loss, gradient = jax.value_and_grad(loss_fn)(params)
    updates, state = optimizer.update(gradient, state, params)
    return optax.apply_updates(params, updates), state, loss

  state = optimizer.init(params)
  losses, start = np.zeros(steps, np.float32), 0
  if checkpoints is not None:
    saved = checkpoints.restore(_tree(params, state, losses))
    if saved is not None:
      start = saved.step
      params, state = saved.state["params"], saved.state["optimizer"]
      losses = np.array(saved.state["losses"])
  columns = (
    *progress.Progress.get_default_columns(),
    progress.TextColumn("loss {task.fields[loss]:.3f}"),
  )
  with progress.Progress(*columns) as bar:
    task = bar.add_task(
      "pretrain", total=steps, completed=start, loss=float("nan")
    )
    for step, batch in zip(range(start, steps), batches(start), strict=False):
      params, state, loss = train_step(params, state, batch)
      losses[step] = loss
      if not np.isfinite(losses[step]):
        raise FloatingPointError(
          f"the loss of step {step} is {losses[step]}: try a lower rate."
        )
      bar.update(task, completed=step + 1, loss=losses[step])
      if checkpoints is not None:
        stopping = stop(step + 1) and step + 1 < steps
        if stopping or step + 1 == steps or (step + 1) % save_every == 0:
          checkpoints.save(step + 1, _tree(params, state, losses))
        if stopping:
          checkpoints.wait()
          raise Stopped(
            f"stopped as asked after {step + 1} of {steps} steps, saved in"
            f" {checkpoints.folder}: the same command goes on."
          )
  return nnx.merge(graph, params, rest), losses


def _tree(params: Any, state: Any, losses: np.ndarray) -> dict[str, Any]:
  return {"params": params, "optimizer": state, "losses": losses}
