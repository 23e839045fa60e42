"""Tests `gmixout_jax/clip/convert.py`, `weights.py` and `names.py`."""

import dataclasses
import json
import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import safetensors.numpy
from flax import nnx

from gmixout_jax import clip
from tests.combinations import tried

pytestmark = pytest.mark.slow

TOWER = dict(width=12, heads=3, mlp_width=20)
CONFIG = clip.CLIPConfig(
  vision=clip.VisionConfig(image_size=16, patch_size=8, depth=2, **TOWER),
  text=clip.TextConfig(
    vocab_size=20, context_length=7, eos_token_id=19, depth=1, **TOWER
  ),
  projection_dim=6,
)
POSITIONS = "vision_model.embeddings.position_embedding.weight"


@pytest.fixture(scope="module")
def model(make):
  return make(lambda rngs: clip.CLIP(CONFIG, rngs=rngs))


@pytest.fixture
def folder(model, tmp_path):
  clip.save_pretrained(model, tmp_path / "model")
  return tmp_path / "model"


def leaves(model):
  return nnx.to_pure_dict(nnx.state(model, nnx.Param))


def assert_same(first, second):
  jax.tree.map(np.testing.assert_array_equal, leaves(first), leaves(second))


def rewrite(folder, change):
  """Applies a function to the dict of tensors in a folder's file."""
  path = folder / "model.safetensors"
  tensors = safetensors.numpy.load_file(path)
  change(tensors)
  safetensors.numpy.save_file(tensors, path)


def test_load_undoes_save(model, folder):
  """The same program on the same numbers: hence identical logits."""
  loaded = clip.from_pretrained(folder)
  assert_same(model, loaded)
  assert loaded.config == model.config
  assert nnx.split(loaded)[0] == nnx.split(model)[0]


def test_a_plain_vit_can_be_the_image_tower(make, tmp_path):
  tower = dict(TOWER, width=64, heads=1)
  plain = clip.VisionConfig.vit(
    image_size=16, patch_size=8, depth=1, num_classes=0, **tower
  )
  config = dataclasses.replace(CONFIG, vision=plain)
  model = make(lambda rngs: clip.CLIP(config, rngs=rngs))
  clip.save_pretrained(model, tmp_path / "model")
  loaded = clip.from_pretrained(tmp_path / "model")
  assert_same(model, loaded)
  assert loaded.config == config
  # The same tower by the other way that there is to read one.
  clip.vit_to_safetensors(model.vision, tmp_path / "vit.safetensors")
  vit = clip.vit_from_safetensors(tmp_path / "vit.safetensors")
  assert_same(vit, loaded.vision)
  assert vit.config == loaded.config.vision
  tensors = safetensors.numpy.load_file(
    tmp_path / "model" / "model.safetensors"
  )
  assert "vision_model.embeddings.patch_embedding.bias" in tensors
  assert not any("pre_layrnorm" in name for name in tensors)


@pytest.mark.shared
def test_saving_reproduces_a_hugging_face_folder(shared, tmp_path):
  """Names, layouts and values, seen from their side."""
  source = shared / "golden/clip_hf_quick_gelu"
  clip.save_pretrained(clip.from_pretrained(source), tmp_path)
  theirs = safetensors.numpy.load_file(source / "model.safetensors")
  ours = safetensors.numpy.load_file(tmp_path / "model.safetensors")
  assert ours.keys() == theirs.keys()
  for name, value in theirs.items():
    np.testing.assert_array_equal(ours[name], value, err_msg=name)
  read = [
    json.loads((f / "config.json").read_text()) for f in (source, tmp_path)
  ]
  for section in ("vision_config", "text_config"):
    for key in read[1][section].keys() - {"projection_dim"}:
      assert read[0][section][key] == read[1][section][key]


@pytest.mark.parametrize(
  "stored", tried(["float16", "bfloat16"], lambda stored: stored == "bfloat16")
)
def test_half_precision_files_load_into_float32(model, folder, stored):
  full = (folder / "model.safetensors").stat().st_size
  clip.save_pretrained(model, folder, dtype=stored)
  assert (folder / "model.safetensors").stat().st_size < 0.7 * full
  loaded = leaves(clip.from_pretrained(folder))
  expected = jax.tree.map(
    lambda p: p.astype(stored).astype(jnp.float32), leaves(model)
  )
  jax.tree.map(np.testing.assert_array_equal, loaded, expected)
  assert {p.dtype for p in jax.tree.leaves(loaded)} == {jnp.dtype("float32")}
  half = clip.from_pretrained(folder, param_dtype=stored, dtype=stored)
  assert {p.dtype for p in jax.tree.leaves(leaves(half))} == {jnp.dtype(stored)}


