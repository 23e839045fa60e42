"""Runs of methods on one task: each is trained once, whoever asks for it."""

import contextlib
import dataclasses
import pathlib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any

import jax
import numpy as np
from flax import nnx
from grain import MapDataset

from experiments.data.batches import Batch, batches, stream
from experiments.data.folds import balanced_batches
from experiments.data.images import ImageSet
from experiments.data.split import Split
from experiments.methods import (
  Combined,
  Member,
  Method,
  Run,
  described,
  name_of,
)
from experiments.methods.validator import Validator
from experiments.models import evaluation
from experiments.models.classifier import Classifier, Ensemble
from experiments.reporting import records
from experiments.reporting.identity import canonical, folder_name
from experiments.tasks.task import Opened
from experiments.training import loop
from experiments.training.run_checkpoints import RunCheckpointer
from experiments.training.sharding import Sharding
from experiments.training.stats import Stats
from experiments.training.watching import Watcher, Watching
from gmixout_jax.checkpoint import Checkpoints
from gmixout_jax.checkpoint.processes import leads

Progress = Callable[[Member, int, float], None]


@dataclasses.dataclass(frozen=True)
class Saving:
  """Where and when the runs of a task are saved.

  Attributes:
    folder: Each run gets a folder of its own in it.
    every: Steps between two checkpoints.
    config: What the task is; JSON. Checkpoints of another one are refused.
    stop: See `RunCheckpointer`.
  """

  folder: pathlib.Path
  every: int
  config: dict[str, Any] = dataclasses.field(default_factory=dict)
  stop: Callable[[int], bool] = lambda step: False


@dataclasses.dataclass(frozen=True, eq=False)
class Watch:
  """How the runs of a task are watched; none of it changes their weights.

  Attributes:
    settings: What is watched.
    ood: The OOD images, by name, if they are to be seen.
    evaluated: Called after every evaluation with the run, the steps it has
      taken, and the accuracies by name.
    say: Called with a sentence for the user.
    evaluating: See `progress` of `experiments.models.evaluation.evaluate`.
  """

  settings: Watching
  ood: Mapping[str, Split | ImageSet] = dataclasses.field(default_factory=dict)
  evaluated: Callable[[Member, int, Mapping[str, float]], None] | None = None
  say: Callable[[str], None] | None = None
  evaluating: evaluation.Progress = lambda name, done, total: None


@dataclasses.dataclass(frozen=True)
class Cost(Stats):
  """What a method's weights cost.

  What `Stats` tells of one run is here the sum over runs (steps, seconds
  of first steps, bytes of snapshots, skipped steps), all steps over all seconds
  (the rate) or the largest (weights, bytes and work of a step).

  Attributes:
    runs: How many were trained, shared ones included.
    ingredients: How many of them the result is made of.
    evaluations: Passes over the validation split to choose by.
    forward_passes: Per image, at inference.
    inference_parameters: In all models that an image goes through.
  """

  runs: int = 0
  ingredients: int = 0
  evaluations: int = 0
  forward_passes: int = 1
  inference_parameters: int = 0


@dataclasses.dataclass(frozen=True, eq=False)
class Outcome:
  """What a method came to on a task.

  Attributes:
    model: To evaluate and export: a classifier, or an ensemble of several.
    cost: What it took.
    losses: Of each run.
    notes: What the method found on the way.
  """

  model: nnx.Module
  cost: Cost
  losses: tuple[np.ndarray, ...]
  notes: dict[str, Any]


