"""Tests what a newcomer does first, and what a model of others may hold."""

import equinox as eqx
import flax.serialization
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import gmixout_jax as gx
from gmixout_jax._core import axes

PARAMS = {
  "a": {"kernel": jnp.ones((20, 40)), "bias": jnp.zeros(40)},
  "h": {"kernel": jnp.ones((40, 3))},
}


@pytest.mark.parametrize(
  ("path", "shape", "letters"),
  [
    ("qkv/kernel", (64, 3, 4, 16), None),
    ("moe/experts/kernel", (2, 8, 16, 32), None),
    ("h/attn/q_proj/kernel", (12, 64, 4, 16), None),
    ("critic/value/kernel", (5, 32, 64), None),
    ("stage/attn/query/kernel", (3, 3, 32, 64), "ssio"),
    ("attention_pool/out/kernel", (3, 3, 32, 64), "ssio"),
    ("Conv_0/kernel", (1, 7, 16, 32), "ssio"),
    ("attn/query/kernel", (192, 3, 64), "ioo"),
    ("query/kernel", (192, 3, 64), "ioo"),
    ("attn/out/kernel", (3, 64, 192), "iio"),
    ("blocks/attn/query/kernel", (12, 192, 3, 64), "lioo"),
    ("blocks/attn/query/kernel", (12, 192, 192), None),
    ("blocks/attn/out/kernel", (12, 3, 64, 192), "liio"),
    ("layers/fc/weight", (40, 20), None),
    ("linear/w", (20, 40), "io"),
  ],
)
def test_no_layout_is_guessed(path, shape, letters):
  leaf = jax.ShapeDtypeStruct(shape, jnp.float32)
  assert axes.letters("flax", path, leaf) == letters


def test_pytorchs_layout_must_be_said():
  model = eqx.nn.Linear(20, 40, key=jax.random.key(0))
  params = eqx.filter(model, eqx.is_array)
  with pytest.raises(ValueError, match=r"'weight'.*axes='torch'"):
    gx.gmixout(sampler="neuron", key=0).init(params)
  with pytest.raises(ValueError, match=r"with an o and with the i.*got 'ii'"):
    gx.gmixout(sampler="neuron", axes=lambda p, leaf: "ii", key=0).init(params)


def test_biases_in_the_plural_are_passed_over():
  names = ("k", "biases", "bias", "scales")
  labels = gx.gmixout_summary({n: jnp.ones((12, 20)) for n in names}).leaves
  mixed = [leaf.path for leaf in labels if leaf.label == "mixed"]
  assert mixed == ["k"]


def test_the_query_and_key_of_pytorchs_attention_are_mixed():
  block = {"self_attention": {"in_proj_weight": jnp.ones((60, 20))}}
  head = {"weight": jnp.ones((5, 20))}
  labels = gx.gmixout_labels(
    {"encoder": {"layers": {"0": block}}, "head": head}
  )
  assert labels["encoder"]["layers"]["0"]["self_attention"] == {
    "in_proj_weight": "mixed"
  }


def test_a_key_may_be_a_scalar_array():
  """As `optax.inject_hyperparams` makes one of an int."""
  expected = gx.gmixout(optax.sgd(0.1), key=3).init(PARAMS).key
  for key in (np.int64(3), np.array(3), jnp.array(3)):
    state = gx.gmixout(optax.sgd(0.1), key=key).init(PARAMS)
    np.testing.assert_array_equal(state.key, expected)
  factory = optax.inject_hyperparams(
    gx.gmixout, static_args=("sparsity", "resample_every")
  )
  tx = factory(optax.sgd(0.1), key=3)
  _, state = tx.update(PARAMS, tx.init(PARAMS), PARAMS)
  np.testing.assert_array_equal(state.inner_state.key, expected)


@pytest.mark.parametrize(
  ("other", "message"),
  [
    ({"target": "^a/"}, "leaf 'h/kernel' is mixed there alone"),
    ({"moments": "reset"}, "'a/kernel' was saved with moments='carry'"),
  ],
)
def test_what_flax_saved_of_another_tree(other, message):
  make = lambda **more: gx.gmixout(optax.adamw(0.1), key=0, **more).init(PARAMS)
  content = flax.serialization.to_bytes(make())
  with pytest.raises(ValueError, match=message):
    flax.serialization.from_bytes(make(**other), content)


def test_integers_are_frozen_and_python_numbers_refused():
  params = {"w": jnp.ones((20, 20)), "steps": jnp.array(3)}
  mixed = gx.MixedParams.create(params, key=0)
  loss = lambda p: (p["w"] ** 2).sum() + 0 * p["steps"]
  _, grads = mixed.value_and_grad(loss)()
  tx = optax.adam(0.1)
  mixed, _ = mixed.apply_gradients(tx, grads, tx.init(mixed.trainable()))
  assert mixed.params["steps"].dtype == jnp.int32
  assert int(mixed.eval_params()["steps"]) == 3
  with pytest.raises(ValueError, match=r"arrays, got 1.0 at the leaf 't'"):
    gx.MixedParams.create({"w": jnp.ones((20, 20)), "t": 1.0}, key=0)


def test_what_does_not_fit_a_step_is_named():
  tx = gx.gmixout(optax.adam(0.1), key=0)
  state = tx.init(PARAMS)
  with pytest.raises(ValueError, match="its init made, got tuple"):
    tx.update(PARAMS, optax.adam(0.1).init(PARAMS), PARAMS)
  wrong = PARAMS | {"h": {"kernel": jnp.ones((40, 4))}}
  with pytest.raises(
    ValueError, match=r"'h/kernel' has \(40, 3\), got \(40, 4"
  ):
    tx.update(wrong, state, PARAMS)
  mixed = gx.MixedParams.create(PARAMS, key=0)
  trainable, adam = mixed.trainable(), optax.adam(0.1)
  with pytest.raises(ValueError, match=r"tx.init\(mixed.trainable\(\)\)"):
    mixed.apply_gradients(adam, trainable, adam.init(PARAMS))
  with pytest.raises(
    ValueError, match="Optax optimizer or FusedAdamW, got None"
  ):
    mixed.apply_gradients(None, trainable, ())


@pytest.mark.parametrize(
  "schedule", [lambda e: 3.0, lambda e: jnp.nan, lambda e: jnp.ones(3)]
)
def test_a_schedule_of_the_anchor_is_checked_where_it_begins(schedule):
  tx = gx.gmixout(optax.sgd(0.1), anchor_decay=schedule, key=0)
  with pytest.raises(ValueError, match="anchor_decay must be a schedule"):
    tx.init(PARAMS)


def test_rescale_is_yes_or_no():
  with pytest.raises(ValueError, match=r"rescale must be one of .*got 'no'"):
    gx.gmixout(rescale="no", key=0)
