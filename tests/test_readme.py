"""Tests that the README's example runs as it is printed."""

import math
import pathlib
import re

import jax.numpy as jnp

README = pathlib.Path(__file__).parents[1] / "README.md"


def test_the_training_loop_runs_and_learns():
  blocks = re.findall(r"```python\n(.*?)```", README.read_text(), re.DOTALL)
  (example,) = [block for block in blocks if block.startswith("import")]
  names = {}
  exec(compile(example, str(README), "exec"), names)
  loss, deployed = names["loss"], names["deployed"]
  at_first = (40 * math.tanh(1.0) - 1.0) ** 2  # all weights are 1
  assert loss(deployed) < 0.99 * at_first
  moved = deployed["blocks"][0]["fc1"]["kernel"] != 1.0
  assert jnp.any(moved)
