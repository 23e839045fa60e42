"""The report's tables of single models.

These are pretrained CLIPs, and models that `experiments.evaluate` has
evaluated.
"""

from collections.abc import Sequence

from experiments.reporting.document import Table
from experiments.reporting.entries import share
from experiments.reporting.records import Record


def pretrained(lines: Sequence[Record]) -> list[Table]:
  """Recalls and zero-shot accuracies of pretrained CLIPs."""
  if not lines:
    return []
  columns: list[str] = []
  rows = []
  for line in lines:
    found = line["metrics"]
    cells = {
      f"{way.replace('_', ' ')}, R@{k}": _percent(recalls[k])
      for way, recalls in found["retrieval"].items()
      for k in recalls
      if k != "median_rank"
    } | {
      f"zero-shot, {domain}": _percent(each["top1"])
      for domain, each in found.get("zero_shot", {}).items()
    }
    columns += [name for name in cells if name not in columns]
    config = line["config"]
    name = f"{config['image_size']} pixels, {config['steps']} steps"
    rows.append((f"{name}, seed {int(line['seed'])}", cells))
  note = (
    "In percent, on images that were held out; one run each. R@k is how often"
    " the right one is among the first k."
  )
  cells = [
    (name, *(found.get(column, "–") for column in columns))
    for name, found in rows
  ]
  return [Table("Pretrained CLIPs", note, ("pretraining", *columns), cells)]


def evaluated(lines: Sequence[Record]) -> list[Table]:
  """Accuracies of finished models, a row for each set."""
  if not lines:
    return []
  rows = []
  for line in lines:
    for name, found in line["metrics"]["details"].items():
      rows.append(
        (
          str(line["config"]["model"]),
          "ID" if name == "id" else name.removeprefix("ood/"),
          _percent(found["top1"]),
          _percent(found["mean_per_class"]),
          _percent(found["ece"]),
        )
      )
  return [
    Table(
      "Finished models",
      "In percent, as experiments.evaluate has measured them.",
      ("model", "images", "accuracy", "mean per class", "ECE"),
      rows,
    )
  ]


def _percent(value: object) -> str:
  return f"{100 * share(value):.1f}"
