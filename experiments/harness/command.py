"""What every command that trains does around its cells.

It joins the other processes of a run, keeps compiled programs, catches SIGTERM,
and turns what is wrong with the user's input into one line of error.
"""

import contextlib
import functools
import sys
from collections.abc import Callable, Iterator
from typing import NamedTuple

import jax
import rich.console

from experiments.command_line import WRONG_INPUT
from experiments.harness.display import Display
from experiments.training import compilation_cache, peers
from experiments.training.run_checkpoints import Stopped, stop_on_sigterm
from gmixout_jax.checkpoint.processes import leads


class Session(NamedTuple):
  """What a command works with.

  Attributes:
    console: Silent in all processes but the first.
    display: On it.
    stop: Whether to save and stop after a number of steps.
  """

  console: rich.console.Console
  display: Display
  stop: Callable[[int], bool]


@contextlib.contextmanager
def session(
  *,
  saves: bool,
  distributed: bool = False,
  coordinator: str | None = None,
  processes: int | None = None,
  process: int | None = None,
) -> Iterator[Session]:
  """Runs the block as a command.

  Args:
    saves: Whether there is a folder to save runs in.
    distributed: Whether there are several processes.
    coordinator: Host and port of the first process.
    processes: How many there are.
    process: Which one this is, from 0.
  """
  if distributed:
    if not saves:
      # JAX would catch SIGTERM, and there is nothing to save before it ends.
      jax.config.update("jax_enable_preemption_service", False)
    try:
      jax.distributed.initialize(coordinator, processes, process)
    except ValueError as error:  # what JAX needs and cannot find out
      sys.exit(
        f"error: --distributed with --coordinator {coordinator}, --processes"
        f" {processes} and --process {process}: {error}"
      )
  console = rich.console.Console(quiet=not leads())
  compilation_cache.keep(functools.partial(console.print, soft_wrap=True))
  host = None if coordinator is None else coordinator.rpartition(":")[0]
  status = 0
  try:
    with peers.watched(host), stop_on_sigterm(saves=saves) as stop:
      yield Session(console, Display(console), stop)
  except Stopped as stopped:
    console.print(str(stopped), markup=False)
    status = stopped.STATUS
  except WRONG_INPUT as error:
    if jax.process_count() > 1:
      peers.end(f"error: {error}")
    sys.exit(f"error: {error}")  # what the user gave is wrong, not the program
  except jax.errors.JaxRuntimeError as error:
    if jax.process_count() == 1:
      raise
    peers.end(f"error: {str(error).splitlines()[0]}")
  if distributed:
    jax.distributed.shutdown()  # waits for the others, of whom one may be late
  if status:
    sys.exit(status)
