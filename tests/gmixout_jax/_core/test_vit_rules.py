"""Tests `gmixout_jax/_core/vit_rules.py` on names that people's models have."""

import re
import warnings

import jax.numpy as jnp
import pytest

import gmixout_jax as gx
from gmixout_jax._core import leaf_names

MIXED = """
  vision/blocks/3/attention/query/kernel blocks/attn/query/kernel
  Transformer/encoderblock_0/MlpBlock_0/Dense_0/kernel
  Transformer/encoderblock/MlpBlock_0/Dense_0/kernel
  Transformer/encoderblock/MultiHeadDotProductAttention_0/query/kernel
  encoder/layers/11/self_attn/q_proj/kernel layers/self_attn/q_proj/kernel
  encoder/layer/0/attention/attention/query/kernel
  encoder/layer/0/output/dense/kernel layers_0/kernel layers/kernel
  resblocks/mlp/c_fc/kernel transformer/resblocks/3/attn/out_proj/kernel
  EncoderBlock_0/Dense_1/kernel ScanEncoderBlock_0/Dense_1/kernel
  TransformerBlock_3/MLP_0/Dense_0/kernel Block_2/Dense_0/kernel
  ResidualAttentionBlock_0/attn/query/kernel Encoder1DBlock_3/Dense_0/kernel
  TransformerEncoderLayer_0/linear1/kernel FlaxViTLayer_7/Dense_0/kernel
  EncoderBlock_0/PreNorm_0/Dense_0/kernel
  MixerBlock_0/token_mixing/Dense_0/kernel stages/0/blocks/0/attn/qkv/kernel
  attention_blocks/0/attention/query_proj/weight blocks/qkv/weight
  blocks/0/mlp/layers/1/weight transformer/blocks/layers/0/mlp/kernel
  vit/~/block/linear/w vit/~/transformer_block_1/multi_head_attention/query/w
  __layer_stack_no_per_layer/block/linear/w vit/~/encoder_layer_2/linear/w
  multi_head_tower/blocks/0/fc1/kernel classifier/vision/blocks/0/fc1/kernel
"""

# Without saying so: nobody takes them for a head.
FROZEN = """
  patch_embedding/kernel blocks/norm1/scale blocks/norm1/weight
  layers/ln_1/weight layers/layer_norm1/weight layers/q_norm/weight
  EncoderBlock_0/LayerNorm_0/weight block/batch_norm/w blocks/norms/0/weight
  blocks/attn/query/bias blocks/pos_embed/kernel blocks/pos_embed/proj/kernel
  layers/rel_embedding/weight patch_embed/layers/0/kernel
  embeddings/patch_embeddings/projection/kernel pooler/dense/kernel
  conv_layers/0/conv/kernel text_projection/kernel blocks/ls1/gamma
  pos_embedding cls_token subhead/kernel encoder/fc/kernel
  MlpBlock_0/Dense_0/kernel mlp/layers/1/weight dense_layer/kernel
"""

HEADS = """
  head_dist/kernel aux_head/kernel heads/1/kernel heads/1/layers/0/kernel
  MAPHead_0/MultiHeadDotProductAttention_0/out/kernel MAPHead_0/probe_proj/w
  MAPHead_0/MlpBlock_0/Dense_0/kernel mlp_head/layers/1/kernel
  head/layers/1/weight classifier/layers/0/kernel head_dist/layers/0/kernel
  distillation_classifier/kernel lm_head/weight vit/~/logits/w
  pre_logits/kernel output_layer/kernel OutputBlock_0/Dense_0/kernel
  head_block_0/kernel
"""


def label(path, **others):
  """The label of a leaf in a model that has blocks and, by name, a head."""
  params = {path: jnp.ones((3, 4, 4))} | others
  params["blocks"] = [{"kernel": jnp.ones((2, 2))}]
  params["head"] = {"bias": jnp.ones(1)}
  return gx.gmixout_labels(params)[path]


@pytest.mark.parametrize("path", MIXED.split())
def test_matrices_of_the_blocks_are_mixed(path):
  assert label(path) == "mixed"
  assert label(f"params/{path}") == "mixed"


@pytest.mark.parametrize("path", FROZEN.split())
def test_norms_biases_embeddings_and_what_is_no_block_are_frozen(path):
  assert label(path) == "frozen"
  assert label(f"params/{path}") == "frozen"