class Runs:
  """The runs of one task, trained when first asked for and then kept.

  On the host: the weights, and the snapshots that some method asked for.
  """

  def __init__(
    self,
    task: Opened,
    methods: Sequence[Method],
    *,
    progress: Progress | None = None,
    saving: Saving | None = None,
    mesh: jax.sharding.Mesh | None = None,
    sharding: Sharding = "data",
    watch: Watch | None = None,
    shared: bool = False,
  ):
    """Plans the runs of some methods; trains nothing yet.

    Args:
      task: What to train on.
      methods: All that will be asked for, so that a run that several share
        keeps what any of them wants of it.
      progress: Called after every step with the run, the step and its loss.
      saving: Where and when to save each run, to go on from there.
      mesh: See `loop.fit`; of several processes it has the devices of all.
      sharding: See `loop.fit`.
      watch: Who watches the runs.
      shared: Whether runs that others plan are saved and logged in the same
        folders. Each then has one of its own whatever else is planned; else
        they are numbered, and a run that was changed is refused.

    Raises:
      ValueError: If the images of a step cannot be cut into micro-batches.
    """
    devices = 1 if mesh is None else mesh.size
    task.recipe.check_batch(task.batch_size, devices)
    self._mesh = mesh
    self._sharding: Sharding = sharding
    self._watch = watch
    self._shared = shared
    self.task = task
    self._saving = saving
    self._progress = progress
    self._snapshots: dict[Member, set[int]] = {}
    for method in methods:
      for member in method.members():
        wanted = self._snapshots.setdefault(member, set())
        wanted.update(method.snapshots(task.steps))
    self._done: dict[Member, tuple[Run, loop.Fitted]] = {}

  @property
  def planned(self) -> tuple[Member, ...]:
    """All runs, in the order in which they were first asked for."""
    return tuple(self._snapshots)

  def outcome(self, method: Method) -> Outcome:
    """What the method makes of its runs; trains those that are missing.

    Raises:
      ValueError: If the method is not one of those planned.
    """
    members = method.members()
    if any(member not in self._snapshots for member in members):
      raise ValueError(
        f"{type(method).__name__} is not one of the methods planned for."
      )
    done = [self._train(member) for member in members]
    fits = [fitted for _, fitted in done]
    runs = [_for(method.snapshots(self.task.steps), run) for run, _ in done]
    model = fits[0].model
    validator = Validator(model, self.task.source.validation, mesh=self._mesh)
    combined = method.combine(runs, validator)
    size = sum(leaf.size for leaf in jax.tree.leaves(combined.weights))
    cost = dataclasses.replace(
      _total([fitted.stats for fitted in fits]),
      ingredients=len(combined.ingredients) if fits[0].stats.steps else 0,
      evaluations=validator.evaluations + sum(f.evaluations for f in fits),
      forward_passes=len(combined.weights),
      inference_parameters=size,
    )
    return Outcome(
      model=assemble(model, combined),
      cost=cost,
      losses=tuple(fitted.losses for fitted in fits),
      notes=combined.notes,
    )

  def _train(self, member: Member) -> tuple[Run, loop.Fitted]:
    if member not in self._done:
      self._done[member] = self._fit(member)
    return self._done[member]

  def _fit(self, member: Member) -> tuple[Run, loop.Fitted]:
    task, method = self.task, member.method
    key, order = jax.random.key(task.seed), task.seed
    if member.repeat:  # else the seed as it is: paired with other methods
      key = jax.random.fold_in(key, member.repeat)
      state = np.random.SeedSequence((task.seed, member.repeat))
      order = int(state.generate_state(1)[0] >> 1)
    prepare_key, fit_key = jax.random.split(key)
    prepared = method.prepare(task.model, task.source, prepare_key)
    dataset = batches_of(
      task,
      seed=order,
      process=0 if self._mesh is None else jax.process_index(),
      processes=1 if self._mesh is None else jax.process_count(),
    )

    def progress(step: int, loss: float) -> None:
      if self._progress is not None:
        self._progress(member, step, loss)

    with (
      self._checkpointer(member, prepared) as checkpointer,
      self._watcher(member) as watcher,
    ):
      fitted = loop.fit(
        method,
        prepared,
        lambda start: stream(dataset, start, task.steps),
        steps=task.steps,
        schedule=task.recipe.schedule_of(task.steps, task.warmup),
        key=fit_key,
        progress=progress,
        snapshots=self._snapshots[member],
        checkpointer=checkpointer,
        skip_nonfinite=task.skip_nonfinite,
        mesh=self._mesh,
        sharding=self._sharding,
        recipe=task.recipe,
        watcher=watcher,
      )
    initial = loop.weights_of(method.export(prepared))
    run = Run(
      initial=jax.device_get(initial),
      params=jax.device_get(loop.weights_of(fitted.model)),
      snapshots=fitted.snapshots,
    )
    return run, fitted

  def _identity(self, member: Member) -> dict[str, Any]:
    """What tells a run from the others of its task."""
    return {
      "run": records.plain(described(member.method)),
      "repeat": member.repeat,
      "snapshots": sorted(self._snapshots[member]),
    }

  def _folder_of(self, member: Member) -> str:
    """What the folder of a run is called."""
    if not self._shared:
      return f"run_{self.planned.index(member):02d}"
    readable = f"{name_of(member.method)}-{member.repeat}"
    return folder_name(readable, canonical(self._identity(member)))

  @contextlib.contextmanager
  def _checkpointer(
    self, member: Member, prepared: Classifier
  ) -> Iterator[RunCheckpointer | None]:
    """What saves a run; None if nothing is to be saved."""
    if self._saving is None:
      yield None
      return
    config = self._saving.config | self._identity(member)
    folder = self._saving.folder / self._folder_of(member)
    validator = Validator(
      member.method.export(prepared),
      self.task.source.validation,
      mesh=self._mesh,
    )
    with Checkpoints(folder, config=config) as kept:
      yield RunCheckpointer(
        kept,
        every=self._saving.every,
        validate=validator.accuracy,
        stop=self._saving.stop,
      )

  @contextlib.contextmanager
  def _watcher(self, member: Member) -> Iterator[Watcher | None]:
    """What watches a run; None if nothing does."""
    watch = self._watch
    if watch is None or watch.settings == Watching():
      yield None
      return
    settings, number = watch.settings, self.planned.index(member)
    folder = settings.log_dir
    if folder is not None and (self._shared or len(self.planned) > 1):
      folder = folder / self._folder_of(member)

    def shown(taken: int, found: Mapping[str, float]) -> None:
      if watch.evaluated is not None:
        watch.evaluated(member, taken, found)

    with Watcher(
      settings,
      self.task.source.validation,
      ood=watch.ood,
      seed=self.task.seed,
      images_per_step=self.task.batch_size,
      folder=folder,
      profile=None if number else settings.profile,
      leads=leads(),
      shown=shown,
      mesh=self._mesh,
      progress=watch.evaluating,
      say=watch.say,
    ) as watcher:
      yield watcher


