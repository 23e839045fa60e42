"""Random masking: one random sub-network trains, the rest stays pretrained."""

import dataclasses

import jax
import optax

import gmixout_jax as gx
from experiments.methods.gmixout import Sampler, blocks_and_head
from experiments.methods.method import Method, Params, Schedule


@dataclasses.dataclass(frozen=True)
class RandomMask(Method):
  """Trains the same random tenth of every matrix for the whole run.

  Xu and Zhang, 2024 (https://arxiv.org/abs/2405.02596). The head trains densely
  and all else is frozen, as with GMixout.

  Attributes:
    learning_rate: The peak, for the masked matrices. The sparser the mask, the
      larger: 1e-2 where 0.01 % trains.
    head_learning_rate: The peak, for the head.
    sparsity: The share of each matrix that never trains, in [0, 1).
    sampler: How the sub-network is drawn.
  """

  learning_rate: float = 3e-4
  head_learning_rate: float = 1e-4
  sparsity: float = 0.9
  sampler: Sampler = "stratified"

  def transform(
    self, params: Params, schedule: Schedule, key: jax.Array
  ) -> optax.GradientTransformation:
    """A fixed random mask on the blocks, AdamW on the head."""
    del params
    masked = gx.random_mask(
      optax.adamw(schedule(self.learning_rate), weight_decay=0.0),
      sparsity=self.sparsity,
      sampler=self.sampler,
      key=key,
    )
    return blocks_and_head(masked, schedule(self.head_learning_rate))

  def deploy(self, opt_state: optax.OptState, params: Params) -> Params:
    """The trained weights."""
    return gx.gmixout_eval_params(opt_state, params)
