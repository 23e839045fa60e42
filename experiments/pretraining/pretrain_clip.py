"""Pretrains a CLIP on images with captions and writes its folder.

  python -m experiments.pretraining.pretrain_clip folder --root DIR \
    --vit vit.safetensors
  python -m experiments.pretraining.pretrain_clip tfds --name coco_captions ...
  python -m experiments.pretraining.pretrain_clip digits --no-locked \
    --image-size 32
  python -m experiments.pretraining.pretrain_clip folder --help

The image tower is a given ViT or a small one from scratch. Locked (LiT, Zhai
et al., 2022, https://arxiv.org/abs/2111.07991) it is run once over all images
before training, and only a text tower and two projections are trained, which
two CPU cores can do in minutes; free, both towers train. `--no-locked` frees.

The folder holds weights, configuration, tokenizer and how pixels are
normalised: `gx.clip.from_pretrained` reads it, and `models.backbones.from_clip`
makes it a classifier to fine-tune. It appears at the end, whole or not at all.
One run appends one line to the results file: how often the captions of
held-out images and the images find each other, and zero-shot accuracy on the
domains of PACS or of another folder in DomainBed's layout, if one is given.
"""

import contextlib
import dataclasses
import functools
import hashlib
import json
import os
import pathlib
import shlex
import shutil
import sys
import time
from collections.abc import Callable, Iterator, Sequence

import numpy as np
import rich
import rich.table
import tokenizers
import tyro
from jaxtyping import Float
from rich.markup import escape

from experiments import command_line
from experiments.data import caption_sources as sources
from experiments.data.batches import stream
from experiments.data.captions import CaptionSet
from experiments.data.decode import View
from experiments.data.images import ImageSet
from experiments.data.pairs import Pairs
from experiments.methods.schedule import Schedule
from experiments.models import preprocessing
from experiments.pretraining import (
  contrastive,
  embeddings,
  small_clip,
  tokenization,
  zero_shot,
)
from experiments.pretraining.small_clip import ImageTower, TextTower
from experiments.reporting import records
from experiments.run_options import check_results, check_writable
from experiments.training import run_folders
from experiments.training.run_checkpoints import Stopped, stop_on_sigterm
from gmixout_jax import clip
from gmixout_jax.checkpoint import Checkpoints
from gmixout_jax.checkpoint.files import synced, temporary_beside
from gmixout_jax.clip import weights


@dataclasses.dataclass(frozen=True)
class Config:
  """One pretraining run.

  Attributes:
    data: Images with captions.
    vit: A ViT to start from: safetensors with timm's names. None starts from
      scratch.
    locked: Whether the ViT is frozen.
    mean: Of the pixels the ViT was trained on, per channel, in [0, 1].
    std: Likewise.
    image_size: Side of the images in pixels, a multiple of the patch size.
    vision: The image tower, where no ViT is given.
    text: The text tower.
    dim: Of the space that both are projected to.
    held_out: How many images are not trained on.
    flips: Whether a locked tower also sees every image mirrored. A free one
      sees random crops and flips.
    steps: Optimizer steps.
    batch_size: Pairs per step.
    learning_rate: The peak; linear warm-up, cosine decay to zero.
    warmup: The share of the steps in which the learning rate rises.
    weight_decay: On matrices only.
    seed: Of everything random.
    pacs: A folder in DomainBed's layout for zero-shot accuracy.
    out: The folder to write; it must not exist, or be empty.
    results: The file that the run's line is appended to.
    checkpoint: A folder to save the run in. Given again, the run goes on from
      there; SIGTERM saves it and stops it.
    save_every: Steps between two checkpoints.
  """

  data: sources.Source
  vit: pathlib.Path | None = None
  locked: bool = True
  mean: tuple[float, float, float] = clip.HALF
  std: tuple[float, float, float] = clip.HALF
  image_size: int = 64
  vision: ImageTower = dataclasses.field(default_factory=ImageTower)
  text: TextTower = dataclasses.field(default_factory=TextTower)
  dim: int = 192
  held_out: int = 1000
  flips: bool = True
  steps: int = 300
  batch_size: int = 256
  learning_rate: float = 1e-3
  warmup: float = 0.1
  weight_decay: float = 0.1
  seed: int = 0
  pacs: pathlib.Path | None = None
  out: pathlib.Path = pathlib.Path("runs/clip")
  results: pathlib.Path = pathlib.Path("runs/pretrain_clip.jsonl")
  checkpoint: pathlib.Path | None = None
  save_every: int = 100


