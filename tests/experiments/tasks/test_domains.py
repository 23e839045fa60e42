"""Tests `experiments/tasks/domains.py`."""

import os
import pathlib
import shutil

import numpy as np
import pytest

from experiments.data.decode import View
from experiments.tasks.domains import Domains
from experiments.tasks.image_task import ImageTask, Setup
from tests.experiments import tiny

VIEW = View(tiny.SIZE)


def pixels(images):
  return [image.tobytes() for image in images.in_memory().images]


def test_one_domain_trains_and_all_others_are_ood(pacs):
  sets = Domains(root=pacs, source="photo", fingerprint=False).open(VIEW, 0)
  assert list(sets.ood) == ["art", "cartoon", "sketch"]
  assert all(len(images) == 15 for images in sets.ood.values())
  assert len(sets.source.train) == 12
  assert len(sets.source.validation) == 3
  assert not sets.balanced
  assert sets.words() == tiny.CLASSES
  assert sets.source.train.class_names == tiny.CLASSES


def test_a_target_is_left_out_of_the_source(pacs):
  sets = Domains(root=pacs, target="art").open(VIEW, 0)
  assert list(sets.ood) == ["art"]
  # Three domains of 15 images, a fifth of each class held out.
  assert sets.source.train.counts().sum(axis=1).tolist() == [0, 12, 12, 12]
  assert sets.source.validation.counts().sum(axis=1).tolist() == [0, 3, 3, 3]
  target = set(pixels(sets.ood["art"]))
  assert len(target) == 15
  for part in sets.source:
    assert not target & set(pixels(part))
  assert sets.balanced
  alike = Domains(root=pacs, target="art", balanced=False).open(VIEW, 0)
  assert not alike.balanced
  assert pixels(alike.source.train) == pixels(sets.source.train)


def test_the_seed_cuts_off_the_validation_images(pacs):
  for which in ({"source": "photo"}, {"target": "photo"}):
    images = Domains(root=pacs, **which)
    first, again, other = (
      pixels(images.open(VIEW, seed).source.validation) for seed in (0, 0, 1)
    )
    assert first == again != other
    more = Domains(root=pacs, held_out=0.4, **which).open(VIEW, 0).source
    assert len(more.validation) == 2 * len(first)


def test_images_to_evaluate_on_are_the_same_for_every_seed(pacs):
  few = Domains(root=pacs, source="photo", per_domain=4)
  first, second = few.open(VIEW, 0).ood, few.open(VIEW, 1).ood
  every = Domains(root=pacs, source="photo").open(VIEW, 0).ood
  assert list(first) == list(every)
  for name, images in first.items():
    assert len(images) == 4
    assert pixels(images) == pixels(second[name])
    assert set(pixels(images)) <= set(pixels(every[name]))
  more = Domains(root=pacs, source="photo", per_domain=100).open(VIEW, 0).ood
  assert pixels(more["art"]) == pixels(every["art"])


def test_domains_may_have_any_names(pacs, tmp_path):
  shutil.copytree(pacs, tmp_path, dirs_exist_ok=True)
  (tmp_path / "sketch").rename(tmp_path / "quickdraw")
  shutil.rmtree(tmp_path / "art")
  sets = Domains(root=tmp_path, source="photo").open(VIEW, 0)
  assert len(sets.source.train) == 12
  assert sorted(sets.ood) == ["cartoon", "quickdraw"]
  sets = Domains(root=tmp_path, target="cartoon").open(VIEW, 0)
  assert len(sets.source.train) == 24
  assert sorted(sets.ood) == ["cartoon"]


def test_there_is_a_source_or_a_target(pacs):
  for given, message in (
    ({}, "give one of them, got None and None"),
    ({"source": "a", "target": "b"}, "give one of them, got 'a' and 'b'"),
  ):
    with pytest.raises(ValueError, match=message):
      Domains(root=pacs, **given)


