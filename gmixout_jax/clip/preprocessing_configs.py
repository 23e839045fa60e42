"""How images are prepared, as the config files of four libraries say it."""

import dataclasses
import math
from collections.abc import Mapping, Sequence
from typing import Any, Literal

from gmixout_jax.clip.images import CLIP_MEAN, CLIP_STD

Resize = Literal["crop", "squeeze"]
Interpolation = Literal["bilinear", "bicubic"]

_PILLOW: dict[Any, Interpolation] = {2: "bilinear", 3: "bicubic"}
# Steps of Hugging Face's processors that are honoured here, or change nothing.
_STEPS = ("resize", "center_crop", "rescale", "normalize", "convert_rgb")
# timm's, where its config says nothing else.
_CROP_PCT = 0.875


@dataclasses.dataclass(frozen=True)
class Preprocessing:
  """How a model wants its images.

  Attributes:
    mean: Of the pixels it was trained on, per channel, on the scale [0, 1].
    std: Likewise.
    size: Side of the model's square input, in pixels; None if unknown.
    resize: "crop" keeps the proportions and takes the central square,
      "squeeze" resizes the whole image to the square.
    zoom: Under "crop", the shorter side of the resized image over that of the
      square.
    interpolation: Of the resizing, antialiased; None if unknown.
  """

  mean: tuple[float, ...]
  std: tuple[float, ...]
  size: int | None = None
  resize: Resize = "crop"
  zoom: float = 1.0
  interpolation: Interpolation | None = None


def of_hugging_face(raw: Mapping[str, Any]) -> Preprocessing:
  """What preprocessor_config.json says.

  Raises:
    ValueError: If a field is damaged, or asks for what is not done here.
  """
  for name, value in raw.items():
    step = name.removeprefix("do_")
    unknown = step != name and step not in _STEPS
    if value and (unknown or name in ("rescale_offset", "offset", "crop_pct")):
      raise ValueError(f"{name} is not supported, got {value!r}.")
  scale = 255.0
  if raw.get("do_rescale", True):
    factor = raw.get("rescale_factor", 1 / 255)
    scale *= _number("rescale_factor", factor)
  mean, std = (0.0,) * 3, (1.0,) * 3
  if raw.get("do_normalize", True):
    mean, std = _pair(raw, "image_mean", "image_std")
  if not math.isclose(scale, 1):  # pixels were in another range than [0, 1]
    mean, std = (tuple(v / scale for v in values) for values in (mean, std))
  size, resize, zoom = _geometry(raw)
  return Preprocessing(
    mean, std, size, resize, zoom, _interpolation("resample", raw, _PILLOW)
  )


def to_hugging_face(preprocessing: Preprocessing) -> dict[str, Any]:
  """Inverse of `of_hugging_face`, in whole pixels.

  Example:
    >>> found = Preprocessing((0.5,), (0.5,), size=32, zoom=1.25)
    >>> to_hugging_face(found)["size"]
    {'shortest_edge': 40}
    >>> of_hugging_face(to_hugging_face(found)) == found
    True
  """
  raw: dict[str, Any] = {
    "do_normalize": True,
    "do_rescale": True,
    "image_mean": list(preprocessing.mean),
    "image_std": list(preprocessing.std),
  }
  if (side := preprocessing.size) is None:
    return raw
  crops = preprocessing.resize == "crop"
  square = {"height": side, "width": side}
  edge = {"shortest_edge": round(side * preprocessing.zoom)}
  raw |= {
    "image_processor_type": "CLIPImageProcessor",  # which does both
    "do_resize": True,
    "size": edge if crops else square,
    "do_center_crop": crops,
  }
  if crops:
    raw["crop_size"] = square
  if preprocessing.interpolation is not None:
    numbers = {name: number for number, name in _PILLOW.items()}
    raw["resample"] = numbers[preprocessing.interpolation]
  return raw


def _geometry(raw: Mapping[str, Any]) -> tuple[int | None, Resize, float]:
  """Size, way and zoom of Hugging Face's `size` and `crop_size`."""
  if not raw.get("do_resize", True):
    raise ValueError(f"do_resize must be true, got {raw['do_resize']!r}.")
  size, crop = raw.get("size"), raw.get("crop_size")
  if size is None:
    return None, "crop", 1.0
  kind = str(raw.get("image_processor_type", raw.get("feature_extractor_type")))
  if isinstance(size, int):
    squeezes = any(name in kind for name in ("ViT", "DeiT", "Siglip"))
    size = (
      {"height": size, "width": size} if squeezes else {"shortest_edge": size}
    )
  if not isinstance(size, Mapping):
    raise ValueError(f"size must be a number or an object, got {size!r}.")
  cropping = raw.get("do_center_crop", crop is not None)
  if {"height", "width"} <= set(size):
    side = _side("size", size)
    if cropping and crop is not None and _side("crop_size", crop) != side:
      raise ValueError(
        f"crop_size must be that of size, {side}, where this is a square, got"
        f" {crop!r}."
      )
    return side, "squeeze", 1.0
  if set(size) != {"shortest_edge"} or not cropping:
    raise ValueError(
      "size must be a square, or a shortest edge with do_center_crop: other"
      f" images would not be squares; got {size!r}."
    )
  edge = _side("size", {"height": size["shortest_edge"]})
  side = edge if crop is None else _side("crop_size", crop)
  if side > edge:
    raise ValueError(f"crop_size must be at most {edge}, got {crop!r}.")
  return side, "crop", edge / side