# What a number does not depend on, and the seed.
_KEPT_APART = ("seed", "out", "results", "checkpoint", "save_every")


def check(config: Config) -> None:
  """Finds what can be found wrong before anything is read.

  Raises:
    ValueError: If the folder to write exists and is not empty, or a setting is
      out of range.
  """
  if config.out.exists() and (
    not config.out.is_dir() or any(config.out.iterdir())
  ):
    raise ValueError(
      f"--out {config.out} exists and is not an empty folder: nothing is"
      " overwritten, name another."
    )
  check_results(config.results)
  check_writable("out", config.out.absolute().parent)
  if config.checkpoint is not None:
    run_folders.check(config.checkpoint, (config.out, config.results))
  if config.locked and config.vit is None:
    raise ValueError(
      "a locked image tower must be a pretrained one: give --vit, or"
      " --no-locked to train one from scratch."
    )
  if config.save_every < 1:
    raise ValueError(f"save_every must be at least 1, got {config.save_every}.")
  Schedule(config.steps, config.warmup)  # refuses what is out of range


def pretrain(
  config: Config, train: CaptionSet, stop: Callable[[int], bool]
) -> tuple[clip.CLIP, tokenizers.Tokenizer, records.Record]:
  """Trains a tokenizer and a CLIP on captioned images.

  Args:
    config: The run.
    train: What to train on.
    stop: Whether to save and stop after a number of steps.

  Returns:
    The model, the tokenizer, and what it took.
  """
  if config.checkpoint is not None:
    run_folders.claim(config.checkpoint, (config.out, config.results))
  tokenizer = tokenization.train(train.texts(), size=config.text.vocabulary)
  model = small_clip.make_model(
    tokenizer,
    vit=config.vit,
    image_size=config.image_size,
    vision=config.vision,
    text=config.text,
    dim=config.dim,
    seed=config.seed,
  )
  pairs = Pairs(
    train.images,
    tokenization.encode(tokenizer, train.texts(), length=config.text.context),
    train.owners(),
  )
  pairs.check_batch_size(config.batch_size)
  embed = contrastive.embed_pixels(config.mean, config.std)
  began = time.perf_counter()
  if config.locked:
    features = locked_features(config, model.vision, train.images)
    pairs = dataclasses.replace(pairs, images=features)
    embed = contrastive.embed_features
  features_at = time.perf_counter()
  batches = pairs.batches(batch_size=config.batch_size, seed=config.seed)
  optimizer = contrastive.make_optimizer(
    config.learning_rate,
    steps=config.steps,
    warmup=round(config.warmup * config.steps),
    decay=config.weight_decay,
  )
  with contextlib.ExitStack() as stack:
    kept = None
    if config.checkpoint is not None:
      run = described(config) | {"seed": config.seed}
      kept = stack.enter_context(
        Checkpoints(config.checkpoint / "run", config=run)
      )
    trained, losses = contrastive.fit(
      model,
      lambda start: stream(batches, start, config.steps),
      optimizer,
      steps=config.steps,
      embed=embed,
      locked=config.locked,
      checkpoints=kept,
      save_every=config.save_every,
      stop=stop,
    )
  took = {
    "text_parameters": small_clip.parameters(model.text),
    "parameters": small_clip.parameters(model),
    "images": len(train),
    "captions": len(train.texts()),
    "losses": [round(float(loss), 4) for loss in losses],
    "seconds": {
      "features": round(features_at - began, 1),
      "fit": round(time.perf_counter() - features_at, 1),
    },
  }
  return trained, tokenizer, took


def locked_features(
  config: Config, tower: clip.ViT, images: ImageSet
) -> Float[np.ndarray, "n views width"]:
  """The locked tower's features, computed once, even if the run is resumed."""
  compute = functools.partial(
    embeddings.tower_features,
    tower,
    images,
    mean=config.mean,
    std=config.std,
    flips=config.flips,
  )
  if config.checkpoint is None:
    return compute()
  # Of this run and no other, whatever else the folder was used for.
  run = json.dumps([described(config), config.seed], sort_keys=True)
  digest = hashlib.sha256(run.encode()).hexdigest()[:16]
  path = config.checkpoint / f"features_{digest}.safetensors"
  if not path.exists():
    path.parent.mkdir(parents=True, exist_ok=True)
    weights.save({"features": compute()}, path)
  return weights.Files([path])["features"]


