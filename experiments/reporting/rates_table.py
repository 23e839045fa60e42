"""A table of accuracy at every learning rate that a method ran with."""

from collections.abc import Sequence

from experiments.reporting import chosen_rates
from experiments.reporting.document import Table
from experiments.reporting.entries import Entry


def table(entries: Sequence[Entry]) -> Table | None:
  """ID / OOD accuracy along the rates (of WiSE-FT along α), a row per method.

  Args:
    entries: Of one task, at all rates.

  Returns:
    None where no method ran with several.
  """
  curves = [c for c in chosen_rates.curves(entries) if len(c) > 1]
  if not curves:
    return None
  labels = [e.label for e in chosen_rates.relabelled([c[0] for c in curves])]
  most = max(map(len, curves))
  rows = []
  for label, curve in zip(labels, curves, strict=True):
    knob = chosen_rates.knob_of(curve)
    rates = [chosen_rates.value_of(entry, knob) for entry in curve]
    cells = [_accuracies(entry) for entry in curve]
    cells += ["–"] * (most - len(cells))
    rows.append((label, f"{rates[0]:g} to {rates[-1]:g}", *cells))
  return Table(
    "ID / OOD accuracy along the learning rate",
    "In percent, means over seeds, from the smallest rate to the largest; of"
    " WiSE-FT along α.",
    ("method", "rates", *(str(i + 1) for i in range(most))),
    rows,
  )


def _accuracies(entry: Entry) -> str:
  shown = [f"{100 * entry.interval('id').mean:.1f}"]
  if entry.has_targets:
    shown.append(f"{100 * entry.interval('mean_ood').mean:.1f}")
  return " / ".join(shown)
