"""What the name of a leaf says of it."""

import re
from collections.abc import Sequence
from typing import Any

PASSED_OVER_NAMES: tuple[str, ...] = (
  "bias", "beta", "offset",
  "scale", "gamma", "lambda",
  "norm",
  "embedding", "embed", "emb", "posemb", "position", "positional", "pos",
  "token", "cls", "register", "probe",
)  # fmt: skip
"""Words of a leaf's own name by which ``target=None`` passes it over.

A name is cut into words at underscores, digits and capitals: ``pos_embedding``,
``LayerScale_0``, ``norm1``. A word counts in the plural too, and one of four
letters or more also at the end of a longer one (``layernorm``); "token" only as
the last word, so that ``token_mixing`` is mixed. A leaf named ``b`` beside a
``w`` that has one axis more (Haiku) is a bias as well.
"""

PASSED_OVER_MODULES: tuple[str, ...] = (
  "norm", "ln", "bn", "gn",
  "embedding", "embed", "emb", "posemb",
)  # fmt: skip
"""Words of the module that holds a leaf, by which it is passed over likewise.

The module is the part of the path before the leaf's own name; numbers are
skipped, and so is a ``proj`` or ``projection``, which in timm's
``patch_embed/proj/kernel`` is what does the embedding.
"""

_LAST_ONLY = {"token"}
_SAYS_NOTHING = {"proj", "projection"}
_WORD = re.compile(r"[A-Z]+(?![a-z])|[A-Z]?[a-z]+")


def words(name: str) -> list[str]:
  """Cuts a name into words in lower case.

  >>> words("MAPHead_0"), words("layernorm_before"), words("norm1")
  (['map', 'head'], ['layernorm', 'before'], ['norm'])
  """
  return [word.lower() for word in _WORD.findall(name)]


def passed_over(named: Sequence[tuple[str, Any]]) -> list[bool]:
  """Says for each leaf whether its name keeps it from being mixed.

  Args:
    named: All leaves of a tree with their paths: some are known by others.

  Returns:
    One boolean per leaf: whether its name says bias, scale, norm, embedding or
    token, by `PASSED_OVER_NAMES` and `PASSED_OVER_MODULES`.

  >>> named = [("blocks/norm1/weight", 0), ("blocks/attn/weight", 0)]
  >>> passed_over(named)
  [True, False]
  """
  axes = {path: getattr(leaf, "ndim", 0) for path, leaf in named}
  return [_says_so(path) or _is_haiku_bias(path, axes) for path, _ in named]


def _says_so(path: str) -> bool:
  parts = [part for part in path.split("/") if not part.isdigit()]
  if not parts:
    return False
  *modules, name = parts
  if _any_word(words(name), PASSED_OVER_NAMES):
    return True
  telling = [module for module in modules if module not in _SAYS_NOTHING]
  return bool(telling) and _any_word(words(telling[-1]), PASSED_OVER_MODULES)


def _any_word(found: Sequence[str], wanted: Sequence[str]) -> bool:
  return any(
    _is(word, want)
    for want in wanted
    for word in (found[-1:] if want in _LAST_ONLY else found)
  )


def _is(word: str, wanted: str) -> bool:
  singular = (word, word.removesuffix("s"), word.removesuffix("es"))
  if len(wanted) >= 4:
    return any(one.endswith(wanted) for one in singular)
  return wanted in singular


def _is_haiku_bias(path: str, axes: dict[str, int]) -> bool:
  """Not any `b`: beside a `w` of as many axes it is but a second matrix."""
  module, _, name = path.rpartition("/")
  weights = f"{module}/w" if module else "w"
  return name == "b" and axes.get(weights, 0) == axes[path] + 1
