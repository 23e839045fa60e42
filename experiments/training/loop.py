"""The training loop: one for every method, none of which it knows by name."""

import contextlib
import dataclasses
import functools
from collections.abc import Callable, Collection, Generator, Iterable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from experiments.data.batches import Batch
from experiments.methods import parametrization
from experiments.methods.method import Method
from experiments.methods.parametrization import Form
from experiments.methods.run import Params, Snapshot
from experiments.methods.schedule import Schedule
from experiments.models.classifier import Classifier
from experiments.tasks.recipe import Recipe
from experiments.training import faults
from experiments.training.run_checkpoints import (
  Clock,
  RunCheckpointer,
  State,
  Trail,
)
from experiments.training.sharding import Sharding, local, place
from experiments.training.stats import Stats, measured
from experiments.training.train_step import Metrics, shared_step
from experiments.training.watching import Watcher
from gmixout_jax import parallel


class Fitted(NamedTuple):
  """What `fit` returns.

  Attributes:
    model: With the evaluation weights.
    losses: The loss before each step, float32 [steps]; of a skipped step
      perhaps not finite.
    stats: What it cost.
    snapshots: What was asked for.
    evaluations: Passes over validation images that decided when it ended.
  """

  model: Classifier
  losses: np.ndarray
  stats: Stats
  snapshots: tuple[Snapshot, ...] = ()
  evaluations: int = 0


