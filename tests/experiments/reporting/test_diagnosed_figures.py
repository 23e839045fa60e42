"""Tests `experiments/reporting/diagnosed_figures.py`, on made-up records."""

import numpy as np
import pytest

from experiments.reporting import diagnosed_figures

TERMS = (
  "bias2",
  "variance",
  "covariance",
  "residual",
  "relative_locality",
  "angle",
)


def terms(mean):
  """All terms alike, with an interval around them."""
  found = {"mean": mean, "low": mean - 0.1, "high": mean + 0.1}
  return dict.fromkeys(TERMS, found)


def test_terms_are_drawn_from_their_records():
  records = [
    {
      "config": {
        "method": {"name": "gmixout", "sparsity": sparsity},
        "members": 2,
        "rate": "held",
      },
      "seeds": [0, 1, 2],
      "bvcl": {
        "id": terms(sparsity),
        "ood": terms(2 * sparsity),
        "weights": terms(3 * sparsity),
      },
    }
    for sparsity in (0.9, 0.5)
  ]
  picture = diagnosed_figures.terms(records, "sparsity")
  titles = [view.get_title() for view in picture.axes]
  assert titles[0] == "ID: bias²"
  assert titles[5] == "OOD: variance and covariance"
  drawn = {}
  for row, view in zip(("id", "ood"), picture.axes[::4], strict=True):
    ((line, *_),) = view.containers
    x, drawn[row] = line.get_data()
    assert list(x) == [0.5, 0.9]
  np.testing.assert_allclose(drawn["id"], [0.5, 0.9])
  np.testing.assert_allclose(drawn["ood"], [1.0, 1.8])
  with pytest.raises(ValueError, match="no setting 'rank'"):
    diagnosed_figures.terms(records, "rank")
  with pytest.raises(ValueError, match="no records"):
    diagnosed_figures.terms([], "sparsity")


def test_lines_and_planes_are_drawn():
  found = {
    "alpha": [0, 0.5, 1],
    "lines": {"gmixout": {"id": [0.7, 0.9, 0.95], "ood": [0.6, 0.7, 0.65]}},
  }
  (view,) = diagnosed_figures.line(found).axes
  np.testing.assert_allclose(view.lines[0].get_ydata(), [70, 90, 95])
  plane = {
    "x": [0, 1, 2],
    "y": [0, 1],
    "id": [[0.5, 0.6, 0.7], [0.4, 0.5, 0.6]],
    "ood": [[0.5, 0.6, 0.5], [0.4, 0.5, 0.7]],
    "names": ["zero_shot", "full_finetuning", "gmixout"],
    "coordinates": [[0, 0], [2, 0], [0.5, 0.8]],
  }
  left = diagnosed_figures.plane(plane).axes[0]
  points = [line.get_xydata()[0].tolist() for line in left.lines]
  assert points == plane["coordinates"]
