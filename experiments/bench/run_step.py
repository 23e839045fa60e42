"""The step of `experiments.train` on eight devices: what it sends and keeps.

Unlike `comms`, whose steps are written for it, this looks at what runs compile.
"""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from flax import nnx
from jax.sharding import NamedSharding, PartitionSpec

import gmixout_jax as gx
from experiments.bench import comms, figures, train_steps
from experiments.methods.full_finetuning import FullFinetuning
from experiments.methods.gmixout import GMixout
from experiments.methods.method import Method
from experiments.methods.parametrization import trainable
from experiments.methods.schedule import Schedule
from experiments.models.classifier import Classifier
from experiments.training.faults import guard
from experiments.training.sharding import Sharding
from experiments.training.train_step import shared_step
from gmixout_jax import parallel

CLASSES = 1000


class Examined(NamedTuple):
  """What a compiled step says of itself.

  Attributes:
    reduced: Bytes that devices sum up.
    kept: Bytes of state that a device keeps from step to step.
    state: Bytes of the whole state.
  """

  reduced: int
  kept: int
  state: int


def count(vit: str, batch_size: int, image_size: int) -> figures.Figures:
  """Bytes of GMixout and of full fine-tuning, weights in float32.

  Args:
    vit: A key of `train_steps.VITS`.
    batch_size: Images on all devices.
    image_size: Side of the images in pixels.
  """
  of = (vit, batch_size, image_size)
  gmixout = examine(GMixout(), *of, "data")
  full = examine(FullFinetuning(), *of, "data")
  sharded = examine(GMixout(), *of, "fsdp")
  return {
    "allreduce_bytes": float(gmixout.reduced),
    "full_allreduce_bytes": float(full.reduced),
    "allreduce_bytes_ratio": gmixout.reduced / full.reduced,
    "fsdp_bytes": float(sharded.kept),
    "one_device_bytes": float(sharded.state),
    "fsdp_bytes_ratio": sharded.kept / sharded.state,
  }


def examine(
  method: Method,
  vit: str,
  batch_size: int,
  image_size: int,
  sharding: Sharding,
) -> Examined:
  """Compiles the step of a run, from shapes alone.

  Args:
    method: What trains.
    vit: As for `count`.
    batch_size: As for `count`.
    image_size: As for `count`.
    sharding: Of the state.
  """
  mesh = parallel.data_mesh(jax.devices()[: comms.DEVICES])
  graphdef, params, rest = nnx.split(
    classifier(vit, image_size), nnx.Param, ...
  )
  schedule, key = Schedule(1000), jax.random.key(0)

  def begin(params: Any) -> Any:
    transform = method.transform(params, schedule, key)
    assert transform is not None
    form = method.parametrize(params, key)
    return form, guard(transform, 0).init(trainable(form))

  state = jax.eval_shape(begin, nnx.to_pure_dict(params))
  everywhere = NamedSharding(mesh, PartitionSpec())
  shardings = (
    parallel.row_shardings(state, mesh)
    if sharding == "fsdp"
    else jax.tree.map(lambda leaf: everywhere, state)
  )
  batch = {
    "image": ((batch_size, image_size, image_size, 3), jnp.uint8),
    "label": ((batch_size,), jnp.int32),
  }
  split = NamedSharding(mesh, PartitionSpec(parallel.AXIS))
  step = shared_step(method, schedule, graphdef, key, mesh, sharding=sharding)
  compiled: Any = (
    # A step holds arrays, by which no function can be looked up.
    jax.jit(lambda *inputs: step(*inputs))
    .lower(
      jax.tree.map(_at, state, shardings),
      {
        name: jax.ShapeDtypeStruct(*of, sharding=split)
        for name, of in batch.items()
      },
      jax.tree.map(lambda leaf: _at(leaf, everywhere), rest),
      jax.ShapeDtypeStruct((), jnp.int32, sharding=everywhere),
      key,
    )
    # The collectives are the same, and found in a tenth of the time.
    .compile({"xla_backend_optimization_level": 0})
  )
  sent = comms.messages(compiled.as_text())
  left, _ = compiled.output_shardings
  parts = jax.tree.map(
    lambda leaf, at: jax.ShapeDtypeStruct(
      at.shard_shape(leaf.shape), leaf.dtype
    ),
    state,
    left,
  )
  return Examined(
    sum(m.nbytes for m in sent if m.kind == "all-reduce"),
    figures.tree_bytes(parts),
    figures.tree_bytes(state),
  )


def classifier(vit: str, image_size: int) -> Classifier:
  """Shapes of a ViT under a head of 1000 classes."""
  config = gx.clip.VisionConfig.vit(
    num_classes=0, image_size=image_size, **train_steps.VITS[vit]
  )
  return nnx.eval_shape(
    lambda: Classifier.with_zero_head(
      gx.clip.ViT(config, rngs=nnx.Rngs(0)),
      width=config.width,
      classes=CLASSES,
    )
  )


def _at(leaf: Any, sharding: NamedSharding) -> jax.ShapeDtypeStruct:
  return jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=sharding)
