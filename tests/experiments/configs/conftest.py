"""Tiny data of every experiment, in the forms they are distributed in."""

import numpy as np
import pytest

from experiments.data import cifar_c
from experiments.models import export
from experiments.models.classifier import Classifier
from tests.experiments import tiny
from tests.experiments.data import disk

NAMES = ("cat", "dog", "owl")  # three classes everywhere, so less to compile


@pytest.fixture(scope="module")
def soup_folder(tmp_path_factory):
  """Three ViTs with heads, as experiments export them."""
  folder = tmp_path_factory.mktemp("models") / "soup"
  for seed in range(3):
    kernel = np.random.default_rng(seed).standard_normal((64, 3))
    model = Classifier(tiny.vit(width=64, heads=1), kernel.astype(np.float32))
    export.save(model, folder / f"seed{seed}")
  return folder


@pytest.fixture(scope="module")
def imagenet_lt(tmp_path_factory):
  root = tmp_path_factory.mktemp("imagenet_lt")
  ids, lists = disk.IDS[:3], {"train": [], "val": [], "test": []}
  for name, many in (("train", (101, 20, 3)), ("val", (4, 4, 4))):
    disk.tree(root / name, dict(zip(ids, many, strict=True)))
    for label, (i, count) in enumerate(zip(ids, many, strict=True)):
      for j in range(count):
        part = "train" if name == "train" else ("val", "test")[j % 2]
        lists[part].append(f"{name}/{i}/{j}.JPEG {label}\n")
  for part, lines in lists.items():
    (root / f"ImageNet_LT_{part}.txt").write_text("".join(lines))
  (root / "LOC_synset_mapping.txt").write_text(
    "".join(f"{i} {n}\n" for i, n in zip(ids, NAMES, strict=True))
  )
  return root


@pytest.fixture(scope="module")
def domainnet(tmp_path_factory):
  root = tiny.domainbed(tmp_path_factory.mktemp("domain_net"))
  for old, new in (
    ("art", "real"),
    ("cartoon", "painting"),
    ("photo", "clipart"),
  ):
    (root / old).rename(root / new)
  return root


@pytest.fixture(scope="module")
def iwildcam(tmp_path_factory):
  splits = ("train",) * 12 + ("id_val", "id_test", "val", "test") * 3
  rows = [
    (split, f"{i}.jpg", i // 4 % 3, i % 5) for i, split in enumerate(splits)
  ]
  root = disk.iwildcam(tmp_path_factory.mktemp("iwildcam"), rows)
  (root / "categories.csv").write_text(
    "y,name\n" + "".join(f"{i},{name}\n" for i, name in enumerate(NAMES))
  )
  return root


@pytest.fixture(scope="module")
def cifar(tmp_path_factory):
  root = tmp_path_factory.mktemp("cifar")
  every = cifar_c.BENCHMARK + cifar_c.EXTRA
  disk.cifar_c(root / "CIFAR-100-C", every, count=3)
  disk.tfds(
    root / "cifar100", {"train": 12, "test": 3}, names=NAMES, labels=(0, 1, 2)
  )
  return root


@pytest.fixture(scope="module")
def five_tasks(tmp_path_factory):
  root = tmp_path_factory.mktemp("tasks")
  counts = {"train": 15, "validation": 3, "test": 3}
  for name in ("dtd", "eurosat/rgb", "food101"):
    disk.tfds(root / name, counts, names=NAMES, labels=(0, 2))
  return root


@pytest.fixture(scope="module")
def domainbed(tmp_path_factory):
  root = tmp_path_factory.mktemp("domainbed")
  tiny.domainbed(root / "PACS")
  tiny.domainbed(root / "domain_net")
  return root
