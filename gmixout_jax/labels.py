"""Which leaves are mixed: paths, targets, and labels for `optax.partition`."""

import re
import warnings
from collections.abc import Callable, Sequence
from typing import Any

import jax

from gmixout_jax._core import leaf_names, vit_rules
from gmixout_jax._core.leaf_names import PASSED_OVER_MODULES, PASSED_OVER_NAMES
from gmixout_jax._core.paths import (
  check_paths,
  is_matrix,
  named_leaves,
  quote,
  quote_leaves,
)
from gmixout_jax._core.vit_rules import VIT_RULES, Rules

__all__ = [
  "PASSED_OVER_MODULES",
  "PASSED_OVER_NAMES",
  "VIT_RULES",
  "Rules",
  "Target",
  "check_paths",
  "check_target",
  "gmixout_labels",
  "is_matrix",
  "label_leaves",
  "named_leaves",
  "select_leaves",
]

Target = str | Callable[[str, Any], bool] | None

LABELS = ("mixed", "dense", "frozen")


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
    target: None for every matrix (a floating-point leaf with two axes or more)
      but those whose name says bias, scale, norm, embedding or token, see
      `PASSED_OVER_NAMES` and `PASSED_OVER_MODULES`. A regular expression,
      searched for in the leaf's path, or a predicate on (path, leaf) is taken
      at its word, among all matrices.
    params: The parameters.

  Returns:
    One boolean per leaf, in the order of `jax.tree.leaves`.

  Raises:
    ValueError: If there are leaves but none is selected.

  >>> params = {"fc": {"kernel": jax.numpy.ones((2, 3))}}
  >>> params["pos_embedding"] = jax.numpy.ones((5, 3))
  >>> select_leaves(None, params)
  [True, False]
  >>> select_leaves("pos", params)
  [False, True]
  """
  named = named_leaves(params)
  if target is None:
    wanted = [not passed for passed in leaf_names.passed_over(named)]
  elif isinstance(target, str):
    wanted = [re.search(target, path) is not None for path, _ in named]
  else:
    wanted = [
      is_matrix(leaf) and bool(target(path, leaf)) for path, leaf in named
    ]
  selected = [
    is_matrix(leaf) and want
    for (_, leaf), want in zip(named, wanted, strict=True)
  ]
  if named and not any(selected):
    hint = f" The leaves are {quote_leaves(named)}."
    matrices = [path for path, leaf in named if is_matrix(leaf)]
    if target is None and matrices:
      hint = (
        f" By name it passes over the matrices {quote(matrices)}; a regular"
        " expression or a predicate on (path, leaf) can select them." + hint
      )
    raise ValueError(
      f"target={target!r} selects none of the {len(named)} leaves; it must"
      f" select at least one floating-point leaf with two axes or more.{hint}"
    )
  return selected


def gmixout_labels(params: Any, rules: Rules = VIT_RULES) -> Any:
  """Labels every leaf "mixed", "dense" or "frozen", for `optax.partition`.

  A leaf gets the label of the first rule whose regular expression is found in
  its '/'-joined path; "mixed" rules skip leaves with fewer than two axes. Pass
  the function itself to `optax.partition`, as below, so that it also works
  inside `nnx.Optimizer`, which passes its parameters in two forms.

  Args:
    params: The parameters, any pytree. Boxes (`nnx.Param`, `nn.Partitioned`)
      are not part of a path.
    rules: Pairs (regular expression, label). Put your own before `VIT_RULES`,
      as in ``((r"^head_dist/", "dense"), *gx.VIT_RULES)``, or use them alone.

  Returns:
    A pytree like `params` with a label in place of each leaf.

  Raises:
    ValueError: If a rule matches no leaf, a leaf matches no rule, or a label
      is unknown. Only the head's rule in `VIT_RULES` may match no leaf.

  Warns:
    UserWarning: If the last of `VIT_RULES` freezes what may be a head. The
      warning names the leaves and shows a rule for them.

  >>> import jax.numpy as jnp, optax
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
  rules = tuple((pattern, label) for pattern, label in rules)
  named = named_leaves(params)
  unmatched = set(rules) - {VIT_RULES[1]}  # a tower may have no head
  chosen = []
  for path, leaf in named:
    found = [rule for rule in rules if re.search(rule[0], path)]
    unmatched -= set(found)
    usable = [rule for rule in found if rule[1] != "mixed" or is_matrix(leaf)]
    if not usable:
      raise ValueError(
        f"leaf {path!r} matches none of the rules"
        f" {_shown(rules)}; every leaf needs one"
        ' (the rule ("", "frozen") at the end takes the rest).'
      )
    chosen.append(usable[0])
  if named and unmatched:
    first = _shown([rule for rule in rules if rule in unmatched][:1])
    raise ValueError(
      f"rule {first} matches none of the {len(named)} leaves; correct it or"
      f" leave it out. The leaves are {quote_leaves(named)}."
    )
  if rules[-len(VIT_RULES) :] == VIT_RULES:
    heads = vit_rules.frozen_heads(named, chosen)
    if heads:
      warnings.warn(vit_rules.warning_of(heads), stacklevel=2)
  labels = [label for _, label in chosen]
  return jax.tree.unflatten(jax.tree.structure(params), labels)


def _shown(rules: Sequence[tuple[str, str]]) -> str:
  """Rules in a message, which the one for the blocks would bury."""
  return ", ".join(
    "VIT_RULES[0] (for the matrices of the blocks)"
    if (pattern, label) == VIT_RULES[0]
    else repr(pattern)
    for pattern, label in rules
  )


def label_leaves(target: Target | Rules, params: Any) -> list[str]:
  """Says what becomes of each leaf: "mixed", "dense" or "frozen".

  Args:
    target: Rules for `gmixout_labels`; or what `select_leaves` takes, and then
      all other leaves of floating-point numbers are dense.
    params: The parameters.

  Returns:
    One label per leaf, in the order of `jax.tree.leaves`.

  Raises:
    ValueError: As the two functions named.

  >>> fc = {"kernel": jax.numpy.ones((2, 3)), "bias": jax.numpy.ones(3)}
  >>> params = {"fc": fc}
  >>> label_leaves("kernel", params)
  ['dense', 'mixed']
  >>> label_leaves((("kernel", "mixed"), ("", "frozen")), params)
  ['frozen', 'mixed']
  """
  if isinstance(target, tuple):
    labels = jax.tree.leaves(gmixout_labels(params, target))
    if labels and "mixed" not in labels:
      raise ValueError(
        f"target={target!r} mixes no leaf; at least one rule must. The leaves"
        f" are {quote_leaves(named_leaves(params))}."
      )
  else:
    selected = select_leaves(target, params)
    labels = ["mixed" if mixed else "dense" for mixed in selected]
  return [
    label if trains(leaf) else "frozen"
    for label, leaf in zip(labels, jax.tree.leaves(params), strict=True)
  ]


def trains(leaf: Any) -> bool:
  """Whether an optimizer can train a leaf: no integers, booleans or keys."""
  dtype = getattr(leaf, "dtype", None)  # of a Python number there is none
  return dtype is None or jax.numpy.issubdtype(dtype, jax.numpy.inexact)


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
