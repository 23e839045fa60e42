"""Memory of a train step, counted by XLA, against full fine-tuning."""

import pathlib
from typing import Any

import jax
import rich

from experiments.bench import figures, train_steps

TARGETS = {
  "persistent_bytes_ratio": 0.45,
  "peak_bytes_ratio": 0.52,
  "peak_bytes_ratio_neuron": 0.80,
}

_CONCURRENT = "xla_cpu_enable_concurrency_optimized_scheduler"


def run(json: pathlib.Path | None = None, large: bool = True) -> None:
  """Compiles train steps of ViT-B/16 and ViT-L/14 and reads their memory.

  Nothing runs. Persistent bytes are the arguments of the step without the
  batch: weights, anchor, optimizer state. Peak bytes are arguments, outputs
  that are not written in place, and temporaries, as XLA lays them out. On CPU
  its default scheduler trades memory for concurrency, so both sides of a ratio
  are compiled without it, and with it again for the figures that say so.

  Args:
    json: Where to write the figures.
    large: Whether to compile ViT-L/14 too.
  """
  with rich.get_console().status("Compiling ViT-B/16"):
    results = _of_vit("vit_b16", small=96)
  if large:
    with rich.get_console().status("Compiling ViT-L/14, some ten minutes"):
      larger = _of_vit("vit_l14", small=98)
    results |= {f"vit_l14_{name}": value for name, value in larger.items()}
  figures.report("Memory of a train step, ViT-B/16", results, TARGETS, json)


def _of_vit(name: str, small: int) -> figures.Figures:
  """Figures at batch 2 of small images, and at batch 32 of 224 pixels."""
  results: figures.Figures = {}
  for suffix, size, image_size, samplers in (
    ("", 2, small, ("stratified",)),
    ("_neuron", 32, 224, ("neuron", "stratified")),
  ):
    vit = lambda image_size=image_size: train_steps.vit(name, image_size)
    batch = train_steps.batch_shapes(size, image_size)
    at = f"b{size}_{image_size}px"
    full = bytes_of(train_steps.full_finetuning(vit()), batch)
    lora = bytes_of(train_steps.lora(vit()), batch)
    results |= {f"full_{at}_{key}": value for key, value in full.items()}
    results |= {f"lora_{at}_{key}": value for key, value in lora.items()}
    for sampler in samplers:
      ours = bytes_of(train_steps.compact(vit(), sampler), batch)
      results |= {f"{sampler}_{at}_{key}": value for key, value in ours.items()}
      shown = suffix if sampler == samplers[0] else f"_{sampler}_{at}"
      results[f"peak_bytes_ratio{shown}"] = (
        ours["peak_bytes"] / full["peak_bytes"]
      )
      if not suffix:
        results["persistent_bytes_ratio"] = (
          ours["persistent_bytes"] / full["persistent_bytes"]
        )
      if "default_scheduler_peak_bytes" in ours:
        results[f"default_scheduler_peak_bytes_ratio{shown}"] = (
          ours["default_scheduler_peak_bytes"]
          / full["default_scheduler_peak_bytes"]
        )
    results[f"lora_peak_bytes_ratio_{at}"] = (
      lora["peak_bytes"] / full["peak_bytes"]
    )
    results[f"lora_persistent_bytes_ratio_{at}"] = (
      lora["persistent_bytes"] / full["persistent_bytes"]
    )
  return results


def bytes_of(
  step: train_steps.TrainStep, batch: train_steps.Batch
) -> figures.Figures:
  """Persistent, temporary and peak bytes of a step."""
  on_cpu = jax.default_backend() == "cpu"
  compiled = step.compile(batch, **({_CONCURRENT: False} if on_cpu else {}))
  memory = compiled.memory_analysis()
  persistent = memory.argument_size_in_bytes - figures.tree_bytes(batch)
  sizes = {
    "persistent_bytes": float(persistent),
    "temporary_bytes": float(memory.temp_size_in_bytes),
    "peak_bytes": _peak(memory),
  }
  if on_cpu:
    default = step.compile(batch).memory_analysis()
    sizes["default_scheduler_peak_bytes"] = _peak(default)
  return sizes


def _peak(memory: Any) -> float:
  return float(
    memory.argument_size_in_bytes
    + memory.output_size_in_bytes
    - memory.alias_size_in_bytes
    + memory.temp_size_in_bytes
  )
