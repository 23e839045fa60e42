"""Tests `pallas_kernels/masked_mix` and `pallas_kernels/pack`.

Masks are compared bitwise with those of `gmixout_jax`, references with float64
NumPy, kernels with references.
"""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import AxisType, PartitionSpec

from gmixout_jax._core import samplers
from pallas_kernels import dispatch
from pallas_kernels import leaf as leaves
from pallas_kernels.masked_mix import mosaic_gpu as mix_mosaic
from pallas_kernels.masked_mix import shapes as mix_shapes
from pallas_kernels.masked_mix.api import masked_mix
from pallas_kernels.pack import mosaic_gpu as pack_mosaic
from pallas_kernels.pack import shapes as pack_shapes
from pallas_kernels.pack.api import pack
from tests.combinations import every_pair, tried
from tests.pallas_kernels.kernels import (
  DTYPES,
  KEPT,
  KEY,
  assert_close,
  cuda_module,
  gpu,
  normal,
)

pytestmark = pytest.mark.slow

SAMPLERS = ("stratified", "bernoulli")
# The interpreter is slow. Bfloat16 where rows cross tiles; "bernoulli" does
# not know rows.
CASES = [("stratified", name, jnp.float32) for name in mix_shapes.SMALL] + [
  ("stratified", "tiles", jnp.bfloat16),
  ("stratified", "odd_columns", jnp.bfloat16),
  ("bernoulli", "tiles", jnp.bfloat16),
  ("bernoulli", "odd_columns", jnp.float32),
  ("bernoulli", "one_entry", jnp.float32),
]
LOWERED = [
  *itertools.product(mix_shapes.NAMED, [jnp.float32]),
  *itertools.product(mix_shapes.SMALL, [jnp.bfloat16]),
]
# The others are of shapes between these.
LOWERED_OFTEN = (
  *("b16_fc1", "imagenet_head", "one_column", "one_entry", "odd_columns"),
)
# Op by op, threefry alone is a hundred programs to compile.
jitted_mix = jax.jit(
  masked_mix, static_argnames=("kept", "sampler", "implementation")
)
jitted_pack = jax.jit(
  pack, static_argnames=("kept", "divisor", "implementation")
)


def sampler_mask(sampler, shape):
  """The mask that gmixout_jax draws, or an entry's own word decides."""
  if sampler == "bernoulli":
    words = np.asarray(jax.random.bits(KEY, shape, "uint32"), np.int64)
    return words < round(KEPT * 2**32)
  layout = samplers.SAMPLERS[sampler](shape, KEPT)

  @jax.jit
  def mask(like):
    return layout.mask(layout.draw(KEY, like), like)

  return np.asarray(mask(np.zeros(shape, np.float32)))


def problem(rng, shape, dtype, sampler):
  """Anchor and residual; no entry of the residual is zero."""
  packed = leaves.StratifiedLeaf(shape, KEPT).packed_shape
  residual = rng.normal(size=packed if sampler == "stratified" else shape)
  residual += np.sign(residual)
  return normal(rng, shape, dtype), jnp.asarray(residual, jnp.float32)


def differs(one, other):
  return np.asarray(one) != np.asarray(other)


@pytest.mark.parametrize(
  ("shape", "sampler", "dtype"),
  every_pair([(37, 127), (2, 3, 5, 64)], SAMPLERS, DTYPES),
)
def test_reference_against_numpy(rng, shape, sampler, dtype):
  anchor, residual = problem(rng, shape, dtype, sampler)
  mask = sampler_mask(sampler, shape)
  dense = np.zeros(shape)
  values = np.asarray(residual, np.float64)
  dense[mask] = values.reshape(-1) if sampler == "stratified" else values[mask]
  s = mask.mean() if sampler == "stratified" else KEPT
  expected = np.asarray(anchor, np.float64) + dense / s
  trained = jitted_mix(anchor, residual, KEY, kept=KEPT, sampler=sampler)
  assert_close(trained, jnp.asarray(expected, dtype), dtype)
  np.testing.assert_array_equal(differs(trained, anchor), mask)


@pytest.mark.parametrize("shape", [(37, 127), (2, 3, 5, 64)])
def test_pack_against_numpy(rng, shape):
  dense = normal(rng, shape)
  mask = sampler_mask("stratified", shape)
  expected = np.asarray(dense, np.float64)[mask] / mask.mean()
  packed = jitted_pack(dense, KEY, kept=KEPT)
  np.testing.assert_allclose(packed.reshape(-1), expected, rtol=1e-6)


