"""ImageNet-1k with fewer training images, tested on all shifts.

Claim: the paper of GMixout (arXiv 2510.06982) varies the training-set size. Its
sizes and its table are not known to us.

Command:
  python -m experiments.sweep --config imagenet_sizes --root DATA \
    --backbone clip-vit-base-patch16 --cases 1% 10%

Hardware: a GPU with 40 GB or more, 16 cores to decode, 32 GB of memory.

Not run by us: needs data. DATA as for `imagenet`.

Our sizes are 1, 5, 10, 25 and 100 % of every class. For one seed the smaller
ones are parts of the larger. Ten epochs of each, so a smaller set takes fewer
steps; what is held out to choose by is the same 2 % for all.
"""

import dataclasses
import pathlib

from experiments.configs import imagenet
from experiments.data.decode import View
from experiments.data.images import ImageSet
from experiments.data.source import Source, held_out
from experiments.methods.full_finetuning_of_blocks import FullFinetuningOfBlocks
from experiments.methods.lp_ft import LPFT
from experiments.methods.wise_ft import WiseFT
from experiments.methods.zero_shot import ZeroShot
from experiments.tasks.image_task import Sets

SHARES = {"1%": 0.01, "5%": 0.05, "10%": 0.1, "25%": 0.25, "100%": 1.0}


def open_data(root: pathlib.Path, view: View, case: str, seed: int) -> Sets:
  """As ImageNet, with a share of the training images."""
  opened = imagenet.open_data(root, view, case, seed)
  train, validation = opened.source
  assert isinstance(train, ImageSet)
  if SHARES[case] < 1:
    part = held_out(
      train.labels,
      train.class_names,
      fraction=SHARES[case],
      seed=seed,
      lone="train",
    )
    train = train.take(part)
  return dataclasses.replace(opened, source=Source(train, validation))


EXPERIMENT = dataclasses.replace(
  imagenet.EXPERIMENT,
  open=open_data,
  cases=lambda root: tuple(SHARES),
  methods=(
    ZeroShot(),
    imagenet.FULL,
    FullFinetuningOfBlocks.control_of(imagenet.FULL),
    WiseFT(of=imagenet.FULL),
    LPFT(learning_rate=3e-5, weight_decay=0.1),
    imagenet.GMIXOUT,
    WiseFT(of=imagenet.GMIXOUT),
  ),
)
