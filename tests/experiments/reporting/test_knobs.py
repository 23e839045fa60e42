"""Tests `experiments/reporting/knobs.py`, and its figures."""

import pytest

from experiments.methods.full_finetuning import FullFinetuning
from experiments.methods.gmixout import GMixout
from experiments.methods.l2_sp import L2SP
from experiments.methods.lora import LoRA
from experiments.methods.wise_ft import WiseFT
from experiments.reporting import knob_figures, knobs
from experiments.reporting.entries import group
from tests.experiments.reporting.lines import line


@pytest.fixture
def entries():
  methods = [
    *(GMixout(resample_every=k) for k in (50, 1, 10)),
    *(GMixout(anchor_decay=decay) for decay in (0.0, 0.8)),
    *(GMixout(sparsity=p, resample_every=1) for p in (0.5, 0.97)),
    *(GMixout(learning_rate=rate) for rate in (1e-2, 1e-4)),
    *(L2SP(of=FullFinetuning(learning_rate=r)) for r in (1e-4, 1e-3)),
    *(LoRA(rank=rank) for rank in (2, 8, 32)),
    *(WiseFT(alpha=alpha) for alpha in (0.2, 0.5, 0.9)),
    FullFinetuning(),
  ]
  lines = [line(method, seed) for method in methods for seed in range(2)]
  return group([line("zero_shot", 0), *lines])


def values(entries, knob):
  return {c.label: c.values for c in knobs.curves(entries, knob)}


def test_a_curve_is_over_one_setting_whatever_the_rate(entries):
  # Of one λ there are three rates, so a curve is at one of them.
  assert values(entries, "anchor_decay") == {"GMixout": (0.0, 0.3, 0.8)}
  assert values(entries, "rank") == {"LoRA": (2, 8, 32)}
  assert values(entries, "sparsity") == {"GMixout": (0.5, 0.9, 0.97)}
  assert values(entries, "learning_rate") == {
    "GMixout": (1e-4, 2.5e-3, 1e-2),
    "L2-SP": (1e-4, 1e-3),
  }
  assert values(entries, "alpha") == {"WiSE-FT": (0.2, 0.5, 0.9)}


def test_a_figure_for_each_setting_with_lines_to_compare_with(entries):
  chosen = [
    entry
    for entry in entries
    if entry.method != "wise_ft" or entry.config["method"]["alpha"] == 0.5
    if entry.config["method"].get("learning_rate") not in (1e-2, 1e-4)
    or entry.method == "full_finetuning"
  ]
  found = knob_figures.draw(entries, chosen)
  assert list(found) == [
    "curve_anchor_decay",
    "curve_resample_every",
    "curve_sparsity",
    "curve_learning_rate",
    "curve_rank",
    "curve_alpha",
  ]
  scales = {name: each.axes[0].get_xscale() for name, each in found.items()}
  assert scales == {
    "curve_anchor_decay": "linear",
    "curve_resample_every": "log",
    "curve_sparsity": "linear",
    "curve_learning_rate": "log",
    "curve_rank": "log",
    "curve_alpha": "linear",
  }
  for picture in found.values():
    assert len(picture.axes) == 2
    (legend,) = picture.legends
    names = [text.get_text() for text in legend.get_texts()]
    assert names[:2] == ["Zero-shot", "Full fine-tuning"]
    assert len(set(names)) == len(names)
    picture.draw_without_rendering()