@pytest.mark.parametrize(
  ("sampler", "name", "dtype"),
  tried(
    CASES,
    # What they have of these, others have that are smaller.
    lambda sampler, name, dtype: (
      name not in ("vector", "wide") and (name, dtype) != ("tiles", jnp.float32)
    ),
  ),
)
def test_mosaic_gpu_masked_mix(rng, sampler, name, dtype):
  shape = mix_shapes.SMALL[name]
  anchor, residual = problem(rng, shape, dtype, sampler)
  options = {"kept": KEPT, "sampler": sampler}
  with dispatch.interpreted():
    trained = jitted_mix(
      anchor, residual, KEY, implementation="mosaic_gpu", **options
    )
  expected = jitted_mix(anchor, residual, KEY, implementation="xla", **options)
  assert_close(trained, expected, dtype)
  np.testing.assert_array_equal(
    differs(trained, anchor), differs(expected, anchor)
  )


@pytest.mark.parametrize(
  "name", tried(pack_shapes.SMALL, lambda name: name not in ("vector", "wide"))
)
def test_mosaic_gpu_packs_the_very_entries(name):
  shape = pack_shapes.SMALL[name]
  position = jnp.arange(np.prod(shape), dtype=jnp.float32).reshape(shape)
  options = {"kept": KEPT, "divisor": 1.0}
  with dispatch.interpreted():
    packed = jitted_pack(position, KEY, implementation="mosaic_gpu", **options)
  expected = jitted_pack(position, KEY, implementation="xla", **options)
  np.testing.assert_array_equal(packed, expected)


def test_mosaic_gpu_packs_bfloat16(rng):
  dense = normal(rng, pack_shapes.SMALL["blocks"], jnp.bfloat16)
  with dispatch.interpreted():
    packed = jitted_pack(dense, KEY, kept=KEPT, implementation="mosaic_gpu")
  assert_close(packed, jitted_pack(dense, KEY, kept=KEPT), jnp.float32)


@pytest.mark.parametrize(
  ("name", "dtype"), tried(LOWERED, lambda name, _: name in LOWERED_OFTEN)
)
def test_lowers_for_cuda(name, dtype):
  shape = (mix_shapes.NAMED | mix_shapes.SMALL)[name]
  leaf = leaves.StratifiedLeaf(shape, KEPT)
  dense = jax.ShapeDtypeStruct(shape, dtype)
  packed = jax.ShapeDtypeStruct(leaf.packed_shape, jnp.float32)
  seed = jax.ShapeDtypeStruct((3,), jnp.uint32)
  options = {"divisor": KEPT, "dtype": dtype}
  text = cuda_module(
    lambda anchor, residual, seed: (
      mix_mosaic.stratified(leaf, anchor, residual, seed, **options),
      mix_mosaic.bernoulli(anchor, anchor, seed, kept=KEPT, **options),
      pack_mosaic.pack(leaf, anchor, seed, divisor=KEPT),
    ),
    dense,
    packed,
    seed,
  )
  assert text.count("@mosaic_gpu_v2") == 3


@pytest.mark.parametrize("name", ["xla", "mosaic_gpu"])
def test_pack_and_masked_mix_are_each_others_gradient(rng, name):
  shape = (5, 127)
  anchor, residual = problem(rng, shape, jnp.float32, "stratified")
  toward = normal(rng, shape)
  options = {"kept": KEPT, "implementation": name}
  with dispatch.interpreted():
    _, pull = jax.vjp(
      jax.jit(lambda a, r: masked_mix(a, r, KEY, **options)), anchor, residual
    )
    for_anchor, for_residual = pull(toward)
    packed, pull = jax.vjp(jax.jit(lambda d: pack(d, KEY, **options)), toward)
    (for_dense,) = pull(residual)
  mask = sampler_mask("stratified", shape)
  np.testing.assert_array_equal(for_anchor, toward)
  np.testing.assert_allclose(for_residual, packed, rtol=1e-6)
  for_dense = np.asarray(for_dense)
  np.testing.assert_array_equal(for_dense != 0, mask)
  np.testing.assert_allclose(
    for_dense[mask], residual.reshape(-1) / mask.mean(), rtol=1e-6
  )


