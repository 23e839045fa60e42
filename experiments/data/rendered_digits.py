"""Rendered digits with captions: the demo's small stand-in for the web.

CLIP is robust because its pretraining images are broad and described in
words. Here the breadth is made: ten digits in 16 typefaces and 32 hands, bent,
coloured either way round, over plain and textured backgrounds, blurred, noisy
or coarse, with captions that name the digit and some of its style. The fonts
come with matplotlib, so nothing is downloaded; the Computer Modern faces are
never used in pretraining and stay an unseen style for evaluation.

Every image is a pure function of `(seed, index)`. Ten consecutive images show
the ten digits in the same colours, face and words, so that a batch made of
such groups can only be told apart by reading the digits:

  images, labels, captions = rendered_digits.render(seed=0, indices=range(10))
"""

import dataclasses
import functools
import pathlib
from collections.abc import Iterable, Sequence

import matplotlib
import numpy as np
from PIL import Image, ImageDraw, ImageFilter, ImageFont

from experiments.data import handwriting

SIZE = 28
"""Height and width of every image, in pixels."""

NAMES = (
  *("zero", "one", "two", "three", "four"),
  *("five", "six", "seven", "eight", "nine"),
)

FONTS = (
  *("DejaVuSans", "DejaVuSans-Bold"),
  *("DejaVuSans-Oblique", "DejaVuSans-BoldOblique"),
  *("DejaVuSansMono", "DejaVuSansMono-Bold"),
  *("DejaVuSansMono-Oblique", "DejaVuSansMono-BoldOblique"),
  *("DejaVuSerif", "DejaVuSerif-Bold"),
  *("DejaVuSerif-Italic", "DejaVuSerif-BoldItalic"),
  *("STIXGeneral", "STIXGeneralBol"),
  *("STIXGeneralItalic", "STIXGeneralBolIta"),
)
"""The faces of pretraining."""

STYLES = FONTS + handwriting.HANDS
"""All that pretraining is drawn with: 16 faces and 32 hands."""

UNSEEN_FONTS = ("cmr10", "cmb10", "cmss10", "cmti10", "cmtt10")
"""The Computer Modern faces, kept out of pretraining."""

COLOURS = {
  "black": (12, 12, 12),
  "gray": (128, 128, 128),
  "white": (245, 245, 245),
  "red": (205, 35, 35),
  "orange": (240, 140, 25),
  "yellow": (240, 220, 50),
  "green": (40, 150, 60),
  "cyan": (50, 200, 210),
  "blue": (35, 65, 200),
  "purple": (120, 40, 160),
  "pink": (240, 130, 180),
  "brown": (115, 70, 35),
}

PLAIN_CAPTION = "a photo of the digit {}"

GREYS = ("black", "gray", "white")

TEXTURES = ("plain", "striped", "checkered", "dotted", "cloudy", "shaded")

_ATLAS = 64  # pixels of a glyph mask; its digit is about 48 of them high
_STROKES = (0, 1, 2, 4)  # extra outline, in pixels of the atlas


@dataclasses.dataclass(frozen=True)
class Style:
  """What can be seen in one image besides the digit.

  Attributes:
    font: Stem of a TTF file that matplotlib ships.
    stroke: Index into the outline widths, 0 (as designed) to 3 (heavy).
    rotation: Degrees, counter-clockwise.
    shear: Horizontal slant, in pixels per pixel of height.
    scale: Width and height relative to a digit 20 pixels high.
    shift: Offset of the centre, in pixels, (right, down).
    bend: Largest displacement of the smooth random warp, in pixels.
    ink: Name of the digit's colour.
    paper: Name of the background's colour.
    texture: One of `TEXTURES`.
    grid: Height in pixels that the strokes are coarsened to; `SIZE` is none.
    blur: Standard deviation of the Gaussian blur, in pixels.
    noise: Standard deviation of the pixel noise, in grey levels of 255.
  """

  font: str
  stroke: int
  rotation: float
  shear: float
  scale: tuple[float, float]
  shift: tuple[float, float]
  bend: float
  ink: str
  paper: str
  texture: str
  grid: int
  blur: float
  noise: float


