"""CLIP and vision transformers in Flax NNX, with pretrained weights."""

from gmixout_jax.checkpoint.files import CheckpointError
from gmixout_jax.clip.class_names import load_class_names
from gmixout_jax.clip.config import CLIPConfig, TextConfig, VisionConfig
from gmixout_jax.clip.convert import from_pretrained, save_pretrained
from gmixout_jax.clip.images import (
  CLIP_MEAN,
  CLIP_STD,
  HALF,
  IMAGENET_MEAN,
  IMAGENET_STD,
  preprocess,
)
from gmixout_jax.clip.loading import load
from gmixout_jax.clip.model import CLIP
from gmixout_jax.clip.preprocessing import (
  load_normalization,
  load_preprocessing,
  save_normalization,
  save_preprocessing,
)
from gmixout_jax.clip.preprocessing_configs import Preprocessing
from gmixout_jax.clip.saving import save
from gmixout_jax.clip.text import TextTransformer
from gmixout_jax.clip.timm import vit_from_safetensors, vit_to_safetensors
from gmixout_jax.clip.tokenizer import Tokenizer, load_tokenizer
from gmixout_jax.clip.vision import ViT, resize_positions
from gmixout_jax.clip.zero_shot import (
  PHOTO_TEMPLATES,
  STYLE_TEMPLATES,
  zero_shot_head,
)

__all__ = [
  "CLIP",
  "CLIP_MEAN",
  "CLIP_STD",
  "HALF",
  "IMAGENET_MEAN",
  "IMAGENET_STD",
  "PHOTO_TEMPLATES",
  "STYLE_TEMPLATES",
  "CLIPConfig",
  "CheckpointError",
  "Preprocessing",
  "TextConfig",
  "TextTransformer",
  "Tokenizer",
  "ViT",
  "VisionConfig",
  "from_pretrained",
  "load",
  "load_class_names",
  "load_normalization",
  "load_preprocessing",
  "load_tokenizer",
  "preprocess",
  "resize_positions",
  "save",
  "save_normalization",
  "save_preprocessing",
  "save_pretrained",
  "vit_from_safetensors",
  "vit_to_safetensors",
  "zero_shot_head",
]
