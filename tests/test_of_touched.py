"""Tests `tests/of_touched.py`: which tests a commit runs."""

import pathlib

import pytest

from tests import of_touched

ROOT = pathlib.Path(__file__).parents[1]


@pytest.mark.parametrize(
  ("touched", "test"),
  [
    (
      "gmixout_jax/_core/samplers.py",
      "tests/gmixout_jax/_core/test_samplers.py",
    ),
    (
      "gmixout_jax/_core/mixed_leaf.py",
      "tests/gmixout_jax/test_fused_adamw.py",
    ),
    ("gmixout_jax/eval_params.py", "tests/gmixout_jax/test_mixed_params.py"),
    (
      "gmixout_jax/averaging/swad.py",
      "tests/gmixout_jax/averaging/test_trajectory.py",
    ),
    (
      "pallas_kernels/pack/reference.py",
      "tests/pallas_kernels/test_masked_mix.py",
    ),
    ("experiments/task_options.py", "tests/experiments/tasks/test_options.py"),
    ("experiments/bench/update.py", "tests/experiments/bench/test_bench.py"),
    (
      "experiments/configs/imagenet.py",
      "tests/experiments/configs/test_configs.py",
    ),
  ],
)
def test_it_finds_them_by_name_by_import_or_by_folder(
  touched, test, monkeypatch
):
  monkeypatch.chdir(ROOT)
  own, *found = map(str, of_touched.tests_of(pathlib.Path(touched)))
  assert own == touched  # for its docstrings
  assert test in found
  assert all(pathlib.Path(one).is_file() for one in found)


def test_a_test_is_its_own_and_other_files_have_none(monkeypatch):
  monkeypatch.chdir(ROOT)
  test = pathlib.Path("tests/test_house.py")
  assert of_touched.tests_of(test) == [test]
  for other in ("docs/hooks.py", "gmixout_jax/gone.py"):
    assert of_touched.tests_of(pathlib.Path(other)) == []
