"""Tests `experiments/methods/full_finetuning_of_blocks.py`."""

import jax
import numpy as np
import optax
from flax import nnx

from experiments.data.batches import batches, stream
from experiments.methods import METHODS
from experiments.methods.full_finetuning_of_blocks import (
  FullFinetuningOfBlocks,
)
from experiments.methods.gmixout import GMixout
from experiments.methods.schedule import Schedule
from experiments.models import probe
from experiments.training import loop
from tests.experiments import tiny

STEPS, RATE = 3, 1e-3


def by_hand(model, source):
  """AdamW of Optax on these leaves alone, in a loop of its own."""
  graphdef, params, rest = nnx.split(model, nnx.Param, ...)
  params = nnx.to_pure_dict(params)

  def trains(path, leaf):
    name = jax.tree_util.keystr(path, simple=True, separator="/")
    matrix = "/blocks/" in name and leaf.ndim == 2
    return matrix or name.startswith("head/")

  mask = jax.tree.map_with_path(trains, params)
  schedule = optax.warmup_cosine_decay_schedule(RATE, RATE, 0, STEPS)
  tx = optax.masked(optax.adamw(schedule, weight_decay=0.0), mask)
  state = tx.init(params)

  def loss(params, batch):
    logits = nnx.merge(graphdef, params, rest)(batch["image"])
    return optax.softmax_cross_entropy_with_integer_labels(
      logits, batch["label"]
    ).mean()

  gradient = jax.jit(jax.grad(loss))
  for batch in stream(batches(source.train, batch_size=8, seed=0), 0, STEPS):
    grads = gradient(params, batch)
    grads = jax.tree.map(lambda g, own: g if own else 0 * g, grads, mask)
    updates, state = tx.update(grads, state, params)
    params = optax.apply_updates(params, updates)
  return params


def test_it_is_adamw_on_the_matrices_of_blocks_and_the_head():
  source = tiny.source()
  model = probe.fit_head(tiny.classifier(), source)
  dataset = batches(source.train, batch_size=8, seed=0)
  fitted = loop.fit(
    FullFinetuningOfBlocks(learning_rate=RATE),
    model,
    lambda start: stream(dataset, start, STEPS),
    steps=STEPS,
    schedule=Schedule(STEPS, warmup=0),
    key=jax.random.key(0),
  )
  before = loop.weights_of(model)
  expected, found = by_hand(model, source), loop.weights_of(fitted.model)
  compared = jax.tree.map(lambda *leaves: leaves, found, expected, before)
  moved = 0
  for ours, theirs, start in jax.tree.leaves(
    compared, is_leaf=lambda x: isinstance(x, tuple)
  ):
    np.testing.assert_allclose(ours, theirs, rtol=1e-4, atol=2e-6)
    moved += not np.array_equal(ours, start)
  trains = GMixout().trains(before)
  assert moved == sum(jax.tree.leaves(trains)) == 4
  assert fitted.stats.trained_parameters < sum(
    leaf.size for leaf in jax.tree.leaves(before)
  )


def test_it_is_found_by_its_name():
  assert METHODS["full_finetuning_of_blocks"] is FullFinetuningOfBlocks