def render(
  seed: int,
  indices: Iterable[int],
  *,
  fonts: Sequence[str] = STYLES,
) -> tuple[np.ndarray, np.ndarray, list[str]]:
  """Renders the digits at `indices` of the endless sequence called `seed`.

  Args:
    seed: Names the sequence; other seeds share no randomness.
    indices: Positions in it. An image depends on its own index alone, so
      slices may be rendered in any order and agree.
    fonts: Stems of TTF files to draw from.

  Returns:
    Images uint8 [n, 28, 28, 3], labels int32 [n] and n captions.
  """
  images, labels, captions = [], [], []
  for index in indices:
    group, digit = divmod(index, 10)
    clean = group % 2 == 0
    words = np.random.default_rng((seed, 0, group))
    shape = np.random.default_rng((seed, 1, index))
    style = draw_style(words, shape, fonts, clean=clean)
    plain = clean or words.random() < 0.25
    captions.append(
      PLAIN_CAPTION.format(NAMES[digit])
      if plain
      else caption(digit, style, words)
    )
    images.append(draw(digit, style, shape))
    labels.append(digit)
  return np.stack(images), np.asarray(labels, np.int32), captions


def draw_style(
  words: np.random.Generator,
  shape: np.random.Generator,
  fonts: Sequence[str] = STYLES,
  *,
  clean: bool = False,
) -> Style:
  """Draws a style: what captions can name from `words`, the rest from `shape`.

  Args:
    words: Drawn from for colours, face, texture and blemishes.
    shape: Drawn from for place, size and distortion.
    fonts: Stems of TTF files.
    clean: Grey, nearly upright, on plain paper, without blemishes.

  Returns:
    The style.
  """
  rough = not clean
  ink, paper = draw_colours(words, GREYS if clean else COLOURS)
  spread = 1.0 if rough and shape.random() < 0.5 else 0.4
  size = shape.uniform(0.8, 1.25)
  return Style(
    font=str(words.choice(fonts)),
    stroke=int(words.integers(len(_STROKES))),
    rotation=spread * shape.uniform(-25, 25),
    shear=spread * shape.uniform(-0.4, 0.4),
    scale=(size * shape.uniform(0.7, 1.25), size),
    shift=(spread * shape.uniform(-3, 3), spread * shape.uniform(-3, 3)),
    bend=shape.uniform(0, 3.0),
    ink=ink,
    paper=paper,
    texture=str(words.choice(TEXTURES)) if rough else "plain",
    grid=int(words.integers(8, 13)) if words.random() < 0.4 else SIZE,
    blur=words.uniform(0.4, 1.1) if rough and words.random() < 0.3 else 0.0,
    noise=words.uniform(8, 40) if rough and words.random() < 0.3 else 0.0,
  )


def draw(digit: int, style: Style, rng: np.random.Generator) -> np.ndarray:
  """Draws one image, uint8 [28, 28, 3]; `rng` gives what no word names."""
  alpha = _coverage(digit, style, rng)[..., None]
  ink = shade(style.ink, rng)
  paper = background(shade(style.paper, rng), style.texture, rng)
  picture = alpha * ink + (1 - alpha) * paper
  picture += style.noise * rng.standard_normal(picture.shape)
  picture = np.clip(picture, 0, 255).astype(np.uint8)
  if style.blur:
    blurred = Image.fromarray(picture).filter(
      ImageFilter.GaussianBlur(style.blur)
    )
    picture = np.asarray(blurred)
  return picture