@pytest.mark.parametrize("path", HEADS.split())
def test_another_head_is_frozen_and_said(path):
  with pytest.warns(UserWarning, match=re.escape(repr(path))):
    assert label(path) == "frozen"
  with pytest.warns(UserWarning, match=re.escape(repr(f"model/{path}"))):
    assert label(f"model/{path}") == "frozen"


@pytest.mark.parametrize(
  "path",
  [
    *("head/kernel", "head/bias", "backbone/head/kernel", "head/weight"),
    *("classifier/kernel", "vit/~/head/w", "vit/~/head/b"),
  ],
)
def test_the_head_trains_densely(path):
  assert label(path) == "dense"


@pytest.mark.parametrize("path", MIXED.split())
def test_no_target_mixes_all_that_the_rules_do(path):
  assert leaf_names.passed_over([(path, jnp.ones((3, 4, 4)))]) == [False]


def blocks_and(**others):
  return {"blocks": {"fc1": {"kernel": jnp.ones((3, 4, 4))}}} | others


MATRIX = {"kernel": jnp.ones((4, 4))}


def test_heads_are_said_once_with_a_rule_that_is_right():
  params = blocks_and(head=MATRIX, head_dist=MATRIX, heads=[MATRIX] * 2)
  with warnings.catch_warnings(record=True) as caught:
    warnings.simplefilter("always")
    gx.gmixout_labels(params)
  (warning,) = caught
  assert warning.category is UserWarning
  message = str(warning.message)
  for path in ("head_dist/kernel", "heads/0/kernel", "heads/1/kernel"):
    assert repr(path) in message
  assert "'head/kernel'" not in message
  shown = re.search(r"rules=(\(.*VIT_RULES\))", message)[1]
  rules = eval(shown, {"gx": gx})
  with pytest.warns(UserWarning, match="head: 'heads/0/kernel', 'heads/1/ker"):
    found = gx.gmixout_labels(params, rules)
  assert found["head_dist"] == {"kernel": "dense"}
  assert found["heads"][0] == {"kernel": "frozen"}


@pytest.mark.parametrize("label", ["dense", "frozen"])
def test_what_a_rule_of_one_s_own_decides_is_not_said(label):
  params = blocks_and(head=MATRIX, head_dist=MATRIX)
  found = gx.gmixout_labels(params, ((r"^head_dist/", label), *gx.VIT_RULES))
  assert found["head_dist"] == {"kernel": label}
  assert found["head"] == {"kernel": "dense"}
  found = gx.gmixout_labels(params, (("blocks", "mixed"), ("", "frozen")))
  assert found["head_dist"] == {"kernel": "frozen"}


def test_a_tower_without_a_head_is_right():
  tower = blocks_and(
    patch_embedding={"kernel": jnp.ones((2, 2, 3, 4))},
    pos_embedding=jnp.ones((5, 4)),
    norm={"scale": jnp.ones(4)},
    visual_projection=MATRIX,
    pooler={"dense": MATRIX},
  )
  found = gx.gmixout_labels(tower)
  assert found.pop("blocks") == {"fc1": {"kernel": "mixed"}}
  assert {*map(str, found["pooler"]["dense"].values())} == {"frozen"}


@pytest.mark.parametrize("name", ["Dense_0", "fc", "mlp/layers/1", "linear"])
def test_without_a_head_by_name_what_may_be_it_is_said(name):
  """Else the classifier of many a small model would silently stay as it is."""
  with pytest.warns(UserWarning, match=f"'{name}/kernel'"):
    gx.gmixout_labels(blocks_and(**{name: MATRIX}))
  gx.gmixout_labels(blocks_and(**{name: MATRIX, "head": MATRIX}))


def test_stacked_norms_and_biases_are_not_mixed():
  stacked = jnp.ones((3, 4))
  params = {
    "encoderblock": {
      "LayerNorm_0": {"scale": stacked, "bias": stacked},
      "Dense_0": {"kernel": jnp.ones((3, 4, 4)), "bias": stacked},
    },
    "layers": {"norm": {"weight": stacked}, "fc": {"weight": stacked}},
  }
  assert gx.gmixout_labels(params) == {
    "encoderblock": {
      "LayerNorm_0": {"scale": "frozen", "bias": "frozen"},
      "Dense_0": {"kernel": "mixed", "bias": "frozen"},
    },
    "layers": {"norm": {"weight": "frozen"}, "fc": {"weight": "mixed"}},
  }
