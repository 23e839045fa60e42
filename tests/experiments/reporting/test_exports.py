"""Tests `experiments/reporting/exports.py`."""

import csv
import io
import re

import pytest

from experiments.methods.full_finetuning import FullFinetuning
from experiments.methods.gmixout import GMixout
from experiments.reporting import exports
from experiments.reporting.entries import by_task
from tests.experiments.reporting.lines import line

NOISE = (0.0, 0.01, -0.01)


@pytest.fixture
def tasks(rng):
  wobble = rng.normal(0, 1e-3, 9)
  lines = [
    line(method, seed, top1=top1, ood=ood + NOISE[seed] + wobble[3 * i + seed],
         data="50%_a&b")
    for i, (method, top1, ood) in enumerate((
      (FullFinetuning(), 0.95, 0.5),
      (GMixout(rescale=True), 0.9, 0.6),
      (GMixout(anchor_decay=0.5, rescale=True), 0.9, 0.6005),
    ))
    for seed in range(3)
  ]  # fmt: skip
  return by_task([*lines, line("zero_shot", 0, ood=0.4, data="50%_a&b")])


def test_a_row_of_the_csv_for_each_configuration(tasks):
  ((name, entries),) = tasks.items()
  text = exports.to_csv(tasks, {name: entries[:2]})
  rows = list(csv.DictReader(io.StringIO(text)))
  assert [row["chosen"] for row in rows] == ["yes", "yes", "no", "no"]
  assert {row["task"] for row in rows} == {name}
  for row, entry in zip(rows, entries, strict=True):
    found = entry.interval("mean_ood")
    assert float(row["mean_ood"]) == pytest.approx(found.mean, rel=1e-5)
    if found.n > 1:
      assert float(row["mean_ood_low"]) == pytest.approx(found.low, rel=1e-5)
    else:
      assert row["mean_ood_low"] == ""
    assert int(row["seeds"]) == len(entry.runs)
  assert float(rows[0]["progress_bound"]) == 1
  assert float(rows[1]["progress_bound"]) == pytest.approx(0.516, abs=1e-3)
  assert float(rows[0]["work of a step (FLOPs)"]) == 1e9


def test_latex_has_the_best_and_its_equals_in_bold(tasks):
  text = exports.to_latex(tasks)
  rows = [each for each in text.splitlines() if each.endswith(r"\\")][1:]
  cells = {
    name: [cell.startswith(r"\textbf{") for cell in own]
    for name, *own in (row.removesuffix(r" \\").split(" & ") for row in rows)
  }
  assert cells == {
    "Full fine-tuning": [True, False, False],
    r"GMixout ($\lambda$ 0.3)": [False, True, True],
    r"GMixout ($\lambda$ 0.5)": [False, True, True],
    "Zero-shot": [False, False, False],
  }
  assert r"50\%\_a\&b" in text
  assert re.search(r"60\.\d \$\\pm\$ \d\.\d", text)


def test_latex_is_balanced_whatever_names_hold(tasks):
  names = ["a{b", "c}d", "e\\f", "$g$", "#h", "~^", "λ ± β²"]
  told = {name: next(iter(tasks.values())) for name in names}
  text = exports.to_latex(told)
  bare = re.sub(r"\\[{}]", "", text)
  assert bare.count("{") == bare.count("}")
  assert len(re.findall(r"(?<!\\)\$", text)) % 2 == 0
  for command in ("begin{table}", "toprule", "midrule", "bottomrule"):
    assert text.count(f"\\{command}") == len(names)
