"""The compiled step of every method lowers for TPU and CUDA, without either."""

import functools
import itertools
import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from experiments import methods
from experiments.methods import parametrization
from experiments.methods.flyp import FLYP
from experiments.methods.gmixout import GMixout
from experiments.methods.schedule import Schedule
from experiments.models.classifier import Classifier
from experiments.tasks import digits
from experiments.training import faults
from experiments.training.sharding import SHARDINGS
from experiments.training.train_step import make_step
from gmixout_jax import parallel
from tests.combinations import every_value, tried
from tests.experiments import tiny

KEY = jax.random.key(0)


def runs_of_all_methods():
  """Each run that some registered method trains, once, by its first method."""
  found = {}
  for name, method in methods.METHODS.items():
    for member in method().members():
      found.setdefault(member.method, name)
  runs = {name: method for method, name in found.items()}
  return runs | {"gmixout_dense": GMixout(compact=False)}


@functools.cache
def classifier(dtype="float32"):
  """Under a head that is not blank, which no probe replaces."""
  head = np.random.default_rng(0).normal(size=(16, 3))
  return Classifier(tiny.vit(dtype=dtype), 0.3 * head.astype(np.float32))


def traced(method, model, mesh=None, sharding="data"):
  """The step of a run on a batch of eight; None if it takes none."""
  model = method.prepare(model, tiny.source(), KEY)
  graphdef, state, rest = nnx.split(model, nnx.Param, ...)
  params = nnx.to_pure_dict(state)
  transform = method.transform(params, Schedule(10), KEY)
  if transform is None:
    return None
  optimizer = faults.guard(transform, 0)

  def begin(params):
    # In here, as some keep what they begin with.
    guarded = faults.guard(method.transform(params, Schedule(10), KEY), 0)
    params = method.parametrize(params, KEY)
    return params, guarded.init(parametrization.trainable(params))

  size = digits.rendered_digits.SIZE if isinstance(method, FLYP) else tiny.SIZE
  batch = {
    "image": jax.ShapeDtypeStruct((8, size, size, 3), jnp.uint8),
    "label": jax.ShapeDtypeStruct((8,), jnp.int32),
  }
  begun = jax.eval_shape(begin, params)
  step = make_step(
    method, lambda params: optimizer, graphdef, mesh, sharding=sharding
  )
  return step.trace(begun, batch, rest, np.int32(0), KEY)  # pyright: ignore[reportFunctionMemberAccess]


RUNS = runs_of_all_methods()


ON_EIGHT = (
  "full_finetuning", "gmixout", "gmixout_dense", "mixout", "neuron_mixout",
  "random_mask", "lora", "ema",
)  # fmt: skip


PRODUCTS = ("gmixout_dense", "random_mask")
# Their steps are those of full fine-tuning or Mixout, at other rates; that of
# FLYP has two towers, and runs in its own tests.
LIKE_ANOTHER = (
  "high_rate_mixout", "lp_ft", "swa", "swad", "uniform_soup", "flyp",
)  # fmt: skip


@pytest.mark.parametrize(
  "name", tried(RUNS, lambda name: name not in (*ON_EIGHT, *LIKE_ANOTHER))
)
def test_of_one_device(name):
  method = RUNS[name]
  model = classifier()
  if isinstance(method, FLYP):
    model = digits.zero_shot_classifier()
  if (found := traced(method, model)) is None:
    assert name in ("zero_shot", "linear_probe")
    return
  for platform in ("tpu", "cuda"):
    program = found.lower(lowering_platforms=(platform,)).as_text()
    assert "stablehlo.dot_general" in program


@pytest.mark.parametrize(
  ("name", "sharding"),
  [
    *every_value(
      [name for name in ON_EIGHT if name not in PRODUCTS], SHARDINGS
    ),
    # Below they are lowered for one device.
    *tried(itertools.product(PRODUCTS, SHARDINGS), lambda *_: False),
  ],
)
def test_of_eight_devices(name, sharding):
  found = traced(RUNS[name], classifier(), parallel.data_mesh(), sharding)
  assert found is not None
  for platform in ("tpu", "cuda"):
    program = found.lower(lowering_platforms=(platform,)).as_text()
    assert "mhlo.num_partitions = 8" in program


@pytest.mark.parametrize(
  ("name", "dtype"),
  tried(
    itertools.product(
      ["full_finetuning", "gmixout", "gmixout_dense", "mixout", "random_mask",
       "lora"],
      ["bfloat16", "float32"],
    ),
    lambda *case: case in {
      ("full_finetuning", "float32"), ("gmixout", "bfloat16"),
      ("gmixout_dense", "bfloat16"), ("random_mask", "bfloat16"),
    },
  ),
)  # fmt: skip
def test_products_are_in_the_type_that_is_asked_for(name, dtype):
  found = traced(RUNS[name], classifier(dtype))
  assert found is not None
  for platform in ("tpu", "cuda"):
    program = found.lower(lowering_platforms=(platform,)).as_text()
    # What is stored is float32; products of activations are in `dtype`.
    signature = program.split("@main(", 1)[1].split("\n", 1)[0]
    assert "bf16" not in signature
    read = re.findall(r"stablehlo.dot_general .*: \(tensor<(\S+?)>", program)
    narrow = sum(name.endswith("xbf16") for name in read)
    # At the least the six matrices and attention, forward.
    assert narrow >= 8 if dtype == "bfloat16" else narrow == 0
