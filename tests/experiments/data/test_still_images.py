"""Tests which kinds of files are read, and with which pixels."""

import io

import cv2
import numpy as np
import pytest
from PIL import Image

from experiments.data import crops
from experiments.data.decode import View, decode

SIZE = 4
VIEW = View(SIZE)
RNG = np.random.default_rng(0)
COLOURS = RNG.integers(0, 256, (SIZE, SIZE, 3), dtype=np.uint8)
WHOLE = (1.0, 1.0)  # a crop of all of a square, if its proportions allow


def encoded(image, kind, **options):
  file = io.BytesIO()
  image.save(file, kind, **options)
  return file.getvalue()


def seen(data):
  """In evaluation, and in training where the crop is the whole image."""
  evaluated = decode(data, VIEW)

  class Whole:
    """Draws the largest crop, of the proportions of a square."""

    def __init__(self):
      # Of the area; of the proportions, their middle; of the place.
      self.random = iter((0.0, 0.5, 0.0, 0.0)).__next__

  trained = crops.cut_out(data, (SIZE, SIZE), WHOLE, Whole())
  return evaluated, trained


def assert_seen(data, expected, tolerance=0):
  for pixels in seen(data):
    assert pixels.dtype == np.uint8
    difference = np.abs(pixels.astype(int) - np.asarray(expected, int))
    assert difference.max() <= tolerance, pixels[..., 0]


@pytest.mark.parametrize("kind", ["BMP", "PNG", "TIFF", "WEBP"])
def test_8_bit_images_are_as_ever(kind):
  options = {"lossless": True} if kind == "WEBP" else {}
  assert_seen(encoded(Image.fromarray(COLOURS), kind, **options), COLOURS)
  # Evaluation resizes as it always did: by Pillow, in RGB.
  large = RNG.integers(0, 256, (33, 47, 3), dtype=np.uint8)
  data = encoded(Image.fromarray(large), kind, **options)
  for fit, way in (("squeeze", "BILINEAR"), ("crop", "BICUBIC")):
    box = (0, 0, 47, 33) if fit == "squeeze" else (7, 0, 40, 33)
    expected = Image.fromarray(large).resize(
      (16, 16), Image.Resampling[way], box=box
    )
    found = decode(data, View(16, fit=fit))
    np.testing.assert_array_equal(found, np.asarray(expected))


@pytest.mark.parametrize("mode", ["1", "L", "P", "CMYK"])
def test_other_colours_of_8_bits_are_as_ever(mode):
  image = Image.fromarray(COLOURS).convert(mode)
  data = encoded(image, "TIFF")
  assert_seen(data, np.asarray(image.convert("RGB")))


def test_grey_jpegs_are_grey():
  smooth = np.add.outer(np.arange(64), np.arange(64)).astype(np.uint8)
  data = encoded(Image.fromarray(smooth), "JPEG", quality=95)
  rng = np.random.default_rng(0)
  pixels = crops.cut_out(data, (16, 16), (0.5, 1.0), rng)
  assert pixels.shape == (16, 16, 3)
  assert np.ptp(pixels, axis=-1).max() == 0


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "TIFF", "WEBP"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_exif_orientation_is_honoured(kind, orientation):
  corner = np.zeros((64, 64, 3), np.uint8)
  corner[:32, :32], corner[:32, 32:], corner[32:, :32] = 250, 150, 60
  exif = Image.Exif()
  exif[0x0112] = orientation
  data = encoded(Image.fromarray(corner), kind, exif=exif, quality=95)
  upright = {
    1: corner,
    2: corner[:, ::-1],
    3: corner[::-1, ::-1],
    4: corner[::-1],
    5: corner.transpose(1, 0, 2),
    6: np.rot90(corner, -1),
    7: corner[::-1, ::-1].transpose(1, 0, 2),
    8: np.rot90(corner),
  }[orientation]
  for pixels in seen(data):
    corners = pixels[::3, ::3].astype(int) - upright[::63, ::63]
    assert np.abs(corners).max() < 12


def test_an_exif_that_is_broken_does_not_matter():
  data = encoded(Image.fromarray(COLOURS), "JPEG", exif=b"Exif\0\0MM\0*\xff")
  assert_seen(data, np.asarray(Image.open(io.BytesIO(data))))


@pytest.mark.parametrize("kind", ["PNG", "TIFF"])
def test_grey_of_16_bits_is_scaled(kind):
  values = np.linspace(0, 65535, SIZE * SIZE).astype(np.uint16)
  data = encoded(Image.fromarray(values.reshape(SIZE, SIZE)), kind)
  expected = np.round(values / 257).reshape(SIZE, SIZE, 1)
  assert_seen(data, expected.repeat(3, axis=-1))