@contextlib.contextmanager
def appearing(folder: pathlib.Path) -> Iterator[pathlib.Path]:
  """Yields a folder to fill, which gets its name at the end, if all goes well.

  Raises:
    OSError: If there is a folder of that name by then, and files in it.
  """
  folder = folder.absolute()
  temporary = temporary_beside(folder)
  temporary.mkdir(parents=True)
  try:
    yield temporary
    for path in (*temporary.rglob("*"), temporary):
      synced(path)
    os.rename(temporary, folder)
  finally:
    shutil.rmtree(temporary, ignore_errors=True)


def described(config: Config) -> records.Record:
  """What was run, as JSON: all that numbers depend on but for the seed."""
  kind = type(config.data).__name__.lower()
  found: records.Record = records.plain(config)
  found["data"] = {"kind": kind, **found["data"]}
  for name in _KEPT_APART:
    del found[name]
  return found


def run(
  config: Config,
  stop: Callable[[int], bool] = lambda step: False,
  *,
  command: str = "",
) -> records.Record:
  """Pretrains, writes the folder and evaluates what was written.

  Args:
    config: The run.
    stop: Whether to save and stop after a number of steps.
    command: How it was called, for the line.

  Returns:
    The line for the results file.
  """
  check(config)
  view = View(config.image_size)
  everything = config.data.open(view)
  train, held_out = everything.split(config.held_out, seed=config.seed)
  model, tokenizer, took = pretrain(config, train, stop)
  with appearing(config.out) as folder:
    clip.save_pretrained(model, folder)
    clip.save_preprocessing(
      folder, preprocessing.of_view(view, config.mean, config.std)
    )
    tokenizer.save(str(folder / "tokenizer.json"))
    found: records.Record = {
      "retrieval": embeddings.retrieval(folder, held_out)
    }
    if config.pacs is not None:
      found["zero_shot"] = zero_shot.accuracy(folder, config.pacs)
    record = {
      "command": command,
      "config": described(config),
      "templates": list(zero_shot.TEMPLATES),
      "seed": config.seed,
      **records.environment(),
      "metrics": found,
      **took,
    }
    (folder / "pretraining.json").write_text(json.dumps(record, indent=2))
  return record


def table(record: records.Record) -> rich.table.Table:
  """Recalls and accuracies, in percent."""
  view = rich.table.Table(title=f"seed {record['seed']} (%)")
  view.add_column("")
  view.add_column("", justify="right")
  for way, found in record["metrics"]["retrieval"].items():
    for k, share in found.items():
      if k != "median_rank":
        view.add_row(f"{way.replace('_', ' ')}, R@{k}", f"{100 * share:.1f}")
  view.add_section()
  for domain, found in record["metrics"].get("zero_shot", {}).items():
    view.add_row(escape(f"zero-shot, {domain}"), f"{100 * found['top1']:.1f}")
  return view


def called(arguments: Sequence[str]) -> str:
  """How the program was called; of paths, their name (see `records.plain`)."""
  names = [pathlib.PurePath(a).name if os.sep in a else a for a in arguments]
  return shlex.join(
    ["python", "-m", "experiments.pretraining.pretrain_clip", *names]
  )


def main(config: Config) -> None:
  """Runs one configuration, shows the table and appends the line."""
  try:
    with stop_on_sigterm(saves=config.checkpoint is not None) as stop:
      record = run(config, stop, command=called(sys.argv[1:]))
    records.append(config.results, record)
    rich.print(table(record))
    print(f"wrote {config.out} and {config.results}")
  except Stopped as stopped:
    print(stopped)
    sys.exit(stopped.STATUS)
  except command_line.WRONG_INPUT as error:
    sys.exit(f"error: {error}")  # what the user gave is wrong, not the program


def parse(arguments: Sequence[str] | None = None) -> Config:
  """Reads the command line; the kinds of data are its subcommands."""
  return command_line.parse(
    Config,
    args=arguments,
    prog="python -m experiments.pretraining.pretrain_clip",
    description=__doc__,
    config=(
      tyro.conf.CascadeSubcommandArgs,
      tyro.conf.OmitSubcommandPrefixes,
    ),
  )


if __name__ == "__main__":
  main(parse())
