"""What evaluation sees is what files say, to the pixel."""

import pytest

from experiments.data.decode import View
from experiments.models import preprocessing
from gmixout_jax import clip
from tests.experiments import tiny

SIZES = (16, 28, 42, 64, 192, 224, 320, 336, 384)


SHARES = (1.0, 256 / 224, 1 / 0.95, 1 / 0.9, 1 / 0.875, 31 / 28)


def test_a_view_is_read_as_it_was_written(tmp_path):
  for size in SIZES:
    for share in SHARES:
      view = View(size, "crop", share, "bilinear").in_whole_pixels()
      said = preprocessing.of_view(view, clip.HALF, clip.HALF)
      clip.save_preprocessing(tmp_path, said)
      assert preprocessing.view(preprocessing.load(tmp_path), size) == view


@pytest.mark.parametrize("name", ["folder", "file.safetensors"])
@pytest.mark.parametrize("share", SHARES)
def test_a_view_is_read_from_timms_forms(tmp_path, name, share):
  view = View(16, "crop", share, "bicubic").in_whole_pixels()
  said = preprocessing.of_view(view, clip.HALF, clip.HALF)
  vit = tiny.vit(width=64, heads=1)
  clip.save(vit, tmp_path / name, preprocessing=said)
  assert preprocessing.view(preprocessing.load(tmp_path / name), 16) == view


def test_timms_share_is_of_whole_pixels_and_comes_back():
  from gmixout_jax.clip import preprocessing_configs as configs

  for size in SIZES:
    for share in (1.0, 0.96, 0.95, 0.9, 0.875, 0.85):
      raw = {"mean": [0.5], "std": [0.5], "crop_pct": share}
      found = configs.of_timm(raw | {"input_size": [1, size, size]})
      assert found is not None
      assert found.zoom * size == pytest.approx(int(size / share))
      assert configs.of_timm(configs.to_timm(found)) == found


@pytest.mark.parametrize(
  ("mean", "std"),
  [((5.0,) * 3, None), (None, (0.0,) * 3), (None, (0.5, float("nan"), 0.5))],
)
def test_pixels_out_of_range_are_refused(mean, std):
  with pytest.raises(ValueError, match=r"must be of pixels in \[0, 1\]"):
    preprocessing.check_pixels(mean, std)
