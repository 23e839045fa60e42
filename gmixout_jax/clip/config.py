"""The architectures of the towers: one frozen dataclass each."""

import dataclasses
import math
from typing import Any, Literal, Self, get_args

import jax.numpy as jnp
from jax.typing import DTypeLike

from gmixout_jax.clip import attention as attention_lib

Activation = Literal["quick_gelu", "gelu", "gelu_tanh"]
Mlp = Literal["plain", "swiglu"]
Pool = Literal["class", "mean", "max", "attention"]
Positions = Literal["all", "class", "patches"]
TextPool = Literal["end", "last"]

# Configs written before Hugging Face stored the true id all say 2, whatever
# the tokenizer uses; they mean "pool where the token id is largest".
LEGACY_EOS = 2


MOST: dict[str, int] = {"image_size": 2**14, "context_length": 2**16}
"""What no tower has had yet. Beyond it positions alone fill a memory."""

_LARGEST: int = 2**31 - 1

HOW = ("dtype", "param_dtype", "remat", "attention")
"""Fields of a tower that are no part of the model, but of how it is run."""


def one_side(name: str, size: Any) -> int:
  """The side of a square, of a config that has a number or one for each side.

  Args:
    name: Of the field, for the message.
    size: Its value.

  Raises:
    ValueError: It is no square.
  """
  sides = size if isinstance(size, list | tuple) else [size]
  known = all(isinstance(side, int) for side in sides)
  if not known or len(set(sides)) != 1:
    raise ValueError(f"{name} must be one number of pixels, got {size!r}.")
  return sides[0]


def _check_sizes(config: Any, *names: str) -> None:
  for name in names:
    value = getattr(config, name)
    if not isinstance(value, int) or isinstance(value, bool) or value < 1:
      raise ValueError(f"{name} must be a positive integer, got {value!r}.")
    if value > (most := MOST.get(name, _LARGEST)):
      raise ValueError(f"{name} must be at most {most}, got {value!r}.")


def _check_choice(config: Any, name: str, choices: Any) -> None:
  if (value := getattr(config, name)) not in get_args(choices):
    raise ValueError(
      f"{name} must be one of {get_args(choices)}, got {value!r}."
    )


def _check_flags(config: Any, *names: str) -> None:
  for name in names:
    if not isinstance(value := getattr(config, name), bool):
      raise ValueError(f"{name} must be true or false, got {value!r}.")


