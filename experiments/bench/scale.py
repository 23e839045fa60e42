"""What training at scale costs in bytes and in programs.

One function a figure: each takes a `Size` and returns what it counts, and
`PARTS` names them all.
"""

import dataclasses
import pathlib
from collections.abc import Callable
from typing import Any

import jax
from flax import nnx

from experiments.bench import (
  comms,
  console,
  figures,
  programs,
  run_step,
  train_steps,
)

TARGETS = {
  "residual_bytes_ratio": 0.60,
  "allreduce_bytes_ratio": 0.12,
  "fsdp_bytes_ratio": 0.16,
  "programs_per_rate": 1,
}


@dataclasses.dataclass(frozen=True)
class Size:
  """What the figures are of.

  Attributes:
    vit: A key of `train_steps.VITS`.
    batch_size: Images.
    image_size: Side of the images in pixels, whole patches of it.
    compiled: Whether to compile, too: some counts are of nothing else.
  """

  vit: str = "vit_b16"
  batch_size: int = 32
  image_size: int = 224
  compiled: bool = True


def run(
  json: pathlib.Path | None = None,
  batch_size: int = Size.batch_size,
  image_size: int = Size.image_size,
  compiled: bool = True,
) -> None:
  """Counts what training ViT-B/16 costs; nothing of that size runs.

  residual_bytes_ratio: what `jax.vjp` of the loss keeps for the backward pass
  in bfloat16, of what it keeps in float32. Beside it, as XLA lays out the same
  gradient on this device, its temporary bytes: CPUs have no bfloat16 products,
  so there they bound nothing.

  allreduce_bytes_ratio: what the step of `experiments.train` sums over eight
  devices for GMixout (--sharding data), of what it sums for full fine-tuning.
  fsdp_bytes_ratio: of weights, anchors, moments and all else that lasts, what
  each of eight devices keeps (--sharding fsdp), of what one alone keeps.
  programs_per_rate: programs that a sweep over five learning rates compiles, of
  what one rate compiles: for a small model, as the number has no size.

  Args:
    json: Where to write the figures.
    batch_size: Images.
    image_size: Side of the images in pixels, a multiple of 16.
    compiled: Whether to compile, which takes minutes; without, no more than
      residual_bytes_ratio is counted.
  """
  jax.config.update("jax_num_cpu_devices", comms.DEVICES)
  size = Size("vit_b16", batch_size, image_size, compiled)
  results: figures.Figures = {}
  for name, part in PARTS.items():
    with console.status(f"Counting {name}"):
      results |= part(size)
  title = f"Scale, ViT-B/16, batch {batch_size}, {image_size} pixels"
  targets = {name: most for name, most in TARGETS.items() if name in results}
  figures.report(title, results, targets, json)


def residuals(size: Size) -> figures.Figures:
  """Bytes that wait for the backward pass of full fine-tuning, by type.

  All that the function returned by `jax.vjp` holds: activations, and copies of
  weights in a narrower type. An array that is held twice counts once. The
  float32 weights and the batch do not count: they are in memory anyway.
  """
  batch = train_steps.batch_shapes(size.batch_size, size.image_size)
  found: figures.Figures = {}
  for dtype in ("float32", "bfloat16"):
    vit = train_steps.vit(size.vit, size.image_size, dtype)
    graphdef, params = nnx.split(vit, nnx.Param)

    def loss(params: Any, batch: Any, graphdef: Any = graphdef) -> jax.Array:
      return train_steps.mean_loss(nnx.merge(graphdef, params), batch)

    found[f"residual_{dtype}_bytes"] = float(kept_bytes(loss, params, batch))
    if size.compiled:
      compiled = jax.jit(jax.grad(loss)).lower(params, batch)
      # The layout is the same, and found in a tenth of the time.
      options = {"xla_backend_optimization_level": 0}
      memory: Any = compiled.compile(options).memory_analysis()
      found[f"temporary_{dtype}_bytes"] = float(memory.temp_size_in_bytes)
  for kind in ("residual", "temporary") if size.compiled else ("residual",):
    found[f"{kind}_bytes_ratio"] = (
      found[f"{kind}_bfloat16_bytes"] / found[f"{kind}_float32_bytes"]
    )
  return found


def kept_bytes(
  loss: Callable[..., jax.Array], params: Any, *inputs: Any
) -> int:
  """Bytes that `jax.vjp` keeps besides its arguments.

  Args:
    loss: A function of the parameters, by which it is differentiated, and of
      the inputs.
    params: Arrays or their shapes.
    *inputs: Likewise.

  Example:
    >>> import jax, jax.numpy as jnp
    >>> x = jax.ShapeDtypeStruct((10,), jnp.float32)
    >>> kept_bytes(lambda x: jnp.sum(x * x), x)  # x itself
    0
    >>> kept_bytes(lambda x: jnp.sum(jnp.sin(x)), x)  # cos(x)
    40
  """

  def kept(params: Any, *inputs: Any) -> Any:
    return jax.vjp(lambda params: loss(params, *inputs), params)[1]

  # By name and not by shape, which tells no argument from another array.
  jaxpr = jax.make_jaxpr(kept)(params, *inputs).jaxpr
  made = {id(var): var.aval for eqn in jaxpr.eqns for var in eqn.outvars}
  held: dict[int, Any] = {
    id(var): made[id(var)] for var in jaxpr.outvars if id(var) in made
  }
  return figures.tree_bytes(list(held.values()))


def communication(size: Size) -> figures.Figures:
  """Bytes that devices sum up, and that each of them keeps."""
  if not size.compiled:
    return {}
  return run_step.count(size.vit, size.batch_size, size.image_size)


def rates(size: Size) -> figures.Figures:
  """Programs of a sweep over learning rates."""
  return programs.count() if size.compiled else {}


PARTS: dict[str, Callable[[Size], figures.Figures]] = {
  "residuals": residuals,
  "communication": communication,
  "rates": rates,
}
"""The figures to count, by name; each has a target in `TARGETS`."""
