"""Watching a run: evaluation, early stopping, a log and a profile.

Nothing here is needed to train, and what is off costs nothing. OOD accuracy is
only reported: `Patience`, which decides, is given the ID accuracy alone.
"""

import dataclasses
import pathlib
from collections.abc import Callable, Mapping
from typing import Any

import jax
import numpy as np
from flax import nnx
from jax.experimental import multihost_utils

from experiments.data.images import ImageSet
from experiments.data.split import Split
from experiments.methods.run import Params
from experiments.models.evaluation import Progress, accuracy
from experiments.training.metrics_log import MetricsLog
from experiments.training.patience import Patience
from experiments.training.profiling import Profile

ID_ACCURACY = "id_accuracy"


@dataclasses.dataclass(frozen=True)
class Watching:
  """Evaluation, early stopping and logs during a run.

  Attributes:
    eval_every: Steps between two evaluations of the evaluation weights, on the
      ID validation images, and after the last step. None is off.
    eval_images: Evaluate on so many of those images instead of all, drawn by
      the seed. The result line still uses all.
    patience: Stop after so many evaluations in a row without a better one, at
      least 1. The result is the weights of the best evaluation, even if the run
      goes to its end. None is off.
    log_dir: A folder for metrics.jsonl and a TensorBoard file with the same
      numbers. A new run replaces them, a resumed run continues them. Methods of
      several runs have a folder for each.
    watch_ood: Evaluate on the OOD images too. The numbers are shown and logged;
      nothing is chosen by them.
    profile: A folder for a trace of jax.profiler, of steps 2 to 4 of this
      process, in the first run. The first step compiles.

  Raises:
    ValueError: If one is out of range, or needs another one.
  """

  eval_every: int | None = None
  eval_images: int | None = None
  patience: int | None = None
  log_dir: pathlib.Path | None = None
  watch_ood: bool = False
  profile: pathlib.Path | None = None

  def __post_init__(self):
    for name in ("eval_every", "eval_images", "patience"):
      value = getattr(self, name)
      if value is not None and value < 1:
        raise ValueError(f"{name} must be at least 1, got {value}.")
    if self.eval_every is None:
      for name in ("eval_images", "patience", "watch_ood"):
        if value := getattr(self, name):
          raise ValueError(
            f"{name}={value} needs eval_every, the steps between two"
            " evaluations."
          )

  def below(self, name: str) -> "Watching":
    """The same, in folders of this name below those given."""
    return dataclasses.replace(
      self,
      log_dir=self.log_dir and self.log_dir / name,
      profile=self.profile and self.profile / name,
    )

  def described(self) -> dict[str, Any]:
    """What the weights depend on; JSON, empty without patience."""
    if self.patience is None:
      return {}
    fields = ("eval_every", "eval_images", "patience")
    found = {name: getattr(self, name) for name in fields}
    return {name: value for name, value in found.items() if value is not None}


