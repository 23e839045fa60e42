"""On which inputs the outputs of a function depend, by value."""

from collections.abc import Callable
from typing import Any

import jax
import jax.extend as jex

_CALLS = {"jit", "pjit", "closed_call", "checkpoint", "remat", "remat2"}


def sources_of_outputs(
  function: Callable[[Any], Any], argument: Any
) -> tuple[Any, list[frozenset[int]]]:
  """Traces a function to see what each of its outputs is computed from.

  Only values count: `jnp.zeros_like` asks for shape and dtype.

  Args:
    function: Any function that can be traced.
    argument: A pytree of arrays, traced or not, or `jax.ShapeDtypeStruct`.

  Returns:
    Structure of the result; and for each of its leaves the positions of the
    leaves of `argument` that it depends on.

  Raises:
    jax.errors.JAXTypeError: If it asks for values while it is traced.

  >>> import jax.numpy as jnp
  >>> init = lambda params: (params, jnp.zeros_like(params["b"]))
  >>> sources_of_outputs(init, {"a": jnp.ones(2), "b": jnp.ones(3)})[1]
  [frozenset({0}), frozenset({1}), frozenset()]
  """
  jaxpr, result = jax.make_jaxpr(function, return_shape=True)(argument)
  each = [frozenset([i]) for i in range(len(jaxpr.jaxpr.invars))]
  return jax.tree.structure(result), _propagate(jaxpr.jaxpr, each)


def _propagate(
  jaxpr: jex.core.Jaxpr, inputs: list[frozenset[int]]
) -> list[frozenset[int]]:
  """Sources of the outputs of a traced function, given those of its inputs."""
  known = dict(zip(jaxpr.invars, inputs, strict=True))
  nothing = frozenset[int]()

  def read(atom: Any) -> frozenset[int]:
    is_literal = isinstance(atom, jex.core.Literal)
    return nothing if is_literal else known.get(atom, nothing)

  for eqn in jaxpr.eqns:
    sources = [read(atom) for atom in eqn.invars]
    called = eqn.params.get("jaxpr")
    if eqn.primitive.name in _CALLS and called is not None:
      results = _propagate(getattr(called, "jaxpr", called), sources)
    else:
      results = [nothing.union(*sources)] * len(eqn.outvars)
    known.update(zip(eqn.outvars, results, strict=True))
  return [read(atom) for atom in jaxpr.outvars]
