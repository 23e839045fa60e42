"""Tables of GMixout's settings: what the study's parts of settings measured."""

from collections.abc import Sequence

from experiments.reporting import entries
from experiments.reporting.bound_figure import bound_of
from experiments.reporting.document import Table
from experiments.reporting.entries import Entry
from experiments.reporting.knobs import setting

METHOD = "gmixout"


def ablations(found: Sequence[Entry], others: Sequence[Entry]) -> Table:
  """Accuracy of every variant, and its difference from the first's.

  Args:
    found: Of one task, the default configuration first.
    others: Further methods on it, which stand below.
  """
  base, shown = found[0], [*found, *others]
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
  header = ["", "ID", "less the first's", "OOD", "less the first's"]
  return Table("", "", header, rows)


def bounds(tasks: Sequence[Sequence[Entry]], *, rescale: bool) -> Table:
  """The bound and the accuracy of each k and λ, in runs of several lengths.

  Args:
    tasks: The entries of each length.
    rescale: Of GMixout with rescaling, or of that without.
  """
  columns: list[dict[tuple, Entry]] = []
  header = ["k", "λ"]
  for found in tasks:
    ours = [
      entry
      for entry in found
      if entry.method == METHOD
      and bool(setting(entry.config["method"], "rescale")) is rescale
    ]
    columns.append({_k_and_decay(entry): entry for entry in ours})
    steps = ours[0].config["steps"]
    header += [f"{steps} steps: bound", "ID", "OOD"]
  rows = []
  for k, decay in sorted(set().union(*columns)):
    row = [str(k), f"{decay:g}"]
    for column in columns:
      entry = column[k, decay]
      bound = bound_of(entry)
      assert bound is not None
      row += [f"{bound:.2f}", entry.percent("id"), entry.percent("mean_ood")]
    rows.append(row)
  return Table("", "", header, rows)


def _k_and_decay(entry: Entry) -> tuple[int, float]:
  method = entry.config["method"]
  return setting(method, "resample_every"), setting(method, "anchor_decay")
