"""What experiments start from: a CLIP's words, a ViT's own head, or a blank."""

import numpy as np
import pytest
from flax import nnx

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
  model = backbones.from_vit(vit_file, **look)
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
    backbones.from_vit(headless)


@pytest.mark.parametrize("form", ["timm", "huggingface"])
def test_a_folder_of_a_vit_says_how_pixels_are_normalised(tmp_path, form):
  config = clip.VisionConfig.vit(
    image_size=16, patch_size=8, width=12, depth=1, heads=2, mlp_width=20,
    eps=1e-12, num_classes=3,
  )  # fmt: skip
  vit = clip.ViT(config, rngs=nnx.Rngs(0))
  mean, std = (0.1, 0.2, 0.3), (0.4, 0.5, 0.6)
  clip.save(vit, tmp_path / "said", form=form, mean=mean, std=std)
  assert not backbones.is_clip(tmp_path / "said")
  assert backbones.image_size(tmp_path / "said") == 16
  model = backbones.load(tmp_path / "said", classes=3, words=no_words)
  assert (model.mean, model.std) == (mean, std)
  assert probe.is_blank(model)
  own = backbones.load(
    tmp_path / "said", classes=3, words=no_words, own_head=True
  )
  images = tiny.split().images[:4]
  pixels = clip.preprocess(images, mean=mean, std=std)
  np.testing.assert_allclose(own(images), vit(pixels), atol=1e-5)
  # Nobody guesses it.
  clip.save(vit, tmp_path / "unsaid", form=form)
  with pytest.raises(ValueError, match=r"^mean and std must be given: "):
    backbones.load(tmp_path / "unsaid", classes=3, words=no_words)
  asked = backbones.load(
    tmp_path / "unsaid", classes=3, words=no_words, mean=mean, std=std
  )
  assert (asked.mean, asked.std) == (mean, std)


def test_a_clip_is_no_vit_and_a_vit_no_clip(vit_file):
  assert backbones.is_clip(digits.FOLDER)
  with pytest.raises(ValueError, match="a CLIP, and no vision transformer"):
    backbones.from_vit(digits.FOLDER)
  with pytest.raises(ValueError, match="a vision transformer, which has no"):
    backbones.from_clip(vit_file, ["a"], ["{}"])
