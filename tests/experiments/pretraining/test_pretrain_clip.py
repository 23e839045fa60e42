"""Tests `experiments/pretrain_clip.py`, and what its folder is good for."""

import dataclasses
import json
import os

import jax
import numpy as np
import pytest
from flax import nnx
from PIL import Image

from experiments.data import caption_sources, domainbed
from experiments.methods.flyp import FLYP
from experiments.models import backbones, evaluation
from experiments.pretraining import (
  embeddings,
  pretrain_clip,
  small_clip,
  tokenization,
  zero_shot,
)
from experiments.reporting import records
from experiments.training.run_checkpoints import Stopped
from gmixout_jax import clip
from tests.combinations import EXHAUSTIVE
from tests.experiments import tiny

SIZE = tiny.SIZE
TEXT = small_clip.TextTower(
  vocabulary=280, context=12, width=8, depth=1, heads=2
)
# Positions, four square matrices and an MLP with biases, three norms.
PARAMETERS_BUT_TOKENS = 8 * 12 + (12 * 8**2 + 9 * 8) + 3 * 2 * 8


@pytest.fixture(scope="module")
def data(tmp_path_factory):
  """Images of a brightness that their captions tell; a ViT; domains."""
  root = tmp_path_factory.mktemp("data")
  (root / "images").mkdir()
  rng = np.random.default_rng(0)
  lines = ["image,caption"]
  for index in range(24):
    name = ("cat", "dog", "owl")[index % 3]
    pixels = 80 * (index % 3) + rng.integers(0, 60, (SIZE, SIZE, 3))
    Image.fromarray(pixels.astype(np.uint8)).save(
      root / "images" / f"{index}.png"
    )
    lines += [f"{index}.jpg,A {name} .", f"{index}.jpg,A photo of the {name}"]
  (root / "captions.txt").write_text("\n".join(lines) + "\n")
  tiny.save_vit(root / "vit.safetensors")
  tiny.domainbed(root / "pacs")
  return root


def config(root, place, **changes):
  settings = dict(
    data=caption_sources.Folder(root),
    vit=root / "vit.safetensors",
    image_size=SIZE,
    text=TEXT,
    dim=6,
    held_out=4,
    steps=4,
    batch_size=5,
    pacs=root / "pacs",
    out=place / "clip",
    results=place / "results.jsonl",
  )
  return pretrain_clip.Config(**(settings | changes))


@pytest.fixture(scope="module")
def made(data, tmp_path_factory):
  out = tmp_path_factory.mktemp("made")
  settings = config(data, out)
  pretrain_clip.main(settings)
  return settings


def leaves(module):
  return jax.tree.map(
    np.asarray, nnx.to_pure_dict(nnx.state(module, nnx.Param))
  )


def same(one, other):
  jax.tree.map(np.testing.assert_array_equal, leaves(one), leaves(other))


def test_the_folder_holds_all_and_the_line_tells_all(made):
  assert sorted(os.listdir(made.out)) == [
    "config.json",
    "model.safetensors",
    "preprocessor_config.json",
    "pretraining.json",
    "tokenizer.json",
  ]
  assert sorted(os.listdir(made.out.parent)) == ["clip", "results.jsonl"]
  (line,) = records.read(made.results)
  assert line == json.loads((made.out / "pretraining.json").read_text())
  assert line["config"]["data"]["kind"] == "folder"
  assert line["config"]["vit"] == "vit.safetensors"
  assert line["seed"] == 0
  size = len(
    json.loads((made.out / "tokenizer.json").read_text())["model"]["vocab"]
  )
  assert size <= TEXT.vocabulary
  assert line["text_parameters"] == 8 * size + PARAMETERS_BUT_TOKENS
  assert (line["images"], line["captions"]) == (20, 40)
  assert len(line["losses"]) == 4
  assert sorted(line["metrics"]["zero_shot"]) == list(tiny.DOMAINS)


def test_a_locked_tower_is_the_one_that_was_given(made, data):
  model = clip.from_pretrained(made.out)
  given = clip.vit_from_safetensors(data / "vit.safetensors", num_classes=0)
  assert model.vision.config == given.config
  same(model.vision, given)


