"""Learning rates, chosen by what the result files say of validation images."""

from collections.abc import Iterable, Mapping, Sequence

from experiments.configs.study.plan import RATES_SEED, Grid
from experiments.harness.cell import Cell
from experiments.methods import Method, described
from experiments.reporting.identity import identity_of
from experiments.reporting.records import Record
from experiments.tasks.task import Task


def best(
  task: Task, tried: Sequence[Method], lines: Sequence[Record]
) -> Method:
  """The most accurate on validation images, of equals the best calibrated.

  Args:
    task: The task.
    tried: One method at several rates.
    lines: Of the runs with `RATES_SEED`.

  Raises:
    LookupError: If one has not been run.
  """
  by_identity = {identity_of(x["config"], x["seed"]): x for x in lines}

  def score(method: Method) -> tuple[float, float]:
    line = by_identity.get(Cell(task, method, RATES_SEED).identity)
    if line is None:
      raise LookupError(f"not run yet: {described(method)}")
    details = line["metrics"]["details"]
    # Where ID accuracy is reported on other images than choices are made on.
    found = details.get("validation", details["id"])
    return found["top1"], -found["brier"]

  return max(tried, key=score)


def chosen(
  task: Task,
  searched: Mapping[str, Grid],
  names: Iterable[str],
  lines: Sequence[Record],
) -> dict[str, Method]:
  """The best of every grid; errors as of `best`."""
  return {name: best(task, searched[name].methods(), lines) for name in names}


def edges(
  searched: Mapping[str, Grid], chosen: Mapping[str, Method]
) -> list[str]:
  """The methods whose best rate is the smallest or the largest of its grid."""
  return [
    name
    for name, method in chosen.items()
    if method in (searched[name].methods()[0], searched[name].methods()[-1])
  ]
