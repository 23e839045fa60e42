"""Tests `gmixout_jax/clip/attention.py`."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from gmixout_jax import clip
from gmixout_jax.clip import attention
from pallas_kernels import dispatch
from tests.combinations import every_value

CONFIG = clip.VisionConfig.vit(
  image_size=16, patch_size=4, width=32, depth=1, heads=2, mlp_width=40
)
CUDNN = dataclasses.replace(CONFIG, dtype="bfloat16", attention="cudnn")


@pytest.mark.parametrize(
  ("changes", "message"),
  [
    ({"attention": "flash"}, r"one of \('xla', 'cudnn'\), got 'flash'"),
    ({"dtype": "float32"}, "bfloat16 or float16 alone, got dtype = 'float32'"),
    ({"heads": 8}, "multiple of 8 features per head, got 4"),
  ],
)
def test_what_no_device_computes(changes, message):
  with pytest.raises(ValueError, match=message):
    dataclasses.replace(CUDNN, **changes)


def test_cudnn_is_refused_where_it_cannot_run():
  message = r"attention='cudnn' cannot run here: it needs an NVIDIA.*'cpu'"
  text = clip.TextConfig(heads=4, width=32, dtype="float16", attention="cudnn")
  for make in (
    lambda: clip.ViT(CUDNN, rngs=nnx.Rngs(0)),
    lambda: clip.TextTransformer(text, rngs=nnx.Rngs(0)),
  ):
    with pytest.raises(ValueError, match=message):
      nnx.eval_shape(make)


def test_loaders_pass_it_on(tmp_path):
  model = nnx.eval_shape(lambda: clip.ViT(CONFIG, rngs=nnx.Rngs(0)))
  zeros = lambda leaf: jnp.zeros(leaf.shape, leaf.dtype)
  graphdef, state = nnx.split(model)
  path = tmp_path / "vit.safetensors"
  clip.vit_to_safetensors(nnx.merge(graphdef, jax.tree.map(zeros, state)), path)
  with pytest.raises(ValueError, match="attention='cudnn' computes in"):
    clip.vit_from_safetensors(path, heads=2, attention="cudnn")
  with pytest.raises(ValueError, match="attention='cudnn' cannot run here"):
    clip.vit_from_safetensors(
      path, heads=2, attention="cudnn", dtype="bfloat16"
    )
  (tmp_path / "config.json").write_text("{}")
  with pytest.raises(ValueError, match="attention='cudnn' computes in"):
    clip.from_pretrained(tmp_path, attention="cudnn")


@pytest.mark.parametrize(
  ("causal", "length"), every_value([False, True], [4, 5])
)
def test_padding_with_a_token_changes_nothing(rng, causal, length):
  """Nor its gradients; against the same attention without it."""
  heads = [
    jnp.asarray(rng.normal(size=(2, length, 3, 8)), jnp.float32)
    for _ in range(3)
  ]
  weights = jnp.asarray(rng.normal(size=heads[0].shape), jnp.float32)

  def gradients(attend):
    of = lambda *heads: jnp.sum(
      weights * attend(*heads, causal=causal, implementation="xla")
    )
    return jax.jit(jax.value_and_grad(of, argnums=(0, 1, 2)))(*heads)

  jax.tree.map(
    lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6),
    gradients(attention.padded),
    gradients(attention.attend),
  )


@pytest.fixture
def as_if_on_cuda(monkeypatch):
  """Traces what a GPU would; only what asks the machine is told otherwise."""
  fused = pytest.importorskip("jax._src.cudnn.fused_attention_stablehlo")
  monkeypatch.setattr(fused, "check_cudnn_version", lambda: 91200)
  monkeypatch.setattr(dispatch, "too_old", lambda *_: None)


@pytest.mark.parametrize("remat", [False, True])
@pytest.mark.usefixtures("as_if_on_cuda")
def test_cudnn_lowers_for_cuda(remat):
  """A step with 17 tokens in the image tower, and 7 in a causal text tower."""
  tower = dict(
    width=32, depth=1, heads=2, mlp_width=40, dtype="bfloat16",
    attention="cudnn", remat=remat,
  )  # fmt: skip
  config = clip.CLIPConfig(
    vision=clip.VisionConfig(image_size=16, patch_size=4, **tower),
    text=clip.TextConfig(vocab_size=9, eos_token_id=8, **tower),
  )
  model = nnx.eval_shape(lambda: clip.CLIP(config, rngs=nnx.Rngs(0)))
  graphdef, params = nnx.split(model, nnx.Param)
  shapes = (
    jax.ShapeDtypeStruct((4, 16, 16, 3), jnp.float32),
    jax.ShapeDtypeStruct((4, 7), jnp.int32),
  )
  of = lambda p, *inputs: jnp.sum(nnx.merge(graphdef, p)(*inputs))
  traced = jax.jit(jax.grad(of)).trace(params, *shapes)
  program = traced.lower(lowering_platforms=("cuda",)).as_text()
  # Of both towers; recomputed, twice.
  forward = program.count("custom_call @__cudnn$fmhaSoftmax(")
  assert forward == (4 if remat else 2)
  assert program.count("custom_call @__cudnn$fmhaSoftmaxBackward(") == 2
  # No matrix of scores: [batch, heads, tokens, tokens].
  assert "4x2x17x17" not in program
  assert "4x2x18x18" not in program
