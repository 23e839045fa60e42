"""Floating-point operations of a train step, against full fine-tuning."""

import pathlib

from experiments.bench import console, figures, train_steps

TARGETS = {"flops_ratio_neuron": 0.73, "flops_ratio_stratified": 1.01}


def run(
  json: pathlib.Path | None = None, batch_size: int = 8, large: bool = True
) -> None:
  """Compiles train steps at 224 pixels and reads XLA's cost analysis.

  Nothing runs. With whole neurons active a linear layer's backward pass makes
  a tenth of the gradient of its weights; what is left of full fine-tuning's
  work is the forward pass, the gradient of the layer's input, and attention.

  Args:
    json: Where to write the figures.
    batch_size: Images.
    large: Whether to compile ViT-L/14 too.
  """
  with console.status("Compiling ViT-B/16"):
    results = _of_vit("vit_b16", batch_size)
  if large:
    with console.status("Compiling ViT-L/14, some minutes"):
      larger = _of_vit("vit_l14", batch_size)
    results |= {f"vit_l14_{name}": value for name, value in larger.items()}
  title = f"Work of a train step, ViT-B/16, batch {batch_size}"
  figures.report(title, results, TARGETS, json)


def _of_vit(name: str, batch_size: int) -> figures.Figures:
  batch = train_steps.batch_shapes(batch_size, 224)
  flops = {
    kind: step.compile(batch).cost_analysis()["flops"]
    for kind, step in {
      "full": train_steps.full_finetuning(train_steps.vit(name)),
      "stratified": train_steps.compact(train_steps.vit(name), "stratified"),
      "neuron": train_steps.compact(train_steps.vit(name), "neuron"),
      "lora": train_steps.lora(train_steps.vit(name)),
    }.items()
  }
  results = {f"{kind}_flops": count for kind, count in flops.items()}
  return results | {
    f"flops_ratio_{kind}": flops[kind] / flops["full"]
    for kind in ("stratified", "neuron", "lora")
  }
