import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import nnx

from experiments import methods
from experiments.data.batches import batches, stream
from experiments.methods import optimizers
from experiments.methods.flyp import FLYP
from experiments.methods.full_finetuning import FullFinetuning
from experiments.methods.gmixout import GMixout
from experiments.methods.lora import LoRA
from experiments.methods.method import Method
from experiments.methods.schedule import Schedule
from experiments.methods.swa import SWA
from experiments.methods.wise_ft import WiseFT
from experiments.tasks.recipe import Recipe
from experiments.tasks.task import Opened
from experiments.training import faults, gradients, loop
from experiments.training.runs import Runs
from experiments.training.train_step import make_step
from gmixout_jax import parallel
from tests.combinations import EXHAUSTIVE, tried
from tests.experiments import tiny

KEY = jax.random.key(0)
SHAPES = {"a": (3, 4), "b": {"c": (5,)}}


def fit(method, recipe, *, mesh=None, steps=3, batch_size=8, warmup=0.0):
  dataset = batches(tiny.split(), batch_size=batch_size, seed=0)
  return loop.fit(
    method,
    method.prepare(tiny.classifier(), tiny.source(), KEY),
    lambda start: stream(dataset, start, steps),
    steps=steps,
    schedule=recipe.schedule_of(steps, warmup),
    key=KEY,
    mesh=mesh,
    recipe=recipe,
  )


def assert_close(one, other, **tolerance):
  jax.tree.map(
    lambda a, b: np.testing.assert_allclose(a, b, **tolerance),
    loop.weights_of(one.model),
    loop.weights_of(other.model),
  )
  np.testing.assert_allclose(one.losses, other.losses, rtol=1e-5)


def tree(seed):
  rng = np.random.default_rng(seed)
  return jax.tree.map(
    lambda shape: jnp.asarray(rng.standard_normal(shape), jnp.float32),
    SHAPES,
    is_leaf=lambda node: isinstance(node, tuple),
  )


@dataclasses.dataclass(frozen=True)
class Descent(Method):
  """Whose weights show the gradient."""

  def transform(self, params, schedule, key):
    return optax.sgd(0.1)


MIXED = [
  Recipe(),
  Recipe(mixup=0.4, label_smoothing=0.1),
  Recipe(cutmix=1.0, clip_norm=0.1),
]


@pytest.mark.parametrize(
  ("method", "recipe"),
  [
    pytest.param(Descent(), MIXED[1], marks=EXHAUSTIVE),
    pytest.param(Descent(), MIXED[2], marks=EXHAUSTIVE),
    pytest.param(GMixout(resample_every=2), MIXED[0], marks=EXHAUSTIVE),
    # Below are its gradients; in `test_sharding.py` several devices.
    pytest.param(
      GMixout(resample_every=2, compact=True), MIXED[2], marks=EXHAUSTIVE
    ),
  ],
)
def test_micro_batches_and_devices_do_what_one_batch_does(method, recipe):
  whole = fit(method, recipe)
  parts = dataclasses.replace(recipe, accumulate=2)
  # Adam divides by the root of what may be next to nothing.
  tolerance = {"atol": 1e-6 if isinstance(method, Descent) else 2e-5}
  assert_close(fit(method, parts), whole, **tolerance)
  mesh = parallel.data_mesh(jax.devices()[:2])
  assert_close(fit(method, parts, mesh=mesh), whole, **tolerance)


def test_gradients_of_micro_batches_are_those_of_the_batch():
  rng = np.random.default_rng(0)
  x = jnp.asarray(rng.standard_normal((12, 3)), jnp.float32)
  loss = lambda w, batch, key: jnp.mean(jnp.tanh(batch @ w) ** 2)
  w = jnp.asarray(rng.standard_normal(3), jnp.float32)
  whole = gradients.value_and_grad(loss)(w, x, KEY)
  for parts in (2, 3, 12):
    found = jax.jit(gradients.value_and_grad(loss, parts))(w, x, KEY)
    jax.tree.map(
      lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-6, atol=1e-7),
      found,
      whole,
    )


def test_each_micro_batch_has_a_key_of_its_own():
  loss = lambda w, batch, key: w * jax.random.uniform(key)
  args = jnp.float32(1), jnp.ones(3), KEY
  drawn = [jax.random.uniform(jax.random.fold_in(KEY, i)) for i in range(3)]
  value, _ = gradients.value_and_grad(loss, 3)(*args)
  np.testing.assert_allclose(value, np.mean(drawn), rtol=1e-6)
  assert len(set(map(float, drawn))) == 3


@pytest.mark.parametrize("largest", [0.1, 3.0, 1e3])
def test_clipping_is_that_of_optax(largest):
  given = tree(0)
  clipped, _ = optax.clip_by_global_norm(largest).update(
    given, optax.EmptyState()
  )
  found = gradients.clip(given, gradients.norm(given), largest)
  jax.tree.map(np.testing.assert_array_equal, found, clipped)


