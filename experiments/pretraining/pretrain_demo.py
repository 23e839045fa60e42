"""Pretrains the demo's CLIP on rendered digits and writes its folder.

  python -m experiments.pretraining.pretrain_demo

A CLIP of 0.58 M parameters reads 28x28 images in 16 patches and captions of at
most 16 words. It is trained from scratch with CLIP's symmetric contrastive
loss on images that `experiments.data.rendered_digits` makes, and saved as an
ordinary Hugging Face folder with float16 weights. No scanned digit is
trained on, but the renderer was designed with an eye on the training scans: a
confusion table of theirs is why `experiments.data.handwriting` exists.
"""

import dataclasses
import itertools
import pathlib
import time
from collections.abc import Iterator

import numpy as np
import rich
import rich.table
import tokenizers
from flax import nnx
from jaxtyping import Int, UInt8
from rich import progress

from experiments import command_line
from experiments.data import rendered_digits, scanned_digits, shifts
from experiments.data.split import Split
from experiments.models import evaluation
from experiments.pretraining import contrastive
from experiments.tasks import digits
from gmixout_jax import clip

CONTEXT = 16  # the longest caption has 12 words, begin and end not counted


@dataclasses.dataclass(frozen=True)
class Config:
  """How the demo's CLIP is pretrained.

  Attributes:
    steps: Optimizer steps.
    clean_steps: The first of them, which see only the clean half of the images.
      Started on everything, the towers agree on colours and stay blind to
      digits for thousands of steps; started like this, they read within 100.
    batch: Images per step, a multiple of ten: whole groups of the ten digits.
    images: Rendered images, drawn from again and again; a multiple of ten.
    rate: Peak learning rate, after a linear warm-up and before a cosine decay
      to zero.
    decay: Weight decay, on matrices only.
    seed: Of the data, the weights and the order.
    out: The folder to write.
  """

  steps: int = 2000
  clean_steps: int = 500
  batch: int = 120
  images: int = 30_000
  rate: float = 1.2e-3
  decay: float = 0.1
  seed: int = 0
  out: pathlib.Path = digits.FOLDER


def make_tokenizer() -> tokenizers.Tokenizer:
  """One token per word of the captions, with begin, end and padding."""
  special = ("<|pad|>", "<|unknown|>", "<|startoftext|>", "<|endoftext|>")
  words = (*special, *rendered_digits.vocabulary())
  ids = {word: number for number, word in enumerate(words)}
  pad, unknown, begin, end = special
  tokenizer = tokenizers.Tokenizer(
    tokenizers.models.WordLevel(ids, unk_token=unknown)
  )
  tokenizer.normalizer = tokenizers.normalizers.Lowercase()
  tokenizer.pre_tokenizer = tokenizers.pre_tokenizers.Whitespace()
  tokenizer.post_processor = tokenizers.processors.TemplateProcessing(
    single=f"{begin} $A {end}",
    special_tokens=[(begin, ids[begin]), (end, ids[end])],
  )
  tokenizer.enable_padding(length=CONTEXT, pad_id=ids[pad], pad_token=pad)
  return tokenizer


def make_config(tokenizer: tokenizers.Tokenizer) -> clip.CLIPConfig:
  """The two towers; patches of 7 pixels keep a fine-tuning step at 0.1 s."""
  ids = tokenizer.get_vocab()
  return clip.CLIPConfig(
    vision=clip.VisionConfig(
      image_size=rendered_digits.SIZE,
      patch_size=7,
      width=96,
      depth=4,
      heads=3,
      mlp_width=384,
    ),
    text=clip.TextConfig(
      vocab_size=len(ids),
      context_length=CONTEXT,
      bos_token_id=ids["<|startoftext|>"],
      eos_token_id=ids["<|endoftext|>"],
      pad_token_id=ids["<|pad|>"],
      width=64,
      depth=2,
      heads=2,
      mlp_width=256,
    ),
    projection_dim=64,
  )


def pretrain(
  config: Config,
  images: UInt8[np.ndarray, "n height width 3"],
  token_ids: Int[np.ndarray, "n length"],
  model: clip.CLIP,
) -> clip.CLIP:
  """Trains a model on images and their captions.

  Args:
    config: The recipe.
    images: As `rendered_digits.render` returns them for 0 to n − 1.
    token_ids: Of their captions.
    model: Fresh; it is not changed.

  Returns:
    The trained model.
  """
  optimizer = contrastive.make_optimizer(
    config.rate,
    steps=config.steps,
    warmup=min(100, config.steps // 5),
    decay=config.decay,
  )
  model, _ = contrastive.fit(
    model,
    lambda start: itertools.islice(
      batches(config, images, token_ids), start, None
    ),
    optimizer,
    steps=config.steps,
    embed=contrastive.embed_pixels(clip.CLIP_MEAN, clip.CLIP_STD),
  )
  return model


def batches(
  config: Config,
  images: UInt8[np.ndarray, "n height width 3"],
  token_ids: Int[np.ndarray, "n length"],
) -> Iterator[contrastive.Batch]:
  """Whole groups of ten digits; at first clean ones only."""
  rng = np.random.default_rng(config.seed)
  clean = np.arange(0, len(images) // 10, 2)  # groups, see `render`
  every = np.arange(len(images) // 10)
  for number in itertools.count():
    pool = clean if number < config.clean_steps else every
    groups = rng.choice(pool, config.batch // 10, replace=False)
    rows = (10 * groups[:, None] + np.arange(10)).ravel()
    yield {"image": images[rows], "tokens": token_ids[rows]}


def report(folder: pathlib.Path) -> rich.table.Table:
  """Zero-shot accuracy of what was saved, on everything there is."""
  model = digits.zero_shot_classifier(folder)
  test = scanned_digits.load()["test"]
  images, labels, _ = rendered_digits.render(seed=1, indices=range(1000))
  held_out = Split(images, labels, rendered_digits.NAMES)
  sets = {"rendered, held out": held_out, "scans": test}
  view = rich.table.Table("set", "zero-shot accuracy (%)")
  for name, split in (sets | shifts.out_of_distribution(test)).items():
    accuracy = evaluation.accuracy(model, split, batch_size=256)
    view.add_row(name, f"{100 * accuracy:.1f}")
  return view


def main(config: Config) -> None:
  """Renders, trains, writes the folder and evaluates what was written."""
  start = time.perf_counter()
  tokenizer = make_tokenizer()
  images, _, captions = rendered_digits.render(
    config.seed, progress.track(range(config.images), "render  ")
  )
  token_ids = np.asarray([e.ids for e in tokenizer.encode_batch(captions)])
  model = clip.CLIP(make_config(tokenizer), rngs=nnx.Rngs(config.seed))
  model = pretrain(config, images, token_ids, model)
  config.out.mkdir(parents=True, exist_ok=True)
  tokenizer.save(str(config.out / "tokenizer.json"))
  prepared = clip.Preprocessing(
    clip.CLIP_MEAN,
    clip.CLIP_STD,
    model.config.vision.image_size,
    interpolation="bicubic",
  )
  clip.save(model, config.out, preprocessing=prepared, dtype="float16")
  seconds = time.perf_counter() - start
  rich.print(
    report(config.out), f"wrote {config.out.name} after {seconds:.0f} s"
  )


if __name__ == "__main__":
  with command_line.typed_errors():
    main(command_line.parse(Config, description=__doc__))
