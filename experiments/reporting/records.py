"""The results file: one JSON object per line, one line per run.

Appending is a single write under a lock, so runs on several machines or
processes may share one file; what could not be written whole is cut back.
"""

import contextlib
import dataclasses
import datetime
import errno
import fcntl
import importlib.metadata
import json
import os
import pathlib
import threading
from collections.abc import Iterator, Mapping
from typing import Any

import jax

from gmixout_jax.checkpoint.files import local_path, replacing

Record = dict[str, Any]

PACKAGES = ("gmixout-jax", "jax", "flax", "optax")

ADDED_SETTINGS: dict[str, Record] = {
  "ftp": {"norm": "l2"},
  "gmixout": {"rescale": True},
}
"""Settings of methods that lines of earlier versions lack, with the values that
those lines were made with. `read` fills them in."""

REMOVED_SETTINGS = frozenset({"compact"})
"""Settings of methods in lines of earlier versions that no weights depend on.
`read` leaves them out."""

DEFAULTS: Record = {
  "dtype": "float32",
  "attention": "xla",
  "remat": False,
  "warmup": 0.1,
  "augment": "basic",
  "skip_nonfinite": 0,
}
"""What a configuration leaves out if it has this value. Lines of 0.1.0 hold
some of it, and had no setting yet for the rest."""

CROPS = "original"
"""What training crops are taken from. A line without it has crops of the
square that evaluation sees, enlarged: see `is_of_squares`."""


def environment() -> Record:
  """Versions and device: what results depend on besides the configuration."""
  device = jax.devices()[0]
  return {
    "versions": {name: importlib.metadata.version(name) for name in PACKAGES},
    "platform": device.platform,
    "device": device.device_kind,
    "time": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
  }


def plain(value: Any) -> Any:
  """A value as JSON can hold it: dataclasses as dicts, paths as their name.

  A path's folder says where somebody keeps files, not what was run.
  """
  if dataclasses.is_dataclass(value) and not isinstance(value, type):
    return {
      field.name: plain(getattr(value, field.name))
      for field in dataclasses.fields(value)
    }
  if isinstance(value, Mapping):
    return {str(key): plain(item) for key, item in value.items()}
  if isinstance(value, list | tuple):
    return [plain(item) for item in value]
  if isinstance(value, pathlib.PurePath):
    return value.name
  return value


def comparable(config: Record) -> Record:
  """A configuration in the current form, without default values.

  Two configurations are the same if these are equal, whichever version wrote
  them.

  Example:
    >>> comparable({"steps": 3, "dtype": "float32", "attention": "cudnn"})
    {'steps': 3, 'attention': 'cudnn'}
  """
  usual = dict(DEFAULTS)
  if "weights" in config and "backbone_digest" not in config:
    # The study's ViT. Of a user's, the file says what a line does not.
    usual |= {"mean": [0.5, 0.5, 0.5], "std": [0.5, 0.5, 0.5]}
  data = config.get("data")
  if isinstance(data, dict) and "target" in data and "skip_nonfinite" in config:
    # A line of `experiments.train` of 0.1.0, which took as many images of each.
    config = config | {"data": data | {"balanced": True}}
  return {
    name: value
    for name, value in config.items()
    if name not in usual or value != usual[name]
  }


def is_of_squares(config: Record) -> bool:
  """Whether a run saw the input of 0.1.0, which compares with no other.

  Images were shrunk to the square that evaluation sees, of which training crops
  were cut and enlarged: two fifths of the fine detail were left. Lines tell
  what crops are taken from since it is the original.

  Example:
    >>> is_of_squares({"weights": "vit.safetensors", "steps": 100})
    True
    >>> is_of_squares({"weights": "vit.safetensors", "crops": CROPS})
    False
  """
  files = "weights" in config or config.get("backbone", "random") != "random"
  augmented = config.get("augment", "basic") != "none"
  return files and augmented and "crops" not in config


def append(path: str | os.PathLike[str], record: Mapping[str, Any]) -> None:
  """Adds one run to a results file, creating it if need be.

  Args:
    path: The ``.jsonl`` file.
    record: The run; whatever `plain` can turn into JSON.

  Raises:
    ValueError: If the record holds NaN or infinity, which are not JSON, or the
      path is the address of a bucket.
    OSError: If the line could not be written whole; the file is as it was.
  """
  path = local_path("results", path)
  with alone(path):
    _add(_held.descriptors[path], path, record)


class _Held(threading.local):
  def __init__(self):
    self.descriptors: dict[pathlib.Path, int] = {}


_held = _Held()


@contextlib.contextmanager
def alone(path: str | os.PathLike[str]) -> Iterator[None]:
  """Keeps others that append from a results file.

  To check whether a line is there, and to append it if not.
  """
  path = local_path("results", path)
  if path in _held.descriptors:
    yield
    return
  _check_regular(path)
  path.parent.mkdir(parents=True, exist_ok=True)
  descriptor = os.open(path, os.O_RDWR | os.O_APPEND | os.O_CREAT, 0o644)
  try:
    try:
      fcntl.flock(descriptor, fcntl.LOCK_EX)
    except OSError as error:
      if error.errno not in (errno.ENOLCK, errno.ENOTSUP):
        raise  # else the file system has no locks, and one writer must do
    _held.descriptors[path] = descriptor
    yield
  finally:
    _held.descriptors.pop(path, None)
    os.close(descriptor)  # which gives the lock back


