"""What a compiled step costs, by XLA's own count: nothing is timed."""

from typing import Any, NamedTuple

import jax


class StepCosts(NamedTuple):
  """Of one step on one device.

  Attributes:
    flops: Floating-point operations. What a loop repeats, such as micro-batches
      do, is counted once.
    peak_bytes: Of its inputs, of outputs that do not take their place, and of
      temporaries.
  """

  flops: float = 0.0
  peak_bytes: int = 0


def counted(compiled: Any) -> StepCosts:
  """What XLA says of an executable.

  Args:
    compiled: From `jax.stages.Lowered.compile`.

  Example:
    >>> import jax, jax.numpy as jnp
    >>> x = jnp.ones((64, 32))
    >>> product = jax.jit(lambda x: x @ x.T).lower(x).compile()
    >>> found = counted(product)
    >>> found.flops >= 2 * 64 * 64 * 32, found.peak_bytes >= 4 * 64 * (32 + 64)
    (True, True)
  """
  memory = compiled.memory_analysis()
  return StepCosts(
    float(compiled.cost_analysis()["flops"]),
    memory.argument_size_in_bytes
    + memory.output_size_in_bytes
    - memory.alias_size_in_bytes
    + memory.temp_size_in_bytes,
  )


def reduced_bytes(trained: Any, trains: Any) -> int:
  """Bytes of the gradients that devices send each other in a step.

  Args:
    trained: What the loss is differentiated with respect to.
    trains: A bool for each leaf: whether it has a gradient.
  """
  pairs = zip(jax.tree.leaves(trained), jax.tree.leaves(trains), strict=True)
  return sum(leaf.size * leaf.dtype.itemsize for leaf, own in pairs if own)
