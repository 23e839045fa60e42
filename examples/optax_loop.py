"""An Optax training loop, and the line that makes it GMixout's.

  python examples/optax_loop.py

A small network has learned scanned digits. It is fine-tuned on the same digits
with rows and columns swapped, as it would be without this library and with
GMixout around its optimizer; then all are asked for the digits as they were.
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


def train(params, tx, images, labels):
  """An ordinary loop: nothing in it knows about GMixout."""

  @jax.jit
  def step(params, state, images, labels):
    grads = jax.grad(loss)(params, images, labels)
    updates, state = tx.update(grads, state, params)
    return optax.apply_updates(params, updates), state

  state, order = tx.init(params), np.random.default_rng(0)
  for _ in range(STEPS):
    batch = order.integers(len(images), size=64)
    params, state = step(params, state, images[batch], labels[batch])
  return params, state


def accuracy(params, images, labels):
  return 100 * np.mean(np.argmax(network(params, images), axis=1) == labels)


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

  pretrained, _ = train(
    random_params(), optax.adam(1e-3), images[:1200], labels[:1200]
  )
  plain, _ = train(pretrained, optax.adam(1e-3), swapped[:1200], labels[:1200])

  # The one line; and a larger rate, ten times that of full fine-tuning. By the
  # rule of thumb (`gx.gmixout_learning_rate`) it would be five times.
  tx = gx.gmixout(optax.adam(1e-2), key=0, resample_every=10)
  params, state = train(pretrained, tx, swapped[:1200], labels[:1200])
  robust = gx.gmixout_eval_params(state, params)

  results = {"pretrained": pretrained, "fine-tuned": plain, "GMixout": robust}
  print(f"{'':12} {'swapped':>9} {'as before':>9}")
  for name, params in results.items():
    new = accuracy(params, swapped[1200:], labels[1200:])
    old = accuracy(params, images[1200:], labels[1200:])
    print(f"{name:12} {new:8.1f}% {old:8.1f}%")
    results[name] = float(new), float(old)
  return results


if __name__ == "__main__":
  main()
