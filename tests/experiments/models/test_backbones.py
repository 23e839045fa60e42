"""What experiments start from: words, a head of its own, or a blank one."""

import pathlib
import shutil

import numpy as np
import pytest
from flax import nnx

from experiments.data import rendered_digits
from experiments.models import backbones, export, own_head, probe
from experiments.models.classifier import Classifier
from experiments.tasks import digits
from gmixout_jax import clip
from tests.experiments import tiny

NAMES = ("cat", "dog", "owl")


def no_words():
  raise AssertionError("a ViT was asked for words")


def load(path, names=NAMES, **settings):
  return backbones.load(path, names, words=no_words, **settings)


def prepared(mean=clip.HALF, std=clip.HALF):
  return clip.Preprocessing(mean, std, 16)


@pytest.fixture
def vit_file(tmp_path):
  """A ViT with a head of three outputs that nobody names."""
  kernel = np.random.default_rng(0).standard_normal((64, 3))
  model = Classifier(
    tiny.vit(width=64, heads=1), kernel.astype(np.float32), np.arange(3.0)
  )
  export.to_timm(model, tmp_path / "vit.safetensors")
  return tmp_path / "vit.safetensors"


def test_a_vit_has_a_blank_head_or_its_own(vit_file):
  images = tiny.split().images[:4]
  pixels = clip.preprocess(images, mean=clip.HALF, std=clip.HALF)
  expected = clip.vit_from_safetensors(vit_file)(pixels)
  four = (*NAMES, "wren")
  for use_head, names, blank in (
    ("any", NAMES, False), ("any", four, True), ("named", NAMES, True),
    ("never", NAMES, True),
  ):  # fmt: skip
    model = load(vit_file, names, use_head=use_head)
    assert probe.is_blank(model) == blank
    assert model.head.kernel.shape == (64, len(names))
    if not blank:
      np.testing.assert_array_equal(model(images), expected)


@pytest.mark.parametrize("form", ["vit", "clip"])
def test_a_head_of_the_same_classes_is_kept_in_their_order(
  tmp_path, clip_folder, rng, form
):
  words = ("two", "one", "four")  # that the tokenizer knows
  if form == "vit":
    model = Classifier.with_zero_head(
      tiny.vit(width=64, heads=1), width=64, classes=3
    )
  else:
    model = backbones.from_clip(clip_folder, words, ["a digit {}"])
  head = model.head
  head.kernel[...] = rng.standard_normal(head.kernel.shape)
  head.bias[...] = np.arange(3.0)
  export.save(model, tmp_path / "model", class_names=words)
  (path,) = (p for p in export.places(tmp_path / "model") if p.exists())
  assert own_head.class_names(path) == words
  load = lambda names, **settings: backbones.load(
    path, names, words=lambda: names, **settings
  )
  images = tiny.split().images[:4]
  wanted = np.asarray(model(images))
  close = dict(rtol=1e-6, atol=1e-6)
  np.testing.assert_allclose(load(words)(images), wanted, **close)
  turned = load(("four", "two", "one"))
  np.testing.assert_allclose(turned(images), wanted[:, [2, 0, 1]], **close)
  for names, settings in (
    (("four", "one", "three"), {}), (("one", "two"), {}),
    (words, {"use_head": "never"}),
  ):  # fmt: skip
    other = load(names, **settings)
    assert other.head.kernel.shape[1] == len(names)
    if form == "vit":
      assert probe.is_blank(other)
    else:
      assert not np.any(other.head.bias[...])  # made of words
      assert other.prompts is not None


def test_pixels_are_normalised_as_asked(vit_file):
  images = tiny.split().images[:4]
  look = {"mean": clip.IMAGENET_MEAN, "std": clip.IMAGENET_STD}
  model = load(vit_file, use_head="any", **look)
  pixels = clip.preprocess(images, **look)
  expected = clip.vit_from_safetensors(vit_file)(pixels)
  np.testing.assert_array_equal(model(images), expected)


