"""Tests `experiments/tasks/memory.py`."""

import pathlib
import shutil

import numpy as np

from experiments.data.decode import View
from experiments.data.images import Files
from experiments.tasks import memory
from experiments.tasks.domains import Domains
from tests.experiments import tiny

VIEW = View(tiny.SIZE)


def test_images_are_decoded_once_if_they_fit(pacs, tmp_path, monkeypatch):
  images = Domains(root=pacs, source="photo")
  opened = images.open(VIEW, 0)
  loader = opened.source.train.loader
  assert isinstance(loader, memory.Decoded)
  # For all seeds and tasks.
  other = Domains(root=pacs, target="art").open(VIEW, 1)
  assert other.ood["art"].loader is loader
  # Elsewhere, as what was decoded is kept.
  root = pathlib.Path(shutil.copytree(pacs, tmp_path / "PACS"))
  monkeypatch.setattr(memory, "LIMIT", 60 * tiny.SIZE**2 * 3 - 1)
  on_disk = Domains(root=root, source="photo").open(VIEW, 0)
  assert isinstance(on_disk.source.train.loader, Files)
  for one, same in zip(opened.source, on_disk.source, strict=True):
    pixels, decoded = one.in_memory().images, same.in_memory().images
    np.testing.assert_array_equal(pixels, decoded)
    np.testing.assert_array_equal(one.labels, same.labels)
    np.testing.assert_array_equal(one.domains, same.domains)
    assert one.class_names == same.class_names
    assert one.domain_names == same.domain_names
