"""Tests every augmentation against its definition."""

from typing import get_args

import numpy as np
import pytest
from PIL import Image, ImageFilter

from experiments.data import randaugment
from experiments.data.augmentation import POLICIES, Augmentation
from experiments.data.batches import batches
from experiments.data.randaugment import KINDS
from tests.experiments import tiny

RNG = np.random.default_rng(0)
NOISE = RNG.integers(0, 256, (48, 48, 3), dtype=np.uint8)


def applied(name, strength, image=NOISE, sign=1):
  kind = KINDS[name]
  assert kind.signed or sign == 1
  found = kind.apply(Image.fromarray(image), sign * kind.value(strength))
  assert found.size == (48, 48)
  return np.asarray(found).astype(int)


def test_every_name_has_a_policy_but_none():
  assert set(get_args(Augmentation)) == {"none", *POLICIES}


@pytest.mark.parametrize(
  ("name", "least"),
  [("basic", 0.7), ("inception", 0.08), ("randaugment", 0.08)],
)
def test_crops_and_flips(name, least):
  """Of ramps in both directions, from whose ends a crop is read off."""
  up = np.arange(256, dtype=np.uint8)
  ramps = np.stack([*np.meshgrid(up, up), np.zeros((256, 256), np.uint8)], -1)
  policy = POLICIES[name]
  flipped, areas, aspects = 0, [], []
  for seed in range(300):
    rng = np.random.default_rng(seed)
    found = policy.drawn(ramps, (32, 32), rng)
    assert found.shape == (32, 32, 3)
    assert found.dtype == np.uint8
    if policy.operations:
      continue
    # Two of 32 columns apart, so that the ends' own filter does not matter.
    wide = (int(found[16, -2, 0]) - int(found[16, 1, 0])) * 32 / 29 / 256
    high = (int(found[-2, 16, 1]) - int(found[1, 16, 1])) * 32 / 29 / 256
    assert high > 0
    flipped += wide < 0
    areas.append(abs(wide) * high)
    aspects.append(abs(wide) / high)
  if policy.operations:
    return
  assert 115 < flipped < 185
  assert least - 0.03 < min(areas) < least + 0.05
  assert 0.9 < max(areas) < 1.03
  assert 0.72 < min(aspects) < 0.8
  assert 1.25 < max(aspects) < 1.39


def test_randaugment_is_two_operations_on_an_inception_crop():
  pixels = np.asarray(Image.fromarray(NOISE).resize((200, 150)))
  for seed in range(30):
    both = np.random.default_rng(seed), np.random.default_rng(seed)
    crop = POLICIES["inception"].drawn(pixels, (48, 48), both[0])
    expected = randaugment.apply(crop, both[0], count=2, strength=9)
    found = POLICIES["randaugment"].drawn(pixels, (48, 48), both[1])
    np.testing.assert_array_equal(found, expected)


def test_none_equals_evaluation():
  split = tiny.split()
  batch = batches(split, batch_size=24, seed=0, augment="none")[0]
  shown = {image.tobytes() for image in batch["image"]}
  assert shown == {image.tobytes() for image in split.images}


def test_all_operations_are_drawn_alike():
  seen = dict.fromkeys(KINDS, 0)
  kinds = dict(KINDS)
  try:
    for name in KINDS:

      def count(image, value, name=name):
        seen[name] += 1
        assert abs(value) == pytest.approx(kinds[name].value(9))
        return image

      KINDS[name] = randaugment.Kind(
        count, kinds[name].most, kinds[name].least, kinds[name].signed
      )
    for seed in range(700):
      randaugment.apply(NOISE, np.random.default_rng(seed))
  finally:
    KINDS.update(kinds)
  # 1,400 draws of 14: 100 each, give or take four deviations.
  assert all(60 < n < 140 for n in seen.values()), seen


def test_nothing_changes_at_no_strength():
  for name in (
    *("identity", "shear_x", "shear_y", "translate_x", "translate_y"),
    *("rotate", "brightness", "color", "contrast", "sharpness", "posterize"),
  ):
    np.testing.assert_array_equal(applied(name, 0), NOISE)
  # All but white, which is at the threshold.
  solarized = applied("solarize", 0)
  np.testing.assert_array_equal(solarized[NOISE < 255], NOISE[NOISE < 255])


