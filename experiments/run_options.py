"""Flags of `train` and `sweep`: where runs go, and who shares them."""

import contextlib
import dataclasses
import pathlib
import tempfile
from collections.abc import Sequence
from typing import Annotated, Any

import tyro

from experiments.data.workers import Workers
from experiments.harness.command import Session, session
from experiments.harness.places import Places
from experiments.reporting import records
from experiments.training import run_folders
from experiments.training.sharding import Sharding
from experiments.training.watching import Watching


@dataclasses.dataclass(frozen=True, kw_only=True)
class RunOptions:
  """Where runs are saved and logged, and on which devices they run.

  Attributes:
    results: The file that lines are appended to. A cell (method, task and seed)
      that has a line in it is not run again.
    checkpoint: A folder to save runs in. With the same folder, runs are
      resumed; SIGTERM saves and stops them.
    save_every: Steps between two checkpoints, by default 100. Each scores the
      weights on the ID validation images; the newest two and the best are kept.
    export: Where to write the trained model, head included: a ViT is a
      safetensors file with timm's names, a CLIP a folder. A sweep writes a
      folder with one model for each cell. An ensemble is not exported.
    decode_threads: Threads that decode images, in each process; by default one
      for each CPU that this command may use.
    decode_processes: Additional processes that decode; by default none up to 16
      CPUs, and one for every 16 of more.
    sharding: Spread each batch over all devices: weights and moments are
      replicated ("data") or sharded ("fsdp"). By default one device does all;
      with --distributed the default is "data".
    distributed: Run in several processes, and use the devices of all.
    coordinator: Host and port of the first process.
    processes: How many processes there are.
    process: Which one this is, from 0.
    watching: Evaluation, early stopping and logs during a run.
  """

  results: pathlib.Path = pathlib.Path("runs/results.jsonl")
  checkpoint: pathlib.Path | None = None
  save_every: int | None = None
  export: pathlib.Path | None = None
  decode_threads: int | None = None
  decode_processes: int | None = None
  sharding: Sharding | None = None
  distributed: bool = False
  coordinator: str | None = None
  processes: int | None = None
  process: int | None = None
  watching: Annotated[Watching, tyro.conf.OmitArgPrefixes] = dataclasses.field(
    default_factory=Watching
  )

  def session(self) -> contextlib.AbstractContextManager[Session]:
    """What a command does around its cells; see `command.session`."""
    return session(
      saves=self.checkpoint is not None,
      distributed=self.distributed,
      coordinator=self.coordinator,
      processes=self.processes,
      process=self.process,
    )

  def places(self, **more: Any) -> Places:
    """The same for the harness; `more` are further fields of it.

    Raises:
      ValueError: If flags do not go together, or an output cannot be written,
        which is better known before a run than after.
    """
    for name in ("coordinator", "processes", "process"):
      value = getattr(self, name)
      if value is not None and not self.distributed:
        raise ValueError(f"--{name} {value} needs --distributed.")
    if self.save_every is not None and self.save_every < 1:
      raise ValueError(
        f"--save-every must be at least 1 step, got {self.save_every}."
      )
    if self.save_every is not None and self.checkpoint is None:
      raise ValueError(
        f"--save-every {self.save_every} needs --checkpoint, the folder to save"
        " in."
      )
    if self.results.suffix:
      check_results(self.results)
    else:
      check_writable("results", self.results)
    for flag, path in (
      ("export", self.export and self.export.absolute().parent),
      ("profile", self.watching.profile),
    ):
      if path is not None:
        check_writable(flag, path)
    sharding = self.sharding or ("data" if self.distributed else None)
    fields: dict[str, Any] = {
      "results": self.results,
      "checkpoint": self.checkpoint,
      "export": self.export,
      "sharding": sharding,
      "workers": Workers(self.decode_threads, self.decode_processes),
      "watching": self.watching,
    }
    if self.save_every is not None:
      fields["save_every"] = self.save_every
    places = Places(**fields | more)
    if places.checkpoint is not None:
      run_folders.check(places.checkpoint, places.written)
    return places


def check_writable(flag: str, folder: pathlib.Path) -> None:
  """Makes a folder, and sees whether files can be put into it.

  Args:
    flag: That names it, for the message.
    folder: It is made if need be.

  Raises:
    ValueError: If not.
  """
  try:
    folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryFile(dir=folder):
      pass
  except OSError as error:
    raise ValueError(
      f"--{flag}: files cannot be written to {folder}: {error.strerror}."
    ) from None


def check_picture(path: pathlib.Path) -> None:
  """Makes the folder of a picture, and sees whether it can be drawn there.

  Raises:
    ValueError: If not.
  """
  from matplotlib.backends import backend_agg  # a second that few need

  known = sorted(backend_agg.FigureCanvasAgg.get_supported_filetypes())
  if path.suffix.removeprefix(".").lower() not in known or path.is_dir():
    raise ValueError(
      f"--picture must be a file whose name ends in .{', .'.join(known)}, got"
      f" {path}."
    )
  check_writable("picture", path.absolute().parent)


def check_results(path: pathlib.Path, flag: str = "results") -> None:
  """Makes the folder of a results file, and sees whether it can be appended to.

  Args:
    path: The file; it may not be there.
    flag: That names it, for the message.

  Raises:
    ValueError: If not.
  """
  check_writable(flag, path.absolute().parent)
  try:
    records.check_appendable(path)
  except OSError as error:
    raise ValueError(
      f"--{flag}: lines cannot be appended to {path}: {error.strerror}."
    ) from None


def one_each(arguments: Sequence[str]) -> list[str]:
  """Lets --ood be followed by several of NAME=DIR.

  Example:
    >>> one_each(["--ood", "a=b", "c=d", "--steps", "3"])
    ['--ood', 'a=b', '--ood', 'c=d', '--steps', '3']
  """
  found: list[str] = []
  given = False
  for word in arguments:
    is_more = given and "=" in word and not word.startswith("-")
    if is_more and found[-1] != "--ood":
      found.append("--ood")
    given = word == "--ood" or is_more
    found.append(word)
  return found


def check_seed(seed: int) -> None:
  """Whether generators take it.

  Raises:
    ValueError: If not; it is quoted.
  """
  if not 0 <= seed < 2**63:
    raise ValueError(f"--seed must be from 0 to 2**63 - 1, got {seed}.")
