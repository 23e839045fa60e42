"""One pure train step on many devices: data parallel, and sharded weights.

A step is a function of the state, a batch and further arguments. It averages
what depends on the batch over a named axis:

    def step(state, batch):
      mixed, opt_state = state
      whole = parallel.gathered(mixed)  # if the weights are sharded
      loss, grads = whole.value_and_grad(loss_fn)(batch)
      loss, grads = parallel.mean((loss, grads))
      return mixed.apply_gradients(tx, grads, opt_state), loss

`data_parallel` runs it in any of three styles. In all of them each device
computes the gradients of its own part of the batch, packed with `MixedParams`,
before anything is sent. So only packed gradients are reduced. Masks are a
function of key and step: every device draws them itself, and none is sent.

Under a plain ``jax.jit`` of a step without `mean`, XLA reduces the dense
gradients first and packs them afterwards: the same weights, ten times the
bytes. Inside a `jax.shard_map` of your own, pass ``check_vma=False``; otherwise
JAX sums the gradients of replicated weights densely, before they are packed.
"""

from collections.abc import Callable
from typing import Any, Literal

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec

__all__ = [
  "AXIS",
  "STYLES",
  "Style",
  "data_mesh",
  "data_parallel",
  "gathered",
  "global_batch",
  "index",
  "local_slice",
  "mean",
  "on_one_device",
  "over_examples",
  "place",
  "replicate",
  "row_shardings",
  "unreplicate",
]

Style = Literal["shard_map", "jit", "pmap"]
STYLES: tuple[Style, ...] = ("shard_map", "jit", "pmap")

AXIS = "data"


def data_mesh(devices: Any = None) -> Mesh:
  """A mesh of one axis, `AXIS`.

  Args:
    devices: The devices; by default all devices of all processes.
  """
  devices = jax.devices() if devices is None else devices
  return Mesh(np.asarray(devices), (AXIS,), axis_types=(AxisType.Auto,))


def mean(tree: Any) -> Any:
  """The mean over all devices, inside a step of `data_parallel`."""
  return jax.lax.pmean(tree, AXIS)


def gathered(tree: Any) -> Any:
  """Whole arrays for the forward pass, inside a step whose state is sharded.

  The identity if the state is replicated. The masks of a gathered
  `gmixout_jax.MixedParams` are drawn whole on each device; without this, XLA
  may draw rows on different devices and send them.

  Args:
    tree: Weights, `MixedParams`, or what is trained.
  """
  mesh = jax.sharding.get_abstract_mesh()
  if mesh.empty or AxisType.Auto not in mesh.axis_types:
    return tree

  return jax.tree.map(
    lambda leaf: jax.lax.with_sharding_constraint(leaf, PartitionSpec()), tree
  )


def index() -> jax.Array:
  """Which part of the batch a step sees: for randomness that must differ."""
  return jax.lax.axis_index(AXIS)


def data_parallel(
  step: Callable[..., tuple[Any, Any]],
  mesh: Mesh | None = None,
  *,
  style: Style = "shard_map",
  state_sharding: Any = None,
) -> Callable[..., tuple[Any, Any]]:
  """Compiles a step that sees an equal part of the batch on each device.

  Args:
    step: (state, batch, *others) → (state, output). Both results must be equal
      on all devices: everything that depends on the batch goes through `mean`.
    mesh: From `data_mesh`; by default of all devices.
    style: "shard_map"; "jit", which lays out the state by `state_sharding`; or
      "pmap".
    state_sharding: A sharding of each leaf of the state, for "jit" only: see
      `row_shardings`. Replicated by default.

  Returns:
    The same function of the whole batch; the first axis of each of its leaves
    counts examples. The state is donated. With "pmap" the state has a leading
    axis of devices: see `replicate`.

  Raises:
    ValueError: If the style is unknown, or does not take `state_sharding`; when
      called, if the batch cannot be divided evenly.

  Example:
    >>> import jax, jax.numpy as jnp
    >>> from gmixout_jax import parallel
    >>> def step(w, batch):
    ...   loss, grad = jax.value_and_grad(lambda w: jnp.mean(w * batch))(w)
    ...   loss, grad = parallel.mean((loss, grad))
    ...   return w - grad, loss
    >>> mesh = parallel.data_mesh(jax.devices()[:1])
    >>> w, loss = parallel.data_parallel(step, mesh)(jnp.ones([]), jnp.ones(4))
    >>> float(w), float(loss)
    (0.0, 1.0)
  """
  _check_style(style)
  if state_sharding is not None and style != "jit":
    raise ValueError(
      "state_sharding is for style='jit', as the others replicate the state,"
      f" got style={style!r}."
    )
  mesh = data_mesh() if mesh is None else mesh
  if style == "jit":
    return _by_jit(step, mesh, state_sharding)
  return {"shard_map": _by_shard_map, "pmap": _by_pmap}[style](step, mesh)


