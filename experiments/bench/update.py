"""One optimizer update on the shapes of ViT-B/16, against plain AdamW."""

import functools
import pathlib
import re
from typing import Any

import jax
import jax.numpy as jnp
import optax
from flax import nnx

import gmixout_jax as gx
from experiments.bench import figures, train_steps
from gmixout_jax import labels

BLOCK_MATRICES = gx.VIT_RULES[0][0]

TARGETS = {
  "update_time_ratio": 0.6,
  "resample_time_ratio": 1.15,
  "state_bytes_ratio": 0.2,
}


def run(json: pathlib.Path | None = None, repeats: int = 15) -> None:
  """Times AdamW's update, and GMixout's around it, on ViT-B/16.

  An update is `tx.update` and `optax.apply_updates`, jitted together, with
  parameters and state donated, in float32. All leaves are updated: GMixout
  mixes the matrices of the blocks at sparsity 0.9 and passes the other leaves
  to its inner AdamW.

  Args:
    json: Where to write the figures.
    repeats: Timed rounds; each figure is a median over them.
  """
  vit = train_steps.vit("vit_b16")
  shapes = nnx.to_pure_dict(nnx.state(vit, nnx.Param))
  adamw = optax.adamw(1e-4)
  mix = functools.partial(
    gx.gmixout, adamw, sparsity=0.9, key=0, target=BLOCK_MATRICES
  )
  transformations = {
    "adamw": adamw,
    "gmixout_every_1": mix(resample_every=1),
    "gmixout_every_50": mix(resample_every=50),
    "gmixout_never": mix(resample_every=None),
  }
  grads = jax.tree.map(
    lambda leaf: jnp.full(leaf.shape, 1e-3, leaf.dtype), shapes
  )
  steps = {
    name: Stepper(tx, shapes, grads) for name, tx in transformations.items()
  }
  seconds = figures.interleaved_medians(steps, repeats)
  blocks = {
    path: leaf
    for path, leaf in labels.named_leaves(shapes)
    if re.search(BLOCK_MATRICES, path)
  }
  state_bytes = {
    "adamw": figures.tree_bytes(jax.eval_shape(adamw.init, blocks)),
    "gmixout": figures.tree_bytes(
      jax.eval_shape(mix(target=None).init, blocks)
    ),
  }
  results = {f"{name}_seconds": taken for name, taken in seconds.items()}
  results |= {f"{name}_state_bytes": n for name, n in state_bytes.items()}
  results |= {
    "update_time_ratio": seconds["gmixout_every_50"] / seconds["adamw"],
    "resample_time_ratio": seconds["gmixout_every_1"]
    / seconds["gmixout_never"],
    "state_bytes_ratio": state_bytes["gmixout"] / state_bytes["adamw"],
  }
  figures.report("Optimizer update, ViT-B/16", results, TARGETS, json)


class Stepper:
  """Holds one optimizer's parameters and state, and updates them in place."""

  def __init__(self, tx: optax.GradientTransformation, shapes: Any, grads: Any):
    self.params = jax.tree.map(
      lambda leaf: jnp.full(leaf.shape, 0.02, leaf.dtype), shapes
    )
    self.state = jax.jit(tx.init)(self.params)
    self.grads = grads

    @functools.partial(jax.jit, donate_argnums=(1, 2))
    def step(grads: Any, state: Any, params: Any) -> tuple[Any, Any]:
      updates, state = tx.update(grads, state, params)
      return optax.apply_updates(params, updates), state

    self.step = step

  def __call__(self) -> None:
    """Takes one step and waits for it."""
    self.params, self.state = jax.block_until_ready(
      self.step(self.grads, self.state, self.params)
    )
