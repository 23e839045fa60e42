"""Whole train steps to compare: full fine-tuning, GMixout's compact path, LoRA.

All train a ViT with a head of 1000 classes by AdamW in float32. Full
fine-tuning trains every leaf; the others leave alone all but the matrices of
the blocks and the head.
"""

import dataclasses
import os
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import optax
from flax import nnx

import gmixout_jax as gx
from pallas_kernels.dispatch import Implementation

Batch = tuple[Any, Any]

SPARSITY = 0.9
LORA_RANK = 51
"""Trains as many weights per block as a tenth of ViT-B/16's matrices."""

VITS: dict[str, dict[str, int]] = {
  "vit_b16": {"patch_size": 16},
  "vit_l14": {
    "patch_size": 14,
    "width": 1024,
    "depth": 24,
    "heads": 16,
    "mlp_width": 4096,
  },
  "vit_ti16": {"patch_size": 16, "width": 192, "heads": 3, "mlp_width": 768},
  # Says nothing of any; with it a benchmark can be tried in seconds.
  "smallest": {
    "patch_size": 16,
    "width": 20,
    "depth": 1,
    "heads": 2,
    "mlp_width": 40,
  },
}


@dataclasses.dataclass(frozen=True)
class TrainStep:
  """A train step and how its state begins.

  Attributes:
    init: Makes the state from the parameters of `vit`.
    step: (state, batch) → (state, loss).
    params: Shapes of the parameters.
  """

  init: Callable[[Any], Any]
  step: Callable[[Any, Batch], tuple[Any, jax.Array]]
  params: Any

  def compile(self, batch: Batch) -> Any:
    """Compiles the step with its state donated; `batch` may be shapes."""
    state = jax.eval_shape(self.init, self.params)
    return jax.jit(self.step, donate_argnums=0).lower(state, batch).compile()


def minimise_memory() -> None:
  """Gives XLA on CPU the scheduler that minimises memory.

  Its default one trades memory for concurrency, and keeps dense gradients
  longer than any order of the work would have to. A flag decides, to be set
  before XLA starts; a compiler option does not.
  """
  flag = "--xla_cpu_enable_concurrency_optimized_scheduler=false"
  os.environ["XLA_FLAGS"] = f"{os.environ.get('XLA_FLAGS', '')} {flag}"


def vit(
  name: str, image_size: int = 224, dtype: str = "float32"
) -> gx.clip.ViT:
  """An abstract ViT: shapes without values.

  Args:
    name: A key of `VITS`.
    image_size: Side in pixels, a multiple of the patch size.
    dtype: What it computes in; its weights are float32.
  """
  config = gx.clip.VisionConfig.vit(
    num_classes=1000, image_size=image_size, dtype=dtype, **VITS[name]
  )
  return nnx.eval_shape(lambda: gx.clip.ViT(config, rngs=nnx.Rngs(0)))


def batch_shapes(size: int, image_size: int) -> Batch:
  """Shapes of a batch of float32 images and int32 labels."""
  return (
    jax.ShapeDtypeStruct((size, image_size, image_size, 3), jnp.float32),
    jax.ShapeDtypeStruct((size,), jnp.int32),
  )


def full_finetuning(model: gx.clip.ViT, *, parallel: bool = False) -> TrainStep:
  """AdamW on every leaf.

  Args:
    model: From `vit`.
    parallel: Whether the step is one for `gx.parallel.data_parallel`.
  """
  graphdef, params = nnx.split(model, nnx.Param)
  tx = optax.adamw(1e-4)

  def init(params):
    return params, tx.init(params)

  def step(state, batch):
    params, opt_state = state
    loss, grads = jax.value_and_grad(
      lambda params: mean_loss(nnx.merge(graphdef, params), batch)
    )(params)
    if parallel:
      loss, grads = gx.parallel.mean((loss, grads))
    updates, opt_state = tx.update(grads, opt_state, params)
    return (optax.apply_updates(params, updates), opt_state), loss

  return TrainStep(init, step, nnx.to_pure_dict(params))


