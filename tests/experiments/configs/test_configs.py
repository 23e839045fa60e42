"""Every experiment from end to end, on tiny data in the real formats."""

import dataclasses
import itertools
import re
import shlex

import numpy as np
import pytest
import rich.progress

from experiments import configs, methods, run
from experiments.case import open_case
from experiments.data import cifar_c, five_sets
from experiments.data.decode import View
from experiments.experiment import Experiment
from experiments.models import export
from experiments.models.classifier import Classifier
from experiments.reporting import records
from tests.experiments import tiny

SHIFTS = {"V2": 6, "R": 6, "Sketch": 6, "A": 6, "ObjectNet": 2}
HEADLINE = {"ID", *SHIFTS, "mean OOD"}
DIWA = ("--set", "diwa.runs=2", "diwa.evaluations=2",
        "restricted_diwa.runs=2", "restricted_diwa.evaluations=2")  # fmt: skip


@dataclasses.dataclass(frozen=True)
class Expected:
  """A run of an experiment and what its lines must hold.

  Attributes:
    data: The fixture of its data.
    model: The fixture of the model, or of the checkpoints.
    options: Of the command.
    test: Images of the test at home.
    targets: Images by target.
    headline: The numbers it is about.
    methods: The lines' methods.
    data_name: What the lines call the data, if not the experiment.
  """

  data: str
  model: str
  options: tuple[str, ...]
  test: int
  targets: dict[str, int]
  headline: set[str]
  methods: tuple[str, ...] = ("gmixout",)
  data_name: str = ""


ONE = ("--methods", "gmixout")
EXPECTED = {
  "imagenet": Expected(
    *("imagenet", "clip_folder", ("--methods", "zero_shot", "gmixout")),
    *(6, SHIFTS, HEADLINE, ("zero_shot", "gmixout")),
  ),
  "imagenet_vit_l14": Expected(
    "imagenet", "clip_folder", ONE, 6, SHIFTS, HEADLINE
  ),
  "imagenet_vision_only": Expected(
    "imagenet", "vit_file", ONE, 6, SHIFTS, HEADLINE
  ),
  "imagenet_sizes": Expected(
    *("imagenet", "clip_folder", (*ONE, "--cases", "25%")),
    *(6, SHIFTS, HEADLINE),
    data_name="imagenet_sizes/25%",
  ),
  "imagenet_lt": Expected(
    *("imagenet_lt", "clip_folder", ONE),
    *(6, {}, {"all", "many", "medium", "few"}),
  ),
  "domainnet_sketch": Expected(
    *("domainnet", "clip_folder", ONE, 3),
    {"real": 15, "painting": 15, "clipart": 15},
    {"ID", "real", "painting", "clipart", "mean OOD"},
  ),
  "iwildcam": Expected(
    *("iwildcam", "clip_folder", ("--methods", "flyp"), 3, {"new traps": 3}),
    {"ID macro-F1", "OOD macro-F1"},
    ("flyp",),
  ),
  "cifar100_c": Expected(
    *("cifar", "vit_file", ONE, 3),
    {
      f"{name}/{severity}": 3
      for name in cifar_c.BENCHMARK + cifar_c.EXTRA
      for severity in cifar_c.SEVERITIES
    },
    {"clean", "mean of 15", "mean of 19"},
  ),
  "transfer": Expected(
    *("five_tasks", "vit_file", (*ONE, "--cases", "eurosat")),
    *(3, {}, {"accuracy", "mean per class"}),
    data_name="transfer/eurosat/rgb",
  ),
  "domainbed_very_large_dropout": Expected(
    "domainbed",
    "vit_file",
    ("--methods", "very_large_dropout", "--cases", "PACS/photo"),
    *(9, {"photo": 15}, {"ID", "photo", "mean OOD"}),
    ("very_large_dropout",) * 3,
    "domainbed_very_large_dropout/PACS/photo",
  ),
  "domainbed_diwa": Expected(
    "domainbed",
    "vit_file",
    ("--methods", "diwa", "restricted_diwa", "--cases", "PACS/art", *DIWA),
    *(9, {"art": 15}, {"ID", "art", "mean OOD"}, ("diwa", "restricted_diwa")),
    "domainbed_diwa/PACS/art",
  ),
  "domainbed_high_rate_mixout": Expected(
    "domainbed",
    "vit_file",
    ("--methods", "high_rate_mixout", "--cases", "domain_net/sketch"),
    *(9, {"sketch": 15}, {"ID", "sketch", "mean OOD"}, ("high_rate_mixout",)),
    "domainbed_high_rate_mixout/domain_net/sketch",
  ),
  "manifold_mixing": Expected(
    "imagenet",
    "soup_folder",
    (
      *("--methods", "greedy_soup", "manifold_mixing"),
      *("--set", "manifold_mixing.budget=1"),
    ),
    *(6, SHIFTS, HEADLINE, ("greedy_soup", "manifold_mixing")),
  ),
}


