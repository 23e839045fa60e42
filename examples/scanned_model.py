"""A scanned Linen model on many devices, placed by its sharding metadata.

  python examples/scanned_model.py

Six equal blocks are one stacked leaf, whose axes have names. What is packed
keeps the names of the axes that are left, so `nn.get_partition_spec` places
gradients and optimizer state as it places weights. Runs on whatever devices
there are; JAX_NUM_CPU_DEVICES=4 makes four of a CPU.
"""

import jax
import jax.numpy as jnp
import optax
from flax import linen as nn
from jax.sharding import AxisType, NamedSharding, PartitionSpec

import gmixout_jax as gx

STEPS = 200
WIDTH = 32


class Block(nn.Module):
  @nn.compact
  def __call__(self, x, _):
    init = nn.with_partitioning(nn.initializers.lecun_normal(), (None, "model"))
    dense = nn.Dense(
      WIDTH, kernel_init=init, dot_general_cls=gx.linen.TappedDot
    )
    return x + jnp.tanh(dense(x)), None


class Stack(nn.Module):
  @nn.compact
  def __call__(self, x):
    blocks = nn.scan(
      nn.remat(Block),
      length=6,
      variable_axes={"params": 0, "taps": 0},
      split_rngs={"params": True},
      metadata_params={nn.PARTITION_NAME: None},
    )
    return blocks(name="blocks")(x, None)[0]


def main():
  mesh = jax.make_mesh(
    (1, jax.device_count()), ("data", "model"), (AxisType.Auto,) * 2
  )
  model, adam = Stack(), optax.adam(1e-2)
  x = jax.random.normal(jax.random.key(0), (64, WIDTH))
  wanted = jnp.roll(x, 1, axis=1)

  def init():
    params = model.init(jax.random.key(1), x)["params"]
    mixed = gx.MixedParams.create(
      params,
      key=0,
      sampler="neuron",
      target="kernel",
      axes=gx.linen.axes(model, x),
    )
    return mixed, adam.init(mixed.trainable())

  specs = nn.get_partition_spec(jax.eval_shape(init))
  shardings = jax.tree.map(
    lambda spec: NamedSharding(mesh, spec),
    specs,
    is_leaf=lambda leaf: isinstance(leaf, PartitionSpec),
  )

  def loss_of(variables):
    return jnp.mean((model.apply(variables, x) - wanted) ** 2)

  def step(mixed, opt_state):
    def loss(trainable):
      return loss_of(gx.linen.variables(mixed, trainable))

    value, grads = jax.value_and_grad(loss)(mixed.trainable())
    return *mixed.apply_gradients(adam, grads, opt_state), value

  with jax.set_mesh(mesh):
    mixed, opt_state = jax.jit(init, out_shardings=shardings)()
    step = jax.jit(step, out_shardings=(*shardings, None))
    before = loss_of({"params": mixed.eval_params()})
    for _ in range(STEPS):
      mixed, opt_state, _ = step(mixed, opt_state)
    after = loss_of({"params": mixed.eval_params()})

  kernel = mixed.params["blocks"]["Dense_0"]["kernel"]
  moment = opt_state[0].mu["blocks"]["Dense_0"]["kernel"]
  for name, leaf in {"weights": kernel, "first moments": moment}.items():
    value = jax.tree.leaves(leaf)[0]
    print(f"{name:14} {value.shape!s:14} {value.sharding.spec}")
  print(f"loss {before:.3f} before, {after:.3f} after")


if __name__ == "__main__":
  main()
