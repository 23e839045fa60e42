"""Time and bandwidth of the Pallas kernels on the leaves of CLIP."""

import functools
import pathlib
import time
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import optax

from experiments.bench import figures
from pallas_kernels import clip_shapes, dispatch
from pallas_kernels.dispatch import Implementation
from pallas_kernels.masked_mix import bench as masked_mix_bench
from pallas_kernels.masked_mix import shapes as masked_mix_shapes
from pallas_kernels.pack import bench as pack_bench
from pallas_kernels.pack import shapes as pack_shapes
from pallas_kernels.packed_step import bench as packed_step_bench
from pallas_kernels.packed_step import shapes as packed_step_shapes
from pallas_kernels.workload import Workload, normal

WORKLOADS: dict[str, tuple[Callable[..., Workload], clip_shapes.Shapes]] = {
  "masked_mix": (masked_mix_bench.workload, masked_mix_shapes.NAMED),
  "bernoulli_mix": (
    functools.partial(masked_mix_bench.workload, sampler="bernoulli"),
    masked_mix_shapes.NAMED,
  ),
  "pack": (pack_bench.workload, pack_shapes.NAMED),
  "packed_step": (packed_step_bench.workload, packed_step_shapes.NAMED),
}
DTYPES = {"f32": jnp.float32, "bf16": jnp.bfloat16}
# On a CPU, where the figures show no more than that the benchmark works.
REDUCED_SHAPES = ("b16_attention", "b16_fc1")
REDUCED_FACTOR = 12


