"""Checkpoints of a run: whole or absent, and checked before they are used.

    FOLDER/gmixout-checkpoints.json whose folder it is; written first
    FOLDER/lock                     held by the run that writes here
    FOLDER/00000200/state/          the arrays, written by Orbax
    FOLDER/00000200/manifest.json   written last: what makes it a checkpoint
    FOLDER/gmixout-unfinished-00000200/   being saved, or being removed

A checkpoint gets its number when it is complete. A folder that holds something
else is refused, unless it is one of version 0.1.0, whose checkpoints are
restored and never removed. Other files that appear in it later are left alone.

The manifest holds what is not an array (config, versions, the position in the
data) and the size and SHA-256 of every file of the state. So an interrupted
save is never taken for a checkpoint, and damaged bytes are detected.

Orbax sees a flat dictionary of arrays and nothing else of ours: neither NNX
objects nor optimizer states are part of the format. Nothing is pickled.
"""

import concurrent.futures
import errno
import importlib.metadata
import os
import pathlib
import shutil
import warnings
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple, Self

import jax
from orbax.checkpoint import v1 as ocp

from gmixout_jax._core import description
from gmixout_jax.checkpoint import (
  arrays,
  folders,
  manifests,
  marks,
  processes,
  same_run,
)
from gmixout_jax.checkpoint.files import (
  CheckpointError,
  Path,
  local_path,
  synced,
)

PACKAGES = ("gmixout-jax", "jax", "flax", "optax", "orbax-checkpoint")


class Saved(NamedTuple):
  """What was saved.

  Attributes:
    step: Steps taken by then.
    state: The arrays, like the argument of `Checkpoints.restore`.
    iterator: The state of the data iterator; JSON.
    score: What `Checkpoints.save` was given.
  """

  step: int
  state: Any
  iterator: Any
  score: float | None


