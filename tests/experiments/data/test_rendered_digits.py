"""Tests `experiments/data/{rendered,scanned}_digits.py` and the tokenizer."""

import numpy as np
import pytest

from experiments.data import (
  backgrounds,
  glyphs,
  handwriting,
  rendered_digits,
  scanned_digits,
)
from experiments.pretraining import pretrain_demo
from experiments.tasks import digits


def test_an_image_depends_on_its_seed_and_index_alone():
  images, labels, captions = rendered_digits.render(3, range(6))
  again = rendered_digits.render(3, [4, 2])
  np.testing.assert_array_equal(again[0], images[[4, 2]])
  np.testing.assert_array_equal(again[1], labels[[4, 2]])
  assert again[2] == [captions[4], captions[2]]
  other, _, _ = rendered_digits.render(4, range(6))
  assert not np.array_equal(other, images)


def test_images_are_what_the_model_reads():
  images, labels, _ = rendered_digits.render(0, range(200))
  size = rendered_digits.SIZE
  assert images.shape == (200, size, size, 3)
  assert images.dtype == np.uint8
  assert set(labels.tolist()) == set(range(10))
  # No picture is empty: the glyph really is in it.
  assert images.std((1, 2)).max(-1).min() > 3


@pytest.mark.parametrize(
  "font",
  rendered_digits.FONTS + rendered_digits.UNSEEN_FONTS + handwriting.HANDS[:4],
)
def test_every_font_has_ten_different_digits(font):
  masks = [glyphs.glyph(font, digit, 0) for digit in range(10)]
  for number, mask in enumerate(masks):
    assert mask.max() > 0.9
    for other in masks[:number]:
      assert np.abs(mask - other).mean() > 0.02


def test_no_unseen_font_is_in_the_pretraining():
  assert not set(rendered_digits.STYLES) & set(rendered_digits.UNSEEN_FONTS)


def test_a_group_shows_ten_digits_in_the_same_words():
  _, labels, captions = rendered_digits.render(5, range(40))
  np.testing.assert_array_equal(labels, np.tile(np.arange(10), 4))
  for start in range(0, 40, 10):
    lengths = {len(c.split()) for c in captions[start : start + 10]}
    assert len(lengths) == 1
  # Even groups are the clean half.
  plain = [
    rendered_digits.PLAIN_CAPTION.format(n) for n in rendered_digits.NAMES
  ]
  assert captions[:10] == plain
  assert captions[20:30] == plain


def test_captions_name_the_digit_in_known_words():
  _, labels, captions = rendered_digits.render(1, range(300))
  known = set(rendered_digits.vocabulary())
  for label, caption in zip(labels, captions, strict=True):
    words = caption.split()
    assert set(words) <= known
    names = {rendered_digits.NAMES[label], str(label)}
    assert len(names & set(words)) == 1
    # No other digit is named.
    digits = {*rendered_digits.NAMES, *map(str, range(10))}
    assert not (digits - names) & set(words)
  assert len(set(captions)) > 80


def test_captions_fit_the_tokenizer():
  tokenizer = pretrain_demo.make_tokenizer()
  _, _, captions = rendered_digits.render(2, range(300))
  unknown = tokenizer.token_to_id("<|unknown|>")
  end = tokenizer.token_to_id("<|endoftext|>")
  prompts = [
    template.replace("{}", name)
    for template in digits.TEMPLATES
    for name in rendered_digits.NAMES
  ]
  for encoding in tokenizer.encode_batch(captions + prompts):
    assert len(encoding.ids) == pretrain_demo.CONTEXT
    assert unknown not in encoding.ids
    assert encoding.ids.count(end) == 1


def test_an_unknown_texture_is_refused():
  rng = np.random.default_rng(0)
  with pytest.raises(ValueError, match="'marble'"):
    backgrounds.background(np.zeros(3), "marble", rng)


def test_scans_are_split_into_disjoint_parts_that_are_all_of_them():
  parts = scanned_digits.load()
  assert [len(part) for part in parts.values()] == [1078, 270, 449]
  images = np.concatenate([part.images for part in parts.values()])
  assert images.shape == (1797, 28, 28, 3)
  assert images.dtype == np.uint8
  # Every digit is unlike every other, so this is disjoint and complete.
  assert len(np.unique(images.reshape(1797, -1), axis=0)) == 1797
  for part in parts.values():
    assert set(part.labels.tolist()) == set(range(10))


def test_scans_are_the_same_at_every_call():
  first, second = scanned_digits.load(), scanned_digits.load()
  for name, part in first.items():
    np.testing.assert_array_equal(part.images, second[name].images)
    np.testing.assert_array_equal(part.labels, second[name].labels)


def test_scans_are_light_on_dark():
  images = scanned_digits.load()["train"].images
  np.testing.assert_array_equal(images[:, :2], 0)  # the margin
  np.testing.assert_array_equal(images[..., 0], images[..., 1])
  assert images.max((1, 2, 3)).min() > 200
