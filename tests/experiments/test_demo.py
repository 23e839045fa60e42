"""Tests `experiments/demo.py`, the shipped CLIP and how it is remade."""

import dataclasses

import jax
import numpy as np
import pytest
from flax import nnx
from jax.experimental.compilation_cache import compilation_cache

from experiments import demo, evaluate
from experiments.data import rendered_digits, scanned_digits
from experiments.pretraining import contrastive, pretrain_demo
from experiments.reporting import records
from gmixout_jax import clip
from tests.experiments.tiny import filled

# On the scanned test digits, measured when the folder was made.
ZERO_SHOT = 0.837


def test_the_shipped_clip_is_small_and_reads_scans():
  size = sum(f.stat().st_size for f in demo.FOLDER.iterdir())
  assert size <= 3e6
  accuracy = evaluate.accuracy(
    demo.zero_shot_classifier(), scanned_digits.load()["test"], batch_size=449
  )
  assert accuracy >= ZERO_SHOT - 0.05


def test_the_shipped_clip_is_what_its_script_makes(tmp_path):
  tokenizer = pretrain_demo.make_tokenizer()
  model = clip.from_pretrained(demo.FOLDER)
  assert model.config == pretrain_demo.make_config(tokenizer)
  tokenizer.save(str(tmp_path / "tokenizer.json"))
  shipped = demo.FOLDER / "tokenizer.json"
  assert shipped.read_text() == (tmp_path / "tokenizer.json").read_text()


@pytest.fixture(scope="module")
def tiny():
  """An untrained CLIP of the demo's form that compiles in a moment."""
  config = pretrain_demo.make_config(pretrain_demo.make_tokenizer())
  tower = dict(width=16, depth=1, heads=2, mlp_width=32)
  config = dataclasses.replace(
    config,
    vision=dataclasses.replace(config.vision, **tower),
    text=dataclasses.replace(config.text, **tower),
  )
  return filled(lambda: clip.CLIP(config, rngs=nnx.Rngs(0)))


def save(model, folder):
  clip.save_pretrained(model, folder, dtype="float16")
  pretrain_demo.make_tokenizer().save(str(folder / "tokenizer.json"))


def test_the_demo_runs_from_end_to_end(tiny, tmp_path, capsys):
  save(tiny, tmp_path)
  config = demo.Config(
    seeds=(0,), steps=2, batch_size=8, folder=tmp_path, out=tmp_path / "out"
  )
  demo.main(config)
  results = records.read(config.out / "results.jsonl")
  names = [line["config"]["method"]["name"] for line in results]
  assert names == ["zero_shot", "full_finetuning", "mixout", "gmixout"]
  for line in results:
    assert len(line["metrics"]["ood"]) == 8
  assert (config.out / "demo.png").stat().st_size > 10_000
  shown = capsys.readouterr().out
  for word in ("Full fine-tuning", "GMixout", "inverted", "typeset"):
    assert word in shown


def test_compilations_are_shared_where_the_user_has_not_said_where(tmp_path):
  kept = jax.config.jax_compilation_cache_dir
  assert kept is not None  # by the suite
  with demo.shared_compilations(tmp_path):
    assert jax.config.jax_compilation_cache_dir == kept
  jax.config.update("jax_compilation_cache_dir", None)
  try:
    with demo.shared_compilations(tmp_path):
      assert jax.config.jax_compilation_cache_dir == str(tmp_path)
    assert jax.config.jax_compilation_cache_dir is None
  finally:
    jax.config.update("jax_compilation_cache_dir", kept)
    compilation_cache.reset_cache()


def test_pretraining_learns_and_leaves_its_input_alone(tiny):
  images, _, captions = rendered_digits.render(0, range(20))
  encodings = pretrain_demo.make_tokenizer().encode_batch(captions)
  token_ids = np.asarray([encoding.ids for encoding in encodings])
  config = pretrain_demo.Config(steps=60, clean_steps=60, batch=10, rate=1e-2)

  @nnx.jit
  def loss_of(model):
    logits = model(clip.preprocess(images[:10]), token_ids[:10])
    return contrastive.contrastive_loss(logits, token_ids[:10])

  before = float(loss_of(tiny))
  trained = pretrain_demo.pretrain(config, images, token_ids, tiny)
  assert float(loss_of(tiny)) == before
  assert float(loss_of(trained)) < 0.7 * before


def test_a_report_has_a_line_for_every_set(tiny, tmp_path):
  save(tiny, tmp_path)
  assert pretrain_demo.report(tmp_path).row_count == 10
