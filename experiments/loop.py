"""The training loop: one for every method, none of which it knows by name."""

import dataclasses
import functools
from collections.abc import Callable, Collection, Iterable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import nnx

from experiments import faults, form
from experiments.classifier import Classifier
from experiments.data.split import Batch
from experiments.keeper import Clock, Keeper, State, Trail
from experiments.methods.method import Method
from experiments.methods.run import Params, Snapshot
from experiments.schedule import Schedule
from gmixout_jax import parallel

Metrics = dict[str, Any]


@dataclasses.dataclass(frozen=True)
class Stats:
  """What a fit cost.

  Attributes:
    steps: Optimizer steps taken.
    steps_per_second: Over all steps but the first, which compiles.
    first_step_seconds: The first step, with its compilation.
    changed_parameters: Weights that one step changes. Measured, not declared:
      the most entries of any step's update that were not zero. Mixout's include
      those that it swaps back, which makes 1 − p² of a matrix and not 1 − p.
    trained_parameters: Weights that differ after the run from those before it,
      of all that are deployed (of LoRA, the factors). Measured likewise.
    optimizer_bytes: Size of the optimizer's state, anchors included.
    snapshot_bytes: Size of the snapshots, on the host.
    skipped_steps: Steps that changed nothing, as their loss or gradient was not
      finite.
  """

  steps: int = 0
  steps_per_second: float = 0.0
  first_step_seconds: float = 0.0
  changed_parameters: int = 0
  trained_parameters: int = 0
  optimizer_bytes: int = 0
  snapshot_bytes: int = 0
  skipped_steps: int = 0


class Fitted(NamedTuple):
  """What `fit` returns.

  Attributes:
    model: With the weights to deploy.
    losses: The loss before each step, float32 [steps]; of a skipped step
      perhaps not finite.
    stats: What it cost.
    snapshots: What was asked for.
  """

  model: Classifier
  losses: np.ndarray
  stats: Stats
  snapshots: tuple[Snapshot, ...] = ()


def warmup_cosine(steps: int, *, warmup: float = 0.1) -> Schedule:
  """Linear from 0 to the peak, then half a cosine to 0; see `Schedule`."""
  return Schedule(steps, warmup)


def make_step(
  method: Method,
  optimizer: optax.GradientTransformationExtraArgs,
  graphdef: Any,
  mesh: jax.sharding.Mesh | None = None,
) -> Callable[..., tuple[State, Metrics]]:
  """The pure train step, jitted; it takes over the state.

  Args:
    method: Whose loss it is.
    optimizer: From `guard`.
    graphdef: Of the model.
    mesh: To spread the batch over, if any.

  Returns:
    A function of the parameters with the optimizer's state, a batch, all else
    that the model holds, the number of the step, and a key.
  """

  def train_step(state, batch, rest, step, key):
    params, opt_state = state
    trainable = form.trainable(params)
    key = jax.random.fold_in(key, step)
    if mesh is not None:  # each part of the batch has a dropout of its own
      key = jax.random.fold_in(key, parallel.index())

    def loss_fn(trainable):
      model = form.merge(graphdef, params, trainable, rest)
      return method.loss(model, batch, key)

    loss, gradients = jax.value_and_grad(loss_fn)(trainable)
    if mesh is not None:
      loss, gradients = parallel.mean((loss, gradients))
    finite = faults.finite(loss, gradients)
    if faults.may_skip(opt_state):
      gradients = faults.spoiled(gradients, loss)
    updates, opt_state = optimizer.update(
      gradients, opt_state, trainable, value=loss
    )
    failures = faults.in_a_row(opt_state, finite)
    stepped = failures == 0 if faults.may_skip(opt_state) else True
    params = form.apply_updates(params, updates, stepped=stepped)
    moved = sum(jnp.count_nonzero(leaf) for leaf in jax.tree.leaves(updates))
    return (params, opt_state), {
      "loss": loss,
      "moved": moved,
      "finite": finite,
      "failures": failures,
    }

  if mesh is not None:
    return parallel.data_parallel(train_step, mesh)
  return jax.jit(train_step, donate_argnames="state")


