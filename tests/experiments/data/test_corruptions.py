"""Tests our own corruption suite."""

import pickle

import numpy as np
import pytest
from PIL import Image

from experiments.data import corruptions, images
from experiments.data.corruptions import CORRUPTIONS, corrupt
from experiments.data.corruptions.weather import clouds

NAMES = tuple(CORRUPTIONS)


@pytest.fixture(scope="module")
def scene():
  """A picture with edges, colours and smooth parts, 96 x 96."""
  # Detail at all scales, as in photographs: stripes of one width would make a
  # blur's harm depend on whether it fits them.
  rng = np.random.default_rng(0)
  colours = np.stack([clouds(96, 96, rng) for _ in range(3)], axis=-1)
  colours[24:60, 30:66] = 0.7 * colours[24:60, 30:66, ::-1] + (0.3, 0, 0)
  return np.round(255 * colours.clip(0, 1)).astype(np.uint8)


def distance(a, b):
  return float(np.abs(a.astype(float) - b).mean())


@pytest.mark.parametrize("name", NAMES)
def test_a_corruption_changes_the_image_and_keeps_its_form(name, scene):
  before = scene.copy()
  for severity in (1, 5):
    spoilt = corrupt(scene, name, severity, seed=0)
    assert spoilt.shape == scene.shape
    assert spoilt.dtype == np.uint8
    assert distance(spoilt, scene) > 0.3
  np.testing.assert_array_equal(scene, before)


@pytest.mark.parametrize("name", [n for n in NAMES if n != "saturate"])
def test_a_higher_severity_does_more_harm(name, scene):
  harm = [distance(corrupt(scene, name, s, seed=1), scene) for s in range(1, 6)]
  assert harm == sorted(harm)
  assert harm[-1] > 1.5 * harm[0]


@pytest.mark.parametrize("name", NAMES)
def test_noise_is_a_function_of_the_arguments(name, scene):
  first = corrupt(scene, name, 3, seed=(1, 2))
  np.testing.assert_array_equal(first, corrupt(scene, name, 3, seed=(1, 2)))
  other = corrupt(scene, name, 3, seed=(1, 3))
  fixed = {
    "gaussian_blur", "defocus_blur", "zoom_blur", "brightness", "contrast",
    "saturate", "pixelate", "jpeg",
  }  # fmt: skip
  assert np.array_equal(first, other) == (name in fixed)


@pytest.mark.parametrize("name", NAMES)
def test_any_shape_of_image_is_taken(name):
  wide = np.full((9, 40, 3), 100, np.uint8)
  assert corrupt(wide, name, 5, seed=0).shape == wide.shape


def test_strengths_are_what_they_say():
  grey = np.full((200, 200, 3), 128, np.uint8)
  noisy = corrupt(grey, "gaussian_noise", 2, seed=0)
  assert noisy.std() == pytest.approx(0.10 * 255, rel=0.02)
  salted = corrupt(grey, "impulse_noise", 5, seed=0)
  assert np.mean(salted == 255) == pytest.approx(0.12, abs=0.005)
  assert np.mean(salted == 0) == pytest.approx(0.12, abs=0.005)
  photons = corrupt(grey, "shot_noise", 4, seed=0)
  # A Poisson count of mean 10 · 128/255, divided by 10.
  deviation = np.sqrt(128 / 255 / 10) * 255
  assert photons.std() == pytest.approx(deviation, rel=0.05)  # clipped at 255
  frosted = corrupt(grey // 8, "frost", 3, seed=0)
  assert np.mean(frosted.max(-1) > 90) == pytest.approx(0.28, abs=0.05)


def test_blurs_keep_the_brightness_of_a_flat_image():
  flat = np.full((40, 40, 3), 77, np.uint8)
  for name in ("gaussian_blur", "defocus_blur", "motion_blur", "zoom_blur"):
    np.testing.assert_array_equal(corrupt(flat, name, 4, seed=0), flat)


def test_severities_look_alike_at_every_resolution(scene):
  large = np.asarray(Image.fromarray(scene).resize((256, 256)))
  for name in ("gaussian_blur", "defocus_blur", "fog", "contrast"):
    small = distance(corrupt(scene, name, 3, seed=0), scene)
    big = distance(corrupt(large, name, 3, seed=0), large)
    assert big == pytest.approx(small, rel=0.35), name


def test_clouds_span_the_range(rng):
  field = clouds(50, 30, rng)
  assert field.shape == (50, 30)
  assert (field.min(), field.max()) == (0, 1)


def test_the_suite_depends_on_the_row_and_not_on_the_order(scene):
  several = images.ImageSet.of(
    images.Pixels(np.stack([scene] * 3)), [0, 1, 0], ["a", "b"]
  )
  sets = corruptions.suite(several, names=("fog", "snow"), severities=(2,))
  assert list(sets) == ["fog/2", "snow/2"]
  fog = sets["fog/2"]
  assert fog.labels.tolist() == [0, 1, 0]
  assert not np.array_equal(fog[0]["image"], fog[1]["image"])
  part = pickle.loads(pickle.dumps(fog.take(np.array([2, 1]))))
  np.testing.assert_array_equal(part[0]["image"], fog[2]["image"])
  assert fog.name(1) == "array[1] (fog/2)"
  other = corruptions.suite(several, names=("fog",), severities=(2,), seed=1)
  assert not np.array_equal(other["fog/2"][0]["image"], fog[0]["image"])


def test_what_there_is_not_is_refused(scene):
  with pytest.raises(ValueError, match="'haze'"):
    corrupt(scene, "haze", 1, seed=0)
  with pytest.raises(ValueError, match="got 0"):
    corrupt(scene, "fog", 0, seed=0)
  with pytest.raises(ValueError, match="at least 8 x 8"):
    corrupt(scene[:7], "fog", 1, seed=0)
  several = images.ImageSet.of(images.Pixels(scene[None]), [0], ["a"])
  with pytest.raises(ValueError, match="haze/1"):
    corruptions.suite(several, names=("haze",))


def test_the_groups_are_those_of_the_docstring():
  groups = [corruption.group for corruption in CORRUPTIONS.values()]
  assert [groups.count(g) for g in ("noise", "blur", "weather", "digital")] == [
    4, 4, 5, 5,
  ]  # fmt: skip
