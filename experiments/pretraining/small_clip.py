"""A CLIP to pretrain: a given or a fresh image tower, a small text tower."""

import dataclasses
import math
import pathlib

import jax
import tokenizers
from flax import nnx

from experiments.pretraining import tokenization
from gmixout_jax import clip

MOST_TEXT_PARAMETERS = 10_000_000


@dataclasses.dataclass(frozen=True)
class ImageTower:
  """An image tower from scratch; a given ViT has a form of its own.

  Attributes:
    patch_size: Side of a patch, in pixels.
    width: Features per token.
    depth: Blocks.
    heads: Attention heads.
  """

  patch_size: int = 8
  width: int = 128
  depth: int = 4
  heads: int = 4


@dataclasses.dataclass(frozen=True)
class TextTower:
  """The text tower.

  Attributes:
    vocabulary: The most tokens that the tokenizer may know.
    context: The most tokens of a caption, begin and end included.
    width: Features per token.
    depth: Blocks.
    heads: Attention heads.
  """

  vocabulary: int = 4096
  context: int = 20
  width: int = 128
  depth: int = 2
  heads: int = 2


def make_model(
  tokenizer: tokenizers.Tokenizer,
  *,
  vit: pathlib.Path | None,
  image_size: int,
  vision: ImageTower,
  text: TextTower,
  dim: int,
  seed: int,
) -> clip.CLIP:
  """A fresh CLIP, on a given ViT if there is one.

  Args:
    tokenizer: What `experiments.pretraining.tokenization` trained.
    vit: A ViT in safetensors with timm's names, or None.
    image_size: Side of the images; positions of a given ViT are interpolated.
    vision: The image tower, where no ViT is given.
    text: The text tower.
    dim: Of the space that both are projected to.
    seed: Of the weights.

  Raises:
    FileNotFoundError: If there is no such ViT.
    ValueError: If the text tower is too large, or a size is not allowed.
  """
  ids = tokenizer.get_vocab()
  text_config = clip.TextConfig(
    vocab_size=tokenizer.get_vocab_size(),
    context_length=text.context,
    bos_token_id=ids[tokenization.BEGIN],
    eos_token_id=ids[tokenization.END],
    pad_token_id=ids[tokenization.PAD],
    width=text.width,
    depth=text.depth,
    heads=text.heads,
    mlp_width=4 * text.width,
  )
  tower = nnx.eval_shape(
    lambda: clip.TextTransformer(text_config, rngs=nnx.Rngs(0))
  )
  if (size := parameters(tower)) > MOST_TEXT_PARAMETERS:
    raise ValueError(
      f"the text tower has {size:,} parameters: expected at most"
      f" {MOST_TEXT_PARAMETERS:,}; lower --text.width, --text.depth or"
      " --text.vocabulary."
    )
  given = None
  if vit is not None:
    given = clip.vit_from_safetensors(vit, image_size=image_size, num_classes=0)
    vision_config = given.config
  else:
    vision_config = clip.VisionConfig(
      image_size=image_size,
      mlp_width=4 * vision.width,
      **dataclasses.asdict(vision),
    )
  config = clip.CLIPConfig(
    vision=vision_config, text=text_config, projection_dim=dim
  )
  model = clip.CLIP(config, rngs=nnx.Rngs(seed))
  if given is not None:
    model.vision = given
  return model


def parameters(module: nnx.Module) -> int:
  """How many parameters a module has."""
  leaves = jax.tree.leaves(nnx.state(module, nnx.Param))
  return sum(math.prod(leaf.shape) for leaf in leaves)
