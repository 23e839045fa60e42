"""What the axes of kernels mean, by the layers that own them."""

import dataclasses
import functools
import itertools
from collections.abc import Mapping
from typing import Any

from gmixout_jax._core import axes


@dataclasses.dataclass(frozen=True)
class LayerAxes:
  """A function for ``axes=`` that knows the layers of one model.

  Two that were made of models alike are equal, as the metadata of a state must
  be. Leaves of no known layer go by their names, as with ``axes="flax"``.

  Attributes:
    known: Pairs of a '/'-joined path and the letters of that leaf, sorted; ""
      where they are unknown.
  """

  known: tuple[tuple[str, str], ...]

  @classmethod
  def of(cls, known: Mapping[str, str | None]) -> "LayerAxes":
    """From letters by path; None where they are unknown."""
    return cls(
      tuple(sorted((path, found or "") for path, found in known.items()))
    )

  def __call__(self, path: str, leaf: Any) -> str | None:
    """The letters of a leaf; None if they are not known."""
    for name in (path, path.removeprefix("params/")):
      if name in self._by_path:
        return self._by_path[name] or None
    return axes.letters("flax", path, leaf)

  @functools.cached_property
  def _by_path(self) -> dict[str, str]:
    return dict(self.known)


def stacked(
  letters: str | None, own: tuple[int | None, ...], shape: tuple[int, ...]
) -> str | None:
  """The letters of a stack: an ``l`` for each axis that no layer has.

  Args:
    letters: Those of a layer's leaf.
    own: The shape of that leaf; None for a length that is not known.
    shape: The shape of the stack, or of the leaf itself.

  Returns:
    The layers' axes lead, if they can; else they are where they must be. None
    if there is no such place, or more than one, or if it parts the inputs.

  >>> stacked("io", (8, 32), (12, 8, 32)), stacked("io", (8, 32), (8, 12, 32))
  ('lio', 'ilo')
  """
  extra = len(shape) - len(own)
  if letters is None or extra < 0:
    return None
  places = []
  for layers in itertools.combinations(range(len(shape)), extra):
    rest = [length for i, length in enumerate(shape) if i not in layers]
    if all(one in (None, two) for one, two in zip(own, rest, strict=True)):
      places.append(layers)
  leading = tuple(range(extra))
  if leading not in places and len(places) != 1:
    return None
  layers = leading if leading in places else places[0]
  of_layer = iter(letters)
  return _known(
    "".join("l" if i in layers else next(of_layer) for i in range(len(shape)))
  )


def general(inputs: int, outputs: int, batch: int) -> str | None:
  """Of a kernel ``[*batch, *inputs, *outputs]``; unknown with batch axes."""
  return None if batch else "i" * inputs + "o" * outputs


def convolution(window: int, transposed: bool = False) -> str:
  """Of a kernel ``[*window, inputs, outputs]``.

  With feature groups the inputs are those of one group: an active one trains
  in all groups, with the weights that each has for it.
  """
  return "s" * window + ("oi" if transposed else "io")


def einsum(equation: str | None) -> str | None:
  """Of the kernel in an equation ``inputs,kernel->outputs``.

  >>> einsum("nta,hab->nthb"), einsum("bi,bio->bo")
  ('oio', None)
  """
  if equation is None or "->" not in equation:
    return None
  operands, outputs = equation.replace(" ", "").split("->")
  inputs, kernel = operands.split(",")
  letters = ""
  for axis in kernel:
    if (axis in inputs) == (axis in outputs):  # a batch axis, or summed alone
      return None
    letters += "i" if axis in inputs else "o"
  return _known(letters)


def _known(letters: str) -> str | None:
  """The letters if their inputs are side by side."""
  return letters if axes.inputs_are_together(letters) else None
