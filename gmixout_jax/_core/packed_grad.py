"""Taps: where the gradient of a mixed leaf comes out, packed.

`jax.grad` hands back a gradient as large as what it differentiates. So what is
differentiated is not the weights but the residual Δ at the active entries: a
tap lets the weights through unchanged and, in the backward pass, keeps of
their gradient only what Δ receives, ``(∂L/∂W)[idx] / s``. The dense gradient
of a matrix is dropped as soon as it is made.

A tap can be put into a linear layer's product instead. With whole inputs
active (the "neuron" sampler) the dense gradient is then never made: its active
rows are those columns of the input times the gradient of the output, and no
other column of the input is kept for the backward pass. A stack of layers has
a stack of taps, which a scan cuts as it cuts the stack of kernels.
"""

import dataclasses
import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import optax
from flax import struct

from gmixout_jax._core import layouts
from gmixout_jax._core.mixed_leaf import MixedLeaf
from gmixout_jax._core.step import Begun


@struct.dataclass
class Tap:
  """The tap of one leaf; see the module.

  The forward pass never reads `residual`: the training weights hold it.

  Attributes:
    residual: Δ, what to differentiate with respect to.
    indices: The active entries, as the leaf's layout addresses them.
    mix: The leaf's arithmetic (pytree metadata).
  """

  residual: jax.Array
  indices: jax.Array
  mix: MixedLeaf = struct.field(pytree_node=False)

  def weights(self, leaf: jax.Array, own: jax.Array) -> jax.Array:
    """The training weights, whose gradient goes to Δ.

    Args:
      leaf: The leaf as the model computes with it.
      own: The Δ that it holds.

    Returns:
      `leaf`; nothing flows back to it.
    """
    mix, dtype = self.mix, self.residual.dtype

    @jax.custom_vjp
    def let_through(leaf, residual, own, indices):
      del residual, own, indices
      return leaf

    def forward(leaf, residual, own, indices):
      # Of Δ only what the leaf does not hold moves it: nothing, but for whoever
      # differentiates a second time, with respect to Δ or to the leaf.
      return _of_residual(mix, leaf, residual - own, indices), indices

    def backward(indices, gradient):
      active = mix.active(gradient, indices) / mix.divisor
      return None, active.astype(dtype), None, None

    let_through.defvjp(forward, backward)
    return let_through(leaf, self.residual, own, self.indices)

  def of_layers(self) -> "Tap":
    """The tap of a stack with the axes that number layers in front.

    There a scan over the layers, or a map, cuts it: Δ and indices alike.
    """
    residual = _layers_first(self.mix, self.residual)
    return Tap(residual, self.indices, self.mix)

  def dot_general(
    self,
    inputs: jax.Array,
    kernel: jax.Array,
    dimension_numbers: Any,
    **options: Any,
  ) -> jax.Array:
    """`jax.lax.dot_general` whose gradient with respect to `kernel` goes to Δ.

    Args:
      inputs: An array of any shape.
      kernel: The training weights of one layer, perhaps in a low-precision
        dtype.
      dimension_numbers: With whole inputs active, the product must contract
        the kernel's inputs, all of them and in their order, with as many axes
        of `inputs`, and have no batch axes: what linear layers do.
      **options: Other arguments of `jax.lax.dot_general`.

    Returns:
      The product. Nothing flows back to `kernel`; but if the product is of
      another kind, or the tap still is that of a stack, it is as without a
      tap, for one on the weights to take the gradient.
    """
    dot = functools.partial(jax.lax.dot_general, **options)
    (contracted, by_kernel), batch = dimension_numbers
    contracted, by_kernel = tuple(contracted), tuple(by_kernel)
    layout = self.mix.layout
    if not isinstance(layout, layouts.WholeInputs):
      if kernel.shape != layout.shape:
        return dot(inputs, kernel, dimension_numbers)
      product = functools.partial(dot, dimension_numbers=dimension_numbers)
      return _tapped_dot(product, self, inputs, kernel)
    layer = layout.of_layer()
    fits = (
      self.indices.ndim == 1
      and kernel.shape == layer.shape
      and by_kernel == layer.input_axes
      and not any(map(len, batch))
    )
    if not fits:
      return dot(inputs, kernel, dimension_numbers)
    mix = dataclasses.replace(self.mix, layout=layer)
    tap = Tap(self.residual, self.indices, mix)
    return _dot_of_whole_inputs(dot, tap, inputs, kernel, contracted)


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
      tap = taps[tree.mixes[i].path]
      leaves.append(tap.weights(leaf, begun.residuals[i]))
    else:
      frozen = isinstance(own, optax.MaskedNode)
      leaves.append(leaf if frozen else own.astype(leaf.dtype))
  return tree.treedef.unflatten(leaves)


@functools.partial(jax.custom_jvp, nondiff_argnums=(0,))
def _of_residual(
  mix: MixedLeaf, leaf: jax.Array, residual: jax.Array, indices: jax.Array
) -> jax.Array:
  """The leaf, which moves as Δ does where a gradient is differentiated again.

  So gradients of gradients, as of a penalty on them, reach Δ.
  """
  del mix, residual, indices
  return leaf


@_of_residual.defjvp
def _(mix: MixedLeaf, primals: Any, tangents: Any) -> Any:
  leaf, _, indices = primals
  of_leaf, of_residual, _ = tangents
  return leaf, of_leaf + mix.moved(of_residual, indices, leaf)


