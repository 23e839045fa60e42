"""Tests `gmixout_jax/labels.py`."""

import dataclasses

import jax
import jax.numpy as jnp
import pytest
from flax import nnx

import gmixout_jax as gx
from gmixout_jax import labels

PARAMS = {
  "blocks": [{"fc1": {"kernel": jnp.ones((4, 8)), "bias": jnp.ones(8)}}],
  "head": {"kernel": jnp.ones((4, 2)), "bias": jnp.ones(2)},
  "norm": {"scale": jnp.ones(4)},
}


def selected(target):
  chosen = labels.select_leaves(target, PARAMS)
  named = labels.named_leaves(PARAMS)
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


@pytest.mark.parametrize("target", ["nothing", lambda path, leaf: False])
def test_a_target_that_selects_nothing_is_refused(target):
  with pytest.raises(ValueError, match="selects none of the 5 leaves"):
    gx.gmixout(key=0, target=target, sparsity=0.5).init(PARAMS)


def test_paths_are_the_same_with_and_without_nnx_variables():
  @jax.tree_util.register_dataclass
  @dataclasses.dataclass
  class Attention:
    query: jax.Array
    value: jax.Array  # must not be taken for a variable's value

  state = nnx.state(nnx.Linear(2, 3, rngs=nnx.Rngs(0)), nnx.Param)
  names = [path for path, _ in labels.named_leaves(state)]
  assert names == ["bias", "kernel"]
  assert names == [path for path, _ in labels.named_leaves(nnx.as_pure(state))]
  tree = {"attention": Attention(jnp.ones(1), jnp.ones(1))}
  assert [path for path, _ in labels.named_leaves(tree)] == [
    "attention/query",
    "attention/value",
  ]


def test_labels_follow_the_first_rule_that_matches():
  labels = gx.gmixout_labels(PARAMS)
  assert labels == {
    "blocks": [{"fc1": {"kernel": "mixed", "bias": "frozen"}}],
    "head": {"kernel": "dense", "bias": "dense"},
    "norm": {"scale": "frozen"},
  }


@pytest.mark.parametrize(
  ("path", "label"),
  [
    ("vision/blocks/3/attention/query/kernel", "mixed"),
    ("Transformer/encoderblock_0/MlpBlock_0/Dense_0/kernel", "mixed"),
    ("encoder/layers/11/self_attn/q_proj/kernel", "mixed"),
    ("patch_embedding/kernel", "frozen"),
    ("blocks/3/norm1/scale", "frozen"),
    ("backbone/head/kernel", "dense"),
    ("subhead/kernel", "frozen"),
  ],
)
def test_vit_rules_know_the_common_names(path, label):
  params = {path: jnp.ones((4, 4)), "head": {"bias": jnp.ones(1)}}
  params["blocks"] = [{"kernel": jnp.ones((2, 2))}]
  assert gx.gmixout_labels(params)[path] == label


def test_a_rule_that_matches_nothing_is_refused():
  rules = (("classifier", "dense"), ("", "frozen"))
  with pytest.raises(ValueError, match="'classifier' matches none of the 5"):
    gx.gmixout_labels(PARAMS, rules)


def test_a_leaf_without_a_rule_is_refused():
  with pytest.raises(ValueError, match="'blocks/0/fc1/bias' matches none"):
    gx.gmixout_labels(PARAMS, (("kernel", "mixed"),))


def test_an_unknown_label_is_refused():
  with pytest.raises(ValueError, match="label 'train'"):
    gx.gmixout_labels(PARAMS, (("", "train"),))
