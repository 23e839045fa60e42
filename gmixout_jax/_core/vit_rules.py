"""The paper's choice of leaves for a vision transformer, by name."""

import itertools
import re
from collections.abc import Sequence
from typing import Any

from gmixout_jax._core import leaf_names, paths

Rules = tuple[tuple[str, str], ...]

_HEAD = r"(?<![Mm]ulti)(?<![Mm]ulti_)(?:(?<![A-Za-z])h|H)eads?(?![a-z])"
_NORM_OR_EMBEDDING = r"(?i:norm|embed|emb(?![a-z])|(?<![a-z])[lbg]n(?![a-z]))"

# `output_layer` and `MlpBlock_0` are no blocks; nor are the layers of a head
# that is made of several, as `mlp/layers/1` most likely is.
_OTHER_LAYER = (
  rf"{_HEAD}|{_NORM_OR_EMBEDDING}|(?i:input|output|final|last|dense|linear|patch"
  r"|stem|pool|proj|classif|logit|dropout|mlp_?[bl]|forward_?[bl])"
  r"|(?<![A-Za-z])(?:in|out|conv|fc)_"
)
_INTO_BLOCKS = (
  rf"^(?:(?![^/]*{_HEAD})[^/]+/)*?"
  r"(?<!mlp/)(?<!ffn/)(?<!classifier/)(?<!projector/)(?<!embed/)(?<!stem/)"
  rf"(?![^/]*(?:{_OTHER_LAYER}))"
  r"(?:\w*(?:[Bb]lock|Layer|_layer|coderlayer)|layer)s?[_\d]*/"
)
_NO_MATRIX = rf"{_NORM_OR_EMBEDDING}[^/]*/(?:(?:\d+|proj|projection)/)*[^/]+$"

VIT_RULES: Rules = (
  (
    rf"(?!.*{_NO_MATRIX}){_INTO_BLOCKS}(?:.+/)?(?:kernel|(?:in_proj_)?weight|w)$",
    "mixed",
  ),
  (r"(^|/)(head|classifier)/(kernel|bias|weight|w|b)$", "dense"),
  (r"", "frozen"),
)
"""The paper's choice for a vision transformer: the matrices of the blocks are
mixed, the head trains densely, all else is frozen (biases, norms, embeddings).

Understands the names of `gmixout_jax.clip`, big_vision, Hugging Face Flax, timm
and of modules of Linen, NNX, Equinox and Haiku as they name themselves. A block
is what is named block or layer, with a number or, if the blocks are stacked for
a scan, without: ``blocks/3``, ``layers_3``, ``EncoderBlock_3``, ``resblocks``;
a matrix is its ``kernel``, ``weight`` or ``w``.

A model without a head is right: the second rule may match no leaf, and of all
rules only this one. Frozen matrices that may be a head of another name are
warned of. Rules of your own for them go before the three:
``((r"^head_dist/", "dense"), *gx.VIT_RULES)``.
"""

# In the singular or the plural.
_HEAD_WORDS = {
  "head", "classifier", "logit", "output", "predictor", "prediction", "pred",
}  # fmt: skip
_NO_HEAD_WORDS = {
  "patch", "patchify", "stem", "conv", "in", "input", "token", "pos",
  "position", "positional", "proj", "projection", "projector", "pool",
  "pooler", "pooling",
}  # fmt: skip


def frozen_heads(
  named: Sequence[tuple[str, Any]], found: Sequence[tuple[str, str]]
) -> list[tuple[str, str]]:
  """Matrices outside the blocks that VIT_RULES freeze and that may be heads.

  Those with a word like head in their path; and if no leaf trains densely, so
  that no head has been found, also those of two axes whose names do not say
  that they are something else (``Dense_0/kernel``).

  Args:
    named: All leaves with their paths.
    found: The rule that has labelled each leaf.

  Returns:
    Pairs: a leaf's path, and the part of it that names the head.
  """
  headless = all(label != "dense" for _, label in found)
  by_name = leaf_names.passed_over(named)
  heads = []
  for (path, leaf), rule, passed in zip(named, found, by_name, strict=True):
    if rule != VIT_RULES[-1] or passed or not paths.is_matrix(leaf):
      continue
    if re.search(_INTO_BLOCKS, path):
      continue
    parts = path.split("/")
    places = [i for i, part in enumerate(parts) if _says_head(part)]
    if places:
      heads.append((path, "/".join(parts[: places[0] + 1])))
    elif headless and leaf.ndim == 2 and not _names_no_head(parts):
      heads.append((path, "/".join(parts[:-1]) or path))
  return heads


def warning_of(heads: Sequence[tuple[str, str]]) -> str:
  """What to say of them, with a rule to put before the others."""
  path, module = heads[0]
  pattern = rf"^{re.escape(module)}" + ("$" if module == path else "/")
  return (
    "VIT_RULES freeze what may be a head: "
    f"{paths.quote([path for path, _ in heads])}. Say what becomes of it with a"
    f' rule before theirs: rules=((r"{pattern}", "dense"), *gx.VIT_RULES)'
    ' trains it, "frozen" in place of "dense" keeps it frozen.'
  )


def _says_head(part: str) -> bool:
  """Whether a part of a path does; "multi head" is about attention."""
  words = ["", *leaf_names.words(part)]
  return any(
    word.removesuffix("s") in _HEAD_WORDS and before != "multi"
    for before, word in itertools.pairwise(words)
  )


def _names_no_head(parts: Sequence[str]) -> bool:
  """Whether a path says embedding, projection or the like anywhere."""
  words = {word for part in parts for word in leaf_names.words(part)}
  return any(
    {word, word.removesuffix("s")} & _NO_HEAD_WORDS or "embed" in word
    for word in words
  )
