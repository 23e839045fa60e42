"""Several devices train as one does, whole states or cut up ones."""

import dataclasses

import jax
import numpy as np
import pytest

from experiments import methods, train
from experiments.methods.ema import EMA
from experiments.methods.full_finetuning import FullFinetuning
from experiments.methods.gmixout import GMixout
from experiments.methods.mixout import NeuronMixout
from experiments.reporting import records
from experiments.tasks.recipe import Recipe
from experiments.tasks.task import Opened
from experiments.training import loop, train_step
from experiments.training.run_checkpoints import Stopped
from experiments.training.runs import Runs, Saving
from experiments.training.sharding import place
from gmixout_jax import parallel
from tests.combinations import EXHAUSTIVE, tried
from tests.experiments import tiny

STEPS, BATCH = 6, 8
RATE = {"learning_rate": 1e-2, "head_learning_rate": 1e-2}
GMIXOUT = GMixout(resample_every=2, **RATE)
CASES = {
  "gmixout": (GMIXOUT, Recipe(), ("data", "fsdp")),
  "dense": (FullFinetuning(learning_rate=1e-3), Recipe(), ("fsdp",)),
  "neurons": (NeuronMixout(**RATE), Recipe(), ("data",)),
  "average": (EMA(of=GMIXOUT, decay=0.5), Recipe(), ("fsdp",)),
  "recipe": (
    GMIXOUT,
    Recipe(mixup=0.2, label_smoothing=0.1, clip_norm=0.5, accumulate=2),
    ("data", "fsdp"),
  ),
}


def runs(method, recipe=Recipe(), devices=0, sharding="data", **more):  # noqa: B008
  task = Opened(
    model=tiny.classifier(),
    source=tiny.source(),
    steps=STEPS,
    batch_size=BATCH,
    recipe=recipe,
  )
  mesh = parallel.data_mesh(jax.devices()[:devices]) if devices else None
  return Runs(task, [method], mesh=mesh, sharding=sharding, **more)


def weights(outcome):
  return [
    np.asarray(x) for x in jax.tree.leaves(loop.weights_of(outcome.model))
  ]


def assert_close(ours, theirs):
  for losses, others in zip(ours.losses, theirs.losses, strict=True):
    np.testing.assert_allclose(losses, others, rtol=1e-5)
  for leaf, other in zip(weights(ours), weights(theirs), strict=True):
    np.testing.assert_allclose(leaf, other, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(
  "case",
  tried(CASES, lambda case: case == "neurons"),
)
def test_four_devices_do_what_one_does(case):
  method, recipe, shardings = CASES[case]
  alone = runs(method, recipe).outcome(method)
  for sharding in shardings:
    shared = runs(method, recipe, 4, sharding).outcome(method)
    assert_close(shared, alone)
    assert shared.cost.optimizer_bytes == alone.cost.optimizer_bytes
    assert shared.cost.changed_parameters == alone.cost.changed_parameters


def test_a_sharded_state_stays_cut_up(monkeypatch):
  kept, take = [], train_step.Shared.__call__

  def noting(step, *inputs):
    state, metrics = take(step, *inputs)
    kept.append([jax.tree.map(_share, part) for part in state])
    return state, metrics

  monkeypatch.setattr(train_step.Shared, "__call__", noting)
  # Its rows are long enough for a draw of their own.
  method = dataclasses.replace(GMIXOUT, sparsity=0.75)
  runs(method, Recipe(), 4, "fsdp").outcome(method)
  assert len(kept) == STEPS
  params, moments = kept[-1]
  for block in (0, 1):
    kernel = lambda tree, block=block: tree["backbone"]["blocks"][block]
    assert kernel(params.params)["kernel"] == 0.25
    assert kernel(params.anchor)["kernel"] == 0.25
  assert jax.tree.leaves(moments).count(0.25) >= 4


def _share(leaf):
  """How much of an array each device has."""
  shard = leaf.addressable_shards[0].data
  return shard.size / max(leaf.size, 1)


LAYOUTS = {"one": (0, "data"), "two": (2, "fsdp")}


@pytest.mark.parametrize("after", tried(LAYOUTS, lambda name: name == "two"))
def test_a_sharded_run_goes_on_with_other_devices(tmp_path, after):
  alone = runs(GMIXOUT).outcome(GMIXOUT)
  saving = Saving(tmp_path, every=2, stop=lambda step: step == 3)
  with pytest.raises(Stopped, match="after 3 of 6 steps"):
    runs(GMIXOUT, Recipe(), 4, "fsdp", saving=saving).outcome(GMIXOUT)
  devices, sharding = LAYOUTS[after]
  saving = Saving(tmp_path, every=2)
  resumed = runs(GMIXOUT, Recipe(), devices, sharding, saving=saving)
  assert_close(resumed.outcome(GMIXOUT), alone)


@EXHAUSTIVE
def test_the_command_shards_without_processes(tmp_path, monkeypatch):
  tiny.use_tiny_task(monkeypatch)
  lines = []
  for number, sharding in enumerate(("", "data", "fsdp")):
    path = tmp_path / f"{number}.jsonl"
    arguments = ["gmixout", "--steps", "3", "--batch-size", "8"]
    arguments += ["--results", str(path)]
    arguments += ["--sharding", sharding] if sharding else []
    train.main(train.parse(arguments))
    lines += records.read(path)
  alone, *shared = lines
  for line in shared:
    assert line["config"] == alone["config"]
    assert line["metrics"]["ood"] == alone["metrics"]["ood"]
    np.testing.assert_allclose(line["losses"], alone["losses"], atol=2e-5)


def test_shardings_are_known_by_name():
  with pytest.raises(ValueError, match=r"one of \('data', 'fsdp'\), got 'tp'"):
    place({}, parallel.data_mesh(), "tp")


def test_placing_keeps_values():
  mesh = parallel.data_mesh()
  method = methods.METHODS["gmixout"]()
  params = loop.weights_of(tiny.classifier())
  form = method.parametrize(params, jax.random.key(3))
  state = form, jax.random.key(1)
  placed = parallel.place(state, parallel.row_shardings(state, mesh))
  as_numbers = lambda leaf: (
    jax.random.key_data(leaf)
    if jax.numpy.issubdtype(leaf.dtype, jax.dtypes.prng_key)
    else leaf
  )
  jax.tree.map(
    lambda a, b: np.testing.assert_array_equal(as_numbers(a), as_numbers(b)),
    state,
    placed,
  )
