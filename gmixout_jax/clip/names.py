"""What each of our parameters is called, and how it lies, in other files."""

import dataclasses
import re
from collections.abc import Callable, Iterable, Mapping

import numpy as np

Shape = tuple[int, ...]
Rules = tuple[tuple[str, str], ...]


@dataclasses.dataclass(frozen=True)
class Source:
  """Where a parameter lives in a file.

  Attributes:
    name: The tensor's name there.
    axes: Our axes in terms of the tensor's, as for `np.transpose`.
    lead: Axes of size one that the tensor has in front.
    part: Which part of the tensor's first axis this is, of how many (query,
      key and value are often one tensor), or None for all of it.
  """

  name: str
  axes: tuple[int, ...]
  lead: int = 0
  part: tuple[int, int] | None = None

  def file_shape(self, shape: Shape) -> Shape:
    """The tensor's shape in the file, from our parameter's."""
    found = tuple(shape[i] for i in np.argsort(self.axes))
    if self.part is not None:
      found = (self.part[1] * found[0], *found[1:])
    return (1,) * self.lead + found

  def read(self, tensor: np.ndarray) -> np.ndarray:
    """Our parameter, from the file's tensor."""
    tensor = tensor.reshape(tensor.shape[self.lead :])
    if self.part is not None:
      index, count = self.part
      tensor = np.split(tensor, count)[index]
    return tensor.transpose(self.axes)

  def write(self, value: np.ndarray) -> np.ndarray:
    """Inverse of `read`, up to joining the parts."""
    value = value.transpose(np.argsort(self.axes))
    return value.reshape((1,) * self.lead + value.shape)


NameMap = Callable[[str, Shape], Source]


@dataclasses.dataclass(frozen=True)
class Naming:
  """How a library calls the parameters, and how its tensors lie.

  Attributes:
    rules: Patterns and replacements, applied in turn to our path.
    lead: Axes of size one in front of the tensors, by our path's pattern.
    fused: Which of our paths are parts of one tensor, by pattern: the part's
      number and how many there are.
    as_ours: Kernels that lie as ours do, [in, out], by our path's pattern;
      PyTorch's layers have [out, in].
  """

  rules: Rules
  lead: Mapping[str, int] = dataclasses.field(default_factory=dict)
  fused: Mapping[str, tuple[int, int]] = dataclasses.field(default_factory=dict)
  as_ours: str = r"$^"

  def __call__(self, path: str, shape: Shape) -> Source:
    """Where a parameter lives.

    Args:
      path: Of the parameter, joined by "/".
      shape: Its shape.
    """
    axes = tuple(range(len(shape)))
    if path.endswith("/kernel") and not re.search(self.as_ours, path):
      # PyTorch keeps linear kernels as [out, in] and convolutions as OIHW.
      axes = {2: (1, 0), 4: (2, 3, 1, 0)}[len(shape)]
    return Source(
      _rename(path, self.rules),
      axes,
      lead=_first(self.lead, path) or 0,
      part=_first(self.fused, path),
    )

  def within(self, prefix: str) -> "Naming":
    """The same under a prefix, such as "vit."."""
    return dataclasses.replace(
      self, rules=(*self.rules, (r"^", prefix.replace(".", "/")))
    )


def _first[Value](values: Mapping[str, Value], path: str) -> Value | None:
  found = (v for pattern, v in values.items() if re.search(pattern, path))
  return next(found, None)


def _rename(path: str, rules: Iterable[tuple[str, str]]) -> str:
  for pattern, replacement in rules:
    path = re.sub(pattern, replacement, path)
  return path.replace("/", ".")


_QKV = {
  r"/attention/query/": (0, 3),
  r"/attention/key/": (1, 3),
  r"/attention/value/": (2, 3),
}
_WEIGHT = (r"/(kernel|scale|embedding)$", r"/weight")

# A bare position_embedding is an Embedding there.
HUGGING_FACE_CLIP = Naming(
  (
    (r"^(vision|text)/", r"\1_model/"),
    (r"^vision_projection/", r"visual_projection/"),
    (
      r"_model/((patch|class|position|token)_embedding)",
      r"_model/embeddings/\1",
    ),
    (r"/position_embedding$", r"/position_embedding/weight"),
    (r"_model/blocks/", r"_model/encoder/layers/"),
    (r"/attention/(q|k|v)[a-z]+/", r"/self_attn/\1_proj/"),
    (r"/attention/out/", r"/self_attn/out_proj/"),
    (r"/norm([12])/", r"/layer_norm\1/"),
    (r"^vision_model/pre_norm/", r"vision_model/pre_layrnorm/"),  # sic
    (r"^vision_model/norm/", r"vision_model/post_layernorm/"),
    (r"^text_model/norm/", r"text_model/final_layer_norm/"),
    _WEIGHT,
  )
)
"""Of `CLIP`, in Hugging Face's CLIPModel."""

