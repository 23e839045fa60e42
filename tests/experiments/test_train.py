import dataclasses
import pathlib
import shutil

import jax
import numpy as np
import pytest

from experiments import methods, train
from experiments.data import domainbed
from experiments.methods.full_finetuning import FullFinetuning
from experiments.methods.gmixout import GMixout
from experiments.methods.model_soups import UniformSoup
from experiments.methods.wise_ft import WiseFT
from experiments.reporting import records
from experiments.reporting.entries import group
from experiments.training import metrics_log, runs
from gmixout_jax import clip
from tests.experiments import tiny


@pytest.fixture(scope="module")
def files(tmp_path_factory):
  folder = tmp_path_factory.mktemp("train")
  weights = folder / "vit.safetensors"
  clip.vit_to_safetensors(tiny.vit(width=64, heads=1), weights)
  return tiny.domainbed(folder / "PACS"), weights


def arguments(files, method="gmixout"):
  root, weights = files
  return [
    *(method, "--data.root", str(root), "--weights", str(weights)),
    *("--data.image-size", "16", "--data.batch-size", "4", "--steps", "3"),
  ]


def test_command_line():
  config = train.parse(
    ["gmixout", "--sparsity=0.8", "--data.source=photo", "--seed=3"]
  )
  assert config.method == GMixout(sparsity=0.8)
  assert config.data == train.Data(source="photo")
  assert (config.seed, config.steps) == (3, 300)
  assert config.data.root == pathlib.Path("data/PACS")
  # Before the method's name as well as after it.
  config = train.parse(["--seed=3", "full_finetuning", "--learning-rate=1e-5"])
  assert config.method.learning_rate == 1e-5
  assert config.seed == 3
  for arguments in (
    ["--method", "full_finetuning", "--seed=3", "--learning-rate=1e-5"],
    ["--seed=3", "--method=full_finetuning", "--learning-rate=1e-5"],
  ):
    again = train.parse(arguments)  # of a class of its own
    assert dataclasses.asdict(again) == dataclasses.asdict(config)


def test_a_method_on_another_one_is_set_up_from_the_command_line():
  config = train.parse(["wise_ft", "--alpha=0.2", "--of.learning-rate=1e-5"])
  assert config.method == WiseFT(
    of=FullFinetuning(learning_rate=1e-5), alpha=0.2
  )
  config = train.parse(["uniform_soup", "--runs=3", "--factors", "1", "2"])
  assert config.method == UniformSoup(runs=3, factors=(1.0, 2.0))


def test_a_rate_far_from_the_recipes_is_warned_of(files, tmp_path):
  command = [*arguments(files), "--results", str(tmp_path / "x.jsonl")]
  # The default of 1e-3 at k = 10, where 5e-5 would follow.
  config = train.parse([*command, "--recipe", "1e-5"])
  assert "recipe" not in train.described(config)
  with pytest.warns(
    UserWarning, match="is 0.001, but 1e-05 for full fine-tuning"
  ):
    config.method.advise(config.recipe)
  with pytest.warns(UserWarning, match="is 0.001"):
    WiseFT(of=config.method).advise(1e-5)
  config.method.advise(2e-4)  # no warning, or this fails
  missing = dataclasses.replace(config, weights=tmp_path / "none")
  with (
    pytest.warns(UserWarning, match="is 0.001"),
    pytest.raises(SystemExit, match="no weights"),
  ):
    train.main(missing)


def test_the_recipe_and_the_watching_are_flags():
  config = train.parse(
    [
      *("gmixout", "--epochs", "2", "--accumulate", "4", "--mixup", "0.2"),
      *("--cutmix", "1", "--label-smoothing", "0.1", "--clip-norm", "1"),
      *("--optimizer", "lion", "--schedule", "linear", "--warmup", "0.2"),
      *("--weight-decay", "0.05", "--eval-every", "50", "--patience", "3"),
      *("--eval-images", "20", "--log-dir", "log", "--profile", "trace"),
      "--watch-ood",
    ]
  )
  recipe = {
    **{"label_smoothing": 0.1, "mixup": 0.2, "cutmix": 1.0, "clip_norm": 1.0},
    **{"accumulate": 4, "optimizer": "lion", "schedule": "linear"},
    "weight_decay": 0.05,
  }
  watched = {"eval_every": 50, "eval_images": 20, "patience": 3}
  assert dataclasses.asdict(config.training) == recipe
  assert dataclasses.asdict(config.watching) == watched | {
    "log_dir": pathlib.Path("log"),
    "profile": pathlib.Path("trace"),
    "watch_ood": True,
  }
  described = train.described(config)
  plain = train.described(train.parse(["gmixout"]))
  assert described == {
    **{k: v for k, v in plain.items() if k != "steps"},
    **{"epochs": 2.0, "warmup": 0.2},
    **recipe,
    **watched,
  }
  # A line without any of it is as it always was.
  assert list(plain) == [
    *("method", "data", "weights", "mean", "std", "remat", "steps", "warmup"),
    "skip_nonfinite",
  ]
  # What is only looked at is no part of what was run.
  seen = train.parse(["gmixout", "--eval-every", "5", "--log-dir", "log"])
  assert train.described(seen) == plain


