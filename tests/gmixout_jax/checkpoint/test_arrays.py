"""Tests `gmixout_jax/checkpoint/arrays.py`: states with every kind of leaf."""

import json
import re

import jax
import jax.numpy as jnp
import ml_dtypes
import numpy as np
import pytest

from gmixout_jax.checkpoint import Checkpoints
from gmixout_jax.checkpoint.arrays import WIDER
from tests.gmixout_jax.checkpoint.small_run import restore

pytestmark = pytest.mark.slow

NARROW = [
  *("bool", "int2", "uint2", "int4", "uint4", "int8", "uint8", "int16"),
  *("float16", "bfloat16", "float4_e2m1fn"),
  *("float8_e3m4", "float8_e4m3", "float8_e4m3b11fnuz", "float8_e4m3fn"),
  *("float8_e4m3fnuz", "float8_e5m2", "float8_e5m2fnuz", "float8_e8m0fnu"),
]


def zeros_like(state):
  """What is restored into: the same shapes and types, no value."""
  return jax.tree.map(
    lambda leaf: (
      np.zeros_like(leaf) if hasattr(leaf, "dtype") else type(leaf)(0)
    ),
    state,
  )


STATES = {
  "no entries": {
    "w": jnp.ones(3),
    "lora": jnp.zeros((4, 0)),
    "half": jnp.zeros(0, jnp.bfloat16),
    "int": np.zeros((0, 2), np.int32),
  },
  "nothing but no entries": [jnp.zeros((0, 3))],
  "nothing": {},
  "None and empty": {"a": None, "b": {}, "c": (), "d": jnp.ones(2)},
  "numbers": {"i": 5, "f": 0.25, "c": 1j, "b": True, "w": jnp.ones(3)},
  "NumPy's numbers": {"i": np.int32(5), "f": np.float16(2), "b": np.bool_(1)},
  "64 bits": {"i": np.arange(3), "f": np.float64(0.25)},
  "byte order": {"i": np.arange(3, dtype=">i4")},
  "order": {"f": np.asfortranarray(np.arange(6.0, dtype="f4").reshape(2, 3))},
  "complex": {"c": jnp.array([1 + 2j])},
  "names": {
    **{"a b": jnp.ones(1), "a.b": jnp.ones(2), "ü%": jnp.ones(3)},
    **{"..": jnp.ones(4), "": jnp.ones(5), "\0": jnp.ones(6)},
  },
  "long name": {"x" * 300: jnp.ones(2)},
  "integers for names": {0: jnp.ones(2), 10: jnp.ones(3), 2: jnp.ones(4)},
}


@pytest.mark.parametrize("name", STATES)
def test_leaves_of_every_kind_come_back(tmp_path, name):
  state = STATES[name]
  with Checkpoints(tmp_path) as checkpoints:
    checkpoints.save(1, state)
  found = restore(tmp_path, zeros_like(state)).state
  assert jax.tree.structure(found) == jax.tree.structure(state)
  for ours, theirs in zip(
    jax.tree.leaves(found), jax.tree.leaves(state), strict=True
  ):
    assert isinstance(ours, jax.Array)
    np.testing.assert_array_equal(ours, theirs)
    assert ours.shape == np.shape(theirs)
    # JAX's type for it, which has no say in the order of bytes.
    native = np.asarray(theirs)
    native = native.astype(native.dtype.newbyteorder("="))
    assert ours.dtype == jnp.asarray(native).dtype


@pytest.mark.parametrize("name", NARROW)
def test_every_value_of_a_narrow_type_comes_back(tmp_path, name):
  dtype = np.dtype(getattr(ml_dtypes, name, name))
  wide = dtype.itemsize == 2
  bits = 1 if name == "bool" else int(re.findall(r"\d+", name)[0])
  every = np.arange(2**bits, dtype=np.uint16 if wide else np.uint8).view(dtype)
  state = {"x": jnp.asarray(every), "none": jnp.zeros((2, 0), dtype)}
  with Checkpoints(tmp_path) as checkpoints:
    checkpoints.save(1, state)
  found = restore(tmp_path, {k: jnp.zeros_like(v) for k, v in state.items()})
  assert found.state["x"].dtype == found.state["none"].dtype == dtype
  assert found.state["none"].shape == (2, 0)
  # NaNs of any bits are equal.
  np.testing.assert_array_equal(
    np.asarray(found.state["x"], np.float32), every.astype(np.float32)
  )


