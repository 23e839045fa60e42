"""What GMixout costs to compile, and what a draw of each sampler costs.

Compiling is counted in CPU seconds of all threads, from the Python function
to the program: tracing, lowering, and XLA with the optimisations that users
have. Nothing is read back from a cache. Both sides of a ratio take turns, and
the ratio is one of medians.
"""

import contextlib
import functools
import gc
import pathlib
import random
import statistics
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import optax
from jax.experimental.compilation_cache import compilation_cache

import gmixout_jax as gx
from experiments.bench import console, figures, train_steps
from experiments.bench.update import Stepper

TARGETS = {
  "update_compile_ratio": 8,
  "step_compile_ratio": 1.6,
  "uniform_time_ratio": 4,
  "bernoulli_time_ratio": 2.5,
}

Compiles = tuple[Callable[..., Any], Sequence[Any]]
"""A function and the shapes of its arguments, the first of them donated."""

_BLOCK_SHAPES = {
  **{f"attention/{name}": (1, 1) for name in ("query", "key", "value", "out")},
  "mlp/fc1": (1, 4),
  "mlp/fc2": (4, 1),
}


def run(
  json: pathlib.Path | None = None,
  depth: int = 12,
  width: int = 192,
  update_rounds: int = 5,
  step_rounds: int = 3,
  repeats: int = 30,
  rows: int = 768,
  cols: int = 3072,
) -> None:
  """Compiles updates and train steps, and times updates of every sampler.

  `update_compile_ratio`: one update with `optax.apply_updates` of the block
  matrices of ViT-Ti/16, GMixout around AdamW over AdamW. `step_compile_ratio`:
  a train step of ViT-B/16 (loss, gradient, update), the compact path with
  stratified masks over full fine-tuning. `uniform_time_ratio` and
  `bernoulli_time_ratio`: seconds of an update of one matrix at sparsity 0.9,
  over those with stratified masks. State and parameters are donated.

  Args:
    json: Where to write the figures.
    depth: Blocks whose matrices one update has.
    width: Their width; the MLP has four times as much.
    update_rounds: How often each update is compiled; 0 for not at all.
    step_rounds: How often each train step is compiled; 0 for not at all.
    repeats: Timed updates of each sampler; 0 for none.
    rows: Of the matrix that is updated.
    cols: Of the matrix that is updated.
  """
  results = {}
  with as_users_compile():
    if update_rounds:
      sides = {
        "gmixout": _update(gx.gmixout(optax.adamw(1e-4), key=0), depth, width),
        "adamw": _update(optax.adamw(1e-4), depth, width),
      }
      results |= _compile_figures("update", sides, update_rounds)
    if step_rounds:
      vit = lambda: train_steps.vit("vit_b16")
      sides = {
        "stratified": _train_step(train_steps.compact(vit(), "stratified")),
        "full": _train_step(train_steps.full_finetuning(vit())),
      }
      results |= _compile_figures("step", sides, step_rounds)
    if repeats:
      results |= _time_figures((rows, cols), repeats)
  figures.report("Compiling and drawing", results, TARGETS, json)


def _compile_figures(
  what: str, sides: Mapping[str, Compiles], rounds: int
) -> figures.Figures:
  """Equations and CPU seconds of two sides, and the first over the second."""
  results = {
    f"{what}_{name}_equations": float(equations(jax.make_jaxpr(one)(*args)))
    for name, (one, args) in sides.items()
  }
  seconds: dict[str, list[float]] = {name: [] for name in sides}
  compile_seconds(jnp.sin, (jnp.ones(3),))  # what only the first one pays for
  order = list(sides)
  for turn in console.track(range(rounds), f"Compiling {what}s"):
    random.Random(turn).shuffle(order)
    for name in order:
      seconds[name].append(compile_seconds(*sides[name]))
  first, second = sides
  medians = {name: statistics.median(taken) for name, taken in seconds.items()}
  results |= {
    f"{what}_{name}_compile_cpu_seconds": taken
    for name, taken in medians.items()
  }
  ratios = [a / b for a, b in zip(seconds[first], seconds[second], strict=True)]
  return results | {
    f"{what}_compile_ratio": medians[first] / medians[second],
    f"{what}_compile_ratio_least": min(ratios),
    f"{what}_compile_ratio_most": max(ratios),
  }


def compile_seconds(function: Callable[..., Any], args: Sequence[Any]):
  """CPU seconds of this process, all threads, from function to program."""
  jax.clear_caches()
  gc.collect()
  start = time.process_time()
  jax.jit(function, donate_argnums=0).lower(*args).compile()
  return time.process_time() - start


def equations(found: Any) -> int:
  """Equations of a jaxpr, closed or not, and of all that it calls."""
  found = getattr(found, "jaxpr", found)
  if hasattr(found, "eqns"):
    return sum(
      1 + sum(map(equations, equation.params.values()))
      for equation in found.eqns
    )
  if isinstance(found, list | tuple):
    return sum(map(equations, found))
  return 0


def _update(tx: optax.GradientTransformation, depth: int, width: int):
  """One update of the matrices of some blocks, as a thing to compile."""
  params = {
    f"blocks/{block}/{name}/kernel": jax.ShapeDtypeStruct(
      tuple(width * factor for factor in shape), jnp.float32
    )
    for block in range(depth)
    for name, shape in _BLOCK_SHAPES.items()
  }

  def update(held: Any, grads: Any) -> Any:
    params, state = held
    updates, state = tx.update(grads, state, params)
    return optax.apply_updates(params, updates), state

  return update, ((params, jax.eval_shape(tx.init, params)), params)


def _train_step(one: train_steps.TrainStep) -> Compiles:
  """A train step as a thing to compile."""
  state = jax.eval_shape(one.init, one.params)
  return one.step, (state, train_steps.batch_shapes(8, 224))


def _time_figures(shape: tuple[int, int], repeats: int) -> figures.Figures:
  """Seconds of an update of one matrix, by the sampler of its masks."""
  shapes = {"kernel": jax.ShapeDtypeStruct(shape, jnp.float32)}
  grads = {"kernel": jnp.full(shape, 1e-3)}
  mix = functools.partial(gx.gmixout, optax.adamw(1e-4), key=0)
  samplers = ("stratified", "uniform", "bernoulli")
  seconds = figures.interleaved_medians(
    {
      name: Stepper(mix(sampler=name, sparsity=0.9), shapes, grads)
      for name in samplers
    },
    repeats,
  )
  results = {f"{name}_seconds": taken for name, taken in seconds.items()}
  return results | {
    f"{name}_time_ratio": seconds[name] / seconds["stratified"]
    for name in ("uniform", "bernoulli")
  }


@contextlib.contextmanager
def as_users_compile() -> Iterator[None]:
  """All of XLA's optimisations, and nothing read back from a cache."""
  wanted = {
    "jax_enable_compilation_cache": False,
    "jax_disable_most_optimizations": False,
  }
  before = {name: jax.config.values[name] for name in wanted}
  try:
    for name, value in wanted.items():
      jax.config.update(name, value)
    compilation_cache.reset_cache()  # else it remembers that it was in use
    yield
  finally:
    for name, value in before.items():
      jax.config.update(name, value)
    compilation_cache.reset_cache()
    jax.clear_caches()