def fit(
  method: Method,
  model: Classifier,
  batches: Callable[[int], Iterable[Batch]],
  *,
  steps: int,
  schedule: Schedule,
  key: jax.Array,
  progress: Callable[[int, float], None] | None = None,
  snapshots: Collection[int] = (),
  checkpointer: RunCheckpointer | None = None,
  skip_nonfinite: int = 0,
  mesh: jax.sharding.Mesh | None = None,
  sharding: Sharding = "data",
  recipe: Recipe = Recipe(),  # noqa: B008 (it is frozen)
  watcher: Watcher | None = None,
  live: bool = False,
) -> Fitted:
  """Trains a prepared model.

  Args:
    method: What to train and how.
    model: From `method.prepare`. It is not changed, and its arrays stay valid.
    batches: From a step to the batches of it and of those that follow, `steps`
      in all.
    steps: Optimizer steps.
    schedule: Of the learning rates, over as many steps.
    key: Of all randomness in the transformation and the loss.
    progress: Called after each step with its number, from 0, and its loss.
    snapshots: After how many steps to keep the weights, each in [1, steps].
    checkpointer: Saves and resumes the run. A run that was interrupted anywhere
      and resumed ends with the weights and losses of one that was not, bit for
      bit.
    skip_nonfinite: How many steps in a row may be skipped because their loss
      or gradient is not finite; see `optax.apply_if_finite`.
    mesh: From `parallel.data_mesh`, to spread each batch over its devices. Of
      several processes each gets its own part of the batches.
    sharding: Whether each of these devices has the whole state ("data") or
      keeps a part of it ("fsdp").
    recipe: What a step does besides; the optimizer and the shape of its rate
      are the schedule's.
    watcher: Evaluates, logs and traces the run, and may end it early; the
      evaluation weights are then those of the best evaluation.
    live: Whether snapshots are the training weights, masked by GMixout and its
      like, in place of the evaluation weights. A checkpoint does not say which
      of the two it holds.

  Returns:
    The fitted model, the losses and what it cost. A method without a
    transformation takes no step and returns the model.

  Raises:
    FloatingPointError: If a loss or a gradient is not finite, and may not be
      skipped; it names the step, the loss and the first leaf at fault.
    Stopped: If the checkpointer was asked to stop.
    ValueError: If there are fewer batches than steps, or the loss has no place
      for soft labels that the recipe makes; or if the run may end before a
      snapshot.
  """
  transform_key, loss_key = jax.random.split(key)
  graphdef, state, rest = nnx.split(model, nnx.Param, ...)
  before = nnx.to_pure_dict(state)
  # Copies, as a step gives its inputs away and the caller keeps the model.
  params = jax.tree.map(jnp.copy, before)
  schedule = schedule.fresh()
  transform = method.transform(params, schedule, transform_key)
  if transform is None:
    return Fitted(method.export(model), np.zeros(0, np.float32), Stats())
  recipe.check_method(method)
  optimizer = faults.guard(transform, skip_nonfinite)
  params = method.parametrize(params, transform_key)
  started = params, optimizer.init(parametrization.trainable(params))
  others = rest, loss_key
  if mesh is not None:
    started = place(started, mesh, sharding)
    others = parallel.replicate(others, mesh)
  export = _Export(method, graphdef, rest, mesh, sharding)
  trail = Trail.before(started, steps)
  if watcher is not None and watcher.settings.patience is not None:
    if snapshots:
      raise ValueError(
        f"patience may end a run early, but {type(method).__name__} is to keep"
        f" its weights after step {max(snapshots)}: leave patience out."
      )
    trail.patience = watcher.patience(steps, before)
  if checkpointer is not None:
    # Of a model that is made in this trace: one of outside cannot enter another
    # `nnx.jit` in it.
    like = jax.eval_shape(
      lambda state: weights_of(method.export(nnx.merge(graphdef, state, rest))),
      state,
    )
    trail = checkpointer.resumed(trail, snapshots, like)
  record = _Record(
    trail=trail,
    names=jax.eval_shape(parametrization.trainable, params),
    skip_nonfinite=skip_nonfinite,
    checkpointer=checkpointer,
    progress=progress,
    watcher=watcher,
  )
  if watcher is not None:
    watcher.begin(trail.step, functools.partial(rates, method, schedule))

  train_step = shared_step(
    method,
    schedule,
    graphdef,
    transform_key,
    mesh,
    recipe,
    watcher is not None and watcher.logs,
    sharding,
    skip_nonfinite,
  )
  batch = None
  taken, first = trail.step, trail.step
  to_take = range(first, first if trail.ended else steps)
  put = (
    jax.device_put
    if mesh is None
    else functools.partial(parallel.global_batch, mesh=mesh)
  )
  with contextlib.closing(_ahead(batches(first), put)) as coming:
    for step, batch in zip(to_take, coming, strict=False):
      if watcher is not None:
        watcher.profile.before(step)
      trail.state, metrics = train_step(
        trail.state, batch, others[0], np.int32(step), others[1]
      )
      if watcher is not None:
        watcher.profile.after(step, metrics)
      record.add(step, metrics)
      taken = step + 1
      if taken in snapshots:
        trail.snapshots[str(taken)] = export.weights(trail.state, live=live)
      if watcher is not None and watcher.is_due(taken, steps):
        record.close()  # its log comes before that of the evaluation
        with record.clock.paused():
          _evaluate(watcher, trail, taken, export)
      last = taken if _exhausted(trail) else steps
      if checkpointer is not None and checkpointer.is_due(taken, last):
        record.close()  # what is saved is good
        trail.step = taken
        with record.clock.paused():  # it scores the weights
          checkpointer.save(
            trail, functools.partial(export.weights, trail.state)
          )
      if taken == last:
        break
  trail.step = taken
  if not trail.ended:
    raise ValueError(f"{steps} steps need as many batches, got {taken}.")
  record.close()
  if batch is None:  # all steps were taken before
    with contextlib.closing(_ahead(batches(0), put)) as coming:
      batch = next(coming)
  costs = train_step.costs(
    trail.state, batch, others[0], np.int32(0), others[1]
  )

  evaluated = export.evaluated(trail.state)
  if trail.patience is not None and trail.patience.evaluations:
    evaluated = jax.tree.map(jnp.asarray, trail.patience.best)
  return Fitted(
    export.model(evaluated),
    trail.losses[:taken],
    measured(trail, method, evaluated, before, costs),
    trail.taken(),
    0 if trail.patience is None else trail.patience.evaluations,
  )


def _ahead(
  batches: Iterable[Batch], put: Callable[[Batch], Batch]
) -> Generator[Batch]:
  """The batches on devices; each is on its way while a step takes the last."""
  iterator = iter(batches)
  waiting = None
  try:
    for batch in iterator:
      following = put(batch)
      if waiting is not None:
        yield waiting
      waiting = following
    if waiting is not None:
      yield waiting
  finally:
    # Threads and processes that prepare more, where a run ends before them.
    getattr(iterator, "close", lambda: None)()