def test_nothing_is_written_wider_but_what_must_be(tmp_path):
  """A newer Orbax may write them all: then the table can go."""
  assert set(WIDER) <= set(NARROW)
  with Checkpoints(tmp_path) as checkpoints:
    checkpoints.save(1, {"x": jnp.ones(3, jnp.uint4)})
  manifest = json.loads((tmp_path / "00000001/manifest.json").read_text())
  leaves = json.loads(manifest["manifest"])["leaves"]
  assert leaves == {"x": "uint4[3]"}


def test_keys_come_back(tmp_path):
  state = {
    "key": jax.random.key(3),
    "none": jax.random.split(jax.random.key(0), 0),
  }
  with Checkpoints(tmp_path) as checkpoints:
    checkpoints.save(1, state)
  like = {"key": jax.random.key(0), "none": state["none"]}
  found = restore(tmp_path, like).state
  assert found["key"].dtype == state["key"].dtype
  assert jax.random.key_data(found["key"]).tolist() == [0, 3]
  assert found["none"].shape == (0,)


def test_empty_arrays_go_where_they_are_wanted(tmp_path):
  devices = jax.sharding.Mesh(np.array(jax.devices()), "rows")
  rows = jax.NamedSharding(devices, jax.P("rows"))
  with Checkpoints(tmp_path) as checkpoints:
    checkpoints.save(1, {"x": jnp.zeros((8, 0))})
  like = {"x": jax.ShapeDtypeStruct((8, 0), jnp.float32, sharding=rows)}
  assert restore(tmp_path, like).state["x"].sharding == rows


@pytest.mark.parametrize(
  ("leaf", "message"),
  [
    ("hello", r"must be an array of numbers .* got 'hello' \(str\)"),
    (np.array([None]), "must be an array of numbers .* got array"),
    (
      np.zeros(3, jax.dtypes.float0),
      "must be an array of numbers .* got array",
    ),
    (2**70, "must be an array of numbers .* got 1180591620717411303424"),
    (2**40, "holds 1099511627776, which int32 cannot hold"),
    (np.array([1, -(2**40)]), "holds -1099511627776, which int32 cannot hold"),
    (np.uint64(2**63), "holds 9223372036854775808, which uint32 cannot hold"),
  ],
)
def test_what_cannot_be_written_is_named_at_once(tmp_path, leaf, message):
  with Checkpoints(tmp_path) as checkpoints:
    with pytest.raises(ValueError, match=f"leaf 'a/b' of the state {message}"):
      checkpoints.save(1, {"a": {"b": leaf}, "w": jnp.ones(2)})
    checkpoints.save(2, {"w": jnp.ones(2)})
  assert restore(tmp_path, {"w": jnp.ones(2)}).step == 2


def test_64_bits_are_kept_where_jax_has_them(tmp_path):
  state = {"i": 2**40, "f": 0.1, "a": np.array([2**40])}
  jax.config.update("jax_enable_x64", True)
  try:
    with Checkpoints(tmp_path) as checkpoints:
      checkpoints.save(1, state)
    found = restore(tmp_path, zeros_like(state)).state
    assert (int(found["i"]), float(found["f"])) == (2**40, 0.1)
    assert found["a"].tolist() == [2**40]
  finally:
    jax.config.update("jax_enable_x64", False)
  # In one thread only, and what Orbax reads would be cut in half.
  message = "leaf 'a' .* must be int64, but was read as int32"
  with jax.enable_x64(True), pytest.raises(ValueError, match=message):
    restore(tmp_path, zeros_like(state))