def _by_shard_map(step: Any, mesh: Mesh) -> Any:
  def whole(state: Any, batch: Any, *others: Any) -> Any:
    _check_batch(batch, mesh.size)
    everywhere, split = PartitionSpec(), PartitionSpec(AXIS)
    return jax.shard_map(
      step,
      mesh=mesh,
      in_specs=(everywhere, split, *(everywhere for _ in others)),
      out_specs=everywhere,
      # With it JAX would sum dense gradients, see the module.
      check_vma=False,
    )(state, batch, *others)

  return jax.jit(whole, donate_argnums=0)


def _by_jit(step: Any, mesh: Mesh, state_sharding: Any) -> Any:
  replicated = NamedSharding(mesh, PartitionSpec())
  split = NamedSharding(mesh, PartitionSpec(AXIS))
  state_sharding = replicated if state_sharding is None else state_sharding

  def whole(state: Any, batch: Any, *others: Any) -> Any:
    _check_batch(batch, mesh.size)
    parts = jax.tree.map(
      lambda leaf: jax.lax.with_sharding_constraint(
        leaf.reshape(mesh.size, -1, *leaf.shape[1:]), split
      ),
      batch,
    )
    # The parts of the batch are an axis of the program, laid out over devices;
    # so each makes and packs its own gradients, and `mean` is a mean over it.
    over_parts = jax.vmap(
      step,
      in_axes=(None, 0, *(None for _ in others)),
      out_axes=None,
      axis_name=AXIS,
      spmd_axis_name=AXIS,
    )
    with jax.sharding.use_abstract_mesh(mesh.abstract_mesh):
      state, output = over_parts(state, parts, *others)
    return jax.lax.with_sharding_constraint(state, state_sharding), output

  return jax.jit(whole, donate_argnums=0)


def _by_pmap(step: Any, mesh: Mesh) -> Any:
  devices = list(mesh.devices.flat)
  local = sum(d.process_index == jax.process_index() for d in devices)
  compiled: dict[int, Any] = {}

  def whole(state: Any, batch: Any, *others: Any) -> Any:
    _check_batch(batch, local)
    if len(others) not in compiled:
      compiled[len(others)] = jax.pmap(
        step,
        axis_name=AXIS,
        in_axes=(0, 0, *(None for _ in others)),
        out_axes=(0, None),
        devices=devices,
        donate_argnums=0,
      )
    parts = jax.tree.map(
      lambda leaf: leaf.reshape(local, -1, *leaf.shape[1:]), batch
    )
    return compiled[len(others)](state, parts, *others)

  return whole


def over_examples(
  apply: Callable[[Any, Any], Any], mesh: Mesh
) -> Callable[[Any, Any], Any]:
  """Splits the examples of a function over the devices, for evaluation.

  Args:
    apply: (weights, examples) → outputs, whose first axis is the examples.
    mesh: From `data_mesh`.

  Returns:
    The same function, to be called in `jax.jit`. It takes replicated weights,
    see `replicate`, and a batch that the devices divide evenly. Its outputs are
    whole on every device.
  """
  everywhere, split = PartitionSpec(), PartitionSpec(AXIS)
  specs: Any = {"in_specs": (everywhere, split), "out_specs": split}
  parts = jax.shard_map(apply, mesh=mesh, check_vma=False, **specs)

  def whole(weights: Any, examples: Any) -> Any:
    return jax.lax.with_sharding_constraint(
      parts(weights, examples), NamedSharding(mesh, everywhere)
    )

  return whole


def replicate(state: Any, mesh: Mesh, *, style: Style = "shard_map") -> Any:
  """The state on all devices, as `data_parallel` takes it.

  Args:
    state: A pytree of arrays, equal on all processes.
    mesh: From `data_mesh`.
    style: As for `data_parallel`.

  Returns:
    The state; with "pmap" its leaves have a leading axis of devices.

  Raises:
    ValueError: If the style is unknown.
  """
  _check_style(style)
  if style != "pmap":
    return jax.tree.map(lambda leaf: _everywhere(leaf, mesh), state)
  local = [
    d for d in mesh.devices.flat if d.process_index == jax.process_index()
  ]
  rows = NamedSharding(data_mesh(local), PartitionSpec(AXIS))

  def copies(leaf: Any) -> jax.Array:
    leaf = jnp.asarray(leaf)
    return jax.device_put(
      jnp.broadcast_to(leaf, (len(local), *leaf.shape)), rows
    )

  return jax.tree.map(copies, state)