@dataclasses.dataclass(frozen=True)
class _Export:
  """From a state in training to evaluation weights and their classifier."""

  method: Method
  graphdef: Any
  rest: Any
  mesh: jax.sharding.Mesh | None
  sharding: Sharding

  def evaluated(self, state: State, *, live: bool = False) -> Params:
    def deploy(params: Form, opt_state: Any) -> Params:
      if live:
        return parametrization.training_weights(params)
      return self.method.deploy(faults.unguarded(opt_state), params)

    return local(deploy, state, self.mesh, self.sharding)

  def model(self, evaluated: Params) -> Classifier:
    return self.method.export(nnx.merge(self.graphdef, evaluated, self.rest))

  def weights(self, state: State, *, live: bool = False) -> Params:
    """On the host, as the next step takes these buffers over."""
    model = self.model(self.evaluated(state, live=live))
    return jax.tree.map(np.array, jax.device_get(weights_of(model)))


class _Record:
  """Writes into a run's trail what its steps report.

  One step late: fetching the newest metrics would idle the device while the
  host prepares the next step.
  """

  def __init__(
    self,
    *,
    trail: Trail,
    names: Params,
    skip_nonfinite: int,
    checkpointer: RunCheckpointer | None,
    progress: Callable[[int, float], None] | None,
    watcher: Watcher | None,
  ):
    self._trail = trail
    self._names = names
    self._skip_nonfinite = skip_nonfinite
    self._checkpointer = checkpointer
    self._progress = progress
    self._watcher = watcher
    self.clock = Clock(trail)
    self._pending: tuple[int, Metrics] | None = None

  def add(self, step: int, metrics: Metrics) -> None:
    """Waits for the step before this one."""
    self._finish()
    self._pending = step, metrics

  def close(self) -> None:
    """Waits for all steps."""
    self._finish()
    self.clock.note(self._trail)

  def _finish(self) -> None:
    if self._pending is None:
      return
    (step, metrics), self._pending = self._pending, None
    loss = float(metrics["loss"])  # waits for the device
    seconds = self.clock.tick()
    if int(metrics["failures"]) > self._skip_nonfinite:
      finite = np.asarray(metrics["finite"])
      faults.check(step, loss, finite, self._names, self._checkpointer)
    self._trail.losses[step] = loss
    self._trail.moved = max(self._trail.moved, int(metrics["moved"]))
    if self._watcher is not None:
      self._watcher.stepped(step, loss, metrics, seconds)
    if self._progress is not None:
      self._progress(step, loss)


def _evaluate(
  watcher: Watcher, trail: Trail, taken: int, export: _Export
) -> None:
  """Evaluates the evaluation weights, and remembers how good they are."""
  evaluated = export.evaluated(trail.state)
  score = watcher.evaluate(taken, export.model(evaluated))
  if trail.patience is not None:
    # Copies on the host, as the next step takes the buffers over.
    on_host = lambda: jax.tree.map(np.array, jax.device_get(evaluated))
    trail.patience.note(taken, score, on_host)


def _exhausted(trail: Trail) -> bool:
  return trail.patience is not None and trail.patience.exhausted


def rates(method: Method, schedule: Schedule) -> dict[str, np.ndarray]:
  """The learning rates of all steps, by the name of the hyperparameter.

  Args:
    method: Perhaps one on another one, which has the rates.
    schedule: That it was handed, and has made schedules of.
  """
  while not hasattr(method, "learning_rate") and hasattr(method, "of"):
    method = method.of  # pyright: ignore[reportAttributeAccessIssue]
  found = {}
  steps = jnp.arange(schedule.steps)
  for field in dataclasses.fields(method):
    if not field.name.endswith("learning_rate"):
      continue
    if (made := schedule.made.get(getattr(method, field.name))) is not None:
      found[field.name] = np.broadcast_to(made(steps), steps.shape)
  return found


def weights_of(model: nnx.Module) -> Params:
  """The parameters of a model as a nested dict of arrays."""
  return nnx.to_pure_dict(nnx.state(model, nnx.Param))
