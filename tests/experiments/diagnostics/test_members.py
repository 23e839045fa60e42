"""Tests the collection of members and what is made of them, on tiny models."""

import json
import pathlib

import jax
import numpy as np
import pytest

from experiments import metrics
from experiments.data.batches import batches, stream
from experiments.diagnostics import __main__ as command
from experiments.diagnostics import bvcl, by_setting, members
from experiments.diagnostics.slow_mixout import SlowMixout
from experiments.methods.gmixout import GMixout
from experiments.methods.linear_probe import LinearProbe
from experiments.methods.mixout import Mixout
from experiments.methods.schedule import Schedule
from experiments.models import probe
from experiments.tasks.recipe import Recipe
from experiments.training import loop
from tests.combinations import tried
from tests.experiments import tiny

METHOD = GMixout(learning_rate=1e-2, resample_every=3, rescale=True)


def data(steps, seed=0):
  records = batches(tiny.split(), batch_size=8, seed=seed, augment="none")
  return stream(records, 0, steps)


def collect(seed=0, method=METHOD, **options):
  arguments = {"steps": 9, "every": 3, "members": 2} | options
  return members.collect(
    method,
    tiny.filled(tiny.classifier),
    lambda start: data(arguments["steps"], seed),
    key=jax.random.key(seed),
    **arguments,
  )


@pytest.fixture(scope="module")
def runs():
  return [collect(seed) for seed in (0, 1, 2)]


def test_what_is_deployed_is_what_the_loop_deploys(runs):
  model = tiny.filled(tiny.classifier)
  fitted = loop.fit(
    METHOD,
    model,
    lambda start: data(9),
    steps=9,
    schedule=Schedule(9),
    key=jax.random.key(0),
  )
  scorer = members.Scorer(model)
  split = tiny.split(seed=5)
  np.testing.assert_allclose(
    scorer.probabilities(runs[0].deployed, split),
    metrics.softmax(np.asarray(fitted.model(split.images))),
    atol=1e-6,
  )


def test_members_are_of_the_last_episodes(runs):
  run = runs[0]
  assert len(run.members) == 2
  (longer,) = (collect(members=3).members[1:],)
  for mine, again in zip(run.members, longer, strict=True):
    jax.tree.map(np.testing.assert_array_equal, mine, again)
  kernels = [m["backbone"]["blocks"][0]["kernel"] for m in run.members]
  moved = [k != run.initial["backbone"]["blocks"][0]["kernel"] for k in kernels]
  assert all(m.any() for m in moved)
  assert not np.array_equal(kernels[0], kernels[1])


@pytest.mark.parametrize(
  "method", tried([GMixout, SlowMixout], lambda method: method is GMixout)
)
def test_members_are_sub_networks(method):
  # In the first episode A is where training started, and a step before its end
  # W = A + M ⊙ Δ / (1 − p): about half of the entries are the anchor's.
  run = collect(
    method=method(learning_rate=1e-2, sparsity=0.5, resample_every=3),
    steps=3,
    members=1,
  )
  initial, member, evaluated = (
    weights["backbone"]["blocks"][0]["kernel"]
    for weights in (run.initial, run.members[0], run.deployed)
  )
  drawn = np.abs(member - initial) > 1e-7  # else rounding, off the mask
  assert 0.3 < drawn.mean() < 0.7
  assert np.abs(evaluated - initial)[drawn].min() > 1e-4


def test_members_of_gmixout_differ_from_its_anchor(runs):
  for run in runs:
    assert bvcl.squared_distance(run.members[-1], run.deployed) > 1e-4


def test_none_are_kept_where_none_are_wanted():
  run = collect(steps=1, every=1, members=0)
  assert run.members == ()
  assert bvcl.squared_distance(run.initial, run.deployed) > 0


def test_what_is_diagnosed_adds_up(runs):
  model = tiny.filled(tiny.classifier)
  scorer = members.Scorer(model)
  split = tiny.split(seed=7)
  found = members.diagnose(runs, scorer, {"id": split})
  by_run = found["sets"]["id"]
  t = {term: np.mean(values) for term, values in by_run.items()}
  total = t["bias2"] + t["variance"] / 2 + t["covariance"] / 2
  assert total == pytest.approx(t["ensemble"], abs=1e-9)
  ensembles, averages = [], []
  for run in runs:
    p = np.mean([scorer.probabilities(m, split) for m in run.members], axis=0)
    ensembles.append(metrics.brier(p, split.labels))
    mean = jax.tree.map(lambda a, b: (a + b) / 2, *run.members)
    averages.append(metrics.brier(scorer.probabilities(mean, split),
                                  split.labels))  # fmt: skip
  np.testing.assert_allclose(by_run["ensemble"], ensembles, rtol=1e-5)
  np.testing.assert_allclose(by_run["average"], averages, rtol=1e-4)
  np.testing.assert_allclose(
    by_run["residual"], np.subtract(averages, ensembles), atol=1e-5
  )
  assert min(found["weights"]["locality"]) > 0
  assert all(0 < each < 180 for each in found["weights"]["angle"])
  assert all(0 <= each <= 1 for each in by_run["disagreement"])
  assert all(0 <= each < 1 for each in by_run["cka_1m"])
  with pytest.raises(ValueError, match="at least three runs, got 2"):
    members.diagnose(runs[:2], scorer, {"id": split})