def background(
  colour: np.ndarray, texture: str, rng: np.random.Generator
) -> np.ndarray:
  """A background, float [28, 28, 3], around `colour` in two tones.

  Args:
    colour: RGB, 0 to 255.
    texture: One of `TEXTURES`.
    rng: Draws the second tone, the period, the angle and the phase.
  """
  y, x = np.mgrid[:SIZE, :SIZE].astype(np.float32)
  angle = rng.uniform(0, np.pi)
  period = rng.uniform(4, 9)
  phase = rng.uniform(0, 2 * np.pi, 2)
  u = np.cos(angle) * x + np.sin(angle) * y
  v = -np.sin(angle) * x + np.cos(angle) * y
  wave_u = np.sin(2 * np.pi * u / period + phase[0])
  wave_v = np.sin(2 * np.pi * v / period + phase[1])
  match texture:
    case "plain":
      pattern = np.zeros_like(u)
    case "striped":
      pattern = np.clip(2 * wave_u, -1, 1)
    case "checkered":
      pattern = np.clip(4 * wave_u * wave_v, -1, 1)
    case "dotted":
      pattern = np.clip(4 * (wave_u + wave_v) - 4, -1, 1)
    case "cloudy":
      cells = rng.uniform(-1, 1, (5, 5)).astype(np.float32)
      smooth = Image.fromarray(cells).resize(
        (SIZE, SIZE), Image.Resampling.BICUBIC
      )
      pattern = np.asarray(smooth)
    case "shaded":
      pattern = (u - u.mean()) / (0.5 * SIZE)
    case _:
      raise ValueError(f"texture must be one of {TEXTURES}, got {texture!r}.")
  # The second tone is a lighter or darker one of the same colour, so that the
  # caption's colour word stays true and the digit stays readable.
  tone = rng.uniform(20, 50) * np.sign(127.5 - colour.mean())
  tint = rng.uniform(0.6, 1.0, 3)
  return colour + 0.5 * tone * tint * (pattern[..., None] + 1)


def caption(digit: int, style: Style, rng: np.random.Generator) -> str:
  """Says which digit it is and how it looks, in a random choice of words."""
  name = NAMES[digit] if rng.random() < 0.6 else str(digit)
  noun = rng.choice(("digit", "number"))
  thing = f"{style.ink} {noun} {name}"
  if rng.random() < 0.5:
    thing = f"{_look(style)} {thing}"
  if rng.random() < 0.3:
    thing = f"{rng.choice(('photo', 'picture', 'drawing'))} of a {thing}"
  text = f"a {thing} on a {style.paper} {style.texture} background"
  return text.replace("a orange", "an orange").replace(
    "a upright", "an upright"
  )


def vocabulary() -> tuple[str, ...]:
  """Every word a caption can contain, sorted."""
  words = "a an of the on background digit number photo picture drawing"
  looks = (
    "thin bold slanted serif typewriter handwritten upright coarse blurry noisy"
  )
  return tuple(
    sorted(
      {*NAMES, *map(str, range(10))}
      | {*words.split(), *looks.split()}
      | {*COLOURS, *TEXTURES}
    )
  )


def _look(style: Style) -> str:
  """The one word for the most striking thing about the strokes."""
  if style.noise:
    return "noisy"
  if style.blur:
    return "blurry"
  if style.grid < SIZE:
    return "coarse"
  if style.font in handwriting.HANDS:
    return "handwritten"
  if style.stroke == 3 or "Bol" in style.font:
    return "bold"
  if "Oblique" in style.font or "Ita" in style.font:
    return "slanted"
  if "Mono" in style.font:
    return "typewriter"
  if "Serif" in style.font:
    return "serif"
  return "thin" if style.stroke == 0 else "upright"


def draw_colours(
  rng: np.random.Generator, names: Iterable[str] = COLOURS
) -> tuple[str, str]:
  """Two of the named colours that stay apart in brightness."""
  names = list(names)
  while True:
    ink, paper = rng.choice(names, 2, replace=False)
    if abs(_brightness(ink) - _brightness(paper)) > 70:
      return str(ink), str(paper)


def _brightness(name: str) -> float:
  return float(np.dot(COLOURS[name], (0.299, 0.587, 0.114)))


