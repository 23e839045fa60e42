"""An Equinox model, whose weights are [out, in].

  python examples/equinox_model.py

The task is that of `two_forms.py`. The arrays of a model are a pytree like any
other: `eqx.partition` takes them out, `eqx.combine` puts them back, and
`axes="torch"` tells which axis of a weight is the inputs'.
"""

import equinox as eqx
import jax
import numpy as np
import optax
from sklearn.datasets import load_digits

import gmixout_jax as gx

STEPS = 150


def train(model, tx, images, labels, **settings):
  params, static = eqx.partition(model, eqx.is_inexact_array)

  def loss(params, images, labels):
    logits = jax.vmap(eqx.combine(params, static))(images)
    return optax.softmax_cross_entropy_with_integer_labels(
      logits, labels
    ).mean()

  @jax.jit
  def step(mixed, opt_state, images, labels):
    _, grads = mixed.value_and_grad(loss)(images, labels)  # packed
    return mixed.apply_gradients(tx, grads, opt_state)

  mixed = gx.MixedParams.create(params, key=0, axes="torch", **settings)
  opt_state, order = tx.init(mixed.trainable()), np.random.default_rng(0)
  for _ in range(STEPS):
    batch = order.integers(len(images), size=64)
    mixed, opt_state = step(mixed, opt_state, images[batch], labels[batch])
  return eqx.combine(mixed.eval_params(), static)


def main():
  images, labels = load_digits(return_X_y=True)
  images = np.float32(images / 16)
  swapped = images.reshape(-1, 8, 8).transpose(0, 2, 1).reshape(-1, 64)
  train_set, new = (
    (images[:1200], labels[:1200]),
    (swapped[:1200], labels[:1200]),
  )

  random = eqx.nn.MLP(64, 10, 256, 2, jax.numpy.tanh, key=jax.random.key(0))
  everything = {"sparsity": 0, "anchor_decay": 0}  # that is Adam itself
  pretrained = train(random, optax.adam(1e-3), *train_set, **everything)
  plain = train(pretrained, optax.adam(1e-3), *new, **everything)
  robust = train(
    pretrained, optax.adam(1e-2), *new, resample_every=10, sampler="neuron"
  )

  def accuracy(model, images):
    found = np.argmax(jax.vmap(model)(images[1200:]), axis=1)
    return 100 * float(np.mean(found == labels[1200:]))

  found = {"pretrained": pretrained, "fine-tuned": plain, "GMixout": robust}
  print(f"{'':12} {'swapped':>9} {'as before':>9}")
  for name, model in found.items():
    new, old = accuracy(model, swapped), accuracy(model, images)
    print(f"{name:12} {new:8.1f}% {old:8.1f}%")


if __name__ == "__main__":
  main()
