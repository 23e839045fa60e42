"""Training in bfloat16: where it lowers, what it reaches, how it resumes."""

import dataclasses
import functools
import json
import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from experiments import methods, sweep, train
from experiments.data.batches import batches, stream
from experiments.methods import parametrization
from experiments.methods.full_finetuning import FullFinetuning
from experiments.methods.gmixout import GMixout
from experiments.methods.lora import LoRA
from experiments.methods.mixout import Mixout
from experiments.methods.random_mask import RandomMask
from experiments.methods.schedule import Schedule
from experiments.models import backbones
from experiments.models.classifier import Classifier
from experiments.training import faults, loop
from experiments.training.run_checkpoints import Stopped
from experiments.training.runs import Runs, Saving, Task
from experiments.training.train_step import make_step
from gmixout_jax import clip
from tests.experiments import tiny

METHODS = {
  "full_finetuning": FullFinetuning(),
  "gmixout": GMixout(),
  "gmixout_compact": GMixout(compact=True),
  "mixout": Mixout(),
  "random_mask": RandomMask(),
  "lora": LoRA(),
}
COMPACT = GMixout(
  compact=True, resample_every=2, learning_rate=1e-2, head_learning_rate=1e-2
)


@functools.cache
def classifier(dtype="float32"):
  """Under a head that is not blank, which no probe replaces."""
  head = np.random.default_rng(0).normal(size=(16, 3))
  return Classifier(tiny.vit(dtype=dtype), 0.3 * head.astype(np.float32))


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize("method", METHODS.values(), ids=METHODS)
def test_the_step_lowers_for_tpu_and_cuda(method, dtype):
  key = jax.random.key(0)
  model = method.prepare(classifier(dtype), tiny.source(), key)
  graphdef, state, rest = nnx.split(model, nnx.Param, ...)

  def begin(params):
    optimizer = faults.guard(method.transform(params, Schedule(10), key), 0)
    params = method.parametrize(params, key)
    return params, optimizer.init(parametrization.trainable(params))

  params = nnx.to_pure_dict(state)
  begun = jax.eval_shape(begin, params)
  optimizer = faults.guard(method.transform(params, Schedule(10), key), 0)
  batch = {
    "image": jax.ShapeDtypeStruct((4, 16, 16, 3), jnp.uint8),
    "label": jax.ShapeDtypeStruct((4,), jnp.int32),
  }
  step = make_step(method, optimizer, graphdef)
  traced = step.trace(begun, batch, rest, np.int32(0), key)  # pyright: ignore[reportFunctionMemberAccess]
  for platform in ("tpu", "cuda"):
    program = traced.lower(lowering_platforms=(platform,)).as_text()
    # What is stored is float32; products of activations are in `dtype`.
    signature = program.split("@main(", 1)[1].split("\n", 1)[0]
    assert "bf16" not in signature
    read = re.findall(r"stablehlo.dot_general .*: \(tensor<(\S+?)>", program)
    narrow = sum(name.endswith("xbf16") for name in read)
    # At the least the six matrices and attention, forward.
    assert narrow >= 8 if dtype == "bfloat16" else narrow == 0


def losses(method, dtype, steps):
  dataset = batches(tiny.split(), batch_size=12, seed=0)
  return loop.fit(
    method,
    tiny.classifier(dtype=dtype),
    stream(dataset, 0, steps),
    steps=steps,
    schedule=Schedule(steps),
    key=jax.random.key(0),
  ).losses


def test_bfloat16_reaches_the_loss_of_float32():
  """Within 0.005 nats of it at every step, of 0.3 that are learned."""
  dense = dataclasses.replace(COMPACT, compact=False)
  wide = losses(dense, "float32", 40)
  assert wide[-10:].mean() < wide[0] - 0.3
  for method in (dense, COMPACT):
    narrow = losses(method, "bfloat16", 40)
    assert np.abs(wide - narrow).max() > 1e-5  # it is another computation
    np.testing.assert_allclose(narrow, wide, atol=0.005)


def test_a_resumed_run_in_bfloat16_ends_as_one_left_alone(tmp_path):
  """Linear probe, validation and all."""
  model = tiny.classifier(dtype="bfloat16")
  task = Task(model=model, source=tiny.source(), steps=7, batch_size=4)

  def run(folder, stop):
    saving = Saving(folder, every=2, stop=lambda step: step == stop)
    return Runs(task, [COMPACT], saving=saving).outcome(COMPACT)

  alone = run(tmp_path / "alone", None)
  with pytest.raises(Stopped, match="after 3 of 7 steps"):
    run(tmp_path / "resumed", 3)
  resumed = run(tmp_path / "resumed", None)
  np.testing.assert_array_equal(alone.losses, resumed.losses)
  weights = [loop.weights_of(one.model) for one in (alone, resumed)]
  assert {leaf.dtype for leaf in jax.tree.leaves(weights)} == {
    jnp.dtype("float32")
  }
  jax.tree.map(np.testing.assert_array_equal, *weights)


def test_the_command_loads_what_computes_in_bfloat16(tmp_path):
  weights = tmp_path / "vit.safetensors"
  clip.vit_to_safetensors(tiny.vit(width=64, heads=1), weights)
  command = [
    *("gmixout", "--data.root", str(tiny.domainbed(tmp_path / "PACS"))),
    *("--data.image-size", "16", "--weights", str(weights)),
    *("--dtype", "bfloat16", "--remat", "--attention", "xla"),
  ]
  _, model = train.load(train.parse(command))
  assert isinstance(model.backbone, clip.ViT)
  assert model.backbone.config.dtype == "bfloat16"
  assert model.backbone.config.remat
  stored = jax.tree.leaves(nnx.state(model, nnx.Param))
  assert {leaf.dtype for leaf in stored} == {jnp.dtype("float32")}
  pixels = jax.ShapeDtypeStruct((2, 16, 16, 3), jnp.uint8)
  features = nnx.eval_shape(Classifier.features, model, pixels)
  assert features.dtype == jnp.bfloat16
  logits = nnx.eval_shape(Classifier.__call__, model, pixels)
  assert logits.dtype == jnp.float32


def test_lines_of_before_compare():
  """Their configuration is what the defaults still write."""
  plain = train.described(train.Config(method=GMixout()))
  assert not {"dtype", "attention"} & set(plain)
  narrow = train.Config(
    method=GMixout(), dtype="bfloat16", attention="cudnn", remat=True
  )
  expected = plain | {
    "dtype": "bfloat16", "attention": "cudnn", "remat": True
  }  # fmt: skip
  assert train.described(narrow) == json.loads(json.dumps(expected))


def test_a_sweep_hands_them_on():
  config = sweep.Config(
    methods=("gmixout",), dtype="bfloat16", attention="cudnn", remat=True
  )
  (cell,) = sweep.configurations(config, [methods.from_name("gmixout")], 0)
  assert (cell.dtype, cell.attention, cell.remat) == ("bfloat16", "cudnn", True)


def test_attention_that_cannot_run_is_refused_before_anything_is_read(
  monkeypatch, tmp_path
):
  weights = tmp_path / "vit.safetensors"
  weights.touch()
  monkeypatch.setattr(train.Data, "read", lambda _: pytest.fail("read"))
  config = train.Config(
    method=GMixout(), weights=weights, attention="cudnn", dtype="bfloat16"
  )
  with pytest.raises(SystemExit, match="error: attention='cudnn' cannot run"):
    train.main(config)
  wide = dataclasses.replace(config, dtype="float32")
  with pytest.raises(SystemExit, match="bfloat16 or float16 alone"):
    train.main(wide)
  backbones.check(dtype="bfloat16", attention="xla")
