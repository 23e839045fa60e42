"""Which leaves are mixed: paths, targets, and labels for `optax.partition`."""

import re
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx
from flax.core import meta

Target = str | Callable[[str, Any], bool] | None
Rules = tuple[tuple[str, str], ...]

LABELS = ("mixed", "dense", "frozen")

VIT_RULES: Rules = (
  (
    r"(^|/)(blocks?|layers?|encoderblock|resblocks)[/_]\d+/(.+/)?kernel$",
    "mixed",
  ),
  (r"(^|/)(head|classifier)/(kernel|bias)$", "dense"),
  (r"", "frozen"),
)
"""The paper's choice for a vision transformer: the matrices of the blocks are
mixed, the head trains densely, all else is frozen (biases, norms, embeddings).
Understands the names of `gmixout_jax.clip`, big_vision and Hugging Face Flax. A
model without a head, such as a whole CLIP, needs rules without the second one.
"""


_BOXES = (nnx.Variable, meta.AxisMetadata)


def named_leaves(
  tree: Any, is_leaf: Callable[[Any], bool] = lambda node: False
) -> list[tuple[str, Any]]:
  """Leaves of a pytree with their '/'-joined paths, in `jax.tree` order.

  An NNX variable is named as the attribute that holds it, whether the tree
  holds the variable or its bare array: `nnx.Optimizer` hands the former to
  `init` and the latter to `update`, and both must mean the same leaf. So is
  what a Linen box of sharding metadata holds.

  >>> named_leaves({"block": [{"kernel": 3.0}, {"kernel": 4.0}]})
  [('block/0/kernel', 3.0), ('block/1/kernel', 4.0)]
  """
  named, _ = jax.tree_util.tree_flatten_with_path(
    tree, is_leaf=lambda node: isinstance(node, _BOXES) or is_leaf(node)
  )
  return [
    (jax.tree_util.keystr(path, simple=True, separator="/"), leaf)
    for path, node in named
    for leaf in jax.tree.leaves(node, is_leaf=is_leaf)
  ]


def check_paths(named: Sequence[tuple[str, Any]]) -> None:
  """Raises ValueError if two leaves have one path."""
  paths = [path for path, _ in named]
  if len(set(paths)) < len(paths):
    twice = next(path for path in paths if paths.count(path) > 1)
    raise ValueError(
      f"params have two leaves with the path {twice!r}, as a key that holds a"
      " '/' reads like two keys: rename one."
    )


def is_matrix(leaf: Any) -> bool:
  """Whether a leaf can be mixed: floating point, with at least two axes."""
  return (
    hasattr(leaf, "ndim")
    and leaf.ndim >= 2
    and jnp.issubdtype(leaf.dtype, jnp.floating)
  )


def check_target(target: Target | Rules) -> None:
  """Raises ValueError unless it is None, a regex, a callable or rules."""
  if isinstance(target, str):
    try:
      re.compile(target)
    except re.error as error:
      raise ValueError(
        f"target must be a valid regular expression, got {target!r}: {error}."
      ) from error
  elif isinstance(target, tuple):
    if not target:
      raise ValueError("target must hold at least one rule, got ().")
    _check_rules("target", target)
  elif target is not None and not callable(target):
    raise ValueError(
      "target must be None, a regular expression, a predicate on (path, leaf)"
      f" or a tuple of rules like VIT_RULES, got {target!r}."
    )


def select_leaves(target: Target, params: Any) -> list[bool]:
  """Says for each leaf of `params` whether it is mixed.

  Args:
    target: None for every matrix (a floating-point leaf with two axes or
      more); a regular expression, searched for in the leaf's path; or a
      predicate on (path, leaf). The last two narrow the first.
    params: The parameters.

  Returns:
    One boolean per leaf, in the order of `jax.tree.leaves`.

  Raises:
    ValueError: If there are leaves but none is selected.

  >>> params = {"fc": {"kernel": jnp.ones((2, 3)), "bias": jnp.ones(3)}}
  >>> select_leaves(None, params)
  [False, True]
  """

  def wanted(path: str, leaf: Any) -> bool:
    if target is None:
      return True
    if isinstance(target, str):
      return re.search(target, path) is not None
    return bool(target(path, leaf))

  named = named_leaves(params)
  selected = [is_matrix(leaf) and wanted(path, leaf) for path, leaf in named]
  if named and not any(selected):
    raise ValueError(
      f"target={target!r} selects none of the {len(named)} leaves; it must"
      " select at least one floating-point leaf with two axes or more. The"
      f" leaves are {_quote([path for path, _ in named])}."
    )
  return selected


