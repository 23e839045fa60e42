"""Tiny data of every experiment, in the forms they are distributed in."""

import dataclasses

import numpy as np
import pytest
from flax import nnx

from experiments.data import cifar_c
from experiments.models import export
from experiments.models.classifier import Classifier
from experiments.pretraining import pretrain_demo
from gmixout_jax import clip
from tests.experiments import tiny
from tests.experiments.data import disk

NAMES = ("cat", "dog", "owl")  # three classes everywhere, so less to compile


@pytest.fixture(scope="module")
def clip_folder(tmp_path_factory):
  """A CLIP of one block, as Hugging Face saves it."""
  tokenizer = pretrain_demo.make_tokenizer()
  tower = dict(width=16, depth=1, heads=2, mlp_width=24)
  config = pretrain_demo.make_config(tokenizer)
  config = dataclasses.replace(
    config,
    vision=clip.VisionConfig(image_size=16, patch_size=8, **tower),
    text=dataclasses.replace(config.text, **tower),
    projection_dim=12,
  )
  folder = tmp_path_factory.mktemp("models") / "clip"
  model = tiny.filled(lambda: clip.CLIP(config, rngs=nnx.Rngs(0)))
  clip.save_pretrained(model, folder)
  tokenizer.save(str(folder / "tokenizer.json"))
  return folder


@pytest.fixture(scope="module")
def vit_file(tmp_path_factory):
  """A ViT of one block with timm's names and no head."""
  path = tmp_path_factory.mktemp("models") / "vit.safetensors"
  clip.vit_to_safetensors(tiny.vit(width=64, heads=1), path)
  return path


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
def imagenet(tmp_path_factory):
  root = tmp_path_factory.mktemp("imagenet")
  ids = disk.IDS[:3]
  disk.tree(root / "train", dict.fromkeys(ids, 10))
  disk.tree(root / "val", dict.fromkeys(ids, 2))
  disk.tree(root / "imagenet-r", dict.fromkeys(ids[1:], 3))
  disk.tree(root / "imagenet-a", dict.fromkeys(ids[:2], 3))
  disk.tree(root / "sketch", dict.fromkeys(ids, 2))
  v2 = root / "imagenetv2-matched-frequency-format-val"
  disk.tree(v2, dict.fromkeys("012", 2))
  disk.objectnet(root / "objectnet-1.0")
  (root / "LOC_synset_mapping.txt").write_text(
    "".join(
      f"{i} {n}, also called so\n" for i, n in zip(ids, NAMES, strict=True)
    )
  )
  return root


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
