"""Exported classifiers: read back by the library, the logits are the same."""

import numpy as np
import pytest
import safetensors.numpy
from flax import nnx

from experiments.data.decode import View
from experiments.harness import finished_checkpoints
from experiments.models import export, own_head, predictor
from experiments.models.classifier import (
  Classifier,
  ClipImageEncoder,
  Ensemble,
  Prompts,
)
from gmixout_jax import clip
from tests.experiments import tiny


@nnx.jit
def jitted(model, inputs):
  return model(inputs)


def images():
  return tiny.split().images[:5]


def head(width, rng):
  return rng.standard_normal((width, 3)).astype(np.float32), np.arange(3.0)


def clip_model():
  tower = dict(width=16, depth=1, heads=2, mlp_width=32)
  config = clip.CLIPConfig(
    vision=clip.VisionConfig(image_size=16, patch_size=8, **tower),
    text=clip.TextConfig(vocab_size=10, eos_token_id=9, **tower),
    projection_dim=12,
  )
  return tiny.filled(lambda: clip.CLIP(config, rngs=nnx.Rngs(0)))


def test_a_vit_has_timms_names_and_the_same_logits(tmp_path, rng):
  kernel, bias = head(64, rng)
  model = Classifier(tiny.vit(width=64, heads=1), kernel, bias)
  path = tmp_path / "new" / "vit.safetensors"
  export.to_timm(model, path)
  tensors = safetensors.numpy.load_file(path)
  # timm: VisionTransformer's head is a torch.nn.Linear.
  np.testing.assert_array_equal(tensors["head.weight"], kernel.T)
  np.testing.assert_array_equal(tensors["head.bias"], bias)
  assert tensors["blocks.0.attn.qkv.weight"].shape == (192, 64)
  loaded = clip.vit_from_safetensors(path)
  pixels = clip.preprocess(images(), mean=clip.HALF, std=clip.HALF)
  np.testing.assert_array_equal(jitted(loaded, pixels), jitted(model, images()))


def test_a_clip_has_hugging_face_names_and_the_same_logits(tmp_path, rng):
  whole = clip_model()
  kernel, bias = head(12, rng)
  model = Classifier(
    ClipImageEncoder(clip_model()),
    kernel,
    bias,
    mean=clip.IMAGENET_MEAN,
    std=clip.IMAGENET_STD,
  )
  block = model.backbone.vision.blocks[0].mlp.fc1.kernel
  block[...] = block[...] + 1  # trained
  export.to_hugging_face(model, tmp_path, whole)
  tensors = safetensors.numpy.load_file(tmp_path / "model.safetensors")
  name = "vision_model.encoder.layers.0.mlp.fc1.weight"
  np.testing.assert_array_equal(tensors[name], np.asarray(block[...]).T)
  assert "text_model.encoder.layers.0.mlp.fc1.weight" in tensors
  loaded = predictor.load(tmp_path).model
  np.testing.assert_array_equal(
    jitted(loaded, images()), jitted(model, images())
  )
  assert loaded.mean == clip.IMAGENET_MEAN
  # What is asked for goes before what the folder says.
  asked = finished_checkpoints.load(tmp_path, mean=clip.HALF)
  assert (asked.mean, asked.std) == (clip.HALF, clip.IMAGENET_STD)
  # The text tower is the one that was given, and the given CLIP is unchanged.
  ids = np.array([[1, 2, 9]])
  again = clip.from_pretrained(tmp_path)
  encode = nnx.jit(lambda model, ids: model.encode_text(ids))
  np.testing.assert_array_equal(encode(again, ids), encode(whole, ids))
  assert not np.array_equal(
    whole.vision.blocks[0].mlp.fc1.kernel[...], block[...]
  )


