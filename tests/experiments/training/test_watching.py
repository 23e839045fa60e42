"""Runs that are watched: evaluated, ended early, logged, traced."""

import dataclasses
import json

import jax
import numpy as np
import optax
import pytest
import tensorboardX
from flax import nnx
from tensorboardX.proto import event_pb2

from experiments.data.batches import batches
from experiments.methods import Method
from experiments.methods.gmixout import GMixout
from experiments.methods.swad import SWAD
from experiments.methods.validator import Validator
from experiments.models import evaluation
from experiments.tasks.recipe import Recipe
from experiments.tasks.task import Opened
from experiments.training import loop, metrics_log, train_step, watching
from experiments.training.patience import Patience
from experiments.training.run_checkpoints import Stopped
from experiments.training.runs import Runs, Saving, Watch
from experiments.training.watching import Watching
from tests.combinations import EXHAUSTIVE
from tests.experiments import tiny

STEPS = 9
EVERYTHING = Recipe(
  label_smoothing=0.1,
  mixup=0.4,
  cutmix=1.0,
  clip_norm=0.5,
  accumulate=2,
  optimizer="lamb",
  schedule="linear",
  weight_decay=0.01,
)
METHOD = GMixout(resample_every=2, compact=True)


@dataclasses.dataclass(frozen=True)
class Descent(Method):
  learning_rate: float = 0.5

  def transform(self, params, schedule, key):
    return optax.sgd(schedule(self.learning_rate))


def task(recipe=EVERYTHING, steps=STEPS):
  return Opened(
    model=tiny.classifier(),
    source=tiny.source(),
    steps=steps,
    batch_size=4,
    recipe=recipe,
  )


def runs_of(settings, method=METHOD, saving=None, recipe=EVERYTHING, **watch):
  return Runs(
    task(recipe),
    [method],
    saving=saving,
    watch=Watch(settings, **watch),
  )


def weights(outcome):
  return jax.device_get(loop.weights_of(outcome.model))


def same(one, other):
  jax.tree.map(np.testing.assert_array_equal, weights(one), weights(other))
  np.testing.assert_array_equal(one.losses, other.losses)


def lines(folder, *names):
  """The log without its times, or some columns of it."""
  found = metrics_log.read(folder / metrics_log.NAME)
  timed = ("time", "images_per_second")
  found = [{k: v for k, v in x.items() if k not in timed} for x in found]
  if not names:
    return found
  return [
    tuple(line[name] for name in ("step", *names))
    for line in found
    if names[0] in line
  ]


def events(folder):
  """What TensorBoard would show: (tag, step) → value, each once."""
  found = {}
  for path in folder.glob("events.out.tfevents.*"):
    data, at = path.read_bytes(), 0
    while at < len(data):
      size = int.from_bytes(data[at : at + 8], "little")
      event = event_pb2.Event.FromString(data[at + 12 : at + 12 + size])
      at += 16 + size
      for value in event.summary.value:
        assert (value.tag, event.step) not in found
        found[value.tag, event.step] = value.simple_value
  return found


@pytest.fixture
def scripted(monkeypatch):
  """Evaluations that return what a test says."""

  def script(*scores):
    left = list(scores)
    monkeypatch.setattr(
      watching, "accuracy", lambda *args, **kwargs: left.pop(0)
    )

  return script


def test_patience_counts_evaluations_without_a_better_one():
  patience = Patience.before(2, 2, 9, {"w": np.zeros(1)})
  assert len(patience.scores) == 5  # after 2, 4, 6, 8 and 9 steps
  ended = []
  for step, score in ((2, 0.5), (4, 0.7), (6, 0.7), (8, 0.1), (9, 0.6)):
    patience.note(step, score, lambda step=step: {"w": np.full(1, step)})
    ended.append(patience.exhausted)
  assert ended == [False, False, False, True, True]
  assert patience.best["w"] == 4  # an equal one is not better
  np.testing.assert_allclose(patience.scores, [0.5, 0.7, 0.7, 0.1, 0.6])
  assert patience.evaluations == 5


def test_a_run_ends_early_with_its_best_weights(scripted):
  scripted(0.2, 0.6, 0.5, 0.6)
  stopped = runs_of(Watching(eval_every=2, patience=2)).outcome(METHOD)
  assert stopped.cost.steps == len(stopped.losses[0]) == 8
  assert stopped.cost.evaluations == 4
  # What another run has after the best evaluation.
  kept = runs_of(Watching())
  kept._snapshots[kept.planned[0]].add(4)
  alone = kept.outcome(METHOD)
  ((_, fitted),) = kept._done.values()
  (snapshot,) = fitted.snapshots
  jax.tree.map(np.testing.assert_array_equal, weights(stopped), snapshot.params)
  np.testing.assert_array_equal(stopped.losses[0], alone.losses[0][:8])


