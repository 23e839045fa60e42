"""Soups that are chosen or learned on held-out data."""

from collections.abc import Callable, Iterable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from gmixout_jax.averaging.averaged_leaves import check_trees, has_mean
from gmixout_jax.averaging.interpolation import mean, mix_leaves
from gmixout_jax.averaging.ranking import ranked


class Soup(NamedTuple):
  """What `greedy_soup` returns.

  Attributes:
    params: The mean of the ingredients.
    ingredients: Their indices, in the order in which they went in.
    score: Of `params`.
  """

  params: Any
  ingredients: tuple[int, ...]
  score: float


def greedy_soup(
  trees: Sequence[Any],
  validate: Callable[[Any], float],
  *,
  scores: Sequence[float] | None = None,
  ties: bool = True,
) -> Soup:
  """Averages runs, best first, keeping those that do not lower the score.

  Args:
    trees: The runs' weights, at least one.
    validate: From weights to a score, higher is better: accuracy on held-out
      data of the training distribution, and never on test data.
    scores: `validate` of every tree, if it is known already.
    ties: Whether an ingredient that does not change the score goes in: yes in
      the paper and in DiWA, no in the authors' code. It matters if the held-out
      data is small.

  Returns:
    The soup. Among equal scores the earlier tree is tried first; in the
    authors' code it is the later one.

  Raises:
    ValueError: If there are no trees, not as many scores as trees, a score is
      NaN, or the structures, the shapes of a leaf, or leaves of integers,
      booleans or PRNG keys differ; the leaf is named.

  Example:
    >>> import jax.numpy as jnp
    >>> from gmixout_jax import averaging
    >>> trees = [jnp.array(2.0), jnp.array(5.0), jnp.array(-2.0)]
    >>> soup = averaging.greedy_soup(trees, lambda w: -abs(float(w)))
    >>> float(soup.params), soup.ingredients  # 2, then (2 − 2)/2, then no 5
    (0.0, (0, 2))

  References:
    Wortsman et al., Model soups, 2022, https://arxiv.org/abs/2203.05482
  """
  if not trees:
    raise ValueError("a soup needs at least one tree, got none.")
  check_trees(trees)
  order, best = ranked(trees, validate, scores)
  used, soup = [order[0]], trees[order[0]]
  for i in order[1:]:
    # Not a running mean: low precision would round at every ingredient.
    tried = mean([trees[j] for j in (*used, i)])
    score = validate(tried)
    if score > best or (ties and score == best):
      used, soup, best = [*used, i], tried, score
  return Soup(soup, tuple(used), float(best))


class LearnedSoup(NamedTuple):
  """What `learned_soup` returns.

  Attributes:
    params: The mixed weights.
    weights: A vector that sums to one, or one such vector per leaf.
    scale: β, the factor on the logits while learning.
    losses: Before every step.
  """

  params: Any
  weights: Any
  scale: float
  losses: list[float]


def learned_soup(
  trees: Sequence[Any],
  loss: Callable[[Any, jax.Array, Any], jax.Array],
  batches: Iterable[Any],
  *,
  per_leaf: bool = True,
  learning_rate: float = 0.05,
) -> LearnedSoup:
  """Learns the shares of the runs by gradient descent on held-out data.

  θ = Σ softmax(a)ᵢ θᵢ, with one vector a for all leaves or one for each; a = 0
  at first, the uniform soup. AdamW learns a and the scale β of the logits.

  Args:
    trees: θᵢ, at least one. All are in memory at once.
    loss: (weights, β, batch) → the loss of the logits times β; differentiable.
    batches: Held-out data; gone through once.
    per_leaf: Whether every leaf has shares of its own ("learned by layer").
    learning_rate: Of AdamW. The authors have 0.05 over 5 epochs by layer, and
      0.1 over 3 for one vector.

  Returns:
    The soup. β is not part of it: it does not change which class is largest.

  Raises:
    ValueError: If there are no trees or no batches, or the structures, the
      shapes of a leaf, or leaves of integers, booleans or PRNG keys differ; the
      leaf is named.

  Example:
    >>> import jax.numpy as jnp
    >>> from gmixout_jax import averaging
    >>> trees = [jnp.array(0.0), jnp.array(4.0)]
    >>> loss = lambda w, scale, target: (w - target) ** 2
    >>> soup = averaging.learned_soup(trees, loss, [jnp.array(3.0)] * 300)
    >>> round(float(soup.params), 2), soup.weights.round(2)
    (3.0, Array([0.25, 0.75], dtype=float32))

  References:
    Wortsman et al., Model soups, 2022, appendix I,
    https://arxiv.org/abs/2203.05482
  """
  if not trees:
    raise ValueError("a soup needs at least one tree, got none.")
  check_trees(trees)
  start = jnp.zeros(len(trees))
  shares = jax.tree.map(lambda leaf: start, trees[0]) if per_leaf else start
  learned = {"shares": shares, "scale": jnp.ones([])}
  optimizer = optax.adamw(learning_rate, weight_decay=0.0)
  state = optimizer.init(learned)
  # Only what is averaged is traced; other leaves could not be compared there.
  averaged = [list(filter(has_mean, jax.tree.leaves(tree))) for tree in trees]

  @jax.jit
  def step(learned, state, averaged, batch):
    whole = [_with_means(trees[0], leaves) for leaves in averaged]

    def objective(learned):
      return loss(_mix(whole, learned["shares"]), learned["scale"], batch)

    value, gradient = jax.value_and_grad(objective)(learned)
    with jax.numpy_dtype_promotion("standard"):  # for Optax's Adam
      updates, state = optimizer.update(gradient, state, learned)
    return optax.apply_updates(learned, updates), state, value

  losses = []
  for batch in batches:
    learned, state, value = step(learned, state, averaged, batch)
    losses.append(float(value))
  if not losses:
    raise ValueError("a learned soup needs at least one batch, got none.")
  return LearnedSoup(
    params=_mix(trees, learned["shares"]),
    weights=jax.tree.map(jax.nn.softmax, learned["shares"]),
    scale=float(learned["scale"]),
    losses=losses,
  )


def _mix(trees: Sequence[Any], shares: Any) -> Any:
  return mix_leaves(trees, jax.tree.map(jax.nn.softmax, shares))


def _with_means(tree: Any, leaves: Iterable[Any]) -> Any:
  """The tree with other leaves where it has some that are averaged."""
  following = iter(leaves)
  return jax.tree.map(
    lambda leaf: next(following) if has_mean(leaf) else leaf, tree
  )