def batches_of(
  task: Opened, *, seed: int, process: int = 0, processes: int = 1
) -> MapDataset[Batch]:
  """The endless batches of a run.

  Args:
    task: What to train on.
    seed: Of the order and of the augmentation.
    process: Which part of every batch to read, see `batches`.
    processes: How many parts there are.
  """
  draw: Callable[..., Any] = balanced_batches if task.balanced else batches
  return draw(
    task.source.train,
    batch_size=task.batch_size,
    seed=seed,
    augment=task.augment,
    process=process,
    processes=processes,
  )


def _for(steps: Sequence[int], run: Run) -> Run:
  """A run as if only this method had asked for snapshots of it."""
  own = tuple(taken for taken in run.snapshots if taken.step in steps)
  return run._replace(snapshots=own)


def assemble(model: Classifier, combined: Combined) -> nnx.Module:
  """The model with the weights of a method, or an ensemble of some."""
  graphdef, _, rest = nnx.split(model, nnx.Param, ...)
  # Not always one buffer each: runs may share the weights that they froze.
  models = [
    nnx.merge(graphdef, jax.tree.map(jax.numpy.asarray, params), rest)
    for params in combined.weights
  ]
  return models[0] if len(models) == 1 else Ensemble(models)


def _total(stats: Iterable[Stats]) -> Cost:
  stats = list(stats)
  steps = sum(s.steps for s in stats)
  seconds = sum(
    s.steps / s.steps_per_second for s in stats if s.steps_per_second
  )
  return Cost(
    runs=sum(s.steps > 0 for s in stats),
    steps=steps,
    steps_per_second=steps / seconds if seconds else 0.0,
    first_step_seconds=sum(s.first_step_seconds for s in stats),
    changed_parameters=max(s.changed_parameters for s in stats),
    trained_parameters=max(s.trained_parameters for s in stats),
    optimizer_bytes=max(s.optimizer_bytes for s in stats),
    reduced_bytes=max(s.reduced_bytes for s in stats),
    step_flops=max(s.step_flops for s in stats),
    step_peak_bytes=max(s.step_peak_bytes for s in stats),
    snapshot_bytes=sum(s.snapshot_bytes for s in stats),
    skipped_steps=sum(s.skipped_steps for s in stats),
  )