SIGLIP = Naming(
  (
    (r"^vision/pool/(query|key|value)/", r"vision/head/attention/in_proj_"),
    (r"^vision/pool/out/", r"vision/head/attention/out_proj/"),
    (r"^vision/pool/norm/", r"vision/head/layernorm/"),
    (r"^vision/pool/", r"vision/head/"),
    (r"in_proj_kernel$", r"in_proj_weight"),
    (r"^text_projection/", r"text_model/head/"),
    *HUGGING_FACE_CLIP.rules,
  ),
  lead={r"^vision/pool/probe$": 2, r"^logit_(scale|bias)$": 1},
  fused={
    r"^vision/pool/query/": (0, 3),
    r"^vision/pool/key/": (1, 3),
    r"^vision/pool/value/": (2, 3),
  },
)
"""Of `CLIP`, in Hugging Face's SiglipModel."""

TIMM = Naming(
  (
    (r"^patch_embedding/", r"patch_embed/proj/"),
    (r"^class_embedding$", r"cls_token"),
    (r"^registers$", r"reg_token"),
    (r"^position_embedding$", r"pos_embed"),
    (r"^pre_norm/", r"norm_pre/"),
    (r"/attention/(query|key|value)/", r"/attn/qkv/"),
    (r"/attention/(q|k)[a-z]+_norm/", r"/attn/\1_norm/"),
    (r"/attention/out/", r"/attn/proj/"),
    (r"/scale([12])/scale$", r"/ls\1/gamma"),
    (r"^pool/probe$", r"attn_pool/latent"),
    (r"^pool/query/", r"attn_pool/q/"),
    (r"^pool/(key|value)/", r"attn_pool/kv/"),
    (r"^pool/out/", r"attn_pool/proj/"),
    (r"^pool/", r"attn_pool/"),
    (r"/(kernel|scale)$", r"/weight"),
  ),
  lead={
    r"^(class_embedding|pool/probe)$": 2,
    r"^(position_embedding|registers)$": 1,
  },
  fused=_QKV | {r"^pool/key/": (0, 2), r"^pool/value/": (1, 2)},
)
"""Of `ViT`, in timm's VisionTransformer with its norm before pooling."""

TIMM_NORM_POOLED = dataclasses.replace(
  TIMM, rules=((r"^norm/", r"fc_norm/"), *TIMM.rules)
)
"""The same with its norm after pooling."""

_HUGGING_FACE_TOKENS: Rules = (
  (r"^patch_embedding/", r"embeddings/patch_embeddings/projection/"),
  (r"^class_embedding$", r"embeddings/cls_token"),
  (r"^registers$", r"embeddings/register_tokens"),
  (r"^position_embedding$", r"embeddings/position_embeddings"),
  (r"^blocks/", r"encoder/layer/"),
  (r"/attention/(query|key|value)/", r"/attention/attention/\1/"),
  (r"/attention/out/", r"/attention/output/dense/"),
  (r"^norm/", r"layernorm/"),
)
_HUGGING_FACE_LEAD = {
  r"^class_embedding$": 2,
  r"^(position_embedding|registers)$": 1,
}

HUGGING_FACE_VIT = Naming(
  (
    *_HUGGING_FACE_TOKENS,
    (r"/norm1/", r"/layernorm_before/"),
    (r"/norm2/", r"/layernorm_after/"),
    (r"/mlp/fc1/", r"/intermediate/dense/"),
    (r"/mlp/fc2/", r"/output/dense/"),
    _WEIGHT,
  ),
  lead=_HUGGING_FACE_LEAD,
)
"""Of `ViT` without its head, in Hugging Face's ViTModel."""

DINOV2 = Naming(
  (
    *_HUGGING_FACE_TOKENS,
    (r"/scale([12])/scale$", r"/layer_scale\1/lambda1"),
    _WEIGHT,
  ),
  lead=_HUGGING_FACE_LEAD,
)
"""Of `ViT` without its head, in Hugging Face's Dinov2Model."""

DINOV2_SWIGLU = dataclasses.replace(
  DINOV2,
  rules=(
    (r"/mlp/fc1/", r"/mlp/weights_in/"),
    (r"/mlp/fc2/", r"/mlp/weights_out/"),
    *DINOV2.rules,
  ),
)
"""The same with a SwiGLU MLP."""

OPEN_CLIP = Naming(
  (
    (r"/blocks/", r"/transformer/resblocks/"),
    (r"/attention/(query|key|value)/", r"/attn/in_proj_"),
    (r"/attention/out/", r"/attn/out_proj/"),
    (r"in_proj_kernel$", r"in_proj_weight"),
    (r"/norm([12])/", r"/ln_\1/"),
    (r"/scale([12])/scale$", r"/ls_\1/gamma"),
    (r"/mlp/fc1/", r"/mlp/c_fc/"),
    (r"/mlp/fc2/", r"/mlp/c_proj/"),
    (r"^vision/patch_embedding/", r"visual/conv1/"),
    (r"^vision/pre_norm/", r"visual/ln_pre/"),
    (r"^vision/norm/", r"visual/ln_post/"),
    (r"^vision_projection/kernel$", r"visual/proj"),
    (r"^vision/", r"visual/"),
    (r"^text/norm/", r"text/ln_final/"),
    (r"^text_projection/kernel$", r"text/text_projection"),
    (r"^text_projection/bias$", r"text/text_projection/bias"),
    (r"/position_embedding$", r"/positional_embedding"),
    (r"^text/", r""),
    _WEIGHT,
  ),
  fused=_QKV,
  as_ours=r"^(vision|text)_projection/",
)
"""Of `CLIP`, in open_clip."""
