"""The manifold mixing model soup, of checkpoints tuned on ImageNet.

Claim: soups with a factor per component beat the best of their ingredients out
of distribution by 3.5 points (Fassold, arXiv 2309.08610). Its code's saved run,
of 72 CLIPs ViT-B/32, has on ImageNet and the mean of five shifts: best single
80.39 and 47.97, uniform soup 79.97 and 51.58, greedy soup 81.03 and 50.86, mean
of outputs 81.19 and 50.88, manifold mixing with 8 components 80.95 and 51.47.

Command:
  python -m experiments.sweep --config manifold_mixing --root DATA \
    --checkpoints FOLDER

Hardware: a GPU with 16 GB or more and 16 GB of memory for each 20 ViT-B/32; 240
passes over 26,000 images per checkpoint that is searched, and 59 hours on two
A6000 for the authors.

Not run by us: needs data. DATA as for `imagenet`. FOLDER holds the ingredients
as --export writes them: safetensors files with timm's names, or Hugging Face
folders with a head.safetensors beside the model. To make some:
  python -m experiments.sweep full_finetuning --config imagenet --root DATA \
    --backbone clip-vit-base-patch32 --seeds 0 1 2 3 4 5 --export FOLDER
all trained without the 2 % of images that the soup is chosen by here. Soups of
others' checkpoints need the same held-out images, and safetensors.

Three of the authors' eight components have an effect: the tower, and kernel and
bias of the head. --set manifold_mixing.depth=1 has two, tower and head; the
depth of 2 here separates the first parts of the tower, and kernel and bias.
"""

import dataclasses

from experiments.configs import imagenet
from experiments.methods.manifold_mixing import ManifoldMixing
from experiments.methods.model_soups import GreedySoup, UniformSoup
from experiments.methods.output_ensemble import OutputEnsemble

EXPERIMENT = dataclasses.replace(
  imagenet.EXPERIMENT,
  methods=(UniformSoup(), GreedySoup(), OutputEnsemble(), ManifoldMixing()),
  combines=True,
  epochs=None,
  seeds=(0,),
)