@pytest.mark.parametrize("devices", tried([None, 2], lambda devices: devices))
def test_a_step_clips_the_mean_over_devices(devices):
  mesh = devices and parallel.data_mesh(jax.devices()[:devices])
  fitted = fit(Descent(), Recipe(clip_norm=0.05), steps=1, mesh=mesh)
  # By hand, from the gradient of the whole batch.
  model = Method().prepare(tiny.classifier(), tiny.source(), KEY)
  given = batches(tiny.split(), batch_size=8, seed=0)[0]
  graphdef, state, rest = nnx.split(model, nnx.Param, ...)
  params = nnx.to_pure_dict(state)
  of = lambda p: Method().loss(nnx.merge(graphdef, p, rest), given, KEY)
  grads = jax.jit(jax.grad(of))(params)
  assert optax.tree.norm(grads) > 0.05
  clipped, _ = optax.clip_by_global_norm(0.05).update(grads, optax.EmptyState())
  jax.tree.map(
    lambda new, old, g: np.testing.assert_allclose(
      new, old - 0.1 * g, atol=1e-6
    ),
    loop.weights_of(fitted.model),
    params,
    clipped,
  )


def test_what_is_frozen_does_not_count_in_the_norm():
  model = tiny.classifier()
  for method, frozen in (
    (GMixout(), {"embedding"}),
    (LoRA(), {"embedding"}),
    (WiseFT(of=GMixout()), {"embedding"}),
    (FullFinetuning(), set()),
  ):
    params = loop.weights_of(method.prepare(model, tiny.source(), KEY))
    trains = method.trains(params)
    assert all(jax.tree.leaves(trains["head"]))
    assert any(jax.tree.leaves(trains["backbone"]["blocks"]))
    found = {
      name
      for name, part in trains["backbone"].items()
      if not any(jax.tree.leaves(part))
    }
    assert found == frozen
  given = tree(0)
  counted = {"a": True, "b": {"c": False}}
  np.testing.assert_allclose(
    gradients.norm(given, counted), np.linalg.norm(given["a"]), rtol=1e-6
  )


@pytest.mark.parametrize(
  ("name", "theirs"),
  [
    ("adamw", optax.adamw(0.1, weight_decay=0.2)),
    ("nadamw", optax.nadamw(0.1, weight_decay=0.2)),
    ("lamb", optax.lamb(0.1, weight_decay=0.2)),
    ("lion", optax.lion(0.1, weight_decay=0.2)),
    (
      "sgd",
      optax.chain(optax.add_decayed_weights(0.2), optax.sgd(0.1, momentum=0.9)),
    ),
    (
      "adafactor",  # whose own decay is not multiplied by the rate
      optax.adafactor(
        0.1, multiply_by_parameter_scale=False, weight_decay_rate=0.1 * 0.2
      ),
    ),
  ],
)
def test_optimizers_are_optax_s(name, theirs):
  ours = optimizers.make(name, 0.1, weight_decay=0.2)
  params = tree(0)
  states = ours.init(params), theirs.init(params)
  for seed in (1, 2):
    left, first = ours.update(tree(seed), states[0], params)
    right, second = theirs.update(tree(seed), states[1], params)
    states = first, second
    jax.tree.map(
      lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-7),
      left,
      right,
    )
    params = optax.apply_updates(params, left)


@pytest.mark.parametrize(
  ("name", "compact"),
  tried(
    [
      ("nadamw", True),
      ("sgd", False),
      ("lamb", True),
      ("lion", False),
      ("adafactor", True),
      ("adafactor", False),
    ],
    # Of one whose state is like the weights, and of one whose state is not.
    lambda *case: case in (("sgd", False), ("adafactor", True)),
  ),
)
def test_every_optimizer_trains_gmixout(name, compact):
  method = GMixout(resample_every=2, compact=compact, learning_rate=1e-2)
  fitted = fit(method, Recipe(optimizer=name), steps=6, batch_size=24)
  assert fitted.losses[-1] < fitted.losses[0]
  assert fitted.stats.changed_parameters > 0


def test_weight_decay_takes_the_place_of_the_method_s():
  own = fit(FullFinetuning(weight_decay=0.5), Recipe())
  given = fit(FullFinetuning(), Recipe(weight_decay=0.5))
  none = fit(FullFinetuning(weight_decay=0.5), Recipe(weight_decay=0.0))
  plain = fit(FullFinetuning(), Recipe())
  assert_close(own, given, atol=0)
  assert_close(none, plain, atol=0)
  with pytest.raises(AssertionError):
    assert_close(own, plain, atol=0)


