"""A Linen model on the compact path, its gradients averaged over devices.

  python examples/linen_wrapper.py

The task is that of `optax_loop.py`. All that the devices exchange is the
gradient of what trains: a tenth of the matrices. This runs on whatever devices
there are, on one as well.
"""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import linen as nn
from jax.sharding import AxisType, NamedSharding, PartitionSpec
from sklearn.datasets import load_digits

import gmixout_jax as gx

STEPS = 150


class Network(nn.Module):
  @nn.compact
  def __call__(self, images):
    # TappedDot is for the "neuron" sampler's savings; plain layers work too.
    dense = functools.partial(nn.Dense, dot_general_cls=gx.linen.TappedDot)
    hidden = jnp.tanh(dense(256)(images))
    hidden = jnp.tanh(dense(256)(hidden))
    return dense(10)(hidden)


def loss(variables, images, labels):
  logits = Network().apply(variables, images)
  return optax.softmax_cross_entropy_with_integer_labels(logits, labels).mean()


def parallel_step(tx, mesh):
  """A step of data-parallel training: batches are split, the rest is copied."""

  def step(mixed, opt_state, images, labels):
    def of(trainable):
      return loss(gx.linen.variables(mixed, trainable), images, labels)

    grads = jax.grad(of)(mixed.trainable())  # packed
    grads = jax.lax.pmean(grads, "data")
    return mixed.apply_gradients(tx, grads, opt_state)

  whole, split = PartitionSpec(), PartitionSpec("data")
  return jax.jit(
    jax.shard_map(
      step,
      mesh=mesh,
      in_specs=(whole, whole, split, split),
      out_specs=whole,
      check_vma=False,  # or JAX would sum dense gradients by itself
    ),
    donate_argnums=(0, 1),
  )


def train(params, tx, images, labels, **settings):
  mixed = gx.MixedParams.create(params, key=0, **settings)
  opt_state = tx.init(mixed.trainable())
  mesh = jax.make_mesh((jax.device_count(),), ("data",), (AxisType.Auto,))
  step = parallel_step(tx, mesh)
  # As the steps leave them: or the second step would be compiled anew.
  copied = NamedSharding(mesh, PartitionSpec())
  mixed, opt_state = jax.device_put((mixed, opt_state), copied)
  order = np.random.default_rng(0)
  for _ in range(STEPS):
    batch = order.integers(len(images), size=64)
    mixed, opt_state = step(mixed, opt_state, images[batch], labels[batch])
  return mixed.eval_params()


def main():
  images, labels = load_digits(return_X_y=True)
  images = images / 16
  swapped = images.reshape(-1, 8, 8).transpose(0, 2, 1).reshape(-1, 64)

  random = Network().init(jax.random.key(0), images[:1])["params"]
  everything = {"sparsity": 0, "anchor_decay": 0}  # that is Adam itself
  adam = optax.adam(1e-3)
  pretrained = train(random, adam, images[:1200], labels[:1200], **everything)
  copy = jax.tree.map(jnp.array, pretrained)  # training donates its weights
  plain = train(copy, adam, swapped[:1200], labels[:1200], **everything)
  copy = jax.tree.map(jnp.array, pretrained)
  robust = train(
    copy, optax.adam(1e-2), swapped[:1200], labels[:1200], resample_every=10
  )

  def accuracy(params, images):
    logits = Network().apply({"params": params}, images[1200:])
    return 100 * float(np.mean(np.argmax(logits, axis=1) == labels[1200:]))

  found = {"pretrained": pretrained, "fine-tuned": plain, "GMixout": robust}
  print(f"{'':12} {'swapped':>9} {'as before':>9}")
  for name, params in found.items():
    new, old = accuracy(params, swapped), accuracy(params, images)
    print(f"{name:12} {new:8.1f}% {old:8.1f}%")
    found[name] = new, old
  return found


if __name__ == "__main__":
  main()