def compact(
  model: gx.clip.ViT,
  sampler: str,
  resample_every: int | None = 50,
  fused: bool = False,
  implementation: Implementation | None = None,
  parallel: bool = False,
  target: Any = gx.VIT_RULES,
) -> TrainStep:
  """GMixout with packed gradients, state and updates.

  Args:
    model: From `vit`.
    sampler: The mask distribution.
    resample_every: Steps of an episode.
    fused: Whether `FusedAdamW` steps, rather than `optax.adamw`.
    implementation: Of the stratified masks.
    parallel: Whether the step is one for `gx.parallel.data_parallel`.
    target: See `gmixout_jax.MixedParams.create`.
  """
  graphdef, params, rest = nnx.split(model, nnx.Param, ...)
  tx, adamw = optax.adamw(1e-4), gx.FusedAdamW(learning_rate=1e-4)

  def init(params):
    mixed = gx.MixedParams.create(
      params,
      key=0,
      sparsity=SPARSITY,
      sampler=sampler,
      resample_every=resample_every,
      target=target,
      implementation=implementation,
    )
    return mixed, tx.init(mixed.trainable())

  def step(state, batch):
    mixed, opt_state = state
    trainable = mixed.trainable()
    whole, differentiated = mixed, trainable
    if parallel:
      whole, differentiated = gx.parallel.gathered((mixed, trainable))
    loss, grads = jax.value_and_grad(
      lambda trainable: mean_loss(
        gx.nnx.merge(graphdef, whole, trainable, rest), batch
      )
    )(differentiated)
    if parallel:
      loss, grads = gx.parallel.mean((loss, grads))
    if fused:
      return adamw.step(mixed, grads, opt_state), loss
    updates, opt_state = tx.update(grads, opt_state, trainable)
    return (mixed.apply_updates(updates), opt_state), loss

  return TrainStep(init, step, nnx.to_pure_dict(params))


def lora(model: gx.clip.ViT, rank: int = LORA_RANK) -> TrainStep:
  """Flax's LoRA on the six matrices of every block, and a trained head."""
  plain = nnx.to_pure_dict(nnx.state(model, nnx.Param))
  with_factors = nnx.eval_shape(lambda m: _add_factors(m, rank), model)
  trains = nnx.Any(nnx.LoRAParam, nnx.PathContains("head"))
  graphdef, factors, frozen = nnx.split(with_factors, trains, ...)
  tx = optax.adamw(1e-4)

  def init(params):
    del params  # a benchmark's weights need no meaning
    zeros = lambda leaf: jnp.zeros(leaf.shape, leaf.dtype)
    trainable = jax.tree.map(zeros, factors)
    return trainable, jax.tree.map(zeros, frozen), tx.init(trainable)

  def step(state, batch):
    trainable, frozen, opt_state = state
    loss, grads = jax.value_and_grad(
      lambda trainable: mean_loss(nnx.merge(graphdef, trainable, frozen), batch)
    )(trainable)
    updates, opt_state = tx.update(grads, opt_state, trainable)
    return (optax.apply_updates(trainable, updates), frozen, opt_state), loss

  return TrainStep(init, step, plain)


def mean_loss(model: Any, batch: Batch) -> jax.Array:
  """The mean cross-entropy of a model of images, on a batch."""
  images, labels = batch
  return optax.softmax_cross_entropy_with_integer_labels(
    model(images), labels
  ).mean()


def _add_factors(model: gx.clip.ViT, rank: int) -> gx.clip.ViT:
  rngs = nnx.Rngs(0)
  for block in model.blocks:
    for layers, names in (
      (block.attention, ("query", "key", "value", "out")),
      (block.mlp, ("fc1", "fc2")),
    ):
      for name in names:
        layer = getattr(layers, name)
        setattr(
          layers,
          name,
          nnx.LoRA(
            layer.in_features,
            rank,
            layer.out_features,
            base_module=layer,
            rngs=rngs,
          ),
        )
  return model