def test_what_is_not_there_is_named(pacs, tmp_path):
  with pytest.raises(FileNotFoundError, match="<root>/<domain>/<class>"):
    Domains(root=tmp_path / "none", source="photo").open(VIEW, 0)
  for option in ("source", "target"):
    images = Domains(root=pacs, **{option: "clipart"})
    message = rf"--{option} must .* 'clipart' and .* art, cartoon, photo, sket"
    with pytest.raises(ValueError, match=message):
      images.open(VIEW, 0)
  shutil.copytree(pacs / "photo", tmp_path / "alone" / "photo")
  for option in ("source", "target"):
    images = Domains(root=tmp_path / "alone", **{option: "photo"})
    with pytest.raises(ValueError, match="one of at least two domains"):
      images.open(VIEW, 0)


def test_a_wrong_domain_is_named_before_images_are_read(pacs, tmp_path):
  root = pathlib.Path(shutil.copytree(pacs, tmp_path / "PACS"))
  (root / "art" / "cat" / "0.png").write_bytes(b"no image")
  with pytest.raises(ValueError, match="'clipart'"):
    Domains(root=root, source="clipart").open(VIEW, 0)


def test_broken_images_stop_a_run_or_are_left_out(pacs, tmp_path):
  root = pathlib.Path(shutil.copytree(pacs, tmp_path / "PACS"))
  (root / "art" / "cat" / "0.png").write_bytes(b"no image")
  with pytest.raises(ValueError, match=r"cat.0\.png is not a readable image"):
    Domains(root=root, source="photo").open(VIEW, 0)
  skipping = Domains(root=root, source="photo", skip_broken=True)
  sets = skipping.open(VIEW, 0)
  assert sets.notes[0].startswith("Left out 1 of 60 images of ")
  assert sets.ood["art"].counts()[0].tolist() == [4, 5, 5]
  assert skipping.described(16, 4)["data"]["skip_broken"] is True


def test_a_line_has_the_old_fields_and_a_hash_of_the_images(pacs):
  found = Domains(root=pacs, source="sketch").described(96, 32)["data"]
  assert len(found.pop("digest")) == 12
  assert found == {
    "root": "PACS",
    "source": "sketch",
    "image_size": 96,
    "batch_size": 32,
    "held_out": 0.2,
  }
  one = Domains(root=pacs, target="sketch", fingerprint=False)
  assert one.described(96, 32)["data"] == {
    "root": "PACS",
    "target": "sketch",
    "image_size": 96,
    "batch_size": 32,
    "held_out": 0.2,
    "balanced": True,
  }


def test_the_folder_has_a_name_from_within(pacs, monkeypatch):
  monkeypatch.chdir(pacs)
  inside = Domains(root=pathlib.Path("."), source="art").described(16, 4)
  assert inside == Domains(root=pacs, source="art").described(16, 4)


def test_other_images_of_the_same_name_are_another_task(pacs, tmp_path):
  root = pathlib.Path(shutil.copytree(pacs, tmp_path / "PACS"))
  told = Domains(root=pacs, source="art").described(16, 4)
  assert Domains(root=root, source="art").described(16, 4) == told
  other = pathlib.Path(shutil.copytree(pacs, tmp_path / "other" / "PACS"))
  file = other / "photo" / "cat" / "0.png"
  file.write_bytes(np.bytes_(file.read_bytes()) + b"0")
  changed = Domains(root=other, source="art").described(16, 4)
  assert changed["data"].pop("digest") != told["data"]["digest"]
  assert changed["data"].items() <= told["data"].items()


def test_what_the_folders_leave_out_is_noted_once(pacs, vit_file, tmp_path):
  root = pathlib.Path(shutil.copytree(pacs, tmp_path / "pacs"))
  os.mkfifo(root / "art" / "cat" / "pipe.png")
  asked = ImageTask(
    Domains(root=root, source="photo"), Setup(backbone=vit_file)
  )
  assert asked.open(0).notes == (
    f"Left out of {root}: 1 names that are no regular file.",
  )
