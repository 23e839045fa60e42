"""Memory of a train step, counted by XLA, against full fine-tuning."""

import pathlib

from experiments.bench import console, figures, train_steps

TARGETS = {
  "persistent_bytes_ratio": 0.45,
  "peak_bytes_ratio": 0.52,
  "peak_bytes_ratio_neuron": 0.80,
}

_SMALL = {"vit_b16": 96, "vit_l14": 98}  # pixels, whole patches of either
_LARGE = 224


def run(
  json: pathlib.Path | None = None,
  large: bool = True,
  concurrent: bool = False,
) -> None:
  """Compiles train steps of ViT-B/16 and ViT-L/14 and reads their memory.

  Nothing runs. Persistent bytes are the arguments of the step without the
  batch: weights, anchor, optimizer state. Peak bytes are arguments, outputs
  that are not written in place, and temporaries, as XLA lays them out.

  All sides of a ratio are compiled with the scheduler that minimises memory.

  Args:
    json: Where to write the figures.
    large: Whether to compile ViT-L/14 too.
    concurrent: Whether to leave CPUs their default scheduler.
  """
  if not concurrent:
    train_steps.minimise_memory()
  results = {}
  for name in ("vit_b16", "vit_l14") if large else ("vit_b16",):
    prefix = "" if name == "vit_b16" else f"{name}_"
    with console.status(f"Compiling {name}, some minutes"):
      results |= {prefix + key: n for key, n in _of_vit(name).items()}
  title = "Memory of a train step, ViT-B/16"
  if concurrent:
    title += ", concurrent scheduler"
  figures.report(title, results, TARGETS, json)


def _of_vit(name: str) -> figures.Figures:
  """Figures at batch 2 of small images, and at batch 32 of 224 pixels."""
  at_small, at_large = f"b2_{_SMALL[name]}px", f"b32_{_LARGE}px"
  sizes = {}
  for at, batch, pixels in (
    (at_small, 2, _SMALL[name]),
    (at_large, 32, _LARGE),
  ):
    for kind, step in {
      "full": train_steps.full_finetuning(train_steps.vit(name, pixels)),
      "stratified": train_steps.compact(
        train_steps.vit(name, pixels), "stratified"
      ),
      "neuron": train_steps.compact(train_steps.vit(name, pixels), "neuron"),
      "lora": train_steps.lora(train_steps.vit(name, pixels)),
    }.items():
      shapes = train_steps.batch_shapes(batch, pixels)
      sizes |= {
        f"{kind}_{at}_{key}": n for key, n in bytes_of(step, shapes).items()
      }
  ratios = {
    f"{kind}_{at}_{key}_ratio": sizes[f"{kind}_{at}_{key}"]
    / sizes[f"full_{at}_{key}"]
    for at in (at_small, at_large)
    for kind in ("stratified", "neuron", "lora")
    for key in ("persistent_bytes", "peak_bytes")
  }
  return sizes | {
    "persistent_bytes_ratio": ratios.pop(
      f"stratified_{at_small}_persistent_bytes_ratio"
    ),
    "peak_bytes_ratio": ratios.pop(f"stratified_{at_small}_peak_bytes_ratio"),
    "peak_bytes_ratio_neuron": ratios.pop(
      f"neuron_{at_large}_peak_bytes_ratio"
    ),
    **ratios,
  }


def bytes_of(
  step: train_steps.TrainStep, batch: train_steps.Batch
) -> figures.Figures:
  """Persistent, temporary and peak bytes of a step."""
  memory = step.compile(batch).memory_analysis()
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
