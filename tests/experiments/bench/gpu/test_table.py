"""Tests `bench/gpu/table.py` with made-up records."""

import pathlib
import re

from experiments.bench.gpu import table as tables

ROOT = pathlib.Path(__file__).parents[4]
README = (ROOT / "pallas_kernels" / "README.md").read_text()

MACHINE = {
  "platform": "gpu",
  "device": "NVIDIA H9000",
  "runtime": "cuda 13000",
  "implementations": {
    "xla": "runs",
    "mosaic_gpu": "runs",
    "triton": "jax-triton is not installed",
  },
  "versions": {"jax": "0.12.0", "optax": "0.2.8", "pytest": "9"},
}


def record(figures, error=None):
  return {"machine": MACHINE, "figures": figures, "error": error}


def cells(text):
  """The last column, by the first."""
  rows = re.findall(r"^\| (.*) \| (.*) \| (.*) \|$", text, re.M)[1:]
  return {figure: measured for figure, _, measured in rows}


def whole():
  block = {}
  for model, ratio in {"ViT-B/16": 0.25, "ViT-L/14": 0.5}.items():
    label = f"blocks/{model}/bf16"
    block |= {
      f"{label}/mosaic_gpu_over_adamw": ratio,
      f"{label}/xla_over_adamw": 4 * ratio,
      f"{label}/mosaic_gpu_of_copy": 0.875,
      f"{label}/mosaic_gpu_over_xla": 0.25,
      f"{label}/xla_over_xla": 1.0,
    }
  mix, pack = "masked_mix/text_tokens/bf16", "pack/text_tokens/bf16"
  return {
    "tests": record({"passed": 54.0, "failed": 0.0, "skipped": 54.0}),
    "packed_step": record(block),
    "masked_mix": record(
      {f"{mix}/mosaic_gpu_of_copy": 0.9, f"{mix}/mosaic_gpu_over_xla": 0.5}
    ),
    "pack": record({f"{pack}/mosaic_gpu_over_xla": 1.5}),
    "images": record(
      {"speedup_stratified_xla": 0.9, "speedup_stratified": 0.9}
      | {"speedup_neuron": 1.3}
    ),
    "images_by_kernels": record(
      {"speedup_stratified_mosaic_gpu_fused": 1.1, "speedup_stratified": 1.1}
    ),
  }


def test_the_readme_has_its_rows():
  rows = re.findall(r"^\| (.*) \| (.*) \| (.*) \|$", README, re.M)
  wanted = [(row.figure, row.target) for row in tables.ROWS]
  assert [(figure, target) for figure, target, _ in rows[-len(wanted) :]] == (
    wanted
  )


def test_figures_are_where_they_belong():
  text = tables.table(whole())
  step = "`packed_step` over `optax.adamw`, block matrices of ViT-B/16"
  assert cells(text) == {
    step: "0.25 (mosaic_gpu), 1 (xla)",
    "the same, ViT-L/14": "0.5 (mosaic_gpu), 2 (xla)",
    "`packed_step`, fraction of copy bandwidth, by sectors": (
      "0.875 (mosaic_gpu)"
    ),
    "`masked_mix`, fraction of copy bandwidth": "0.9 (mosaic_gpu)",
    "each kernel over XLA's version": (
      "`packed_step` 0.25 (mosaic_gpu), `masked_mix` 0.5 (mosaic_gpu),"
      " `pack` 1.5 (mosaic_gpu)"
    ),
    "images per second over full fine-tuning, bf16, batch 256, `stratified`": (
      "1.1 (mosaic_gpu, fused), 0.9 (xla)"
    ),
    "the same, `neuron`": "1.3",
  }
  assert text.splitlines()[0] == (
    "Measured by `make gpu` on NVIDIA H9000 (cuda 13000), jax 0.12.0, optax"
    " 0.2.8. GPU tests: 54 passed, 0 failed, 54 skipped. Without triton:"
    " jax-triton is not installed."
  )


def test_what_is_missing_says_why():
  records = whole()
  del records["images_by_kernels"]
  records["tests"] = record({"passed": 2.0, "failed": 1.0}, "1 failed in 3s")
  records["images"] = record({}, "images: stopped\nafter | 3 s")
  records["masked_mix"] = record({}, "masked_mix: ended by SIGSEGV")
  text = tables.table(records)
  found = cells(text)
  assert found["the same, `neuron`"] == (
    "not measured: images: stopped after \\| 3 s"
  )
  assert found[tables.ROWS[5].figure].endswith("3 s; not begun")
  assert "masked_mix: ended by SIGSEGV" in found[tables.ROWS[3].figure]
  # What another part has is shown all the same.
  assert found["each kernel over XLA's version"] == (
    "`packed_step` 0.25 (mosaic_gpu), `pack` 1.5 (mosaic_gpu)"
  )
  assert "2 passed, 1 failed (1 failed in 3s)" in text


def test_nothing_measured():
  assert set(cells(tables.table({})).values()) == {"not measured: not begun"}
  assert tables.table({}).startswith("Nothing was measured.\n")
  text = tables.table({"tests": record({}, "stopped after 140 s")})
  assert "The GPU tests did not run: stopped after 140 s." in text
