"""What decoding and augmenting costs, and how good the pictures are."""

import functools
import io
import multiprocessing
import os
import pathlib
import resource
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator
from typing import Any

import grain
import jax
import numpy as np
from flax import nnx
from PIL import Image

from experiments.bench import figures, pictures
from experiments.data import crops, workers
from experiments.data.augmentation import POLICIES
from experiments.data.batches import batches, stream
from experiments.data.decode import View
from experiments.data.images import Files, ImageSet
from experiments.data.workers import Workers
from experiments.methods.full_finetuning import FullFinetuning
from experiments.methods.schedule import Schedule
from experiments.models.classifier import Classifier
from experiments.training import loop
from gmixout_jax import clip

TARGETS = {
  "time_ratio_to_pillow_500x375": 0.70,
  "time_ratio_to_pillow_1024x768": 0.45,
  "detail_ratio_500x375": 1.2,
  "detail_ratio_1024x768": 1.2,
  "workers_time_ratio": 1.15,
  "overlap_ratio": 1.25,
}
LEAST = {
  "detail_ratio_500x375": 0.9,
  "detail_ratio_1024x768": 0.9,
  "psnr_db_500x375": 36.0,
  "psnr_db_1024x768": 36.0,
}
SIZES = ((500, 375), (1024, 768))
SIDE = 224
ROWS = 50_000
BASIC = POLICIES["basic"]


def run(
  json: pathlib.Path | None = None,
  repeats: int = 15,
  count: int = 16,
  batch_size: int = 32,
  steps: int = 40,
) -> None:
  """Times the input of training against Pillow, and its image quality.

  The augmentation "basic": a crop of 70 to 100 % of a JPEG, resized to 224
  pixels, and a flip. Pillow decodes the whole JPEG, cuts out the same crop and
  resizes it once, by its antialiased `BILINEAR`, as torchvision calls it. Times
  are CPU seconds of one process, in which nothing else runs; medians over
  rounds in turn.

  detail_ratio: the energy of frequencies above a quarter of a cycle per pixel,
  over that of Pillow's crop. Below 1 detail is lost, above it is made up by
  aliasing. psnr_db: of the same crops.
  workers_time_ratio: CPU seconds for an image with two worker processes over
  those with one thread, once they run; handing batches over is part of it.
  overlap_ratio: seconds of train steps that wait for input, over the larger of
  what steps and input take alone. A small ViT on one core, decoding on another.

  Args:
    json: Where to write the figures.
    repeats: Rounds.
    count: Pictures of each size.
    batch_size: Images of a train step, and of a batch of the workers.
    steps: Train steps of a round, and batches of the workers.
  """
  # XLA reads it when it starts: a core for steps, and another for input.
  os.environ["NPROC"] = "1"
  results: figures.Figures = {}
  for width, height in SIZES:
    jpegs = pictures.jpegs(width, height, count)
    results |= compared(jpegs, f"{width}x{height}", repeats)
  with tempfile.TemporaryDirectory() as folder:
    data = on_disk(pathlib.Path(folder), *SIZES[0], count)
    dataset = batches(data, batch_size=batch_size, seed=0)
    results |= overlap(dataset, batch_size, steps, rounds=min(repeats, 5))
    results |= with_workers(dataset, batch_size, steps, rounds=min(repeats, 5))
  title = f"Input, JPEGs of quality {pictures.QUALITY}, {SIDE} pixels"
  figures.report(title, results, TARGETS, json, least=LEAST)


def compared(jpegs: list[bytes], size: str, repeats: int) -> figures.Figures:
  """Times and pictures of one size, ours and Pillow's."""
  rounds: dict[str, list[float]] = {"ours": [], "pillow": []}
  ways = {"ours": ours, "pillow": pillow}
  for turn in range(repeats + 1):
    for name in sorted(ways, reverse=turn % 2 > 0):
      rngs = [np.random.default_rng((turn, i)) for i in range(len(jpegs))]
      began = time.process_time()
      for data, rng in zip(jpegs, rngs, strict=True):
        ways[name](data, rng)
      if turn > 0:  # the first one fills caches
        rounds[name].append((time.process_time() - began) / len(jpegs))
  seconds = {name: statistics.median(all) for name, all in rounds.items()}
  detail, psnr = [], []
  for number, data in enumerate(jpegs):
    found, wanted = (
      way(data, np.random.default_rng(number)).astype(float)
      for way in (ours, pillow)
    )
    detail.append(high_frequencies(found) / high_frequencies(wanted))
    psnr.append(10 * np.log10(255**2 / np.mean((found - wanted) ** 2)))
  return {
    f"file_kilobytes_{size}": statistics.mean(map(len, jpegs)) / 1000,
    f"milliseconds_{size}": 1000 * seconds["ours"],
    f"pillow_milliseconds_{size}": 1000 * seconds["pillow"],
    f"time_ratio_to_pillow_{size}": seconds["ours"] / seconds["pillow"],
    f"detail_ratio_{size}": float(np.mean(detail)),
    f"psnr_db_{size}": float(np.mean(psnr)),
  }


def ours(data: bytes, rng: np.random.Generator) -> np.ndarray:
  """A crop and a flip as training draws them."""
  return BASIC.drawn(data, (SIDE, SIDE), rng)