@pytest.mark.parametrize(
  ("shape", "half", "end"),
  [
    ("linear", 0.5, 0.0),
    ("constant", 1.0, 1.0),
    ("polynomial", 0.25, 0.0),
    ("exponential", 0.1, 0.01),
    ("cosine", 0.5, 0.0),
  ],
)
def test_shapes_of_schedules(shape, half, end):
  rate = Schedule(200, warmup=0.25, shape=shape)(2.0)
  found = [float(rate(step)) for step in (0, 25, 50, 125, 200)]
  np.testing.assert_allclose(found, [0, 1, 2, 2 * half, 2 * end], atol=1e-5)
  assert Schedule(10, warmup=0, shape=shape)(2.0)(0) == 2


def test_rates_are_those_of_the_method():
  schedule = Schedule(8, warmup=0.25, shape="linear")
  method = SWA(of=GMixout(learning_rate=0.5, head_learning_rate=0.25))
  params = loop.weights_of(tiny.classifier())
  method.transform(params, schedule, KEY)
  found = loop.rates(method, schedule)
  held = np.array([0, 0.5, 1, 1, 1, 1, 1, 1])  # SWA's is constant
  np.testing.assert_allclose(found["learning_rate"], 0.5 * held)
  np.testing.assert_allclose(found["head_learning_rate"], 0.25 * held)


def test_methods_without_labels_refuse_to_have_them_mixed():
  for name in ("mixup", "cutmix", "label_smoothing"):
    with pytest.raises(ValueError, match=rf"{name} .* FLYP .* 0, got 0\.5"):
      Recipe(**{name: 0.5}).check_method(FLYP())
  with pytest.raises(ValueError, match=r"mixup .* WiseFT"):
    Recipe(mixup=0.1).check_method(WiseFT(of=FLYP()))
  Recipe(clip_norm=1.0).check_method(FLYP())
  for method in methods.METHODS.values():
    if method is not FLYP:
      Recipe(mixup=0.1).check_method(method())


def test_a_run_asks_whether_labels_can_be_mixed():
  @dataclasses.dataclass(frozen=True)
  class Hard(Descent):
    def takes_soft_labels(self):
      return False

  with pytest.raises(ValueError, match=r"mixup .* Hard"):
    fit(Hard(), Recipe(mixup=0.1))


def test_a_batch_that_cannot_be_cut_up_is_refused():
  message = r"batch of 8 images .* evenly into accumulate=3"
  with pytest.raises(ValueError, match=message):
    fit(Descent(), Recipe(accumulate=3))
  task = Opened(
    model=tiny.classifier(),
    source=tiny.source(),
    steps=2,
    batch_size=8,
    recipe=Recipe(accumulate=3),
  )
  with pytest.raises(ValueError, match=message):
    Runs(task, [Descent()])
  with pytest.raises(ValueError, match=r"of 8 .* accumulate=2 .* of 8 devices"):
    Recipe(accumulate=2).check_batch(8, 8)
  Recipe(accumulate=2).check_batch(16, 8)


@pytest.mark.parametrize(
  ("field", "value"),
  [
    ("label_smoothing", 1.0),
    ("mixup", -0.1),
    ("cutmix", float("inf")),
    ("clip_norm", 0.0),
    ("accumulate", 0),
    ("optimizer", "adam2"),
    ("schedule", "cosinus"),
    ("weight_decay", -1.0),
  ],
)
def test_settings_out_of_range_are_named(field, value):
  with pytest.raises(ValueError, match=f"{field} must be .* got {value!r}"):
    Recipe(**{field: value})


def test_only_what_differs_is_described():
  assert Recipe().described() == {}
  assert Recipe(mixup=0.2, schedule="linear", weight_decay=0.0).described() == {
    "mixup": 0.2,
    "schedule": "linear",
    "weight_decay": 0.0,
  }


def test_a_step_measures_what_trains():
  method = GMixout()
  model = Method().prepare(tiny.classifier(), tiny.source(), KEY)
  graphdef, state, rest = nnx.split(model, nnx.Param, ...)
  params = nnx.to_pure_dict(state)
  given = batches(tiny.split(), batch_size=8, seed=0)[0]
  grads = jax.grad(
    lambda params: method.loss(nnx.merge(graphdef, params, rest), given, KEY)
  )(params)
  frozen = [grads["backbone"]["embedding"]]
  frozen += [block["bias"] for block in grads["backbone"]["blocks"].values()]
  everything, still = optax.tree.norm(grads), optax.tree.norm(frozen)
  optimizer = faults.guard(method.transform(params, Schedule(3), KEY), 0)
  step = make_step(
    method, lambda params: optimizer, graphdef, None, Recipe(), True
  )
  started = jax.tree.map(jnp.copy, params)
  _, metrics = step(
    (started, optimizer.init(params)), given, rest, np.int32(0), KEY
  )
  expected = np.sqrt(everything**2 - still**2)
  assert expected < 0.99 * everything
  np.testing.assert_allclose(metrics["gradient_norm"], expected, rtol=1e-5)
