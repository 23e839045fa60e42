"""What the tests of taps ask of compiled functions."""

import functools
import re

import jax
import numpy as np

# Most of the time in these tests is spent on compiling; this halves it.
jit = functools.partial(
  jax.jit, compiler_options={"xla_backend_optimization_level": 0}
)


def compare(tapped, plain, args, rtol=1e-5, atol=1e-6):
  """Asserts that two gradients are equal; returns the FLOPs that one saves."""
  tapped = jit(tapped).lower(*args).compile()
  plain = jit(plain).lower(*args).compile()

  def check(one, other):
    assert one.dtype == other.dtype
    one, other = np.float32(one), np.float32(other)
    assert np.abs(other).max() > 1e-4
    np.testing.assert_allclose(one, other, rtol=rtol, atol=atol)

  jax.tree.map(check, tapped(*args), plain(*args))
  return flops(plain) - flops(tapped)


def flops(compiled):
  return compiled.cost_analysis()["flops"]


def count_dense_gradients(function, args, *shapes):
  """Matrix products in a jaxpr whose result is one of the shapes, transposed.

  A scan's body counts once.
  """
  jaxpr = str(jax.make_jaxpr(function)(*args))
  found = re.findall(r":f32\[([\d,]+)\] = dot_general", jaxpr)
  assert found
  made = [sorted(map(int, one.split(","))) for one in found]
  return sum(one in map(sorted, shapes) for one in made)


def kept_shapes(loss, trainable):
  """Shapes of all arrays that the backward pass of a loss is handed."""
  _, backward = jax.eval_shape(lambda t: jax.vjp(loss, t), trainable)
  return [leaf.shape for leaf in jax.tree.leaves(backward)]


def count_written(function, args, *shapes):
  """How often compiled code makes an array of a shape, piece by piece."""
  text = jax.jit(function).lower(*args).compile().as_text()
  assert text
  either = "|".join(",".join(map(str, shape)) for shape in shapes)
  made = r"(?:dynamic-update-slice|broadcast)\("
  return len(re.findall(rf"f32\[(?:{either})\]\S* {made}", text))
