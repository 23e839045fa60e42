"""Measures one part in this process, in bfloat16 where it has a choice.

  python -m experiments.bench.gpu.measure PART FILE UNTIL [--reduced]

writes the figures of a part to FILE, as far as it can as they come. UNTIL is
the time, in seconds since 1970, at which it will be killed.
"""

import argparse
import functools
import pathlib
import time
from collections.abc import Callable
from typing import get_args

from experiments.bench import figures, images, kernels, memory, step, update
from pallas_kernels import dispatch

# One more is begun if so many seconds are left: on a GPU a kernel compiles and
# is timed in some seconds, a ViT's train step in half a minute.
_FOR_A_KERNEL, _FOR_A_STEP = 8, 30


def main(arguments: list[str] | None = None) -> None:
  """Reads the part's name from the command line, and measures it."""
  parser = argparse.ArgumentParser(prog="experiments.bench.gpu.measure")
  parser.add_argument("part", choices=PARTS)
  parser.add_argument("file", type=pathlib.Path)
  parser.add_argument("until", type=float)
  parser.add_argument("--reduced", action="store_true")
  given = parser.parse_args(arguments)
  PARTS[given.part](given.file, given.until - time.time(), given.reduced)


def _kernels(
  file: pathlib.Path,
  seconds: float,
  reduced: bool,
  *,
  only: tuple[str, ...],
  leaves: tuple[str, ...] = ("text_tokens", "b16_fc1", "b16_attention"),
  dtype: str = "bf16",
) -> None:
  kernels.run(
    file,
    repeats=1 if reduced else 11,
    only=only,
    dtypes=(dtype,),
    leaves=("b16_attention",) if reduced else leaves,
    seconds=seconds - _FOR_A_KERNEL,
  )


def _images(
  file: pathlib.Path, seconds: float, reduced: bool, only: tuple[str, ...]
) -> None:
  images.run(
    file,
    batch_size=1 if reduced else 256,
    image_size=32 if reduced else 224,
    model=_vit(reduced),
    repeats=1 if reduced else 11,
    only=only,
    seconds=seconds - _FOR_A_STEP,
  )


def _images_by_xla(file: pathlib.Path, seconds: float, reduced: bool) -> None:
  only = ("stratified_xla", "neuron", "stratified_xla_fused")
  _images(file, seconds, reduced, only)


def _images_by_kernels(
  file: pathlib.Path, seconds: float, reduced: bool
) -> None:
  """Train steps with GPU kernels, of which none has to run.

  Raises:
    figures.IncompleteError: If none can.
  """
  obstacles = {
    name: dispatch.obstacle(name)
    for name in get_args(dispatch.Implementation)
    if reduced or name != "xla"
  }
  usable = [name for name, reason in obstacles.items() if reason is None]
  if not usable:
    raise figures.IncompleteError(
      "no GPU kernel can run: "
      + "; ".join(f"{name}: {reason}" for name, reason in obstacles.items())
    )
  only = [
    f"stratified_{name}{how}" for how in ("_fused", "") for name in usable
  ]
  _images(file, seconds, reduced, tuple(only))


def _update(file: pathlib.Path, seconds: float, reduced: bool) -> None:
  update.run(
    file,
    repeats=1 if reduced else 15,
    model=_vit(reduced),
    seconds=seconds - _FOR_A_KERNEL,
  )


def _step(file: pathlib.Path, seconds: float, reduced: bool) -> None:
  """Of the sizes of `_images`, whose programs are then read back."""
  step.run(
    file,
    batch_size=1 if reduced else 256,
    image_size=32 if reduced else 224,
    repeats=1 if reduced else 7,
    model=_vit(reduced),
    dtype="bfloat16",
    seconds=seconds - _FOR_A_STEP,
    concurrent=True,
  )


def _memory(file: pathlib.Path, seconds: float, reduced: bool) -> None:
  del seconds  # what is not compiled by then is not in the file
  memory.run(file, large=False, model=_vit(reduced), dtype="bfloat16")


def _vit(reduced: bool) -> str:
  return "smallest" if reduced else "vit_b16"


PARTS: dict[str, Callable[[pathlib.Path, float, bool], None]] = {
  "packed_step": functools.partial(_kernels, only=("blocks", "packed_step")),
  "masked_mix": functools.partial(
    _kernels, only=("masked_mix", "bernoulli_mix")
  ),
  "pack": functools.partial(_kernels, only=("pack",)),
  "images": _images_by_xla,
  "images_by_kernels": _images_by_kernels,
  "update": _update,
  "step": _step,
  "memory": _memory,
  "float32": functools.partial(
    _kernels,
    only=("blocks", "masked_mix", "pack", "packed_step"),
    leaves=("text_tokens", "b16_fc1"),
    dtype="f32",
  ),
}
"""What measures each part: file, seconds, whether to reduce it."""


if __name__ == "__main__":
  main()
