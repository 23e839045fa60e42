"""The parts of a run on a GPU, the most important first, and their time."""

import dataclasses
import json
import os
import pathlib
import re
import sys
import time
from collections.abc import Mapping, Sequence

from experiments.bench.gpu import children, gpu_tests
from experiments.bench.gpu.machine import ROOT

TESTS = "tests"

# The last line of a traceback, or of pytest.
_SAID = re.compile(
  r"^(?:[\w.]+(?:Error|Exception): .*|=+ .* in [\d.]+s.* =+)$", re.M
)


@dataclasses.dataclass(frozen=True)
class Part:
  """A part, and the seconds it takes on a GPU.

  Attributes:
    name: Its name, and that of its file.
    least: With fewer left it is not begun.
    most: It is stopped after so many.
    spare: Whether it gets no more than what the others leave.
    shares: Whether it has compiled programs in common with another part, and
      reads back what that one has compiled. What was read back says less of
      its memory, and may do what no kernel has been seen to do yet.
    env: Environment variables of its own.
  """

  name: str
  least: float
  most: float
  spare: bool = False
  shares: bool = False
  env: Mapping[str, str] = dataclasses.field(default_factory=dict)


PARTS = (
  Part(TESTS, 40, 140, env=gpu_tests.ENVIRONMENT),
  Part("packed_step", 30, 80),
  Part("masked_mix", 20, 50),
  Part("images", 45, 120, shares=True),
  Part("pack", 15, 35),
  Part("images_by_kernels", 30, 75, shares=True),
  Part("update", 25, 50),
  Part("step", 30, 75, shares=True),
  Part("memory", 25, 75),
  Part("float32", 25, 120, spare=True),
)


@dataclasses.dataclass(frozen=True)
class Result:
  """What came of a part.

  Attributes:
    figures: Name to number; some or all may be missing after an error.
    error: What went wrong, in a line.
    output: The last lines that were printed, after an error.
  """

  figures: dict[str, float]
  error: str | None = None
  output: str | None = None


def allowance(part: Part, later: Sequence[Part], left: float) -> float:
  """Seconds that a part may take: no more than later ones can do without.

  Args:
    part: The part.
    later: Those after it.
    left: Seconds left for all of them.

  Returns:
    0 if it should not be begun.

  Example:
    >>> one, other = Part("one", 20, 50), Part("other", 30, 50)
    >>> [allowance(one, [other], left) for left in (90, 60, 40, 10)]
    [50, 30, 20, 0]
  """
  if left < part.least:
    return 0
  kept = sum(one.least for one in later if not one.spare)
  return max(part.least, min(part.most, left - kept))


def run(
  part: Part, seconds: float, folder: pathlib.Path, reduced: bool = False
) -> Result:
  """Runs a part in processes of its own.

  Args:
    part: Which.
    seconds: After so many it is stopped; what it has measured is kept.
    folder: For temporary files, and for compiled programs: a later part reads
      back those it shares with an earlier one.
    reduced: Whether to run on a CPU, to see that it runs.
  """
  file = folder / f"{part.name}.figures"
  commands = (
    gpu_tests.commands()
    if part.name == TESTS
    else {part.name: measuring(part.name, file, seconds, reduced)}
  )
  env = os.environ | {"PYTHONUNBUFFERED": "1", "PYTHONFAULTHANDLER": "1"}
  env |= part.env
  if reduced:
    env["JAX_PLATFORMS"] = "cpu"
  else:
    env["JAX_COMPILATION_CACHE_DIR"] = str(folder / "compiled")
    env["JAX_ENABLE_COMPILATION_CACHE"] = str(int(part.shares))
  outcomes = children.run(
    commands, seconds=seconds, folder=folder, cwd=ROOT, env=env
  )
  if part.name == TESTS:
    figures = gpu_tests.counts(one.output for one in outcomes.values())
  else:
    figures = json.loads(file.read_text()) if file.exists() else {}
  problems = {
    name: problem
    for name, one in outcomes.items()
    if (problem := one.problem(seconds)) is not None
  }
  if not problems:
    return Result(figures)
  reasons = {
    name: _reason(why, outcomes[name]) for name, why in problems.items()
  }
  if part.name == TESTS:
    error = "; ".join(f"{name}: {why}" for name, why in reasons.items())
  else:
    error = reasons[part.name]
  tails = [f"[{name}]\n{outcomes[name].tail()}" for name in problems]
  return Result(figures, error, "\n".join(tails))


def measuring(
  name: str, file: pathlib.Path, seconds: float, reduced: bool
) -> list[str]:
  """The command that measures a part other than the tests."""
  return [
    *(sys.executable, "-m", "experiments.bench.gpu.measure", name),
    *(str(file), str(time.time() + seconds)),
    *(["--reduced"] if reduced else []),
  ]


def _reason(why: str, outcome: children.Outcome) -> str:
  """A line for an error.

  Args:
    why: How the process ended. A status alone says less than the last error
      that was printed, or what pytest says at its end.
    outcome: What else is known.
  """
  said = _SAID.findall(outcome.output)
  if outcome.status is None or outcome.status < 0 or not said:
    return why
  return re.sub(r"^(\w+\.)+(?=\w+:)", "", said[-1].strip("= "))