class Checkpoints:
  """The checkpoints of one run, in a folder that no other run may write to.

  Use it as a context manager, or call `close`. With several processes
  (`jax.distributed`) all of them make the same calls with one shared folder;
  the first process alone decides, deletes and writes manifests.

  Example:
    >>> import tempfile, jax.numpy as jnp
    >>> folder = tempfile.mkdtemp()
    >>> state = {"params": jnp.arange(3.0), "count": jnp.int32(7)}
    >>> with Checkpoints(folder, config={"seed": 1}) as checkpoints:
    ...   checkpoints.save(7, state, iterator={"next_index": 7})
    >>> with Checkpoints(folder, config={"seed": 1}) as checkpoints:
    ...   saved = checkpoints.restore(state)
    >>> saved.step, saved.iterator, saved.state["params"].tolist()
    (7, {'next_index': 7}, [0.0, 1.0, 2.0])
  """

  def __init__(
    self,
    folder: Path,
    *,
    config: Mapping[str, Any] | None = None,
    keep: int = 2,
  ):
    """Takes the folder, and removes what an interrupted save left in it.

    Args:
      folder: On a local or a mounted disk; it is made if it does not exist.
      config: The configuration of the run, as JSON: a checkpoint of another
        config is refused.
      keep: How many of the newest checkpoints to keep, at least 1. The one with
        the best score is kept in addition.

    Raises:
      TypeError: If `config` is not JSON.
      ValueError: If `keep` is out of range, `folder` is a bucket, a number in
        `config` is not finite, another run holds the folder, or it holds other
        files.
      OSError: If the folder cannot be written to; it is named.
    """
    if not isinstance(keep, int) or keep < 1:
      raise ValueError(f"keep must be at least 1, an int, got {keep!r}.")
    self.folder = local_path("folder", folder).absolute()
    self.keep = keep
    self._config = manifests.as_json("config", config or {})
    self._leads = processes.leads()
    self._closed = False
    self._lock: int | None = None
    self._kept: frozenset[int] = frozenset()
    self._pending: concurrent.futures.Future[None] | None = None
    self._committer = concurrent.futures.ThreadPoolExecutor(1)
    if self._leads:
      try:
        marks.check(self.folder)  # before anything is put there
        self._lock = folders.hold(self.folder)
        self._kept = marks.claim(self.folder)
        for path in self.folder.iterdir():
          if path.name.startswith(marks.UNFINISHED):
            shutil.rmtree(path)
      except CheckpointError:
        self.close()
        raise
      except OSError as error:
        self.close()
        what = f"checkpoints cannot go to {self.folder}"
        raise folders.about(error, what) from None

  def __enter__(self) -> Self:
    return self

  def __exit__(self, kind: Any, error: Any, trace: Any) -> None:
    try:
      self.close()
    except Exception:
      if error is None:  # else the first error is the one to tell
        raise

  def close(self) -> None:
    """Finishes the save in progress, and releases the folder.

    Raises:
      OSError: If the latest save failed, see `save`; the folder is released all
        the same.
    """
    try:
      self.wait()
    finally:
      self._closed = True
      self._committer.shutdown()
      if self._lock is not None:
        os.close(self._lock)
        self._lock = None

  @property
  def steps(self) -> list[int]:
    """The steps of all checkpoints, ascending."""
    return sorted(
      int(path.parent.name)
      for path in self.folder.glob("*/manifest.json")
      if marks.is_step(path.parent.name)
    )

  @property
  def best(self) -> int | None:
    """The step of the best score, the earliest of equals; None without any."""
    scores = ((self._score(step), -step) for step in self.steps)
    scored = [(score, at) for score, at in scores if score is not None]
    return -max(scored)[1] if scored else None

  def save(
    self,
    step: int,
    state: Any,
    *,
    iterator: Any = None,
    score: float | None = None,
  ) -> None:
    """Saves in the background; returns once the arrays may be overwritten.

    An existing checkpoint of this step is left unchanged.

    Args:
      step: Steps taken, an integer of at least 0 and of the newest checkpoint.
      state: A pytree of arrays, of any type and shape, or of Python's numbers,
        which come back as arrays. On several processes they are global arrays.
      iterator: The state of the data iterator; JSON.
      score: How good the weights are, higher is better: see `best`. Finite.

    Raises:
      TypeError: If `iterator` is not JSON.
      ValueError: If `step` or `score` is not allowed, these checkpoints are
        closed, a number in `iterator` is not finite, two leaves of `state` have
        one path, or one is no array of numbers or holds an integer that JAX
        has no type for; it is named.
      OSError: If this or the previous checkpoint could not be written, say
        because the disk is full. What had been written of it is removed, and
        the other checkpoints stay as they are.
    """
    self._check_open()
    step = manifests.as_step(step)
    leaves = arrays.flatten(state)
    manifest = {
      "step": step,
      "score": manifests.as_score(score),
      "iterator": manifests.as_json("iterator", iterator),
      "config": self._config,
      "versions": {name: importlib.metadata.version(name) for name in PACKAGES},
      "leaves": {n: arrays.signature(leaf) for n, leaf in leaves.items()},
      "mixes": {
        path: description.describe(mix)
        for path, mix in description.find_states(state).items()
      },
    }
    placed = arrays.to_write(leaves)
    self.wait()
    newest = processes.agreed(self.steps[-1] if self.steps else -1)
    if step == newest:
      return
    if step < newest:
      raise ValueError(
        f"step must be above {newest}, the newest checkpoint in {self.folder},"
        f" got {step}: to go on from an older one, move those after it out of"
        " this folder, or save to another."
      )
    unfinished = self._unfinished(step)
    try:
      if self._leads:
        if self._kept and self._path(step).exists():
          # What 0.1.0 was saving when it was killed.
          self._path(step).rename(marks.aside(self._path(step)))
        if self._path(step).exists():
          raise FileExistsError(
            errno.EEXIST, f"{self._path(step)} exists and is no checkpoint"
          )
        unfinished.mkdir()
      processes.together("checkpoint folder made")
      written = None
      if placed:  # Orbax writes no empty tree
        written = ocp.save_async(str(unfinished / "state"), placed)
    except Exception as error:
      raise self._failed(step, error) from error
    self._pending = self._committer.submit(
      self._commit, step, written, manifest
    )

  def wait(self) -> None:
    """Waits until the latest save is on disk.

    Raises:
      OSError: If it failed, see `save`.
    """
    if self._pending is not None:
      pending, self._pending = self._pending, None
      pending.result()

  def restore(
    self, like: Any | Callable[[int], Any], *, step: int | None = None
  ) -> Saved | None:
    """The newest undamaged checkpoint, or the one of a step.

    Without `step`, a damaged checkpoint is reported by a warning that names the
    file and set aside as ``FOLDER/<step>.damaged``; the one before it is used.

    Args:
      like: A pytree of arrays or of `jax.ShapeDtypeStruct`, whose shardings,
        if any, say where the arrays go: they need not be those that were
        saved. Or a function of the step that returns one.
      step: One of `steps`, such as `best`.

    Returns:
      What was saved; None if there is no checkpoint.

    Raises:
      CheckpointError: A `ValueError`: it is of another config or another
        model, or of masks that cannot be drawn again. The first difference is
        named. Or the one of `step` is damaged.
      ValueError: There is none of `step`; it lists those that there are.
    """
    self._check_open()
    self.wait()
    if step is not None:
      self._check_whole(step)
    else:
      step = self._newest_whole() if self._leads else None
      step = processes.agreed(-1 if step is None else step)
    if step < 0:
      return None
    manifest = manifests.read(self._path(step) / "manifest.json")
    wanted = like(step) if callable(like) else like
    leaves = arrays.flatten(wanted)
    where = f"the checkpoint of step {step} in {self.folder}"
    same_run.check(where, manifest, self._config, leaves)
    places = arrays.to_read(leaves)
    loaded = {}
    if places:
      loaded = ocp.load(str(self._path(step) / "state"), places)
    state = jax.tree.unflatten(
      jax.tree.structure(wanted), arrays.as_wanted(loaded, leaves)
    )
    same_run.check_mixes(where, manifest, state)
    return Saved(step, state, manifest["iterator"], manifest["score"])

  def _check_open(self) -> None:
    if self._closed:
      raise ValueError(
        f"the checkpoints in {self.folder} are closed: open them again by"
        " Checkpoints(folder, ...)."
      )

  def _path(self, step: int) -> pathlib.Path:
    return self.folder / f"{step:08d}"

  def _unfinished(self, step: int) -> pathlib.Path:
    return self.folder / f"{marks.UNFINISHED}{step:08d}"

  def _score(self, step: int) -> float | None:
    try:
      return manifests.read(self._path(step) / "manifest.json")["score"]
    except (CheckpointError, OSError):
      return None

  def _commit(self, step: int, written: Any, manifest: dict[str, Any]) -> None:
    """Waits for the arrays, then makes the folder a checkpoint."""
    try:
      if written is not None:
        written.result()
      if self._leads:
        unfinished = self._unfinished(step)
        manifest["files"] = manifests.digests(unfinished)
        manifests.write(unfinished / "manifest.json", manifest)
        for path in (*unfinished.rglob("*"), unfinished):
          synced(path)
        unfinished.rename(self._path(step))
        synced(self.folder)
        self._retain()
    except Exception as error:
      raise self._failed(step, error) from error

  def _retain(self) -> None:
    """Removes all but the newest checkpoints and the best one."""
    wanted = {*self.steps[-self.keep :], self.best, *self._kept}
    for step in self.steps:
      if step not in wanted:
        # First its name: it may not be found half-removed.
        self._path(step).rename(self._unfinished(step))
        shutil.rmtree(self._unfinished(step))

  def _failed(self, step: int, error: Exception) -> OSError:
    if self._leads:
      shutil.rmtree(self._unfinished(step), ignore_errors=True)
    newest = self.steps[-1] if self.steps else "none"
    what = (
      f"the checkpoint of step {step} could not be written to {self.folder};"
      f" the newest one there: {newest}"
    )
    return folders.about(error, what)

  def _newest_whole(self) -> int | None:
    for step in reversed(self.steps):
      try:
        self._check_whole(step)
      except (CheckpointError, OSError) as error:
        aside = marks.aside(self._path(step))
        warnings.warn(
          f"{error} The checkpoint of step {step} is set aside as {aside.name},"
          " and the one before it is used.",
          stacklevel=3,
        )
        self._path(step).rename(aside)
      else:
        return step
    return None

  def _check_whole(self, step: int) -> None:
    if step not in self.steps:
      raise ValueError(
        f"step must be one of {self.steps}, the checkpoints in {self.folder},"
        f" got {step!r}."
      )
    manifest = manifests.read(self._path(step) / "manifest.json")
    manifests.check_files(self._path(step), manifest["files"])
