"""Tests `experiments/demo.py`, the shipped CLIP and how it is remade."""

import jax
import numpy as np
import pytest
from flax import nnx

from experiments import demo, evaluate, pretrain_demo, results
from experiments.data import rendered_digits, scanned_digits
from gmixout_jax import clip

# On the scanned test digits, measured when the folder was made.
ZERO_SHOT = 0.837


def test_the_shipped_clip_is_small_and_reads_scans():
  size = sum(f.stat().st_size for f in demo.FOLDER.iterdir())
  assert size <= 3e6
  accuracy = evaluate.accuracy(
    demo.zero_shot_classifier(), scanned_digits.load()["test"], batch_size=449
  )
  assert accuracy >= ZERO_SHOT - 0.05


def test_the_demo_runs_from_end_to_end(tmp_path, capsys):
  demo.main(demo.Config(seeds=(0,), steps=2, batch_size=8, out=tmp_path))
  records = results.read(tmp_path / "results.jsonl")
  names = [line["config"]["method"]["name"] for line in records]
  assert names == ["zero_shot", "full_finetuning", "mixout", "gmixout"]
  for line in records:
    assert len(line["metrics"]["ood"]) == 8
  assert (tmp_path / "demo.png").stat().st_size > 10_000
  shown = capsys.readouterr().out
  for word in ("Full fine-tuning", "GMixout", "inverted", "typeset"):
    assert word in shown


def test_the_contrastive_loss_is_the_two_cross_entropies():
  logits = np.array([[2.0, -1.0], [0.5, 3.0]], np.float32)
  images = -np.diag(jax.nn.log_softmax(logits, axis=1))
  captions = -np.diag(jax.nn.log_softmax(logits, axis=0))
  distinct = np.array([[1, 2], [1, 3]])
  np.testing.assert_allclose(
    pretrain_demo.contrastive_loss(logits, distinct),
    (images.mean() + captions.mean()) / 2,
    rtol=1e-6,
  )


def test_equal_captions_are_equally_right():
  equal = np.array([[1, 2], [1, 2], [1, 3]])
  # Images 0 and 1 cannot be told apart by their captions, and need not be.
  torn = np.array([[9.0, 9, -9], [9, 9, -9], [-9, -9, 9]], np.float32)
  loss = float(pretrain_demo.contrastive_loss(torn, equal))
  assert loss == pytest.approx(2 / 3 * np.log(2), abs=1e-4)


def test_pretraining_runs_and_its_folder_can_be_read(tmp_path):
  config = pretrain_demo.Config(
    steps=2, clean_steps=1, batch=10, images=20, out=tmp_path
  )
  pretrain_demo.main(config)
  model = clip.from_pretrained(tmp_path)
  tokenizer = clip.load_tokenizer(tmp_path)
  images, _, captions = rendered_digits.render(0, range(3))
  logits = model(clip.preprocess(images), tokenizer(captions))
  assert logits.shape == (3, 3)
  stored = nnx.state(model, nnx.Param)
  shipped = nnx.state(clip.from_pretrained(demo.FOLDER), nnx.Param)
  shapes = jax.tree.map(lambda leaf: leaf.shape, stored)
  assert shapes == jax.tree.map(lambda leaf: leaf.shape, shipped)
