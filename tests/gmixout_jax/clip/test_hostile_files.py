"""Small files that would cost much, or hold what is no weight."""

import json
import time

import ml_dtypes
import numpy as np
import pytest
import safetensors.numpy
import tokenizers
from flax import nnx

from gmixout_jax import clip

TOWER = dict(width=64, depth=1, heads=1, mlp_width=8)
VIT = clip.VisionConfig.vit(
  image_size=16, patch_size=8, eps=1e-12, num_classes=2, **TOWER
)
CLIP = clip.CLIPConfig(
  vision=clip.VisionConfig(image_size=16, patch_size=8, **TOWER),
  text=clip.TextConfig(vocab_size=10, eos_token_id=9, **TOWER),
)


def write(folder, form):
  """A model in a form of its own; the file of its tensors."""
  if form == "clip":
    clip.save(clip.CLIP(CLIP, rngs=nnx.Rngs(0)), folder)
  else:
    clip.save(clip.ViT(VIT, rngs=nnx.Rngs(0)), folder, form=form)
  return folder / "model.safetensors"


def change_config(folder, section, **fields):
  path = folder / "config.json"
  raw = json.loads(path.read_text())
  (raw[section] if section else raw).update(fields)
  path.write_text(json.dumps(raw))


FORMS = ("clip", "timm")


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize(
  ("spoil", "message"),
  [
    (lambda x: x.astype(np.int32), "must hold floats, got int32"),
    (lambda x: x.astype(np.complex64), "must hold floats, got complex64"),
    (lambda x: x > 0, "must hold floats, got bool"),
    (lambda x: x * np.nan, r"holds 64 numbers that are not finite, of 64"),
    (
      lambda x: np.where(np.arange(64) == 3, np.inf, x).astype("float16"),
      "holds 1 numbers that are not finite, of 64",
    ),
    (
      lambda x: np.where(np.arange(64) == 3, -np.inf, x).astype(
        ml_dtypes.bfloat16
      ),
      "holds 1 numbers that are not finite",
    ),
  ],
)
def test_what_is_no_weight_is_named(tmp_path, form, spoil, message):
  file = write(tmp_path, form)
  tensors = safetensors.numpy.load_file(file)
  name = next(k for k, v in sorted(tensors.items()) if v.shape == (64,))
  safetensors.numpy.save_file(
    tensors | {name: np.ascontiguousarray(spoil(tensors[name]))}, file
  )
  with pytest.raises(clip.CheckpointError, match=f"{file}: {name} {message}"):
    clip.load(tmp_path)


@pytest.mark.parametrize(
  ("form", "section", "fields"),
  [
    ("clip", "vision_config", {"num_hidden_layers": 10**9}),
    ("clip", "text_config", {"num_hidden_layers": 2 * 10**9}),
    ("huggingface", "", {"num_hidden_layers": 10**9}),
    ("clip", "text_config", {"max_position_embeddings": 2**31}),
    ("clip", "vision_config", {"image_size": 2**40}),
    ("clip", "text_config", {"vocab_size": 10**30}),
    ("huggingface", "", {"hidden_size": 2**40, "num_attention_heads": 1}),
    ("huggingface", "", {"image_size": 10**9}),
  ],
)
def test_numbers_that_the_file_does_not_warrant_are_refused_at_once(
  tmp_path, form, section, fields
):
  write(tmp_path, form)
  change_config(tmp_path, section, **fields)
  began = time.perf_counter()
  with pytest.raises(ValueError, match=r"blocks|must be at most|misshapen"):
    clip.load(tmp_path)
  assert time.perf_counter() - began < 20


@pytest.mark.parametrize("name", ["blocks.99999999.x", "blocks.3.norm1.bias"])
def test_blocks_are_counted_and_not_believed(tmp_path, rng, name):
  file = write(tmp_path, "timm")
  tensors = safetensors.numpy.load_file(file)
  tensors[name] = rng.standard_normal(64).astype(np.float32)
  safetensors.numpy.save_file(tensors, file)
  with pytest.raises(clip.CheckpointError, match=r"blocks\.\d+, and no blocks"):
    clip.load(tmp_path)


def test_a_context_that_no_memory_holds_is_refused(tmp_path):
  words = {"<s>": 0, "a": 1, "</s>": 2}
  made = tokenizers.Tokenizer(tokenizers.models.WordLevel(words, "a"))
  made.post_processor = tokenizers.processors.TemplateProcessing(
    single="<s> $A </s>", special_tokens=[("<s>", 0), ("</s>", 2)]
  )
  made.save(str(tmp_path / "tokenizer.json"))
  for config in (None, {"text_config": {"max_position_embeddings": 2**31}}):
    length = 2**31 if config is None else None
    if config is not None:
      (tmp_path / "config.json").write_text(json.dumps(config))
    with pytest.raises(ValueError, match=r"at most 65536, got 2147483648"):
      clip.load_tokenizer(tmp_path, context_length=length)


@pytest.mark.parametrize(
  "text",
  [
    "", "[]", "{", '{"version": "1.0"}', "[" * 100_000, '{"model": 3}',
    '{"version":"1.0","added_tokens":[{"id":0}],"model":{"type":"BPE"}}',
  ],
)  # fmt: skip
def test_a_damaged_tokenizer_is_named(tmp_path, text):
  path = tmp_path / "tokenizer.json"
  path.write_text(text)
  with pytest.raises(ValueError, match=f"{path} is not a tokenizer: "):
    clip.load_tokenizer(tmp_path)


def test_a_panic_of_the_rust_side_is_an_error(tmp_path, monkeypatch):
  class PanicException(BaseException):
    pass

  def panic(path):
    raise PanicException("index out of bounds")

  (tmp_path / "tokenizer.json").write_text("{}")
  monkeypatch.setattr(tokenizers.Tokenizer, "from_file", panic, raising=False)
  with pytest.raises(ValueError, match="not a tokenizer: index out of bounds"):
    clip.load_tokenizer(tmp_path)
