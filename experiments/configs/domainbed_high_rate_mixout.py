"""DomainBed's five sets with High-Rate Mixout: nine weights in ten swapped.

Claim: Mixout with p = 0.9 on ViTs beats very large dropout, which regularises
too much (Aminbeidokhti et al., arXiv 2510.06955, in words). The paper's table
is not known to us. Its "45 % less gradient computation, 90 % less gradient
memory" is arithmetic, not a measurement; what this implementation saves is in
the cost of every line.

Command:
  python -m experiments.sweep --config domainbed_high_rate_mixout --root DATA \
    --backbone deit_small_patch16_224.safetensors --cases PACS \
    --mean 0.485 0.456 0.406 --std 0.229 0.224 0.225

Hardware: a GPU with 16 GB or more, 16 cores to decode.

Not run by us: needs data. DATA as for `domainbed_very_large_dropout`.

As in the paper: DeiT-S/16, p = 0.9 redrawn at every step, Adam at 3e-5, 32
images of each training domain per step and 5,000 steps (15,000 on DomainNet).
Its weight decay of 1e-6 is left out: here Mixout has none.
"""

import dataclasses

from experiments.configs import domainbed_diwa as base
from experiments.methods.full_finetuning import FullFinetuning
from experiments.methods.gmixout import GMixout
from experiments.methods.high_rate_mixout import HighRateMixout
from experiments.methods.mixout import NeuronMixout
from experiments.methods.very_large_dropout import VeryLargeDropout

FULL = FullFinetuning(learning_rate=3e-5, weight_decay=1e-6)

EXPERIMENT = dataclasses.replace(
  base.EXPERIMENT,
  methods=(
    FULL,
    VeryLargeDropout(of=FULL),
    HighRateMixout(),
    NeuronMixout(learning_rate=3e-5, head_learning_rate=3e-5),
    GMixout.as_published(learning_rate=1e-4, head_learning_rate=3e-5),
  ),
)
