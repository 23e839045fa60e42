"""Tables of GMixout's settings: what the study's parts of settings measured."""

from collections.abc import Sequence

from experiments.reporting import entries
from experiments.reporting.bound_figure import METHOD, bound_of
from experiments.reporting.chosen_rates import relabelled
from experiments.reporting.document import Table
from experiments.reporting.entries import Entry


def ablations(found: Sequence[Entry], others: Sequence[Entry]) -> Table:
  """Accuracy of every variant, and its difference from the first's.

  Args:
    found: Of one task, the default configuration first.
    others: Further methods on it, which stand below.
  """
  shown = relabelled([*found, *others])
  base = shown[0]
  metrics = ("id", "mean_ood")
  compared = [
    {each.label: each for each in entries.compare(shown, base, metric)}
    for metric in metrics
  ]
  rows = []
  for entry in shown:
    row = [entry.label]
    for metric, differences in zip(metrics, compared, strict=True):
      row.append(entry.percent(metric))
      if (other := differences.get(entry.label)) is None:
        row.append("")
        continue
      star = "*" if other.p_adjusted < 0.05 else ""
      row.append(other.paired.difference.points() + star)
    rows.append(row)
  header = ["", "ID", "difference", "OOD", "difference"]
  return Table("", "", header, rows)


def bounds(tasks: Sequence[Sequence[Entry]], *, rescale: bool) -> Table:
  """The bound and the accuracy of each k and λ, in runs of several lengths.

  Below stand the other methods.

  Args:
    tasks: The entries of each length.
    rescale: Of GMixout with rescaling, or of that without.
  """
  columns: list[dict[tuple, Entry]] = []
  header = ["k", "λ"]
  for found in tasks:
    columns.append(
      {
        _row_of(entry): entry
        for entry in found
        if bool(entry.config["method"].get("rescale", rescale)) is rescale
      }
    )
    header += [f"{found[0].config['steps']} steps: bound", "ID", "OOD"]
  rows = []
  for row in sorted(set().union(*columns), key=_order):
    k, decay = row
    cells = [str(k), f"{decay:g}"] if decay is not None else [k, ""]
    for column in columns:
      bound = bound_of(column[row]) if decay is not None else None
      cells += [
        "" if bound is None else f"{bound:.2f}",
        column[row].percent("id"),
        column[row].percent("mean_ood"),
      ]
    rows.append(cells)
  return Table("", "", header, rows)


def _row_of(entry: Entry) -> tuple[int | str, float | None]:
  """GMixout's k and λ, or another method's name."""
  method = entry.config["method"]
  if entry.method != METHOD:
    return entry.label, None
  return method["resample_every"], method["anchor_decay"]


def _order(row: tuple[int | str, float | None]) -> tuple:
  k, decay = row
  return (1, 0, str(k)) if decay is None else (0, k, decay)
