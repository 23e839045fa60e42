"""Mixout: the pretrained weights come back at random, at every step."""

import dataclasses
from typing import ClassVar

import jax
import optax

import gmixout_jax as gx
from experiments.methods.gmixout import Sampler, blocks_and_head
from experiments.methods.method import Method, Params, Schedule


@dataclasses.dataclass(frozen=True)
class Mixout(Method):
  """Trains all of the blocks' matrices, through masks redrawn at every step.

  Lee, Cho, Kang, 2020 (https://arxiv.org/abs/1909.11299); at p = 0.9 on a
  vision transformer it is High-Rate Mixout (arXiv 2510.06955). The head trains
  densely and all else is frozen, as with GMixout.

  Attributes:
    learning_rate: The peak, for the mixed matrices.
    head_learning_rate: The peak, for the head.
    sparsity: p, the share of each matrix swapped for the pretrained one at
      each step, in [0, 1).
    sampler: How it is drawn: "neuron" is the paper of 2020, "bernoulli"
      High-Rate Mixout.
  """

  learning_rate: float = 1e-4
  head_learning_rate: float = 1e-4
  sparsity: float = 0.9
  sampler: Sampler = "bernoulli"

  def transform(
    self, params: Params, schedule: Schedule, key: jax.Array
  ) -> optax.GradientTransformation:
    """Mixout on the blocks, AdamW on the head."""
    del params
    mixed = gx.mixout(
      optax.adamw(schedule(self.learning_rate), weight_decay=0.0),
      sparsity=self.sparsity,
      sampler=self.sampler,
      key=key,
    )
    return blocks_and_head(mixed, schedule(self.head_learning_rate))

  def deploy(self, opt_state: optax.OptState, params: Params) -> Params:
    """The learnt weights, with nothing swapped."""
    return gx.gmixout_eval_params(opt_state, params)


@dataclasses.dataclass(frozen=True)
class NeuronMixout(Mixout):
  """Mixout as in the paper of 2020: an input neuron's weights swap together."""

  title: ClassVar[str] = "Mixout, neurons"
  sampler: Sampler = "neuron"
