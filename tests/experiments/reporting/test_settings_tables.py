"""Tests `experiments/reporting/settings_tables.py`."""

import pytest

from experiments.methods.full_finetuning import FullFinetuning
from experiments.methods.gmixout import GMixout
from experiments.reporting import settings_tables
from experiments.reporting.entries import by_task, group
from tests.experiments.reporting.lines import line

LUCK = (0.0, 0.01, 0.03)


def runs(method, *, top1, ood, lucks=LUCK, **changes):
  return [
    line(method, seed, top1=top1 + luck, ood=ood + luck, **changes)
    for seed, luck in enumerate(lucks)
  ]


def test_variants_are_compared_with_the_first():
  base = GMixout(rescale=True)
  # Seed by seed .2 better to .4, so that chance does not explain it.
  better = [
    line(GMixout(rescale=True, resample_every=1), seed, top1=0.9, ood=ood)
    for seed, ood in enumerate((0.601, 0.613, 0.632))
  ]
  found = group([*runs(base, top1=0.8, ood=0.4), *better])
  full = group(runs(FullFinetuning(), top1=0.8, ood=0.4, lucks=LUCK[::-1]))
  table = settings_tables.ablations(found, full)
  assert list(table.header) == [*("", "ID", "difference", "OOD", "difference")]
  first, second, third = table.rows
  assert first[::2] == ["GMixout (k 10)", "", ""]
  assert second[0] == "GMixout (k 1)"
  assert second[4] == "+20.2 ± 0.2*"
  assert third[0] == "Full fine-tuning"
  assert third[3] == full[0].percent("mean_ood")
  for difference in third[2::2]:
    assert difference.startswith("+0.0 ± ")
    assert not difference.endswith("*")


def test_the_default_below_its_variants_shows_how_all_of_them_differ():
  base = GMixout(rescale=True, learning_rate=5e-3)
  variant = GMixout(rescale=True, learning_rate=5e-3, resample_every=1)
  found = group(
    [*runs(base, top1=0.8, ood=0.4), *runs(variant, top1=0.8, ood=0.4)]
  )
  usual = group(runs(GMixout(), top1=0.8, ood=0.4))
  table = settings_tables.ablations(found, usual)
  assert [row[0] for row in table.rows] == [
    *("GMixout (rescale)", "GMixout (k 1, rescale)", "GMixout")
  ]


@pytest.mark.parametrize("rescale", [True, False])
def test_a_row_is_a_k_and_a_decay_in_runs_of_all_lengths(rescale):
  lines = []
  for steps in (100, 200):
    for k, decay in ((10, 0.3), (1, 0.3), (1, 0.0)):
      for scaled in (True, False):
        method = GMixout(resample_every=k, anchor_decay=decay, rescale=scaled)
        top1 = 0.9 - k / 100 + steps / 10_000 - 0.1 * scaled
        lines += runs(method, top1=top1, ood=0.5, steps=steps)
    lines += runs(FullFinetuning(), top1=0.9, ood=0.5, steps=steps)
  tasks = list(by_task(lines).values())
  table = settings_tables.bounds(tasks, rescale=rescale)
  assert list(table.header) == [
    *("k", "λ", "100 steps: bound", "ID", "OOD"),
    *("200 steps: bound", "ID", "OOD"),
  ]
  assert [row[:2] for row in table.rows] == [
    ["1", "0"], ["1", "0.3"], ["10", "0.3"], ["Full fine-tuning", ""],
  ]  # fmt: skip
  bound = 1 - 0.93**10 if rescale else 1 - 0.3**10
  *_, row, full = table.rows
  assert full[2] == full[5] == ""
  assert row[2] == f"{bound:.2f}"
  id_accuracies = [float(row[at].split(" ± ")[0]) for at in (3, 6)]
  mean = 80 + 100 * sum(LUCK) / 3 - 10 * rescale
  assert id_accuracies == pytest.approx([mean + 1, mean + 2], abs=0.06)