def shade(name: str, rng: np.random.Generator) -> np.ndarray:
  """The colour called `name`, RGB, a little off."""
  return np.clip(np.asarray(COLOURS[name]) + rng.uniform(-18, 18, 3), 0, 255)


def _coverage(digit: int, style: Style, rng: np.random.Generator) -> np.ndarray:
  """How much of each pixel the warped glyph covers, float [28, 28]."""
  fine = 2 * SIZE  # sampled twice as finely, then averaged: no jagged edges
  grid = (np.arange(fine, dtype=np.float32) + 0.5) / 2
  y, x = np.meshgrid(grid, grid, indexing="ij")
  # The smooth warp: one low sine wave per axis across the other axis.
  wave = rng.uniform(0.5, 1.25, 4) * 2 * np.pi / SIZE
  phase = rng.uniform(0, 2 * np.pi, 2)
  amount = style.bend * rng.uniform(-1, 1, 2)
  x, y = (
    x + amount[0] * np.sin(wave[0] * y + wave[1] * x + phase[0]),
    y + amount[1] * np.sin(wave[2] * x + wave[3] * y + phase[1]),
  )
  x = x - SIZE / 2 - style.shift[0]
  y = y - SIZE / 2 - style.shift[1]
  angle = np.deg2rad(style.rotation)
  x, y = (
    np.cos(angle) * x - np.sin(angle) * y,
    np.sin(angle) * x + np.cos(angle) * y,
  )
  x = (x + style.shear * y) / style.scale[0]
  y = y / style.scale[1]
  zoom = 48 / 20  # pixels of the atlas per pixel of a digit 20 pixels high
  glyph = _glyph(style.font, digit, style.stroke)
  alpha = _bilinear(glyph, zoom * x + _ATLAS / 2, zoom * y + _ATLAS / 2)
  alpha = alpha.reshape(SIZE, 2, SIZE, 2).mean((1, 3))
  if style.grid < SIZE:
    coarse = Image.fromarray(alpha).resize(
      [style.grid] * 2, Image.Resampling.BOX
    )
    alpha = np.asarray(coarse.resize((SIZE, SIZE), Image.Resampling.BICUBIC))
  return np.clip(alpha, 0, 1)


@functools.cache
def _glyph(font: str, digit: int, stroke: int) -> np.ndarray:
  """A centred digit, 48 of 64 pixels high, float32 in [0, 1]."""
  if font in handwriting.HANDS:
    return handwriting.write(font, digit, _STROKES[stroke], _ATLAS)
  folder = pathlib.Path(matplotlib.get_data_path(), "fonts", "ttf")
  face = ImageFont.truetype(str(folder / f"{font}.ttf"), 60)
  width = _STROKES[stroke]
  image = Image.new("L", (128, 128))
  ImageDraw.Draw(image).text(
    (64, 64), str(digit), fill=255, font=face, anchor="mm", stroke_width=width
  )
  box = image.getbbox()
  assert box is not None, f"{font} has no glyph for {digit}"
  cut = image.crop(box)
  height = 48
  cut = cut.resize((max(1, round(cut.width * height / cut.height)), height))
  atlas = Image.new("L", (_ATLAS, _ATLAS))
  atlas.paste(cut, ((_ATLAS - cut.width) // 2, (_ATLAS - height) // 2))
  return np.asarray(atlas, np.float32) / 255


def _bilinear(image: np.ndarray, x: np.ndarray, y: np.ndarray) -> np.ndarray:
  """Samples `image` at pixel centres (x, y); outside it is 0."""
  padded = np.pad(image, 2)
  x = np.clip(x + 1.5, 0, padded.shape[1] - 2)
  y = np.clip(y + 1.5, 0, padded.shape[0] - 2)
  left, top = x.astype(np.int32), y.astype(np.int32)
  x, y = x - left, y - top
  upper = (1 - x) * padded[top, left] + x * padded[top, left + 1]
  lower = (1 - x) * padded[top + 1, left] + x * padded[top + 1, left + 1]
  return ((1 - y) * upper + y * lower).astype(np.float32)
