"""Tests `experiments/tables.py`."""

from experiments import results, tables


def run(name, seed, accuracy):
  return {
    "config": {"method": {"name": name}},
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


def test_tables_show_means_and_spreads(tmp_path, capsys):
  path = tmp_path / "runs.jsonl"
  for record in RUNS:
    results.append(path, record)
  tables.show(path, picture=tmp_path / "ood.png")
  shown = capsys.readouterr().out
  for cell in ("70.0 ± 14.1", "35.0 ± 7.1", "17.5 ± 3.5", "50.0", "12.5"):
    assert cell in shown
  assert (tmp_path / "ood.png").stat().st_size > 1000


def test_a_set_has_a_row_and_a_method_a_column():
  view = tables.by_set(RUNS)
  assert [column.header for column in view.columns] == [
    "set",
    "GMixout",
    "Zero-shot",
  ]
  assert view.row_count == 3
