"""The settings of a mix, in one place: their defaults, checks and meaning.

`gmixout`, `MixedParams.create`, the adapters and `gmixout_summary` all take
them by keyword and hand them to `Settings`, which is what their states carry
as metadata.
"""

import dataclasses
import difflib
import functools
import inspect
import numbers
import types
from collections.abc import Callable
from typing import Any, Literal, TypedDict

import jax
import jax.core
import jax.numpy as jnp
import numpy as np

from gmixout_jax import labels
from gmixout_jax._core import axes as axes_lib
from gmixout_jax._core import kernel_layout, mixed_leaf, resampling, samplers
from gmixout_jax._core.inner_optimizer import Moments
from gmixout_jax._core.same_function import same
from pallas_kernels.dispatch import Implementation

Residual = Literal["reset", "keep"]


class MixSettings(TypedDict, total=False):
  """The types of the settings, for signatures that hand them on.

  Attributes:
    sparsity: See `gmixout`, as for all that follow.
    anchor_decay: λ.
    resample_every: k.
    sampler: The mask distribution.
    target: Which leaves are mixed.
    axes: What the axes of a leaf mean.
    residual: Whether Δ survives a redraw.
    moments: Whether the inner optimizer's moments do.
    rescale: Whether the forward pass divides Δ by s.
    implementation: Who reads and writes active entries.
  """

  sparsity: float
  anchor_decay: float | resampling.Schedule
  resample_every: resampling.Period
  sampler: str
  target: labels.Target | labels.Rules
  axes: axes_lib.Axes
  residual: Residual
  moments: Moments
  rescale: bool
  implementation: Implementation | None


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class Settings:
  """Checked settings; hashable, as the metadata of a pytree must be.

  Two are equal if they were written alike: functions among them (schedules, a
  predicate) by what they do, see `same_function`, and not by identity.

  Attributes:
    sparsity: p in [0, 1): the fraction of entries held at the anchor.
    anchor_decay: λ in [0, 1], perhaps traced, or a schedule; None in the
      metadata of a state for a λ that is no schedule.
    resample_every: k, a schedule, or None.
    sampler: A key of `samplers.SAMPLERS`.
    target: What becomes of each leaf, see `labels.label_leaves`.
    axes: What the axes of each leaf mean, see `axes.letters`.
    residual: "reset" (GMixout) or "keep" (Mixout).
    moments: "carry" or "reset".
    rescale: Whether the forward pass divides the residual by s.
    implementation: Of the kernels for stratified masks; None for the fastest
      that can run where the step is traced.
  """

  sparsity: float = 0.9
  anchor_decay: Any = 0.3
  resample_every: resampling.Period = 10
  sampler: str = "stratified"
  target: labels.Target | labels.Rules = None
  axes: axes_lib.Axes = "flax"
  residual: Residual = "reset"
  moments: Moments = "carry"
  rescale: bool = True
  implementation: Implementation | None = None

  def __post_init__(self):
    """Checks every setting.

    Raises:
      ValueError: If one is out of range; the message quotes it.
      NotImplementedError: If `implementation` cannot run here; says why.
    """
    if isinstance(self.sparsity, jax.core.Tracer):
      raise ValueError(
        "sparsity sets array shapes, so it must be a Python float, got the"
        f" traced value {self.sparsity}; with optax.inject_hyperparams, name it"
        " in `static_args`."
      )
    if not _is_number(self.sparsity) or not 0 <= self.sparsity < 1:
      raise ValueError(
        "sparsity must be in [0, 1): the fraction of entries held at the"
        f" anchor, got {self.sparsity!r}."
      )
    _check_choice("sampler", self.sampler, tuple(samplers.SAMPLERS))
    _check_choice("residual", self.residual, ("reset", "keep"))
    _check_choice("moments", self.moments, ("carry", "reset"))
    _check_choice("rescale", self.rescale, (True, False))
    resampling.check_period(self.resample_every)
    check_anchor_decay(self.anchor_decay)
    labels.check_target(self.target)
    axes_lib.check_axes(self.axes)
    kernel_layout.check_implementation(self.implementation, self.sampler)
    self._set(sparsity=float(self.sparsity), rescale=bool(self.rescale))
    if isinstance(self.resample_every, numbers.Integral):
      self._set(resample_every=int(self.resample_every))

  def static(self) -> "Settings":
    """The same with a constant λ left out: what a pytree carries.

    The state holds its value, and under `optax.inject_hyperparams` it is an
    array.
    """
    constant = None if not callable(self.anchor_decay) else self.anchor_decay
    copy = object.__new__(Settings)
    copy._set(**{**self._fields(), "anchor_decay": constant})
    return copy

  def difference(self, other: "Settings") -> str | None:
    """Name of a setting in which two differ, None if they do not.

    A constant λ may differ, and so may who does the arithmetic. So may objects
    of one class that are called as functions are: there is no way to tell.
    """
    theirs = other._fields()
    for name, own in self._fields().items():
      constants = not callable(own) and not callable(theirs[name])
      if name == "implementation" or (name == "anchor_decay" and constants):
        continue
      if not same(own, theirs[name]) and not _is_opaque(own, theirs[name]):
        return name
    return None

  @property
  def kept(self) -> float:
    """Wanted fraction of active entries.

    1 - 0.9 is 0.09999999999999998, of which ten entries would keep none.
    """
    return round(1.0 - self.sparsity, 12)

  @property
  def empties_residuals(self) -> bool:
    """Whether a redraw sets Δ back to zero."""
    return self.residual == "reset" and self.resample_every is not None

  def decay(self, episode: jax.Array, constant: Any) -> jax.Array:
    """λ in an episode: the schedule's, or `constant` if there is none.

    Where it is traced, and nobody can look at it, what is out of range is the
    nearest that is allowed.

    Raises:
      ValueError: If it is no scalar or, where it is known, out of range.
    """
    if callable(self.anchor_decay):
      constant = self.anchor_decay(episode)
    decay = jnp.asarray(constant, dtype=float)
    known = not isinstance(decay, jax.core.Tracer)
    if decay.shape != () or (known and not 0 <= float(decay) <= 1):
      raise ValueError(
        "anchor_decay must be a schedule to scalars in [0, 1], got"
        f" {decay} for episode {episode}."
      )
    return decay if known else jnp.clip(decay, 0, 1)

  def mixed_leaves(
    self, params: Any
  ) -> tuple[list[str], dict[int, mixed_leaf.MixedLeaf]]:
    """What becomes of each leaf, and how each mixed one is mixed.

    Returns:
      The label of each leaf, "mixed", "dense" or "frozen"; and the arithmetic
      of the mixed ones, by their position among the leaves.

    Raises:
      ValueError: If no leaf is targeted, one is too small to keep an entry, or
        two have one path, which would give them one mask.
    """
    named = labels.named_leaves(params)
    labels.check_paths(named)
    found = labels.label_leaves(self.target, params)
    return found, {
      i: self.mixed_leaf(*named[i])
      for i, label in enumerate(found)
      if label == "mixed"
    }

  def mixed_leaf(self, path: str, leaf: Any) -> mixed_leaf.MixedLeaf:
    """How the leaf at `path` is mixed if it is."""
    layout = samplers.leaf_layout(
      self.sampler,
      path,
      tuple(leaf.shape),
      self.kept,
      axes_lib.letters(self.axes, path, leaf),
    )
    if self.sampler == "stratified":
      by_kernels = kernel_layout.kernel_layout(
        path, leaf, layout, self.implementation
      )
      layout = by_kernels or layout
    divisor = layout.kept_fraction if self.rescale else 1.0
    if self.residual == "reset":
      return mixed_leaf.ResetResidual(path, layout, divisor)
    return mixed_leaf.KeptResidual(path, layout, divisor)

  def _fields(self) -> dict[str, Any]:
    return {f.name: getattr(self, f.name) for f in dataclasses.fields(self)}

  def _set(self, **values: Any) -> None:
    for name, value in values.items():
      object.__setattr__(self, name, value)

  def __eq__(self, other: object) -> bool:
    return self is other or (
      isinstance(other, Settings) and same(self._fields(), other._fields())
    )

  def __hash__(self) -> int:
    return hash((self.sparsity, self.sampler, self.residual, self.moments))


