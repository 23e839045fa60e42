"""Draws `docs/pictures/episodes.png`: what GMixout does to one row of weights.

  python -m docs.draw_episode

Thirty weights learn a random target by SGD, a fifth of them at a time, in
episodes of ten steps.
"""

import pathlib

import jax
import jax.numpy as jnp
import matplotlib.pyplot as plt
import numpy as np
import optax

import gmixout_jax as gx

STEPS, PERIOD, COLS = 40, 10, 30
PICTURE = pathlib.Path(__file__).parent / "pictures" / "episodes.png"


def run():
  """Training and evaluation weights before each step, and the masks."""
  target = jax.random.normal(jax.random.key(1), (1, COLS))
  tx = gx.gmixout(optax.sgd(0.003), sparsity=0.8, resample_every=PERIOD, key=3)
  params = {"w": jnp.zeros((1, COLS))}
  state = tx.init(params)

  @jax.jit
  def step(params, state):
    shown = (
      params["w"][0],
      gx.gmixout_eval_params(state, params)["w"][0],
      gx.gmixout_masks(state, params)["w"][0],
    )
    grads = {"w": params["w"] - target}
    updates, state = tx.update(grads, state, params)
    return optax.apply_updates(params, updates), state, shown

  rows = []
  for _ in range(STEPS):
    params, state, shown = step(params, state)
    rows.append(jax.device_get(shown))
  return (*map(np.array, zip(*rows, strict=True)), np.asarray(target[0]))


def main():
  """Writes the picture."""
  training, evaluation, masks, target = run()
  figure, (above, below) = plt.subplots(
    2,
    1,
    figsize=(7, 5),
    height_ratios=(3, 2),
    sharex=True,
    layout="constrained",
  )
  most = np.abs(training).max()
  image = above.imshow(
    training.T, cmap="PuOr", vmin=-most, vmax=most, aspect="auto",
    interpolation="nearest", extent=(0, STEPS, COLS, 0),
  )  # fmt: skip
  steps, columns = np.nonzero(masks)
  above.plot(steps + 0.5, columns + 0.5, ".", color="black", markersize=2.5)
  above.set_ylabel("weight")
  above.set_title("Training weights; dots mark what trains", fontsize=10)
  figure.colorbar(image, ax=above, label="weight − pretrained weight")

  followed = int(np.argmax(np.ptp(evaluation, axis=0)))
  ticks = np.arange(STEPS)
  below.step(
    ticks, training[:, followed], where="mid", color="C1", label="training",
  )  # fmt: skip
  below.step(
    ticks, evaluation[:, followed], where="mid", color="C4", lw=2.5,
    label="evaluation: A + (1 − λ)Δ",
  )  # fmt: skip
  below.axhline(target[followed], color="gray", ls=":", label="its optimum")
  below.legend(fontsize=8, loc="best", framealpha=1)
  below.set_title(f"Weight {followed}", fontsize=10)
  below.set_xlabel(f"optimizer step (episodes of {PERIOD})")
  for axes in (above, below):
    for start in range(PERIOD, STEPS, PERIOD):
      axes.axvline(start, color="black", lw=0.6)
  figure.savefig(PICTURE, dpi=120)


if __name__ == "__main__":
  main()
