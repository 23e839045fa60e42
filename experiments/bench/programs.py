"""How many programs a sweep over learning rates compiles."""

import itertools
from collections.abc import Callable, Sequence

import jax
import numpy as np
from flax import nnx

import gmixout_jax as gx
from experiments.bench import figures
from experiments.data.source import Source
from experiments.data.split import Split
from experiments.methods.gmixout import GMixout
from experiments.models.classifier import Classifier
from experiments.models.evaluation import evaluate
from experiments.tasks.task import Opened
from experiments.training import train_step
from experiments.training.runs import Runs

RATES = (1e-4, 3e-4, 1e-3, 3e-3, 1e-2)

_COMPILED = "/jax/core/compile/backend_compile_duration"
_CLASSES, _SIZE = 3, 16


def count() -> figures.Figures:
  """Programs of sweeps over one rate and over five, from nothing each."""
  one, five = (counted(lambda n=n: sweep(RATES[:n])) for n in (1, len(RATES)))
  return {
    "programs_of_one_rate": float(one),
    "programs_of_five_rates": float(five),
    "programs_per_rate": five / one,
  }


def sweep(rates: Sequence[float]) -> None:
  """Trains and evaluates a small ViT by GMixout at each rate."""
  task = Opened(model=_model(), source=_images(), steps=2, batch_size=8)
  methods = [GMixout(learning_rate=rate) for rate in rates]
  runs = Runs(task, methods)
  for method in methods:
    evaluate(runs.outcome(method).model, task.source.validation, {})


def counted(work: Callable[[], None]) -> int:
  """Programs that are compiled, or read from a cache on disk, by some work."""
  jax.clear_caches()
  train_step._compiled.cache_clear()
  found = itertools.count()

  def note(event: str, duration_secs: float, **more: str | int) -> None:
    del duration_secs, more
    if event == _COMPILED and not done:
      next(found)

  done: list[bool] = []
  # There is no public way to take it away again.
  jax.monitoring.register_event_duration_secs_listener(note)
  work()
  done.append(True)
  return next(found)


def _images() -> Source:
  rng = np.random.default_rng(0)
  labels = np.repeat(np.arange(_CLASSES, dtype=np.int32), 8)
  noise = rng.integers(0, 60, (len(labels), _SIZE, _SIZE, 3))
  images = (60 * labels[:, None, None, None] + noise).astype(np.uint8)
  names = tuple(f"class {label}" for label in range(_CLASSES))
  split = Split(images, labels, names)
  return Source(split, split)


def _model() -> Classifier:
  config = gx.clip.VisionConfig.vit(
    image_size=_SIZE,
    patch_size=8,
    width=16,
    depth=1,
    heads=2,
    mlp_width=32,
    num_classes=0,
  )
  vit = gx.clip.ViT(config, rngs=nnx.Rngs(0))
  return Classifier.with_zero_head(vit, width=16, classes=_CLASSES)
