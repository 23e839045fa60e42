"""GMixout in an Optax loop, and the same from packed gradients.

  python examples/two_forms.py

A small network has learned scanned digits. It is fine-tuned on the same digits
with rows and columns swapped: fully, by `gx.gmixout` around the optimizer, and
by `gx.MixedParams`, whose gradients are a tenth. Then all are asked for the
digits as they were. The two forms end in the same weights, to rounding.
"""

import jax
import jax.numpy as jnp
import numpy as np
import optax
from sklearn.datasets import load_digits

import gmixout_jax as gx

STEPS = 150


def network(params, images):
  hidden = jnp.tanh(images @ params["in"]["kernel"] + params["in"]["bias"])
  hidden = jnp.tanh(hidden @ params["mid"]["kernel"] + params["mid"]["bias"])
  return hidden @ params["out"]["kernel"] + params["out"]["bias"]


def loss(params, images, labels):
  logits = network(params, images)
  return optax.softmax_cross_entropy_with_integer_labels(logits, labels).mean()


def batches(images, labels):
  order = np.random.default_rng(0)
  for _ in range(STEPS):
    rows = order.integers(len(images), size=64)
    yield images[rows], labels[rows]


def train(params, tx, images, labels):
  """An ordinary loop: nothing in it knows about GMixout."""

  @jax.jit
  def step(params, state, images, labels):
    grads = jax.grad(loss)(params, images, labels)
    updates, state = tx.update(grads, state, params)
    return optax.apply_updates(params, updates), state

  state = tx.init(params)
  for batch in batches(images, labels):
    params, state = step(params, state, *batch)
  return params, state


def train_packed(params, tx, images, labels, **settings):
  """The loop with `MixedParams`: gradients and state of the active entries."""

  @jax.jit
  def step(mixed, opt_state, images, labels):
    _, grads = mixed.value_and_grad(loss)(images, labels)
    return mixed.apply_gradients(tx, grads, opt_state)

  mixed = gx.MixedParams.create(params, **settings)
  opt_state = tx.init(mixed.trainable())
  for batch in batches(images, labels):
    mixed, opt_state = step(mixed, opt_state, *batch)
  return mixed.eval_params()


def random_params():
  rng = np.random.default_rng(0)
  sizes = {"in": (64, 256), "mid": (256, 256), "out": (256, 10)}
  return {
    name: {
      "kernel": jnp.asarray(rng.normal(size=shape) / shape[0] ** 0.5),
      "bias": jnp.zeros(shape[1]),
    }
    for name, shape in sizes.items()
  }


def main():
  images, labels = load_digits(return_X_y=True)
  images = images / 16
  swapped = images.reshape(-1, 8, 8).transpose(0, 2, 1).reshape(-1, 64)
  train_set, new = (
    (images[:1200], labels[:1200]),
    (swapped[:1200], labels[:1200]),
  )

  pretrained, _ = train(random_params(), optax.adam(1e-3), *train_set)
  plain, _ = train(pretrained, optax.adam(1e-3), *new)

  # A larger rate, ten times that of full fine-tuning. By the rule of thumb
  # (`gx.gmixout_learning_rate`) it would be five times.
  adam, settings = optax.adam(1e-2), {"key": 0, "resample_every": 10}
  params, state = train(pretrained, gx.gmixout(adam, **settings), *new)
  dense = gx.gmixout_eval_params(state, params)
  packed = train_packed(pretrained, adam, *new, **settings)

  def accuracy(params, images):
    found = np.argmax(network(params, images[1200:]), axis=1)
    return 100 * np.mean(found == labels[1200:])

  print(f"{'':12} {'swapped':>9} {'as before':>9}")
  for name, params in {
    "pretrained": pretrained,
    "fine-tuned": plain,
    "GMixout": dense,
    "packed": packed,
  }.items():
    new, old = accuracy(params, swapped), accuracy(params, images)
    print(f"{name:12} {new:8.1f}% {old:8.1f}%")
  apart = jax.tree.map(lambda a, b: jnp.max(jnp.abs(a - b)), dense, packed)
  print(f"the forms differ by at most {max(jax.tree.leaves(apart)):.0e}")


if __name__ == "__main__":
  main()