@jax.custom_jvp
def _untapped(kernel: jax.Array) -> jax.Array:
  """The kernel, to which nothing flows back.

  Zeros would flow back through a `None` of `jax.custom_vjp`, and a scan would
  write as many as its stack of kernels has entries. With
  `jax.lax.stop_gradient` it would copy that stack in the forward pass.
  """
  return kernel


@_untapped.defjvp
def _(primals: Any, tangents: Any) -> Any:
  del tangents
  return primals[0], jnp.zeros_like(primals[0])


def _tapped_dot(
  dot: Callable[..., jax.Array], tap: Tap, inputs: jax.Array, kernel: jax.Array
) -> jax.Array:
  """A product whose dense gradient is packed at once."""
  return _tapped_product(
    tap,
    inputs,
    kernel,
    dot,
    keep=lambda inputs, indices: inputs,
    kept_dot=dot,
    gradient_type=layouts.type_of(kernel),
    pack=lambda gradient, indices, kernel: tap.mix.active(gradient, indices),
  )


def _dot_of_whole_inputs(
  dot: Callable[..., jax.Array],
  tap: Tap,
  inputs: jax.Array,
  kernel: jax.Array,
  contracted: tuple[int, ...],
) -> jax.Array:
  """A product that keeps, and makes the gradient of, active inputs alone."""
  mix, dtype = tap.mix, tap.residual.dtype
  layout = mix.layout
  assert isinstance(layout, layouts.WholeInputs)
  by_kernel = layout.input_axes
  numbers = ((contracted, by_kernel), ((), ()))
  packed_numbers = (((inputs.ndim - len(contracted),), by_kernel[:1]), ((), ()))
  return _tapped_product(
    tap,
    inputs,
    kernel,
    lambda inputs, kernel: dot(inputs, kernel, numbers),
    keep=lambda inputs, indices: _columns(inputs, contracted, indices),
    kept_dot=lambda kept, packed: dot(kept, packed, packed_numbers),
    gradient_type=jax.ShapeDtypeStruct(
      layout.packed_shape, kernel.dtype, sharding=layout.packed_sharding(kernel)
    ),
    pack=lambda gradient, indices, kernel: mix.spread(
      gradient.astype(dtype), indices, kernel
    ),
  )


def _tapped_product(
  tap: Tap,
  inputs: jax.Array,
  kernel: jax.Array,
  dot: Callable[..., jax.Array],
  *,
  keep: Callable[..., jax.Array],
  kept_dot: Callable[..., jax.Array],
  gradient_type: jax.ShapeDtypeStruct,
  pack: Callable[..., jax.Array],
) -> jax.Array:
  """A product whose gradient with respect to the kernel goes to Δ.

  Args:
    tap: Of the kernel.
    inputs: Of the product.
    kernel: The training weights.
    dot: (inputs, kernel) → product.
    keep: (inputs, indices) → what is kept of the inputs.
    kept_dot: (kept, part of the kernel) → what that adds to the product.
    gradient_type: Of that part, and of its gradient.
    pack: (gradient, indices, kernel) → in the shape of Δ.
  """
  mix, dtype = tap.mix, tap.residual.dtype
  inputs_type = layouts.type_of(inputs)

  @jax.custom_vjp
  def product(inputs, kernel, residual, indices):
    del residual, indices
    return dot(inputs, kernel)

  def forward(inputs, kernel, residual, indices):
    moving = _of_residual(mix, kernel, residual, indices)
    saved = keep(inputs, indices), kernel, residual, indices
    return dot(inputs, moving), saved

  def backward(saved, gradient):
    kept, kernel, residual, indices = saved
    # Not saved as such: of a stack, a scan would save a copy.
    kernel = _of_residual(mix, kernel, residual, indices)
    # Both products below read it. Without the barrier XLA fuses what made it
    # into a transposed copy for one of them, element by element.
    gradient = jax.lax.optimization_barrier(gradient)
    (for_inputs,) = jax.linear_transpose(
      lambda inputs: dot(inputs, kernel), inputs_type
    )(gradient)
    (for_kernel,) = jax.linear_transpose(
      lambda part: kept_dot(kept, part), gradient_type
    )(gradient)
    active = pack(for_kernel, indices, kernel) / mix.divisor
    active = active.astype(dtype)
    # Earlier layers wait for the packed gradient, or XLA might keep the dense
    # ones of all layers and pack them in the end.
    for_inputs, active = jax.lax.optimization_barrier((for_inputs, active))
    return for_inputs, None, active, None

  product.defvjp(forward, backward)
  return product(inputs, _untapped(kernel), tap.residual, tap.indices)


def _columns(
  inputs: jax.Array, contracted: tuple[int, ...], indices: jax.Array
) -> jax.Array:
  """What a product contracts of its inputs, at the active ones: ``[..., r]``.

  The other axes keep their order, which is that of the product's axes.
  """
  free = [axis for axis in range(inputs.ndim) if axis not in contracted]
  whole = layouts.whole_along(inputs, contracted)
  last = jnp.transpose(whole, (*free, *contracted))
  merged = last.reshape(*last.shape[: len(free)], -1)
  return merged.at[..., indices].get(mode="promise_in_bounds")


def _layers_first(mix: MixedLeaf, residual: jax.Array) -> jax.Array:
  """Δ with the axes that number layers in front."""
  layout = mix.layout
  if not isinstance(layout, layouts.WholeInputs):
    return residual
  assert layout.axes is not None
  axes = tuple(layout.axes)
  if mix.packed_layout is not None:
    axes = layout.packed_names(axes)
  layers = [i for i, letter in enumerate(axes) if letter == "l"]
  return jnp.moveaxis(residual, layers, range(len(layers)))
