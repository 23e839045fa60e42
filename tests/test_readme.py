"""Tests that the README's examples run as they are printed, in their order."""

import contextlib
import io
import math
import pathlib
import re

import flax.nnx
import jax
import jax.numpy as jnp
import pytest

README = (pathlib.Path(__file__).parents[1] / "README.md").read_text()
BLOCKS = [
  block
  for block in re.findall(r"```python\n(.*?)```", README, re.DOTALL)
  if "the method, in full" not in block  # an outline
]


@pytest.fixture(scope="module")
def ran():
  """What each block prints, and the names that are there after it."""
  names, results = {}, []
  for block in BLOCKS:
    printed = io.StringIO()
    with contextlib.redirect_stdout(printed):
      exec(compile(block, "README.md", "exec"), names)
    results.append((printed.getvalue(), dict(names)))
  return results


def block_with(ran, marker):
  (result,) = [
    one for block, one in zip(BLOCKS, ran, strict=True) if marker in block
  ]
  return result


def test_the_quickstart_learns_and_prints_what_is_shown(ran):
  printed, names = block_with(ran, "MixedParams.create")
  (shown,) = re.findall(r"```text\n(.*?)```", README, re.DOTALL)
  assert printed == shown
  keys = jax.random.split(jax.random.key(0), 3)
  kernel = jax.random.normal(keys[0], (8, 40))
  head = {"kernel": jax.random.normal(keys[1], (40, 2))}
  fc1 = {"kernel": kernel, "bias": jnp.zeros(40)}
  at_first = {"blocks": [{"fc1": fc1}], "head": head}
  loss = lambda params: names["loss"](params, names["batch"])
  assert loss(names["evaluated"]) < 0.5 * loss(at_first)
  moved = names["evaluated"]["blocks"][0]["fc1"]["kernel"] != kernel
  assert 32 <= moved.sum() < 320


def test_the_optax_loop_learns(ran):
  before = block_with(ran, "MixedParams.create")[1]
  after = block_with(ran, "optax.partition")[1]
  losses = [
    names["loss"](names["evaluated"], names["batch"])
    for names in (before, after)
  ]
  assert losses[1] < 0.98 * losses[0]


def test_the_flax_loop_learns(ran):
  names = block_with(ran, "gx.nnx.MixedOptimizer")[1]
  logits = names["evaluated"](names["images"])
  # Four equal images with four labels: no better than log 4, from about log 5.
  chosen = jax.nn.log_softmax(logits)[jnp.arange(4), names["labels"]]
  assert -chosen.mean() == pytest.approx(math.log(4), abs=0.1)
  state = flax.nnx.as_pure(names["optimizer"].opt_state)
  (trained,) = {leaf.shape[0] for leaf in _kernels(state, "query")}
  assert trained == 2  # of 20 rows


def _kernels(tree, name):
  named = jax.tree.leaves_with_path(tree)
  return [leaf for path, leaf in named if name in jax.tree_util.keystr(path)]
