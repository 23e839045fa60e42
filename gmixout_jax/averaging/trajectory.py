"""Averages over the trajectory of one run: EMA, SWA and SWAD's segments.

All three are one recursion, θ̄ ← θ̄ + r(t) (θ_t − θ̄), and differ in the rate r.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.core
import jax.numpy as jnp
import optax
from flax import nnx
from jaxtyping import Array, Float, Int

from gmixout_jax.averaging.averaged_leaves import (
  check_agreement,
  has_mean,
  wide_dtype,
)
from gmixout_jax.labels import named_leaves
from pallas_kernels.difference import difference

Rate = Callable[[Int[Array, ""]], Any]
"""From the number of the step, from 1, to the weight of its result."""


class AverageState(NamedTuple):
  """State of `average`.

  Attributes:
    step: Steps taken, int32.
    average: θ̄, like the parameters, in at least float32. Leaves of integers,
      booleans and PRNG keys are as they were at `init`.
    inner_state: Of the optimizer.
  """

  step: Int[Array, ""]
  average: Any
  inner_state: Any


def exponential(decay: float) -> Rate:
  """The rate of an exponential moving average: always 1 − β.

  The average starts at the initial weights, so β also sets for how long they
  count: 1 / (1 − β) steps should be 1 to 10 % of a run.

  Args:
    decay: β, in [0, 1]: 0 keeps the last weights only, 1 the initial ones.

  Raises:
    ValueError: If `decay` lies outside [0, 1].

  Example:
    >>> from gmixout_jax import averaging
    >>> averaging.exponential(0.75)(7)
    0.25
  """
  if not 0 <= decay <= 1:
    raise ValueError(f"decay must be in [0, 1], got {decay}.")
  return lambda step: 1 - decay


def uniform(*, start: int = 1, every: int = 1) -> Rate:
  """The rate of SWA: the plain mean of every so many steps from a start on.

  Before `start` the average is the weights themselves, so that it can be used
  at any time.

  Args:
    start: The first step that counts, at least 1.
    every: Steps from one that counts to the next, at least 1.

  Raises:
    ValueError: If one of them is below 1.

  Example:
    >>> from gmixout_jax import averaging
    >>> rate = averaging.uniform(start=3, every=2)
    >>> [round(float(rate(step)), 2) for step in range(1, 8)]
    [1.0, 1.0, 1.0, 0.0, 0.5, 0.0, 0.33]

  References:
    Izmailov et al., Averaging weights leads to wider optima and better
    generalization, 2018, https://arxiv.org/abs/1803.05407; with every = 1
    it is the simple moving average of https://arxiv.org/abs/2110.10832
  """
  _check_positive(start=start, every=every)

  def rate(step: Int[Array, ""]) -> Float[Array, ""]:
    past = jnp.asarray(step) - start
    counted = (past // every).astype(float)  # those before this one
    picked = jnp.where(past % every == 0, 1.0 / (counted + 1.0), 0.0)
    return jnp.where(past <= 0, 1.0, picked)

  return rate


def segments(*, every: int) -> Rate:
  """The rate of means over consecutive segments; each starts afresh.

  Read the average after steps every, 2 · every, …: it is then the mean over all
  steps of a segment, which SWAD averages.

  Args:
    every: Steps of a segment, at least 1.

  Raises:
    ValueError: If `every` is below 1.

  Example:
    >>> from gmixout_jax import averaging
    >>> rate = averaging.segments(every=3)
    >>> [round(float(rate(step)), 2) for step in range(1, 6)]
    [1.0, 0.5, 0.33, 1.0, 0.5]
  """
  _check_positive(every=every)
  return lambda step: 1.0 / jnp.asarray((step - 1) % every + 1, float)


def average(
  optimizer: optax.GradientTransformation,
  rate: Rate,
  *,
  deploy: Callable[[Any, Any], Any] = lambda opt_state, params: params,
) -> optax.GradientTransformationExtraArgs:
  """Averages the weights along an optimizer's trajectory.

  The optimizer's updates pass unchanged; after step t

    θ̄ ← θ̄ + r(t) (θ_t − θ̄),   θ̄ = the initial weights at first.

  Leaves of integers, booleans or PRNG keys are neither updated nor averaged.

  Args:
    optimizer: What trains.
    rate: r, from `exponential`, `uniform` or `segments`.
    deploy: From the optimizer's state and the parameters to the weights that
      are averaged. Pass `gmixout_jax.gmixout_eval_params` for GMixout, whose
      training weights are not its evaluation weights.

  Returns:
    An `optax.GradientTransformationExtraArgs` with state `AverageState`; read
    it with `average_params`.

  Raises:
    ValueError: At `update` without `params`.

  Example:
    >>> import jax.numpy as jnp, optax
    >>> from gmixout_jax import averaging
    >>> params = {"w": jnp.array(0.0)}
    >>> tx = averaging.average(optax.sgd(1.0), averaging.uniform())
    >>> state = tx.init(params)
    >>> for _ in range(3):  # w = 1, 2, 3
    ...   gradient = {"w": jnp.array(-1.0)}
    ...   updates, state = tx.update(gradient, state, params)
    ...   params = optax.apply_updates(params, updates)
    >>> averaging.average_params(state, params)
    {'w': Array(2., dtype=float32)}
  """
  inner = optax.with_extra_args_support(optimizer)

  def init_fn(params: Any) -> AverageState:
    def start(leaf: jax.Array) -> jax.Array:
      # A copy: were it the parameter itself, a step that takes over both
      # would be handed one buffer twice.
      dtype = wide_dtype(leaf) if has_mean(leaf) else None
      return jnp.array(leaf, dtype, copy=True)

    return AverageState(
      step=jnp.zeros([], jnp.int32),
      average=jax.tree.map(start, params),
      inner_state=inner.init(params),
    )

  def update_fn(
    updates: Any,
    state: optax.OptState,
    params: Any = None,
    **extra_args: Any,
  ) -> tuple[Any, AverageState]:
    assert isinstance(state, AverageState)
    if params is None:
      raise ValueError(
        "average averages the weights, so its update needs them: call"
        " update(updates, state, params), got params=None."
      )
    updates, inner_state = inner.update(
      updates, state.inner_state, params, **extra_args
    )
    moved_params = jax.tree.map(
      _moved, params, updates, is_leaf=lambda leaf: leaf is None
    )
    reached = deploy(inner_state, moved_params)
    step = state.step + 1
    weight = rate(step)

    def follow(mean: jax.Array, new: jax.Array) -> jax.Array:
      if not has_mean(mean):
        return mean
      share = jnp.asarray(weight, mean.dtype)
      return mean + share * difference(new.astype(mean.dtype), mean)

    average = jax.tree.map(follow, state.average, reached)
    return updates, AverageState(step, average, inner_state)

  return optax.GradientTransformationExtraArgs(init_fn, update_fn)


def _moved(leaf: Any, update: Any) -> Any:
  """A parameter after an update; one without a mean has none of either."""
  return optax.apply_updates(leaf, update) if has_mean(leaf) else leaf


def average_params(opt_state: Any, params: Any) -> Any:
  """The averaged weights, in the types of the parameters.

  Args:
    opt_state: A state of `average`, or of what wraps it: chain, MultiSteps,
      masked, apply_if_finite, an `nnx.Optimizer`'s ``opt_state``. Of nested
      averages the outermost counts.
    params: The parameters, whole. Those that were not averaged, such as those
      that `optax.masked` left out, integers, booleans and PRNG keys, are
      returned unchanged.

  Returns:
    A pytree like `params`.

  Raises:
    ValueError: If `opt_state` holds no average, or several side by side, or
      one that does not fit `params`; or if a leaf of integers, booleans or
      keys, which has no average, has changed since `init` (not checked under
      jit). The leaf is named, with both values.
  """
  is_state = lambda node: isinstance(node, AverageState)
  found = [
    node
    for node in jax.tree.leaves(opt_state, is_leaf=is_state)
    if is_state(node)
  ]
  if len(found) != 1:
    raise ValueError(
      f"opt_state must hold one state of average, got {len(found)}, in"
      f" {jax.tree.structure(opt_state)}."
    )
  # By name, as the average may be a `flax.nnx.State` and `params` a plain dict.
  means = dict(named_leaves(nnx.as_pure(found[0].average)))
  results = []
  for name, leaf in named_leaves(params):
    mean = means.pop(name, leaf)
    if jnp.shape(mean) != jnp.shape(leaf):
      raise ValueError(
        f"leaf {name!r} of params has shape {jnp.shape(leaf)}, but its average"
        f" in opt_state {jnp.shape(mean)}: they belong to different models."
      )
    if has_mean(leaf):
      results.append(jnp.asarray(mean).astype(jnp.asarray(leaf).dtype))
      continue
    if not any(isinstance(x, jax.core.Tracer) for x in (mean, leaf)):
      check_agreement(name, (mean, leaf), ("opt_state", "params"))
    results.append(leaf)
  if means:
    raise ValueError(
      f"opt_state averages the leaf {min(means)!r}, which params lacks: they"
      " belong to different models."
    )
  return jax.tree.unflatten(jax.tree.structure(params), results)


def _check_positive(**values: int) -> None:
  for name, value in values.items():
    if value < 1:
      raise ValueError(f"{name} must be at least 1, got {value}.")
