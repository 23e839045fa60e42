"""Evaluates a finished classifier on class folders.

  python -m experiments.evaluate MODEL --val photos/val --ood night=photos/night
  python -m experiments.evaluate CLIP --ood night=photos/night \
    --templates "a photo of a {}."

--val and --ood name folders of class folders, <folder>/<class>/<image>, or CSVs
with the columns file and label. Classes are matched with those of MODEL by
name. Images are prepared as in the evaluation of MODEL when it was trained. One
run appends one JSON line.
"""

import dataclasses
import pathlib
import sys
from collections.abc import Mapping

import rich.table
import tyro
from rich.markup import escape

from experiments import command_line
from experiments.data import listing
from experiments.data.images import ImageSet
from experiments.data.listing import Listing
from experiments.harness.command import session
from experiments.model_options import ModelOptions
from experiments.models import backbones, evaluation
from experiments.models.predictor import Predictor
from experiments.reporting import records
from experiments.run_options import check_results, one_each
from experiments.tasks import memory, user_images

ID = "ID"
"""What the images of --val are called."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Config(ModelOptions):
  """A classifier and the images to evaluate it on.

  Attributes:
    val: ID images.
    ood: OOD images, NAME=DIR; any number of them.
    skip_broken: Leave out images that cannot be decoded, and count them; by
      default the first one stops the command.
    results: The file that the line is appended to.
  """

  val: pathlib.Path | None = None
  ood: tyro.conf.UseAppendAction[tuple[str, ...]] = ()
  skip_broken: bool = False
  results: pathlib.Path = pathlib.Path("runs/evaluations.jsonl")

  def sets(self) -> dict[str, Listing]:
    """What to evaluate on, by name.

    Raises:
      FileNotFoundError: If a folder is not there, or has no images.
      ValueError: If there is none, or two share images.
    """
    paths = {} if self.val is None else {"--val": self.val}
    for name, path in user_images.parse_ood(self.ood):
      paths[f"--ood {name}"] = path
    if not paths:
      raise ValueError(
        "--ood must name the images to evaluate on, as NAME=DIR, or --val those"
        " of the kind that was trained on."
      )
    found = {
      flag: listing.read(path, skip_missing=self.skip_broken)
      for flag, path in paths.items()
    }
    user_images.check_apart(found)
    return found


def main(config: Config) -> None:
  """Evaluates, appends the line and shows the table."""
  with session(saves=False) as started:
    check_results(config.results)
    sets = config.sets()
    first = next(iter(sets.values()))
    found = config.load(first.classes)
    images = {flag: opened(config, one, found) for flag, one in sets.items()}
    say = started.display.say
    for one, some in zip(sets.values(), images.values(), strict=True):
      for note in (*one.notes(), *memory.notes(some)):
        say(note)
    with (
      started.display.shown(),
      started.display.running("evaluating", steps=0, runs=0) as row,
    ):
      metrics = evaluation.evaluate(
        found.model,
        images.pop("--val", None),
        {flag.removeprefix("--ood "): some for flag, some in images.items()},
        batch_size=config.batch_size,
        progress=row.evaluating,
      )
    line = {
      "config": described(config, found, sets),
      **records.environment(),
      "metrics": metrics,
    }
    records.append(config.results, line)
    started.console.print(table(config.model.name, metrics))
    say(f"Its line is in {config.results}.")


def opened(config: Config, found: Listing, model: Predictor) -> ImageSet:
  """Images whose labels count the outputs of a model.

  Raises:
    ValueError: If their classes are not those of the model, or one is broken.
  """
  names = model.class_names or ()
  user_images.same_classes(found.root, found.classes, config.model, names)
  images = user_images.labelled(found, model.view, names)
  return memory.without_broken(images) if config.skip_broken else images


def described(
  config: Config, found: Predictor, sets: Mapping[str, Listing]
) -> records.Record:
  """All that the metrics depend on; JSON."""
  entry: records.Record = {
    "model": config.model.name,
    "digest": backbones.digest(config.model),
    "image_size": found.view.size,
    "data": {
      flag.removeprefix("--"): user_images.described(one)
      for flag, one in sets.items()
    },
  }
  for name in ("classes", "templates", "mean", "std", "skip_broken"):
    if value := getattr(config, name):
      entry[name] = value
  if config.dtype != "float32":
    entry["dtype"] = config.dtype
  return records.plain(entry)


def table(model: str, metrics: records.Record) -> rich.table.Table:
  """A table of the metrics of each set, in percent."""
  view = rich.table.Table("images", title=escape(f"{model} (%)"))
  names = {
    "top1": "accuracy",
    "mean_per_class": "mean per class",
    "macro_f1": "macro F1",
    "ece": "calibration error",
  }
  for name in names.values():
    view.add_column(name, justify="right")
  for key, found in metrics["details"].items():
    title = ID if key == "id" else key.removeprefix("ood/")
    shown = [f"{100 * found[name]:.1f}" for name in names]
    view.add_row(escape(title), *shown)
  if len(metrics["ood"]) > 1:
    view.add_section()
    view.add_row("mean OOD", f"{100 * metrics['mean_ood']:.1f}")
    view.add_row("worst OOD", f"{100 * metrics['worst_ood']:.1f}")
  return view


def parse(arguments: list[str] | None = None) -> Config:
  """Reads the command line."""
  arguments = sys.argv[1:] if arguments is None else arguments
  return command_line.parse(
    Config,
    args=one_each(arguments),
    prog="python -m experiments.evaluate",
    description=__doc__,
  )


if __name__ == "__main__":
  main(parse())
