"""Tests `bench/kernels.py`: what is timed, in which order, and what fails."""

import json
import math

import jax.numpy as jnp
import pytest

from experiments.bench import figures, kernels
from pallas_kernels import clip_shapes
from pallas_kernels.workload import Workload
from tests.combinations import EXHAUSTIVE

SMALL = {"large": (4, 40), "small": (2, 20)}


@pytest.fixture(autouse=True)
def _small(monkeypatch):
  monkeypatch.setattr(clip_shapes, "CLIP", clip_shapes.CLIP | SMALL)
  monkeypatch.setattr(
    clip_shapes, "BLOCK_MATRICES", {"one": {"large": 24}, "two": {"small": 48}}
  )
  monkeypatch.setattr(kernels, "copy_workload", lambda entries: adds(40))
  monkeypatch.setattr(kernels, "REDUCED_LEAVES", tuple(SMALL))
  for name, (make, _) in kernels.WORKLOADS.items():
    monkeypatch.setitem(kernels.WORKLOADS, name, (make, clip_shapes.CLIP))


def adds(entries):
  return Workload(
    lambda carry, turn: carry + 1, jnp.zeros(entries), 8 * entries
  )


def labels(results, suffix="_us"):
  return [n.removesuffix(suffix) for n in results if n.endswith(suffix)]


@EXHAUSTIVE
def test_what_is_timed_and_in_which_order(tmp_path):
  path = tmp_path / "figures.json"
  only = (kernels.BLOCKS, "masked_mix", "packed_step")
  kernels.run(path, repeats=1, only=only)
  found = json.loads(path.read_text())
  of = lambda dtype: [
    *(f"blocks/{n}/{dtype}/{i}" for n in ("one", "two") for i in BOTH),
    *(f"masked_mix/{n}/{dtype}/xla" for n in SMALL),
    *(f"packed_step/{n}/{dtype}/{i}" for n in SMALL for i in BOTH),
  ]
  assert labels(found) == ["copy", *of("bf16"), *of("f32")]
  assert all(math.isfinite(value) and value > 0 for value in found.values())
  label = "blocks/two/f32"
  assert found[f"{label}/xla_over_adamw"] == pytest.approx(
    found[f"{label}/xla_us"] / found[f"{label}/adamw_us"]
  )
  assert found[f"{label}/xla_of_copy"] == pytest.approx(
    found[f"{label}/xla_gbps"] / found["copy_gbps"]
  )


BOTH = ("xla", "adamw")


def test_what_fails_ends_nothing_and_is_said(tmp_path, monkeypatch):
  seen = []

  def make(shape, dtype, name):
    if shape == SMALL["large"]:
      seen.append(json.loads(path.read_text()))
      raise ValueError("no such kernel")
    return adds(3)

  path = tmp_path / "figures.json"
  monkeypatch.setitem(kernels.WORKLOADS, "pack", (make, clip_shapes.CLIP))
  with pytest.raises(figures.IncompleteError) as error:
    kernels.run(path, repeats=1, only=("pack",), dtypes=("f32",))
  assert str(error.value) == (
    "not measured: pack/large/f32/xla: ValueError: no such kernel"
  )
  assert labels(json.loads(path.read_text())) == ["copy", "pack/small/f32/xla"]
  # Figures are written as they come.
  assert labels(seen[0]) == ["copy"]


def test_when_the_time_is_up_nothing_is_begun(tmp_path):
  path = tmp_path / "figures.json"
  with pytest.raises(
    figures.IncompleteError, match="no time was left"
  ) as error:
    kernels.run(path, repeats=1, only=("pack",), leaves=("small",), seconds=-1)
  assert "pack/small/bf16/xla" in str(error.value)
  assert labels(json.loads(path.read_text())) == ["copy"]


@pytest.mark.parametrize(
  ("argument", "name"), [("only", "mix"), ("dtypes", "f16"), ("leaves", "b")]
)
def test_names_that_are_not_there_are_quoted(argument, name):
  with pytest.raises(ValueError, match=rf"{argument} must be.*\['{name}'\]"):
    kernels.run(**{argument: (name,)})
