"""One optimizer update on the shapes of ViT-B/16, against plain AdamW."""

import functools
import math
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


RATIOS = {
  "update_time_ratio": ("gmixout_every_50", "adamw"),
  **{
    f"update_time_ratio_{how}": ("gmixout_every_50", f"adamw_{how}")
    for how in ("undonated", "in_order")
  },
  "resample_time_ratio": ("gmixout_every_1", "gmixout_never"),
}


def run(
  json: pathlib.Path | None = None,
  repeats: int = 15,
  model: str = "vit_b16",
  seconds: float = math.inf,
) -> None:
  """Times AdamW's update, and GMixout's around it, on ViT-B/16.

  An update is `tx.update` and `optax.apply_updates`, jitted together, with
  parameters and state donated, in float32. All leaves are updated: GMixout
  mixes the matrices of the blocks at sparsity 0.9 and passes the other leaves
  to its inner AdamW.

  What AdamW takes depends on how it is called. A donated buffer serves the
  first result of its shape. Given (gradients, state, parameters) and returning
  (parameters, state), as here, AdamW's results are written over one another's
  old values, and on a CPU XLA copies those first: 288 copies for the 72
  matrices of the blocks, 800 for all leaves, and two to five times the time.
  GMixout's state has other shapes than the parameters, and no such copies. So
  AdamW is timed in two more ways: with nothing donated, which needs memory for
  both its old and its new values, and "in order", called with (parameters,
  state, gradients), where each result has its own old buffer and nothing is
  copied, as in train steps that donate one state and return it. The ratio to
  that one is what to expect of GMixout there.

  Args:
    json: Where to write the figures.
    repeats: Timed rounds; each figure is a median over them.
    model: A key of `train_steps.VITS`.
    seconds: After so many no other update is compiled.

  Raises:
    figures.IncompleteError: Once the others are reported, if an update failed
      or no time was left for it.
  """
  vit = train_steps.vit(model)
  shapes = nnx.to_pure_dict(nnx.state(vit, nnx.Param))
  adamw = optax.adamw(1e-4)
  mix = functools.partial(
    gx.gmixout, adamw, sparsity=0.9, key=0, target=BLOCK_MATRICES
  )
  grads = jax.tree.map(
    lambda leaf: jnp.full(leaf.shape, 1e-3, leaf.dtype), shapes
  )
  stepper = functools.partial(Stepper, shapes=shapes, grads=grads)
  ready = figures.Ready(
    {
      "adamw_in_order": lambda: stepper(adamw, in_order=True),
      "gmixout_every_50": lambda: stepper(mix(resample_every=50)),
      "adamw": lambda: stepper(adamw),
      "gmixout_every_1": lambda: stepper(mix(resample_every=1)),
      "gmixout_never": lambda: stepper(mix(resample_every=None)),
      "adamw_undonated": lambda: stepper(adamw, donate=False),
    },
    seconds,
  )
  taken = figures.interleaved_medians(ready.steps, repeats)
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
  results = {f"{name}_seconds": median for name, median in taken.items()}
  results |= {f"{name}_state_bytes": n for name, n in state_bytes.items()}
  results |= figures.ratios(taken, RATIOS)
  results["state_bytes_ratio"] = state_bytes["gmixout"] / state_bytes["adamw"]
  figures.report(f"Optimizer update, {model}", results, TARGETS, json)
  ready.demand_all()


class Stepper:
  """Holds one optimizer's parameters and state, and updates them.

  Attributes:
    params: Parameters after the latest step.
    state: The optimizer's state after it.
  """

  def __init__(
    self,
    tx: optax.GradientTransformation,
    shapes: Any,
    grads: Any,
    *,
    donate: bool = True,
    in_order: bool = False,
  ):
    """Starts.

    Args:
      tx: The optimizer.
      shapes: Shapes of the parameters.
      grads: Gradients of every step.
      donate: Whether parameters and state are donated.
      in_order: Whether arguments come in the order of the results.
    """
    self.params = jax.tree.map(
      lambda leaf: jnp.full(leaf.shape, 0.02, leaf.dtype), shapes
    )
    self.state = jax.jit(tx.init)(self.params)
    self._grads, self._in_order = grads, in_order

    def step(params: Any, state: Any, grads: Any) -> tuple[Any, Any]:
      updates, state = tx.update(grads, state, params)
      return optax.apply_updates(params, updates), state

    if in_order:
      donated = (0, 1) if donate else ()
      self._step = jax.jit(step, donate_argnums=donated)
    else:
      donated = (1, 2) if donate else ()
      self._step = jax.jit(
        lambda grads, state, params: step(params, state, grads),
        donate_argnums=donated,
      )

  def __call__(self) -> None:
    """Takes one step and waits for it."""
    args = (self.params, self.state, self._grads)
    if not self._in_order:
      args = args[::-1]
    self.params, self.state = jax.block_until_ready(self._step(*args))
