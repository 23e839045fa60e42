"""GMixout: random sub-networks around an anchor that follows them."""

import dataclasses
import functools
from typing import Literal

import jax
import optax

import gmixout_jax as gx
from experiments.methods.method import Method, Params, Schedule

Sampler = Literal["stratified", "uniform", "bernoulli", "neuron"]


@dataclasses.dataclass(frozen=True)
class GMixout(Method):
  """Trains a random tenth of every matrix, and another one every few steps.

  Only the matrices of the transformer blocks are mixed; the head trains
  densely and all else is frozen. See `gmixout_jax.gmixout` for the method,
  and arXiv 2510.06982 for the paper.

  Attributes:
    learning_rate: The peak, for the mixed matrices. It wants to be larger than
      for full fine-tuning: the anchor moves by (1 − λ)(1 − p) of a step.
    head_learning_rate: The peak, for the head.
    sparsity: p, the share of each matrix held at the anchor, in [0, 1).
    anchor_decay: λ, how much of the old anchor survives an episode, in [0, 1].
    resample_every: k, the optimizer steps of an episode.
    sampler: How the sub-network is drawn.
    moments: What becomes of Adam's moments at the end of an episode.
  """

  learning_rate: float = 1e-3
  head_learning_rate: float = 1e-3
  sparsity: float = 0.9
  anchor_decay: float = 0.3
  resample_every: int = 10
  sampler: Sampler = "stratified"
  moments: Literal["carry", "reset"] = "carry"

  def transform(
    self, params: Params, schedule: Schedule, key: jax.Array
  ) -> optax.GradientTransformation:
    """GMixout on the blocks, AdamW on the head."""
    del params
    mixed = gx.gmixout(
      optax.adamw(schedule(self.learning_rate), weight_decay=0.0),
      sparsity=self.sparsity,
      anchor_decay=self.anchor_decay,
      resample_every=self.resample_every,
      sampler=self.sampler,
      moments=self.moments,
      key=key,
    )
    return blocks_and_head(mixed, schedule(self.head_learning_rate))

  def deploy(self, opt_state: optax.OptState, params: Params) -> Params:
    """The anchor, with what the last episode has learnt so far."""
    return gx.gmixout_eval_params(opt_state, params)


def blocks_and_head(
  blocks: optax.GradientTransformation, head: optax.Schedule
) -> optax.GradientTransformation:
  """One transformation for the blocks' matrices, AdamW for the head.

  Args:
    blocks: For the matrices of the transformer blocks.
    head: The learning rate of the head, which has no weight decay.

  Returns:
    A transformation that freezes everything else.
  """
  return optax.partition(
    {
      "mixed": blocks,
      "dense": optax.adamw(head, weight_decay=0.0),
      "frozen": optax.set_to_zero(),
    },
    functools.partial(gx.gmixout_labels, rules=gx.VIT_RULES),
  )