@pytest.mark.parametrize("sign", [1, -1])
def test_colours_are_scaled(sign):
  """At strength 10 by 1 ± 0.3, about what each of them is about."""
  factor = 1 + sign * 0.3
  dark = (NOISE // 3 + 40).astype(np.uint8)  # 40 to 125: nothing is clipped
  found = applied("brightness", 10, dark, sign)
  assert np.abs(found - factor * dark).max() <= 1
  assert found.mean() == pytest.approx(factor * dark.mean(), rel=0.01)
  mean = round(np.asarray(Image.fromarray(dark).convert("L")).mean())
  found = applied("contrast", 10, dark, sign)
  assert np.abs(found - (mean + factor * (dark - float(mean)))).max() <= 1
  assert found.mean() == pytest.approx(dark.mean(), abs=1)
  grey = np.asarray(Image.fromarray(dark).convert("L"), float)[..., None]
  found = applied("color", 10, dark, sign)
  assert np.abs(found - (grey + factor * (dark - grey))).max() <= 1
  smooth = np.asarray(
    Image.fromarray(dark).filter(ImageFilter.SMOOTH),
    float,
  )
  found = applied("sharpness", 10, dark, sign)
  assert np.abs(found - (smooth + factor * (dark - smooth))).max() <= 1


@pytest.mark.parametrize(
  ("strength", "bits"), [(0, 8), (9, 7), (15, 6), (30, 4)]
)
def test_posterize_keeps_the_highest_bits(strength, bits):
  kept = NOISE & (256 - 2 ** (8 - bits))
  np.testing.assert_array_equal(applied("posterize", strength), kept)


@pytest.mark.parametrize("strength", [9, 15, 30])
def test_solarize_inverts_what_is_bright(strength):
  threshold = 255 - 255 * strength / 30
  expected = np.where(threshold > NOISE, NOISE, 255 - NOISE.astype(int))
  np.testing.assert_array_equal(applied("solarize", strength), expected)


def test_contrast_is_stretched_and_equalized():
  narrow = (NOISE // 4 + 90).astype(np.uint8)
  found = applied("autocontrast", 9, narrow)
  assert found.min() == 0
  assert found.max() >= 254  # Pillow cuts off fractions
  expected = (narrow - 90.0) * 255 / (narrow.max() - 90)
  assert np.abs(found - expected).max() <= 1
  found = applied("equalize", 9, narrow)
  counts, _ = np.histogram(found[..., 0], bins=4, range=(0, 256))
  assert np.abs(counts / counts.sum() - 0.25).max() < 0.1


@pytest.mark.parametrize("sign", [1, -1])
def test_images_are_translated(sign):
  """By 150/331 · 10/30 of 48 pixels, which are 7; what comes in is black."""
  for axis, name in ((1, "translate_x"), (0, "translate_y")):
    found = applied(name, 10, sign=sign)
    expected = np.roll(NOISE.astype(int), -7 * sign, axis=axis)
    edge = [slice(None)] * 2
    edge[axis] = slice(-7, None) if sign > 0 else slice(None, 7)
    expected[tuple(edge)] = 0
    np.testing.assert_array_equal(found, expected)


@pytest.mark.parametrize("sign", [1, -1])
def test_images_are_sheared(sign):
  """By 0.1 pixel a row, or column, at strength 10."""
  line = np.zeros((48, 48, 3), np.uint8)
  line[:, 24] = 255
  found = applied("shear_x", 10, line, sign)[..., 0]
  columns = found.argmax(axis=1)
  assert np.abs(columns - (24 - sign * 0.1 * np.arange(48))).max() <= 1
  transposed = np.ascontiguousarray(line.transpose(1, 0, 2))
  found = applied("shear_y", 10, transposed, sign)[..., 0]
  np.testing.assert_array_equal(found.argmax(axis=0), columns)


@pytest.mark.parametrize("sign", [1, -1])
def test_images_are_rotated(sign):
  """By 10 degrees at strength 10, counter-clockwise, about their middle."""
  line = np.zeros((48, 48, 3), np.uint8)
  line[23:25] = 255
  found = applied("rotate", 10, line, sign)[..., 0]
  x = np.arange(8, 40)
  rows = (found[:, x] * np.arange(48)[:, None]).sum(0) / found[:, x].sum(0)
  slope = -np.polyfit(x, rows, 1)[0]
  assert np.degrees(np.arctan(slope)) == pytest.approx(10 * sign, abs=1)
