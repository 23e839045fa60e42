"""CLIP and vision transformers in Flax NNX, with pretrained weights."""

from gmixout_jax.clip.config import CLIPConfig as CLIPConfig
from gmixout_jax.clip.config import TextConfig as TextConfig
from gmixout_jax.clip.config import VisionConfig as VisionConfig
from gmixout_jax.clip.convert import from_pretrained as from_pretrained
from gmixout_jax.clip.convert import save_pretrained as save_pretrained
from gmixout_jax.clip.images import CLIP_MEAN as CLIP_MEAN
from gmixout_jax.clip.images import CLIP_STD as CLIP_STD
from gmixout_jax.clip.images import HALF as HALF
from gmixout_jax.clip.images import IMAGENET_MEAN as IMAGENET_MEAN
from gmixout_jax.clip.images import IMAGENET_STD as IMAGENET_STD
from gmixout_jax.clip.images import load_normalization as load_normalization
from gmixout_jax.clip.images import preprocess as preprocess
from gmixout_jax.clip.images import save_normalization as save_normalization
from gmixout_jax.clip.model import CLIP as CLIP
from gmixout_jax.clip.text import TextTransformer as TextTransformer
from gmixout_jax.clip.timm import vit_from_safetensors as vit_from_safetensors
from gmixout_jax.clip.timm import vit_to_safetensors as vit_to_safetensors
from gmixout_jax.clip.tokenizer import Tokenizer as Tokenizer
from gmixout_jax.clip.tokenizer import load_tokenizer as load_tokenizer
from gmixout_jax.clip.vision import ViT as ViT
from gmixout_jax.clip.vision import resize_positions as resize_positions
from gmixout_jax.clip.weights import CheckpointError as CheckpointError
from gmixout_jax.clip.zero_shot import PHOTO_TEMPLATES as PHOTO_TEMPLATES
from gmixout_jax.clip.zero_shot import STYLE_TEMPLATES as STYLE_TEMPLATES
from gmixout_jax.clip.zero_shot import zero_shot_head as zero_shot_head
