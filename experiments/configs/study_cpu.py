"""The study at the size that two CPU cores allow.

Command:
  python -m experiments.sweep --config study_cpu --root data/PACS \
    --backbone data/vit_tiny_patch16_224.augreg_in21k_ft_in1k.safetensors \
    --results experiments/results

First every method's learning rate is chosen, from grids of one size, on the
validation images, with a seed of its own; then the parts are run with fresh
seeds. --cases names parts (`experiments.configs.study.parts`); --backbone is a
CLIP's folder for the part "words". A run takes one to two minutes of a core.
The images have a twelfth of the area of those that the ViT was trained on, and
the runs are short: accuracies are far below what this model can do, and methods
that learn slowly are at a disadvantage.
"""

from experiments.configs.study import scales
from experiments.configs.study.parts import Study

EXPERIMENT = Study(scales.CPU)
