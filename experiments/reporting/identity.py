"""What a run is found again by, and what its folder is called."""

import hashlib
import json
import re
from collections.abc import Mapping
from typing import Any

from experiments.reporting import records

_READABLE = 60
"""Characters of a folder's name that are for people; file systems allow 255."""


def identity_of(config: Mapping[str, Any], seed: int) -> str:
  """What a configuration and a seed are found again by.

  Lines of before that say more, or less, of the same are the same.
  """
  return canonical([records.comparable(dict(config)), seed])


def canonical(value: Any) -> str:
  """JSON that is the same for equal values, whatever their order."""
  return json.dumps(records.plain(value), sort_keys=True, ensure_ascii=True)


def folder_name(readable: str, identity: str) -> str:
  """A name for a folder that is valid everywhere and nobody else's.

  Args:
    readable: What it is about, in any script and of any length.
    identity: What it stands for.

  Returns:
    Lower-case ASCII, so that no file system takes two for one.

  Example:
    >>> folder_name("Größe/10%, seed 1", "any text")
    'gr-e-10-seed-1-06c83efcd22e'
  """
  short = re.sub(r"[^a-z0-9_+]+", "-", readable.lower()).strip("-")
  digest = hashlib.sha256(identity.encode()).hexdigest()[:12]
  return f"{short[:_READABLE].strip('-')}-{digest}".strip("-")
