"""Runs the demo's notebook, cell by cell, as Python and without Jupyter."""

import json
import pathlib

import matplotlib
import matplotlib.pyplot as plt

NOTEBOOK = pathlib.Path(__file__).parents[1] / "examples" / "demo.ipynb"
CELLS = json.loads(NOTEBOOK.read_text())["cells"]


def test_it_is_kept_without_outputs():
  """So that a diff shows what was written, and no number is out of date."""
  ids = [cell["id"] for cell in CELLS]
  assert len(set(ids)) == len(ids) > 4
  for cell in CELLS:
    if cell["cell_type"] == "code":
      assert cell["outputs"] == []
      assert cell["execution_count"] is None


def test_gmixout_loses_less_than_full_fine_tuning(monkeypatch):
  matplotlib.use("Agg")
  monkeypatch.setattr(plt, "show", lambda: None)
  names = {}
  try:
    for cell in CELLS:
      if cell["cell_type"] == "code":
        source = "".join(cell["source"])
        exec(compile(source, f"{NOTEBOOK.name}:{cell['id']}", "exec"), names)
    found = names["accuracy"]
    zero_shot, full, mixed = found.values()
    assert len(names["axes"].collections) == 3
  finally:
    plt.close("all")
  assert list(found) == ["zero-shot", "full fine-tuning", "GMixout"]
  assert full["id"] > zero_shot["id"] + 0.02
  assert mixed["id"] > zero_shot["id"]
  assert mixed["mean_ood"] > full["mean_ood"]
