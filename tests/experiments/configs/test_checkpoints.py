"""Finished checkpoints are combined by `--config manifold_mixing`."""

import numpy as np
import pytest

from experiments import sweep
from experiments.models import export
from experiments.models.classifier import Classifier
from experiments.reporting import records
from tests.combinations import tried
from tests.experiments import tiny


@pytest.fixture
def arguments(imagenet, tmp_path):
  """Of a command, but for the methods and the checkpoints."""
  return [
    *("--config", "manifold_mixing", "--root", str(imagenet)),
    *("--image-size", "16", "--results", str(tmp_path / "combined.jsonl")),
  ]


@pytest.mark.parametrize(
  "model", tried(["clip_folder", "vit_file"], lambda name: "vit" in name)
)
def test_what_was_exported_is_combined(
  imagenet, tmp_path, arguments, model, request
):
  """As the docstring says: a sweep exports, and another one combines."""
  folder = tmp_path / "models"
  sweep.main(
    sweep.parse(
      [
        *("full_finetuning", "--config", "imagenet", "--root", str(imagenet)),
        *("--backbone", str(request.getfixturevalue(model))),
        *("--image-size", "16", "--steps", "2", "--batch-size", "6"),
        *("--seeds", "0", "1", "--results", str(tmp_path / "runs.jsonl")),
        *("--export", str(folder)),
      ]
    )
  )
  runs = records.read(tmp_path / "runs.jsonl")
  assert [line["seed"] for line in runs] == [0, 1]
  compared = ["uniform_soup", "greedy_soup", "output_ensemble"]
  given = [*compared, *arguments, "--seeds", "0"]
  sweep.main(sweep.parse([*given, "--checkpoints", str(folder)]))
  lines = records.read(tmp_path / "combined.jsonl")
  assert [line["config"]["method"]["name"] for line in lines] == compared
  for line in lines:
    names = line["config"]["checkpoints"]
    assert names == line["notes"]["checkpoints"]
    assert [name.rsplit("-", 1)[0] for name in names] == [
      "full_finetuning-seed0",
      "full_finetuning-seed1",
    ]
    assert line["config"]["method"]["runs"] == 2
    assert line["losses"] == []
  assert lines[2]["stats"]["forward_passes"] == 2
  # The images to choose by are those that no run has trained on.
  by_run = [run["metrics"]["details"]["validation"]["top1"] for run in runs]
  chosen = lines[1]["metrics"]["details"]["validation"]["top1"]
  assert chosen >= max(by_run)


def test_a_pool_of_checkpoints_is_of_one_model(
  tmp_path, arguments, soup_folder
):
  folder = tmp_path / "other"
  folder.mkdir()
  for path in soup_folder.iterdir():
    (folder / path.name).write_bytes(path.read_bytes())
  kernel = np.zeros((64, 4), np.float32)
  other = Classifier(tiny.vit(width=64, heads=1), kernel)
  export.save(other, folder / "seed9")
  given = [*arguments, "--checkpoints", str(folder)]
  with pytest.raises(SystemExit, match=r"seed9\.safetensors is another model"):
    sweep.main(sweep.parse(["uniform_soup", *given]))


@pytest.mark.parametrize(
  ("method", "said"),
  [
    ("gmixout", "GMixout is not made of the final"),
    ("model_stock", "needs the weights that runs started from"),
    ("wise_ft+uniform_soup", "cannot be made of WiseFT"),
  ],
)
def test_checkpoints_do_not_tell_how_they_were_trained(
  tmp_path, arguments, soup_folder, method, said
):
  folder = tmp_path / "six"
  folder.mkdir()
  for path in soup_folder.iterdir():
    for copy in ("first", "second"):
      (folder / f"{copy}_{path.name}").write_bytes(path.read_bytes())
  given = [*arguments, "--checkpoints", str(folder), "--seeds", "0"]
  with pytest.raises(SystemExit, match="1 cells failed"):
    sweep.main(sweep.parse([method, *given]))
  (log,) = (tmp_path / "failed").iterdir()
  assert said in log.read_text()


def test_a_line_names_checkpoints_and_pixels_in_full(tmp_path, arguments):
  folder = tmp_path / "models"
  (folder / "v1.5").mkdir(parents=True)
  (folder / "v1.5" / "config.json").touch()
  for name in ("lr0.1", "lr0.2", "lr0.2b"):
    (folder / f"{name}.safetensors").write_text(name)

  def cell(*options):
    given = [*arguments, "--checkpoints", str(folder), *options]
    stages = sweep.stages_of(sweep.parse(["uniform_soup", *given]), None)
    return next(iter(stages)).cells[0]

  usual = cell()
  assert usual.method.runs == 4
  assert usual.config["checkpoints"] == ["lr0.1", "lr0.2", "lr0.2b", "v1.5"]
  assert len(set(usual.config["digest"])) == 4
  assert set(usual.config) == {
    *("method", "data", "image_size", "checkpoints", "digest")
  }
  pixels = cell("--mean", "0.5", "0.4", "0.3").config
  assert pixels == usual.config | {"mean": [0.5, 0.4, 0.3]}
  # Another checkpoint of the same name makes another line.
  (folder / "lr0.1.safetensors").write_text("trained for longer")
  again = cell()
  assert again.config["checkpoints"] == usual.config["checkpoints"]
  assert again.identity != usual.identity
