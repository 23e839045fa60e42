"""Files that several tests of the experiments begin with.

They are made once, so no test may change them: one that must copies them.
"""

import dataclasses

import pytest
from flax import nnx

from experiments import train
from experiments.models import backbones
from experiments.pretraining import pretrain_demo
from experiments.reporting import records
from gmixout_jax import clip
from tests.experiments import tiny
from tests.experiments.data import disk


@pytest.fixture(scope="session")
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
  prepared = clip.Preprocessing(clip.CLIP_MEAN, clip.CLIP_STD, 16)
  clip.save(model, folder, preprocessing=prepared)
  tokenizer.save(str(folder / "tokenizer.json"))
  return folder


@pytest.fixture(scope="session")
def vit_file(tmp_path_factory):
  """A ViT of one block with timm's names and no head."""
  path = tmp_path_factory.mktemp("models") / "vit.safetensors"
  tiny.save_vit(path)
  return path


@pytest.fixture(scope="session")
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
      f"{i} {n}, also called so\n"
      for i, n in zip(ids, tiny.CLASSES, strict=True)
    )
  )
  return root


@pytest.fixture(scope="session")
def pacs(tmp_path_factory):
  """Four domains of three classes of five images; see `tiny.domainbed`."""
  return tiny.domainbed(tmp_path_factory.mktemp("images") / "PACS")


@pytest.fixture
def mlp(monkeypatch):
  """Loads the MLP in the place of any backbone: it compiles in no time."""
  monkeypatch.setattr(
    backbones,
    "load",
    lambda path, names, **settings: tiny.classifier(classes=len(names)),
  )


@pytest.fixture
def sketch(pacs, vit_file):
  """Flags of `experiments.train`: three steps on sketches, from a ViT."""
  return (
    *("--data", "pacs", "--root", pacs, "--source", "sketch"),
    *("--backbone", vit_file, "--batch-size", "4", "--steps", "3"),
  )


@pytest.fixture
def trained(tmp_path):
  """Runs `experiments.train`; returns the last line of the results file."""

  def run(*arguments, path=tmp_path / "results.jsonl"):
    train.main(train.parse([*map(str, arguments), "--results", str(path)]))
    return records.read(path)[-1]

  return run
