"""iWildCam: animals at known camera traps, and at traps never seen.

Claim: GMixout is one of the methods that the paper (arXiv 2510.06982) trains on
it, reporting ID and OOD macro-F1; its table is not known to us. WILDS has 47.0
and 31.0 for plain training of a ResNet-50 at 448 pixels (arXiv 2012.07421);
FLYP claims 2.3 and 2.7 over its leaderboard (arXiv 2212.00638).

Command:
  python -m experiments.sweep --config iwildcam --root DATA \
    --backbone clip-vit-base-patch16

Hardware: a GPU with 40 GB or more, 16 cores to decode.

Not run by us: needs data. DATA is iwildcam_v2.0 of WILDS: metadata.csv,
categories.csv (for the words of prompts) and train/<image>.

Choices are made on id_val, as FLYP's. Twenty epochs of batches of 256, prompts,
and AdamW at 1e-5 with decay 0.2 are FLYP's too; the rates of GMixout and Mixout
are ours.
"""

import pathlib
from collections.abc import Sequence

from experiments.data import iwildcam
from experiments.data.decode import View
from experiments.data.source import Source
from experiments.methods.flyp import FLYP
from experiments.methods.full_finetuning import FullFinetuning
from experiments.methods.full_finetuning_of_blocks import FullFinetuningOfBlocks
from experiments.methods.gmixout import GMixout
from experiments.methods.mixout import Mixout
from experiments.methods.wise_ft import WiseFT
from experiments.methods.zero_shot import ZeroShot
from experiments.tasks.experiment import Experiment
from experiments.tasks.image_task import Sets
from experiments.tasks.task import Metrics


def open_data(root: pathlib.Path, view: View, case: str, seed: int) -> Sets:
  """The five splits; "val", of traps never seen, stays unused."""
  del case, seed
  parts = iwildcam.open_images(root, view=view)

  def words() -> Sequence[str]:
    if not (root / "categories.csv").is_file():
      raise FileNotFoundError(
        f"no {root / 'categories.csv'}: prompts need the names of the species."
      )
    return parts["train"].class_names

  return Sets(
    source=Source(parts["train"], parts["id_val"]),
    test=parts["id_test"],
    ood={"new traps": parts["test"]},
    words=words,
  )


def headline(metrics: Metrics) -> dict[str, float]:
  """Macro-F1, over the classes that a split has."""
  details = metrics["details"]
  return {
    "ID macro-F1": details["id"]["macro_f1"],
    "OOD macro-F1": details["ood/new traps"]["macro_f1"],
  }


FULL = FullFinetuning(learning_rate=1e-5, weight_decay=0.2)
GMIXOUT = GMixout.as_published(learning_rate=3e-5, head_learning_rate=1e-5)

EXPERIMENT = Experiment(
  open=open_data,
  methods=(
    ZeroShot(),
    FULL,
    FullFinetuningOfBlocks.control_of(FULL),
    WiseFT(of=FULL),
    FLYP(learning_rate=1e-5, weight_decay=0.2),
    Mixout(learning_rate=3e-5, head_learning_rate=1e-5),
    GMIXOUT,
    WiseFT(of=GMIXOUT),
  ),
  batch_size=256,
  epochs=20,
  headline=headline,
  view=View(224, fit="squeeze"),
  templates=("a photo of {}.", "{} in the wild."),
)