def of_open_clip(raw: Mapping[str, Any]) -> Preprocessing:
  """What open_clip's `preprocess_cfg` says; errors as of `of_hugging_face`."""
  ways: dict[str, Resize] = {"shortest": "crop", "squash": "squeeze"}
  way = raw.get("resize_mode", "shortest")
  if way not in [*ways]:
    raise ValueError(f"resize_mode must be one of {[*ways]}, got {way!r}.")
  mean, std = _pair({"mean": CLIP_MEAN, "std": CLIP_STD} | dict(raw))
  names = {"bilinear": "bilinear", "bicubic": "bicubic", "random": "bicubic"}
  size = raw.get("size")
  return Preprocessing(
    mean,
    std,
    None if size is None else _side("size", size),
    ways[way],
    interpolation=_interpolation("interpolation", raw, names),
  )


def of_timm(raw: Mapping[str, Any]) -> Preprocessing | None:
  """What timm's `pretrained_cfg` says; None without a mean and a deviation.

  Errors are those of `of_hugging_face`.
  """
  if raw.get("mean") is None and raw.get("std") is None:
    return None
  ways: dict[str, Resize] = {"center": "crop", "squash": "squeeze"}
  way = raw.get("crop_mode") or "center"
  if way not in [*ways]:
    raise ValueError(f"crop_mode must be one of {[*ways]}, got {way!r}.")
  mean, std = _pair(raw)
  share = _number("crop_pct", raw.get("crop_pct") or _CROP_PCT)
  if share > 1 or (share < 1 and way == "squash"):
    raise ValueError(
      f"crop_pct must be at most 1, and 1 with 'squash', got {share!r}."
    )
  size = raw.get("input_size")
  side = None if size is None else _side("input_size", [*size][1:])
  zoom = 1 / share
  if side is not None:  # timm resizes to whole pixels
    zoom = max(1, math.floor(side / share) / side)
  names = {"bilinear": "bilinear", "bicubic": "bicubic"}
  return Preprocessing(
    mean,
    std,
    side,
    ways[way],
    zoom,
    _interpolation("interpolation", raw, names),
  )


def to_timm(preprocessing: Preprocessing) -> dict[str, Any]:
  """Inverse of `of_timm`.

  Example:
    >>> found = Preprocessing((0.5,), (0.5,), size=224, resize="squeeze")
    >>> to_timm(found)["crop_mode"], to_timm(found)["input_size"]
    ('squash', [1, 224, 224])
    >>> of_timm(to_timm(found)) == found
    True
  """
  ways = {"crop": "center", "squeeze": "squash"}
  side, channels = preprocessing.size, len(preprocessing.mean)
  share = 1 / preprocessing.zoom
  if side is not None:
    edge = round(side * preprocessing.zoom)
    share = side / edge
    while math.floor(side / share) < edge:  # by a rounding
      share = math.nextafter(share, 0)
  raw: dict[str, Any] = {
    "mean": list(preprocessing.mean),
    "std": list(preprocessing.std),
    "crop_pct": share,
    "crop_mode": ways[preprocessing.resize],
  }
  if side is not None:
    raw["input_size"] = [channels, side, side]
  if preprocessing.interpolation is not None:
    raw["interpolation"] = preprocessing.interpolation
  return raw


def _interpolation(
  name: str, raw: Mapping[str, Any], known: Mapping[Any, str]
) -> Any:
  value = raw.get(name)
  if value is not None and value not in [*known]:
    raise ValueError(f"{name} must be one of {[*known]}, got {value!r}.")
  return None if value is None else known[value]


def _finite(value: Any) -> bool:
  number = isinstance(value, int | float) and not isinstance(value, bool)
  return number and math.isfinite(value)


def _number(name: str, value: Any) -> float:
  if not _finite(value) or value <= 0:
    raise ValueError(f"{name} must be a positive number, got {value!r}.")
  return float(value)


def _side(name: str, value: Any) -> int:
  """Of a square: a number, its height and width, or one of these alone."""
  if isinstance(value, Mapping):
    value = list(value.values())
  sides = [value] if isinstance(value, int) else value
  if (
    not isinstance(sides, Sequence)
    or not all(isinstance(n, int) and n > 0 for n in sides)
    or len(set(sides)) != 1
  ):
    raise ValueError(f"{name} must be a square in pixels, got {value!r}.")
  return sides[0]


def _pair(
  raw: Mapping[str, Any], mean: str = "mean", std: str = "std"
) -> tuple[tuple[float, ...], tuple[float, ...]]:
  """Two lists of numbers of one length, the second positive."""
  found = []
  for name in (mean, std):
    values = raw.get(name)
    if not isinstance(values, list | tuple) or not all(map(_finite, values)):
      raise ValueError(f"{name} must be a list of numbers, got {values!r}.")
    found.append(tuple(map(float, values)))
  if len(found[0]) != len(found[1]) or min(found[1], default=0) <= 0:
    raise ValueError(
      f"{std} must hold one positive number for each of {mean}, got {found[1]}"
      f" and {found[0]}."
    )
  return found[0], found[1]
