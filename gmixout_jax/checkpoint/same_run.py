"""Whether a checkpoint is of the run that is to go on from it."""

from collections.abc import Mapping
from typing import Any

from gmixout_jax._core import description
from gmixout_jax.checkpoint import arrays, manifests
from gmixout_jax.checkpoint.files import CheckpointError


def check(
  where: str,
  manifest: Mapping[str, Any],
  config: Any,
  leaves: Mapping[str, Any],
) -> None:
  """Compares configurations, and types and shapes of leaves.

  Args:
    where: What the checkpoint is called in a message.
    manifest: Of the checkpoint.
    config: Of the run, as JSON.
    leaves: Of its state, by name.

  Raises:
    CheckpointError: They differ; the first difference is named.
  """
  saved = {n: arrays.as_held(found) for n, found in manifest["leaves"].items()}
  ours = {n: arrays.as_held(arrays.signature(x)) for n, x in leaves.items()}
  for kind, there, here in (
    ("config", manifest["config"], config),
    ("leaf", saved, ours),
  ):
    found = manifests.difference(there, here)
    if found is not None:
      raise CheckpointError(
        f"{where} is of another run: {kind} {found}. Resume it as it was begun,"
        " or give this run a folder of its own."
      )


def check_mixes(where: str, manifest: Mapping[str, Any], state: Any) -> None:
  """Whether masks mean what they did when the state was saved.

  Args:
    where: As for `check`.
    manifest: Likewise.
    state: As it was restored.

  Raises:
    CheckpointError: They do not; the state, and the first difference, is named.
  """
  saved = manifest.get("mixes", {})
  for path, mix in description.find_states(state).items():
    try:
      description.check_resumable(saved.get(path), mix)
    except ValueError as error:
      raise CheckpointError(f"{where}, state {path!r}: {error}") from None
