"""Tests `gmixout_jax/labels.py`: rules, targets and what they say."""

import jax
import jax.numpy as jnp
import optax
import pytest

import gmixout_jax as gx
from gmixout_jax import labels

PARAMS = {
  "blocks": [{"fc1": {"kernel": jnp.ones((4, 8)), "bias": jnp.ones(8)}}],
  "head": {"kernel": jnp.ones((4, 2)), "bias": jnp.ones(2)},
  "norm": {"scale": jnp.ones(4)},
}


def selected(target, params=PARAMS):
  chosen = labels.select_leaves(target, params)
  named = labels.named_leaves(params)
  return {path for (path, _), yes in zip(named, chosen, strict=True) if yes}


def test_target_defaults_to_all_matrices():
  assert selected(None) == {"blocks/0/fc1/kernel", "head/kernel"}


def test_regex_and_predicate_narrow_the_default():
  assert selected("head") == {"head/kernel"}
  assert selected(lambda path, leaf: leaf.shape[1] == 8) == {
    "blocks/0/fc1/kernel"
  }


def test_integers_are_never_mixed():
  params = {"table": jnp.ones((4, 4), jnp.int32), "w": jnp.ones((4, 4))}
  assert labels.select_leaves(None, params) == [False, True]


# Each as it is called somewhere: NNX, big_vision, timm, Hugging Face, Equinox,
# Haiku. The shapes are those of stacked layers, so that rank tells nothing.
PASSED_OVER = """
  pos_embedding cls probe Transformer/posembed_input/pos_embedding
  embedding/kernel patch_embedding/kernel token_embedding/embedding
  pos_embed cls_token reg_token mask_token register_tokens
  blocks/norm1/weight blocks/ls1/gamma blocks/layer_scale blocks/attn/q_norm/w
  patch_embed/proj/kernel blocks/attn/relative_position_bias_table
  encoder/layer/layernorm_before/scale embeddings/position_embeddings
  embeddings/patch_embeddings/projection/kernel layer_scale1/lambda1
  norm/weight embedding/weight layers/0/norms/0/weight
  block/layer_norm/scale block/layer_norm/offset embed/embeddings
  encoderblock/MultiHeadDotProductAttention_0/query/bias
  encoderblock/LayerNorm_0/scale BatchNorm_0/mean bn1/weight ln_1/weight
  visual/class_embedding visual/positional_embedding ln_pre/scale
  LayerScale_0/scale RMSNorm_0/weight PatchEmbed_0/kernel posemb beta
"""
TAKEN = """
  kernel weight w b a/b head/kernel token_mixing/Dense_0/kernel
  token_mixing/kernel blocks/0/attn/query/kernel PreNorm_0/Dense_0/kernel
  embedder/blocks/0/mlp/fc1/kernel blocks/0/scale_net/out/kernel
  transform/kernel encoder/layers/0/self_attn/q_proj/weight in_proj_weight
  lm_head/kernel visual/proj text_projection/kernel conv1/kernel
  normalizer_free/conv/kernel embed_mlp/fc1/kernel tokenizer/fc/kernel
  token_mixing_kernel
"""


@pytest.mark.parametrize("path", PASSED_OVER.split())
def test_no_target_passes_over_what_a_name_says_is_no_matrix(path):
  params = {path: jnp.ones((3, 8)), "fc/kernel": jnp.ones((3, 8, 8))}
  assert selected(None, params) == {"fc/kernel"}
  # But a target is taken at its word.
  assert selected(f"^{path}$", params) == {path}
  assert selected(lambda own, leaf: own == path, params) == {path}
  rules = ((f"^{path}$", "mixed"), ("", "frozen"))
  assert gx.gmixout_labels(params, rules)[path] == "mixed"


@pytest.mark.parametrize("path", TAKEN.split())
def test_no_target_takes_all_other_matrices(path):
  params = {path: jnp.ones((3, 8)), "pos_embedding": jnp.ones((3, 8))}
  assert selected(None, params) == {path}


def test_a_b_is_a_bias_beside_a_w_of_one_axis_more():
  """So it is in Haiku; two matrices a and b, or w and b, are just that."""
  stacked = {"block/linear": {"w": jnp.ones((3, 4, 8)), "b": jnp.ones((3, 8))}}
  assert selected(None, stacked) == {"block/linear/w"}
  assert selected(None, {"w": jnp.ones((3, 4, 8)), "b": jnp.ones((3, 8))}) == {
    "w"
  }
  both = {"w": jnp.ones((4, 8)), "b": jnp.ones((3, 8))}
  assert selected(None, both) == {"w", "b"}
  assert selected(None, {"a": both["w"], "b": both["b"]}) == {"a", "b"}


