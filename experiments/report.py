"""Writes a report from result files, and from nothing else.

    python -m experiments.report RESULTS.jsonl --out runs/report

The folder then holds report.md, report.html (one file, pictures inside) and
every picture as PNG and PDF. No model is loaded and nothing is trained, so a
published figure can be redrawn from the published file.
"""

import io
import pathlib
import sys
from collections.abc import Sequence

import tyro
from matplotlib import figure

from experiments import command_line
from experiments.command_line import WRONG_INPUT
from experiments.reporting import (
  diagnosed,
  document,
  figures,
  kinds,
  models_alone,
)
from experiments.reporting.entries import Entry, by_task
from gmixout_jax.checkpoint.files import local_path

CAPTIONS = {
  "ood_against_id": "Out-of-distribution against in-distribution accuracy:"
  " means over seeds with 95 % intervals; the star and the dotted line are"
  " zero-shot.",
  "reliability": "Reliability: accuracy against confidence in 15 bins, all"
  " seeds and domains together, as is the ECE here. The area of a marker is the"
  " share of images; bins of fewer than ten are not drawn.",
  "cost": "Cost against out-of-distribution accuracy.",
}


def write(
  files: tyro.conf.Positional[tuple[pathlib.Path, ...]],
  out: pathlib.Path = pathlib.Path("runs/report"),
  references: tuple[str, ...] = ("full_finetuning", "gmixout"),
) -> None:
  """Writes the report.

  Args:
    files: JSON lines, as `experiments.train`, `sweep`, `evaluate`,
      `diagnostics` and `pretraining.pretrain_clip` write them.
    out: The folder to write.
    references: The methods that the others are compared with, where they are
      there; of several configurations the first.

  Raises:
    ValueError: If there are no lines in the files, or one is of no kind.
  """
  for path in (*files, out):
    local_path("files and --out", path)
  lines = kinds.read(files)
  bvcl, landscapes = lines.bvcl, lines.landscapes
  tasks = by_task(lines.runs) if lines.runs else {}
  out.mkdir(parents=True, exist_ok=True)
  tables: list[document.Table] = []
  drawn: dict[str, tuple[str, figure.Figure]] = {}
  for number, (task, entries) in enumerate(tasks.items()):
    tables += [
      table._replace(title=f"{task}: {table.title}" if task else table.title)
      for table in (
        document.summary(entries),
        *([document.by_domain(entries)] if _away(entries) else []),
        *_comparisons(entries, references),
      )
    ]
    suffix = f"_{number}" if number else ""
    for name, picture in _draw(entries).items():
      caption = CAPTIONS.get(name, "Accuracy with 95 % intervals over seeds.")
      drawn[name + suffix] = f"{task}. {caption}" if task else caption, picture
  tables += diagnosed.tables(bvcl)
  tables += models_alone.pretrained(lines.pretrained)
  tables += models_alone.evaluated(lines.evaluated)
  drawn |= diagnosed.draw(bvcl, landscapes)
  pictures = {}
  for name, (caption, picture) in drawn.items():
    content = io.BytesIO()
    picture.savefig(content, format="png")
    (out / f"{name}.png").write_bytes(content.getvalue())
    # A date in the file would change it with every run.
    picture.savefig(out / f"{name}.pdf", metadata={"CreationDate": None})
    pictures[name] = caption, content.getvalue()
  source = (
    f"{sum(map(len, lines))} lines, {sum(map(len, tasks.values())) + len(bvcl)}"
    f" configurations, from {', '.join(file.name for file in files)}."
  )
  by_file = {f"{name}.png": text for name, (text, _) in pictures.items()}
  (out / "report.md").write_text(
    document.markdown(tables, by_file, source), encoding="utf-8"
  )
  (out / "report.html").write_text(
    document.page(tables, pictures, source), encoding="utf-8"
  )
  print(f"wrote {out / 'report.html'}, report.md and the pictures")


def _away(entries: list[Entry]) -> list[Entry]:
  """Those that were tested out of distribution, which all pictures show."""
  return [entry for entry in entries if entry.has_targets]


def _draw(entries: list[Entry]) -> dict[str, figure.Figure]:
  if not (entries := _away(entries)):
    return {}
  drawn = {
    "ood_against_id": figures.ood_against_id(entries),
    **figures.knob_curves(entries),
    "reliability": figures.reliability(entries),
    "cost": figures.cost(entries),
  }
  return {name: each for name, each in drawn.items() if each is not None}


def _comparisons(
  entries: list[Entry], references: Sequence[str]
) -> list[document.Table]:
  """OOD and ID against every reference, where a seed is shared."""
  tables = []
  away = _away(entries)
  for name in references:
    found = [entry for entry in entries if entry.method == name]
    for entry in found[:1]:
      for metric in ("mean_ood", "id"):
        rows = entries if metric == "id" else away
        if entry not in rows:
          continue
        table = document.comparison(rows, entry, metric)
        if table.rows:
          tables.append(table)
  return tables


def main(arguments: list[str] | None = None) -> int:
  """Reads the command line; returns the exit status."""
  command_line.refuse_repeated(arguments)
  try:
    tyro.cli(
      write, args=arguments, prog="python -m experiments.report",
      description=__doc__,
    )  # fmt: skip
  except WRONG_INPUT as error:
    print(f"error: {error}")
    return 1
  return 0


if __name__ == "__main__":
  sys.exit(main())
