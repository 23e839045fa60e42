"""A Linen model whose gradients are as small as the mask.

  python examples/linen_model.py

The task is that of `two_forms.py`. Whole inputs train at a time, and TappedDot
lets the backward pass of a layer make a tenth of what it would.
"""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import linen as nn
from sklearn.datasets import load_digits

import gmixout_jax as gx

STEPS = 150


class Network(nn.Module):
  @nn.compact
  def __call__(self, images):
    dense = functools.partial(nn.Dense, dot_general_cls=gx.linen.TappedDot)
    hidden = jnp.tanh(dense(256)(images))
    hidden = jnp.tanh(dense(256)(hidden))
    return dense(10)(hidden)


def train(params, tx, images, labels, **settings):
  @jax.jit
  def step(mixed, opt_state, images, labels):
    def loss(trainable):
      logits = Network().apply(gx.linen.variables(mixed, trainable), images)
      return optax.softmax_cross_entropy_with_integer_labels(
        logits, labels
      ).mean()

    grads = jax.grad(loss)(mixed.trainable())  # packed
    return mixed.apply_gradients(tx, grads, opt_state)

  mixed = gx.MixedParams.create(params, key=0, **settings)
  opt_state, order = tx.init(mixed.trainable()), np.random.default_rng(0)
  for _ in range(STEPS):
    batch = order.integers(len(images), size=64)
    mixed, opt_state = step(mixed, opt_state, images[batch], labels[batch])
  return mixed.eval_params()


def main():
  images, labels = load_digits(return_X_y=True)
  images = images / 16
  swapped = images.reshape(-1, 8, 8).transpose(0, 2, 1).reshape(-1, 64)
  train_set, new = (
    (images[:1200], labels[:1200]),
    (swapped[:1200], labels[:1200]),
  )

  random = Network().init(jax.random.key(0), images[:1])["params"]
  everything = {"sparsity": 0, "anchor_decay": 0}  # that is Adam itself
  pretrained = train(random, optax.adam(1e-3), *train_set, **everything)
  plain = train(pretrained, optax.adam(1e-3), *new, **everything)
  robust = train(
    pretrained, optax.adam(1e-2), *new, resample_every=10, sampler="neuron"
  )

  def accuracy(params, images):
    logits = Network().apply({"params": params}, images[1200:])
    return 100 * float(np.mean(np.argmax(logits, axis=1) == labels[1200:]))

  found = {"pretrained": pretrained, "fine-tuned": plain, "GMixout": robust}
  print(f"{'':12} {'swapped':>9} {'as before':>9}")
  for name, params in found.items():
    new, old = accuracy(params, swapped), accuracy(params, images)
    print(f"{name:12} {new:8.1f}% {old:8.1f}%")


if __name__ == "__main__":
  main()
