"""What each of our parameters is called, and how it lies, in other files."""

import dataclasses
import re
from collections.abc import Callable, Iterable

import numpy as np

Shape = tuple[int, ...]


@dataclasses.dataclass(frozen=True)
class Source:
  """Where a parameter lives in a file.

  Attributes:
    name: The tensor's name there.
    axes: Our axes in terms of the tensor's, as for `np.transpose`.
    lead: Axes of size one that the tensor has in front.
    part: Which third of the tensor's first axis this is (the fused qkv of
      timm), or None for all of it.
  """

  name: str
  axes: tuple[int, ...]
  lead: int = 0
  part: int | None = None

  def file_shape(self, shape: Shape) -> Shape:
    """The tensor's shape in the file, from our parameter's."""
    found = tuple(shape[i] for i in np.argsort(self.axes))
    if self.part is not None:
      found = (3 * found[0], *found[1:])
    return (1,) * self.lead + found

  def read(self, tensor: np.ndarray) -> np.ndarray:
    """Our parameter, from the file's tensor."""
    tensor = tensor.reshape(tensor.shape[self.lead :])
    if self.part is not None:
      tensor = np.split(tensor, 3)[self.part]
    return tensor.transpose(self.axes)

  def write(self, value: np.ndarray) -> np.ndarray:
    """Inverse of `read`, up to joining the thirds."""
    value = value.transpose(np.argsort(self.axes))
    return value.reshape((1,) * self.lead + value.shape)


NameMap = Callable[[str, Shape], Source]

# Applied in turn to our path. A bare position_embedding is an Embedding there.
_HUGGING_FACE = (
  (r"^(vision|text)/", r"\1_model/"),
  (r"^vision_projection/", r"visual_projection/"),
  (r"_model/((patch|class|position|token)_embedding)", r"_model/embeddings/\1"),
  (r"/position_embedding$", r"/position_embedding/weight"),
  (r"_model/blocks/", r"_model/encoder/layers/"),
  (r"/attention/(q|k|v)[a-z]+/", r"/self_attn/\1_proj/"),
  (r"/attention/out/", r"/self_attn/out_proj/"),
  (r"/norm([12])/", r"/layer_norm\1/"),
  (r"^vision_model/pre_norm/", r"vision_model/pre_layrnorm/"),  # sic
  (r"^vision_model/norm/", r"vision_model/post_layernorm/"),
  (r"^text_model/norm/", r"text_model/final_layer_norm/"),
  (r"/(kernel|scale|embedding)$", r"/weight"),
)

_TIMM = (
  (r"^patch_embedding/", r"patch_embed/proj/"),
  (r"^class_embedding$", r"cls_token"),
  (r"^position_embedding$", r"pos_embed"),
  (r"^pre_norm/", r"norm_pre/"),
  (r"/attention/(query|key|value)/", r"/attn/qkv/"),
  (r"/attention/out/", r"/attn/proj/"),
  (r"/(kernel|scale)$", r"/weight"),
)


def _rename(path: str, rules: Iterable[tuple[str, str]]) -> str:
  for pattern, replacement in rules:
    path = re.sub(pattern, replacement, path)
  return path.replace("/", ".")


def _axes(path: str, shape: Shape) -> tuple[int, ...]:
  if path.endswith("/kernel"):
    # PyTorch keeps linear kernels as [out, in] and convolutions as OIHW.
    return {2: (1, 0), 4: (2, 3, 1, 0)}[len(shape)]
  return tuple(range(len(shape)))


def hugging_face(path: str, shape: Shape) -> Source:
  """Maps a parameter of `CLIP` to Hugging Face's CLIPModel.

  Args:
    path: The parameter's path, joined by "/".
    shape: Its shape.

  Returns:
    Where it lives.

  Example:
    >>> from gmixout_jax.clip import names
    >>> names.hugging_face("text/blocks/3/mlp/fc1/kernel", (8, 16)).name
    'text_model.encoder.layers.3.mlp.fc1.weight'
  """
  return Source(_rename(path, _HUGGING_FACE), _axes(path, shape))


def timm(path: str, shape: Shape) -> Source:
  """Maps a parameter of `ViT` to timm's VisionTransformer.

  Args:
    path: The parameter's path, joined by "/".
    shape: Its shape.

  Returns:
    Where it lives.

  Example:
    >>> from gmixout_jax.clip import names
    >>> names.timm("blocks/0/attention/key/bias", (8,))
    Source(name='blocks.0.attn.qkv.bias', axes=(0,), lead=0, part=1)
  """
  fused = re.search(r"/attention/(query|key|value)/", path)
  order = ("query", "key", "value")
  return Source(
    _rename(path, _TIMM),
    _axes(path, shape),
    lead={"class_embedding": 2, "position_embedding": 1}.get(path, 0),
    part=order.index(fused[1]) if fused else None,
  )