def pillow(data: bytes, rng: np.random.Generator) -> np.ndarray:
  """The same crop and flip, as Pillow alone makes them."""
  with Image.open(io.BytesIO(data)) as image:
    drawn = crops.draw_box(*image.size, BASIC.areas, rng)
    left, top, width, height = crops.aligned(drawn, (SIDE, SIDE))
    part = image.convert("RGB").crop((left, top, left + width, top + height))
    resized = part.resize((SIDE, SIDE), Image.Resampling.BILINEAR)
  if rng.random() < BASIC.flips:
    resized = resized.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
  return np.asarray(resized)


def high_frequencies(pixels: np.ndarray) -> float:
  """Energy of the grey image above a quarter of a cycle per pixel.

  Example:
    >>> import numpy as np
    >>> x = np.arange(64)
    >>> for cycles in (8, 24):  # of 64 pixels
    ...   wave = np.cos(2 * np.pi * cycles * x / 64)
    ...   image = np.broadcast_to(wave[None, :, None], (64, 64, 3))
    ...   print(f"{high_frequencies(image):.3f}")
    0.000
    0.500
  """
  grey = pixels.mean(axis=-1)
  energy = np.abs(np.fft.fft2(grey - grey.mean()) / grey.size) ** 2
  y, x = np.meshgrid(*map(np.fft.fftfreq, grey.shape), indexing="ij")
  return float(energy[np.hypot(y, x) > 0.25].sum())


def on_disk(
  folder: pathlib.Path, width: int, height: int, count: int
) -> ImageSet:
  """A set of two classes; its images are a few files, again and again."""
  paths = []
  for number, data in enumerate(pictures.jpegs(width, height, count)):
    path = folder / f"{number}.jpg"
    path.write_bytes(data)
    paths.append(str(path))
  # Grain takes a millisecond to shuffle an index of so few.
  paths *= -(-ROWS // count)
  labels = np.arange(len(paths)) % 2
  return ImageSet.of(Files(tuple(paths), View(SIDE)), labels, ("even", "odd"))


def with_workers(
  dataset: grain.MapDataset[Any], batch_size: int, steps: int, *, rounds: int
) -> figures.Figures:
  """CPU time of two worker processes against one thread of this one."""
  ways = {"thread": Workers(1, 0), "processes": Workers(1, 2)}
  prepared: dict[str, Iterator[Any]] = {}
  for name, chosen in ways.items():
    workers.choose(chosen)
    prepared[name] = iter(stream(dataset, 0, steps * (rounds + 2)))
  try:
    taken: dict[str, list[float]] = {name: [] for name in ways}
    for turn in range(rounds + 1):
      for name, iterator in prepared.items():
        began = _cpu_seconds()
        for _ in range(steps):
          next(iterator)
        _settle()  # as many batches are prepared as were taken
        if turn > 0:  # in the first one processes start
          taken[name].append((_cpu_seconds() - began) / steps / batch_size)
  finally:
    workers.choose(Workers())
    for iterator in prepared.values():
      iterator.close()  # pyright: ignore[reportAttributeAccessIssue]
  seconds = {name: statistics.median(all) for name, all in taken.items()}
  return {
    "thread_milliseconds": 1000 * seconds["thread"],
    "processes_milliseconds": 1000 * seconds["processes"],
    "workers_time_ratio": seconds["processes"] / seconds["thread"],
  }


def _cpu_seconds() -> float:
  """Of this process and those that it has started."""
  ticks = 0
  # Asking for those that run buries those that have ended, which then count
  # among the children of before.
  running = multiprocessing.active_children()
  ended = resource.getrusage(resource.RUSAGE_CHILDREN)
  for child in running:
    fields = pathlib.Path(f"/proc/{child.pid}/stat").read_text()
    # The name of the program, in brackets, may have blanks.
    user, system = fields.rpartition(")")[2].split()[11:13]
    ticks += int(user) + int(system)
  others = ended.ru_utime + ended.ru_stime + ticks / os.sysconf("SC_CLK_TCK")
  return time.process_time() + others


def _settle() -> None:
  """Waits until whoever prepares batches ahead has done so."""
  before = -1.0
  while (now := _cpu_seconds()) - before > 0.02:
    before = now
    time.sleep(0.5)


def overlap(
  dataset: grain.MapDataset[Any], batch_size: int, steps: int, *, rounds: int
) -> figures.Figures:
  """Wall time of steps with input, and of both alone, on a core each."""
  workers.choose(Workers(1, 0))
  fixed = dataset[0]

  def input_alone() -> None:
    for _ in stream(dataset, 0, steps):
      pass

  train = functools.partial(_train, steps=steps)
  ways: dict[str, Callable[[], None]] = {
    "input": input_alone,
    "steps": lambda: train(lambda start: [fixed] * (steps - start)),
    "both": lambda: train(lambda start: stream(dataset, start, steps)),
  }
  try:
    seconds = figures.interleaved_medians(ways, rounds)
  finally:
    workers.choose(Workers())
  alone = max(seconds["input"], seconds["steps"])
  return {
    f"{name}_seconds_per_step": taken / steps for name, taken in seconds.items()
  } | {"overlap_ratio": seconds["both"] / alone}


def _train(batches: Callable[[int], Any], *, steps: int) -> None:
  config = clip.VisionConfig.vit(
    num_classes=0,
    image_size=SIDE,
    patch_size=32,
    width=96,
    depth=1,
    heads=2,
    mlp_width=384,
  )
  vit = clip.ViT(config, rngs=nnx.Rngs(0))
  fitted = loop.fit(
    FullFinetuning(),
    Classifier.with_zero_head(vit, width=96, classes=2),
    batches,
    steps=steps,
    schedule=Schedule(steps),
    key=jax.random.key(0),
  )
  jax.block_until_ready(nnx.state(fitted.model))