def run(json: pathlib.Path | None = None, repeats: int = 15) -> None:
  """Times every kernel on every implementation that the device can run.

  A time is the median over rounds of one jitted loop of steps, per step. The
  bandwidth counts the bytes that must be moved, in sectors of 32 bytes, and
  is given as a fraction of what a device copy reaches. `optax.adamw` on the
  same leaves is `tx.update` and `optax.apply_updates`. Without a GPU only
  "xla" runs, on two shapes and a twelfth of the models.

  Args:
    json: Where to write the figures.
    repeats: Timed rounds.
  """
  on_gpu = jax.default_backend() == "gpu"
  timer = Timer(steps=100 if on_gpu else 2, repeats=repeats)
  copied = copy_workload(2**28 if on_gpu else 2**24)
  timer.measure("copy", copied)
  for kernel, (make, shapes) in WORKLOADS.items():
    for shape in shapes if on_gpu else REDUCED_SHAPES:
      for dtype in DTYPES:
        label = f"{kernel}/{shape}/{dtype}"
        print(label)
        work = functools.partial(make, shapes[shape], DTYPES[dtype])
        timer.compare(label, work)
        if kernel == "packed_step":
          timer.against_adamw(label, [shapes[shape]], dtype)
  for model, counts in clip_shapes.BLOCK_MATRICES.items():
    if not on_gpu:
      counts = {leaf: n // REDUCED_FACTOR for leaf, n in counts.items()}
    leaves = [
      clip_shapes.CLIP[leaf] for leaf, n in counts.items() for _ in range(n)
    ]
    for dtype in DTYPES:
      label = f"blocks/{model}/{dtype}"
      print(label)
      timer.compare(label, functools.partial(blocks_workload, counts, dtype))
      timer.against_adamw(label, leaves, dtype)
  where = "" if on_gpu else ", reduced: a CPU, which says nothing of a GPU"
  figures.report(
    f"Kernels{where}", timer.results, _targets(timer.results), json
  )


class Timer:
  """Measures workloads and keeps the figures.

  Attributes:
    results: All figures by name.
  """

  def __init__(self, steps: int, repeats: int):
    self.results: figures.Figures = {}
    self.steps, self.repeats = steps, repeats
    names: list[Implementation] = ["xla", "mosaic_gpu", "triton"]
    self.usable: list[Implementation] = [
      name for name in names if dispatch.obstacle(name) is None
    ]

  def measure(self, label: str, work: Workload) -> None:
    """Adds time, bandwidth, and its ratio to a copy's."""
    taken = seconds_per_step(work, self.steps, self.repeats)
    self.results[f"{label}_us"] = taken * 1e6
    self.results[f"{label}_gbps"] = work.bytes / taken / 1e9
    speed, copy = self.results[f"{label}_gbps"], self.results["copy_gbps"]
    self.results[f"{label}_of_copy"] = speed / copy

  def compare(
    self, label: str, make: Callable[[Implementation], Workload]
  ) -> None:
    """Measures every implementation; one that fails does not end the rest."""
    for name in self.usable:
      try:
        self.measure(f"{label}/{name}", make(name))
      except Exception as error:
        print(f"  {name} failed: {type(error).__name__}: {error}")
        continue
      self._add_ratio(label, name, "xla", f"{label}/xla_us")

  def against_adamw(
    self, label: str, shapes: list[tuple[int, ...]], dtype: str
  ) -> None:
    """Adds the time of `optax.adamw`, and what was measured in ratio to it."""
    self.measure(f"{label}/adamw", adamw_workload(shapes, DTYPES[dtype]))
    for name in self.usable:
      self._add_ratio(label, name, "adamw", f"{label}/adamw_us")

  def _add_ratio(self, label: str, name: str, base: str, of: str) -> None:
    taken = self.results.get(f"{label}/{name}_us")
    if taken is not None and of in self.results:
      ratio = taken / self.results[of]
      self.results[f"{label}/{name}_over_{base}"] = ratio


def seconds_per_step(work: Workload, steps: int, repeats: int) -> float:
  """Median seconds of one step, over rounds of a jitted loop of `steps`."""

  @functools.partial(jax.jit, donate_argnums=0)
  def loop(carry: Any) -> Any:
    return jax.lax.fori_loop(
      0, steps, lambda turn, carry: work.step(carry, turn), carry
    )

  carry = jax.block_until_ready(loop(jax.tree.map(jnp.array, work.carry)))
  taken = []
  for _ in range(repeats):
    start = time.perf_counter()
    carry = jax.block_until_ready(loop(carry))
    taken.append(time.perf_counter() - start)
  return sorted(taken)[repeats // 2] / steps


def copy_workload(entries: int) -> Workload:
  """Reads and writes `entries` float32: what the memory can do at its best."""
  return Workload(
    lambda carry, turn: carry + turn.astype(jnp.float32),
    normal(0, (entries,), jnp.float32),
    8 * entries,
  )


def adamw_workload(shapes: list[tuple[int, ...]], dtype: Any) -> Workload:
  """`optax.adamw` with float32 moments on leaves of these shapes."""
  tx = optax.adamw(1e-4)
  params = [normal(0, shape, dtype) for shape in shapes]
  gradients = {shape: normal(1, shape, dtype) for shape in sorted(set(shapes))}

  def step(carry: Any, turn: jax.Array) -> Any:
    params, state, gradients = carry
    # Gradients of every turn differ, or XLA squares them before the loop.
    scale = 1 + turn.astype(jnp.float32) * 1e-6
    wide = [gradients[shape].astype(jnp.float32) * scale for shape in shapes]
    updates, state = tx.update(wide, state, params)
    params = optax.apply_updates(params, updates)
    return params, state, gradients

  size = sum(leaf.size for leaf in params)
  width = jnp.dtype(dtype).itemsize
  return Workload(
    step,
    (params, tx.init([jnp.zeros(shape) for shape in shapes]), gradients),
    size * (3 * width + 16),
  )


def blocks_workload(
  counts: dict[str, int], dtype: str, name: Implementation
) -> Workload:
  """`packed_step` on all matrices of a model's blocks."""
  parts = [
    packed_step_bench.workload(
      clip_shapes.CLIP[leaf], DTYPES[dtype], name, copies=n
    )
    for leaf, n in counts.items()
  ]
  return Workload(
    lambda carry, turn: [
      part.step(own, turn) for part, own in zip(parts, carry, strict=True)
    ],
    [part.carry for part in parts],
    sum(part.bytes for part in parts),
  )


def _targets(results: figures.Figures) -> dict[str, float]:
  """The wanted ratio of packed_step to AdamW on all blocks of a model."""
  return {
    name: 0.4
    for name in results
    if name.startswith("blocks/") and name.endswith("_over_adamw")
  }