@dataclasses.dataclass(frozen=True, kw_only=True)
class TowerConfig:
  """A stack of pre-LN transformer blocks, whatever it reads.

  Attributes:
    width: Features per token; a multiple of `heads`.
    depth: Number of blocks.
    heads: Attention heads per block.
    mlp_width: Hidden features of each block's MLP.
    activation: "quick_gelu" (x σ(1.702 x), OpenAI's CLIP), "gelu" (exact) or
      "gelu_tanh" (its approximation by tanh, SigLIP). "swiglu" has its own.
    eps: Added to the variance in every LayerNorm.
    mlp: "plain", or "swiglu": fc2(silu(gate) · value), with gate and value the
      halves of fc1's output (DINOv2's largest).
    qkv_bias: Whether queries, keys and values have biases.
    qk_norm: Whether a LayerNorm per head is applied to queries and keys.
    layer_scale: Initial value of the learned factors on both branches of a
      block (LayerScale); None for no factors.
    dtype: The type of the computation. Statistics of LayerNorm, softmax and
      logits are in at least float32 whatever it is.
    param_dtype: The type the parameters are stored in.
    remat: Recompute each block in the backward pass instead of keeping its
      activations.
    attention: "xla", which runs everywhere, or "cudnn", which keeps no matrix
      of scores: on NVIDIA GPUs since Ampere, in bfloat16 or float16.
  """

  width: int = 768
  depth: int = 12
  heads: int = 12
  mlp_width: int = 3072
  activation: Activation = "quick_gelu"
  eps: float = 1e-5
  mlp: Mlp = "plain"
  qkv_bias: bool = True
  qk_norm: bool = False
  layer_scale: float | None = None
  dtype: DTypeLike = "float32"
  param_dtype: DTypeLike = "float32"
  remat: bool = False
  attention: attention_lib.Implementation = "xla"

  def __post_init__(self):
    _check_sizes(self, "width", "depth", "heads", "mlp_width")
    if self.width % self.heads:
      raise ValueError(
        f"width must be divisible by heads, got width = {self.width} and "
        f"heads = {self.heads}."
      )
    _check_choice(self, "activation", Activation)
    _check_choice(self, "mlp", Mlp)
    _check_flags(self, "qkv_bias", "qk_norm")
    for name in ("eps", "layer_scale"):
      value = getattr(self, name)
      if value is None and name == "layer_scale":
        continue
      if isinstance(value, bool) or not (
        isinstance(value, (int, float)) and 0 < value < math.inf
      ):
        raise ValueError(f"{name} must be a positive number, got {value!r}.")
    for name in ("dtype", "param_dtype"):
      value = getattr(self, name)
      try:
        floating = jnp.issubdtype(jnp.dtype(value), jnp.floating)
      except TypeError:
        floating = False
      if not floating:
        raise ValueError(f"{name} must be a float type, got {value!r}.")
    attention_lib.check(self.attention, self.dtype, self.width // self.heads)


@dataclasses.dataclass(frozen=True, kw_only=True)
class VisionConfig(TowerConfig):
  """A vision transformer; the defaults are those of CLIP ViT-B/32.

  Attributes:
    image_size: Height and width of the images; a multiple of `patch_size`.
    patch_size: Height and width of a patch.
    channels: Colour channels.
    pre_norm: Whether a LayerNorm precedes the first block (CLIP).
    patch_bias: Whether the patch convolution has a bias (not in CLIP).
    class_token: Whether a learned token comes before the patches.
    registers: How many register tokens come after it; the output ignores them.
    positions: Which tokens have position embeddings: "all", "class" (the class
      token and the patches) or "patches". Others are put in front afterwards.
    pool: How tokens are pooled: "class" token, "mean" or "max" of the patches,
      or "attention" of a learned query over them (SigLIP).
    norm_pooled: Whether the final norm comes after pooling, and not before.
    num_classes: Outputs of the linear head; 0 means no head.
  """

  image_size: int = 224
  patch_size: int = 32
  channels: int = 3
  pre_norm: bool = True
  patch_bias: bool = False
  class_token: bool = True
  registers: int = 0
  positions: Positions = "all"
  pool: Pool = "class"
  norm_pooled: bool = False
  num_classes: int = 0

  def __post_init__(self):
    super().__post_init__()
    _check_sizes(self, "image_size", "patch_size", "channels")
    if self.image_size % self.patch_size:
      raise ValueError(
        f"image_size must be divisible by patch_size, got image_size = "
        f"{self.image_size} and patch_size = {self.patch_size}."
      )
    for name in ("num_classes", "registers"):
      value = getattr(self, name)
      if not isinstance(value, int) or isinstance(value, bool) or value < 0:
        raise ValueError(
          f"{name} must be an integer of at least 0, got {value!r}."
        )
    _check_choice(self, "pool", Pool)
    _check_choice(self, "positions", Positions)
    _check_flags(self, "pre_norm", "patch_bias", "class_token", "norm_pooled")
    if self.pool == "class" and not self.class_token:
      raise ValueError(
        "pool = 'class' needs a class token, and class_token is False: expected"
        " 'mean', 'max' or 'attention'."
      )
    if self.pool == "attention" and self.norm_pooled:
      raise ValueError(
        "norm_pooled must be False where pool is 'attention', whose own norm"
        " comes last."
      )

  @property
  def grid(self) -> int:
    """Patches along a side."""
    return self.image_size // self.patch_size

  @property
  def prefix(self) -> int:
    """Tokens before the patches."""
    return self.class_token + self.registers

  @property
  def placed(self) -> int:
    """How many of these have position embeddings."""
    return {
      "all": self.prefix,
      "class": int(self.class_token),
      "patches": 0,
    }[self.positions]

  @classmethod
  def vit(cls, **fields: Any) -> Self:
    """A plain ViT: patch bias, no first norm, exact GELU, eps 1e-6, a head.

    Args:
      **fields: Any field of the config; they win over these defaults.

    Returns:
      The config.

    Raises:
      ValueError: A value is not allowed.

    Example:
      >>> from gmixout_jax import clip
      >>> config = clip.VisionConfig.vit(width=192, heads=3, num_classes=7)
      >>> config.activation, config.pre_norm
      ('gelu', False)
    """
    plain: dict[str, Any] = dict(
      patch_size=16,
      activation="gelu",
      eps=1e-6,
      pre_norm=False,
      patch_bias=True,
      num_classes=1000,
    )
    return cls(**(plain | fields))


@dataclasses.dataclass(frozen=True, kw_only=True)
class TextConfig(TowerConfig):
  """A text transformer; the defaults are those of CLIP ViT-B/32.

  Attributes:
    vocab_size: Number of token ids.
    context_length: The most tokens a text may have.
    causal: Whether a token sees none that follow it (CLIP, not SigLIP).
    pool: Which token is the text's feature: its "end", or the "last" one,
      padding or not (SigLIP).
    projection_bias: Whether the projection has a bias (SigLIP).
    bos_token_id: Kept for the saved config; the model does not read it.
    eos_token_id: The text is pooled at the first token with this id. 2 is the
      legacy convention: pool at the largest id of the text.
    pad_token_id: Kept for the saved config; the model does not read it.
  """

  width: int = 512
  heads: int = 8
  mlp_width: int = 2048
  vocab_size: int = 49408
  context_length: int = 77
  causal: bool = True
  pool: TextPool = "end"
  projection_bias: bool = False
  bos_token_id: int | None = 49406
  eos_token_id: int = 49407
  pad_token_id: int | None = 1

  def __post_init__(self):
    super().__post_init__()
    _check_sizes(self, "vocab_size", "context_length")
    _check_choice(self, "pool", TextPool)
    _check_flags(self, "causal", "projection_bias")
    if self.pool == "last":
      return  # which reads no id
    eos = self.eos_token_id
    if not isinstance(eos, int) or not 0 <= eos < max(self.vocab_size, 3):
      raise ValueError(
        f"eos_token_id must be {LEGACY_EOS} (pool at the largest id) or an id "
        f"below vocab_size = {self.vocab_size}, got {eos!r}."
      )


@dataclasses.dataclass(frozen=True, kw_only=True)
class CLIPConfig:
  """Two towers and the space they share.

  Attributes:
    vision: The image tower, without a head. CLIP's has `pre_norm` and no patch
      bias; a plain ViT, the other way round, can be one too.
    text: The text tower.
    projection_dim: Size of the embeddings.
    vision_projection: Whether the image features are projected to it, or are
      it (SigLIP).
    logit_scale_init: Initial log of the factor on the cosines; ln(1 / 0.07).
    logit_bias_init: Initial bias on the logits (SigLIP, whose loss is a
      sigmoid's); None for none.
  """

  vision: VisionConfig = VisionConfig()
  text: TextConfig = TextConfig()
  projection_dim: int = 512
  vision_projection: bool = True
  logit_scale_init: float = 2.6592
  logit_bias_init: float | None = None

  def __post_init__(self):
    _check_sizes(self, "projection_dim")
    _check_flags(self, "vision_projection")
    for name in ("logit_scale_init", "logit_bias_init"):
      value = getattr(self, name)
      if value is None and name == "logit_bias_init":
        continue
      if not isinstance(value, (int, float)) or not math.isfinite(value):
        raise ValueError(f"{name} must be a number, got {value!r}.")
    if not self.vision_projection and self.vision.width != self.projection_dim:
      raise ValueError(
        "image features that are not projected must be as wide as"
        f" projection_dim = {self.projection_dim}, got vision.width ="
        f" {self.vision.width}."
      )
    if self.vision.num_classes:
      raise ValueError(
        f"CLIP's image tower has no head: vision.num_classes must be 0, got "
        f"{self.vision.num_classes}."
      )
