"""ImageNet-LT: 5 to 1,280 training images a class, tested on 50 of each.

Claim: GMixout is one of the methods that the paper (arXiv 2510.06982) trains on
it; its table is not known to us. Accuracy is reported for many-shot (more than
100 training images), medium-shot (20 to 100) and few-shot classes (below 20);
OLTR's code draws both lines one image off.

Command:
  python -m experiments.sweep --config imagenet_lt --root DATA \
    --backbone clip-vit-base-patch16

Hardware: a GPU with 24 GB or more, 8 cores to decode.

Not run by us: needs data. DATA must hold ImageNet_LT_train.txt,
ImageNet_LT_val.txt, ImageNet_LT_test.txt (OLTR's lists), the folders train and
val of ImageNet that they name, and LOC_synset_mapping.txt.

Ten epochs of batches of 128 are LIFT's and LT-Soups', as is AdamW at 3e-5 with
decay 0.01; the loss is the plain cross-entropy, as in GMixout's paper. The
rates of GMixout and Mixout are ours.
"""

import pathlib
from typing import Any

from experiments.data import imagenet, long_tail
from experiments.data.decode import View
from experiments.data.source import Source
from experiments.methods.full_finetuning import FullFinetuning
from experiments.methods.full_finetuning_of_blocks import FullFinetuningOfBlocks
from experiments.methods.gmixout import GMixout
from experiments.methods.mixout import Mixout
from experiments.methods.wise_ft import WiseFT
from experiments.methods.zero_shot import ZeroShot
from experiments.tasks.experiment import Experiment
from experiments.tasks.image_task import Sets
from experiments.tasks.task import Metrics
from gmixout_jax import clip


def open_data(root: pathlib.Path, view: View, case: str, seed: int) -> Sets:
  """The three lists."""
  del case, seed
  head = imagenet.head_classes(root / "train")
  train, validation, test = (
    long_tail.open_list(
      root / f"ImageNet_LT_{part}.txt", root=root, class_names=head, view=view
    )
    for part in ("train", "val", "test")
  )
  return Sets(
    source=Source(train, validation),
    test=test,
    ood={},
    words=lambda: imagenet.words(root / "LOC_synset_mapping.txt", head),
  )


def headline(metrics: Metrics) -> dict[str, Any]:
  """Accuracy on all classes, and by how many images they have."""
  return {"all": metrics["id"], **metrics["details"]["id"]["groups"]}


FULL = FullFinetuning(learning_rate=3e-5, weight_decay=0.01)
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
  long_tail=True,
  templates=clip.STYLE_TEMPLATES,
)