def command(name, expected, request, path):
  given = "checkpoints" if expected.model == "soup_folder" else "backbone"
  small = ["--image-size", "16", "--seeds", "0", "--results", str(path)]
  if given == "backbone":
    small += ["--steps", "2", "--batch-size", "6"]
  return run.parse(
    [
      *(name, "--root", str(request.getfixturevalue(expected.data))),
      *(f"--{given}", str(request.getfixturevalue(expected.model))),
      *small,
      *expected.options,
    ]
  )


def images_in(metrics, name):
  return sum(metrics["details"][name]["reliability"]["count"])


@pytest.mark.parametrize("name", configs.names())
def test_from_end_to_end(name, request, tmp_path, capsys):
  expected, path = EXPECTED[name], tmp_path / "results.jsonl"
  run.main(command(name, expected, request, path))
  assert str(len(expected.methods)) in capsys.readouterr().out
  lines = records.read(path)
  found = tuple(line["config"]["method"]["name"] for line in lines)
  assert found == expected.methods
  for line in lines:
    config, metrics = line["config"], line["metrics"]
    assert config["data"] == (expected.data_name or name)
    assert set(metrics["headline"]) == expected.headline
    assert all(0 <= value <= 1 for value in metrics["headline"].values())
    assert images_in(metrics, "id") == expected.test
    targets = {n: images_in(metrics, f"ood/{n}") for n in metrics["ood"]}
    assert targets == expected.targets
    if expected.model == "soup_folder":
      assert line["config"]["checkpoints"] == ["seed0", "seed1", "seed2"]
      assert line["notes"]["checkpoints"] == ["seed0", "seed1", "seed2"]
    elif config["method"]["name"] != "zero_shot":
      assert len(line["losses"]) == line["stats"]["steps"]
      assert line["stats"]["steps"] == 2 * line["stats"]["runs"] > 0
      assert config["steps"] == 2
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


@pytest.mark.parametrize("name", configs.names())
def test_a_docstring_says_what_is_needed(name, capsys):
  text = configs.docstring(name)
  found = sections(text)
  assert list(found) == [
    "Claim", "Command", "Hardware", "Not run by us: needs data"
  ]  # fmt: skip
  assert re.search(r"arXiv\s\d{4}\.\d{5}", found["Claim"])
  lines = found["Command"].split("\n", 1)[1].replace("\\\n", " ")
  python, m, module, *arguments = shlex.split(lines)
  assert (python, m, module) == ("python", "-m", "experiments.run")
  parsed = run.parse(arguments)
  assert parsed.name == name
  experiment = configs.load(name)
  compared = run.chosen(parsed, experiment)
  assert (parsed.checkpoints is not None) == experiment.combines
  assert [methods.name_of(m) for m in compared]
  assert all(m.members() for m in compared)
  with pytest.raises(SystemExit):
    run.parse([name, "--help"])
  assert text.split("\n")[0][:40] in capsys.readouterr().out


def test_lines_that_are_there_are_not_run_again(
  request, tmp_path, capsys, monkeypatch
):
  path = tmp_path / "results.jsonl"
  config = command(
    "domainnet_sketch", EXPECTED["domainnet_sketch"], request, path
  )
  config = dataclasses.replace(
    config, checkpoint=tmp_path / "saved", save_every=1, export=tmp_path / "out"
  )
  run.main(config)
  kept = tmp_path / "saved" / "all-seed0" / "runs" / "run_00"
  assert any(kept.iterdir())
  exported = export.from_hugging_face(tmp_path / "out" / "gmixout_all-seed0")
  assert exported.head.kernel.shape == (12, 3)
  monkeypatch.setattr(run, "open_case", None)  # not even opened
  run.main(config)
  assert len(records.read(path)) == 1
  with pytest.raises(SystemExit, match="steps is 2 there and 3 here"):
    run.main(dataclasses.replace(config, steps=3))
  capsys.readouterr()


