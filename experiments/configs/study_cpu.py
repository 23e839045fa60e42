"""The study at the size that two CPU cores allow.

Command:
  python -m experiments.sweep --config study_cpu --root data/PACS \
    --backbone data/vit_tiny_patch16_224.augreg_in21k_ft_in1k.safetensors \
    --results experiments/results

Each method runs at every rate of a grid with five seeds; where its choice is at
an edge, the grid grows. Tables show the smallest rate whose validation accuracy
is within one standard error of the best, and OOD accuracy is compared at equal
ID score along the whole curve. --cases names parts
(`experiments.configs.study.parts`); --backbone is a CLIP's folder for the part
"words". A run takes a quarter of a minute of a core on the digits, one to two
minutes on PACS, and four times that in the part "long". The images have a
twelfth of the area of those that the ViT was trained on, and the runs are
short: accuracies are far below what this model can do, and methods that learn
slowly are at a disadvantage.
"""

from experiments.configs.study import scales
from experiments.configs.study.parts import Study

EXPERIMENT = Study(scales.CPU)
