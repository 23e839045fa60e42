"""Tests the collection of members and what is made of them, on tiny models."""

import jax
import numpy as np
import pytest

from experiments import loop, metrics, probe, results
from experiments.data.split import batches, stream
from experiments.diagnostics import __main__ as command
from experiments.diagnostics import members, pictures
from experiments.methods.gmixout import GMixout
from experiments.methods.linear_probe import LinearProbe
from tests.experiments import tiny

METHOD = GMixout(learning_rate=1e-2, resample_every=3)


def data(steps, seed=0):
  records = batches(tiny.split(), batch_size=8, seed=seed, augmented=False)
  return stream(records, 0, steps)


def collect(seed=0, **options):
  arguments = {"steps": 9, "every": 3, "members": 2} | options
  return members.collect(
    METHOD,
    tiny.filled(tiny.classifier),
    data(arguments["steps"], seed),
    key=jax.random.key(seed),
    **arguments,
  )


@pytest.fixture(scope="module")
def runs():
  return [collect(seed) for seed in (0, 1)]


def test_what_is_deployed_is_what_the_loop_deploys(runs):
  model = tiny.filled(tiny.classifier)
  fitted = loop.fit(
    METHOD,
    model,
    data(9),
    steps=9,
    schedule=loop.warmup_cosine(9),
    key=jax.random.key(0),
  )
  scorer = members.Scorer(model)
  split = tiny.split(seed=5)
  np.testing.assert_allclose(
    scorer.probabilities(runs[0].deployed, split),
    metrics.softmax(np.asarray(fitted.model(split.images))),
    atol=1e-6,
  )


def test_members_are_the_live_weights_of_the_last_episodes(runs):
  (run, _) = runs
  assert len(run.members) == 2
  (longer,) = (collect(members=3).members[1:],)
  for mine, again in zip(run.members, longer, strict=True):
    jax.tree.map(np.testing.assert_array_equal, mine, again)
  kernels = [m["backbone"]["blocks"][0]["kernel"] for m in run.members]
  moved = [k != run.initial["backbone"]["blocks"][0]["kernel"] for k in kernels]
  assert all(m.any() for m in moved)
  assert not np.array_equal(kernels[0], kernels[1])


def test_what_is_diagnosed_adds_up(runs):
  model = tiny.filled(tiny.classifier)
  scorer = members.Scorer(model)
  split = tiny.split(seed=7)
  found = members.diagnose(runs, scorer, {"id": split}, probe.features)
  t = found["sets"]["id"]
  total = t["bias2"] + t["variance"] / 2 + t["covariance"] / 2
  assert total == pytest.approx(t["ensemble"], abs=1e-9)
  of_run = [
    np.mean([scorer.probabilities(m, split) for m in run.members], axis=0)
    for run in runs
  ]
  ensemble = np.mean([metrics.brier(p, split.labels) for p in of_run])
  assert t["ensemble"] == pytest.approx(ensemble)
  assert t["residual"] == pytest.approx(t["average"] - ensemble)
  assert found["locality"]["squared"] > 0
  assert 0 < found["angle"]["members"] < 180
  assert 0 <= t["disagreement"] <= 1
  assert 0 <= t["cka_1m"] < 1
  results.plain(found)


def test_what_cannot_be_collected_is_refused():
  with pytest.raises(ValueError, match="got 10 steps, every 3"):
    collect(steps=10)
  with pytest.raises(ValueError, match="4 members"):
    collect(members=4)
  with pytest.raises(ValueError, match="LinearProbe does not train"):
    members.collect(
      LinearProbe(),
      tiny.classifier(),
      [],
      steps=2,
      every=1,
      members=1,
      key=jax.random.key(0),
    )


def test_terms_are_drawn_from_their_records(runs, tmp_path):
  model = tiny.filled(tiny.classifier)
  found = members.diagnose(
    runs, members.Scorer(model), {"id": tiny.split(), "far": tiny.split(seed=2)}
  )
  records = [
    command._record(
      GMixout(learning_rate=1e-2, sparsity=sparsity), found, ["far"], 9, 3,
      (0, 1),
    )
    for sparsity in (0.9, 0.5)
  ]  # fmt: skip
  results.append(tmp_path / "x.jsonl", records[0])  # it is JSON
  assert records[0]["metrics"]["ood"]["bias2"] == found["sets"]["far"]["bias2"]
  pictures.terms(records, "sparsity", tmp_path / "terms.png")
  assert (tmp_path / "terms.png").stat().st_size > 10_000
  with pytest.raises(ValueError, match="no setting 'rank'"):
    pictures.terms(records, "rank", tmp_path / "terms.png")
  with pytest.raises(ValueError, match="no records"):
    pictures.terms([], "sparsity", tmp_path / "terms.png")


def test_lines_and_planes_are_drawn(tmp_path):
  found = {
    "alpha": [0, 0.5, 1],
    "lines": {"gmixout": {"id": [0.7, 0.9, 0.95], "ood": [0.6, 0.7, 0.65]}},
  }
  pictures.line(found, tmp_path / "line.png")
  plane = {
    "x": [0, 1, 2],
    "y": [0, 1],
    "id": [[0.5, 0.6, 0.7], [0.4, 0.5, 0.6]],
    "ood": [[0.5, 0.6, 0.5], [0.4, 0.5, 0.7]],
    "names": ["zero_shot", "full_finetuning", "gmixout"],
    "coordinates": [[0, 0], [2, 0], [0.5, 0.8]],
  }
  pictures.plane(plane, tmp_path / "plane.png")
  assert (tmp_path / "line.png").stat().st_size > 10_000
  assert (tmp_path / "plane.png").stat().st_size > 10_000
