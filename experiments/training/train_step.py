"""One step of training, compiled: the same for every method.

`shared_step` is what runs take. Learning rates come into it as data, so runs
that differ in these alone, or in the seed, share one program.
"""

import dataclasses
import functools
from collections.abc import Callable, Collection
from typing import Any

import jax
import jax.numpy as jnp
import optax

from experiments.methods import parametrization
from experiments.methods.method import Method
from experiments.methods.schedule import Schedule
from experiments.tasks.recipe import Recipe
from experiments.training import faults, mixing
from experiments.training import gradients as grads
from experiments.training.run_checkpoints import State
from experiments.training.sharding import Sharding, compile_step
from experiments.training.step_costs import StepCosts, counted
from gmixout_jax import parallel

Metrics = dict[str, Any]
Step = Callable[..., tuple[State, Metrics]]


def make_step(
  method: Method,
  make_optimizer: Callable[..., optax.GradientTransformationExtraArgs],
  graphdef: Any,
  mesh: jax.sharding.Mesh | None = None,
  recipe: Recipe = Recipe(),  # noqa: B008 (it is frozen)
  measures_norm: bool = False,
  sharding: Sharding = "data",
) -> Step:
  """The pure train step with an optimizer, jitted; it takes over the state.

  Args:
    method: Whose loss it is.
    make_optimizer: (parameters, *inputs) → an optimizer, from `guard`.
    graphdef: Of the model.
    mesh: To spread the batch over, if any.
    recipe: Label mixing, micro-batches and clipping. The optimizer is made.
    measures_norm: Whether the metrics have a `gradient_norm`, before clipping.
    sharding: Of the state, over the devices of the mesh.

  Returns:
    A function of the parameters with the optimizer's state, a batch, all else
    that the model holds, the number of the step, a key, and the inputs of
    `make_optimizer`.
  """

  def train_step(state, batch, rest, step, key, *given):
    params, opt_state = state
    optimizer = make_optimizer(params, *given)
    trainable = parametrization.trainable(params)
    whole, differentiated = params, trainable
    if mesh is not None:
      whole, differentiated = parallel.gathered((params, trainable))
    key = jax.random.fold_in(key, step)
    mix_key = mixing.key_of(key) if recipe.softens else None
    if mesh is not None:  # each part of the batch has a dropout of its own
      key = jax.random.fold_in(key, parallel.index())

    trains = parametrization.trains(method, params)

    def loss_fn(trainable, batch, key):
      trainable = grads.stopped(trainable, trains)
      model = parametrization.merge(graphdef, whole, trainable, rest)
      if mix_key is not None:
        classes = model.head.out_features
        batch = mixing.soften(batch, recipe, mix_key, classes)
      return method.loss(model, batch, key)

    loss, gradients = grads.value_and_grad(loss_fn, recipe.accumulate)(
      differentiated, batch, key
    )
    if mesh is not None:
      loss, gradients = grads.reduced(loss, gradients, trains)
    finite = faults.finite(loss, gradients)
    extra = {}
    if measures_norm or recipe.clip_norm is not None:
      norm = grads.norm(gradients, trains)
      if measures_norm:
        extra = {"gradient_norm": norm}
      if recipe.clip_norm is not None:
        gradients = grads.clip(gradients, norm, recipe.clip_norm)
    if faults.may_skip(opt_state):
      gradients = faults.spoiled(gradients, loss)
    updates, opt_state = optimizer.update(
      gradients, opt_state, trainable, value=loss
    )
    failures = faults.in_a_row(opt_state, finite)
    stepped = failures == 0 if faults.may_skip(opt_state) else True
    before = params
    params = parametrization.apply_updates(params, updates, stepped=stepped)
    moved = parametrization.moved(before, params, updates)
    return (params, opt_state), {
      "loss": loss,
      "moved": moved,
      "finite": finite,
      "failures": failures,
      **extra,
    }

  compiled = compile_step(train_step, mesh, sharding)
  if not recipe.mixes:
    return compiled

  def paired(state, batch, *others):
    return compiled(state, mixing.with_partners(batch), *others)

  return jax.jit(paired, donate_argnames="state")


def shared_step(
  method: Method,
  schedule: Schedule,
  graphdef: Any,
  key: jax.Array,
  mesh: jax.sharding.Mesh | None = None,
  recipe: Recipe = Recipe(),  # noqa: B008 (it is frozen)
  measures_norm: bool = False,
  sharding: Sharding = "data",
  skip_nonfinite: int = 0,
) -> "Shared":
  """The step of a run, compiled once for all runs that are alike.

  Args:
    method: Whose loss and transformation it has.
    schedule: That `method.transform` has been handed before: it knows the
      peaks, and the method asks for them again in the same order.
    graphdef: Of the model.
    key: That `method.transform` has been handed.
    mesh: As for `make_step`.
    recipe: As for `make_step`.
    measures_norm: As for `make_step`.
    sharding: As for `make_step`.
    skip_nonfinite: See `faults.guard`.

  Returns:
    As `make_step`.
  """
  like = _Like(_key(method, schedule.asked), method)
  settings = mesh, recipe, measures_norm, sharding, skip_nonfinite
  try:
    compiled = _compiled(like, schedule, graphdef, *settings)
  except TypeError:  # a hyperparameter that cannot be hashed
    compiled = _compiled.__wrapped__(like, schedule, graphdef, *settings)
  given = jnp.asarray(schedule.asked, jnp.float32), key
  if mesh is not None:
    given = parallel.replicate(given, mesh)
  return Shared(compiled, given)


@dataclasses.dataclass(frozen=True)
class Shared:
  """A step of one run, of a program that others may share."""

  compiled: Any
  given: tuple[jax.Array, ...]

  def __call__(self, *inputs: Any) -> tuple[State, Metrics]:
    """Takes the step."""
    return self.compiled(*inputs, *self.given)

  def costs(self, *inputs: Any) -> StepCosts:
    """What a step costs; free once it has been called with such inputs."""
    return counted(self.compiled.lower(*inputs, *self.given).compile())


@dataclasses.dataclass(frozen=True)
class _Like:
  """A method, compared by all that its step depends on."""

  key: Any
  method: Method = dataclasses.field(compare=False)


def _key(method: Method, peaks: Collection[float]) -> Any:
  """Class and hyperparameters but for the rates that a schedule has taken."""
  fields: list[Any] = [type(method)]
  for field in dataclasses.fields(method):
    value = getattr(method, field.name)
    if isinstance(value, Method):
      value = _key(value, peaks)
    elif field.name.endswith("learning_rate") and value in peaks:
      value = None
    fields.append((field.name, value))
  return tuple(fields)


# As many as a comparison has methods; each holds its programs.
@functools.lru_cache(maxsize=16)
def _compiled(
  like: _Like,
  schedule: Schedule,
  graphdef: Any,
  mesh: jax.sharding.Mesh | None,
  recipe: Recipe,
  measures_norm: bool,
  sharding: Sharding,
  skip_nonfinite: int,
) -> Callable[..., tuple[State, Metrics]]:
  method = like.method

  def optimizer(
    params: parametrization.Form, peaks: jax.Array, key: jax.Array
  ) -> Any:
    shapes = jax.tree.map(
      lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype),
      parametrization.training_weights(params),
    )
    transform = method.transform(shapes, schedule.fresh(peaks), key)
    assert transform is not None
    return faults.guard(transform, skip_nonfinite)

  return make_step(
    method, optimizer, graphdef, mesh, recipe, measures_norm, sharding
  )
