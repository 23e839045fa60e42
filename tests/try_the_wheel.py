"""What a user would try first, in an environment of core dependencies only.

`build_the_wheel.py` runs a copy of this file, outside of the repository.
"""

import importlib.metadata
import importlib.util
import pathlib
import sys

import jax
import jax.numpy as jnp
import numpy as np
import optax

import gmixout_jax as gx


def installed_whole(wheel: str) -> None:
  """It is the wheel that is imported, with its types and its license."""
  home = pathlib.Path(gx.__file__).parent
  assert home.parent.name == "site-packages", home
  assert (home / "py.typed").is_file()
  version = importlib.metadata.version("gmixout-jax")
  assert wheel.startswith(f"gmixout_jax-{version}-"), (wheel, version)
  files = importlib.metadata.files("gmixout-jax") or []
  names = {str(file) for file in files}
  assert any(name.endswith("licenses/LICENSE") for name in names)
  tops = {name.split("/")[0] for name in names if name.endswith(".py")}
  assert tops == {"gmixout_jax", "pallas_kernels"}, tops
  for package in ("experiments", "tests", "tyro", "matplotlib", "grain"):
    assert importlib.util.find_spec(package) is None, package


def quickstart(readme: str) -> None:
  """The first Python of the README, as it stands."""
  text = pathlib.Path(readme).read_text(encoding="utf-8")
  code = text.split("```python\n", 1)[1].split("```", 1)[0]
  exec(compile(code, readme, "exec"), {"__name__": "quickstart"})


def masked_step() -> None:
  """One step of AdamW moves exactly what the mask says, and nothing else."""
  params = {"kernel": jnp.ones((8, 40)), "bias": jnp.zeros(40)}
  tx = gx.gmixout(optax.adamw(0.1), sparsity=0.9, target="kernel", key=0)
  state = tx.init(params)
  mask = gx.gmixout_masks(state, params)["kernel"]
  grads = jax.tree.map(jnp.ones_like, params)
  updates, state = jax.jit(tx.update)(grads, state, params)
  moved = optax.apply_updates(params, updates)
  np.testing.assert_array_equal(moved["kernel"] != 1, mask)
  assert int(mask.sum()) == 8 * 4
  # λ = 0.3 of a step of 0.1: the evaluation weight is 1 − 0.7 · 0.1.
  evaluated = gx.gmixout_eval_params(state, moved)["kernel"]
  np.testing.assert_allclose(evaluated[np.asarray(mask)], 0.93, atol=1e-4)


def packed_steps() -> None:
  """`MixedParams` learns, and its gradients are packed."""
  params = {"kernel": jnp.ones((8, 40))}
  mixed = gx.MixedParams.create(params, sparsity=0.9, resample_every=5, key=0)
  tx = optax.adam(0.02)
  state = tx.init(mixed.trainable())

  def loss(params):
    return jnp.mean(params["kernel"] ** 2)

  @jax.jit
  def step(mixed, state):
    trainable = mixed.trainable()
    grads = jax.grad(lambda t: loss(mixed.inject(t)))(trainable)
    assert grads["kernel"].shape == (8, 4)
    updates, state = tx.update(grads, state, trainable)
    return mixed.apply_updates(updates), state

  for _ in range(12):
    mixed, state = step(mixed, state)
  assert loss(mixed.eval_params()) < 0.99


if __name__ == "__main__":
  installed_whole(sys.argv[1])
  quickstart(sys.argv[2])
  masked_step()
  packed_steps()
  print(f"it works, with jax {jax.__version__}")