def test_a_head_that_does_not_fit_is_refused(tmp_path, rng):
  kernel, bias = head(12, rng)
  model = Classifier(ClipImageEncoder(clip_model()), kernel, bias)
  export.to_hugging_face(model, tmp_path, clip_model())
  bad = {"weight": np.zeros((3, 5), np.float32), "bias": np.zeros(3)}
  safetensors.numpy.save_file(bad, tmp_path / own_head.FILE)
  with pytest.raises(clip.CheckpointError, match=r"weight \[classes, 12\].*5"):
    predictor.load(tmp_path)


@pytest.mark.parametrize("form", ["vit", "clip"])
def test_an_export_holds_its_preprocessing_and_classes(tmp_path, rng, form):
  model = Classifier(tiny.vit(width=64, heads=1), *head(64, rng))
  whole = None
  if form == "clip":
    whole = clip_model()
    model = Classifier(ClipImageEncoder(whole), *head(12, rng))
    model.prompts = Prompts(whole, np.zeros((3, 1, 4), np.int32))
  names = ("Größe", "a b", "猫")
  view = View(24, "crop", 1.25, "bilinear")
  export.save(model, tmp_path / "x", class_names=names, view=view)
  path = next(p for p in export.places(tmp_path / "x") if p.exists())
  found = predictor.load(path)
  assert found.class_names == names
  # The size is that of the positions that are saved.
  assert found.view == View(16, "crop", 1.25, "bilinear")
  assert predictor.load(path, image_size=24).view.size == 24
  np.testing.assert_array_equal(
    jitted(found.model, images()), jitted(model, images())
  )
  if form == "vit":  # a CLIP would make a head of these words
    with pytest.raises(ValueError, match=r"--classes must be left out .*Größe"):
      predictor.load(path, classes=("x", "y", "z"))


def test_finished_checkpoints_have_the_classes_of_the_images(tmp_path, rng):
  model = Classifier(tiny.vit(width=64, heads=1), *head(64, rng))
  path = tmp_path / "x.safetensors"
  export.to_timm(model, path, class_names=("cat", "dog", "owl"))
  load = finished_checkpoints.load
  load(path, class_names=("cat", "dog", "owl"))
  for other in (("dog", "cat", "owl"), ("a", "b", "c")):
    with pytest.raises(ValueError, match=r"must have the classes of the image"):
      load(path, class_names=other)
  export.to_timm(model, path)  # which does not say them
  load(path, class_names=("a", "b", "c"))


def test_a_model_without_head_or_names_is_refused_with_a_remedy(
  tmp_path, rng, clip_folder
):
  bare = tmp_path / "bare.safetensors"
  tiny.save_vit(bare)
  with pytest.raises(ValueError, match=r"no head.*experiments\.train linear"):
    predictor.load(bare)
  with pytest.raises(ValueError, match=r"a CLIP without a head.*--classes"):
    predictor.load(clip_folder)
  asked = predictor.load(clip_folder, classes=("one", "two"))
  assert asked.class_names == ("one", "two")
  assert asked.model.head.kernel.shape == (12, 2)
  model = Classifier(tiny.vit(width=64, heads=1), *head(64, rng))
  export.to_timm(model, bare)
  assert predictor.load(bare).class_names is None
  assert predictor.load(bare, classes=("a", "b", "c")).class_names is not None
  with pytest.raises(ValueError, match=r"3 outputs, but 2 class names"):
    predictor.load(bare, classes=("a", "b"))


def test_what_cannot_be_exported_is_named(tmp_path):
  model = tiny.classifier()
  with pytest.raises(ValueError, match="on a ViT, got Classifier on Mlp"):
    export.to_timm(model, tmp_path / "x.safetensors")
  with pytest.raises(ValueError, match="got Ensemble on NoneType"):
    export.to_timm(Ensemble([model]), tmp_path / "x.safetensors")
  tower = Classifier(ClipImageEncoder(clip_model()), np.zeros((12, 3)))
  with pytest.raises(ValueError, match="whole must be the CLIP"):
    export.to_hugging_face(tower, tmp_path)
  assert not list(tmp_path.iterdir())
