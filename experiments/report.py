"""Writes a report from result files, and from nothing else.

    python -m experiments.report RESULTS.jsonl --out runs/report

The folder then holds report.md, report.html (one file, pictures inside), every
picture as PNG and PDF, and equal_id.csv: OOD accuracy at equal ID score. No
model is loaded and nothing is trained, so a published figure can be redrawn
from the published file.
"""

import pathlib
import sys
from collections.abc import Iterator

import tyro

from experiments import command_line, methods
from experiments.command_line import WRONG_INPUT
from experiments.reporting import (
  diagnosed,
  display_names,
  document,
  equal_id,
  exports,
  kinds,
  models_alone,
  sections,
)
from experiments.reporting.document import Picture, Section
from experiments.reporting.kinds import Lines
from gmixout_jax.checkpoint.files import local_path


def write(
  files: tyro.conf.Positional[tuple[pathlib.Path, ...]],
  out: pathlib.Path = pathlib.Path("runs/report"),
  references: tuple[str, ...] = (display_names.FULL, "gmixout"),
  id_score: equal_id.Score = "brier",
  csv: bool = False,
  latex: bool = False,
) -> None:
  """Writes the report.

  Args:
    files: JSON lines, as `experiments.train`, `sweep`, `evaluate`,
      `diagnostics` and `pretraining.pretrain_clip` write them.
    out: The folder to write.
    references: The methods that the others are compared with, if present; of
      several configurations the first.
    id_score: The score of ID images at which OOD accuracies are compared.
    csv: Whether to write results.csv, a row for each configuration.
    latex: Whether to write tables.tex, tables for the package booktabs.

  Raises:
    ValueError: If there are no lines in the files, one is of no kind, or a
      reference is no method.
  """
  for path in (*files, out):
    local_path("files and --out", path)
  for name in references:
    methods.from_name(name)  # which refuses what is none
  lines = kinds.read(files)
  out.mkdir(parents=True, exist_ok=True)
  found = sections.analysed(lines.runs, id_score)
  parts = [*sections.of_runs(found, references, id_score), *_others(lines)]
  for section in parts:
    for part in section.parts:
      if isinstance(part, Picture):
        (out / f"{part.name}.png").write_bytes(part.png)
        (out / f"{part.name}.pdf").write_bytes(part.pdf)
  configurations = sum(map(len, found.tasks.values())) + len(lines.bvcl)
  source = (
    f"{sum(map(len, lines))} lines, {configurations} configurations, from"
    f" {', '.join(file.name for file in files)}."
  )
  texts = {
    "report.md": document.markdown(parts, source),
    "report.html": document.page(parts, source),
  }
  if found.comparisons:
    texts["equal_id.csv"] = equal_id.to_csv(found.comparisons)
  if csv:
    texts["results.csv"] = exports.to_csv(found.tasks, found.chosen)
  if latex:
    texts["tables.tex"] = exports.to_latex(found.chosen)
  for name, text in texts.items():
    (out / name).write_text(text, encoding="utf-8")
  print(f"wrote {', '.join(str(out / name) for name in texts)}, and pictures")


def _others(lines: Lines) -> Iterator[Section]:
  """The sections of lines that are no runs of methods."""
  drawn = diagnosed.draw(lines.bvcl, lines.landscapes)
  diagnostics = [
    *diagnosed.tables(lines.bvcl),
    *(sections.picture(name, *each) for name, each in drawn.items()),
  ]
  models = [
    *models_alone.pretrained(lines.pretrained),
    *models_alone.evaluated(lines.evaluated),
  ]
  if diagnostics:
    yield Section("Diagnostics", diagnostics)
  if models:
    yield Section("Models", models)


def main(arguments: list[str] | None = None) -> int:
  """Reads the command line; returns the exit status."""
  command_line.refuse_repeated(arguments)
  try:
    tyro.cli(
      write, args=arguments, prog="python -m experiments.report",
      description=__doc__,
    )  # fmt: skip
  except WRONG_INPUT as error:
    print(f"error: {error}", file=sys.stderr)
    return 1
  return 0


if __name__ == "__main__":
  sys.exit(main())
