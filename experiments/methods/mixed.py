"""What GMixout, Mixout and Random Mask have in common."""

import dataclasses
import functools
from typing import Any, Literal

import jax
import optax

import gmixout_jax as gx
from experiments.methods.method import Method, Params, Schedule
from experiments.methods.parametrization import Form

Sampler = Literal["stratified", "uniform", "bernoulli", "neuron"]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Mixed(Method):
  """Mixes the matrices of the transformer blocks, and trains the head densely.

  All else is frozen. A subclass defines its defaults and its `settings`.

  Attributes:
    learning_rate: The peak, for the mixed matrices.
    head_learning_rate: The peak, for the head.
    sparsity: p, the fraction of each matrix held at the anchor, in [0, 1).
    sampler: How the active entries are drawn.
    compact: Whether to train packed (`gmixout_jax.MixedParams`) if that gives
      the same weights, see `packs`. Methods that differ only in it are equal,
      and result lines do not record it.
  """

  learning_rate: float
  head_learning_rate: float
  sparsity: float = 0.9
  sampler: Sampler = "stratified"
  compact: bool = dataclasses.field(default=True, compare=False)

  def __post_init__(self):
    # Sees to the settings now, and not when the images have been read.
    self.mix(optax.identity(), key=0)

  @property
  def packs(self) -> bool:
    """Whether gradients and optimizer state are packed in its runs."""
    return self.compact

  def settings(self) -> dict[str, Any]:
    """The settings of both `gx.gmixout` and `gx.MixedParams.create`."""
    return {"sparsity": self.sparsity, "sampler": self.sampler}

  def transform(
    self, params: Params, schedule: Schedule, key: jax.Array
  ) -> optax.GradientTransformation:
    """AdamW for the blocks and the head, mixed unless `parametrize` packs."""
    del params
    blocks = schedule.make_optimizer(self.learning_rate)
    head = schedule.make_optimizer(self.head_learning_rate)
    if self.packs:
      return optax.partition({"mixed": blocks, "dense": head}, _packed_labels)
    return optax.partition(
      {
        "mixed": self.mix(blocks, key),
        "dense": head,
        "frozen": optax.set_to_zero(),
      },
      block_labels,
    )

  def trains(self, params: Params) -> Any:
    """The matrices of the blocks, and the head."""
    return jax.tree.map(lambda label: label != "frozen", block_labels(params))

  def mix(
    self, inner: optax.GradientTransformation, key: jax.Array | int
  ) -> optax.GradientTransformation:
    """The transformation of the blocks' matrices."""
    return gx.gmixout(inner, key=key, **self.settings())

  def parametrize(self, params: Params, key: jax.Array) -> Form:
    """Mixed parameters if it `packs`, else the parameters as they are."""
    if not self.packs:
      return params
    return gx.MixedParams.create(
      params, key=key, target=gx.VIT_RULES, **self.settings()
    )

  def deploy(self, opt_state: optax.OptState, params: Form) -> Params:
    """A + (1−λ)Δ, or A + Δ where the residual is never merged."""
    if self.packs:
      return params.eval_params()
    return gx.gmixout_eval_params(opt_state, params)


block_labels = functools.partial(gx.gmixout_labels, rules=gx.VIT_RULES)
"""From parameters to "mixed" (matrices of blocks), "dense" (head), "frozen"."""


def _packed_labels(trainable: Any) -> Any:
  """The labels of what trains: the head is dense, all else is packed."""

  def label(path: Any, leaf: Any) -> str:
    del leaf
    name = jax.tree_util.keystr(path, simple=True, separator="/")
    return "dense" if name.startswith("head/") else "mixed"

  return jax.tree.map_with_path(label, trainable)
