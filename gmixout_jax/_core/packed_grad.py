"""Taps: where the gradient of a mixed leaf comes out, packed.

`jax.grad` hands back a gradient as large as what it differentiates. So what is
differentiated is not the weights but the residual Δ at the active entries: a
tap lets the weights through unchanged and, in the backward pass, keeps of
their gradient only what Δ receives, ``(∂L/∂W)[idx] / s``. The dense gradient
of a matrix is dropped as soon as it is made.

A tap can be put into a linear layer's product instead. With whole input rows
active (the "neuron" sampler) the dense gradient is then never made: its active
rows are those columns of the input times the gradient of the output, and no
other column of the input is kept for the backward pass.
"""

import functools
from collections.abc import Callable
from typing import Any

import jax
import optax
from flax import struct

from gmixout_jax._core import layouts
from gmixout_jax._core.mixed_leaf import MixedLeaf
from gmixout_jax._core.step import Begun


@struct.dataclass
class Tap:
  """The tap of one leaf; see the module.

  The forward pass never reads `residual`: the live weights hold it already.

  Attributes:
    residual: Δ, what to differentiate with respect to.
    indices: The active entries, as the leaf's layout addresses them.
    mix: The leaf's arithmetic (pytree metadata).
  """

  residual: jax.Array
  indices: jax.Array
  mix: MixedLeaf = struct.field(pytree_node=False)

  def weights(self, live: jax.Array) -> jax.Array:
    """The live weights, whose gradient goes to Δ.

    Args:
      live: The leaf as the model computes with it.

    Returns:
      `live`; nothing flows back to it.
    """
    mix, dtype = self.mix, self.residual.dtype

    @jax.custom_vjp
    def let_through(live, residual, indices):
      del residual, indices
      return live

    def forward(live, residual, indices):
      del residual
      return live, indices

    def backward(indices, gradient):
      active = mix.active(gradient, indices) / mix.divisor
      return None, active.astype(dtype), None

    let_through.defvjp(forward, backward)
    return let_through(live, self.residual, self.indices)

  def dot_general(
    self,
    inputs: jax.Array,
    kernel: jax.Array,
    dimension_numbers: Any,
    **options: Any,
  ) -> jax.Array:
    """`jax.lax.dot_general` whose gradient with respect to `kernel` goes to Δ.

    Args:
      inputs: ``[..., in]``.
      kernel: The live weights ``[in, out]``, perhaps in a narrower dtype.
      dimension_numbers: Must contract the last axis of `inputs` with the first
        of `kernel`, which is what linear layers do.
      **options: Other arguments of `jax.lax.dot_general`.

    Returns:
      The product; nothing flows back to `kernel`.

    Raises:
      ValueError: If the product is of another kind.
    """
    contract = (((inputs.ndim - 1,), (0,)), ((), ()))
    asked = jax.tree.map(tuple, dimension_numbers, is_leaf=_is_axes)
    fits = kernel.ndim == 2 and kernel.shape == self.mix.layout.shape
    if asked != contract or not fits:
      raise ValueError(
        f"the tap of {self.mix.path!r} fits a product of inputs [..., in] with"
        f" a kernel [in, out] of shape {self.mix.layout.shape}, got a kernel of"
        f" shape {kernel.shape} and dimension_numbers {dimension_numbers}."
      )
    dot = functools.partial(
      jax.lax.dot_general, dimension_numbers=contract, **options
    )
    return _tapped_dot(dot, self, inputs, kernel)


def taps(begun: Begun, trainable: list[Any]) -> dict[str, Tap]:
  """The tap of every mixed leaf by its '/'-joined path.

  For layers that put taps into their products.

  Args:
    begun: The step.
    trainable: The leaves of a tree like `MixedParams.trainable`; perhaps
      traced by `jax.grad`.
  """
  return {
    mix.path: Tap(trainable[i], begun.steps[i].indices, mix)
    for i, mix in begun.tree.mixes.items()
  }


def tapped_weights(
  begun: Begun, taps: dict[str, Tap], trainable: list[Any]
) -> Any:
  """The weights for the model, whose gradients go to `trainable`.

  Args:
    begun: The step.
    taps: What `taps` has made of the same argument.
    trainable: As for `taps`.
  """
  tree, leaves = begun.tree, []
  for i, (leaf, own) in enumerate(zip(tree.leaves, trainable, strict=True)):
    if i in tree.mixes:
      leaves.append(taps[tree.mixes[i].path].weights(leaf))
    else:
      frozen = isinstance(own, optax.MaskedNode)
      leaves.append(leaf if frozen else own.astype(leaf.dtype))
  return tree.treedef.unflatten(leaves)


def _tapped_dot(
  dot: Callable[..., jax.Array], tap: Tap, inputs: jax.Array, kernel: jax.Array
) -> jax.Array:
  mix, dtype = tap.mix, tap.residual.dtype
  whole_rows = isinstance(mix.layout, layouts.WholeInputs)
  inputs_type = jax.ShapeDtypeStruct(inputs.shape, inputs.dtype)

  @jax.custom_vjp
  def product(inputs, kernel, residual, indices):
    del residual, indices
    return dot(inputs, kernel)

  def forward(inputs, kernel, residual, indices):
    del residual
    kept = inputs
    if whole_rows:
      kept = inputs.at[..., indices].get(mode="promise_in_bounds")
    return dot(inputs, kernel), (kept, kernel, indices)

  def backward(saved, gradient):
    kept, kernel, indices = saved
    # Both products below read it. Without the barrier XLA fuses what made it
    # into a transposed copy for one of them, element by element.
    gradient = jax.lax.optimization_barrier(gradient)
    kernel_type = jax.ShapeDtypeStruct(
      (kept.shape[-1], kernel.shape[-1]), kernel.dtype
    )
    (for_inputs,) = jax.linear_transpose(
      lambda inputs: dot(inputs, kernel), inputs_type
    )(gradient)
    (for_kernel,) = jax.linear_transpose(
      lambda kernel: dot(kept, kernel), kernel_type
    )(gradient)
    if whole_rows:
      active = mix.spread(for_kernel.astype(dtype), indices, kernel)
    else:
      active = mix.active(for_kernel, indices)
    active = (active / mix.divisor).astype(dtype)
    # Earlier layers wait for the packed gradient, or XLA might keep the dense
    # ones of all layers and pack them in the end.
    for_inputs, active = jax.lax.optimization_barrier((for_inputs, active))
    return for_inputs, None, active, None

  product.defvjp(forward, backward)
  return product(inputs, kernel, tap.residual, tap.indices)


def _is_axes(node: Any) -> bool:
  """Whether it is one of the lists of axes in dimension numbers."""
  return all(isinstance(axis, int) for axis in node)