def fit(
  method: Method,
  model: Classifier,
  batches: Iterable[Batch],
  *,
  steps: int,
  schedule: Schedule,
  key: jax.Array,
  progress: Callable[[int, float], None] | None = None,
  snapshots: Collection[int] = (),
  keeper: Keeper | None = None,
  skip_nonfinite: int = 0,
  mesh: jax.sharding.Mesh | None = None,
) -> Fitted:
  """Trains a prepared model.

  Args:
    method: What to train and how.
    model: From `method.prepare`. It is not changed, and its arrays stay valid.
    batches: At least `steps` of them; a grain dataset if there is a `keeper`.
    steps: Optimizer steps.
    schedule: From `warmup_cosine`.
    key: Of all randomness in the transformation and the loss.
    progress: Called after each step with its number, from 0, and its loss.
    snapshots: After how many steps to keep the weights, each in [1, steps].
    keeper: Saves and resumes the run. A run that was interrupted anywhere and
      resumed ends with the weights and losses of one that was not, bit for bit.
    skip_nonfinite: How many steps in a row may be skipped because their loss
      or gradient is not finite; see `optax.apply_if_finite`.
    mesh: From `parallel.data_mesh`, to spread each batch over its devices. Of
      several processes each gets its own part of the batches.

  Returns:
    The fitted model, the losses and what it cost. A method without a
    transformation takes no step and returns the model.

  Raises:
    FloatingPointError: If a loss or a gradient is not finite, and may not be
      skipped; it names the step, the loss and the first leaf at fault.
    Stopped: If the keeper was asked to stop.
    ValueError: If there are fewer batches than steps.
  """
  transform_key, loss_key = jax.random.split(key)
  graphdef, state, rest = nnx.split(model, nnx.Param, ...)
  # Copies, as a step gives its inputs away and the caller keeps the model.
  params = jax.tree.map(jnp.copy, nnx.to_pure_dict(state))
  transform = method.transform(params, schedule, transform_key)
  if transform is None or steps == 0:
    return Fitted(method.export(model), np.zeros(0, np.float32), Stats())
  optimizer = faults.guard(transform, skip_nonfinite)
  params = method.parametrize(params, transform_key)
  opt_state = optimizer.init(form.trainable(params))
  train_step = make_step(method, optimizer, graphdef, mesh)
  started = params, opt_state
  others = rest, loss_key
  if mesh is not None:
    started, others = parallel.replicate((started, others), mesh)
  names = jax.eval_shape(form.trainable, params)

  def deployed_by(state: State) -> Params:
    params, opt_state = parallel.on_one_device(state)
    return method.deploy(faults.unguarded(opt_state), params)

  def exported_by(state: State) -> Params:
    """On the host, as the next step takes these buffers over."""
    exported = method.export(nnx.merge(graphdef, deployed_by(state), rest))
    weights = jax.device_get(weights_of(exported))
    return jax.tree.map(np.array, weights)

  trail = Trail.before(started, steps)
  iterator = iter(batches)
  if keeper is not None:
    like = jax.eval_shape(lambda: weights_of(method.export(model)))
    trail = keeper.resumed(trail, iterator, snapshots, like)
  clock = Clock(trail)

  def finish(step: int, metrics: Metrics) -> None:
    loss = float(metrics["loss"])  # waits for the device
    clock.tick()
    if int(metrics["failures"]) > skip_nonfinite:
      faults.check(step, loss, np.asarray(metrics["finite"]), names, keeper)
    trail.losses[step] = loss
    trail.moved = max(trail.moved, int(metrics["moved"]))
    if progress is not None:
      progress(step, loss)

  pending, taken = None, trail.step
  for step, batch in zip(range(trail.step, steps), iterator, strict=False):
    if mesh is not None:
      batch = parallel.global_batch(batch, mesh)
    trail.state, metrics = train_step(
      trail.state, batch, others[0], np.int32(step), others[1]
    )
    # One step late: fetching the newest metrics would idle the device while
    # the host prepares the next step.
    if pending is not None:
      finish(*pending)
    pending, taken = (step, metrics), step + 1
    if taken in snapshots:
      trail.snapshots[str(taken)] = exported_by(trail.state)
    if keeper is not None and keeper.is_due(taken, steps):
      finish(*pending)  # what is saved is good
      pending = None
      trail.step = taken
      clock.note(trail)
      keeper.save(trail, iterator, functools.partial(exported_by, trail.state))
  if taken != steps:
    raise ValueError(f"{steps} steps need as many batches, got {taken}.")
  if pending is not None:
    finish(*pending)
  clock.note(trail)

  params, opt_state = parallel.on_one_device(trail.state)
  deployed = deployed_by(trail.state)
  stats = _measured(
    trail,
    trained=_count_differing(deployed, nnx.to_pure_dict(state)),
    optimizer_bytes=form.state_bytes(params, faults.unguarded(opt_state)),
    skipped=faults.skipped(opt_state),
  )
  exported = method.export(nnx.merge(graphdef, deployed, rest))
  taken_snapshots = tuple(
    Snapshot(int(step), params) for step, params in trail.snapshots.items()
  )
  return Fitted(exported, trail.losses, stats, taken_snapshots)


def _count_differing(one: Params, other: Params) -> int:
  counts = jax.tree.map(lambda a, b: jnp.count_nonzero(a != b), one, other)
  return int(sum(jax.tree.leaves(counts)))


def _measured(
  trail: Trail, *, trained: int, optimizer_bytes: int, skipped: int
) -> Stats:
  """What a run of `trail.losses.size` steps cost."""
  first, seconds, count = trail.clock
  kept = jax.tree.leaves(trail.snapshots)
  return Stats(
    steps=trail.losses.size,
    steps_per_second=float(count / seconds) if count else 0.0,
    first_step_seconds=float(first),
    changed_parameters=trail.moved,
    trained_parameters=trained,
    optimizer_bytes=optimizer_bytes,
    snapshot_bytes=sum(leaf.nbytes for leaf in kept),
    skipped_steps=skipped,
  )


def weights_of(model: nnx.Module) -> Params:
  """The parameters of a model as a nested dict of arrays."""
  return nnx.to_pure_dict(nnx.state(model, nnx.Param))
