"""DomainBed's five sets with DiWA: the mean of twenty runs.

Claim (Ramé et al., arXiv 2205.09739, with ResNet-50): out of distribution, from
a shared linear probe, in the order PACS, VLCS, Office-Home, TerraIncognita,
DomainNet and their mean: one run 85.9, 78.1, 69.4, 50.4, 44.3, 65.6; DiWA's
uniform mean 88.7, 78.4, 72.1, 51.4, 47.4, 67.6; restricted 88.0, 78.5, 71.5,
51.6, 47.7, 67.5; the mean of the outputs 88.1, 78.5, 71.7, 50.8, 47.0, 67.2.

Command:
  python -m experiments.sweep --config domainbed_diwa --root DATA \
    --backbone vit_base_patch16_224.augreg_in21k.safetensors --cases PACS

Hardware: a GPU with 24 GB or more, 16 cores to decode, and 160 GB of memory for
the snapshots of twenty runs; --set diwa.runs=6 needs a third of it.

Not run by us: needs data. DATA as for `domainbed_very_large_dropout`.

As in the paper there are 20 runs from one head, rates of 1e-5, 3e-5 and 5e-5,
32 images of each training domain per step, 5,000 steps (15,000 on DomainNet),
and accuracy on the whole of the domain left out; each run counts at the best of
its evaluations. The paper evaluates every 300 steps, we 16 times whatever the
length. Here the optimizer is AdamW, and weight decay and dropout do not vary.
"""

import dataclasses
import pathlib

from experiments.configs import domainbed_very_large_dropout as base
from experiments.methods.diwa import DiWA, RestrictedDiWA
from experiments.methods.full_finetuning import FullFinetuning
from experiments.methods.output_ensemble import OutputEnsemble
from experiments.methods.swad import SWAD

FULL = FullFinetuning(learning_rate=3e-5)  # times 1, 1/3 and 5/3


def sizes(root: pathlib.Path, case: str) -> tuple[int, int]:
  """As for dropout, with half the steps."""
  batch_size, steps = base.sizes(root, case)
  return batch_size, steps // 2


EXPERIMENT = dataclasses.replace(
  base.EXPERIMENT,
  sizes=sizes,
  methods=(
    FULL,
    SWAD(of=FULL),
    OutputEnsemble(of=FULL, runs=20),
    DiWA(of=FULL, runs=20, evaluations=16),
    RestrictedDiWA(of=FULL, runs=20, evaluations=16),
  ),
  steps=5_000,
)