def test_colours_of_16_bits_are_scaled():
  values = np.linspace(0, 65535, SIZE * SIZE * 3).astype(np.uint16)
  values = values.reshape(SIZE, SIZE, 3)
  _, data = cv2.imencode(".png", values[..., ::-1])
  assert_seen(data.tobytes(), np.round(values / 257), tolerance=1)


def test_what_is_transparent_lies_on_white():
  alpha = np.tile(np.array([0, 51, 204, 255], np.uint8), (SIZE, 1))
  share = alpha[..., None] / 255
  pixels = np.concatenate([COLOURS, alpha[..., None]], axis=-1)
  expected = np.round(COLOURS * share + 255 * (1 - share))
  image = Image.fromarray(pixels)
  for kind in ("PNG", "TIFF"):
    assert_seen(encoded(image, kind), expected, tolerance=1)
  # Where it is opaque nothing is lost, and where it is clear nothing is seen.
  for found in seen(encoded(image, "PNG")):
    np.testing.assert_array_equal(found[:, 3], COLOURS[:, 3])
    np.testing.assert_array_equal(found[:, 0], 255)
  grey = np.stack([COLOURS[..., 0], alpha], axis=-1)
  expected = np.round(grey[..., :1] * share + 255 * (1 - share))
  data = encoded(Image.fromarray(grey), "PNG")
  assert_seen(data, expected.repeat(3, axis=-1), tolerance=1)


def test_a_clear_colour_lies_on_white():
  indices = np.arange(SIZE * SIZE, dtype=np.uint8).reshape(SIZE, SIZE) % 3
  image = Image.fromarray(indices)
  image.putpalette([10, 20, 30, 40, 50, 60, 70, 80, 90])
  image = image.convert("P") if image.mode != "P" else image
  data = encoded(image, "PNG", transparency=1)
  table = np.array([[10, 20, 30], [255, 255, 255], [70, 80, 90]])
  assert_seen(data, table[indices])
  plain = Image.fromarray(np.full((SIZE, SIZE, 3), 7, np.uint8))
  assert_seen(encoded(plain, "PNG", transparency=(7, 7, 7)), 255)
  deep = Image.fromarray(np.full((SIZE, SIZE), 700, np.uint16))
  assert_seen(encoded(deep, "PNG", transparency=700), 255)


@pytest.mark.parametrize("kind", ["PNG", "TIFF", "WEBP", "GIF"])
def test_animations_are_refused_by_name(kind, tmp_path):
  frames = [Image.new("RGB", (SIZE, SIZE), c) for c in ("red", "blue", "lime")]
  path = tmp_path / f"moving.{kind.lower()}"
  frames[0].save(path, kind, save_all=True, append_images=frames[1:])
  for refuses in (
    lambda: decode(str(path), VIEW),
    lambda: crops.cut_out(str(path), (4, 4), WHOLE, np.random.default_rng(0)),
  ):
    with pytest.raises(
      ValueError, match=rf"moving\.{kind.lower()} is not a .*holds 3 pictures"
    ):
      refuses()


def test_the_preview_in_the_jpeg_of_a_phone_is_no_animation():
  image = Image.new("RGB", (16, 16), (200, 10, 60))
  preview = Image.new("RGB", (16, 16), "white")
  data = encoded(image, "MPO", save_all=True, append_images=[preview])
  for pixels in seen(data):
    assert np.abs(pixels.astype(int) - (200, 10, 60)).max() <= 4


@pytest.mark.parametrize(
  ("pixels", "message"),
  [
    (np.ones((SIZE, SIZE), np.float32), "its pixels are floats"),
    (np.ones((SIZE, SIZE), np.int32), "its pixels are integers of 32 bits"),
  ],
)
def test_numbers_without_a_white_are_refused(tmp_path, pixels, message):
  path = tmp_path / "scan.tiff"
  Image.fromarray(pixels).save(path)
  for refuses in (
    lambda: decode(path, VIEW),
    lambda: crops.cut_out(path, (4, 4), WHOLE, np.random.default_rng(0)),
  ):
    with pytest.raises(ValueError, match=rf"scan\.tiff is not .*: {message}"):
      refuses()


def test_broken_files_are_named(tmp_path):
  whole = encoded(Image.fromarray(COLOURS).resize((200, 200)), "JPEG")
  for name, content in (
    ("empty.jpg", b""),
    ("text.jpg", b"not an image"),
    ("half.jpg", whole[: len(whole) // 2]),
    ("header.jpg", whole[:20]),
  ):
    (tmp_path / name).write_bytes(content)
    for refuses in (
      lambda path: decode(path, VIEW),
      lambda path: crops.cut_out(path, (4, 4), WHOLE, np.random.default_rng(0)),
    ):
      with pytest.raises(ValueError, match=f"{name} is not a readable image"):
        refuses(str(tmp_path / name))
