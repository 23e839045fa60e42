"""A task whose runs are finished: checkpoints of a folder, to be combined.

A checkpoint is what `models.export` writes: a ViT with its head in a
safetensors file, or a Hugging Face folder with a head beside the model. The
head's outputs must mean the same in all of them.
"""

import dataclasses
import functools
import pathlib
from collections.abc import Callable, Sequence
from typing import Any

import jax
import numpy as np

from experiments.data.decode import View
from experiments.data.images import ImageSet
from experiments.data.split import Split
from experiments.methods import Method, Run
from experiments.methods.composition import Pool
from experiments.methods.full_finetuning import FullFinetuning
from experiments.methods.model_stock import ModelStock
from experiments.methods.validator import Validator
from experiments.models import backbones, own_head, predictor
from experiments.models.classifier import Classifier
from experiments.reporting import records
from experiments.tasks.experiment import ExperimentImages
from experiments.tasks.task import Metrics, Opened
from experiments.training import loop
from experiments.training.runs import Cost, Outcome, assemble


def find(folder: str | pathlib.Path) -> tuple[pathlib.Path, ...]:
  """The checkpoints in a folder, by name.

  Raises:
    FileNotFoundError: If there is none.
  """
  folder = pathlib.Path(folder)
  found = sorted(
    path
    for path in (folder.iterdir() if folder.is_dir() else ())
    if path.suffix == ".safetensors" or (path / "config.json").is_file()
  )
  if not found:
    raise FileNotFoundError(
      f"no checkpoint in {folder}: expected safetensors files with timm's names"
      " and a head, or Hugging Face folders with a head.safetensors, as"
      " --export writes them."
    )
  return tuple(found)


def name_of(path: pathlib.Path) -> str:
  """What a checkpoint is called.

  Example:
    >>> name_of(pathlib.Path("soup/lr0.1.safetensors"))
    'lr0.1'
  """
  return path.name.removesuffix(".safetensors")


def load(
  path: pathlib.Path,
  *,
  class_names: Sequence[str] | None = None,
  **settings: Any,
) -> Classifier:
  """The classifier of one checkpoint.

  Args:
    path: From `find`.
    class_names: What its outputs must mean, if the checkpoint says it.
    **settings: See `predictor.load`, as are further errors.

  Raises:
    ValueError: If they mean something else.
  """
  found = predictor.load(path, **settings)
  known, wanted = set(found.class_names or ()), set(class_names or ())
  # Others may call the same classes otherwise: "tench", and not "n01440764".
  foreign = path.is_dir() and not (path / own_head.FILE).is_file()
  differs = found.class_names != tuple(class_names or ())
  if known and wanted and differs and (known & wanted or not foreign):
    raise ValueError(
      f"{path} must have the classes of the images, in their order:\n  {path}:"
      f" {', '.join(found.class_names or ())}\n  images:"
      f" {', '.join(class_names or ())}"
    )
  return found.model


@dataclasses.dataclass(frozen=True, eq=False)
class Combining:
  """A case of an experiment that trains nothing and combines checkpoints.

  Attributes:
    images: Of the case.
    folder: Of the checkpoints; see `find`.
    view: What is seen of an image, and how large.
    mean: See `backbones.load`.
    std: Likewise.
    headline: See `Opened`.
  """

  images: ExperimentImages
  folder: pathlib.Path
  view: View
  mean: tuple[float, ...] | None = None
  std: tuple[float, ...] | None = None
  headline: Callable[[Metrics], dict[str, float]] | None = None

  @functools.cached_property
  def paths(self) -> tuple[pathlib.Path, ...]:
    """The checkpoints; errors as of `find`."""
    return find(self.folder)

  @property
  def config(self) -> records.Record:
    """See `Task`."""
    pixels = {"mean": self.mean, "std": self.std}
    return {
      "data": self.images.title,
      "image_size": self.view.size,
      "checkpoints": [name_of(path) for path in self.paths],
      "digest": [backbones.digest(path) for path in self.paths],
      **{k: list(v) for k, v in pixels.items() if v is not None},
    }

  def open(self, seed: int) -> Opened:
    """See `Task`."""
    sets = self.images.open(self.view, seed)
    pixels = {"mean": self.mean, "std": self.std}
    finished = Finished(
      self.paths,
      sets.source.validation,
      class_names=sets.source.validation.class_names,
      image_size=self.view.size,
      **pixels,
    )
    return Opened(
      model=finished.model,
      source=sets.source,
      steps=0,
      batch_size=1,
      seed=seed,
      test=sets.test,
      ood=sets.ood,
      headline=self.headline,
      view=self.view,
      outcomes=finished,
    )


class Finished:
  """Finished checkpoints, all of one model."""

  def __init__(
    self,
    paths: Sequence[pathlib.Path],
    validation: Split | ImageSet,
    **settings: Any,
  ):
    """Loads nothing yet.

    Args:
      paths: From `find`.
      validation: What to choose by. No checkpoint may have trained on it.
      **settings: See `load`.
    """
    self.paths = tuple(paths)
    self._validation = validation
    self._settings = settings

  @functools.cached_property
  def _loaded(self) -> tuple[Classifier, list[Run]]:
    model = load(self.paths[0], **self._settings)
    first = loop.weights_of(model)
    runs = []
    for path in self.paths:
      weights = loop.weights_of(load(path, **self._settings))
      if jax.tree.map(np.shape, weights) != jax.tree.map(np.shape, first):
        raise ValueError(
          f"{path} is another model than {self.paths[0]}: names or shapes of"
          " their weights differ."
        )
      weights = jax.device_get(weights)
      runs.append(Run(initial=weights, params=weights))
    return model, runs

  @property
  def model(self) -> Classifier:
    """The first of them."""
    return self._loaded[0]

  def outcome(self, method: Method) -> Outcome:
    """What the method makes of the checkpoints.

    Raises:
      ValueError: If it does not combine runs, or wants more of a run than the
        weights it ended with: how it was trained, or from where.
    """
    if not isinstance(method, Pool) or method.snapshots(2):
      raise ValueError(
        f"{type(method).__name__} is not made of the final weights of several"
        " runs: use soups or an ensemble."
      )
    if isinstance(method, ModelStock):
      raise ValueError(
        "ModelStock needs the weights that runs started from, and finished"
        " checkpoints do not tell them: use another soup."
      )
    if type(method.of) is not FullFinetuning:
      raise ValueError(
        f"{type(method).__name__} of finished checkpoints cannot be made of"
        f" {type(method.of).__name__}: they are trained already."
      )
    model, runs = self._loaded
    validator = Validator(model, self._validation)
    combined = method.combine(runs, validator)
    models = assemble(model, combined)
    size = sum(leaf.size for leaf in jax.tree.leaves(combined.weights))
    return Outcome(
      model=models,
      cost=Cost(
        ingredients=len(combined.ingredients),
        evaluations=validator.evaluations,
        forward_passes=len(combined.weights),
        inference_parameters=size,
      ),
      losses=(),
      notes=combined.notes | {"checkpoints": [*map(name_of, self.paths)]},
    )
