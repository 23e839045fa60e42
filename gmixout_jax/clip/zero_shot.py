"""Zero-shot heads: one averaged prompt embedding per class."""

from collections.abc import Callable, Sequence

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jaxtyping import Array, Float, Int

from gmixout_jax.clip.model import CLIP, normalize

# CLIP's default prompt.
PHOTO_TEMPLATES = ("a photo of a {}.",)

# For images that need not be photographs.
STYLE_TEMPLATES = (
  "a photo of a {}.",
  "a close-up photo of a {}.",
  "a blurry photo of a {}.",
  "a painting of a {}.",
  "a drawing of a {}.",
  "a sketch of a {}.",
  "a cartoon of a {}.",
  "an image of a {}.",
)


def zero_shot_head(
  model: CLIP,
  tokenizer: Callable[[Sequence[str]], Int[np.ndarray, "texts length"]],
  class_names: Sequence[str],
  templates: Sequence[str] = PHOTO_TEMPLATES,
  *,
  scaled: bool = False,
  batch_size: int = 256,
) -> Float[Array, "projection_dim classes"]:
  """Builds a linear classifier on `model.encode_image` from class names.

  Column c is m_c / ‖m_c‖, where m_c is the mean over the templates t of the
  unit embeddings of t with {} replaced by the class name.

  Args:
    model: The model.
    tokenizer: Texts to token ids, as `clip.load_tokenizer` returns.
    class_names: At least one name.
    templates: At least one prompt; each holds {}, where the name goes.
    scaled: Multiply by exp(logit_scale), so that embeddings times the kernel
      are CLIP's logits and not cosines: use it for a head to fine-tune.
    batch_size: Prompts per call of the text tower, at least 1.

  Returns:
    The kernel; its columns have unit length, or exp(logit_scale) if scaled.

  Raises:
    ValueError: There are no classes or templates, a template has no {},
      `batch_size` is below 1, or the tokens are not this model's: they leave
      its vocabulary, or lack the end of a text.

  Example:
    >>> import numpy as np
    >>> from flax import nnx
    >>> from gmixout_jax import clip
    >>> tower = dict(width=8, depth=1, heads=2, mlp_width=16)
    >>> config = clip.CLIPConfig(
    ...   vision=clip.VisionConfig(image_size=16, patch_size=8, **tower),
    ...   text=clip.TextConfig(vocab_size=99, eos_token_id=98, **tower),
    ...   projection_dim=4,
    ... )
    >>> model = clip.CLIP(config, rngs=nnx.Rngs(0))
    >>> def tokenizer(texts):  # In earnest: clip.load_tokenizer(folder).
    ...   return np.array([[97, len(text), 98] for text in texts])
    >>> head = clip.zero_shot_head(model, tokenizer, ["dog", "horse"])
    >>> pixels = np.zeros((3, 16, 16, 3), np.float32)
    >>> (model.encode_image(pixels) @ head).argmax(-1).shape
    (3,)
  """
  for what, value in (("class_names", class_names), ("templates", templates)):
    if isinstance(value, str) or not len(value):
      raise ValueError(f"{what} must be a list of strings, got {value!r}.")
  for template in templates:
    if "{}" not in template:
      raise ValueError(f"A template must hold '{{}}', got {template!r}.")
  if batch_size < 1:
    raise ValueError(f"batch_size must be at least 1, got {batch_size}.")

  # Not str.format: a template may hold other braces.
  prompts = [t.replace("{}", name) for name in class_names for t in templates]
  graphdef, state = nnx.split(model)

  @jax.jit
  def encode(state, token_ids):
    return nnx.merge(graphdef, state).encode_text(token_ids)

  size = min(batch_size, len(prompts))
  embeddings = []
  for start in range(0, len(prompts), size):
    batch = prompts[start : start + size]
    # The last batch is filled up, so that one compiled program serves all.
    filled = batch + batch[-1:] * (size - len(batch))
    token_ids = model.text.check(tokenizer(filled))
    embeddings.append(encode(state, token_ids)[: len(batch)])
  by_class = jnp.concatenate(embeddings).reshape(
    len(class_names), len(templates), -1
  )
  kernel = normalize(by_class.mean(axis=1)).T
  if scaled:
    kernel = kernel * jnp.exp(model.logit_scale[...].astype(kernel.dtype))
  return kernel
