"""Memory and operations of training the upper blocks alone, counted by XLA."""

import pathlib

import gmixout_jax as gx
from experiments.bench import console, figures, memory, train_steps

TARGETS = {"neuron_top_flops_ratio": 0.56, "neuron_top_temporary_ratio": 0.5}

SAMPLERS = ("stratified", "neuron")


def run(
  json: pathlib.Path | None = None,
  model: str = "vit_ti16",
  batch_size: int = 32,
  image_size: int = 224,
) -> None:
  """Compiles train steps of GMixout in all blocks and in the upper half.

  Nothing runs. Rules in `target` freeze the lower blocks, so that the backward
  pass ends above them and their activations need not be kept. Ratios are to
  full fine-tuning of all blocks; all steps are compiled with the scheduler that
  minimises memory.

  Args:
    json: Where to write the figures.
    model: A key of `train_steps.VITS`.
    batch_size: Images.
    image_size: Their side in pixels, a multiple of the patch size.
  """
  train_steps.minimise_memory()
  vit = train_steps.vit(model, image_size)
  batch = train_steps.batch_shapes(batch_size, image_size)
  depth = len(vit.blocks)
  steps = {"full": train_steps.full_finetuning(vit)}
  for sampler in SAMPLERS:
    for name, frozen in (("all", 0), ("top", depth // 2)):
      steps[f"{sampler}_{name}"] = train_steps.compact(
        vit, sampler, target=without_lowest(frozen)
      )
  results: figures.Figures = {}
  for name, step in steps.items():
    with console.status(f"Compiling {name}"):
      compiled = step.compile(batch)
    flops = compiled.cost_analysis()["flops"]
    temporary = memory.bytes_of(compiled, batch)["temporary_bytes"]
    results |= {f"{name}_flops": flops, f"{name}_temporary_bytes": temporary}
  for name in list(steps)[1:]:
    for ratio, of in (("flops", "flops"), ("temporary", "temporary_bytes")):
      results[f"{name}_{ratio}_ratio"] = (
        results[f"{name}_{of}"] / results[f"full_{of}"]
      )
  title = f"A train step of {depth} and of {depth - depth // 2} blocks, {model}"
  figures.report(title, results, TARGETS, json)


def without_lowest(blocks: int) -> tuple[tuple[str, str], ...]:
  """`gmixout_jax.VIT_RULES` for all but so many of the lowest blocks."""
  lowest = "|".join(map(str, range(blocks)))
  frozen = ((rf"^blocks/({lowest})/", "frozen"),) if blocks else ()
  return (*frozen, *gx.VIT_RULES)
