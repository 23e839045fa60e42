"""Runs the scripts in `examples/`, some with fewer steps, and reads them."""

import importlib.util
import pathlib
import re

import jax
import pytest

from tests.combinations import EXHAUSTIVE, tried

EXAMPLES = pathlib.Path(__file__).parents[1] / "examples"
# Those that fine-tune a network on digits with rows and columns swapped.
SWAPPED = ("two_forms", "nnx_model", "linen_model", "equinox_model")
OTHERS = ("scanned_model", "own_images")


def run(name, capsys, **constants):
  """What a script prints, with some of its constants changed."""
  place = EXAMPLES / f"{name}.py"
  spec = importlib.util.spec_from_file_location(f"example_{name}", place)
  module = importlib.util.module_from_spec(spec)
  spec.loader.exec_module(module)
  for constant, value in constants.items():
    assert hasattr(module, constant), constant
    setattr(module, constant, value)
  with jax.numpy_rank_promotion("allow"):  # as users have it
    module.main()
  return capsys.readouterr().out


def test_every_script_is_run():
  found = {path.stem for path in EXAMPLES.iterdir() if path.suffix}
  assert found == {*SWAPPED, *OTHERS}


# Guides that a test runs show Linen and NNX; Equinox has tests of its own.
@pytest.mark.parametrize(
  "name", tried(SWAPPED, lambda name: name == "two_forms")
)
def test_gmixout_learns_the_new_and_keeps_more_of_the_old(name, capsys):
  printed = run(name, capsys)
  rows = re.findall(r"^(\S+) +([\d.]+)% +([\d.]+)%$", printed, re.M)
  new, old = (
    {name: float(columns[i]) for name, *columns in rows} for i in (0, 1)
  )
  assert new["pretrained"] < 50 < old["pretrained"]
  assert new["GMixout"] > 50 < new["fine-tuned"]
  assert old["GMixout"] > old["fine-tuned"]
  if name == "two_forms":
    assert (new["packed"], old["packed"]) == (new["GMixout"], old["GMixout"])
    assert float(printed.split()[-1]) < 1e-5
  if name == "nnx_model":
    dense, packed = re.findall(r"([\d,]+) for", printed)
    assert int(packed.replace(",", "")) < 0.2 * int(dense.replace(",", ""))


def test_a_scanned_model_is_placed_by_its_metadata(capsys):
  printed = run("scanned_model", capsys, STEPS=30)
  specs = dict(re.findall(r"^(.*?) +(\(\d.*\)) +P", printed, re.M))
  assert specs == {"weights": "(6, 32, 32)", "first moments": "(6, 3, 32)"}
  assert printed.count("'model'") == 2
  before, after = re.findall(r"([\d.]+) (?:before|after)", printed)
  assert float(after) < 0.9 * float(before)


@EXHAUSTIVE  # the same commands as in the guide, which are tested
def test_images_of_ones_own_lead_to_predictions(capsys):
  printed = run("own_images", capsys, STEPS=20)
  share, count = re.findall(r"([\d.]+)% of (\d+) new images", printed)[0]
  assert int(count) == 220
  assert float(share) > 70  # of four classes