def check_appendable(path: str | os.PathLike[str]) -> None:
  """Whether lines can be appended to a file, should it be there; see `append`.

  Raises:
    ValueError: If it is a folder or the like, holds something else, or is the
      address of a bucket.
    OSError: If it cannot be written to.
  """
  path = local_path("results", path)
  if path.exists():
    with alone(path):
      _check_lines(_held.descriptors[path], path)


def _check_lines(descriptor: int, path: pathlib.Path) -> None:
  if os.pread(descriptor, 1, 0) not in b"{\n ":  # which has nothing, too
    raise ValueError(
      f"{path} must be new, or a file of result lines: it holds something else."
    )


def _check_regular(path: pathlib.Path) -> None:
  """Devices have no end, and what is written to them is lost."""
  if path.exists() and not path.is_file():
    raise ValueError(f"{path} must be a file of result lines.")


def _add(
  descriptor: int, path: pathlib.Path, record: Mapping[str, Any]
) -> None:
  line = json.dumps(plain(record), allow_nan=False) + "\n"
  # Whatever stands there, a line begins on a line of its own.
  size = os.fstat(descriptor).st_size
  _check_lines(descriptor, path)
  if size and os.pread(descriptor, 1, size - 1) != b"\n":
    line = "\n" + line
  data = line.encode()
  try:
    # One write: the kernel appends it whole, even beside another writer.
    if (written := os.write(descriptor, data)) != len(data):
      raise OSError(
        errno.ENOSPC, f"{written} of {len(data)} bytes could be written", path
      )
    os.fsync(descriptor)
  except OSError:
    os.ftruncate(descriptor, size)  # no half line is left
    raise


_RECORD = "record.json"  # of a run that has ended, in its checkpoint's folder


def recall(folder: str | os.PathLike[str]) -> Record | None:
  """The line of a run that has ended; None of one that has not.

  Args:
    folder: As given to `note`.

  Raises:
    ValueError: If it is not a JSON object.
  """
  path = pathlib.Path(folder) / _RECORD
  return read(path)[0] if path.exists() else None


def note(folder: str | os.PathLike[str], record: Mapping[str, Any]) -> None:
  """Keeps the line of a run that has ended in the run's own folder.

  So a run that is killed before its line is appended does not run again.
  """
  with replacing(pathlib.Path(folder) / _RECORD) as temporary:
    temporary.write_text(json.dumps(plain(record), allow_nan=False) + "\n")


def check_same(
  folder: str | os.PathLike[str],
  record: Record,
  config: Record,
  seed: int,
) -> None:
  """Sees whether a run that has ended is the one that is asked for.

  Args:
    folder: Where it was found.
    record: Its line, from `recall`.
    config: The configuration that is asked for.
    seed: likewise.

  Raises:
    ValueError: If it is another one; it names the first setting that differs.
  """
  known = comparable(record["config"]) | {"seed": record["seed"]}
  asked = comparable(plain(config)) | {"seed": seed}
  for name in dict.fromkeys([*asked, *known]):
    if (there := known.get(name)) != (here := asked.get(name)):
      raise ValueError(
        f"{folder} holds a finished run of another configuration: {name} is"
        f" {there!r} there and {here!r} here; use another folder."
      )


def _completed(method: Record) -> Record:
  """A method's settings as a line of today has them."""
  added = ADDED_SETTINGS.get(str(method.get("name")).split("+")[-1], {})
  kept = {k: v for k, v in method.items() if k not in REMOVED_SETTINGS}
  nested = {k: _completed(v) for k, v in kept.items() if isinstance(v, dict)}
  return added | kept | nested


def read(path: str | os.PathLike[str]) -> list[Record]:
  """All runs of a results file, oldest first.

  Settings that came later than a line are filled in, see `ADDED_SETTINGS`;
  those that are gone are left out, see `REMOVED_SETTINGS`.

  Raises:
    ValueError: On a line that is not a JSON object; it names file and line.
  """
  records = []
  _check_regular(pathlib.Path(path))
  with open(path, "rb") as lines:
    for number, line in enumerate(lines, start=1):
      if not line.strip():  # two writers have begun one
        continue
      try:
        record = json.loads(line.decode())
      except (ValueError, RecursionError) as error:
        raise ValueError(f"{path}:{number}: {error}") from error
      if not isinstance(record, dict):
        raise ValueError(f"{path}:{number}: not a JSON object.")
      config = record.get("config")
      if isinstance(config, dict) and isinstance(config.get("method"), dict):
        config["method"] = _completed(config["method"])
      records.append(record)
  return records
