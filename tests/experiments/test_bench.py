"""Tests that every benchmark runs, on a ViT too small to mean anything."""

import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from experiments.bench import (
  comms,
  figures,
  flops,
  images,
  memory,
  step,
  train_steps,
)

TINY = {"patch_size": 16, "width": 20, "depth": 1, "heads": 2, "mlp_width": 40}


@pytest.fixture(autouse=True)
def _tiny(monkeypatch):
  monkeypatch.setitem(train_steps.VITS, "vit_b16", TINY)


def test_figures_are_written(tmp_path):
  path = tmp_path / "figures.json"
  flops.run(path, large=False, batch_size=1)
  found = json.loads(path.read_text())
  assert set(flops.TARGETS) <= set(found)
  assert all(value > 0 for value in found.values())
  assert found["flops_ratio_neuron"] < found["flops_ratio_stratified"]


def test_images_per_second_of_every_step(tmp_path):
  path = tmp_path / "figures.json"
  images.run(path, batch_size=2, image_size=32, dtype="float32", repeats=1)
  found = json.loads(path.read_text())
  assert set(images.LEAST) <= set(found)
  seconds = {
    name.removesuffix("_images_per_second"): 1 / value
    for name, value in found.items()
    if name.endswith("_images_per_second")
  }
  lora = seconds["full"] / seconds["lora"]
  assert found["speedup_lora"] == pytest.approx(lora)
  fastest = min(t for name, t in seconds.items() if "stratified" in name)
  stratified = seconds["full"] / fastest
  assert found["speedup_stratified"] == pytest.approx(stratified)


class Mlp(nnx.Module):
  """A network with blocks and a head of 1000 classes, for eight devices."""

  def __init__(self):
    rngs = nnx.Rngs(0)
    self.embedding = nnx.Linear(32 * 32 * 3, 40, rngs=rngs)
    self.blocks = nnx.List([nnx.Linear(40, 40, rngs=rngs) for _ in range(2)])
    self.head = nnx.Linear(40, 1000, rngs=rngs)

  def __call__(self, images):
    x = self.embedding(images.reshape(len(images), -1))
    for block in self.blocks:
      x = x + nnx.relu(block(x))
    return self.head(x)


def test_what_devices_send_each_other(tmp_path, monkeypatch):
  # Five programs for eight devices: of a ViT they would be many times as large.
  monkeypatch.setattr(
    train_steps, "vit", lambda *_: nnx.eval_shape(lambda: Mlp())
  )
  path = tmp_path / "figures.json"
  comms.run(path)
  found = json.loads(path.read_text())
  assert set(comms.TARGETS) <= set(found)
  # Full fine-tuning sends every gradient, and the loss.
  shapes = train_steps.full_finetuning(train_steps.vit("vit_b16", 32)).params
  dense = figures.tree_bytes(shapes) + 4
  assert found["full_shard_map_allreduce_bytes"] == dense
  assert found["full_jit_allreduce_bytes"] == dense
  # Frozen leaves are not sent; the head of 1000 classes is, densely.
  assert found["allreduce_bytes_ratio"] < 1
  assert found["masks_sent_bytes"] == 0
  assert 1 / 8 < found["fsdp_bytes_ratio"] < 1


def test_memory_counts_what_is_held():
  one = train_steps.compact(train_steps.vit("vit_b16", 32), "stratified")
  held = jax.eval_shape(one.init, one.params)
  sizes = memory.bytes_of(one, train_steps.batch_shapes(1, 32))
  assert sizes["persistent_bytes"] == figures.tree_bytes(held)
  assert sizes["peak_bytes"] > sizes["persistent_bytes"]


def test_a_runner_steps_in_place():
  one = train_steps.compact(train_steps.vit("vit_b16", 32), "stratified")
  batch = (jnp.ones((2, 32, 32, 3)), jnp.zeros(2, jnp.int32))
  runner = step.Runner(one, batch)
  runner()
  runner()
  mixed, _ = runner.state
  assert int(mixed.count) == 2


def test_the_steps_train_what_they_say():
  """All three start from one loss; LoRA moves its factors and the head."""
  vit = lambda: train_steps.vit("vit_b16", 32)
  batch = (jnp.ones((2, 32, 32, 3)), jnp.array([1, 2]))
  losses = {}
  for name, one in {
    "full": train_steps.full_finetuning(vit()),
    "compact": train_steps.compact(vit(), "neuron"),
    "lora": train_steps.lora(vit()),
  }.items():
    zeros = jax.tree.map(
      lambda leaf: jnp.zeros(leaf.shape, leaf.dtype), one.params
    )
    state = one.init(zeros)
    before = jax.tree.map(np.array, state)
    # Compiled as by `Runner`, and so but once for all of these tests.
    after, losses[name] = jax.jit(one.step, donate_argnums=0)(state, batch)
    if name == "lora":
      trainable, frozen, _ = after
      jax.tree.map(np.testing.assert_array_equal, frozen, before[1])
      assert np.any(trainable["head"]["bias"][...] != 0)
  assert all(loss == pytest.approx(np.log(1000)) for loss in losses.values())
