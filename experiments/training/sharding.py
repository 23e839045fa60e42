"""How the devices of a run share its work, and its state if they are to.

"data": each device has all of the state and a part of every batch; what trains
is reduced, packed where it trains packed. "fsdp": the state is cut up along its
rows, too, so that each device keeps a part of weights, anchors and moments, and
gathers the weights to compute with them.
"""

from collections.abc import Callable
from typing import Any, Literal, get_args

import jax
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from gmixout_jax import parallel

Sharding = Literal["data", "fsdp"]

SHARDINGS: tuple[Sharding, ...] = get_args(Sharding)

Step = Callable[..., tuple[Any, Any]]


def place(state: Any, mesh: Mesh, sharding: Sharding) -> Any:
  """The state of a run before its first step, on the devices of a mesh.

  Args:
    state: A pytree of arrays, equal on all processes.
    mesh: From `parallel.data_mesh`.
    sharding: "data" or "fsdp".

  Raises:
    ValueError: If it is neither.
  """
  _check(sharding)
  if sharding == "data":
    return parallel.replicate(state, mesh)
  return parallel.place(state, parallel.row_shardings(state, mesh))


def compile_step(step: Step, mesh: Mesh | None, sharding: Sharding) -> Step:
  """Compiles a step of `parallel.data_parallel`; it takes over the state.

  Args:
    step: (state, batch, *others) → (state, metrics). Where there is a mesh it
      averages what depends on the batch by `parallel.mean`, and computes with
      `parallel.gathered` weights.
    mesh: From `parallel.data_mesh`; None for one device.
    sharding: Of a state from `place`.

  Raises:
    ValueError: If the sharding is none.
  """
  _check(sharding)
  if mesh is None:
    return jax.jit(step, donate_argnums=0)
  if sharding == "data":
    return parallel.data_parallel(step, mesh)

  def sharded(state: Any, batch: Any, *others: Any) -> tuple[Any, Any]:
    shardings = parallel.row_shardings(state, mesh)
    compiled = parallel.data_parallel(
      step, mesh, style="jit", state_sharding=shardings
    )
    state, metrics = compiled(state, batch, *others)
    # Every process reads them.
    return state, jax.lax.with_sharding_constraint(metrics, _everywhere(mesh))

  return jax.jit(sharded, donate_argnums=0)


def local(
  make: Callable[..., Any], state: Any, mesh: Mesh | None, sharding: Sharding
) -> Any:
  """What `make` makes of the state, whole, on this process' first device.

  Args:
    make: From the parameters and the optimizer's state to a pytree. Where the
      state is sharded it is traced, so that its result alone is ever whole.
    state: Of a run.
    mesh: Where it lies.
    sharding: How.
  """
  if mesh is not None and sharding == "fsdp":
    made = jax.jit(make, out_shardings=_everywhere(mesh))(*state)
    return parallel.on_one_device(made)
  return make(*parallel.on_one_device(state))


def _everywhere(mesh: Mesh) -> NamedSharding:
  return NamedSharding(mesh, PartitionSpec())


def _check(sharding: Any) -> None:
  if sharding not in SHARDINGS:
    raise ValueError(f"sharding must be one of {SHARDINGS}, got {sharding!r}.")