@pytest.mark.parametrize("target", ["nothing", lambda path, leaf: False])
def test_a_target_that_selects_nothing_is_refused(target):
  with pytest.raises(ValueError, match="selects none of the 5 leaves"):
    gx.gmixout(key=0, target=target, sparsity=0.5).init(PARAMS)


def test_an_error_lists_the_matrices_first_and_at_most_twenty():
  params = {f"a{i}": {"bias": jnp.ones(2)} for i in range(30)}
  params["z"] = {"kernel": jnp.ones((2, 2))}
  match = r"leaves are 'z/kernel', 'a0/bias', .* and 11 more"
  with pytest.raises(ValueError, match=match):
    labels.select_leaves("nothing", params)
  with pytest.raises(ValueError, match=match):
    gx.gmixout_labels(params, (("nothing", "mixed"), ("", "frozen")))
  with pytest.raises(ValueError, match=match):
    labels.label_leaves((("", "dense"),), params)


def test_the_error_of_no_target_says_what_its_name_keeps_out():
  params = {"pos_embed": jnp.ones((2, 2)), "fc": {"bias": jnp.ones(2)}}
  match = r"passes over the matrices 'pos_embed'; a regular expression"
  with pytest.raises(ValueError, match=match):
    gx.gmixout(key=0).init(params)
  with pytest.raises(ValueError) as caught:  # noqa: PT011
    gx.gmixout(key=0).init({"fc": {"bias": jnp.ones(2)}})
  assert "passes over" not in str(caught.value)


def test_labels_follow_the_first_rule_that_matches():
  labels = gx.gmixout_labels(PARAMS)
  assert labels == {
    "blocks": [{"fc1": {"kernel": "mixed", "bias": "frozen"}}],
    "head": {"kernel": "dense", "bias": "dense"},
    "norm": {"scale": "frozen"},
  }


def test_a_rule_that_matches_nothing_is_refused():
  rules = (("classifier", "dense"), ("", "frozen"))
  with pytest.raises(ValueError, match="'classifier' matches none of the 5"):
    gx.gmixout_labels(PARAMS, rules)
  with pytest.raises(ValueError, match="'classifier' matches none of the 5"):
    gx.gmixout_labels(PARAMS, (rules[0], *gx.VIT_RULES))
  with pytest.raises(ValueError, match=r"VIT_RULES\[0\] .* none of the 1 leav"):
    gx.gmixout_labels({"head": {"kernel": jnp.ones((4, 2))}})


def test_a_leaf_without_a_rule_is_refused():
  with pytest.raises(ValueError, match="'blocks/0/fc1/bias' matches none"):
    gx.gmixout_labels(PARAMS, (("kernel", "mixed"),))


def test_an_unknown_label_is_refused():
  with pytest.raises(ValueError, match="label 'train'"):
    gx.gmixout_labels(PARAMS, (("", "train"),))


def test_a_tower_without_a_head_trains_under_the_same_partition(rng):
  params = {
    "patch_embedding": {"kernel": jnp.ones((4, 4, 3, 8))},
    "blocks": [{"fc1": {"kernel": jnp.ones((8, 20)), "bias": jnp.ones(20)}}],
    "norm": {"scale": jnp.ones(8)},
  }
  tx = optax.partition(
    {
      "mixed": gx.gmixout(optax.sgd(0.1), key=0, resample_every=1),
      "dense": optax.adamw(1e-3),  # of no leaf
      "frozen": optax.set_to_zero(),
    },
    gx.gmixout_labels,
  )
  state = tx.init(params)
  grads = jax.tree.map(lambda x: jnp.asarray(rng.normal(size=x.shape)), params)
  updates, state = tx.update(grads, state, params)
  moved = jax.tree.map(lambda x: bool((x != 0).any()), updates)
  assert moved.pop("blocks") == [{"fc1": {"kernel": True, "bias": False}}]
  assert not any(jax.tree.leaves(moved))
  mixed = gx.MixedParams.create(params, key=0, target=gx.VIT_RULES)
  assert [x.shape for x in jax.tree.leaves(mixed.trainable())] == [(8, 2)]
