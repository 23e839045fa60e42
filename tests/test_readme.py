"""Tests that the README's examples run as they are printed."""

import math
import pathlib
import re

import jax
import jax.numpy as jnp
import pytest

README = pathlib.Path(__file__).parents[1] / "README.md"


def run_example(marker):
  """The names that the one code block with `marker` in it defines."""
  blocks = re.findall(r"```python\n(.*?)```", README.read_text(), re.DOTALL)
  (example,) = [block for block in blocks if marker in block]
  names = {}
  exec(compile(example, str(README), "exec"), names)
  return names


def test_the_training_loop_runs_and_learns():
  names = run_example("optax.partition")
  loss, deployed = names["loss"], names["deployed"]
  at_first = (40 * math.tanh(1.0) - 1.0) ** 2  # all weights are 1
  assert loss(deployed) < 0.99 * at_first
  moved = deployed["blocks"][0]["fc1"]["kernel"] != 1.0
  assert jnp.any(moved)


def test_the_compact_loop_runs_and_learns():
  names = run_example("gx.nnx.split")
  logits = names["model"](names["images"])
  # Four equal images with four labels: no better than log 4, from about log 5.
  chosen = jax.nn.log_softmax(logits)[jnp.arange(4), names["labels"]]
  assert -chosen.mean() == pytest.approx(math.log(4), abs=0.1)
  (trained,) = {leaf.shape[0] for leaf in _kernels(names["opt_state"], "query")}
  assert trained == 2  # of 20 rows


def _kernels(tree, name):
  named = jax.tree.leaves_with_path(tree)
  return [leaf for path, leaf in named if name in jax.tree_util.keystr(path)]