def test_the_best_weights_count_also_at_the_end(scripted):
  scripted(0.2, 0.9, 0.1)
  settings = Watching(eval_every=3, patience=5)
  best = runs_of(settings).outcome(METHOD)
  assert best.cost.steps == STEPS
  scripted(0.2, 0.1, 0.9)
  last = runs_of(settings).outcome(METHOD)
  same(last, runs_of(Watching()).outcome(METHOD))
  with pytest.raises(AssertionError):
    same(last, best)


def test_methods_that_keep_weights_on_the_way_have_no_patience():
  method = SWAD(evaluations=3)
  runs = runs_of(Watching(eval_every=3, patience=1), method, recipe=Recipe())
  with pytest.raises(ValueError, match=r"SWAD is to keep .* step 9: leave pat"):
    runs.outcome(method)


@EXHAUSTIVE  # unwatched, in `test_resume.py`
def test_a_resumed_run_is_the_same_to_the_bit_and_in_its_log(
  tmp_path, scripted
):
  """With all of the recipe on, stopped twice, and ended by patience."""
  settings = Watching(eval_every=1, patience=3)
  scores = (0.1, 0.5, 0.3, 0.7, 0.2, 0.2, 0.1, 0.9, 0.9)

  def started(name, *, folder=None, stop=None, skip=0, log=True):
    scripted(*scores[skip:])
    saving = folder and Saving(folder, every=4, stop=lambda step: step == stop)
    log_dir = tmp_path / name if log else None
    return runs_of(
      dataclasses.replace(settings, log_dir=log_dir), saving=saving
    )

  alone = started("alone").outcome(METHOD)
  assert alone.cost.steps == 7
  folder = tmp_path / "saved"
  with pytest.raises(Stopped):
    started("resumed", folder=folder, stop=3).outcome(METHOD)
  # A process that was killed had gone farther than what it had saved.
  with (tmp_path / "resumed" / metrics_log.NAME).open("a") as file:
    file.write('{"step": 4, "time": 1.0, "loss": 7.0}\n{"step": 5, "ti')
  with pytest.raises(Stopped):
    started("resumed", folder=folder, skip=3, stop=5).outcome(METHOD)
  resumed = started("resumed", folder=folder, skip=5).outcome(METHOD)
  same(alone, resumed)
  assert lines(tmp_path / "alone") == lines(tmp_path / "resumed")
  for name in ("alone", "resumed"):
    steps = [step for step, _ in lines(tmp_path / name, "loss")]
    assert steps == list(range(1, 8))
  shown = events(tmp_path / "resumed")
  for line in metrics_log.read(tmp_path / "resumed" / metrics_log.NAME):
    step = line.pop("step")
    del line["time"]
    for tag, value in line.items():
      assert shown.pop((tag, step)) == pytest.approx(value)
  assert not shown
  # It has ended: nothing is evaluated again, and nothing trained.
  again = started("resumed", folder=folder, skip=9).outcome(METHOD)
  same(alone, again)
  # A run that nobody logs is the same one.
  same(alone, started("unseen", log=False).outcome(METHOD))


def test_what_a_log_holds(tmp_path):
  ood = {"photo": tiny.split(seed=5), "sketch": tiny.split(seed=6)}
  shown = []
  settings = Watching(eval_every=4, watch_ood=True, log_dir=tmp_path)
  method = Descent()
  runs = runs_of(
    settings,
    method,
    recipe=Recipe(),
    ood=ood,
    evaluated=lambda member, taken, found: shown.append((taken, found)),
  )
  outcome = runs.outcome(method)
  losses = lines(tmp_path, "loss", "learning_rate", "gradient_norm")
  assert [step for step, *_ in losses] == list(range(1, STEPS + 1))
  np.testing.assert_array_equal(
    np.float32([loss for _, loss, _, _ in losses]), outcome.losses[0]
  )
  rate = runs.task.recipe.schedule_of(STEPS, 0.1)(0.5)
  np.testing.assert_allclose(
    [rate for *_, rate, _ in losses], [rate(step) for step in range(STEPS)]
  )
  start = method.prepare(runs.task.model, runs.task.source, jax.random.key(0))
  graphdef, state, rest = nnx.split(start, nnx.Param, ...)
  first = batches(runs.task.source.train, batch_size=4, seed=0)[0]
  of = lambda state: method.loss(nnx.merge(graphdef, state, rest), first, None)
  gradients = jax.jit(jax.grad(of))(state)
  assert losses[0][-1] == pytest.approx(float(optax.tree.norm(gradients)))
  speeds = metrics_log.read(tmp_path / metrics_log.NAME)
  assert all(x["images_per_second"] > 0 for x in speeds if "loss" in x)
  seen = lines(tmp_path, watching.ID_ACCURACY)
  assert [step for step, _ in seen] == [4, 8, 9]
  assert [taken for taken, _ in shown] == [4, 8, 9]
  final = evaluation.evaluate(outcome.model, runs.task.source.validation, ood)
  assert shown[-1][1] == {
    "id_accuracy": final["id"],
    "ood_accuracy/photo": final["ood"]["photo"],
    "ood_accuracy/sketch": final["ood"]["sketch"],
  }
  for tag, value in shown[-1][1].items():
    assert events(tmp_path)[tag, 9] == pytest.approx(value)