class Watcher:
  """Watches one run; used as a context."""

  def __init__(
    self,
    settings: Watching,
    validation: Split | ImageSet,
    *,
    ood: Mapping[str, Split | ImageSet] | None = None,
    seed: int = 0,
    images_per_step: int = 1,
    folder: pathlib.Path | None = None,
    profile: pathlib.Path | None = None,
    leads: bool = True,
    shown: Callable[[int, Mapping[str, float]], None] | None = None,
    mesh: jax.sharding.Mesh | None = None,
    progress: Progress = lambda name, done, total: None,
    say: Callable[[str], None] | None = None,
  ):
    """Watches nothing yet.

    Args:
      settings: What is watched.
      validation: The ID validation images.
      ood: The OOD images, by name.
      seed: Of the images to evaluate on, if not all.
      images_per_step: On all devices.
      folder: For the log of this run, if it has one.
      profile: For the profile of this run, if it has one.
      leads: Whether this process writes.
      shown: Called with the steps taken and the accuracies of an evaluation.
      mesh: Whose devices share an evaluation; see `models.evaluation`.
      progress: Called while it lasts, see there.
      say: Called with a sentence for the user.
    """
    self.settings = settings
    self._id_images = subset(validation, settings.eval_images, seed)
    self._ood = ood or {} if settings.watch_ood else {}
    self._images_per_step = images_per_step
    self._folder = folder if leads else None
    self._shown = shown
    self._mesh = mesh
    self._progress = progress
    self._log: MetricsLog | None = None
    self._rates: Mapping[str, np.ndarray] = {}
    self.profile = Profile(profile if leads else None, say)

  @property
  def logs(self) -> bool:
    """Whether any process writes a log, so that the step measures for it."""
    return self.settings.log_dir is not None

  def __enter__(self) -> "Watcher":
    return self

  def __exit__(self, *error: object) -> None:
    self.profile.close()
    if self._log is not None:
      self._log.close()

  def begin(self, taken: int, rates: Callable[[], Mapping[str, np.ndarray]]):
    """A run begins, or goes on.

    Args:
      taken: Steps before this process.
      rates: The learning rates of all steps, by name.
    """
    self.profile.begin(taken)
    if self._folder is not None:
      self._log = MetricsLog(self._folder, taken)
      self._rates = rates()

  def patience(self, steps: int, weights: Params) -> Patience | None:
    """What may end a run of so many steps early, if anything may.

    Args:
      steps: The length of the run.
      weights: Shapes of the evaluation weights.
    """
    every, patience = self.settings.eval_every, self.settings.patience
    if every is None or patience is None:
      return None
    return Patience.before(every, patience, steps, weights)

  def is_due(self, taken: int, steps: int) -> bool:
    """Whether to evaluate after so many steps."""
    every = self.settings.eval_every
    return every is not None and (taken % every == 0 or taken == steps)

  def evaluate(self, taken: int, model: nnx.Module) -> float:
    """The ID accuracy of the evaluation weights; all is shown and logged."""
    found = {ID_ACCURACY: self._accuracy(model, "id", self._id_images)}
    for name, images in self._ood.items():
      found[f"ood_accuracy/{name}"] = self._accuracy(
        model, f"ood/{name}", images
      )
    if self._shown is not None:
      self._shown(taken, found)
    if self._log is not None:
      self._log.write(taken, found)
    score = np.float32(found[ID_ACCURACY])
    if jax.process_count() > 1:  # processes that disagree would wait forever
      score = multihost_utils.broadcast_one_to_all(score)
    return float(score)

  def _accuracy(
    self, model: nnx.Module, name: str, images: Split | ImageSet
  ) -> float:
    return accuracy(
      model,
      images,
      batch_size=256,
      mesh=self._mesh,
      progress=lambda done: self._progress(name, done, len(images)),
    )

  def stepped(
    self, step: int, loss: float, metrics: Mapping[str, Any], seconds: float
  ) -> None:
    """Logs a step that has ended.

    Args:
      step: Its number, from 0.
      loss: Before it.
      metrics: Of the step.
      seconds: That it took.
    """
    if self._log is None:
      return
    found = {"loss": loss}
    found |= {name: float(rate[step]) for name, rate in self._rates.items()}
    if "gradient_norm" in metrics:
      found["gradient_norm"] = float(metrics["gradient_norm"])
    found["images_per_second"] = self._images_per_step / max(seconds, 1e-9)
    self._log.write(step + 1, found)


def sentence(found: Mapping[str, float]) -> str:
  """An evaluation for a progress bar.

  Example:
    >>> sentence({"id_accuracy": 0.75, "ood_accuracy/photo": 0.5})
    ', ID 75.0 %, photo (OOD) 50.0 %'
  """
  return "".join(
    f", {'ID' if name == ID_ACCURACY else name.split('/', 1)[1] + ' (OOD)'}"
    f" {100 * value:.1f} %"
    for name, value in found.items()
  )


def subset(
  images: Split | ImageSet, count: int | None, seed: int
) -> Split | ImageSet:
  """So many images drawn without replacement, in their order; None is all."""
  if count is None or count >= len(images):
    return images
  chosen = np.random.default_rng(seed).choice(len(images), count, replace=False)
  return images.take(np.sort(chosen))
