"""When masks are redrawn: episodes of k optimizer steps."""

import numbers
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.core
import jax.numpy as jnp
import numpy as np

Schedule = Callable[[Any], Any]
Period = int | Schedule | None


class Episode(NamedTuple):
  """Where an optimizer step stands in its episode.

  Attributes:
    number: Which episode, from 0, int32 scalar.
    starts: Whether the step is the first of the episode, bool scalar.
    ends: Whether it is the last, bool scalar.
  """

  number: jax.Array
  starts: jax.Array
  ends: jax.Array


class Scheduled(NamedTuple):
  """What must be remembered where the period follows a schedule.

  Attributes:
    episode: Number of the current episode, int32 scalar.
    end: Optimizer step before which it ends, int32 scalar.
  """

  episode: jax.Array
  end: jax.Array


def check_period(resample_every: Any) -> None:
  """Raises ValueError unless the period is an int >= 1, a schedule or None."""
  if resample_every is None or callable(resample_every):
    return
  if isinstance(resample_every, jax.core.Tracer):
    raise ValueError(
      "resample_every must be a Python int, a schedule or None, got the traced"
      f" value {resample_every}; with optax.inject_hyperparams, name it in"
      " `static_args`."
    )
  integer = isinstance(resample_every, numbers.Integral)
  if not integer or isinstance(resample_every, bool) or resample_every < 1:
    raise ValueError(
      "resample_every must be an integer >= 1 (optimizer steps), a schedule"
      f" episode -> steps, or None for never, got {resample_every!r}."
    )


def first_schedule(resample_every: Period) -> Scheduled | None:
  """What the optimizer state starts with; None for a constant period."""
  if not callable(resample_every):
    return None
  zero = jnp.zeros((), jnp.int32)
  return Scheduled(episode=zero, end=length(resample_every, zero))


def locate(
  count: jax.Array, resample_every: Period, scheduled: Scheduled | None
) -> Episode:
  """Finds the episode of the optimizer step that follows `count` steps."""
  if scheduled is not None:
    assert callable(resample_every)
    steps = length(resample_every, scheduled.episode)
    return Episode(
      number=scheduled.episode,
      starts=count == scheduled.end - steps,
      ends=count + 1 == scheduled.end,
    )
  if resample_every is None:
    never = jnp.zeros((), jnp.bool_)
    return Episode(jnp.zeros((), jnp.int32), starts=count == 0, ends=never)
  assert isinstance(resample_every, numbers.Integral)
  every = np.int32(min(int(resample_every), 2**31 - 1))
  return Episode(
    number=count // every,
    starts=count % every == 0,
    ends=count % every == every - 1,
  )


def advance(
  now: Episode, resample_every: Period, scheduled: Scheduled | None
) -> Scheduled | None:
  """The remembered schedule after the step at `now`."""
  if scheduled is None:
    return None
  assert callable(resample_every)
  following = now.number + 1
  return Scheduled(
    episode=jnp.where(now.ends, following, scheduled.episode),
    end=scheduled.end
    + jnp.where(now.ends, length(resample_every, following), 0),
  )


def length(schedule: Schedule, episode: jax.Array) -> jax.Array:
  """Steps of an episode; a schedule may give floats, which are rounded.

  Where they are traced, and nobody can look at them, there is at least one.

  Raises:
    ValueError: If they are no scalar or, where they are known, no number or
      less than one.
  """
  steps = jnp.round(jnp.asarray(schedule(episode)))
  known = not isinstance(steps, jax.core.Tracer)
  if steps.shape != () or (known and not 1 <= float(steps) < 2**31):
    raise ValueError(
      "resample_every must be a schedule episode -> steps, at least 1, got"
      f" {steps} for episode {episode}."
    )
  return jnp.maximum(steps.astype(jnp.int32), 1)
