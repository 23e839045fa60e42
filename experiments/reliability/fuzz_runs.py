"""What runs leave, for `fuzz`: checkpoints and lines of results."""

import warnings
from typing import Any

import numpy as np

from experiments.reliability import mutations
from experiments.reliability.reader import Path, Reader
from experiments.reporting import kinds, records
from gmixout_jax.checkpoint import Checkpoints

_STATE = {"w": np.arange(12.0).reshape(3, 4), "n": np.int32(3)}


def _checkpoint(folder: Path) -> None:
  with Checkpoints(folder / "run", config={"a": 1}) as saved:
    saved.save(3, _STATE, iterator={"next": 3}, score=0.5)


def _restored(folder: Path) -> Any:
  with (
    warnings.catch_warnings(),
    Checkpoints(folder / "run", config={"a": 1}) as saved,
  ):
    warnings.simplefilter("ignore")  # which says what was set aside
    return saved.restore(_STATE)


def _is_state(found: Any) -> bool:
  return found is None or bool(
    found.step == 3
    and np.array_equal(found.state["w"], _STATE["w"])
    and int(found.state["n"]) == 3
  )


_LINE = {
  "config": {"method": {"name": "gmixout", "learning_rate": 0.1}, "data": "x"},
  "seed": 0,
  "metrics": {
    "id": 0.5, "ood": {"night": 0.25}, "mean_ood": 0.25, "worst_ood": 0.25,
    "details": {"id": {"top1": 0.5, "ece": 0.1}},
  },
}  # fmt: skip


def make_results(folder: Path) -> None:
  """Three lines."""
  for seed in range(3):
    records.append(folder / "results.jsonl", _LINE | {"seed": seed})


def _are_lines(lines: kinds.Lines) -> bool:
  return all(
    0 <= value <= 1
    for line in lines.runs
    for value in (line["metrics"]["id"], *line["metrics"]["ood"].values())
  )


READERS: tuple[Reader, ...] = (
  Reader("checkpoint", _checkpoint, "run/**/*", mutations.of_bytes, _restored,
         _is_state),
  Reader("result lines", make_results, "results.jsonl", mutations.of_lines,
         lambda folder: kinds.read([folder / "results.jsonl"]), _are_lines),
)  # fmt: skip
