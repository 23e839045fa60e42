"""Tests that every benchmark runs, on a ViT too small to mean anything."""

import json

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import nnx

from experiments.bench import (
  comms,
  figures,
  flops,
  images,
  memory,
  run_step,
  scale,
  step,
  top_blocks,
  train_steps,
  update,
)
from experiments.bench import compile as compiling
from tests.combinations import EXHAUSTIVE, every_value, tried
from tests.experiments import tiny

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


@EXHAUSTIVE  # it compiles eight steps
def test_the_upper_blocks_alone_take_less(tmp_path, monkeypatch):
  monkeypatch.setitem(train_steps.VITS, "two_blocks", TINY | {"depth": 2})
  monkeypatch.setenv("XLA_FLAGS", "")
  path = tmp_path / "figures.json"
  top_blocks.run(path, "two_blocks", batch_size=4, image_size=32)
  found = json.loads(path.read_text())
  assert set(top_blocks.TARGETS) <= set(found)
  for sampler in top_blocks.SAMPLERS:
    ratio = {at: found[f"{sampler}_{at}_flops_ratio"] for at in ("all", "top")}
    assert ratio["top"] < 0.9 * ratio["all"]
    temporary = found[f"{sampler}_top_temporary_bytes"]
    assert temporary < found[f"{sampler}_all_temporary_bytes"]


@EXHAUSTIVE  # it compiles five steps; below are two of them
def test_images_per_second_of_every_step(tmp_path):
  path = tmp_path / "figures.json"
  images.run(path, batch_size=1, image_size=32, repeats=1)
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


def test_images_per_second_of_some_steps(tmp_path):
  path = tmp_path / "figures.json"
  sizes = {"batch_size": 1, "image_size": 32, "repeats": 1}
  images.run(path, **sizes, model="smallest", only=("stratified_xla_fused",))
  found = json.loads(path.read_text())
  names = ("full", "stratified_xla_fused")
  assert [n for n in found if n.endswith("_per_second")] == [
    f"{name}_images_per_second" for name in names
  ]
  with pytest.raises(ValueError, match=r"'neuron'.*\['stratified_cuda'\]"):
    images.run(path, **sizes, only=("stratified_cuda",))
  with pytest.raises(figures.IncompleteError, match="full: no time was left"):
    images.run(path, **sizes, seconds=-1)
  assert json.loads(path.read_text()) == {}


@EXHAUSTIVE  # what steps send is tested where steps are
def test_what_devices_send_each_other(tmp_path, monkeypatch):
  # Five programs for eight devices: of a ViT they would be many times as large.
  small = lambda *_: nnx.eval_shape(lambda: tiny.classifier(classes=1000))
  monkeypatch.setattr(train_steps, "vit", small)
  path = tmp_path / "figures.json"
  comms.run(path, image_size=tiny.SIZE)
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


@EXHAUSTIVE  # with LLVM's optimizations, again and again
def test_compile_figures(tmp_path):
  path = tmp_path / "figures.json"
  compiling.run(
    path,
    depth=1,
    width=8,
    update_rounds=1,
    step_rounds=1,
    repeats=1,
    rows=6,
    cols=20,
  )
  found = json.loads(path.read_text())
  assert set(compiling.TARGETS) <= set(found)
  for what, (one, other) in {
    "update": ("gmixout", "adamw"),
    "step": ("stratified", "full"),
  }.items():
    seconds = [
      found[f"{what}_{side}_compile_cpu_seconds"] for side in (one, other)
    ]
    ratio = found[f"{what}_compile_ratio"]
    assert ratio == pytest.approx(seconds[0] / seconds[1])
    equations = [found[f"{what}_{side}_equations"] for side in (one, other)]
    assert equations[0] > equations[1]


@EXHAUSTIVE  # of what `test_figures_are_written` shows of another
def test_update_figures(tmp_path, monkeypatch):
  # Six programs: of a ViT they would be many times as large.
  small = lambda *_: nnx.eval_shape(lambda: tiny.classifier(classes=1000))
  monkeypatch.setattr(train_steps, "vit", small)
  path = tmp_path / "figures.json"
  update.run(path, repeats=1)
  found = json.loads(path.read_text())
  assert set(update.TARGETS) <= set(found)
  for how in ("", "_undonated", "_in_order"):
    assert found[f"update_time_ratio{how}"] == pytest.approx(
      found["gmixout_every_50_seconds"] / found[f"adamw{how}_seconds"]
    )


@pytest.mark.parametrize(
  ("donate", "in_order"), every_value([True, False], [True, False])
)
def test_a_stepper_takes_the_steps_of_its_optimizer(donate, in_order):
  shapes = {"w": jax.ShapeDtypeStruct((2, 3), jnp.float32)}
  grads = {"w": jnp.ones((2, 3))}
  stepper = update.Stepper(
    optax.sgd(0.5), shapes, grads, donate=donate, in_order=in_order
  )
  before = stepper.params["w"]
  stepper()
  np.testing.assert_allclose(stepper.params["w"], 0.02 - 0.5, rtol=1e-6)
  assert before.is_deleted() == donate


def test_equations_are_counted_in_what_is_called():
  inner = jax.jit(lambda x: x * 2 + 1)  # a call, of two equations

  def function(x):
    return jax.lax.cond(x > 0, inner, lambda x: x - 1, x)

  jaxpr = jax.make_jaxpr(function)(1.0)
  # A comparison, a conversion, a choice; in it the call, and a difference.
  assert compiling.equations(jaxpr) == 3 + (1 + 2) + 1


