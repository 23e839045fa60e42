"""Warnings about settings of GMixout that are far from what works."""

import math
import warnings

import gmixout_jax as gx

_FAR_ABOVE, _FAR_BELOW = 3.0, 10.0

UNSCALED = 25.0
"""Times full fine-tuning's rate, where training weights are not rescaled: so
much the study chose at k 10 on PACS, and eight times on the digits."""

LOW_PROGRESS = 0.8
"""A bound below which short runs fell behind full fine-tuning."""


def check_learning_rate(
  learning_rate: float,
  *,
  full_finetuning_lr: float,
  resample_every: int,
  rescale: bool,
) -> None:
  """Warns if a rate is far from the rule of thumb.

  It is `gmixout_jax.gmixout_learning_rate`, or `UNSCALED` times full
  fine-tuning's. In our runs, three times that rate lost OOD accuracy or
  diverged, and a tenth of it hardly changed the anchor.

  Args:
    learning_rate: The peak, above 0.
    full_finetuning_lr: The peak of full fine-tuning on the task, above 0.
    resample_every: k, the steps of an episode.
    rescale: Whether training weights are rescaled.

  Warns:
    UserWarning: It names both rates and what to expect.

  Raises:
    ValueError: If an argument is out of range.
  """
  if not 0 < learning_rate < math.inf:
    raise ValueError(
      f"learning_rate must be positive and finite, got {learning_rate!r}."
    )
  rule = gx.gmixout_learning_rate(
    full_finetuning_lr, resample_every=resample_every
  )
  if not rescale:
    rule = UNSCALED * full_finetuning_lr
  if learning_rate > _FAR_ABOVE * rule:
    consequence = "the training weights may diverge within an episode"
  elif learning_rate < rule / _FAR_BELOW:
    consequence = "the anchor will hardly change"
  else:
    return
  warnings.warn(
    f"GMixout's learning rate is {learning_rate:g}, but {full_finetuning_lr:g}"
    f" for full fine-tuning and {resample_every} steps an episode suggest"
    f" {rule:.2g}: {consequence}.",
    stacklevel=2,
  )


def on_progress(
  steps: int,
  *,
  resample_every: int,
  anchor_decay: float,
  sparsity: float,
  rescale: bool,
) -> str | None:
  """What to change if a run is too short for its anchor; None if it is not.

  Args:
    steps: T, of the run.
    resample_every: k.
    anchor_decay: λ.
    sparsity: p.
    rescale: Whether training weights are rescaled.

  Returns:
    A sentence with the bound (`gmixout_jax.gmixout_progress`), and settings
    that would raise it to `LOW_PROGRESS`.

  Example:
    >>> on_progress(400, resample_every=10, anchor_decay=0.3, sparsity=0.9,
    ...   rescale=True)
    >>> on_progress(100, resample_every=10, anchor_decay=0.3, sparsity=0.9,
    ...   rescale=True)[:42]
    'The progress bound of GMixout is 0.52: in '
  """
  bound = lambda k, rescale: gx.gmixout_progress(
    steps,
    resample_every=k,
    anchor_decay=anchor_decay,
    sparsity=sparsity,
    rescale=rescale,
  )
  if (now := bound(resample_every, rescale)) >= LOW_PROGRESS:
    return None
  remedies = []
  fewer = [
    k for k in range(1, resample_every) if bound(k, rescale) >= LOW_PROGRESS
  ]
  if fewer:
    remedies.append(f"k {fewer[-1]}{' or less' if fewer[-1] > 1 else ''}")
  if rescale and bound(resample_every, False) >= LOW_PROGRESS:
    remedies.append("rescale=False")
  would = (
    f"{', or '.join(remedies)}, would lift it to {LOW_PROGRESS}."
    if remedies
    else "No k and no rescale would do: take more steps, or a smaller λ."
  )
  return (
    f"The progress bound of GMixout is {now:.2f}: in {steps} steps with k"
    f" {resample_every} its anchor comes at most so much of the way. {would}"
  )
