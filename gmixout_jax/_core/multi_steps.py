"""Whether an optimizer has stepped, where `optax.MultiSteps` accumulates."""

from typing import Any

import jax
import optax

from gmixout_jax._core.step import Begun
from gmixout_jax.eval_params import states_in


def has_stepped(begun: Begun, before: Any, after: Any) -> bool | jax.Array:
  """Whether mixed leaves were stepped, or their gradients only added up.

  Args:
    begun: The step.
    before: The optimizer's state before its update, of packed leaves.
    after: The one after it.

  Returns:
    True without `optax.MultiSteps`, or where it does not see mixed leaves.

  Raises:
    ValueError: If it steps some mixed leaves and not others, which have one
      episode; a leaf that it does not see is named.
  """
  stepped = True
  states = (
    states_in(state, optax.MultiStepsState) for state in (before, after)
  )
  for old, new in zip(*states, strict=True):
    seen = _sees(begun, old)
    if all(seen.values()):
      stepped = stepped & (new.gradient_step != old.gradient_step)
    elif any(seen.values()):
      without = next(path for path, sees in seen.items() if not sees)
      raise ValueError(
        "tx must have optax.MultiSteps around all mixed leaves or around none,"
        f" as they share episodes, and {without!r} is outside of one: put it"
        " around the whole optimizer."
      )
  return stepped


def _sees(begun: Begun, state: optax.MultiStepsState) -> dict[str, bool]:
  """Whether gradients of each mixed leaf are added up, by path."""
  mixes = begun.tree.mixes
  try:
    added = begun.tree.packed.flatten_up_to(state.acc_grads)
  except ValueError:  # it has made something else of all of them
    return {mix.path: True for mix in mixes.values()}
  return {
    mix.path: not isinstance(added[i], optax.MaskedNode)
    for i, mix in mixes.items()
  }
