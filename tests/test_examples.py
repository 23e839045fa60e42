"""Runs the scripts in `examples/` and reads what they print."""

import pathlib
import re
import runpy

import jax
import pytest

EXAMPLES = sorted((pathlib.Path(__file__).parents[1] / "examples").glob("*.py"))


@pytest.mark.parametrize("script", EXAMPLES, ids=lambda path: path.stem)
def test_gmixout_learns_the_new_and_keeps_more_of_the_old(
  script, capsys, monkeypatch
):
  monkeypatch.setattr(jax, "device_count", lambda: 2)
  with jax.numpy_rank_promotion("allow"):  # as users have it
    runpy.run_path(str(script), run_name="__main__")
  printed = capsys.readouterr().out
  rows = re.findall(r"^(\S+) +([\d.]+)% +([\d.]+)%$", printed, re.M)
  new, old = (
    {name: float(columns[i]) for name, *columns in rows} for i in (0, 1)
  )
  assert new["pretrained"] < 50 < old["pretrained"]
  assert new["GMixout"] > 50 < new["fine-tuned"]
  assert old["GMixout"] > old["fine-tuned"]