def test_features_and_probabilities_are_those_of_the_model(runs):
  scorer, split = members.Scorer(tiny.classifier()), tiny.split(seed=7)
  features, p = scorer.outputs(runs[0].deployed, split)
  model = scorer.model(runs[0].deployed)
  np.testing.assert_array_equal(features, probe.features(model, split))
  expected = scorer.probabilities(runs[0].deployed, split)
  np.testing.assert_allclose(p, expected, atol=1e-6)


def test_mixout_that_is_not_slowed_down_is_mixout():
  def run(cls):
    return collect(method=cls(learning_rate=1e-2, sparsity=0.5), steps=6)

  jax.tree.map(np.testing.assert_array_equal, run(SlowMixout), run(Mixout))
  slow = SlowMixout(anchor_decay=0.5, resample_every=4).settings()
  assert slow == Mixout().settings() | {
    "anchor_decay": 0.5,
    "resample_every": 4,
  }


def test_a_rate_that_is_held_keeps_members_apart():
  held = collect(schedule=Schedule(9, constant=True))
  falling = collect()
  distances = [bvcl.squared_distance(*run.members) for run in (held, falling)]
  assert distances[0] > 1.5 * distances[1]


def test_what_cannot_be_collected_is_refused():
  with pytest.raises(ValueError, match="got 10 steps, every 3"):
    collect(steps=10)
  with pytest.raises(ValueError, match="4 members"):
    collect(members=4)
  with pytest.raises(ValueError, match="LinearProbe does not train"):
    members.collect(
      LinearProbe(),
      tiny.classifier(),
      lambda start: [],
      steps=2,
      every=1,
      members=1,
      key=jax.random.key(0),
    )


@pytest.fixture
def found(runs):
  scorer = members.Scorer(tiny.filled(tiny.classifier))
  sets = {"id": tiny.split(), "far": tiny.split(seed=2)}
  return members.diagnose(runs, scorer, sets)


def test_a_summary_has_the_intervals_of_its_runs(found):
  summary = by_setting.summary(found, ["id", "far"])
  variances = [found["sets"][name]["variance"] for name in ("id", "far")]
  expected = metrics.interval(np.mean(variances, axis=0))
  variance = summary["ood"]["variance"]
  assert (variance["mean"], variance["low"], variance["high"]) == pytest.approx(
    expected[:3], rel=1e-5
  )
  assert set(summary["sets"]) == {"id", "far"}
  json.dumps(summary, allow_nan=False)


def test_what_is_undefined_is_left_out_of_a_summary(found):
  found["sets"]["far"]["ratio_error"] = [None, 0.5, None]
  summary = by_setting.summary(found, ["far"])
  assert summary["sets"]["far"]["ratio_error"] is None
  found["sets"]["far"]["ratio_error"] = [None, 0.5, 0.7]
  summary = by_setting.summary(found, ["far"])
  assert summary["ood"]["ratio_error"]["mean"] == pytest.approx(0.6)


def bvcl_of(method, **options):
  return by_setting.bvcl(by_setting.Config(method=method, **options))


@pytest.mark.parametrize(
  ("options", "message"),
  [
    ({"every": 15}, "divide every, got 10 and 15"),
    ({"every": 0}, "every must be at least 1 step, got 0"),
    ({"knob": "resample_every", "values": (0,)}, "integer >= 1 .*got 0"),
    ({"knob": "resample_every", "values": (2, 1)}, "at least 2 for gmixout"),
    ({"steps": 50}, "got 50, 20 and 4"),
    ({"members_per_run": 9}, "got 160, 20 and 9"),
    ({"members_per_run": 1}, "got 3 and 1"),
    ({"seeds": (0, 1)}, "got 2 and 4"),
    ({"knob": "sampler"}, "sampler must be words, .* neuron; got 0.5"),
    (
      {"knob": "rescale", "values": ("true", "no")},
      "rescale must be words, some of true, false; got 'no'",
    ),
    ({"values": ("high",)}, "sparsity must be numbers, got 'high'"),
    (
      {"training": Recipe(schedule="linear")},
      "--schedule linear has no meaning for a learning rate that is held",
    ),
    ({"backbone": pathlib.Path("vit")}, "digits: --backbone has no meaning"),
    (
      {"train": pathlib.Path("photos")},
      "--learning-rate must be given",
    ),
    (
      {"train": pathlib.Path("photos"), "learning_rate": 0.1},
      "--head-learning-rate must be given",
    ),
  ],
)
def test_a_command_that_cannot_be_measured_is_refused(
  options, message, tmp_path
):
  with pytest.raises(ValueError, match=message):
    bvcl_of("gmixout", out=tmp_path / "x.jsonl", **options)
  assert not (tmp_path / "x.jsonl").exists()


def test_mixout_has_no_moments_to_vary(tmp_path):
  with pytest.raises(ValueError, match="mixout has no setting 'moments'"):
    bvcl_of(
      "mixout", knob="moments", values=("carry",), out=tmp_path / "x.jsonl"
    )


def test_words_are_read_from_the_command_line(tmp_path, capsys):
  out = str(tmp_path / "x.jsonl")
  words = ["--knob", "sampler", "--values", "neuron", "uniform"]
  status = command.main(
    ["bvcl", "gmixout", *words, "--steps", "50", "--out", out]
  )
  assert status == 1  # as the steps do not fit; the words do
  assert "got 50, 20 and 4" in " ".join(capsys.readouterr().err.split())


def test_the_command_line_ends_in_an_error(tmp_path, capsys):
  out = str(tmp_path / "x.jsonl")
  status = command.main(["bvcl", "mixout", "--steps", "50", "--out", out])
  assert status == 1
  assert "got 50, 20 and 4" in " ".join(capsys.readouterr().err.split())