def takes_settings[F: Callable[..., Any]](function: F) -> F:
  """Lists the settings, with their defaults, in a function's signature.

  The function takes ``**settings``. So `help`, an editor and
  `optax.inject_hyperparams` see every one, and none is written twice. A keyword
  that is neither a setting nor an argument of its own is a TypeError.
  """
  signature = inspect.signature(function)
  parameters = signature.parameters.values()
  own = [p for p in parameters if p.kind is not p.VAR_KEYWORD]
  settings = [
    inspect.Parameter(
      field.name,
      inspect.Parameter.KEYWORD_ONLY,
      default=field.default,
      annotation=MixSettings.__annotations__[field.name],
    )
    for field in dataclasses.fields(Settings)
  ]
  names = [parameter.name for parameter in (*own, *settings)]

  @functools.wraps(function)
  def checked(*args: Any, **kwargs: Any) -> Any:
    for name in kwargs:
      if name not in names:
        near = difflib.get_close_matches(name, names, 1)
        known = near or [parameter.name for parameter in settings]
        raise TypeError(
          f"{function.__qualname__}() got an unexpected keyword argument"
          f" {name!r}; did you mean {' or '.join(known)}?"
        )
    return function(*args, **kwargs)

  checked.__signature__ = signature.replace(parameters=[*own, *settings])  # pyright: ignore[reportAttributeAccessIssue]
  return checked  # pyright: ignore[reportReturnType]


def check_anchor_decay(anchor_decay: Any) -> None:
  """Raises ValueError unless λ is a number in [0, 1], traced, or a schedule."""
  if callable(anchor_decay) or isinstance(anchor_decay, jax.core.Tracer):
    return
  if not _is_number(anchor_decay) or not 0 <= anchor_decay <= 1:
    raise ValueError(
      "anchor_decay must be in [0, 1] or a schedule episode -> value, got"
      f" {anchor_decay!r}."
    )


def _is_number(value: Any) -> bool:
  """Whether it is a real scalar: Python, NumPy, or a concrete JAX array."""
  if isinstance(value, bool | jax.core.Tracer):
    return False
  return isinstance(value, numbers.Real) or (
    isinstance(value, np.ndarray | jax.Array)
    and value.ndim == 0
    and jnp.issubdtype(value.dtype, jnp.number)
  )


def _is_opaque(one: Any, other: Any) -> bool:
  """Whether two values are objects to be called, of one class."""
  return (
    callable(one)
    and type(one) is type(other)
    and not isinstance(one, types.FunctionType | types.MethodType)
    and not isinstance(one, functools.partial)
  )


def _check_choice(name: str, value: Any, allowed: tuple[Any, ...]) -> None:
  if value not in allowed:
    raise ValueError(f"{name} must be one of {allowed}, got {value!r}.")
