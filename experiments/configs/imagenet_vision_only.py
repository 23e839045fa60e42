"""ImageNet-1k from a ViT that never saw a caption, beside `imagenet`'s CLIP.

Claim: the paper of GMixout (arXiv 2510.06982) compares vision-only and
vision-language backbones in an ablation. Its table is not known to us, nor
which ViT it takes.

Command:
  python -m experiments.sweep --config imagenet_vision_only --root DATA \
    --backbone vit_base_patch16_224.augreg_in21k.safetensors

Hardware: a GPU with 40 GB or more, 16 cores to decode, 32 GB of memory.

Not run by us: needs data. DATA as for `imagenet`; LOC_synset_mapping.txt is not
needed.

Any ViT with timm's names does; --mean and --std are 0.5 for augreg's,
ImageNet's for DeiT and DINO. One with a head of 1,000 outputs starts from it,
any other from a linear probe on 20,000 images, which all methods share.
"""

import dataclasses

from experiments.configs import imagenet
from experiments.methods.full_finetuning_of_blocks import FullFinetuningOfBlocks
from experiments.methods.linear_probe import LinearProbe
from experiments.methods.model_stock import ModelStock
from experiments.methods.wise_ft import WiseFT

EXPERIMENT = dataclasses.replace(
  imagenet.EXPERIMENT,
  methods=(
    LinearProbe(),
    imagenet.FULL,
    FullFinetuningOfBlocks.control_of(imagenet.FULL),
    WiseFT(of=imagenet.FULL),
    ModelStock(of=imagenet.FULL),
    imagenet.GMIXOUT,
    WiseFT(of=imagenet.GMIXOUT),
  ),
  use_head="any",
)