def test_what_is_not_understood_is_quoted(request, tmp_path):
  config = command(
    "domainnet_sketch", EXPECTED["domainnet_sketch"], request, tmp_path / "x"
  )
  for wrong, message in (
    ({"name": "imagnet"}, "one of cifar100_c, .*; got 'imagnet'"),
    ({"backbone": None}, "--backbone must name a Hugging Face CLIP folder"),
    ({"backbone": tmp_path / "no"}, "no weights at .*no: expected a CLIP"),
    ({"cases": ("real",)}, "--cases must name some of all; got 'real'"),
    ({"methods": ("mixup",)}, "'mixup' is not one of"),
    ({"set": ("gmixout.rate=1",)}, "gmixout has .* got 'gmixout.rate=1'"),
    ({"root": tmp_path}, "no images in"),
    ({"name": "manifold_mixing"}, "--checkpoints must name the folder"),
    (
      {"name": "manifold_mixing", "checkpoints": tmp_path},
      "no checkpoint in .*head.safetensors",
    ),
  ):
    with pytest.raises(SystemExit, match=message):
      run.main(dataclasses.replace(config, **wrong))


def test_a_pool_of_checkpoints_is_of_one_model(imagenet, soup_folder, tmp_path):
  for path in soup_folder.iterdir():
    (tmp_path / path.name).write_bytes(path.read_bytes())
  kernel = np.zeros((64, 4), np.float32)
  other = Classifier(tiny.vit(width=64, heads=1), kernel)
  export.save(other, tmp_path / "seed9")
  arguments = ["manifold_mixing", "--root", str(imagenet), "--image-size", "16"]
  arguments += ["--checkpoints", str(tmp_path)]
  parsed = run.parse([*arguments, "--methods", "uniform_soup"])
  with pytest.raises(SystemExit, match=r"seed9\.safetensors is another model"):
    run.main(parsed)
  parsed = run.parse([*arguments, "--methods", "gmixout"])
  with pytest.raises(SystemExit, match="GMixout is not made of the final"):
    run.main(parsed)


def test_a_line_names_checkpoints_and_pixels_in_full(imagenet, tmp_path):
  for name in ("lr0.1", "lr0.2", "lr0.2b"):
    (tmp_path / f"{name}.safetensors").touch()
  (tmp_path / "v1.5").mkdir()
  (tmp_path / "v1.5" / "config.json").touch()
  experiment = configs.load("manifold_mixing")

  def described(*options):
    arguments = ["manifold_mixing", "--root", str(imagenet), *options]
    parsed = run.parse([*arguments, "--checkpoints", str(tmp_path)])
    bar = rich.progress.Progress()
    opened = open_case(parsed, experiment, (), "all", 0, bar, lambda _: False)
    return opened.described

  usual = described()
  assert usual["checkpoints"] == ["lr0.1", "lr0.2", "lr0.2b", "v1.5"]
  # As it was before it could be given, where it is not.
  assert set(usual) == {"data", "image_size", "checkpoints"}
  given = described("--mean", "0.5", "0.4", "0.3")
  assert given == usual | {"mean": [0.5, 0.4, 0.3]}


def test_sizes_are_parts_of_each_other_and_never_what_is_held_out(imagenet):
  experiment = configs.load("imagenet_sizes")
  view = View(8)
  rows = [
    (set(opened.source.train.rows), set(opened.source.validation.rows))
    for case in experiment.cases(imagenet)
    for opened in [experiment.open(imagenet, view, case, 1)]
  ]
  sizes = [len(train) for train, _ in rows]
  assert sizes == [3, 3, 3, 6, 27]
  for (small, held), (large, other) in itertools.pairwise(rows):
    assert small <= large
    assert held == other
    assert not large & held


def test_the_case_decides_batch_and_steps(domainbed):
  view = View(8)
  for name, steps in (
    ("domainbed_very_large_dropout", (10_000, 30_000)),
    ("domainbed_diwa", (5_000, 15_000)),
    ("domainbed_high_rate_mixout", (5_000, 15_000)),
  ):
    experiment = configs.load(name)
    assert len(experiment.cases(domainbed)) == 8
    for case, wanted in zip(("PACS/art", "domain_net/art"), steps, strict=True):
      opened = experiment.open(domainbed, view, case, 0)
      assert experiment.length(opened, 96) == wanted
      assert opened.batch_size == 96  # 32 of each of three domains
      assert set(opened.source.train.domains) == {1, 2, 3}


def test_five_sets_name_what_is_missing(tmp_path):
  with pytest.raises(FileNotFoundError, match="one or more of PACS, VLCS"):
    five_sets.cases(tmp_path)


def test_epochs_become_steps(domainnet):
  opened = configs.load("domainnet_sketch").open(domainnet, View(8), "all", 0)
  fields = {"open": None, "methods": (), "epochs": 2.0}
  assert len(opened.source.train) == 12
  assert Experiment(**fields).length(opened, 5) == 5  # of 4.8
  with pytest.raises(ValueError, match="either epochs or steps"):
    Experiment(**fields, steps=3)
