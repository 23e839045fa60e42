"""Tests `experiments/task_options.py`: flags to a task, what is refused."""

import pathlib

import pytest

from experiments import train
from experiments.task_options import TaskOptions
from experiments.tasks.domains import Domains
from experiments.tasks.experiment import ExperimentImages
from experiments.tasks.image_task import Setup
from experiments.tasks.user_images import UserImages
from gmixout_jax import clip


def told(*arguments):
  """The options of a command."""
  return train.parse(["gmixout", *map(str, arguments)])


def test_user_images_are_what_the_flags_say(vit_file):
  task = told(
    *("--backbone", vit_file, "--train", "photos/train", "--val", "photos/val"),
    *("--ood", "night=photos/night", "--ood", "by hand=drawn", "--skip-broken"),
  ).task()
  assert task.images == UserImages(
    train=pathlib.Path("photos/train"),
    validation=pathlib.Path("photos/val"),
    ood=(
      ("night", pathlib.Path("photos/night")),
      ("by hand", pathlib.Path("drawn")),
    ),
    skip_broken=True,
  )
  assert task.setup == Setup(backbone=vit_file)  # 300 steps of 32 images
  task = told("--backbone", vit_file, "--train=x", "--held-out=0.1").task()
  assert task.images == UserImages(train=pathlib.Path("x"), held_out=0.1)


@pytest.mark.parametrize("data", ["pacs", "vlcs", "domainbed", "domain_net"])
def test_domains_are_what_the_flags_say(data, vit_file):
  which = ("--backbone", vit_file, "--data", data, "--root", "x")
  root = pathlib.Path("x")
  task = told(*which, "--source", "sketch").task()
  assert task.images == Domains(root=root, source="sketch")
  assert task.setup == Setup(backbone=vit_file, templates=clip.PHOTO_TEMPLATES)
  task = told(
    *(*which, "--target", "sketch", "--held-out", "0.5", "--skip-broken"),
  ).task()
  assert task.images == Domains(
    root=root, target="sketch", held_out=0.5, skip_broken=True
  )


def test_training_is_set_up_as_the_flags_say(vit_file):
  config = told(
    *("--backbone", vit_file, "--train", "x", "--image-size", "24", "--epochs"),
    *(
      "2",
      "--batch-size",
      "4",
      "--warmup",
      "0",
      "--augment",
      "none",
      "--dtype",
    ),
    *("bfloat16", "--remat", "--skip-nonfinite", "2", "--mixup", "0.2"),
    *("--mean", "0.1", "0.2", "0.3", "--std", "1", "1", "1"),
  )
  assert config.setup() == Setup(
    backbone=vit_file,
    image_size=24,
    epochs=2.0,
    batch_size=4,
    warmup=0.0,
    augment="none",
    dtype="bfloat16",
    remat=True,
    skip_nonfinite=2,
    recipe=config.training,
    mean=(0.1, 0.2, 0.3),
    std=(1.0, 1.0, 1.0),
  )
  assert config.training.mixup == 0.2


def test_an_experiment_has_what_is_not_asked_for(vit_file, imagenet):
  which = ("--backbone", vit_file, "--root", imagenet)
  task = told(*which, "--data", "imagenet").task()
  assert isinstance(task.images, ExperimentImages)
  assert task.images.title == "imagenet"
  assert task.setup.batch_size == 512
  assert task.setup.steps is None
  assert task.setup.epochs == 10
  assert task.setup.image_size == 224
  assert task.long_tail is False
  assert told(*which, "--data", "imagenet/all").task().config == task.config
  asked = told(
    *(*which, "--data", "imagenet_sizes/25%", "--steps", "2"),
    *("--batch-size", "6", "--image-size", "16", "--warmup", "0.3"),
  ).task()
  assert asked.config["data"] == "imagenet_sizes/25%"
  setup = asked.setup
  assert (setup.steps, setup.epochs) == (2, None)
  assert (setup.batch_size, setup.image_size, setup.warmup) == (6, 16, 0.3)
  shorter = told(*which, "--data=imagenet", "--epochs", "1").task().setup
  assert (shorter.steps, shorter.epochs) == (None, 1)


VIT = ("--backbone", "vit.safetensors")
TRAIN = (*VIT, "--train", "x")
PACS = (*VIT, "--data", "pacs", "--root", "x", "--source", "a")


