"""Learning rates, chosen by what the result files say of validation images."""

from collections.abc import Iterable, Mapping, Sequence

from experiments.methods import Method, described
from experiments.reporting import records
from experiments.study.plan import RATES_SEED, Cell, Grid
from experiments.study.tasks import Setting


def identity(cell: Cell) -> tuple[records.Record, int]:
  """Configuration and seed, as they are found again in a line."""
  config = {
    "method": records.plain(described(cell.method)),
    **records.plain(cell.setting.described()),
  }
  return config, cell.seed


def line_of(
  cell: Cell, lines: Iterable[records.Record]
) -> records.Record | None:
  """The latest line of a cell; None if it has not been run."""
  wanted, found = identity(cell), None
  for line in lines:
    if (line.get("config"), line.get("seed")) == wanted:
      found = line
  return found


def best(
  setting: Setting,
  tried: Sequence[Method],
  lines: Sequence[records.Record],
) -> Method:
  """The most accurate on validation images, of equals the best calibrated.

  Args:
    setting: The task.
    tried: One method at several rates.
    lines: Of the runs with `RATES_SEED`.

  Raises:
    LookupError: If one has not been run.
  """

  def score(method: Method) -> tuple[float, float]:
    line = line_of(Cell(setting, method, RATES_SEED), lines)
    if line is None:
      raise LookupError(f"not run yet: {described(method)}")
    details = line["metrics"]["details"]
    # Where accuracy at home is reported on other images than choices are made.
    found = details.get("validation", details["id"])
    return found["top1"], -found["brier"]

  return max(tried, key=score)


def chosen(
  setting: Setting,
  searched: Mapping[str, Grid],
  names: Iterable[str],
  lines: Sequence[records.Record],
) -> dict[str, Method]:
  """The best of every grid; errors as of `best`."""
  return {
    name: best(setting, searched[name].methods(), lines) for name in names
  }


def edges(
  searched: Mapping[str, Grid], chosen: Mapping[str, Method]
) -> list[str]:
  """The methods whose best rate is the smallest or the largest of its grid."""
  return [
    name
    for name, method in chosen.items()
    if method in (searched[name].methods()[0], searched[name].methods()[-1])
  ]
