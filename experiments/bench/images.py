"""Images per second of whole train steps, kernels included."""

import math
import pathlib
from collections.abc import Callable
from typing import get_args

import jax
import jax.numpy as jnp

import gmixout_jax as gx
from experiments.bench import figures, train_steps
from experiments.bench.step import Runner
from pallas_kernels import dispatch
from pallas_kernels.dispatch import Implementation

LEAST = {"speedup_stratified": 1.0, "speedup_neuron": 1.25}


def run(
  json: pathlib.Path | None = None,
  batch_size: int | None = None,
  image_size: int | None = None,
  model: str = "vit_b16",
  dtype: str = "bfloat16",
  repeats: int = 15,
  only: tuple[str, ...] = (),
  seconds: float = math.inf,
) -> None:
  """Times train steps with AdamW, computing in bfloat16 from float32 weights.

  The stratified sampler runs on every implementation that the device can run,
  with `optax.adamw` and with `FusedAdamW`; `speedup_stratified` is that of the
  fastest. Without a GPU the batch and the images are small, and the figures
  say nothing about one.

  Args:
    json: Where to write the figures.
    batch_size: Images; by default 256 on a GPU and 4 elsewhere.
    image_size: Side in pixels; by default 224 on a GPU and 96 elsewhere.
    model: A key of `train_steps.VITS`.
    dtype: What the model computes in.
    repeats: Timed rounds; each figure is a median over them.
    only: Steps besides "full", such as "neuron" or "stratified_xla_fused"; all
      if there are none.
    seconds: After so many no other step is compiled.

  Raises:
    ValueError: If there is no step of a name in `only`.
    figures.IncompleteError: Once the others are reported, if a step failed or
      no time was left for it.
  """
  on_gpu = jax.default_backend() == "gpu"
  batch_size = batch_size or (256 if on_gpu else 4)
  image_size = image_size or (224 if on_gpu else 96)
  shapes = train_steps.batch_shapes(batch_size, image_size)
  batch = jax.tree.map(lambda leaf: jnp.ones(leaf.shape, leaf.dtype), shapes)
  vit = lambda: train_steps.vit(model, image_size, dtype)
  steps = _steps(vit)
  unknown = set(only) - set(steps)
  if unknown:
    raise ValueError(
      f"only must be some of {sorted(steps)}, got {sorted(unknown)}."
    )
  ready = figures.Ready(
    {
      name: lambda make=make: Runner(make(), batch)
      for name, make in steps.items()
      if not only or name in ("full", *only)
    },
    seconds,
  )
  taken = figures.interleaved_medians(ready.steps, repeats)
  results = {
    f"{name}_images_per_second": batch_size / median
    for name, median in taken.items()
  }
  speedups = figures.ratios(
    taken, {f"speedup_{name}": ("full", name) for name in taken}
  )
  speedups.pop("speedup_full", None)
  stratified = [n for name, n in speedups.items() if "stratified" in name]
  if stratified:
    speedups["speedup_stratified"] = max(stratified)
  where = "" if on_gpu else ", reduced: a CPU, which says nothing of a GPU"
  title = f"Train step, {model}, {dtype}, batch {batch_size}, {image_size} px"
  figures.report(title + where, results | speedups, {}, json, least=LEAST)
  ready.demand_all()


def _steps(
  vit: Callable[[], gx.clip.ViT],
) -> dict[str, Callable[[], train_steps.TrainStep]]:
  """What can run here, by name, the most important first."""
  steps = {
    "full": lambda: train_steps.full_finetuning(vit()),
    "neuron": lambda: train_steps.compact(vit(), "neuron"),
  }
  for name in get_args(Implementation):
    if dispatch.obstacle(name) is None:
      for fused in (False, True):
        steps[f"stratified_{name}{'_fused' if fused else ''}"] = (
          lambda name=name, fused=fused: train_steps.compact(
            vit(), "stratified", fused=fused, implementation=name
          )
        )
  return steps | {"lora": lambda: train_steps.lora(vit())}
