"""Wall time of a train step, against full fine-tuning in the same process."""

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


def run(
  json: pathlib.Path | None = None,
  batch_size: int = 8,
  image_size: int = 96,
  repeats: int = 11,
  pytorch: pathlib.Path | None = None,
  concurrent: bool = False,
) -> None:
  """Times train steps of ViT-B/16 in float32, AdamW, sparsity 0.9.

  Args:
    json: Where to write the figures.
    batch_size: Images.
    image_size: Side of the images in pixels, a multiple of 16.
    repeats: Timed rounds; each figure is a median over them.
    pytorch: A Python that has PyTorch, to time a dense Mixout step with. This
      one is used if it has PyTorch itself.
    concurrent: Whether to leave CPUs their default scheduler, rather than the
      one that minimises memory.
  """
  if not concurrent:
    train_steps.minimise_memory()
  vit = lambda: train_steps.vit("vit_b16", image_size)
  steps = {
    "full": train_steps.full_finetuning(vit()),
    "stratified": train_steps.compact(vit(), "stratified"),
    "stratified_every_1": train_steps.compact(vit(), "stratified", 1),
    "stratified_never": train_steps.compact(vit(), "stratified", None),
    "neuron": train_steps.compact(vit(), "neuron"),
    "lora": train_steps.lora(vit()),
  }
  batch = jax.tree.map(
    lambda leaf: jnp.ones(leaf.shape, leaf.dtype),
    train_steps.batch_shapes(batch_size, image_size),
  )
  seconds = figures.interleaved_medians(
    {name: Runner(step, batch) for name, step in steps.items()}, repeats
  )
  results = {f"{name}_seconds": taken for name, taken in seconds.items()}
  results |= {
    f"step_time_ratio_{name}": seconds[name] / seconds["full"]
    for name in ("stratified", "neuron", "lora")
  }
  results["resample_time_ratio"] = (
    seconds["stratified_every_1"] / seconds["stratified_never"]
  )
  torch_seconds = mixout_in_pytorch.timed_by(
    pytorch, batch_size, image_size, repeats
  )
  if torch_seconds is not None:
    results["pytorch_full_seconds"] = torch_seconds["full"]
    results["pytorch_mixout_seconds"] = torch_seconds["mixout"]
    results["pytorch_mixout_ratio"] = (
      torch_seconds["mixout"] / torch_seconds["full"]
    )
  title = f"Train step, ViT-B/16, batch {batch_size}, {image_size} pixels"
  figures.report(title, results, TARGETS, json)


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