def _everywhere(leaf: Any, mesh: Mesh) -> jax.Array:
  """An array on all devices of all processes, each of which has it."""
  if _is_key(leaf):
    data = _everywhere(jax.random.key_data(leaf), mesh)
    return jax.random.wrap_key_data(data, impl=jax.random.key_impl(leaf))
  # A copy: on the CPU the result may be this very buffer, to be donated.
  return jax.make_array_from_process_local_data(
    NamedSharding(mesh, PartitionSpec()), np.array(leaf)
  )


def place(state: Any, shardings: Any) -> Any:
  """The state on the devices of some shardings, such as `row_shardings`.

  Args:
    state: A pytree of arrays, equal on all processes.
    shardings: Like it; perhaps over the devices of several processes.
  """

  def placed(leaf: Any, sharding: jax.sharding.Sharding) -> jax.Array:
    if _is_key(leaf):  # on every device, as all that holds no floats
      return _everywhere(leaf, sharding.mesh)  # pyright: ignore
    whole = np.array(leaf)  # a copy, as in `_everywhere`
    return jax.make_array_from_callback(
      whole.shape, sharding, whole.__getitem__
    )

  return jax.tree.map(placed, state, shardings)


def _is_key(leaf: Any) -> bool:
  return isinstance(leaf, jax.Array) and jnp.issubdtype(
    leaf.dtype, jax.dtypes.prng_key
  )


def unreplicate(state: Any) -> Any:
  """One copy of a state with a leading axis of devices (style "pmap")."""
  return jax.tree.map(lambda leaf: leaf[0], state)


def on_one_device(state: Any) -> Any:
  """The copy of a replicated state on this process' first device."""
  return jax.tree.map(lambda leaf: leaf.addressable_data(0), state)


def row_shardings(state: Any, mesh: Mesh) -> Any:
  """Shards every array of floats along its rows, for style "jit" (FSDP).

  Packed arrays (anchor, gradients, moments) of samplers that draw per row are
  sharded with the rows of their matrix. An array whose first axis the devices
  do not divide evenly, such as a packed array of whole neurons, is sharded
  along the first axis that they do, and replicated if there is none. Arrays
  without floats, such as counters and mask keys, are replicated too: they are
  small, and every device draws masks with the whole key.

  Args:
    state: A pytree of arrays or shapes.
    mesh: From `data_mesh`.

  Returns:
    A pytree of `NamedSharding` like `state`, for `jax.device_put` (`place` with
    several processes) and for `data_parallel`.
  """

  def sharding(leaf: Any) -> NamedSharding:
    spec: list[str | None] = [None] * len(leaf.shape)
    if not jnp.issubdtype(leaf.dtype, jnp.inexact):
      return NamedSharding(mesh, PartitionSpec(*spec))
    for axis, size in enumerate(leaf.shape):
      if size >= mesh.size and size % mesh.size == 0:
        spec[axis] = AXIS
        break
    return NamedSharding(mesh, PartitionSpec(*spec))

  return jax.tree.map(sharding, state)


def local_slice(count: int) -> slice:
  """Which of `count` examples this process reads: every n-th of n processes.

  Args:
    count: Examples of a whole batch.

  Raises:
    ValueError: If the devices of all processes cannot share them evenly.
  """
  if count % jax.device_count():
    raise ValueError(
      f"a batch of {count} examples cannot be divided evenly among"
      f" {jax.device_count()} devices."
    )
  return slice(jax.process_index(), None, jax.process_count())


def global_batch(batch: Any, mesh: Mesh) -> Any:
  """The whole batch, made of the parts that the processes have read."""
  split = NamedSharding(mesh, PartitionSpec(AXIS))
  return jax.tree.map(
    lambda leaf: jax.make_array_from_process_local_data(
      split, np.asarray(leaf)
    ),
    batch,
  )


def _check_style(style: Any) -> None:
  if style not in STYLES:
    raise ValueError(f"style must be one of {STYLES}, got {style!r}.")


def _check_batch(batch: Any, devices: int) -> None:
  sizes = {leaf.shape[:1] for leaf in jax.tree.leaves(batch)}
  size = sizes.pop() if len(sizes) == 1 else ()
  if not size or not size[0] or size[0] % devices:
    shapes = sorted(str(leaf.shape) for leaf in jax.tree.leaves(batch))
    raise ValueError(
      "the leaves of a batch must have one first axis, not empty, to be divided"
      f" evenly among {devices} devices, got shapes {', '.join(shapes)}."
    )
