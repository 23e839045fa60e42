"""ImageNet-1k from CLIP ViT-L/14: four times the weights of ViT-B/16.

Claim: none by the paper of GMixout (arXiv 2510.06982), whose readers asked for
it; all else is as in `imagenet`. Model soups' largest CLIP on WILDS is a
ViT-L/14 trained with batches of 128 (arXiv 2203.05482).

Command:
  python -m experiments.sweep --config imagenet_vit_l14 --root DATA \
    --backbone clip-vit-large-patch14

Hardware: a GPU with 80 GB, blocks recomputed in the backward pass; 16 cores to
decode. --sharding data uses all GPUs.

Not run by us: needs data. DATA as for `imagenet`.

Full fine-tuning's rate is a third of ViT-B/16's, our choice.
"""

import dataclasses

from experiments.configs import imagenet
from experiments.methods.full_finetuning import FullFinetuning
from experiments.methods.full_finetuning_of_blocks import FullFinetuningOfBlocks
from experiments.methods.gmixout import GMixout
from experiments.methods.wise_ft import WiseFT
from experiments.methods.zero_shot import ZeroShot

FULL = FullFinetuning(learning_rate=1e-5, weight_decay=0.1)
GMIXOUT = GMixout.as_published(learning_rate=3e-5, head_learning_rate=1e-5)

EXPERIMENT = dataclasses.replace(
  imagenet.EXPERIMENT,
  methods=(
    ZeroShot(), FULL, FullFinetuningOfBlocks.control_of(FULL), WiseFT(of=FULL),
    GMIXOUT, WiseFT(of=GMIXOUT),
  ),
  batch_size=256,
  remat=True,
)  # fmt: skip
