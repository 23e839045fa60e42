"""Tests random crops of the original, against other decoders and resizers."""

import functools
import io

import cv2
import numpy as np
import pytest
from PIL import Image
from scipy import stats

from experiments.bench import pictures
from experiments.bench.input import high_frequencies
from experiments.data import crops
from experiments.data.crops import Box

SIDE = (96, 96)
SIZES = ((300, 225), (500, 375), (900, 700))


@functools.cache
def jpegs(*size):
  """Four; not while tests are collected, as every worker does."""
  return pictures.jpegs(*size, 4)


def pillow(data, box, size=SIDE):
  """All of the JPEG, and one antialiased resize."""
  left, top, width, height = box
  with Image.open(io.BytesIO(data)) as image:
    resized = image.convert("RGB").resize(
      size[::-1],
      Image.Resampling.BILINEAR,
      box=(left, top, left + width, top + height),
    )
  return np.asarray(resized)


def drawn(size, count, areas=(0.08, 1.0)):
  for seed in range(count):
    rng = np.random.default_rng(seed)
    yield crops.aligned(crops.draw_box(*size, areas, rng), SIDE)


def psnr(one, other):
  return 10 * np.log10(255**2 / np.mean((one - other.astype(float)) ** 2))


@pytest.mark.parametrize("size", SIZES)
def test_three_decoders_see_the_same_crop(size):
  """simplejpeg and OpenCV shrink a JPEG alike, and Pillow nearly so.

  Pillow decodes it whole, and its pixels are averaged afterwards: on average
  they differ by less than 2 of 255 levels from cutting off frequencies.
  """
  width, height = size
  differences = {"cv2": [], "pillow": []}
  for number, box in enumerate(drawn(size, 12)):
    data = jpegs(*size)[number % 4]
    ours = crops.crop_jpeg(data, size, box, SIDE).astype(int)
    shrunk = crops.reduction(box, SIDE)
    factor = min(8, shrunk)
    flag = {
      1: cv2.IMREAD_COLOR,
      2: cv2.IMREAD_REDUCED_COLOR_2,
      4: cv2.IMREAD_REDUCED_COLOR_4,
      8: cv2.IMREAD_REDUCED_COLOR_8,
    }[factor]
    pixels = cv2.imdecode(np.frombuffer(data, np.uint8), flag)[..., ::-1]
    by_cv2 = crops._resized(
      np.ascontiguousarray(pixels), box, SIDE, shrunk, done=factor
    )
    whole = np.asarray(Image.open(io.BytesIO(data)).convert("RGB"))
    assert whole.shape == (height, width, 3)
    by_pillow = crops.crop_pixels(whole, box, SIDE)
    differences["cv2"].append(np.abs(ours - by_cv2).mean())
    differences["pillow"].append(np.abs(ours - by_pillow).mean())
  assert np.mean(differences["cv2"]) < 0.5, differences
  assert np.mean(differences["pillow"]) < 2, differences


@pytest.mark.parametrize("size", SIZES)
def test_a_crop_is_that_of_an_antialiased_resize(size):
  detail, quality = [], []
  for number, box in enumerate(drawn(size, 24)):
    data = jpegs(*size)[number % 4]
    ours, theirs = crops.crop_jpeg(data, size, box, SIDE), pillow(data, box)
    detail.append(high_frequencies(ours) / high_frequencies(theirs))
    quality.append(psnr(ours, theirs))
  assert 0.9 < np.mean(detail) < 1.2
  assert np.mean(quality) > 38
  assert min(quality) > 29


def test_opencvs_own_filters_would_alias():
  """Why there is a blur before the linear filter, and no area filter alone."""
  ratios = {"linear": [], "area": []}
  for number, box in enumerate(drawn((300, 225), 12, areas=(0.7, 1.0))):
    data = jpegs(300, 225)[number % 4]
    left, top, width, height = box
    whole = np.asarray(Image.open(io.BytesIO(data)).convert("RGB"))
    part = whole[top : top + height, left : left + width]
    for name, way in (("linear", cv2.INTER_LINEAR), ("area", cv2.INTER_AREA)):
      found = high_frequencies(cv2.resize(part, SIDE, interpolation=way))
      ratios[name].append(found / high_frequencies(pillow(data, box)))
  assert np.mean(ratios["linear"]) > 1.6
  assert np.mean(ratios["area"]) > 1.2


@pytest.mark.parametrize(
  "box",
  [Box(0, 0, 300, 225), Box(33, 8, 250, 96), Box(64, 2, 97, 200)],
  ids=["whole", "wide", "high"],
)
def test_proportions_are_resized_apart(box):
  data = jpegs(300, 225)[0]
  box = crops.aligned(box, SIDE)
  ours, theirs = (
    crops.crop_jpeg(data, (300, 225), box, SIDE),
    pillow(data, box),
  )
  assert psnr(ours, theirs) > 33