def test_nothing_compiled_is_read_back():
  """A second compilation costs what the first did."""
  settings = ("jax_enable_compilation_cache", "jax_disable_most_optimizations")
  before = [jax.config.values[name] for name in settings]
  with compiling.as_users_compile():
    assert [jax.config.values[name] for name in settings] == [False, False]
    traced = []
    function = lambda x: traced.append(x) or jnp.sin(x)
    for _ in range(2):
      assert compiling.compile_seconds(function, (jnp.ones(3),)) > 0
    assert len(traced) == 2
  assert [jax.config.values[name] for name in settings] == before


def test_memory_counts_what_is_held():
  one = train_steps.compact(train_steps.vit("vit_b16", 32), "stratified")
  held = jax.eval_shape(one.init, one.params)
  images = train_steps.batch_shapes(1, 32)
  sizes = memory.bytes_of(one.compile(images), images)
  assert sizes["persistent_bytes"] == figures.tree_bytes(held)
  assert sizes["peak_bytes"] > sizes["persistent_bytes"]


def test_a_runner_steps_in_place():
  one = train_steps.compact(train_steps.vit("vit_b16", 32), "stratified")
  batch = (jnp.ones((1, 32, 32, 3)), jnp.zeros(1, jnp.int32))
  runner = step.Runner(one, batch)
  runner()
  runner()
  mixed, _ = runner.state
  assert int(mixed.count) == 2


@EXHAUSTIVE  # three steps; two are run above, LoRA's in `test_trained.py`
def test_the_steps_train_what_they_say():
  """All three start from one loss; LoRA moves its factors and the head."""
  vit = lambda: train_steps.vit("vit_b16", 32)
  batch = (jnp.ones((2, 32, 32, 3)), jnp.array([1, 2]))
  losses = {}
  for name, one in {
    "full": train_steps.full_finetuning(vit()),
    "compact": train_steps.compact(vit(), "neuron"),
    "lora": train_steps.lora(vit(), rank=2),
  }.items():
    zeros = jax.tree.map(
      lambda leaf: jnp.zeros(leaf.shape, leaf.dtype), one.params
    )
    state = one.init(zeros)
    before = jax.tree.map(np.array, state)
    after, losses[name] = jax.jit(one.step)(state, batch)
    if name == "lora":
      trainable, frozen, _ = after
      jax.tree.map(np.testing.assert_array_equal, frozen, before[1])
      assert np.any(trainable["head"]["bias"][...] != 0)
  assert all(loss == pytest.approx(np.log(1000)) for loss in losses.values())


@pytest.mark.parametrize("compiled", tried([False, True], lambda it: not it))
def test_scale_figures(tmp_path, monkeypatch, compiled):
  # More tokens, or pixels and logits outweigh what lies between them.
  monkeypatch.setitem(train_steps.VITS, "vit_b16", TINY | {"patch_size": 2})
  # Three programs for eight devices: of a ViT they would be many times longer.
  small = lambda *_: nnx.eval_shape(lambda: tiny.classifier(classes=1000))
  monkeypatch.setattr(run_step, "classifier", small)
  path = tmp_path / "figures.json"
  sizes = {"batch_size": 32, "image_size": tiny.SIZE}
  scale.run(path, **sizes, compiled=compiled)
  found = json.loads(path.read_text())
  ratio = found["residual_bfloat16_bytes"] / found["residual_float32_bytes"]
  assert found["residual_bytes_ratio"] == pytest.approx(ratio)
  assert 0 < ratio < 1
  assert any("temporary" in name for name in found) == compiled
  if not compiled:
    return
  assert set(scale.TARGETS) <= set(found)
  # Every gradient of full fine-tuning is sent, and the loss.
  model = run_step.classifier("vit_b16", 32)
  dense = figures.tree_bytes(nnx.to_pure_dict(nnx.state(model))) + 4
  assert found["full_allreduce_bytes"] == dense
  assert found["allreduce_bytes"] < dense
  assert 1 / 8 < found["fsdp_bytes_ratio"] < 1
  assert found["programs_per_rate"] == 1
  scale.run(path, **sizes, compiled=False)
  assert json.loads(path.read_text()).items() <= found.items()


def test_what_waits_for_the_backward_pass_is_counted_once():
  shape = lambda *dims: jax.ShapeDtypeStruct(dims, jnp.float32)
  weights = {"in": shape(3, 5), "out": shape(5, 7), "too": shape(5, 9)}

  def loss(weights, x):
    hidden = jnp.tanh(x @ weights["in"])
    narrow = lambda y: y.astype(jnp.bfloat16)
    out = narrow(hidden) @ narrow(weights["out"])
    return jnp.sum(out.astype(jnp.float32)) + jnp.sum(hidden @ weights["too"])

  kept = scale.kept_bytes(loss, weights, shape(2, 3))
  # For both products, what multiplies the weights; for tanh, its derivative;
  # and a narrower copy of weights. Neither x nor the weights themselves.
  assert kept == 2 * (2 * 5) + 4 * (2 * 5) + 4 * (2 * 5) + 2 * (5 * 7)

  def twice(weights, x):
    hidden = jnp.exp(x @ weights["in"])  # its own derivative
    return jnp.sum(hidden @ weights["out"]) + jnp.sum(hidden @ weights["too"])

  assert scale.kept_bytes(twice, weights, shape(2, 3)) == 4 * (2 * 5)