def gmixout_labels(params: Any, rules: Rules = VIT_RULES) -> Any:
  """Labels every leaf "mixed", "dense" or "frozen", for `optax.partition`.

  The first rule whose regular expression is found in a leaf's '/'-joined path
  gives its label; a rule that gives "mixed" passes over leaves with fewer than
  two axes. Pass the function itself to `optax.partition`, as below: then it
  also works inside `nnx.Optimizer`, which shows its parameters in two forms.

  Args:
    params: The parameters, any pytree.
    rules: Pairs (regular expression, label).

  Returns:
    A pytree like `params` with a label in place of each leaf.

  Raises:
    ValueError: If a rule matches no leaf, a leaf matches no rule, or a label
      is unknown.

  >>> import jax, jax.numpy as jnp, optax
  >>> import gmixout_jax as gx
  >>> params = {
  ...   "blocks": [{"kernel": jnp.ones((8, 32)), "bias": jnp.ones(32)}],
  ...   "head": {"kernel": jnp.ones((8, 2))},
  ... }
  >>> gx.gmixout_labels(params)["blocks"][0]
  {'bias': 'frozen', 'kernel': 'mixed'}
  >>> tx = optax.partition(
  ...   {
  ...     "mixed": gx.gmixout(optax.adamw(1e-4), key=0),
  ...     "dense": optax.adamw(1e-3),
  ...     "frozen": optax.set_to_zero(),
  ...   },
  ...   gx.gmixout_labels,
  ... )
  >>> state = tx.init(params)
  """
  _check_rules("rules", rules)
  named = named_leaves(params)
  unmatched = {pattern for pattern, _ in rules}
  labels = []
  for path, leaf in named:
    found = [rule for rule in rules if re.search(rule[0], path)]
    unmatched -= {pattern for pattern, _ in found}
    usable = [
      label for _, label in found if label != "mixed" or is_matrix(leaf)
    ]
    if not usable:
      raise ValueError(
        f"leaf {path!r} matches none of the rules"
        f" {_quote([pattern for pattern, _ in rules])}; every leaf needs one"
        ' (the rule ("", "frozen") at the end takes the rest).'
      )
    labels.append(usable[0])
  if named and unmatched:
    raise ValueError(
      f"rule {sorted(unmatched)[0]!r} matches none of the {len(named)} leaves;"
      " correct it or leave it out. The leaves are"
      f" {_quote([path for path, _ in named])}."
    )
  return jax.tree.unflatten(jax.tree.structure(params), labels)


def label_leaves(target: Target | Rules, params: Any) -> list[str]:
  """Says what becomes of each leaf: "mixed", "dense" or "frozen".

  Args:
    target: Rules for `gmixout_labels`; or what `select_leaves` takes, and then
      all other leaves are dense.
    params: The parameters.

  Returns:
    One label per leaf, in the order of `jax.tree.leaves`.

  Raises:
    ValueError: As the two functions named.

  >>> params = {"fc": {"kernel": jnp.ones((2, 3)), "bias": jnp.ones(3)}}
  >>> label_leaves("kernel", params)
  ['dense', 'mixed']
  >>> label_leaves((("kernel", "mixed"), ("", "frozen")), params)
  ['frozen', 'mixed']
  """
  if isinstance(target, tuple):
    labels = jax.tree.leaves(gmixout_labels(params, target))
    if labels and "mixed" not in labels:
      raise ValueError(
        f"target={target!r} mixes no leaf; at least one rule must."
      )
    return labels
  selected = select_leaves(target, params)
  return ["mixed" if mixed else "dense" for mixed in selected]


def _check_rules(name: str, rules: Rules) -> None:
  """Raises ValueError unless they are pairs (regular expression, label)."""
  for rule in rules:
    if not isinstance(rule, tuple | list) or len(rule) != 2:
      raise ValueError(
        f"{name} must hold rules (regular expression, label), like VIT_RULES,"
        f" got the rule {rule!r}."
      )
    pattern, label = rule
    if not isinstance(pattern, str):
      raise ValueError(
        f"{name} must hold rules that begin with a regular expression, got the"
        f" rule {rule!r}."
      )
    if label not in LABELS:
      raise ValueError(
        f"rule {pattern!r} gives the label {label!r}; allowed are {LABELS}."
      )
    try:
      re.compile(pattern)
    except re.error as error:
      raise ValueError(
        f"rule {pattern!r} must be a regular expression: {error}."
      ) from error


def _quote(names: Sequence[str], most: int = 20) -> str:
  """Names for an error message, cut where a list would bury the message."""
  shown = ", ".join(repr(name) for name in names[:most])
  hidden = len(names) - most
  return shown + (f" and {hidden} more" if hidden > 0 else "")
