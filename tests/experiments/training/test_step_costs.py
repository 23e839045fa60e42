"""Tests `experiments/training/step_costs.py` against the compiled programs."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from experiments.bench.comms import messages
from experiments.methods.full_finetuning import FullFinetuning
from experiments.methods.full_finetuning_of_blocks import (
  FullFinetuningOfBlocks,
)
from experiments.methods.gmixout import GMixout
from experiments.methods.lora import LoRA
from experiments.tasks.recipe import Recipe
from experiments.tasks.task import Opened
from experiments.training import train_step
from experiments.training.runs import Runs
from experiments.training.step_costs import counted
from gmixout_jax import parallel
from tests.combinations import EXHAUSTIVE, tried
from tests.experiments import tiny

METHODS = {
  "full": FullFinetuning(),
  "blocks": FullFinetuningOfBlocks(),
  "packed": GMixout(resample_every=2, sparsity=0.75),
  "neurons": GMixout(sampler="neuron", rescale=False, sparsity=0.75),
  "whole": GMixout(moments="reset", sparsity=0.75),
  "lora": LoRA(),
}


def outcome_of(method, devices=0, recipe=Recipe(), sharding="data"):  # noqa: B008
  task = Opened(
    model=tiny.classifier(),
    source=tiny.source(),
    steps=2,
    batch_size=8,
    recipe=recipe,
  )
  mesh = parallel.data_mesh(jax.devices()[:devices]) if devices else None
  return Runs(task, [method], mesh=mesh, sharding=sharding).outcome(method)


@pytest.fixture(scope="module")
def costs():
  return {name: outcome_of(method).cost for name, method in METHODS.items()}


@pytest.mark.parametrize("name", tried(METHODS, lambda name: name == "packed"))
def test_what_is_reduced_is_what_devices_send(name, costs, monkeypatch):
  """The all-reduces of the program: gradients and loss, and nothing else."""
  texts = []

  def costs_of(step, *inputs):
    compiled = step.compiled.lower(*inputs, *step.given).compile()
    texts.append(compiled.as_text())
    return counted(compiled)

  monkeypatch.setattr(train_step.Shared, "costs", costs_of)
  cost = outcome_of(METHODS[name], devices=2).cost
  sent = sum(m.nbytes for m in messages(texts[0]) if m.kind == "all-reduce")
  assert cost.reduced_bytes == costs[name].reduced_bytes
  assert sent == cost.reduced_bytes + 4  # the loss


def test_costs_are_as_methods_promise(costs):
  full, blocks, packed = costs["full"], costs["blocks"], costs["packed"]
  assert blocks.reduced_bytes < full.reduced_bytes
  assert packed.reduced_bytes < 0.5 * blocks.reduced_bytes
  assert costs["whole"].reduced_bytes == blocks.reduced_bytes
  assert costs["neurons"].step_flops < 0.9 * blocks.step_flops
  assert packed.optimizer_bytes < 0.6 * full.optimizer_bytes
  for cost in costs.values():
    assert 0 < cost.step_flops <= 1.2 * full.step_flops
    # Weights and state are there whatever else is.
    assert cost.step_peak_bytes > cost.optimizer_bytes


def test_flops_are_those_of_the_matrices():
  x, w = jnp.ones((96, 64)), jnp.ones((64, 32))
  product = jax.jit(lambda x, w: x @ w).lower(x, w).compile()
  assert counted(product).flops == pytest.approx(2 * 96 * 64 * 32, rel=1e-6)
  inputs = 4 * (96 * 64 + 64 * 32)
  assert counted(product).peak_bytes >= inputs + 4 * 96 * 32
  donated = jax.jit(lambda x: x + 1, donate_argnums=0).lower(x).compile()
  assert counted(donated).peak_bytes < 1.5 * x.nbytes


@pytest.mark.parametrize(
  ("devices", "recipe", "sharding"),
  [
    (0, Recipe(accumulate=2), "data"),
    pytest.param(2, Recipe(mixup=0.2), "data", marks=EXHAUSTIVE),
    (2, Recipe(), "fsdp"),
  ],
)
def test_every_kind_of_step_is_counted(devices, recipe, sharding):
  cost = outcome_of(METHODS["packed"], devices, recipe, sharding).cost
  assert cost.step_flops > 0
  assert cost.step_peak_bytes > 0
  assert np.isfinite(cost.step_flops)
