"""The study as large as it should be: hours on a GPU.

Command:
  python -m experiments.sweep --config study_gpu --root data/PACS \
    --backbone data/vit_tiny_patch16_224.augreg_in21k_ft_in1k.safetensors \
    --results experiments/results

As `study_cpu`, with larger images, ten times the steps, and every domain of
PACS as source and as target. Nothing of it has been run.
"""

from experiments.configs.study import scales
from experiments.configs.study.parts import Study

EXPERIMENT = Study(scales.GPU)
