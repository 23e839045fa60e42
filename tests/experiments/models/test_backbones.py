"""What experiments start from: a CLIP's words, a ViT's own head, or a blank."""

import numpy as np
import pytest

from experiments.data import rendered_digits
from experiments.models import backbones, export, probe
from experiments.models.classifier import Classifier
from experiments.tasks import digits
from gmixout_jax import clip
from tests.experiments import tiny


def no_words():
  raise AssertionError("a ViT was asked for words")


@pytest.fixture
def vit_file(tmp_path):
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
  for own_head, classes, blank in (
    (True, 3, False), (True, 4, True), (False, 3, True)
  ):  # fmt: skip
    model = backbones.load(
      vit_file, classes=classes, words=no_words, own_head=own_head
    )
    assert probe.is_blank(model) == blank
    assert model.head.kernel.shape == (64, classes)
    if not blank:
      np.testing.assert_array_equal(model(images), expected)


def test_pixels_are_normalised_as_asked(vit_file):
  images = tiny.split().images[:4]
  look = {"mean": clip.IMAGENET_MEAN, "std": clip.IMAGENET_STD}
  model = backbones.from_timm(vit_file, **look)
  pixels = clip.preprocess(images, **look)
  expected = clip.vit_from_safetensors(vit_file)(pixels)
  np.testing.assert_array_equal(model(images), expected)


def test_a_clip_starts_from_its_words():
  names, templates = rendered_digits.NAMES, digits.TEMPLATES
  model = backbones.load(
    digits.FOLDER, classes=10, words=lambda: names, templates=templates
  )
  whole = clip.from_pretrained(digits.FOLDER)
  head = clip.zero_shot_head(
    whole, clip.load_tokenizer(digits.FOLDER), names, templates, scaled=True
  )
  np.testing.assert_array_equal(model.head.kernel[...], head)
  assert model.mean == clip.CLIP_MEAN
  assert model.prompts is not None
  assert model.prompts.token_ids.shape[:2] == (10, len(templates))


def test_what_is_wrong_is_named(tmp_path, vit_file):
  with pytest.raises(FileNotFoundError, match=r"no weights at .*nothing"):
    backbones.load(tmp_path / "nothing", classes=2, words=no_words)
  with pytest.raises(ValueError, match=r"1 words .* for 2 classes"):
    backbones.load(digits.FOLDER, classes=2, words=lambda: ["one"])
  headless = tmp_path / "headless.safetensors"
  clip.vit_to_safetensors(tiny.vit(width=64, heads=1), headless)
  with pytest.raises(ValueError, match=r"headless\.safetensors has no head"):
    backbones.from_timm(headless)