def test_no_temporary_file_is_left_and_a_failed_save_changes_nothing(
  model, folder, monkeypatch
):
  before = (folder / "model.safetensors").read_bytes()
  assert sorted(p.name for p in folder.iterdir()) == [
    "config.json",
    "model.safetensors",
  ]

  def fail(tensors, path, metadata):
    path.write_bytes(b"half")
    raise OSError("disk full")

  monkeypatch.setattr(safetensors.numpy, "save_file", fail)
  with pytest.raises(OSError, match="disk full"):
    clip.save_pretrained(model, folder)
  assert (folder / "model.safetensors").read_bytes() == before
  assert len(list(folder.iterdir())) == 2


def test_shards_load_like_one_file(model, folder):
  path = folder / "model.safetensors"
  tensors = safetensors.numpy.load_file(path)
  path.unlink()
  index = {}
  for i, part in enumerate((list(tensors)[::2], list(tensors)[1::2])):
    shard = f"model-{i}.safetensors"
    safetensors.numpy.save_file({k: tensors[k] for k in part}, folder / shard)
    index |= dict.fromkeys(part, shard)
  file = folder / "model.safetensors.index.json"
  file.write_text(json.dumps({"weight_map": index}))
  assert_same(model, clip.from_pretrained(folder))
  (folder / "model-1.safetensors").unlink()
  with pytest.raises(FileNotFoundError, match=r"model-1\.safetensors"):
    clip.from_pretrained(folder)
  file.write_text("[]")
  with pytest.raises(
    clip.CheckpointError, match=r"index\.json is not an index"
  ):
    clip.from_pretrained(folder)


def test_another_image_size_interpolates_positions(model, folder):
  loaded = clip.from_pretrained(folder, image_size=32)
  assert loaded.config.vision.image_size == 32
  np.testing.assert_array_equal(
    loaded.vision.position_embedding[...],
    clip.resize_positions(model.vision.position_embedding[...], 4),
  )
  assert_same(model, clip.from_pretrained(folder, image_size=16))
  pixels = jnp.zeros((1, 32, 32, 3))
  assert nnx.eval_shape(clip.CLIP.encode_image, loaded, pixels).shape == (1, 6)
  with pytest.raises(ValueError, match=r"image_size = 30 and patch_size = 8"):
    clip.from_pretrained(folder, image_size=30)


def test_position_id_buffers_are_ignored(model, folder):
  def change(tensors):
    for tower in ("vision", "text"):
      name = f"{tower}_model.embeddings.position_ids"
      tensors[name] = np.arange(5)[None]

  rewrite(folder, change)
  assert_same(model, clip.from_pretrained(folder))


def test_all_faults_are_listed_at_once(folder):
  def change(tensors):
    del tensors["logit_scale"], tensors["text_projection.weight"]
    tensors["adapter.weight"] = np.zeros((3, 4), np.float32)
    tensors[POSITIONS] = np.zeros((10, 12), np.float32)

  rewrite(folder, change)
  with pytest.raises(clip.CheckpointError) as caught:
    clip.from_pretrained(folder)
  assert isinstance(caught.value, ValueError)
  message = str(caught.value)
  assert f"{folder}/model.safetensors does not fit" in message
  assert message.count("\n") == 4
  assert "missing: logit_scale []" in message
  assert "missing: text_projection.weight [6, 12]" in message
  assert "extra: adapter.weight [3, 4]" in message
  assert f"misshapen: {POSITIONS} is [10, 12], needs [5, 12]" in message


@pytest.mark.parametrize("keep", [0, 5, 300, -7])
def test_a_truncated_file_is_named(folder, keep):
  path = folder / "model.safetensors"
  path.write_bytes(path.read_bytes()[:keep])
  with pytest.raises(clip.CheckpointError, match=re.escape(str(path))):
    clip.from_pretrained(folder)


def test_pickles_are_refused_unread(folder):
  (folder / "model.safetensors").rename(folder / "pytorch_model.bin")
  with pytest.raises(clip.CheckpointError, match=r"\.bin is a pickle, which"):
    clip.from_pretrained(folder)
  with pytest.raises(clip.CheckpointError, match=r"x\.pth is a pickle, which"):
    clip.vit_from_safetensors(folder / "x.pth")


def test_what_is_absent_is_named(folder):
  with pytest.raises(FileNotFoundError, match=r"no folder openai/clip"):
    clip.from_pretrained("openai/clip")
  (folder / "model.safetensors").unlink()
  with pytest.raises(FileNotFoundError, match=r"no model\.safetensors in /"):
    clip.from_pretrained(folder)
  (folder / "config.json").unlink()
  with pytest.raises(FileNotFoundError, match=r"no file /.*/config\.json"):
    clip.from_pretrained(folder)


@pytest.mark.parametrize(
  ("text", "message"),
  [
    ("{", "Expecting"),
    ("[]", "expected an object, got list"),
    ('{"vision_config": {"hidden_size": 10}}', "width = 10 and heads = 12"),
    ('{"projection_dim": "a"}', "projection_dim must be"),
  ],
)
def test_a_broken_config_is_named(folder, text, message):
  (folder / "config.json").write_text(text)
  with pytest.raises(ValueError, match=rf"config\.json: .*{message}"):
    clip.from_pretrained(folder)
