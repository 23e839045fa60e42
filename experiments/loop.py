"""The training loop: one for every method, none of which it knows by name."""

import dataclasses
import functools
import time
from collections.abc import Callable, Collection, Iterable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import nnx

from experiments import form
from experiments.classifier import Classifier
from experiments.data.split import Batch
from experiments.methods.method import Method
from experiments.methods.run import Params, Snapshot
from experiments.schedule import Schedule

Metrics = dict[str, Any]


@dataclasses.dataclass(frozen=True)
class Stats:
  """What a fit cost.

  Attributes:
    steps: Optimizer steps taken.
    steps_per_second: Over all steps but the first, which compiles.
    first_step_seconds: The first step, with its compilation.
    changed_parameters: Weights that one step changes. Measured, not declared:
      the most entries of any step's update that were not zero. Mixout's include
      those that it swaps back, which makes 1 − p² of a matrix and not 1 − p.
    trained_parameters: Weights that differ after the run from those before it,
      of all that are deployed (of LoRA, the factors). Measured likewise.
    optimizer_bytes: Size of the optimizer's state, anchors included.
    snapshot_bytes: Size of the snapshots, on the host.
  """

  steps: int = 0
  steps_per_second: float = 0.0
  first_step_seconds: float = 0.0
  changed_parameters: int = 0
  trained_parameters: int = 0
  optimizer_bytes: int = 0
  snapshot_bytes: int = 0


class Fitted(NamedTuple):
  """What `fit` returns.

  Attributes:
    model: With the weights to deploy.
    losses: The loss before each step, float32 [steps].
    stats: What it cost.
    snapshots: What was asked for.
  """

  model: Classifier
  losses: np.ndarray
  stats: Stats
  snapshots: tuple[Snapshot, ...] = ()


def warmup_cosine(steps: int, *, warmup: float = 0.1) -> Schedule:
  """Linear from 0 to the peak, then half a cosine to 0; see `Schedule`."""
  return Schedule(steps, warmup)


def make_step(
  method: Method,
  optimizer: optax.GradientTransformationExtraArgs,
  graphdef: Any,
) -> Callable[..., tuple[Params, optax.OptState, Metrics]]:
  """The pure train step, jitted; it takes over params and opt_state."""

  @functools.partial(jax.jit, donate_argnames=("params", "opt_state"))
  def train_step(params, opt_state, rest, batch, step, key):
    trainable = form.trainable(params)

    def loss_fn(trainable):
      model = form.merge(graphdef, params, trainable, rest)
      return method.loss(model, batch, jax.random.fold_in(key, step))

    loss, gradients = jax.value_and_grad(loss_fn)(trainable)
    updates, opt_state = optimizer.update(
      gradients, opt_state, trainable, value=loss
    )
    params = form.apply_updates(params, updates)
    moved = sum(jnp.count_nonzero(leaf) for leaf in jax.tree.leaves(updates))
    return params, opt_state, {"loss": loss, "moved": moved}

  return train_step


def fit(
  method: Method,
  model: Classifier,
  batches: Iterable[Batch],
  *,
  steps: int,
  schedule: Schedule,
  key: jax.Array,
  progress: Callable[[int, float], None] | None = None,
  snapshots: Collection[int] = (),
) -> Fitted:
  """Trains a prepared model.

  Args:
    method: What to train and how.
    model: From `method.prepare`. It is not changed, and its arrays stay valid.
    batches: At least `steps` of them.
    steps: Optimizer steps.
    schedule: From `warmup_cosine`.
    key: Of all randomness in the transformation and the loss.
    progress: Called after each step with its number, from 0, and its loss.
    snapshots: After how many steps to keep the weights, each in [1, steps].

  Returns:
    The fitted model, the losses and what it cost. A method without a
    transformation takes no step and returns the model.

  Raises:
    FloatingPointError: If a loss is not finite; it holds the step and the loss.
    ValueError: If there are fewer batches than steps.
  """
  transform_key, loss_key = jax.random.split(key)
  graphdef, state, rest = nnx.split(model, nnx.Param, ...)
  # Copies, as a step gives its inputs away and the caller keeps the model.
  params = jax.tree.map(jnp.copy, nnx.to_pure_dict(state))
  transform = method.transform(params, schedule, transform_key)
  if transform is None or steps == 0:
    return Fitted(method.export(model), np.zeros(0, np.float32), Stats())
  optimizer = optax.with_extra_args_support(transform)
  params = method.parametrize(params, transform_key)
  opt_state = optimizer.init(form.trainable(params))
  train_step = make_step(method, optimizer, graphdef)

  losses, moved, clock, taken = [], 0, [time.perf_counter()], []

  def finish(step: int, metrics: Metrics) -> None:
    nonlocal moved
    loss = float(metrics["loss"])  # waits for the device
    if step == 0 or step == steps - 1:
      clock.append(time.perf_counter())
    if not np.isfinite(loss):
      raise FloatingPointError(f"the loss of step {step} is {loss}.")
    losses.append(loss)
    moved = max(moved, int(metrics["moved"]))
    if progress is not None:
      progress(step, loss)

  pending = None
  for step, batch in zip(range(steps), batches, strict=False):
    params, opt_state, metrics = train_step(
      params, opt_state, rest, batch, np.int32(step), loss_key
    )
    # One step late: fetching the newest metrics would idle the device while
    # the host prepares the next step.
    if pending is not None:
      finish(*pending)
    pending = step, metrics
    if step + 1 in snapshots:
      deployed = method.deploy(opt_state, params)
      exported = method.export(nnx.merge(graphdef, deployed, rest))
      # On the host, as the next step takes these buffers over.
      weights = jax.device_get(weights_of(exported))
      taken.append(Snapshot(step + 1, jax.tree.map(np.array, weights)))
  if pending is None or pending[0] != steps - 1:
    raise ValueError(f"{steps} steps need as many batches, got {len(losses)}.")
  finish(*pending)

  first = clock[1] - clock[0]
  deployed = method.deploy(opt_state, params)
  differing = jax.tree.map(
    lambda new, old: jnp.count_nonzero(new != old),
    deployed,
    nnx.to_pure_dict(state),
  )
  stats = Stats(
    steps=steps,
    steps_per_second=(steps - 1) / (clock[-1] - clock[1]) if steps > 1 else 0.0,
    first_step_seconds=first,
    changed_parameters=moved,
    trained_parameters=int(sum(jax.tree.leaves(differing))),
    optimizer_bytes=form.state_bytes(params, opt_state),
    snapshot_bytes=sum(
      leaf.nbytes for s in taken for leaf in jax.tree.leaves(s.params)
    ),
  )
  exported = method.export(nnx.merge(graphdef, deployed, rest))
  return Fitted(exported, np.asarray(losses, np.float32), stats, tuple(taken))


def weights_of(model: nnx.Module) -> Params:
  """The parameters of a model as a nested dict of arrays."""
  return nnx.to_pure_dict(nnx.state(model, nnx.Param))
