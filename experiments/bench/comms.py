"""What crosses the network in a train step on eight devices, from its HLO."""

import math
import pathlib
import re
from typing import Any, NamedTuple

import jax

import gmixout_jax as gx
from experiments.bench import console, figures, train_steps

DEVICES = 8
TARGETS = {
  "allreduce_bytes_ratio": 0.12,
  "fsdp_bytes_ratio": 0.16,
  "masks_sent_bytes": 0.0,
}

_COLLECTIVE = re.compile(
  r"= (?P<types>.*?) (?P<kind>all-reduce|all-gather|all-to-all|reduce-scatter"
  r"|collective-permute|collective-broadcast|ragged-all-to-all)(-start)?\("
)
_TYPE = re.compile(r"\b(?P<dtype>pred|[a-z]+\d+\w*)\[(?P<shape>[\d,]*)\]")


class Message(NamedTuple):
  """One array that a collective operation makes.

  Attributes:
    kind: The operation, such as "all-reduce".
    dtype: HLO's name of the type, such as "f32".
    nbytes: The array's size.
  """

  kind: str
  dtype: str
  nbytes: int


def messages(hlo: str) -> list[Message]:
  """All arrays that devices exchange.

  Example:
    >>> messages("%x = (f32[2,3]{1,0}, s32[]) all-reduce(%a, %b), channel_id=1")
    [Message(kind='all-reduce', dtype='f32', nbytes=24), \
Message(kind='all-reduce', dtype='s32', nbytes=4)]
  """
  return [
    Message(found["kind"], of["dtype"], _nbytes(of["dtype"], of["shape"]))
    for found in _COLLECTIVE.finditer(hlo)
    for of in _TYPE.finditer(found["types"])
  ]


def _nbytes(dtype: str, shape: str) -> int:
  bits = 8 if dtype == "pred" else int(re.findall(r"\d+", dtype)[0])
  return math.prod(int(n) for n in shape.split(",") if n) * bits // 8


def run(json: pathlib.Path | None = None, image_size: int = 32) -> None:
  """Compiles train steps of ViT-B/16 for eight devices; nothing runs.

  allreduce_bytes_ratio: what the compact path sums over devices, of what full
  fine-tuning sums. fsdp_bytes_ratio: weights, anchor and moments that one of
  eight devices keeps where all are sharded, of what one device alone keeps.
  masks_sent_bytes: of anything but floats, in all of these steps.

  Args:
    json: Where to write the figures.
    image_size: Side of the images in pixels, a multiple of 16. It matters to
      no figure but through the position embeddings.
  """
  jax.config.update("jax_num_cpu_devices", DEVICES)
  vit = lambda: train_steps.vit("vit_b16", image_size)
  batch = train_steps.batch_shapes(DEVICES, image_size)
  full = train_steps.full_finetuning(vit(), parallel=True)
  compact = train_steps.compact(vit(), "stratified", parallel=True)
  results: figures.Figures = {}
  sent: list[Message] = []
  for name, step in {"full": full, "compact": compact}.items():
    for style in ("shard_map", "jit"):
      with console.status(f"Compiling {name}, {style}"):
        hlo, _ = _compiled(step, batch, style)
      found = messages(hlo)
      results[f"{name}_{style}_allreduce_bytes"] = float(
        sum(m.nbytes for m in found if m.kind == "all-reduce")
      )
      sent += found if name == "compact" else []
  with console.status("Compiling compact, sharded"):
    hlo, kept = _compiled(compact, batch, "jit", sharded=True)
  sent += messages(hlo)
  alone = figures.tree_bytes(jax.eval_shape(compact.init, compact.params))
  results |= {
    "one_device_persistent_bytes": float(alone),
    "fsdp_persistent_bytes": float(kept),
    "fsdp_bytes_ratio": kept / alone,
    "allreduce_bytes_ratio": max(
      results[f"compact_{style}_allreduce_bytes"]
      / results[f"full_{style}_allreduce_bytes"]
      for style in ("shard_map", "jit")
    ),
    "masks_sent_bytes": float(
      sum(m.nbytes for m in sent if not m.dtype.startswith(("f", "bf")))
    ),
  }
  title = f"Communication of a train step, ViT-B/16, {DEVICES} devices"
  figures.report(title, results, TARGETS, json)


def _compiled(
  step: train_steps.TrainStep,
  batch: train_steps.Batch,
  style: gx.parallel.Style,
  sharded: bool = False,
) -> tuple[str, int]:
  """The optimized program, and the bytes of state that a device keeps."""
  mesh = gx.parallel.data_mesh(jax.devices()[:DEVICES])
  state: Any = jax.eval_shape(step.init, step.params)
  everywhere = jax.sharding.NamedSharding(mesh, jax.sharding.PartitionSpec())
  shardings = (
    gx.parallel.row_shardings(state, mesh)
    if sharded
    else jax.tree.map(lambda leaf: everywhere, state)
  )
  placed = jax.tree.map(
    lambda leaf, at: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=at),
    state,
    shardings,
  )
  compiled = (
    gx.parallel.data_parallel(
      step.step,
      mesh,
      style=style,
      state_sharding=shardings if sharded else None,
    )
    .lower(placed, batch)  # pyright: ignore[reportFunctionMemberAccess]
    # The collectives are the same, and found in a tenth of the time.
    .compile({"xla_backend_optimization_level": 0})
  )
  taken = compiled.memory_analysis().argument_size_in_bytes
  # XLA's count, less the batch, which it may have on every device or split.
  (_, batch_shardings, *_), _ = compiled.input_shardings
  parts = jax.tree.map(
    lambda leaf, at: jax.ShapeDtypeStruct(
      at.shard_shape(leaf.shape), leaf.dtype
    ),
    batch,
    batch_shardings,
  )
  return compiled.as_text(), taken - figures.tree_bytes(parts)