def test_locked_features_are_the_models(made):
  model = clip.from_pretrained(made.out)
  images = made.data.open(pretrain_clip.View(SIZE)).images
  found = embeddings.tower_features(
    model.vision, images, mean=clip.HALF, std=clip.HALF, flips=True
  )
  assert found.shape == (24, 2, 64)
  pixels = np.stack([images[i]["image"] for i in range(24)]) / 127.5 - 1
  features = nnx.jit(lambda tower, pixels: tower.features(pixels))
  for view, seen in enumerate((pixels, pixels[:, :, ::-1])):
    expected = features(model.vision, seen.astype(np.float32))
    np.testing.assert_allclose(found[:, view], expected, atol=1e-5)


def test_what_is_published_is_what_the_folder_does(made):
  (line,) = records.read(made.results)
  _, held = made.data.open(pretrain_clip.View(SIZE)).split(4, seed=0)
  assert line["metrics"]["retrieval"] == embeddings.retrieval(made.out, held)
  images = domainbed.open_images(made.pacs, view=pretrain_clip.View(SIZE))
  model = backbones.from_clip(made.out, tiny.CLASSES, zero_shot.TEMPLATES)
  for name, domain in images.by_domain().items():
    found = line["metrics"]["zero_shot"][name]
    accuracy = evaluation.accuracy(model, domain, batch_size=15)
    assert found["top1"] == pytest.approx(accuracy)
    by_class = np.mean(list(found["per_class"].values()))
    assert found["mean_per_class"] == pytest.approx(by_class, abs=1e-4)


def test_the_exported_clip_gets_a_zero_shot_head(made):
  model = backbones.from_clip(made.out, ("owl", "guinea_pig"), ("a {}", "{}!"))
  assert (model.mean, model.std) == (clip.HALF, clip.HALF)
  whole, tokenizer = (
    clip.from_pretrained(made.out),
    clip.load_tokenizer(made.out),
  )
  texts = tokenizer(["a guinea pig", "guinea pig!"])
  assert model.prompts is not None
  np.testing.assert_array_equal(model.prompts.token_ids[1], texts)
  encode = nnx.jit(lambda whole, texts: whole.encode_text(texts))
  mean = np.asarray(encode(whole, texts)).mean(axis=0)
  scale = np.exp(whole.logit_scale[...])
  np.testing.assert_allclose(
    model.head.kernel[:, 1], scale * mean / np.linalg.norm(mean), rtol=1e-4
  )
  larger = backbones.from_clip(
    made.out, ("owl",), ("a {}",), image_size=2 * SIZE
  )
  pixels = np.zeros((1, 2 * SIZE, 2 * SIZE, 3), np.uint8)
  assert nnx.jit(lambda model: model(pixels))(larger).shape == (1, 1)


def test_flyp_starts_from_it(made):
  model = backbones.from_clip(made.out, tiny.CLASSES, zero_shot.TEMPLATES)
  prepared = FLYP().prepare(model, tiny.source(), jax.random.key(0))
  batch = {
    "image": np.zeros((2, SIZE, SIZE, 3), np.uint8),
    "label": np.array([0, 2]),
  }
  loss = nnx.jit(FLYP().loss)
  assert np.isfinite(loss(prepared, batch, jax.random.key(1)))


def test_the_tokenizer_knows_the_training_captions_alone(made):
  whole = made.data.open(pretrain_clip.View(SIZE))
  train, _ = whole.split(4, seed=0)
  expected = tokenization.train(train.texts(), size=TEXT.vocabulary)
  saved = (made.out / "tokenizer.json").read_text()
  assert json.loads(saved) == json.loads(expected.to_str())
  texts = ["a cat", "zebra ζ .", "a " * 40]
  np.testing.assert_array_equal(
    clip.load_tokenizer(made.out)(texts),
    tokenization.encode(expected, texts, length=TEXT.context),
  )


