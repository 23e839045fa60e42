"""Tests what `gmixout_jax/mixed_params.py` refuses."""

import functools

import jax
import jax.numpy as jnp
import optax
import pytest

from tests.gmixout_jax.mixed_runs import (
  PARAMS,
  RULES,
  create,
  transform,
)


@pytest.fixture
def fitting():
  """Mixed parameters under rules, and what `trainable` looks like."""
  mixed = create(PARAMS, target=RULES)
  zeros = lambda leaf: jnp.zeros(leaf.shape, leaf.dtype)
  return mixed, jax.tree.map(zeros, jax.eval_shape(mixed.trainable))


def refusal(mixed, name, tree):
  accept = mixed.inject if name == "trainable" else mixed.apply_updates
  with pytest.raises(ValueError, match=f"^{name} must h") as info:
    jax.eval_shape(lambda: accept(tree))
  return str(info.value)


@pytest.mark.parametrize("name", ["trainable", "updates"])
def test_what_does_not_fit_is_refused(fitting, name):
  mixed, tree = fitting
  head, blocks = tree["head"], tree["blocks"]
  message = functools.partial(refusal, mixed, name)
  assert "['blocks', 'head']" in message({"head": head})
  assert "['bias', 'kernel']" in message(tree | {"head": {"kernel": 0.0}})
  assert "1 != 2" in message(tree | {"blocks": blocks[:1]})
  kernel = PARAMS["blocks"][1]["kernel"]
  whole = tree | {"blocks": [blocks[0], blocks[1] | {"kernel": kernel}]}
  assert "(20, 5) for the leaf 'blocks/1/kernel'" in message(whole)
  assert "(20, 16)" in message(whole)
  short = tree | {"head": head | {"bias": jnp.ones(4)}}
  assert "(3,) for the leaf 'head/bias'" in message(short)
  assert "(4,)" in message(short)


@pytest.mark.parametrize("name", ["trainable", "updates"])
@pytest.mark.parametrize("absent", [None, optax.MaskedNode(), "kernel"])
def test_a_leaf_without_a_shape_is_refused(fitting, name, absent):
  mixed, tree = fitting
  tree["head"]["kernel"] = absent
  assert "'head/kernel'" in refusal(mixed, name, tree)


@pytest.mark.parametrize("name", ["trainable", "updates"])
def test_a_frozen_leaf_takes_no_array(fitting, name):
  """It would move, or be shadowed in the loss by another value."""
  mixed, tree = fitting
  tree["blocks"][0]["bias"] = jnp.ones(20)
  assert "'blocks/0/bias'" in refusal(mixed, name, tree)


@pytest.mark.parametrize(
  ("rules", "message"),
  [
    (((r"kernel", "mix"), (r"", "frozen")), "gives the label 'mix'"),
    (((r"kernel", "mixed"), (r"head", "dense")), "'blocks/0/bias' matches"),
    (((r"cls", "mixed"), (r"", "frozen")), "rule 'cls' matches none"),
  ],
)
def test_bad_rules_are_refused(rules, message):
  with pytest.raises(ValueError, match=message):
    create(PARAMS, target=rules)


@pytest.mark.parametrize(
  ("rules", "quoted"),
  [
    ((("(", "mixed"), ("", "frozen")), r"'\('"),  # no regular expression
    (("kernel", "mixed"), "kernel"),  # a rule where rules are meant
    (("fc", "mixed"), "fc"),  # which Python would unpack to "f", "c"
    ((("", "dense"),), "dense"),  # nothing is mixed
    ((), r"\(\)"),
  ],
)
def test_malformed_rules_are_refused(rules, quoted):
  with pytest.raises(ValueError, match=rf"(target|rule).*{quoted}"):
    create(PARAMS, target=rules)


def test_a_part_of_what_is_mixed_may_not_accumulate():
  params = {name: jnp.ones((8, 20)) for name in ("left", "right")}
  params["bias"] = jnp.ones(20)
  mixed = create(params, target="left|right")
  accumulating = lambda: optax.MultiSteps(
    optax.sgd(0.1), 4
  ).gradient_transformation()

  def step(**parts):
    tx = optax.partition(
      {"a": parts.get("a", optax.sgd(0.1)), "b": accumulating()},
      {"left": "a", "right": parts["right"], "bias": "b"},
    )
    opt_state = tx.init(mixed.trainable())
    grads = jax.tree.map(jnp.ones_like, mixed.trainable())
    return mixed.apply_gradients(tx, grads, opt_state)[0]

  assert int(step(right="a").count) == 1  # the bias alone waits
  assert int(step(a=accumulating(), right="a").count) == 0
  with pytest.raises(ValueError, match="and 'left' is outside of one: put it"):
    step(right="b")


def test_gmixout_takes_no_rules():
  with pytest.raises(ValueError, match=r"optax\.partition") as info:
    transform(optax.sgd(0.1), target=RULES)
  assert repr(RULES) in str(info.value)