def test_weight_decay_is_the_method_s_own_if_it_has_one():
  config = train.parse(["full_finetuning", "--weight-decay", "0.1"])
  assert config.method == FullFinetuning(weight_decay=0.1)
  assert config.training.described() == {}
  config = train.parse(["wise_ft", "--weight-decay", "0.1"])
  assert config.training.weight_decay == 0.1


def test_a_run_has_steps_or_epochs(capsys):
  for arguments, message in (
    (["--steps", "3", "--epochs", "2"], "got steps=3 and epochs=2.0"),
    (["--epochs", "0"], "epochs must be finite and above 0, got 0.0"),
  ):
    with pytest.raises(SystemExit):
      train.parse(["gmixout", *arguments])
    error = capsys.readouterr()
    shown = (error.out + error.err).replace("│", " ")
    assert message in " ".join(shown.split())
  domains = {"sketch": tiny.split(per_class=9), "photo": tiny.split(seed=1)}
  config = train.parse(["gmixout", "--epochs", "2.5", "--data.batch-size", "4"])
  task = train.task_of(config, domains, tiny.classifier())
  assert len(task.source.train) == 21  # of 27, without two of each class
  assert task.steps == 14  # 2.5 * 21 / 4 = 13.125


def test_a_run_that_is_watched(files, tmp_path, capsys):
  path, log = tmp_path / "results.jsonl", tmp_path / "log"
  command = arguments(files)[:-2]
  train.main(
    train.parse(
      [
        *(*command, "--results", str(path), "--epochs", "1"),
        *("--mixup", "0.2", "--accumulate", "2", "--eval-every", "2"),
        *("--patience", "5", "--watch-ood", "--log-dir", str(log)),
      ]
    )
  )
  (record,) = records.read(path)
  steps = record["stats"]["steps"]
  lines = metrics_log.read(log / "metrics.jsonl")
  losses = [line["loss"] for line in lines if "loss" in line]
  assert len(losses) == steps == 3  # of 12 images, four a class
  assert [round(loss, 5) for loss in losses] == record["losses"]
  evaluations = [line for line in lines if "id_accuracy" in line]
  assert [line["step"] for line in evaluations] == [2, 3]
  best = max(evaluations, key=lambda line: line["id_accuracy"])
  assert best["id_accuracy"] == record["metrics"]["id"]
  assert best["ood_accuracy/photo"] == record["metrics"]["ood"]["photo"]
  assert record["config"]["mixup"] == 0.2
  assert record["config"]["epochs"] == 1
  assert "(OOD)" in capsys.readouterr().out


def test_help_lists_the_methods(capsys):
  with pytest.raises(SystemExit) as stop:
    train.parse(["--help"])
  assert stop.value.code == 0
  shown = capsys.readouterr().out
  assert "usage: python -m experiments.train" in shown
  assert all(name in shown for name in methods.METHODS)