def test_a_clip_starts_from_its_zero_shot_head():
  names, templates = rendered_digits.NAMES, digits.TEMPLATES
  model = backbones.load(
    digits.FOLDER, range(10), words=lambda: names, templates=templates
  )
  whole = clip.from_pretrained(digits.FOLDER)
  head = clip.zero_shot_head(
    whole, clip.load_tokenizer(digits.FOLDER), names, templates, scaled=True
  )
  np.testing.assert_array_equal(model.head.kernel[...], head)
  assert model.mean == clip.CLIP_MEAN
  assert model.prompts is not None
  assert model.prompts.token_ids.shape[:2] == (10, len(templates))


def test_what_is_wrong_is_named(tmp_path):
  with pytest.raises(FileNotFoundError, match=r"no weights at .*nothing"):
    load(tmp_path / "nothing")
  with pytest.raises(ValueError, match=r"1 words .* for 2 classes"):
    backbones.load(digits.FOLDER, NAMES[:2], words=lambda: ["one"])


@pytest.mark.parametrize("form", ["timm", "huggingface"])
def test_a_folder_of_a_vit_says_how_pixels_are_normalised(tmp_path, form):
  config = clip.VisionConfig.vit(
    image_size=16, patch_size=8, width=12, depth=1, heads=2, mlp_width=20,
    eps=1e-12, num_classes=3,
  )  # fmt: skip
  vit = tiny.filled(lambda: clip.ViT(config, rngs=nnx.Rngs(0)))
  mean, std = (0.1, 0.2, 0.3), (0.4, 0.5, 0.6)
  said, unsaid = tmp_path / "said", tmp_path / "unsaid"
  clip.save(
    vit, said, form=form, preprocessing=prepared(mean, std), class_names=NAMES
  )
  assert not backbones.is_clip(said)
  assert backbones.image_size(said) == 16
  model = load(said, ("ant", "bee", "cow"))
  assert (model.mean, model.std) == (mean, std)
  assert probe.is_blank(model)
  own = load(said)
  images = tiny.split().images[:4]
  pixels = clip.preprocess(images, mean=mean, std=std)
  np.testing.assert_allclose(own(images), vit(pixels), atol=1e-5)
  # Nobody guesses it.
  clip.save(vit, unsaid, form=form)
  with pytest.raises(ValueError, match=r"^mean and std must be given: "):
    load(unsaid)
  asked = load(unsaid, mean=mean, std=std)
  assert (asked.mean, asked.std) == (mean, std)


def test_a_file_says_how_pixels_are_normalised_or_it_is_asked_for(tmp_path):
  path, vit = tmp_path / "vit.safetensors", tiny.vit(width=64, heads=1)
  mean, std = (0.1, 0.2, 0.3), (0.4, 0.5, 0.6)
  clip.save(vit, path)
  for given in ({}, {"mean": mean}, {"std": std}):
    with pytest.raises(ValueError, match=r"^mean and std must .*0\.5.* --mean"):
      load(path, **given)
  asked = load(path, mean=mean, std=std)
  export.to_timm(asked, path)
  again = load(path)
  assert (again.mean, again.std) == (mean, std)
  assert clip.load_preprocessing(path) == prepared(mean, std)


def test_every_file_that_a_number_depends_on_is_in_the_digest(
  tmp_path, clip_folder
):
  model = backbones.from_clip(clip_folder, NAMES, ["a digit {}"])
  export.save(model, tmp_path / "one", class_names=NAMES)
  one = tmp_path / "one"
  other = pathlib.Path(shutil.copytree(one, tmp_path / "other"))
  assert backbones.digest(other) == backbones.digest(one)
  head = own_head.Head(model.head.kernel[...], model.head.bias[...] + 1)
  own_head.save(other, head, NAMES)
  assert backbones.digest(other) != backbones.digest(one)


def test_a_clip_is_no_vit_and_a_vit_no_clip(vit_file):
  assert backbones.is_clip(digits.FOLDER)
  with pytest.raises(ValueError, match="a CLIP, and no vision transformer"):
    backbones.from_vit(digits.FOLDER, 3)
  with pytest.raises(ValueError, match="a vision transformer without a text"):
    backbones.from_clip(vit_file, ["a"], ["{}"])
  with pytest.raises(ValueError, match=r"--templates needs a CLIP.* vision"):
    backbones.check_templates(vit_file, ["{}"])
  with pytest.raises(ValueError, match=r"must each hold \{\}.*'a photo'"):
    backbones.check_templates(digits.FOLDER, ["{}", "a photo"])
