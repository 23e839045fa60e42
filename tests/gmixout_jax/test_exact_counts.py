"""Tests the law of samplers with an exact count, for whatever leaf there is.

A draw keeps 1 - sparsity of a leaf within a tenth or within one entry (one
input, if it draws inputs), whichever is larger, and never all of it; or the
leaf is refused by name.
"""

import math
import re

import hypothesis
import jax
import jax.numpy as jnp
import numpy as np
from hypothesis import strategies as st

import gmixout_jax as gx
from gmixout_jax._core import samplers
from pallas_kernels.leaf import StratifiedLeaf
from tests.combinations import EXHAUSTIVE

EXACT = ("stratified", "uniform", "neuron")
few = hypothesis.settings(max_examples=15, deadline=None, derandomize=True)
# To trace a draw takes ten times as long as to compare two layouts.
some = hypothesis.settings(max_examples=60, deadline=None, derandomize=True)
many = hypothesis.settings(max_examples=400, deadline=None, derandomize=True)

SPARSITIES = st.one_of(
  st.sampled_from([0.0, 0.01, 0.05, 0.1, 1 / 3, 0.5, 2 / 3, 0.9, 0.95, 0.99]),
  st.floats(0.001, 0.999),
)


@st.composite
def leaves(draw, largest=20_000):
  """A shape, and letters of its axes: an o, and the inputs' side by side."""
  rank = draw(st.integers(2, 5))
  shape = []
  for _ in range(rank):
    room = max(1, largest // math.prod(shape))
    shape.append(draw(st.integers(1, min(room, 70))))
  first = draw(st.integers(0, rank - 1))
  inputs = draw(st.integers(1, min(rank - first, rank - 1)))
  others = rank - inputs
  letters = "o" + draw(st.text("osl", min_size=others - 1, max_size=others - 1))
  letters = "".join(draw(st.permutations(letters)))
  letters = letters[:first] + "i" * inputs + letters[first:]
  return tuple(draw(st.permutations(shape))), letters


def summary(shape, letters, sampler, sparsity):
  """Of one leaf; None if it is refused, which must name it."""
  params = {"some": {"leaf": jax.ShapeDtypeStruct(shape, jnp.float32)}}
  refusal = re.escape(f"'some/leaf' of shape {shape} is too small")
  try:
    (leaf,) = gx.gmixout_summary(
      params,
      sampler=sampler,
      sparsity=sparsity,
      axes=lambda path, leaf: letters,
    ).leaves
  except ValueError as error:
    if re.search(refusal, str(error)) is None:
      raise
    return None
  return leaf


def lengths(shape, letters, letter):
  pairs = zip(shape, letters, strict=True)
  return [length for length, one in pairs if one == letter]


@EXHAUSTIVE  # of one layout each, in the tests of layers
@many
@hypothesis.given(leaves(), SPARSITIES, st.sampled_from(EXACT))
def test_kept_fractions(leaf, sparsity, sampler):
  shape, letters = leaf
  size, kept = math.prod(shape), 1 - sparsity
  # How many entries are drawn together, and how many times it is drawn.
  together, draws = 1, 1
  if sampler == "neuron":
    draws = math.prod(lengths(shape, letters, "l"))
    together = size // math.prod(lengths(shape, letters, "i")) // draws
  found = summary(shape, letters, sampler, sparsity)
  if found is None:
    # Of one thing neither some nor none can be drawn.
    things = size // together // draws
    assert things * kept < 1 or (things == 1 and sparsity > 0)
    return
  off_by = abs(found.active - kept * size)
  assert off_by <= max(0.1 * kept * size, together * draws) + 1e-6
  assert found.kept_fraction == found.active / size
  assert found.active > 0
  assert found.active < size or sparsity == 0


@many
@hypothesis.given(leaves(), SPARSITIES)
def test_kernels_see_a_leaf_as_the_sampler_does(leaf, sparsity):
  shape, letters = leaf
  if summary(shape, letters, "stratified", sparsity) is None:
    return
  kept = round(1 - sparsity, 12)
  layout = samplers.Stratified(shape, kept)
  kernels = StratifiedLeaf(shape, kept)
  assert kernels.packed_shape == layout.packed_shape
  assert math.isclose(kernels.kept_fraction, layout.kept_fraction)
  # What a kernel is given is the view itself, or some rows of it.
  assert StratifiedLeaf(kernels.view, kept).view == kernels.view
  if len(kernels.view) > 1:
    part = (2 * shape[0], *shape[1:])
    assert StratifiedLeaf(part, kept).cols == kernels.cols


@some
@hypothesis.given(leaves(), SPARSITIES)
def test_a_draw_has_the_shape_of_its_layout(leaf, sparsity):
  shape, letters = leaf
  if summary(shape, letters, "stratified", sparsity) is None:
    return
  layout = samplers.Stratified(shape, round(1 - sparsity, 12))
  drawn = jax.eval_shape(
    layout.draw, jax.random.key(0), jax.ShapeDtypeStruct(shape, jnp.float32)
  )
  assert drawn.shape == layout.packed_shape


@few
@hypothesis.given(
  leaves(500), st.sampled_from([0.3, 0.75]), st.sampled_from(EXACT)
)
def test_what_is_drawn_is_what_the_summary_says(leaf, sparsity, sampler):
  shape, letters = leaf
  found = summary(shape, letters, sampler, sparsity)
  if found is None:
    return
  settings = {"sampler": sampler, "axes": lambda path, leaf: letters}
  params = {"some": {"leaf": jnp.ones(shape)}}
  state = gx.gmixout(key=0, sparsity=sparsity, **settings).init(params)
  mask = np.asarray(gx.gmixout_masks(state, params)["some"]["leaf"])
  assert mask.sum() == found.active
  if sampler == "neuron":
    # In each layer the same number of inputs, and all of an input or nothing.
    order = sorted(range(len(shape)), key=lambda i: "lios".index(letters[i]))
    layers, inputs = (math.prod(lengths(shape, letters, c)) for c in "li")
    flat = mask.transpose(order).reshape(layers, inputs, -1)
    assert np.all(flat.all(axis=2) == flat.any(axis=2))
    assert len(set(flat[:, :, 0].sum(axis=1).tolist())) == 1
  if sampler == "stratified":
    view = StratifiedLeaf(shape, round(1 - sparsity, 12)).view
    counts = mask.reshape(view).sum(axis=-1)
    assert len(set(np.ravel(counts).tolist())) == 1
