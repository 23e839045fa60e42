"""An NNX model with packed gradients, as small as the mask.

  python examples/nnx_model.py

The task is that of `two_forms.py`. Whole input neurons train at a time, so the
backward pass of a linear layer makes and keeps a tenth of what it would.
"""

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import nnx
from sklearn.datasets import load_digits

import gmixout_jax as gx

STEPS = 150


def network():
  rngs = nnx.Rngs(0)
  return nnx.Sequential(
    nnx.Linear(64, 256, rngs=rngs),
    jnp.tanh,
    nnx.Linear(256, 256, rngs=rngs),
    jnp.tanh,
    nnx.Linear(256, 10, rngs=rngs),
  )


def loss(model, images, labels):
  return optax.softmax_cross_entropy_with_integer_labels(
    model(images), labels
  ).mean()


@nnx.jit
def dense_step(model, optimizer, images, labels):
  grads = nnx.grad(loss)(model, images, labels)
  optimizer.update(model, grads)


@nnx.jit
def packed_step(model, optimizer, images, labels):
  _, grads = optimizer.value_and_grad(loss)(model, images, labels)  # packed
  optimizer.update(model, grads)


def train(step, model, optimizer, images, labels):
  order = np.random.default_rng(0)
  for _ in range(STEPS):
    batch = order.integers(len(images), size=64)
    step(model, optimizer, images[batch], labels[batch])


def state_bytes(optimizer):
  """Optimizer state, and whatever else training carries beside weights."""
  return sum(leaf.nbytes for leaf in jax.tree.leaves(nnx.state(optimizer)))


def main():
  images, labels = load_digits(return_X_y=True)
  images = images / 16
  swapped = images.reshape(-1, 8, 8).transpose(0, 2, 1).reshape(-1, 64)

  pretrained = network()
  optimizer = nnx.Optimizer(pretrained, optax.adam(1e-3), wrt=nnx.Param)
  train(dense_step, pretrained, optimizer, images[:1200], labels[:1200])

  plain = nnx.clone(pretrained)
  optimizer = nnx.Optimizer(plain, optax.adam(1e-3), wrt=nnx.Param)
  train(dense_step, plain, optimizer, swapped[:1200], labels[:1200])

  trained = nnx.clone(pretrained)
  mixed = gx.nnx.MixedOptimizer(
    trained, optax.adam(1e-2), key=0, resample_every=10, sampler="neuron"
  )
  train(packed_step, trained, mixed, swapped[:1200], labels[:1200])
  robust = mixed.eval_model(trained)

  def accuracy(model, images):
    found = np.argmax(model(images[1200:]), axis=1)
    return 100 * float(np.mean(found == labels[1200:]))

  models = {"pretrained": pretrained, "fine-tuned": plain, "GMixout": robust}
  print(f"{'':12} {'swapped':>9} {'as before':>9}")
  for name, model in models.items():
    new, old = accuracy(model, swapped), accuracy(model, images)
    print(f"{name:12} {new:8.1f}% {old:8.1f}%")
  dense, packed = state_bytes(optimizer), state_bytes(mixed)
  print(f"bytes of state: {dense:,} for Adam, {packed:,} for GMixout")
  return dense, packed


if __name__ == "__main__":
  main()
