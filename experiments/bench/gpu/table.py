"""The table that `pallas_kernels/README.md` is to hold, from what was measured.

A record is what a part has left in its file.
"""

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any

Record = Mapping[str, Any]
Figures = Mapping[str, float]

# The kernels first: it is they that have targets.
_IMPLEMENTATIONS = ("mosaic_gpu", "triton", "xla")
_BLOCKS = "blocks/{}/bf16"
# Small leaves stay in a GPU's cache.
_LEAF = "{}/text_tokens/bf16"


@dataclasses.dataclass(frozen=True)
class Row:
  """A line of the table.

  Attributes:
    figure: What is measured, in Markdown.
    target: What is wanted.
    parts: Which parts measure it.
    shown: What it says of all their figures; empty if there are none for it.
  """

  figure: str
  target: str
  parts: tuple[str, ...]
  shown: Callable[[Figures], str]


def table(records: Mapping[str, Record]) -> str:
  """Makes the table.

  Args:
    records: By the name of the part; some or all may be missing.

  Returns:
    Markdown: a paragraph that says where and with what it was measured and
    what became of the tests, and the table.
  """
  lines = ["| figure | target | measured |", "|---|---|---|"]
  for row in ROWS:
    cells = (row.figure, row.target, _measured(row, records))
    lines.append(f"| {' | '.join(cells)} |")
  return "\n".join([_caption(records), "", *lines])


def _measured(row: Row, records: Mapping[str, Record]) -> str:
  """What a row's last cell says."""
  figures: dict[str, float] = {}
  for part in row.parts:
    figures |= records.get(part, {}).get("figures", {})
  shown = row.shown(figures)
  if shown:
    return shown
  reasons = [_reason(records.get(part)) for part in row.parts]
  return f"not measured: {'; '.join(dict.fromkeys(reasons))}"


def _reason(record: Record | None) -> str:
  if record is None:
    return "not begun"
  error = str(record.get("error") or "no kernel ran").replace("|", "\\|")
  error = " ".join(error.split())
  return error if len(error) <= 160 else f"{error[:160]}..."


def _caption(records: Mapping[str, Record]) -> str:
  """Where and with what it was measured, and what became of the tests."""
  if not records:
    return "Nothing was measured."
  machine = next(iter(records.values()))["machine"]
  versions = machine["versions"]
  with_what = ", ".join(
    f"{name} {versions[name]}"
    for name in ("jax", "jaxlib", "flax", "optax", "jax-triton")
    if name in versions
  )
  text = (
    f"Measured by `make gpu` on {machine['device']}"
    f" ({' '.join(str(machine['runtime']).split())}), {with_what}."
    f" {_tests(records.get('tests'))}"
  )
  for name, state in machine["implementations"].items():
    if state != "runs":
      text += f" Without {name}: {state}."
  if machine["platform"] != "gpu":
    text += " Reduced, on a CPU: it says nothing of a GPU."
  return text


def _tests(record: Record | None) -> str:
  if record is None or not record["figures"]:
    return f"The GPU tests did not run: {_reason(record)}."
  counts = ", ".join(f"{n:.0f} {name}" for name, n in record["figures"].items())
  if record.get("error"):
    counts += f" ({_reason(record)})"
  return f"GPU tests: {counts}."


def _each(label: str, suffix: str) -> Callable[[Figures], str]:
  """Each implementation's figure of a name."""

  def shown(figures: Figures) -> str:
    return ", ".join(
      f"{figures[f'{label}/{name}_{suffix}']:.3g} ({name})"
      for name in _IMPLEMENTATIONS
      if f"{label}/{name}_{suffix}" in figures
    )

  return shown


def _over_xla(figures: Figures) -> str:
  """Each GPU kernel's time over that of XLA's version."""
  labels = {
    "packed_step": _BLOCKS.format("ViT-B/16"),
    **{name: _LEAF.format(name) for name in ("masked_mix", "pack")},
  }
  return ", ".join(
    f"`{kernel}` {figures[f'{label}/{name}_over_xla']:.3g} ({name})"
    for kernel, label in labels.items()
    for name in _IMPLEMENTATIONS
    if name != "xla" and f"{label}/{name}_over_xla" in figures
  )


def _speedups(figures: Figures) -> str:
  """Of stratified masks, by implementation, the fastest first."""
  prefix = "speedup_stratified_"
  found = {
    name.removeprefix(prefix).replace("_fused", ", fused"): value
    for name, value in figures.items()
    if name.startswith(prefix)
  }
  fastest = sorted(found.items(), key=lambda item: -item[1])
  return ", ".join(f"{value:.3g} ({name})" for name, value in fastest)


def _one(name: str) -> Callable[[Figures], str]:
  return lambda figures: f"{figures[name]:.3g}" if name in figures else ""


ROWS = (
  Row(
    "`packed_step` over `optax.adamw`, block matrices of ViT-B/16",
    "≤ 0.4",
    ("packed_step",),
    _each(_BLOCKS.format("ViT-B/16"), "over_adamw"),
  ),
  Row(
    "the same, ViT-L/14",
    "≤ 0.4",
    ("packed_step",),
    _each(_BLOCKS.format("ViT-L/14"), "over_adamw"),
  ),
  Row(
    "`packed_step`, fraction of copy bandwidth, by sectors",
    "≥ 0.80",
    ("packed_step",),
    _each(_BLOCKS.format("ViT-B/16"), "of_copy"),
  ),
  Row(
    "`masked_mix`, fraction of copy bandwidth",
    "≥ 0.85",
    ("masked_mix",),
    _each(_LEAF.format("masked_mix"), "of_copy"),
  ),
  Row(
    "each kernel over XLA's version",
    "< 1",
    ("packed_step", "masked_mix", "pack"),
    _over_xla,
  ),
  Row(
    "images per second over full fine-tuning, bf16, batch 256, `stratified`",
    "≥ 1",
    ("images", "images_by_kernels"),
    _speedups,
  ),
  Row("the same, `neuron`", "≥ 1.25", ("images",), _one("speedup_neuron")),
)
