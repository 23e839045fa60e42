"""Every paper's experiment from end to end, on tiny data in real formats."""

import dataclasses
import re
import shlex

import numpy as np
import pytest

from experiments import configs, methods, sweep
from experiments.models import predictor
from experiments.reporting import records
from experiments.tasks.image_task import ImageTask
from tests.combinations import tried
from tests.experiments.configs.expected import EXPECTED, PAPERS, command


def images_in(metrics, name):
  return sum(metrics["details"][name]["reliability"]["count"])


def test_every_paper_is_expected_to_find_something():
  assert set(EXPECTED) == set(PAPERS)
  others = set(configs.names()) - set(PAPERS)
  assert others == {"demo", "study_cpu", "study_gpu"}


# What these read and do, others below and above do, too.
LIKE_ANOTHER = {
  "imagenet_vit_l14", "imagenet_vision_only", "imagenet_sizes",
  "domainbed_diwa", "domainbed_very_large_dropout",
}  # fmt: skip


@pytest.mark.parametrize(
  "name", tried(PAPERS, lambda name: name not in LIKE_ANOTHER)
)
def test_from_end_to_end(name, request, tmp_path, capsys, monkeypatch):
  monkeypatch.setenv("COLUMNS", "200")  # or tables break their headings
  expected, path = EXPECTED[name], tmp_path / "results.jsonl"
  sweep.main(command(name, request, path))
  shown = " ".join(capsys.readouterr().out.split())
  assert f"{len(expected.methods)} lines are in" in shown
  assert all(number in shown for number in expected.headline)
  lines = records.read(path)
  found = tuple(line["config"]["method"]["name"] for line in lines)
  assert found == expected.methods
  for line in lines:
    config, metrics = line["config"], line["metrics"]
    assert config["data"] == (expected.data_name or name)
    assert config["image_size"] == 16
    assert set(metrics["headline"]) == expected.headline
    assert all(0 <= value <= 1 for value in metrics["headline"].values())
    assert images_in(metrics, "id") == expected.test
    ood = {n: images_in(metrics, f"ood/{n}") for n in metrics["ood"]}
    assert ood == expected.ood
    if expected.model == "soup_folder":
      assert config["checkpoints"] == ["seed0", "seed1", "seed2"]
      assert line["notes"]["checkpoints"] == ["seed0", "seed1", "seed2"]
      continue
    assert (config["steps"], config["batch_size"]) == (2, 6)
    if config["method"]["name"] != "zero_shot":
      assert len(line["losses"]) == line["stats"]["steps"]
      assert line["stats"]["steps"] == 2 * line["stats"]["runs"] > 0
      assert np.isfinite(line["losses"]).all()


def sections(text):
  """The paragraphs that begin with a heading, by heading."""
  headings = ("Claim", "Command", "Hardware", "Not run by us: needs data")
  return {
    heading: paragraph
    for paragraph in text.split("\n\n")
    for heading in headings
    if paragraph.startswith(heading)
  }


def commands(text):
  """The command lines in a text, parsed."""
  found = [line.split("python -m", 1) for line in text.splitlines()]
  for before, arguments in (parts for parts in found if len(parts) == 2):
    assert not before.strip()
    module, *arguments = shlex.split(arguments)
    assert module == "experiments.sweep"
    yield sweep.parse(arguments)


@pytest.mark.parametrize("name", PAPERS)
def test_a_docstring_says_what_is_needed(name):
  text = configs.docstring(name)
  found = sections(text)
  assert list(found) == [
    "Claim", "Command", "Hardware", "Not run by us: needs data"
  ]  # fmt: skip
  assert re.search(r"arXiv\s\d{4}\.\d{5}", found["Claim"])
  (parsed,) = commands(found["Command"])
  assert parsed.config == name
  experiment = configs.load(name)
  assert (parsed.checkpoints is not None) == experiment.combines
  compared = sweep.chosen(parsed, experiment.methods)
  assert compared == list(experiment.methods)
  assert all(method.members() for method in compared)


@pytest.mark.parametrize("name", configs.names())
def test_commands_of_a_docstring_are_understood(name, capsys):
  text = configs.docstring(name)
  assert "Command:\n  python -m experiments.sweep" in text
  first, *others = commands(text)
  assert first.config == name
  for parsed in (first, *others):
    assert parsed.config in configs.names()
    experiment = configs.load(parsed.config)
    if hasattr(experiment, "stages"):
      given = (parsed, parsed.cases, parsed.seeds, pytest.fail)
      assert next(experiment.stages(*given)).cells
    else:
      compared = sweep.chosen(parsed, experiment.methods)
      assert [methods.name_of(method) for method in compared]
  with pytest.raises(SystemExit):
    sweep.parse(["--config", name, "--help"])
  assert text.split("\n")[0][:40] in capsys.readouterr().out


def test_lines_that_are_there_are_not_run_again(request, tmp_path, monkeypatch):
  path = tmp_path / "results.jsonl"
  config = dataclasses.replace(
    command("domainnet_sketch", request, path),
    checkpoint=tmp_path / "saved",
    save_every=1,
    export=tmp_path / "out",
  )
  sweep.main(config)
  (kept,) = (tmp_path / "saved").glob("runs-seed0-*/gmixout-0-*")
  assert any(kept.iterdir())
  (exported,) = (p for p in (tmp_path / "out").iterdir() if p.is_dir())
  assert predictor.load(exported).model.head.kernel.shape == (12, 3)
  monkeypatch.setattr(ImageTask, "open", lambda *_: pytest.fail("opened"))
  sweep.main(config)
  assert len(records.read(path)) == 1


@pytest.mark.parametrize(
  ("wrong", "message"),
  [
    ({"config": "imagnet"}, "one of cifar100_c, .*; got 'imagnet'"),
    ({"backbone": None}, "--backbone must name a folder as"),
    ({"backbone": "no"}, "no weights at .*no: --backbone must name a folder"),
    ({"cases": ("real",)}, "--cases must name some of all; got 'real'"),
    ({"methods": ("mixup",)}, "'mixup' is not one of"),
    ({"set": ("gmixout.rate=1",)}, "gmixout has .* got 'gmixout.rate=1'"),
    ({"root": None}, "--root must name the folder of domainnet_sketch's data"),
    ({"root": ""}, "no images in"),
    ({"train": ""}, "--train does not go with domainnet_sketch"),
    ({"source": "real"}, "--source does not go with domainnet_sketch"),
    ({"config": "manifold_mixing"}, "--checkpoints must name the folder"),
    (
      {
        **{"config": "manifold_mixing", "checkpoints": ""},
        **{"backbone": None, "batch_size": None, "steps": None},
      },
      "no checkpoint in .*head.safetensors",
    ),
    (
      {"config": "manifold_mixing", "checkpoints": ""},
      "--backbone has no meaning here, got .*clip",
    ),
    ({"checkpoints": ""}, "--checkpoints has no meaning for domainnet_sketch"),
  ],
)
def test_what_is_not_understood_is_quoted(request, tmp_path, wrong, message):
  config = command("domainnet_sketch", request, tmp_path / "results.jsonl")
  folders = ("root", "train", "checkpoints", "backbone")
  wrong = {  # an empty folder, or what is not in it
    name: tmp_path / value if name in folders and value is not None else value
    for name, value in wrong.items()
  }
  with pytest.raises(SystemExit, match=f"error: .*{message}"):
    sweep.main(dataclasses.replace(config, **wrong))
