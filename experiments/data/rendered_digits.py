"""Rendered digits with captions: the demo's small stand-in for the web.

CLIP is robust because its pretraining images are broad and described in
words. Here the breadth is made: ten digits in 16 typefaces and 32 hands, bent,
coloured either way round, over plain and textured backgrounds, blurred, noisy
or coarse, with captions that name the digit and some of its style. The fonts
come with matplotlib, so nothing is downloaded; the Computer Modern faces are
never used in pretraining and stay an unseen style for evaluation.

Every image is a pure function of `(seed, index)`. Ten consecutive images show
the ten digits in the same colours, face and words, so that only the digits
distinguish the images of such a group:

  images, labels, captions = rendered_digits.render(seed=0, indices=range(10))
"""

import dataclasses
from collections.abc import Iterable, Sequence

import numpy as np
from PIL import Image, ImageFilter

from experiments.data import backgrounds, glyphs, handwriting

SIZE = backgrounds.SIZE

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

PLAIN_CAPTION = "a photo of the digit {}"


@dataclasses.dataclass(frozen=True)
class Style:
  """What can be seen in one image besides the digit.

  Attributes:
    font: One of `STYLES` or `UNSEEN_FONTS`: the stem of a TTF file that
      matplotlib ships, or the name of a hand.
    stroke: Index into the outline widths, 0 (as designed) to 3 (heavy).
    rotation: Degrees, counter-clockwise.
    shear: Horizontal slant, in pixels per pixel of height.
    scale: Width and height relative to a digit 20 pixels high.
    shift: Offset of the centre, in pixels, (right, down).
    bend: Largest displacement of the smooth random warp, in pixels.
    ink: Name of the digit's colour.
    paper: Name of the background's colour.
    texture: One of `backgrounds.TEXTURES`.
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
    fonts: What to draw from, each as `Style.font`.

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
    fonts: What to draw from, each as `Style.font`.
    clean: Grey, nearly upright, on plain paper, without noise or blur.

  Returns:
    The style.
  """
  rough = not clean
  ink, paper = backgrounds.draw_colours(
    words, backgrounds.GREYS if clean else backgrounds.COLOURS
  )
  spread = 1.0 if rough and shape.random() < 0.5 else 0.4
  size = shape.uniform(0.8, 1.25)
  return Style(
    font=str(words.choice(fonts)),
    stroke=int(words.integers(len(glyphs.STROKES))),
    rotation=spread * shape.uniform(-25, 25),
    shear=spread * shape.uniform(-0.4, 0.4),
    scale=(size * shape.uniform(0.7, 1.25), size),
    shift=(spread * shape.uniform(-3, 3), spread * shape.uniform(-3, 3)),
    bend=shape.uniform(0, 3.0),
    ink=ink,
    paper=paper,
    texture=str(words.choice(backgrounds.TEXTURES)) if rough else "plain",
    grid=int(words.integers(8, 13)) if words.random() < 0.4 else SIZE,
    blur=words.uniform(0.4, 1.1) if rough and words.random() < 0.3 else 0.0,
    noise=words.uniform(8, 40) if rough and words.random() < 0.3 else 0.0,
  )


def draw(digit: int, style: Style, rng: np.random.Generator) -> np.ndarray:
  """Draws one image, uint8 [28, 28, 3]; `rng` gives what no word names."""
  alpha = glyphs.bend(
    glyphs.glyph(style.font, digit, style.stroke),
    SIZE,
    rng,
    rotation=style.rotation,
    shear=style.shear,
    scale=style.scale,
    shift=style.shift,
    warp=style.bend,
  )
  if style.grid < SIZE:
    coarse = Image.fromarray(alpha).resize(
      [style.grid] * 2, Image.Resampling.BOX
    )
    alpha = np.asarray(coarse.resize((SIZE, SIZE), Image.Resampling.BICUBIC))
  alpha = np.clip(alpha, 0, 1)[..., None]
  ink = backgrounds.shade(style.ink, rng)
  paper = backgrounds.background(
    backgrounds.shade(style.paper, rng), style.texture, rng
  )
  picture = alpha * ink + (1 - alpha) * paper
  picture += style.noise * rng.standard_normal(picture.shape)
  picture = np.clip(picture, 0, 255).astype(np.uint8)
  if style.blur:
    blurred = Image.fromarray(picture).filter(
      ImageFilter.GaussianBlur(style.blur)
    )
    picture = np.asarray(blurred)
  return picture


def caption(digit: int, style: Style, rng: np.random.Generator) -> str:
  """Names the digit and its style, in a random choice of words."""
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
      | {*backgrounds.COLOURS, *backgrounds.TEXTURES}
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