def test_ood_images_decide_nothing(monkeypatch, scripted):
  """Whatever they are, the run is the same; and no validator ever has them."""
  judged, init = [], Validator.__init__
  monkeypatch.setattr(
    Validator,
    "__init__",
    lambda self, model, split, **more: (
      judged.append(split), init(self, model, split, **more),
    )[1],
  )  # fmt: skip
  outcomes = []
  for ood in ((0.0, 1.0, 1.0, 1.0), (1.0, 0.0, 0.0, 0.0)):
    at_home = (0.2, 0.6, 0.5, 0.1)
    scripted(
      *(score for pair in zip(at_home, ood, strict=True) for score in pair)
    )
    domains = {"photo": tiny.split(seed=5)}
    settings = Watching(eval_every=2, patience=2, watch_ood=True)
    runs = runs_of(settings, ood=domains)
    outcomes.append(runs.outcome(METHOD))
    assert outcomes[-1].cost.steps == 8
    assert all(split is runs.task.source.validation for split in judged[-1:])
    assert not any(split is domains["photo"] for split in judged)
  same(*outcomes)


def test_a_subset_is_drawn_with_the_seed():
  images = tiny.split(per_class=10)
  some = watching.subset(images, 7, seed=3)
  again = watching.subset(images, 7, seed=3)
  np.testing.assert_array_equal(some.images, again.images)
  assert len({image.tobytes() for image in some.images}) == len(some) == 7
  other = watching.subset(images, 7, seed=4)
  assert not np.array_equal(some.images, other.images)
  assert watching.subset(images, None, seed=3) is images
  assert watching.subset(images, 30, seed=3) is images


def test_a_step_is_fetched_after_the_next_one_was_dispatched(monkeypatch):
  order = []
  take = train_step.Shared.__call__

  def dispatching(step, state, batch, rest, number, key):
    order.append(("dispatched", int(number)))
    return take(step, state, batch, rest, number, key)

  monkeypatch.setattr(train_step.Shared, "__call__", dispatching)
  Runs(
    task(Recipe(), steps=3),
    [METHOD],
    progress=lambda member, step, loss: order.append(("fetched", step)),
    watch=Watch(Watching(eval_every=100)),
  ).outcome(METHOD)
  assert order[:4] == [
    ("dispatched", 0),
    ("dispatched", 1),
    ("fetched", 0),
    ("dispatched", 2),
  ]


def test_a_profile_is_of_the_steps_that_it_says(monkeypatch, tmp_path):
  calls, said = [], []
  monkeypatch.setattr(
    jax.profiler, "start_trace", lambda folder: calls.append(folder)
  )
  monkeypatch.setattr(jax.profiler, "stop_trace", lambda: calls.append("end"))
  method = Descent()
  runs = runs_of(
    Watching(profile=tmp_path), method, recipe=Recipe(), say=said.append
  )
  runs.outcome(method)
  assert calls == [tmp_path, "end"]
  assert said == [f"The trace in {tmp_path} is of steps 2 to 4."]
  runs = Runs(
    task(Recipe(), steps=1),
    [method],
    watch=Watch(Watching(profile=tmp_path), say=said.append),
  )
  runs.outcome(method)
  assert said[1:] == ["Nothing was traced: there is no step after 1."]
  assert calls == [tmp_path, "end"]


def test_settings_out_of_range_are_named():
  for changes, message in (
    ({"eval_every": 0}, "eval_every must be at least 1, got 0"),
    ({"eval_every": 5, "patience": 0}, "patience must be at least 1, got 0"),
    ({"patience": 2}, "patience=2 needs eval_every"),
    ({"watch_ood": True}, "watch_ood=True needs eval_every"),
    ({"eval_images": 10}, "eval_images=10 needs eval_every"),
  ):
    with pytest.raises(ValueError, match=message):
      Watching(**changes)


def test_a_file_that_is_no_log_is_not_overwritten(tmp_path):
  path = tmp_path / metrics_log.NAME
  path.write_text('{"a": 1}\n{"step": 1, "time": 2, "loss": 1.0}\n')
  before = path.read_text()
  with pytest.raises(ValueError, match=r"metrics\.jsonl:1: not a line"):
    metrics_log.MetricsLog(tmp_path, 1)
  assert path.read_text() == before


def test_numbers_that_are_not_finite_are_null(tmp_path):
  log = metrics_log.MetricsLog(tmp_path, 0)
  log.write(1, {"loss": float("nan"), "gradient_norm": 1.0})
  log.close()
  (line,) = (tmp_path / metrics_log.NAME).read_text().splitlines()
  assert json.loads(line)["loss"] is None
  assert set(events(tmp_path)) == {("gradient_norm", 1)}
  # Event files of others stay.
  other = tensorboardX.SummaryWriter(str(tmp_path))
  other.add_scalar("theirs", 1.0, 1)
  other.close()
  metrics_log.MetricsLog(tmp_path, 0).close()
  assert set(events(tmp_path)) == {("theirs", 1)}
