"""Transfer: a model tuned on ImageNet, fine-tuned on five other tasks.

Claim: the paper of GMixout (arXiv 2510.06982) transfers an ImageNet-tuned model
to five tasks. Which ones, and its table, are not known to us: the five here are
our choice among those that TFDS holds.

Command:
  python -m experiments.sweep --config transfer --root DATA \
    --backbone tuned.safetensors

Hardware: a GPU with 24 GB or more, 8 cores to decode.

Not run by us: needs data. DATA must hold dtd, eurosat/rgb, food101,
oxford_flowers102 and oxford_iiit_pet, each made by
"tfds build NAME --file_format=array_record --data_dir DATA"; --cases chooses.
The backbone is what `imagenet` or `imagenet_vision_only` exports: run that with
full_finetuning and gmixout, --seeds 0 and --export RUNS, and this on each of
the two models there, to see which transfers better.

The head of ImageNet is dropped, for its classes are others: a CLIP starts from
the words of the new task, a ViT from a linear probe. A tenth of the training
images is held out to choose by. Steps, batch size and rates are ours.
"""

import pathlib

from experiments.data import tfds_sets
from experiments.data.decode import View
from experiments.data.source import hold_out
from experiments.methods.full_finetuning import FullFinetuning
from experiments.methods.full_finetuning_of_blocks import FullFinetuningOfBlocks
from experiments.methods.gmixout import GMixout
from experiments.methods.linear_probe import LinearProbe
from experiments.methods.wise_ft import WiseFT
from experiments.tasks.experiment import Experiment
from experiments.tasks.image_task import Sets
from experiments.tasks.task import Metrics

TASKS = {
  "dtd": ("train+validation", "test"),
  "eurosat/rgb": ("train[:80%]", "train[80%:]"),  # it has no other split
  "food101": ("train", "validation"),
  "oxford_flowers102": ("train+validation", "test"),
  "oxford_iiit_pet": ("train", "test"),
}
"""The splits to train on and to test on."""


def open_data(root: pathlib.Path, view: View, case: str, seed: int) -> Sets:
  """One task."""
  folder = tfds_sets.version_of(root / case)
  train, test = (
    tfds_sets.open_images(folder, part, view=view) for part in TASKS[case]
  )
  return Sets(
    source=hold_out(train, fraction=0.1, seed=seed),
    test=test,
    ood={},
    words=lambda: train.class_names,
  )


def headline(metrics: Metrics) -> dict[str, float]:
  """Accuracy over images, and over classes."""
  return {
    "accuracy": metrics["id"],
    "mean per class": metrics["details"]["id"]["mean_per_class"],
  }


FULL = FullFinetuning(learning_rate=3e-5)

EXPERIMENT = Experiment(
  open=open_data,
  cases=lambda root: tuple(TASKS),
  methods=(
    LinearProbe(),
    FULL,
    FullFinetuningOfBlocks.control_of(FULL),
    WiseFT(of=FULL),
    GMixout.as_published(learning_rate=1e-4, head_learning_rate=3e-5),
  ),
  batch_size=128,
  steps=2_000,
  headline=headline,
)
