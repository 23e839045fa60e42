"""Wall time of a train step, against full fine-tuning in the same process."""

import functools
import math
import pathlib
from typing import Any

import jax
import jax.numpy as jnp

from experiments.bench import figures, mixout_in_pytorch, train_steps

TARGETS = {
  "step_time_ratio_stratified": 1.02,
  "step_time_ratio_neuron": 0.85,
  "resample_time_ratio": 1.05,
}


RATIOS = {
  **{
    f"step_time_ratio_{name}": (name, "full")
    for name in ("stratified", "neuron", "lora")
  },
  "resample_time_ratio": ("stratified_every_1", "stratified_never"),
}


def run(
  json: pathlib.Path | None = None,
  batch_size: int = 8,
  image_size: int = 96,
  repeats: int = 11,
  pytorch: pathlib.Path | None = None,
  concurrent: bool = False,
  model: str = "vit_b16",
  dtype: str = "float32",
  seconds: float = math.inf,
) -> None:
  """Times train steps of a ViT from float32 weights, AdamW, sparsity 0.9.

  Args:
    json: Where to write the figures.
    batch_size: Images.
    image_size: Side of the images in pixels, a multiple of 16.
    repeats: Timed rounds; each figure is a median over them.
    pytorch: A Python that has PyTorch, to time a dense Mixout step of ViT-B/16
      in float32 with. This one is used if it has PyTorch itself, and there is
      no GPU.
    concurrent: Whether to leave CPUs their default scheduler, rather than the
      one that minimises memory.
    model: A key of `train_steps.VITS`.
    dtype: What the model computes in.
    seconds: After so many no other step is compiled.

  Raises:
    figures.IncompleteError: Once the others are reported, if a step failed or
      no time was left for it.
  """
  if not concurrent:
    train_steps.minimise_memory()
  vit = lambda: train_steps.vit(model, image_size, dtype)
  mixed = functools.partial(train_steps.compact, sampler="stratified")
  steps = {
    "full": lambda: train_steps.full_finetuning(vit()),
    "stratified": lambda: mixed(vit()),
    "stratified_every_1": lambda: mixed(vit(), resample_every=1),
    "stratified_never": lambda: mixed(vit(), resample_every=None),
    "neuron": lambda: train_steps.compact(vit(), "neuron"),
    "lora": lambda: train_steps.lora(vit()),
  }
  batch = jax.tree.map(
    lambda leaf: jnp.ones(leaf.shape, leaf.dtype),
    train_steps.batch_shapes(batch_size, image_size),
  )
  ready = figures.Ready(
    {
      name: lambda make=make: Runner(make(), batch)
      for name, make in steps.items()
    },
    seconds,
  )
  taken = figures.interleaved_medians(ready.steps, repeats)
  results = {f"{name}_seconds": median for name, median in taken.items()}
  results |= figures.ratios(taken, RATIOS)
  torch_seconds = None
  if pytorch is not None or jax.default_backend() == "cpu":
    torch_seconds = mixout_in_pytorch.timed_by(
      pytorch, batch_size, image_size, repeats
    )
  if torch_seconds is not None:
    results["pytorch_full_seconds"] = torch_seconds["full"]
    results["pytorch_mixout_seconds"] = torch_seconds["mixout"]
    results["pytorch_mixout_ratio"] = (
      torch_seconds["mixout"] / torch_seconds["full"]
    )
  title = f"Train step, {model}, {dtype}, batch {batch_size}, {image_size} px"
  figures.report(title, results, TARGETS, json)
  ready.demand_all()


class Runner:
  """Holds the state of one train step, and takes steps in place."""

  def __init__(self, step: train_steps.TrainStep, batch: train_steps.Batch):
    weights = jax.tree.map(
      lambda leaf: jnp.full(leaf.shape, 0.02, leaf.dtype), step.params
    )
    self.state: Any = jax.jit(step.init)(weights)
    self.batch = batch
    self.step = step.compile(batch)

  def __call__(self) -> None:
    """Takes one step and waits for it."""
    self.state, loss = self.step(self.state, self.batch)
    loss.block_until_ready()
    jax.block_until_ready(self.state)