def test_end_to_end(files, tmp_path, capsys):
  path = tmp_path / "runs" / "results.jsonl"
  deployed = tmp_path / "deployed.safetensors"
  command = [*arguments(files), "--results", str(path), "--seed", "3"]
  train.main(train.parse([*command, "--export", str(deployed)]))
  shown = capsys.readouterr().out
  assert "sketch (held out)" in shown
  assert "mean OOD" in shown

  (record,) = records.read(path)
  config = record["config"]
  asked = {"name": "gmixout", **dataclasses.asdict(GMixout())}
  del asked["compact"]  # which form trains is no part of what was run
  assert config["method"] == asked
  assert config["data"]["source"] == "sketch"
  assert config["data"]["root"] == "PACS"  # not the folder it lies in
  assert str(tmp_path.parent) not in path.read_text()
  assert record["seed"] == 3
  assert "seed" not in config
  assert record["device"] == "cpu"
  assert set(record["metrics"]["ood"]) == {"art", "cartoon", "photo"}
  assert len(record["losses"]) == record["stats"]["steps"] == 3

  vit = clip.vit_from_safetensors(deployed)
  photo = domainbed.read(files[0], image_size=16)["photo"]
  pixels = clip.preprocess(photo.images, mean=clip.HALF, std=clip.HALF)
  right = np.asarray(vit(pixels)).argmax(-1) == photo.labels
  assert record["metrics"]["ood"]["photo"] == pytest.approx(right.mean())


def test_an_ensemble_has_a_line_and_no_export(tmp_path, monkeypatch, capsys):
  domains = {"sketch": tiny.split(), "photo": tiny.split(seed=1)}
  monkeypatch.setattr(train, "load", lambda _: (domains, tiny.classifier()))
  path, deployed = tmp_path / "results.jsonl", tmp_path / "deployed"
  command = ["output_ensemble", "--runs=2", "--steps=1", "--data.batch-size=4"]
  command += ["--results", str(path), "--export", str(deployed)]
  train.main(train.parse(command))
  shown = " ".join(capsys.readouterr().out.split())
  assert "Nothing was exported to" in shown
  assert "an ensemble is 2 models" in shown
  assert len(records.read(path)) == 1
  assert not deployed.exists()


def test_the_seed_decides_and_the_time_does_not():
  domains = {"sketch": tiny.split(per_class=9), "photo": tiny.split(seed=1)}
  method = GMixout(resample_every=2)
  config = train.Config(method=method, data=train.Data(batch_size=4), steps=3)

  def run(seed):
    changed = dataclasses.replace(config, seed=seed)
    return train.run(changed, domains, tiny.classifier())

  first, again, other = run(0), run(0), run(1)
  assert first["losses"] == again["losses"] != other["losses"]
  assert first["metrics"] == again["metrics"]
  assert first["config"] == other["config"]
  (entry,) = group([first, again, other])
  assert len(entry.runs) == 2


def test_a_method_sees_the_source_only_and_the_seed_cuts_it(monkeypatch):
  seen = []

  @dataclasses.dataclass(frozen=True)
  class Spy(methods.Method):
    def prepare(self, model, data, key):
      seen.append((data, jax.random.key_data(key).tolist()))
      return model

  monkeypatch.setitem(methods.METHODS, "spy", Spy)
  split = tiny.split(per_class=10)
  domains = {"sketch": split, "photo": tiny.split(seed=1)}
  for seed in (0, 1):
    config = train.Config(method=Spy(), seed=seed)
    train.run(config, domains, tiny.classifier())
  (first, first_key), (other, other_key) = seen
  assert first_key != other_key
  pixels = [
    sorted(image.tobytes() for part in data for image in part.images)
    for data in (first, other)
  ]
  assert pixels[0] == pixels[1] == sorted(i.tobytes() for i in split.images)
  assert len(first.validation) == 6
  assert not np.array_equal(first.validation.images, other.validation.images)


def test_the_seed_orders_the_batches(monkeypatch):
  seeds, batches = [], runs.batches
  monkeypatch.setattr(
    runs,
    "batches",
    lambda *a, **k: seeds.append(k["seed"]) or batches(*a, **k),
  )
  domains = {"sketch": tiny.split(), "photo": tiny.split(seed=1)}
  config = train.Config(method=methods.METHODS["zero_shot"](), seed=5)
  train.run(config, domains, tiny.classifier())
  assert seeds == [5]


@pytest.mark.parametrize("method", ["zero_shot", "linear_probe"])
def test_methods_without_steps(files, tmp_path, method):
  path = tmp_path / "results.jsonl"
  command = [*arguments(files, method), "--results", str(path)]
  train.main(train.parse(command))
  (record,) = records.read(path)
  assert record["losses"] == []
  assert record["stats"]["steps"] == 0
  if method == "zero_shot":  # a head of zeros names the first class
    assert record["metrics"]["mean_ood"] == pytest.approx(1 / 3)
  else:
    assert record["metrics"]["mean_ood"] > 0.5


