"""CIFAR-100, tested under 19 corruptions of 5 strengths.

Claim: GMixout is one of the methods that the paper (arXiv 2510.06982) trains on
CIFAR-100 and tests on CIFAR-100-C; its table is not known to us. We report
plain means over corruptions and strengths, of the benchmark's 15 and of all 19
(arXiv 1903.12261), not divided by a network's errors as ImageNet-C's mCE is.

Command:
  python -m experiments.sweep --config cifar100_c --root DATA \
    --backbone clip-vit-base-patch16

Hardware: a GPU with 24 GB or more; evaluation goes through 950,000 images.

Not run by us: needs data. DATA must hold CIFAR-100-C/<corruption>.npy and
labels.npy as the archive unpacks, and cifar100/<version> as
"tfds build cifar100 --file_format=array_record --data_dir DATA" makes it.

A tenth of the training images is held out to choose by. Epochs, batch size and
rates are ours.
"""

import pathlib

from experiments.data import cifar_c, tfds_sets
from experiments.data.decode import View
from experiments.data.source import hold_out
from experiments.methods.full_finetuning import FullFinetuning
from experiments.methods.full_finetuning_of_blocks import FullFinetuningOfBlocks
from experiments.methods.gmixout import GMixout
from experiments.methods.mixout import Mixout
from experiments.methods.wise_ft import WiseFT
from experiments.methods.zero_shot import ZeroShot
from experiments.metrics import mean_corruption_accuracy
from experiments.tasks.experiment import Experiment
from experiments.tasks.image_task import Sets
from experiments.tasks.task import Metrics


def open_data(root: pathlib.Path, view: View, case: str, seed: int) -> Sets:
  """The clean images from TFDS, the corrupted ones from the archive."""
  del case
  folder = tfds_sets.version_of(root / "cifar100")
  train, test = (
    tfds_sets.open_images(folder, part, view=view) for part in ("train", "test")
  )
  corrupted = cifar_c.open_images(
    root / "CIFAR-100-C",
    corruptions="all",
    class_names=train.class_names,
    view=view,
  )
  return Sets(
    source=hold_out(train, fraction=0.1, seed=seed),
    test=test,
    ood=corrupted.by_domain(),
    words=lambda: train.class_names,
  )


def headline(metrics: Metrics) -> dict[str, float]:
  """Clean accuracy, and the means under corruption."""
  benchmark = {
    name: value
    for name, value in metrics["ood"].items()
    if name.partition("/")[0] in cifar_c.BENCHMARK
  }
  return {
    "clean": metrics["id"],
    "mean of 15": mean_corruption_accuracy(benchmark),
    "mean of 19": mean_corruption_accuracy(metrics["ood"]),
  }


FULL = FullFinetuning(learning_rate=3e-5)
GMIXOUT = GMixout.as_published(learning_rate=1e-4, head_learning_rate=3e-5)

EXPERIMENT = Experiment(
  open=open_data,
  methods=(
    ZeroShot(),
    FULL,
    FullFinetuningOfBlocks.control_of(FULL),
    WiseFT(of=FULL),
    Mixout(learning_rate=1e-4, head_learning_rate=3e-5),
    GMIXOUT,
    WiseFT(of=GMIXOUT),
  ),
  batch_size=128,
  epochs=10,
  headline=headline,
  view=View(224, fit="squeeze"),
  templates=("a photo of a {}.", "a blurry photo of a {}."),
)
