"""Memory of a train step, counted by XLA, against full fine-tuning."""

import pathlib
from collections.abc import Callable, Iterator
from typing import Any

import gmixout_jax as gx
from experiments.bench import console, figures, train_steps

TARGETS = {
  "persistent_bytes_ratio": 0.45,
  "peak_bytes_ratio": 0.52,
  "peak_bytes_ratio_neuron": 0.80,
}

_SMALL = {"vit_l14": 98}  # pixels, whole patches; else 96
_LARGE = 224


def run(
  json: pathlib.Path | None = None,
  large: bool = True,
  concurrent: bool = False,
  model: str = "vit_b16",
  dtype: str = "float32",
) -> None:
  """Compiles train steps of ViT-B/16 and ViT-L/14 and reads their memory.

  Nothing runs. Persistent bytes are the arguments of the step without the
  batch: weights, anchor, optimizer state. Peak bytes are arguments, outputs
  that are not written in place, and temporaries, as XLA lays them out.

  All sides of a ratio are compiled with the scheduler that minimises memory.

  Args:
    json: Where to write the figures, those of one step after the other.
    large: Whether to compile ViT-L/14 too.
    concurrent: Whether to leave CPUs their default scheduler.
    model: The key of `train_steps.VITS` that is compiled first.
    dtype: What the models compute in.
  """
  if not concurrent:
    train_steps.minimise_memory()
  results: figures.Figures = {}
  for name in (model, "vit_l14") if large else (model,):
    prefix = "" if name == model else f"{name}_"
    with console.status(f"Compiling {name}, some minutes"):
      for found in _of_vit(name, dtype):
        results |= {prefix + key: n for key, n in found.items()}
        figures.write(results, json)
  title = f"Memory of a train step, {model}, {dtype}"
  if concurrent:
    title += ", concurrent scheduler"
  figures.report(title, results, TARGETS, json)


def _of_vit(name: str, dtype: str) -> Iterator[figures.Figures]:
  """Figures at batch 2 of small images, and at batch 32 of 224 pixels.

  Each step adds its own, in its order of importance.
  """
  small = _SMALL.get(name, 96)
  at_small, at_large = f"b2_{small}px", f"b32_{_LARGE}px"
  make: dict[str, Callable[[gx.clip.ViT], train_steps.TrainStep]] = {
    "full": train_steps.full_finetuning,
    "stratified": lambda vit: train_steps.compact(vit, "stratified"),
    "neuron": lambda vit: train_steps.compact(vit, "neuron"),
    "lora": train_steps.lora,
  }
  # Those that have a target are called by another name.
  aimed = {
    f"stratified_{at_small}_persistent_bytes_ratio": "persistent_bytes_ratio",
    f"stratified_{at_small}_peak_bytes_ratio": "peak_bytes_ratio",
    f"neuron_{at_large}_peak_bytes_ratio": "peak_bytes_ratio_neuron",
  }
  full: dict[str, figures.Figures] = {}
  for kind in make:
    for at, batch, pixels in ((at_small, 2, small), (at_large, 32, _LARGE)):
      step = make[kind](train_steps.vit(name, pixels, dtype))
      images = train_steps.batch_shapes(batch, pixels)
      sizes = bytes_of(step.compile(images), images)
      full.setdefault(at, sizes)
      yield {f"{kind}_{at}_{key}": n for key, n in sizes.items()}
      if kind != "full":
        ratios = {
          f"{kind}_{at}_{key}_ratio": sizes[key] / full[at][key]
          for key in ("persistent_bytes", "peak_bytes")
        }
        yield {aimed.get(key, key): ratio for key, ratio in ratios.items()}


def bytes_of(compiled: Any, batch: train_steps.Batch) -> figures.Figures:
  """Persistent, temporary and peak bytes of a step, from `compile`."""
  memory = compiled.memory_analysis()
  persistent = memory.argument_size_in_bytes - figures.tree_bytes(batch)
  peak = (
    memory.argument_size_in_bytes
    + memory.output_size_in_bytes
    - memory.alias_size_in_bytes
    + memory.temp_size_in_bytes
  )
  return {
    "persistent_bytes": float(persistent),
    "temporary_bytes": float(memory.temp_size_in_bytes),
    "peak_bytes": float(peak),
  }