def test_bernoulli_gradient(rng):
  anchor, residual = problem(rng, (5, 127), jnp.float32, "bernoulli")
  options = {"kept": KEPT, "sampler": "bernoulli"}
  gradient = jax.grad(lambda r: jitted_mix(anchor, r, KEY, **options).sum())(
    residual
  )
  mask = sampler_mask("bernoulli", (5, 127))
  np.testing.assert_allclose(gradient, mask / KEPT, rtol=1e-6)


def test_jit_vmap_and_scan(rng):
  """A stack of leaves with a key each, as layers of a scanned model have."""
  shape = (3, 5, 127)
  anchors, keys = normal(rng, shape), jax.random.split(KEY, 3)
  packed = leaves.StratifiedLeaf(shape, KEPT).packed_shape
  residuals = normal(rng, packed)

  def mix(anchor, residual, key):
    return masked_mix(
      anchor, residual, key, kept=KEPT, implementation="mosaic_gpu"
    )

  expected = jnp.stack(
    [
      jitted_mix(a, r, k, kept=KEPT)
      for a, r, k in zip(anchors, residuals, keys, strict=True)
    ]
  )
  with dispatch.interpreted():
    mapped = jax.jit(jax.vmap(mix))(anchors, residuals, keys)
    _, scanned = jax.jit(
      lambda *stacks: jax.lax.scan(
        lambda carry, leaf: (carry, mix(*leaf)), 0, stacks
      )
    )(anchors, residuals, keys)
  np.testing.assert_allclose(mapped, expected, rtol=1e-6)
  np.testing.assert_allclose(scanned, expected, rtol=1e-6)


@pytest.mark.parametrize("name", ["xla", "mosaic_gpu"])
def test_shards_of_a_leaf_draw_its_mask(rng, name):
  mesh = jax.make_mesh((2,), ("rows",), axis_types=(AxisType.Auto,))
  anchor, residual = problem(rng, (6, 127), jnp.float32, "stratified")
  rows = PartitionSpec("rows")

  def mix(anchor, residual):
    return masked_mix(
      anchor,
      residual,
      KEY,
      kept=KEPT,
      first_row=jax.lax.axis_index("rows") * anchor.shape[0],
      implementation=name,
    )

  with dispatch.interpreted():
    trained = jax.jit(
      jax.shard_map(mix, mesh=mesh, in_specs=(rows, rows), out_specs=rows)
    )(anchor, residual)
  expected = jitted_mix(anchor, residual, KEY, kept=KEPT)
  np.testing.assert_allclose(trained, expected, rtol=1e-6)


def test_raw_keys_will_do(rng):
  dense = normal(rng, (5, 127))
  raw = jax.random.key_data(KEY)
  np.testing.assert_array_equal(
    jitted_pack(dense, raw, kept=KEPT), jitted_pack(dense, KEY, kept=KEPT)
  )


def test_what_does_not_fit_is_named():
  dense = jnp.zeros((4, 40))
  with pytest.raises(ValueError, match=r"residual.*\(4, 4\).*\(4, 40\)"):
    masked_mix(dense, dense, KEY, kept=KEPT)
  with pytest.raises(ValueError, match=r"\(4, 40\).*\(4, 4\)"):
    masked_mix(dense, jnp.zeros((4, 4)), KEY, kept=KEPT, sampler="bernoulli")
  with pytest.raises(ValueError, match="'uniform'"):
    masked_mix(dense, dense, KEY, kept=KEPT, sampler="uniform")  # pyright: ignore[reportArgumentType]


@gpu
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("name", ["mosaic_gpu", "triton"])
@pytest.mark.parametrize("shape", mix_shapes.NAMED.values())
def test_on_the_device(rng, shape, name, dtype):
  reason = dispatch.obstacle(name)
  if reason is not None:
    pytest.skip(reason)
  for sampler in SAMPLERS:
    anchor, residual = problem(rng, shape, dtype, sampler)
    options = {"kept": KEPT, "sampler": sampler}
    trained = jitted_mix(anchor, residual, KEY, implementation=name, **options)
    expected = jitted_mix(
      anchor, residual, KEY, implementation="xla", **options
    )
    assert_close(trained, expected, dtype)
  dense = normal(rng, shape, dtype)
  packed = jitted_pack(dense, KEY, kept=KEPT, implementation=name)
  assert_close(packed, jitted_pack(dense, KEY, kept=KEPT), jnp.float32)
