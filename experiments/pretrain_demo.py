"""Pretrains the demo's CLIP on rendered digits and writes its folder.

  python -m experiments.pretrain_demo

A CLIP of 0.58 M parameters reads 28x28 images in 16 patches and captions of at
most 16 words. It is trained from scratch with CLIP's symmetric contrastive
loss on images that `experiments.data.rendered_digits` makes, and saved as an
ordinary Hugging Face folder with float16 weights. No scanned digit is
trained on, but the renderer was designed with an eye on the training scans: a
confusion table of theirs is why `experiments.data.handwriting` exists.
"""

import dataclasses
import functools
import pathlib
import time

import jax
import jax.numpy as jnp
import numpy as np
import optax
import rich
import rich.table
import tokenizers
import tyro
from flax import nnx
from jaxtyping import Array, Float, Int, UInt8
from rich import progress

from experiments import demo, evaluate
from experiments.data import rendered_digits, scanned_digits, shifts
from experiments.data.split import Split
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
  out: pathlib.Path = demo.FOLDER


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


def contrastive_loss(
  logits: Float[Array, "batch batch"], token_ids: Int[Array, "batch length"]
) -> Float[Array, ""]:
  """CLIP's loss: each image finds its caption, each caption its image.

  L = −½ mean_i Σ_j T_ij (log softmax(logits[i, :])_j
                          + log softmax(logits[:, i])_j)

  T_ij is 1 / n_i if captions i and j are equal, where n_i counts the captions
  equal to i, and 0 otherwise. With distinct captions T is the identity and
  this is the loss of the paper; but "a photo of the digit seven" occurs
  several times in a batch, and is right each time.
  """
  equal = (token_ids[:, None] == token_ids[None]).all(-1)
  targets = equal / equal.sum(1, keepdims=True)
  cross_entropy = optax.softmax_cross_entropy
  return 0.5 * (
    cross_entropy(logits, targets).mean()
    + cross_entropy(logits.T, targets).mean()
  )


def make_optimizer(config: Config) -> optax.GradientTransformation:
  """AdamW with warm-up and cosine; biases, norms and the scale not decayed."""
  schedule = optax.warmup_cosine_decay_schedule(
    0.0, config.rate, min(100, config.steps // 5), config.steps
  )
  return optax.chain(
    optax.clip_by_global_norm(1.0),
    optax.adamw(
      schedule,
      b2=0.98,
      weight_decay=config.decay,
      mask=functools.partial(jax.tree.map, lambda leaf: leaf.ndim > 1),
    ),
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
  graph, params = nnx.split(model)
  params = jax.tree.map(jnp.copy, params)  # a step gives its inputs away
  optimizer = make_optimizer(config)

  @functools.partial(jax.jit, donate_argnums=(0, 1))
  def train_step(params, state, images, token_ids):
    def loss_fn(params):
      logits = nnx.merge(graph, params)(clip.preprocess(images), token_ids)
      return contrastive_loss(logits, token_ids)

    loss, gradient = jax.value_and_grad(loss_fn)(params)
    updates, state = optimizer.update(gradient, state, params)
    return optax.apply_updates(params, updates), state, loss

  rng = np.random.default_rng(config.seed)
  state = optimizer.init(params)
  clean = np.arange(0, len(images) // 10, 2)  # groups, see `render`
  every = np.arange(len(images) // 10)
  columns = (
    *progress.Progress.get_default_columns(),
    progress.TextColumn("loss {task.fields[loss]:.3f}"),
  )
  with progress.Progress(*columns) as bar:
    task = bar.add_task("pretrain", total=config.steps, loss=float("nan"))
    for number in range(config.steps):
      pool = clean if number < config.clean_steps else every
      groups = rng.choice(pool, config.batch // 10, replace=False)
      rows = (10 * groups[:, None] + np.arange(10)).ravel()
      params, state, loss = train_step(
        params, state, images[rows], token_ids[rows]
      )
      bar.update(task, completed=number + 1, loss=float(loss))
  return nnx.merge(graph, params)


def report(folder: pathlib.Path) -> rich.table.Table:
  """Zero-shot accuracy of what was saved, on everything there is."""
  model = demo.zero_shot_classifier(folder)
  test = scanned_digits.load()["test"]
  images, labels, _ = rendered_digits.render(seed=1, indices=range(1000))
  held_out = Split(images, labels, rendered_digits.NAMES)
  sets = {"rendered, held out": held_out, "scans": test}
  view = rich.table.Table("set", "zero-shot accuracy (%)")
  for name, split in (sets | shifts.out_of_distribution(test)).items():
    accuracy = evaluate.accuracy(model, split, batch_size=256)
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
  clip.save_pretrained(model, config.out, dtype="float16")
  seconds = time.perf_counter() - start
  rich.print(
    report(config.out), f"wrote {config.out.name} after {seconds:.0f} s"
  )


if __name__ == "__main__":
  main(tyro.cli(Config, description=__doc__))
