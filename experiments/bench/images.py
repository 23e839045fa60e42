"""Images per second of whole train steps, kernels included."""

import pathlib
from typing import Any, get_args

import jax
import jax.numpy as jnp

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
    model: "vit_b16" or "vit_l14".
    dtype: What the model computes in.
    repeats: Timed rounds; each figure is a median over them.
  """
  on_gpu = jax.default_backend() == "gpu"
  batch_size = batch_size or (256 if on_gpu else 4)
  image_size = image_size or (224 if on_gpu else 96)
  shapes = train_steps.batch_shapes(batch_size, image_size)
  batch = jax.tree.map(lambda leaf: jnp.ones(leaf.shape, leaf.dtype), shapes)
  vit = lambda: train_steps.vit(model, image_size, dtype)
  steps = {
    "full": train_steps.full_finetuning(vit()),
    "neuron": train_steps.compact(vit(), "neuron"),
    "lora": train_steps.lora(vit()),
  }
  for name in get_args(Implementation):
    if dispatch.obstacle(name) is None:
      steps |= _stratified(name, vit)
  seconds = figures.interleaved_medians(
    {name: Runner(one, batch) for name, one in steps.items()}, repeats
  )
  results = {
    f"{name}_images_per_second": batch_size / taken
    for name, taken in seconds.items()
  }
  speedups = {
    f"speedup_{name}": seconds["full"] / taken
    for name, taken in seconds.items()
    if name != "full"
  }
  speedups["speedup_stratified"] = max(
    ratio for name, ratio in speedups.items() if "stratified" in name
  )
  where = "" if on_gpu else ", reduced: a CPU, which says nothing of a GPU"
  title = f"Train step, {model}, {dtype}, batch {batch_size}, {image_size} px"
  figures.report(title + where, results | speedups, {}, json, least=LEAST)


def _stratified(name: Implementation, vit: Any) -> dict[str, Any]:
  return {
    f"stratified_{name}{'_fused' if fused else ''}": train_steps.compact(
      vit(), "stratified", fused=fused, implementation=name
    )
    for fused in (False, True)
  }
