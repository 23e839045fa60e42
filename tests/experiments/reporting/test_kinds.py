"""Lines of all kinds in one report, and what they may hold."""

import pathlib
import re

import pytest

from experiments import report
from experiments.reporting import kinds, models_alone, records

RESULTS = pathlib.Path(records.__file__).parents[1] / "results"

LINE_OF_A_RUN = {
  "config": {"method": {"name": "gmixout"}, "data": "x"},
  "seed": 0,
  "metrics": {"id": 0.5, "ood": {"a": 0.5}, "mean_ood": 0.5, "worst_ood": 0.5},
}


def test_names_are_text_in_markdown_and_in_html(tmp_path):
  """Tags, links, tables and code in the name of a set or of the data."""
  name = "<script>x</script> [a](http://b) |`c`| www.d.e"
  line = LINE_OF_A_RUN | {
    "config": LINE_OF_A_RUN["config"] | {"data": name},
    "metrics": LINE_OF_A_RUN["metrics"] | {"ood": {name: 0.5}},
  }
  path = tmp_path / "results.jsonl"
  records.append(path, line)
  assert report.main([str(path), "--out", str(tmp_path / "out")]) == 0
  page = (tmp_path / "out" / "report.html").read_text()
  text = (tmp_path / "out" / "report.md").read_text()
  for found in (page, text):
    assert "<script>x" not in found
    assert "&lt;script&gt;" in found
  assert "[a](" not in text
  assert "http://" not in text
  assert "www.d" not in text
  rows = [row for row in text.splitlines() if row.startswith("| method")]
  assert all("|`" not in row for row in rows)


@pytest.mark.parametrize(
  ("change", "message"),
  [
    ({"id": 1.5}, r"jsonl:1: the accuracy 'id' must be a number in \[0, 1\]"),
    ({"ood": {"a": -0.1}}, r"jsonl:1: the accuracy 'a' must .* got -0\.1"),
    ({"mean_ood": "x"}, r"jsonl:1: the accuracy 'mean_ood' must .* got 'x'"),
    ({"ood": 3}, r"jsonl:1 is no line of"),
  ],
)
def test_a_line_whose_accuracies_are_none_is_named(
  tmp_path, capsys, change, message
):
  path = tmp_path / "results.jsonl"
  metrics = LINE_OF_A_RUN["metrics"] | change
  records.append(path, LINE_OF_A_RUN | {"metrics": metrics})
  assert report.main([str(path), "--out", str(tmp_path / "out")]) == 1
  assert re.search(message, capsys.readouterr().err)


def test_all_published_lines_make_one_report():
  files = sorted(RESULTS.glob("*.jsonl"))
  lines = kinds.read(files)
  assert sum(map(len, lines)) == sum(len(records.read(file)) for file in files)
  assert all((lines.runs, lines.bvcl, lines.landscapes, lines.pretrained))
  (table,) = models_alone.pretrained(lines.pretrained)
  assert len(table.rows) == 3


def test_a_finished_model_has_a_part_of_its_own(tmp_path):
  details = {"top1": 0.5, "mean_per_class": 0.25, "ece": 0.125}
  line = {
    "config": {"model": "tuned", "data": {}},
    "metrics": {"ood": {"fog": 0.5}, "details": {"ood/fog": details}},
  }
  path = tmp_path / "evaluations.jsonl"
  records.append(path, line)
  lines = kinds.read([path])
  assert lines.evaluated == [line]
  (table,) = models_alone.evaluated(lines.evaluated)
  assert table.rows == [("tuned", "fog", "50.0", "25.0", "12.5")]
  records.append(path, line | {"metrics": {"details": {"id": {"top1": 2}}}})
  with pytest.raises(ValueError, match=r"evaluations\.jsonl:2"):
    kinds.read([path])
