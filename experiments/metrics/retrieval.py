"""Recall of retrieval, between images and their captions."""

from collections.abc import Sequence

import numpy as np
from jaxtyping import Float, Int


def recall(
  similarity: Float[np.ndarray, "images captions"],
  owners: Int[np.ndarray, " captions"],
  *,
  ks: Sequence[int] = (1, 5, 10),
) -> dict[str, dict[str, float]]:
  """Recall@k between images and captions, in [0, 1].

  The usual protocol on Flickr: an image counts as right if any one of its
  captions is among the first k, a caption if its image is. Among equal
  similarities the right one comes last, so that constant features score 0.

  Args:
    similarity: The higher, the better the match.
    owners: Which image each caption belongs to; every image has one.
    ks: Lengths of the lists, each at least 1.

  Returns:
    ``image_to_text`` and ``text_to_image``: recall by k, as a string, the way
    JSON has it, and ``median_rank``, from 1.

  Raises:
    ValueError: If the shapes do not match, or an image has no caption.

  Example:
    >>> import numpy as np
    >>> similarity = np.array([[0.9, 0.1, 0.2], [0.8, 0.3, 0.1]])
    >>> found = recall(similarity, np.array([0, 0, 1]), ks=(1, 2))
    >>> found["image_to_text"]
    {'1': 0.5, '2': 0.5, 'median_rank': 2.0}
    >>> round(found["text_to_image"]["1"], 3)
    0.333
  """
  similarity, owners = np.asarray(similarity), np.asarray(owners)
  images, captions = similarity.shape
  if owners.shape != (captions,) or set(owners) != set(range(images)):
    raise ValueError(
      f"owners must name each of {images} images for {captions} captions, got"
      f" {len(set(owners))} different ones in shape {list(owners.shape)}."
    )
  if min(ks, default=0) < 1:
    raise ValueError(f"ks must be numbers of at least 1, got {tuple(ks)}.")
  right = owners == np.arange(images)[:, None]
  best = np.where(right, similarity, -np.inf).max(axis=1, keepdims=True)
  of_images = 1 + ((similarity >= best) & ~right).sum(axis=1)
  own = similarity[owners, np.arange(captions)]
  of_captions = 1 + ((similarity >= own) & ~right).sum(axis=0)
  return {
    name: {str(k): float((ranks <= k).mean()) for k in ks}
    | {"median_rank": float(np.median(ranks))}
    for name, ranks in (
      ("image_to_text", of_images),
      ("text_to_image", of_captions),
    )
  }
