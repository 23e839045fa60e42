"""Tests what the report makes of lines of `experiments.diagnostics`."""

import copy

from experiments import report as command
from experiments.reporting import diagnosed, display_names, records
from tests.combinations import EXHAUSTIVE
from tests.experiments.reporting import lines


def bvcl_line(name, value, seeds=(0, 1, 2), **settings):
  def terms(*names):
    return {
      term: {"mean": value, "low": value - 0.1, "high": value + 0.3}
      for term in names
    }

  scores = (
    "bias2", "variance", "covariance", "member", "ensemble", "average",
    "deployed", "residual", "disagreement", "cka_1m",
  )  # fmt: skip
  return {
    "config": {
      "method": {"name": name, **settings},
      "data": "scanned_digits",
      "members": 4,
      "rate": "held",
    },
    "seeds": list(seeds),
    "bvcl": {
      "id": terms(*scores) | {"ratio_error": None},
      "ood": terms(*scores) | {"ratio_error": None},
      "weights": terms("locality", "relative_locality", "angle"),
      "angle_of_runs": 80.0,
    },
  }


LANDSCAPE = {
  "config": {"data": "digits"},
  "seed": 0,
  "landscape": {
    "alpha": [0, 1],
    "lines": {"gmixout": {"id": [0.5, 0.9], "ood": [0.6, 0.7]}},
    "plane": {
      "x": [0, 1],
      "y": [0, 1],
      "id": [[0.5, 0.6], [0.4, 0.9]],
      "ood": [[0.5, 0.6], [0.4, 0.5]],
      "names": ["zero_shot", "full_finetuning", "gmixout"],
      "coordinates": [[0, 0], [1, 0], [0.5, 0.8]],
    },
  },
}


def test_lines_of_bvcl_that_differ_in_one_setting_are_a_curve():
  measured = [
    bvcl_line("gmixout", 0.1, sparsity=0.9, anchor_decay=0.3),
    bvcl_line("gmixout", 0.2, sparsity=0.5, anchor_decay=0.3),
    bvcl_line("gmixout", 0.3, sparsity=0.5, anchor_decay=0.6),
    bvcl_line("gmixout", 0.4, sparsity=0.5, anchor_decay=0.3),  # measured anew
    bvcl_line("gmixout", 0.5, seeds=(3, 4, 5), sparsity=0.8, anchor_decay=0.3),
  ]
  found = {knob: same for knob, same in diagnosed.curves(measured)}
  assert set(found) == {"sparsity", "anchor_decay"}
  assert found["sparsity"] == [measured[0], measured[3]]
  assert found["anchor_decay"] == [measured[3], measured[2]]


def test_diagnostics_are_part_of_the_report(tmp_path):
  path = tmp_path / "runs.jsonl"
  measured = [
    bvcl_line("mixout", 0.1 * i, resample_every=i, sparsity=0.9) for i in (1, 5)
  ]
  for line in [lines.line("zero_shot", 0), *measured, LANDSCAPE]:
    records.append(path, line)
  command.write((path,), tmp_path / "out")
  text = (tmp_path / "out" / "report.md").read_text()
  assert "4 lines, 3 configurations" in text
  assert "| Mixout (k 5) | 0.50 ± 0.20 |" in text
  for name in ("bvcl_mixout_resample_every", "lines", "plane"):
    assert (tmp_path / "out" / f"{name}.pdf").is_file()
    assert f"({name}.png)" in text
  alone = tmp_path / "alone.jsonl"
  records.append(alone, measured[0])
  command.write((alone,), tmp_path / "alone")
  assert "Difference" not in (tmp_path / "alone" / "report.md").read_text()


@EXHAUSTIVE  # those of the digits are above
def test_diagnostics_of_another_task_name_it(tmp_path):
  path = tmp_path / "runs.jsonl"
  own = {"root": "PACS", "source": "sketch"}
  others = [bvcl_line("gmixout", 0.1, sparsity=p) for p in (0.5, 0.9)]
  for line in others:
    line["config"] |= {"data": own, "backbone": "clip", "crops": "original"}
  probed = copy.deepcopy(LANDSCAPE)
  probed["config"]["data"] = own
  probed["landscape"]["plane"]["names"][0] = "linear_probe"
  for line in [bvcl_line("gmixout", 0.2, sparsity=0.5), *others, probed]:
    records.append(path, line)
  command.write((path,), tmp_path / "out")
  text = (tmp_path / "out" / "report.md").read_text()
  # The tables of a task are its own, and those of the digits are as they were.
  assert ": out of distribution, mean over shifts\n" in text
  on = ", on PACS from sketch, clip"
  assert f": out of distribution, mean over shifts{on}\n" in text
  assert f" Diversity of members and their distance{on}\n" in text
  assert "| GMixout (p 0.9) | 0.10" in text
  assert "| GMixout | 0.20" in text
  axis = display_names.axis("sparsity")
  assert f"GMixout, {axis}{on}. Bias, variance" in text
  assert "PACS from sketch. Accuracy on the lines from linear probe to" in text
