"""LoRA: a product of two thin matrices beside every matrix of the blocks."""

import dataclasses
from typing import Any, ClassVar

import jax
import jax.numpy as jnp
import optax
from flax import nnx
from jaxtyping import Array, Float

import gmixout_jax as gx
from experiments.data.source import Source
from experiments.methods.method import Method, Params, Schedule
from experiments.models.classifier import Classifier
from gmixout_jax.labels import named_leaves


@dataclasses.dataclass(frozen=True)
class LoRA(Method):
  """Trains W0 + (α/r) A B with W0 frozen, and merges it at the end.

  Hu et al., 2021 (https://arxiv.org/abs/2106.09685). All six matrices of a
  block have factors (q, k, v, o, fc1, fc2), the same ones that GMixout mixes.
  The head trains densely and all else is frozen. There is no dropout. The
  paper multiplies from the left, so its A and B are swapped.

  Attributes:
    learning_rate: The peak, for the factors.
    head_learning_rate: The peak, for the head.
    rank: r, at least 1.
    alpha: α; the product is scaled by α/r.
  """

  title: ClassVar[str] = "LoRA"
  learning_rate: float = 1e-3
  head_learning_rate: float = 1e-4
  rank: int = 8
  alpha: float = 16.0

  def __post_init__(self):
    if self.rank < 1:
      raise ValueError(f"rank must be at least 1, got {self.rank}.")

  def prepare(
    self, model: Classifier, data: Source, key: jax.Array
  ) -> Classifier:
    """The model with factors; what it computes stays the same."""
    model = nnx.clone(super().prepare(model, data, key))
    params = nnx.to_pure_dict(nnx.state(model, nnx.Param))
    labels = dict(named_leaves(gx.gmixout_labels(params)))
    for path, layer in list(nnx.iter_modules(model)):
      name = "/".join(map(str, path))
      mixed = labels.get(f"{name}/kernel") == "mixed"
      if mixed and isinstance(layer, nnx.Linear):
        key, own = jax.random.split(key)
        _replace(model, path, LowRank(layer, self.rank, self.alpha, own))
    return model

  def transform(
    self, params: Params, schedule: Schedule, key: jax.Array
  ) -> optax.GradientTransformation:
    """AdamW on the factors and on the head."""
    del params, key
    return optax.partition(
      {
        "factors": schedule.make_optimizer(self.learning_rate),
        "head": schedule.make_optimizer(self.head_learning_rate),
        "frozen": optax.set_to_zero(),
      },
      _labels,
    )

  def trains(self, params: Params) -> Any:
    """The factors and the head."""
    return jax.tree.map(lambda label: label != "frozen", _labels(params))

  def export(self, model: Classifier) -> Classifier:
    """The model with the products added to the matrices."""
    model = nnx.clone(model)
    for path, layer in list(nnx.iter_modules(model)):
      if isinstance(layer, LowRank):
        _replace(model, path, layer.merged())
    return model


class LowRank(nnx.Module):
  """x W0 + (α/r) x A B + b.

  Attributes:
    linear: W0 and b.
    inner: A, [in, r]; uniform in ± 1/√in, which is the paper's Kaiming.
    outer: B, [r, out]; 0 at first.
    scale: α/r.
  """

  def __init__(
    self, linear: nnx.Linear, rank: int, alpha: float, key: jax.Array
  ):
    inputs, outputs = linear.kernel.shape
    dtype = linear.kernel.dtype
    bound = inputs**-0.5
    self.linear = linear
    self.inner = nnx.Param(
      jax.random.uniform(key, (inputs, rank), dtype, -bound, bound)
    )
    self.outer = nnx.Param(jnp.zeros((rank, outputs), dtype))
    self.scale = alpha / rank

  def __call__(self, x: Float[Array, "*batch in"]) -> Float[Array, "*batch o"]:
    """The layer's output."""
    y = self.linear(x)
    update = (x.astype(y.dtype) @ self.inner[...].astype(y.dtype)) @ (
      self.outer[...].astype(y.dtype)
    )
    return y + self.scale * update

  def merged(self) -> nnx.Linear:
    """One layer that computes the same."""
    merged = nnx.clone(self.linear)
    product = self.inner[...] @ self.outer[...]
    merged.kernel = nnx.Param(merged.kernel[...] + self.scale * product)
    return merged


def _replace(model: nnx.Module, path: tuple[Any, ...], new: nnx.Module):
  parent: Any = model
  for part in path[:-1]:
    parent = parent[part] if isinstance(part, int) else getattr(parent, part)
  if isinstance(path[-1], int):
    parent[path[-1]] = new
  else:
    setattr(parent, path[-1], new)


def _labels(params: Params) -> Any:
  def label(path: tuple[Any, ...], leaf: Any) -> str:
    del leaf
    names = [str(getattr(key, "key", key)) for key in path]
    if names[0] == "head":
      return "head"
    return "factors" if names[-1] in ("inner", "outer") else "frozen"

  return jax.tree_util.tree_map_with_path(label, params)
