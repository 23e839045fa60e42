"""Tests `experiments/reporting/tables.py`."""

import rich

from experiments.reporting import tables


def run(name, seed, accuracy, **settings):
  return {
    "config": {"method": {"name": name} | settings},
    "seed": seed,
    "metrics": {
      "id": accuracy,
      "mean_ood": accuracy / 2,
      "worst_ood": accuracy / 4,
      "ood": {"photo": accuracy / 2, "art": accuracy / 4},
    },
  }


RUNS = [
  run("gmixout", 0, 0.8),
  run("gmixout", 1, 0.6),
  run("zero_shot", 0, 0.5),
]


def test_tables_show_means_and_spreads(capsys):
  rich.print(tables.by_method(RUNS))
  shown = capsys.readouterr().out
  # Student's t of one degree of freedom has 12.706 at 97.5 %.
  for cell in ("70.0 ± 127.1", "35.0 ± 63.5", "17.5 ± 31.8", "50.0", "12.5"):
    assert cell in shown


def test_runs_without_targets_have_a_dash(capsys):
  alone = [
    record | {"metrics": {"id": record["metrics"]["id"], "ood": {}}}
    for record in RUNS
  ]
  rich.print(tables.by_method(alone))
  shown = capsys.readouterr().out
  assert "70.0 ± 127.1" in shown
  assert "–" in shown


def test_a_set_has_a_row_and_a_method_a_column():
  view = tables.by_set(RUNS)
  assert [column.header for column in view.columns] == [
    "set",
    "GMixout",
    "Zero-shot",
  ]
  assert view.row_count == 3


def test_a_set_that_a_run_was_not_evaluated_on_has_a_dash():
  other = run("mixout", 0, 0.4)
  other["metrics"]["ood"] = {"art": 0.1, "clipart": 0.2}
  view = tables.by_set([RUNS[2], other])
  assert list(view.columns[0].cells) == [
    *("in distribution", "photo", "art", "clipart")
  ]
  assert list(view.columns[1].cells) == ["50.0", "25.0", "12.5", "–"]
  assert list(view.columns[2].cells) == ["40.0", "–", "10.0", "20.0"]


def test_two_configurations_of_a_method_are_told_apart(tmp_path):
  runs = [
    run("gmixout", seed, accuracy, resample_every=k)
    for k, accuracy in ((1, 0.9), (10, 0.5))
    for seed in (0, 1)
  ]
  shown = tables.by_set(runs)
  assert [column.header for column in shown.columns[1:]] == [
    "GMixout (k 1)",
    "GMixout (k 10)",
  ]
  assert list(shown.columns[1].cells) == ["90.0", "45.0", "22.5"]
  assert tables.by_method(runs).row_count == 2