@EXHAUSTIVE  # by the same checkpoints, in `training/test_resume.py`
def test_a_stopped_run_goes_on_and_ends_the_same(made, data, tmp_path):
  settings = config(data, tmp_path, checkpoint=tmp_path / "kept", pacs=None)
  with pytest.raises(Stopped, match="after 2 of 4 steps"):
    pretrain_clip.run(settings, stop=lambda step: step == 2)
  assert sorted(os.listdir(tmp_path)) == ["kept"]
  record = pretrain_clip.run(settings)
  same(clip.from_pretrained(settings.out), clip.from_pretrained(made.out))
  (line,) = records.read(made.results)
  assert record["losses"] == line["losses"]


def test_a_checkpoint_folder_of_something_else_is_refused(data, tmp_path):
  mine = tmp_path / "mine"
  (mine / "cat").mkdir(parents=True)
  with pytest.raises(ValueError, match=r"mine .* holds 'cat'"):
    pretrain_clip.run(config(data, tmp_path, checkpoint=mine))
  assert os.listdir(mine) == ["cat"]


def test_nothing_is_left_of_a_folder_that_failed(tmp_path):
  def fail():
    with pretrain_clip.appearing(tmp_path / "clip") as folder:
      (folder / "half").write_text("")
      assert not (tmp_path / "clip").exists()
      raise KeyError

  with pytest.raises(KeyError):
    fail()
  assert os.listdir(tmp_path) == []


@EXHAUSTIVE
def test_a_free_tower_from_scratch_trains(data, tmp_path):
  record = pretrain_clip.run(
    config(
      data,
      tmp_path,
      vit=None,
      locked=False,
      pacs=None,
      steps=2,
      vision=small_clip.ImageTower(patch_size=8, width=8, depth=1, heads=2),
    )
  )
  model = clip.from_pretrained(tmp_path / "clip")
  assert model.vision.config.width == 8
  assert model.vision.config.pre_norm
  fresh = clip.CLIP(model.config, rngs=nnx.Rngs(0))
  before, after = fresh.vision.class_embedding, model.vision.class_embedding
  assert not np.array_equal(before[...], after[...])
  assert record["config"]["vit"] is None


def test_a_bad_setting_is_quoted(data, tmp_path):
  large = dataclasses.replace(TEXT, width=512, depth=4)
  (tmp_path / "taken").mkdir()
  (tmp_path / "taken" / "file").write_text("")
  for changes, message in (
    (
      {"text": large},
      r"has 12,\d+,\d+ parameters: expected at most 10,000,000",
    ),
    ({"vit": None}, "--no-locked"),
    ({"out": tmp_path / "taken"}, "taken exists"),
    ({"steps": 0}, "steps must be at least 1, got 0"),
    ({"save_every": -3}, "save_every must be at least 1, got -3"),
    ({"warmup": 1.0}, r"warmup must be in \[0, 1\), got 1.0"),
    ({"warmup": 0.9}, "warmup must be .* got 0.9 of 4 steps"),
    ({"batch_size": 21}, "batch_size must be 1 to 20"),
    ({"image_size": 20}, "divisible by patch_size"),
    ({"text": dataclasses.replace(TEXT, vocabulary=9)}, "at least 259"),
    ({"data": caption_sources.Folder(tmp_path)}, r"captions\.txt"),
  ):
    with pytest.raises((ValueError, FileNotFoundError), match=message):
      pretrain_clip.run(config(data, tmp_path, **changes))
    assert not (tmp_path / "clip").exists()
  with pytest.raises(SystemExit, match=r"error: .*--no-locked"):
    pretrain_clip.main(config(data, tmp_path, vit=None))


def test_the_command_line_knows_all_kinds_of_data(tmp_path):
  parsed = pretrain_clip.parse(
    ["folder", "--root", str(tmp_path), "--image-size", "96", "--no-locked"]
  )
  assert parsed.data == caption_sources.Folder(tmp_path)
  assert (parsed.image_size, parsed.locked) == (96, False)
  parsed = pretrain_clip.parse(["tfds", "--text.width", "128"])
  assert parsed.data == caption_sources.Tfds()
  assert parsed.text.width == 128
  assert pretrain_clip.parse(["digits"]).data == caption_sources.Digits()


def test_the_line_says_how_it_was_made_but_not_where():
  found = pretrain_clip.called(["folder", "--root", "/home/me/flickr8k"])
  assert found == (
    "python -m experiments.pretraining.pretrain_clip folder --root flickr8k"
  )