def test_missing_files_say_what_was_expected(files, tmp_path):
  def config(**changes):
    return dataclasses.replace(train.parse(arguments(files)), **changes)

  with pytest.raises(FileNotFoundError, match="--weights must name a ViT"):
    train.load(config(weights=tmp_path / "none.safetensors"))
  with pytest.raises(SystemExit, match="error: no weights at"):
    train.main(config(weights=tmp_path / "none.safetensors"))
  with pytest.raises(FileNotFoundError, match="<root>/<domain>/<class>"):
    train.load(config(data=train.Data(root=tmp_path / "none")))
  data = train.Data(root=files[0], source="quickdraw")
  with pytest.raises(ValueError, match=r"'quickdraw'.* art, cartoon, photo"):
    train.load(config(data=data))


def test_a_domain_is_left_out(files, tmp_path, capsys):
  path = tmp_path / "results.jsonl"
  command = [*arguments(files), "--results", str(path)]
  train.main(train.parse([*command, "--data.target", "photo"]))
  assert "not photo (held out)" in capsys.readouterr().out
  (record,) = records.read(path)
  data, metrics = record["config"]["data"], record["metrics"]
  assert data["target"] == "photo"
  assert "source" not in data
  assert list(metrics["ood"]) == ["photo"]
  photo = domainbed.read(files[0], image_size=16)["photo"]
  found = metrics["details"]["ood/photo"]["reliability"]["count"]
  assert sum(found) == len(photo)
  # A fifth of each class of each of the other three: one image of five.
  assert sum(metrics["details"]["id"]["reliability"]["count"]) == 9
  assert set(metrics["id_by_domain"]) == {"art", "cartoon", "sketch"}
  assert metrics["mean_id"] == pytest.approx(metrics["id"])  # as many of each


def test_batches_are_of_all_domains_but_the_target():
  sizes = {"art": 4, "photo": 30, "sketch": 10}
  domains = {
    name: tiny.split(per_class=size, seed=i)
    for i, (name, size) in enumerate(sizes.items())
  }
  seen = []

  @dataclasses.dataclass(frozen=True)
  class Spy(FullFinetuning):
    def loss(self, model, batch, key):
      jax.debug.callback(lambda d: seen.append(d.tolist()), batch["domain"])
      return super().loss(model, batch, key)

  config = train.Config(
    method=Spy(), data=train.Data(target="photo", batch_size=6), steps=3
  )
  task = train.task_of(config, domains, tiny.classifier())
  runs.Runs(task, [config.method]).outcome(config.method)
  jax.effects_barrier()
  assert len(seen) == 3
  assert all(sorted(each) == [0, 0, 0, 2, 2, 2] for each in seen)


def test_a_source_and_a_target_exclude_each_other(files, capsys):
  with pytest.raises(ValueError, match="give one of them, got 'a' and 'b'"):
    train.Data(source="a", target="b")
  options = ["--data.source", "art", "--data.target", "photo"]
  with pytest.raises(SystemExit):
    train.parse([*arguments(files), *options])
  assert "give one of them" in capsys.readouterr().err
  data = train.Data(root=files[0], target="quickdraw")
  config = dataclasses.replace(train.parse(arguments(files)), data=data)
  with pytest.raises(ValueError, match=r"--data.target .* got 'quickdraw'"):
    train.load(config)


def test_lines_of_a_source_are_as_they_were_before_there_was_a_target():
  described = train.described(train.Config(method=GMixout()))
  assert described["data"] == {
    "root": "PACS",
    "source": "sketch",
    "image_size": 96,
    "batch_size": 32,
    "held_out": 0.2,
  }


def test_broken_images_are_left_out_if_asked_for(files, tmp_path):
  root = tmp_path / "PACS"
  shutil.copytree(files[0], root)
  (root / "art" / "cat" / "0.png").write_bytes(b"no image")
  parsed = train.parse(arguments((root, files[1])))
  with pytest.raises(ValueError, match=r"cat.0\.png is not a readable image"):
    train.load(parsed)
  parsed = train.parse([*arguments((root, files[1])), "--data.skip-broken"])
  with pytest.warns(UserWarning, match="left out 1 of 60 images"):
    domains, _ = train.load(parsed)
  assert len(domains["art"]) == 14
  assert train.described(parsed)["data"]["skip_broken"] is True
