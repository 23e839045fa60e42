"""Training in bfloat16: where it lowers, what it reaches, how it resumes."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from experiments import sweep, train
from experiments.data import domainbed
from experiments.data.batches import batches, stream
from experiments.methods.gmixout import GMixout
from experiments.methods.schedule import Schedule
from experiments.models import backbones
from experiments.models.classifier import Classifier
from experiments.tasks.image_task import Setup
from experiments.tasks.task import Opened
from experiments.training import loop
from experiments.training.run_checkpoints import Stopped
from experiments.training.runs import Runs, Saving
from gmixout_jax import clip
from tests.combinations import EXHAUSTIVE
from tests.experiments import tiny

COMPACT = GMixout(
  compact=True, resample_every=2, learning_rate=1e-2, head_learning_rate=1e-2
)


def losses(method, dtype, steps):
  dataset = batches(tiny.split(), batch_size=12, seed=0)
  return loop.fit(
    method,
    tiny.classifier(dtype=dtype),
    lambda start: stream(dataset, start, steps),
    steps=steps,
    schedule=Schedule(steps),
    key=jax.random.key(0),
  ).losses


@EXHAUSTIVE  # which dtypes are computed in is in `test_lowering.py`
def test_bfloat16_reaches_the_loss_of_float32():
  """Within 0.005 nats of it at every step, of 0.3 that are learned."""
  dense = dataclasses.replace(COMPACT, compact=False)
  wide = losses(dense, "float32", 40)
  assert wide[-10:].mean() < wide[0] - 0.3
  for method in (dense, COMPACT):
    narrow = losses(method, "bfloat16", 40)
    assert np.abs(wide - narrow).max() > 1e-5  # it is another computation
    np.testing.assert_allclose(narrow, wide, atol=0.005)


@EXHAUSTIVE
def test_a_resumed_run_in_bfloat16_ends_as_one_left_alone(tmp_path):
  """Linear probe, validation and all."""
  model = tiny.classifier(dtype="bfloat16")
  task = Opened(model=model, source=tiny.source(), steps=7, batch_size=4)

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
  tiny.save_vit(weights)
  command = [
    *("gmixout", "--data", "domainbed", "--source", "photo"),
    *("--root", str(tiny.domainbed(tmp_path / "PACS"))),
    *("--image-size", "16", "--backbone", str(weights)),
    *("--dtype", "bfloat16", "--remat", "--attention", "xla"),
  ]
  model = train.parse(command).task().open(0).model
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


def test_a_line_records_dtype_and_attention_that_are_not_the_defaults(tmp_path):
  weights = tmp_path / "vit.safetensors"
  weights.touch()
  plain = Setup(backbone=weights).described()
  assert not {"dtype", "attention", "remat"} & set(plain)
  asked = {"dtype": "bfloat16", "attention": "cudnn", "remat": True}
  assert Setup(backbone=weights, **asked).described() == plain | asked


@pytest.mark.parametrize("command", [train, sweep])
def test_the_commands_pass_dtype_and_attention_on(command, tmp_path):
  weights = tmp_path / "vit.safetensors"
  weights.touch()
  config = command.parse(
    [
      *("gmixout", "--backbone", str(weights), "--train", str(tmp_path)),
      *("--dtype", "bfloat16", "--attention", "cudnn", "--remat"),
    ]
  )
  setup = config.task().setup
  assert (setup.dtype, setup.attention) == ("bfloat16", "cudnn")
  assert setup.remat


def test_attention_that_cannot_run_is_refused_before_anything_is_read(
  monkeypatch, tmp_path
):
  weights = tmp_path / "vit.safetensors"
  tiny.save_vit(weights)
  monkeypatch.setattr(domainbed, "open_images", lambda *_: pytest.fail("read"))
  config = train.Config(
    method=GMixout(),
    backbone=weights,
    data="domainbed",
    root=tiny.domainbed(tmp_path / "PACS"),
    source="photo",
    results=tmp_path / "results.jsonl",
    attention="cudnn",
    dtype="bfloat16",
  )
  with pytest.raises(SystemExit, match="error: attention='cudnn' cannot run"):
    train.main(config)
  wide = dataclasses.replace(config, dtype="float32")
  with pytest.raises(SystemExit, match="bfloat16 or float16 alone"):
    train.main(wide)
  backbones.check(dtype="bfloat16", attention="xla")
