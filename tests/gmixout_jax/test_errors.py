"""Tests that bad arguments are refused, with their value in the message."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import gmixout_jax as gx

PARAMS = {"kernel": jnp.ones((8, 20))}


@pytest.mark.parametrize(
  "sparsity", [-0.1, 1.0, 1.5, float("nan"), "0.9", None]
)
def test_sparsity(sparsity):
  with pytest.raises(ValueError, match=r"sparsity must be in \[0, 1\)") as info:
    gx.gmixout(key=0, sparsity=sparsity)
  assert repr(sparsity) in str(info.value)


@pytest.mark.parametrize("anchor_decay", [-0.1, 1.1, float("nan"), "1", None])
def test_anchor_decay(anchor_decay):
  with pytest.raises(
    ValueError, match=r"anchor_decay must be in \[0, 1\]"
  ) as e:
    gx.gmixout(key=0, anchor_decay=anchor_decay)
  assert repr(anchor_decay) in str(e.value)


@pytest.mark.parametrize("period", [0, -1, 2.0, 1.5, True, "10", np.float32(3)])
def test_resample_every(period):
  with pytest.raises(ValueError, match="resample_every must be an int") as info:
    gx.gmixout(key=0, resample_every=period)
  assert repr(period) in str(info.value)


def test_schedules_of_what_cannot_be():
  """Where their values are known; else the nearest that can be is taken."""
  tx = functools.partial(gx.gmixout, optax.sgd(0.01), key=0)
  params = {"kernel": jnp.ones((4, 20))}
  with pytest.raises(ValueError, match=r"in \[0, 1\], got 1\.5 for episode 0"):
    tx(anchor_decay=lambda episode: episode + 1.5).init(params)
  for length in (0.0, float("nan"), float("inf")):
    with pytest.raises(ValueError, match=rf"steps, at least 1, got {length}"):
      tx(resample_every=lambda episode, n=length: n + episode).init(params)
  growing = tx(anchor_decay=lambda episode: 0.5 * (episode + 1.0),
               resample_every=1)  # fmt: skip
  state = growing.init(params)
  update = jax.jit(growing.update)
  for _ in range(4):
    updates, state = update(params, state, params)
    params = optax.apply_updates(params, updates)
  assert float(state.anchor_decay) == 1.0
  with pytest.raises(ValueError, match=r"got 2\.5 for episode 4"):
    growing.update(params, state, params)


@pytest.mark.parametrize(
  ("name", "value"),
  [("sampler", "blocks"), ("residual", "carry"), ("moments", "keep")],
)
def test_choices(name, value):
  with pytest.raises(ValueError, match=f"{name} must be one of .*'{value}'"):
    gx.gmixout(key=0, **{name: value})


@pytest.mark.parametrize("target", [3, "(", ["kernel"]])
def test_target(target):
  with pytest.raises(ValueError, match="target must be") as info:
    gx.gmixout(key=0, target=target)
  assert repr(target) in str(info.value)


@pytest.mark.parametrize(
  "key",
  ["0", 0.5, True, np.zeros(3, np.uint32), np.zeros(2, np.int32)],
)
def test_key(key):
  with pytest.raises(ValueError, match="key must be a typed PRNG key"):
    gx.gmixout(key=key)


def test_key_of_another_generator():
  with pytest.raises(ValueError, match="'rbg'"):
    gx.gmixout(key=jax.random.key(0, impl="rbg"))


def test_keys_in_all_forms_draw_the_same_masks():
  drawn = []
  for key in (7, np.int64(7), jax.random.key(7), jax.random.PRNGKey(7)):
    state = gx.gmixout(key=key).init(PARAMS)
    drawn.append(np.asarray(gx.gmixout_masks(state, PARAMS)["kernel"]))
  for mask in drawn[1:]:
    np.testing.assert_array_equal(mask, drawn[0])


def test_update_needs_params():
  tx = gx.gmixout(optax.sgd(0.1), key=0)
  with pytest.raises(ValueError, match="params=None"):
    tx.update(PARAMS, tx.init(PARAMS))


@pytest.mark.parametrize("sampler", ["stratified", "uniform", "neuron"])
def test_a_leaf_too_small_to_keep_one_entry(sampler):
  params = {"blocks": [{"kernel": jnp.ones((2, 3))}]}
  with pytest.raises(ValueError, match="'blocks/0/kernel' of shape"):
    gx.gmixout(key=0, sampler=sampler).init(params)


def test_accessors_need_a_state_of_ours():
  state = optax.adam(0.1).init(PARAMS)
  for accessor in (gx.gmixout_eval_params, gx.gmixout_masks):
    with pytest.raises(ValueError, match="holds no state of gmixout"):
      accessor(state, PARAMS)


def test_accessors_need_the_state_of_these_params():
  state = gx.gmixout(key=0).init(PARAMS)
  with pytest.raises(ValueError, match="'kernel', which params lacks"):
    gx.gmixout_eval_params(state, {"weight": jnp.ones((8, 20))})
  with pytest.raises(ValueError, match=r"anchor of shape \(8, 4\)"):
    gx.gmixout_eval_params(state, {"kernel": jnp.ones((8, 40))})


def test_two_leaves_of_one_path():
  params = {"a/b": jnp.ones((2, 20)), "a": {"b": jnp.ones((2, 20))}}
  for make in (
    lambda: gx.gmixout(key=0).init(params),
    lambda: gx.MixedParams.create(params, key=0),
  ):
    with pytest.raises(ValueError, match="two leaves with the path 'a/b'"):
      make()


@pytest.mark.parametrize(
  "rules", ["kernel", ((5, "mixed"),), (("(", "mixed"),), (("", "mix"),)]
)
def test_rules(rules):
  with pytest.raises(ValueError, match="rule") as info:
    gx.gmixout_labels(PARAMS, rules)
  assert "target" not in str(info.value)


@pytest.mark.parametrize(
  "inner",
  [
    optax.adamw(0.1, mask={"kernel": True}),
    optax.partition({"a": optax.adam(0.1)}, {"kernel": "a"}),
  ],
)
def test_moments_that_cannot_be_found(inner):
  gx.gmixout(inner, key=0).init(PARAMS)
  with pytest.raises(ValueError, match="moments='reset' needs an inner opt"):
    gx.gmixout(inner, key=0, moments="reset").init(PARAMS)


@pytest.mark.parametrize(
  "make",
  [
    gx.gmixout,
    lambda **more: gx.MixedParams.create(PARAMS, **more),
    lambda key, **more: gx.gmixout_summary(PARAMS, **more),
  ],
)
def test_a_misspelt_setting_is_named(make):
  with pytest.raises(TypeError, match="'sparsty'; did you mean sparsity"):
    make(key=0, sparsty=0.5)
  with pytest.raises(TypeError, match="'speed'; did you mean sparsity or anch"):
    make(key=0, speed=0.5)


@pytest.mark.parametrize("dtype", [jnp.bfloat16, jnp.float16])
def test_weights_narrower_than_the_state_was_made_for(dtype):
  """Δ would be read off weights that have rounded it away."""
  params = {"kernel": jnp.ones((8, 20)), "bias": jnp.ones(20)}
  narrow = jax.tree.map(lambda leaf: leaf.astype(dtype), params)
  tx = gx.gmixout(optax.sgd(1e-5), key=0)
  message = f"leaf 'kernel' is {jnp.dtype(dtype)}, but the state was made for"
  with pytest.raises(ValueError, match=message):
    tx.update(narrow, tx.init(params), narrow)
  tx.update(params, tx.init(narrow), params)  # which remembers what was learned


def test_a_donated_state_leaves_the_callers_anchor_decay():
  decay = jnp.float32(0.3)
  for make in (
    lambda: gx.gmixout(key=0, anchor_decay=decay).init(PARAMS),
    lambda: gx.MixedParams.create(
      jax.tree.map(jnp.copy, PARAMS), key=0, anchor_decay=decay
    ),
  ):
    jax.jit(lambda state: state, donate_argnums=0)(make())
  assert float(decay) == pytest.approx(0.3)


def test_the_summary_takes_what_gmixout_takes():
  params = {"kernel": jnp.ones((8, 40)), "scale": 1.0}
  gx.gmixout(key=0).init(params)
  rows = {row.path: row for row in gx.gmixout_summary(params).leaves}
  assert rows["scale"].shape == ()
  assert rows["scale"].active == 1
