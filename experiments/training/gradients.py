"""Gradients of a step: over micro-batches, measured, clipped."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Float

from gmixout_jax import parallel

Loss = Callable[[Any, Any, jax.Array], Float[Array, ""]]


def value_and_grad(
  loss: Loss, micro_batches: int = 1
) -> Callable[[Any, Any, jax.Array], tuple[Float[Array, ""], Any]]:
  """The mean of loss and gradients over equal parts of a batch.

  The parts go through the model one after another, so only one of them is in
  memory. For a loss that is a mean over images it is the gradient of the whole
  batch; a contrastive loss has the negatives of a part.

  Args:
    loss: Of what trains, a batch and a key.
    micro_batches: Parts, at least 1.

  Returns:
    A function of the same arguments. Each part has a key of its own if there
    are several.

  Raises:
    ValueError: When called, if the batch cannot be divided evenly.

  Example:
    >>> loss = lambda w, batch, key: jnp.mean((w * batch) ** 2)
    >>> whole, parts = value_and_grad(loss), value_and_grad(loss, 2)
    >>> args = jnp.array(1.0), jnp.arange(4.0), jax.random.key(0)
    >>> [float(x) for x in whole(*args)] == [float(x) for x in parts(*args)]
    True
  """
  value_and_grad_of_one = jax.value_and_grad(loss)
  if micro_batches == 1:
    return value_and_grad_of_one

  def accumulated(trainable: Any, batch: Any, key: jax.Array) -> Any:
    size = len(jax.tree.leaves(batch)[0])
    if size % micro_batches:
      raise ValueError(
        f"a batch of {size} images cannot be divided evenly into"
        f" accumulate={micro_batches} micro-batches."
      )
    parts = jax.tree.map(
      lambda leaf: leaf.reshape(micro_batches, -1, *leaf.shape[1:]), batch
    )

    def add(total: Any, numbered: Any) -> tuple[Any, None]:
      number, part = numbered
      found = value_and_grad_of_one(
        trainable, part, jax.random.fold_in(key, number)
      )
      return jax.tree.map(jnp.add, total, found), None

    like = jax.eval_shape(
      value_and_grad_of_one, trainable, jax.tree.map(lambda x: x[0], parts), key
    )
    zeros = jax.tree.map(lambda leaf: jnp.zeros(leaf.shape, leaf.dtype), like)
    total, _ = jax.lax.scan(add, zeros, (jnp.arange(micro_batches), parts))
    return jax.tree.map(lambda leaf: leaf / micro_batches, total)

  return accumulated


def stopped(params: Any, trains: Any) -> Any:
  """The parameters, of which those that do not train have no gradient."""
  return jax.tree.map(
    lambda leaf, own: leaf if own else jax.lax.stop_gradient(leaf),
    params,
    trains,
  )


def reduced(
  loss: Float[Array, ""], gradients: Any, trains: Any
) -> tuple[Float[Array, ""], Any]:
  """Means over devices, inside `parallel.data_parallel`.

  Args:
    loss: Of a part of the batch.
    gradients: Likewise.
    trains: A bool for each leaf. The others are zero, and stay where they are.
  """
  leaves, treedef = jax.tree.flatten(gradients)
  own = jax.tree.leaves(trains)
  sent = [leaf for leaf, ours in zip(leaves, own, strict=True) if ours]
  loss, sent = parallel.mean((loss, sent))
  back = iter(sent)
  whole = [
    next(back) if ours else leaf for leaf, ours in zip(leaves, own, strict=True)
  ]
  return loss, jax.tree.unflatten(treedef, whole)


def norm(gradients: Any, counted: Any = None) -> Float[Array, ""]:
  """The Euclidean norm of all leaves together.

  Args:
    gradients: A pytree.
    counted: A pytree of bools like it: which leaves count; by default all.
  """
  if counted is not None:
    gradients = [
      leaf
      for leaf, counts in zip(
        jax.tree.leaves(gradients), jax.tree.leaves(counted), strict=True
      )
      if counts
    ]
  return optax.tree.norm(gradients)


def clip(gradients: Any, norm: Float[Array, ""], largest: float) -> Any:
  """Gradients scaled so that their norm is at most `largest`.

  The arithmetic is that of `optax.clip_by_global_norm`, with a norm that need
  not count all leaves.
  """
  fits = norm < largest
  return jax.tree.map(
    lambda leaf: jnp.where(
      fits, leaf, (leaf / norm.astype(leaf.dtype)) * largest
    ).astype(leaf.dtype),
    gradients,
  )
