"""Time and bandwidth of the Pallas kernels on the leaves of CLIP."""

import dataclasses
import functools
import math
import pathlib
import time
from collections.abc import Callable, Collection, Sequence
from typing import Any, get_args

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
DTYPES = {"bf16": jnp.bfloat16, "f32": jnp.float32}
BLOCKS = "blocks"
# The largest comes first: smaller ones stay in the cache of a GPU, from which
# they are read faster than from its memory.
LEAVES = ("text_tokens", *(n for n in clip_shapes.CLIP if n != "text_tokens"))
# On a CPU, where the figures show no more than that the benchmark works.
REDUCED_LEAVES = ("b16_attention", "b16_fc1")
REDUCED_FACTOR = 24


def run(
  json: pathlib.Path | None = None,
  repeats: int = 15,
  only: tuple[str, ...] = (BLOCKS, *WORKLOADS),
  dtypes: tuple[str, ...] = tuple(DTYPES),
  leaves: tuple[str, ...] = (),
  seconds: float = math.inf,
) -> None:
  """Times every kernel on every implementation that the device can run.

  A time is the median over rounds of one jitted loop of steps, per step. The
  bandwidth counts the bytes that must be moved, in sectors of 32 bytes, and
  is given as a fraction of what a device copy reaches. `optax.adamw` on the
  same leaves is `tx.update` and `optax.apply_updates`. Without a GPU only
  "xla" runs, on two shapes and a few matrices of the models.

  Of each kernel "xla" is timed first, on all leaves: a GPU that a kernel has
  brought to a stop computes nothing more.

  Args:
    json: Where to write the figures, as they come.
    repeats: Timed rounds.
    only: The most important first: "blocks" is `packed_step` on all block
      matrices of a model, all else a key of `WORKLOADS` on single leaves.
    dtypes: Of the weights, "bf16" or "f32"; the first is done with before the
      next.
    leaves: Names of `clip_shapes.CLIP`; by default all.
    seconds: After so many nothing else is begun.

  Raises:
    ValueError: If there is nothing of a name that is given.
    figures.IncompleteError: Once the others are reported, if some failed or no
      time was left for them.
  """
  _check_names("only", only, (BLOCKS, *WORKLOADS))
  _check_names("dtypes", dtypes, DTYPES)
  _check_names("leaves", leaves, clip_shapes.CLIP)
  on_gpu = jax.default_backend() == "gpu"
  timer = Timer(100 if on_gpu else 1, repeats, json, seconds)
  timer.measure("copy", copy_workload(2**28 if on_gpu else 2**24))
  names = leaves or (LEAVES if on_gpu else REDUCED_LEAVES)
  factor = 1 if on_gpu else REDUCED_FACTOR
  for dtype in dtypes:
    for what in only:
      blocks = what == BLOCKS
      timer.compare(
        _models(dtype, factor) if blocks else _leaves(what, names, dtype)
      )
  where = "" if on_gpu else ", reduced: a CPU, which says nothing of a GPU"
  figures.report(
    f"Kernels{where}", timer.results, _targets(timer.results), json
  )
  figures.demand_all(timer.missing)


def _check_names(
  argument: str, names: Collection[str], allowed: Collection[str]
) -> None:
  unknown = sorted(set(names) - set(allowed))
  if unknown:
    raise ValueError(
      f"{argument} must be some of {list(allowed)}, got {unknown}."
    )


@dataclasses.dataclass(frozen=True)
class TimedWork:
  """Work to be timed on every implementation.

  Attributes:
    label: What its figures begin with.
    make: Makes it for an implementation.
    adamw: Makes what `optax.adamw` does instead, if it would.
  """

  label: str
  make: Callable[[Implementation], Workload]
  adamw: Callable[[], Workload] | None = None


def _models(dtype: str, factor: int) -> list[TimedWork]:
  """All block matrices of each model, or a part of them, as one case."""
  cases = []
  for model, counts in clip_shapes.BLOCK_MATRICES.items():
    counts = {leaf: max(1, n // factor) for leaf, n in counts.items()}
    shapes = [
      clip_shapes.CLIP[leaf] for leaf, n in counts.items() for _ in range(n)
    ]
    cases.append(
      TimedWork(
        f"{BLOCKS}/{model}/{dtype}",
        functools.partial(blocks_workload, counts, dtype),
        functools.partial(adamw_workload, shapes, DTYPES[dtype]),
      )
    )
  return cases


def _leaves(kernel: str, names: Sequence[str], dtype: str) -> list[TimedWork]:
  """A case for each leaf that the kernel is timed on."""
  make, shapes = WORKLOADS[kernel]
  return [
    TimedWork(
      f"{kernel}/{name}/{dtype}",
      functools.partial(make, shapes[name], DTYPES[dtype]),
      functools.partial(adamw_workload, [shapes[name]], DTYPES[dtype])
      if kernel == "packed_step"
      else None,
    )
    for name in names
  ]


class Timer:
  """Measures workloads and keeps the figures.

  Attributes:
    results: All figures by name.
    missing: Why there are none, by the names of what failed.
  """

  def __init__(
    self, steps: int, repeats: int, path: pathlib.Path | None, seconds: float
  ):
    """Starts.

    Args:
      steps: Turns of the loop that is timed.
      repeats: How often it is.
      path: Where to write the figures whenever there are more of them.
      seconds: After so many no other measurement is begun.
    """
    self.results: figures.Figures = {}
    self.missing: dict[str, str] = {}
    self._steps, self._repeats, self._path = steps, repeats, path
    self._end = time.monotonic() + seconds
    self._usable: list[Implementation] = [
      name
      for name in get_args(Implementation)
      if dispatch.obstacle(name) is None
    ]

  def measure(self, label: str, work: Workload) -> None:
    """Adds time, bandwidth, and its ratio to a copy's."""
    taken = seconds_per_step(work, self._steps, self._repeats)
    self.results[f"{label}_us"] = taken * 1e6
    self.results[f"{label}_gbps"] = work.bytes / taken / 1e9
    speed, copy = self.results[f"{label}_gbps"], self.results["copy_gbps"]
    self.results[f"{label}_of_copy"] = speed / copy
    figures.write(self.results, self._path)

  def compare(self, cases: Sequence[TimedWork]) -> None:
    """Measures some cases on every implementation, and their ratios.

    One that fails does not end the rest.
    """
    for name in self._usable:
      for case in cases:
        self._try(f"{case.label}/{name}", functools.partial(case.make, name))
        if name == "xla" and case.adamw is not None:
          self._try(f"{case.label}/adamw", case.adamw)
        self._add_ratios(case.label, name)

  def _try(self, label: str, make: Callable[[], Workload]) -> None:
    if time.monotonic() > self._end:
      self.missing[label] = "no time was left"
      return
    print(label, flush=True)
    try:
      self.measure(label, make())
    except Exception as error:
      print(f"  failed: {type(error).__name__}: {error}")
      self.missing[label] = f"{type(error).__name__}: {error}"

  def _add_ratios(self, label: str, name: str) -> None:
    self.results |= figures.ratios(
      self.results,
      {
        f"{label}/{name}_over_{base}": (
          f"{label}/{name}_us",
          f"{label}/{base}_us",
        )
        for base in ("xla", "adamw")
      },
    )
    figures.write(self.results, self._path)


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