def test_small_images_are_enlarged_as_pillow_does():
  pixels = np.asarray(Image.open(io.BytesIO(jpegs(300, 225)[0])))[:20, :30]
  ours = crops.crop_pixels(pixels, Box(2, 3, 20, 15), SIDE)
  theirs = Image.fromarray(pixels).resize(
    SIDE, Image.Resampling.BILINEAR, box=(2, 3, 22, 18)
  )
  # Pillow rounds after each axis; and at the sides it sees beyond the box.
  inner = np.abs(ours.astype(int) - np.asarray(theirs))[4:-4, 4:-4]
  assert inner.max() <= 2


def test_very_large_pictures_are_averaged():
  """By more than the 8 of a JPEG's blocks: nothing is left of the noise."""
  rng = np.random.default_rng(0)
  noise = rng.integers(0, 256, (1600, 1600, 3), dtype=np.uint8)
  file = io.BytesIO()
  Image.fromarray(noise).save(file, "JPEG", quality=95)
  for found in (
    crops.crop_pixels(noise, Box(0, 0, 1600, 1600), (16, 16)),
    crops.crop_jpeg(
      file.getvalue(), (1600, 1600), Box(0, 0, 1600, 1600), (16, 16)
    ),
  ):
    assert found.shape == (16, 16, 3)
    assert abs(found.mean() - 127.5) < 2
    assert found.std() < 3
  assert crops.reduction(Box(0, 0, 1600, 1600), (16, 16)) == 64


def test_areas_and_proportions_are_drawn_as_defined():
  """Uniform, and uniform in the logarithm; where no box is drawn again."""
  areas, aspects, centres = [], [], []
  for seed in range(2000):
    box = crops.draw_box(1000, 1000, (0.1, 0.5), np.random.default_rng(seed))
    areas.append(box.width * box.height / 1e6)
    aspects.append(np.log(box.width / box.height))
    centres.append(box.left / (1000 - box.width))
    assert box.left + box.width <= 1000
    assert box.top + box.height <= 1000
  assert stats.kstest(areas, stats.uniform(0.1, 0.4).cdf).pvalue > 0.01
  low, high = np.log(3 / 4), np.log(4 / 3)
  assert stats.kstest(aspects, stats.uniform(low, high - low).cdf).pvalue > 0.01
  assert stats.kstest(centres, stats.uniform(0, 1).cdf).pvalue > 0.01


@pytest.mark.parametrize(
  ("size", "expected"),
  [
    ((1000, 10), Box(493, 0, 13, 10)),
    ((10, 1000), Box(0, 493, 10, 13)),
    ((1, 1), Box(0, 0, 1, 1)),
  ],
)
def test_a_strip_gives_its_middle(size, expected):
  found = crops.draw_box(*size, (0.9, 1.0), np.random.default_rng(0))
  assert found == expected


def test_a_crop_is_in_whole_pixels_of_the_shrunk_image():
  for box in drawn((900, 700), 200):
    shrink = crops.reduction(box, SIDE)
    assert not any(side % shrink for side in box)
    assert min(box.width, box.height) > shrink * 96 or shrink == 1
    assert min(box.width, box.height) <= 2 * shrink * 96


def test_a_border_is_never_seen():
  """ObjectNet's red frame."""
  framed = np.full((90, 120, 3), (0, 200, 0), np.uint8)
  framed[:5], framed[-5:], framed[:, :5], framed[:, -5:] = [(255, 0, 0)] * 4
  file = io.BytesIO()
  Image.fromarray(framed).save(file, "PNG")
  for content in (framed, file.getvalue()):
    for seed in range(20):
      rng = np.random.default_rng(seed)
      found = crops.cut_out(content, SIDE, (0.5, 1.0), rng, border=5)
      np.testing.assert_array_equal(found, np.full((96, 96, 3), (0, 200, 0)))
  with pytest.raises(
    ValueError, match="x is not a readable image: a border of 50 leaves nothing"
  ):
    crops.cut_out(framed, SIDE, (0.5, 1.0), rng, border=50, name="x")


def test_what_simplejpeg_refuses_pillow_may_still_read():
  """Such as bytes after the picture, or a marker that nobody knows."""
  data = jpegs(300, 225)[0]
  scan = data.index(b"\xff\xda")
  odd = data[:scan] + b"\x00\x00" + data[scan:]
  box = Box(0, 0, 300, 225)
  assert crops.crop_jpeg(odd, (300, 225), box, SIDE) is None
  found, same = (
    crops.cut_out(one, SIDE, (0.7, 1.0), np.random.default_rng(3))
    for one in (odd, data)
  )
  assert psnr(found, same) > 36


def test_a_crop_is_a_function_of_the_generator(tmp_path):
  (tmp_path / "a.jpg").write_bytes(jpegs(500, 375)[1])
  sources = (tmp_path / "a.jpg", str(tmp_path / "a.jpg"), jpegs(500, 375)[1])
  found = [
    crops.cut_out(source, SIDE, (0.08, 1.0), np.random.default_rng(5))
    for source in sources
  ]
  np.testing.assert_array_equal(found[0], found[1])
  np.testing.assert_array_equal(found[0], found[2])
  other = crops.cut_out(sources[2], SIDE, (0.08, 1.0), np.random.default_rng(6))
  assert not np.array_equal(other, found[0])