@pytest.mark.parametrize(
  ("arguments", "message"),
  [
    (VIT, "--train must .* or --data .* got None and None"),
    ((*TRAIN, "--data", "pacs"), "give one of them, got x and 'pacs'"),
    (("--train", "x"), "--backbone must name a folder as Hugging Face,"),
    ((*VIT, "--data", "pacs"), "--root must name the folder of --data pacs"),
    ((*VIT, "--data", "imagenet"), "--root must name the folder of --data im"),
    ((*TRAIN, "--root", "y"), "--root does not go with --train, got y"),
    ((*TRAIN, "--source", "y"), "--source does not go with --train, got y"),
    ((*TRAIN, "--target", "y"), "--target does not go with --train, got y"),
    (
      (*TRAIN, "--val", "y", "--held-out", "0.1"),
      "--held-out does not go with --val, got 0.1",
    ),
    ((*TRAIN, "--ood", "y"), "--ood must be NAME=DIR, got 'y'"),
    ((*TRAIN, "--ood", "y=a", "--ood", "y=b"), "--ood has 'y' twice, with a"),
    ((*PACS, "--val", "y"), "--val does not go with --data pacs, got y"),
    ((*PACS, "--ood", "y=a"), "--ood does not go with --data pacs, got .*y=a"),
    ((*PACS, "--target", "b"), "give one of them, got 'a' and 'b'"),
    (PACS[:-2], "--source names .* --target .* got None and None"),
  ],
)  # fmt: skip
def test_flags_that_do_not_go_together_are_named(arguments, message):
  config = told(*arguments)
  with pytest.raises(ValueError, match=message):
    config.task()


@pytest.mark.parametrize(
  ("arguments", "message"),
  [
    (["--data", "imagnet"], r"one of domainbed, pacs, .*; got 'imagnet'"),
    # Nothing that trains, or no single task.
    (["--data", "manifold_mixing"], "an experiment that trains, .*'manifold_m"),
    (["--data", "demo"], "an experiment that trains, .*; got 'demo'"),
    (["--data", "study_cpu"], "an experiment that trains, .*; got 'study_cpu'"),
    (
      ["--data", "imagenet_sizes"],
      r"one of imagenet_sizes/1%, .*imagenet_sizes/100%; got 'imagenet_sizes'",
    ),
    (["--data", "imagenet_sizes/2%"], "got 'imagenet_sizes/2%'"),
    (["--data", "imagenet/25%"], "--data must be one of imagenet/all; got"),
    *(
      (["--data", "imagenet", flag, *value], f"{flag} does not go with imag")
      for flag, *value in (
        ("--val", "x"), ("--ood", "x=y"), ("--source", "x"), ("--target", "x"),
        ("--held-out", "0.1"), ("--skip-broken",),
      )
    ),
  ],
)  # fmt: skip
def test_experiments_that_cannot_be_trained_so_are_named(
  arguments, message, imagenet
):
  config = told(*VIT, "--root", imagenet, *arguments)
  with pytest.raises(ValueError, match=message):
    config.task()


@pytest.mark.parametrize(
  ("arguments", "message"),
  [
    (["--steps", "3", "--epochs", "2"], "got steps=3 and epochs=2.0"),
    (["--epochs", "0"], "epochs must be finite and above 0, got 0.0"),
    (["--steps", "0"], "steps must be at least 1, got 0"),
    (["--held-out", "1.5"], "held_out must be in (0, 1), got 1.5"),
    (["--held-out", "0"], "held_out must be in (0, 1), got 0.0"),
    (["--mixup", "-1"], "mixup must be finite and at least 0, got -1.0"),
    (["--patience", "3"], "patience=3 needs eval_every"),
  ],
)
def test_what_is_out_of_range_ends_the_command(arguments, message, capsys):
  with pytest.raises(SystemExit):
    told(*arguments)
  error = capsys.readouterr()
  shown = (error.out + error.err).replace("│", " ")
  assert message in " ".join(shown.split())


def test_what_has_no_meaning_is_named():
  options = TaskOptions(steps=3, image_size=24)
  options.refuse_all_but("steps", "image_size", "training")
  with pytest.raises(
    ValueError, match="--image-size has no meaning here, got 24"
  ):
    options.refuse_all_but("steps", "training")
