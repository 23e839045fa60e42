"""What the seed of `experiments.train` decides, and what a method is shown."""

import dataclasses

import jax
import numpy as np
import pytest

from experiments import methods
from experiments.data import domainbed
from experiments.data.decode import View
from experiments.methods.full_finetuning import FullFinetuning
from experiments.reporting.entries import group
from experiments.training import runs

SMALL = ("--batch-size", "4", "--steps", "3")


def images_in(record, name):
  found = record["metrics"]["details"][name]["reliability"]["count"]
  return sum(found)


def test_the_seed_decides_and_the_time_does_not(trained, tmp_path, sketch, mlp):
  first, again, other = (
    trained(
      *("gmixout", "--resample-every", "2", *sketch, "--seed", seed),
      path=tmp_path / f"{name}.jsonl",
    )
    for name, seed in (("first", 0), ("again", 0), ("other", 1))
  )
  assert first["losses"] == again["losses"] != other["losses"]
  assert first["metrics"] == again["metrics"]
  assert first["config"] == other["config"]
  (entry,) = group([first, again, other])
  assert len(entry.runs) == 2


@dataclasses.dataclass(frozen=True)
class Spy(FullFinetuning):
  """Tells what it is given: sources and keys, and domains of batches."""

  def prepare(self, model, data, key):
    SEEN.append((data, jax.random.key_data(key).tolist()))
    return model

  def loss(self, model, batch, key):
    jax.debug.callback(lambda d: DOMAINS.append(d.tolist()), batch["domain"])
    return super().loss(model, batch, key)


SEEN, DOMAINS = [], []


@pytest.fixture
def spy(monkeypatch, mlp):
  monkeypatch.setitem(methods.METHODS, "spy", Spy)
  SEEN.clear()
  DOMAINS.clear()


def test_a_method_sees_the_source_only_and_the_seed_cuts_it(
  trained, pacs, vit_file, spy
):
  for seed in ("0", "1"):
    trained(
      *("spy", "--train", pacs / "art", *SMALL),
      *("--ood", f"photo={pacs / 'photo'}", "--backbone", vit_file),
      *("--seed", seed),
    )
  (first, first_key), (other, other_key) = SEEN
  assert first_key != other_key
  pixels = [
    [{image.tobytes() for image in part.in_memory().images} for part in data]
    for data in (first, other)
  ]
  art = domainbed.open_images(pacs, view=View(16)).domain("art").in_memory()
  for train_images, validation in pixels:
    assert not train_images & validation
    assert train_images | validation == {i.tobytes() for i in art.images}
    assert len(validation) == 3
  assert pixels[0][1] != pixels[1][1]


def test_seeds_pair_methods(trained, sketch, monkeypatch, mlp):
  """Whatever the method, a seed orders the batches alike."""
  drawn, batches = [], runs.batches

  def spied(images, **settings):
    dataset = batches(images, **settings)
    drawn.append((settings["seed"], [dataset[i]["image"] for i in range(3)]))
    return dataset

  monkeypatch.setattr(runs, "batches", spied)
  for method, seed in (
    ("linear_probe", 5), ("full_finetuning", 5), ("full_finetuning", 6)
  ):  # fmt: skip
    trained(method, *sketch, "--seed", seed)
  (first, images), (again, same), (other, others) = drawn
  assert (first, again, other) == (5, 5, 6)
  np.testing.assert_array_equal(images, same)
  assert np.any(np.stack(images) != np.stack(others))


def test_a_domain_is_left_out(trained, capsys, pacs, vit_file, spy):
  record = trained(
    *("spy", "--data", "pacs", "--root", pacs),
    *("--target", "photo", "--backbone", vit_file, "--batch-size", "6"),
    *("--steps", "3"),
  )
  assert "on PACS but for photo" in " ".join(capsys.readouterr().out.split())
  data, found = record["config"]["data"], record["metrics"]
  assert data["target"] == "photo"
  assert "source" not in data
  assert list(found["ood"]) == ["photo"]
  assert images_in(record, "ood/photo") == 15
  # A fifth of each class of each of the other three: one image of five.
  assert images_in(record, "id") == 9
  assert set(found["id_by_domain"]) == {"art", "cartoon", "sketch"}
  assert found["mean_id"] == pytest.approx(found["id"])  # as many of each
  # Of every domain but the target, as many in every batch.
  jax.effects_barrier()
  assert [sorted(each) for each in DOMAINS] == [[0, 0, 1, 1, 3, 3]] * 3
