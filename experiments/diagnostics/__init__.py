"""What is said about why averaging weights works, measured.

  bvcl             bias, variance, covariance, locality of an ensemble
  diversity        how members differ, in predictions, features and weights
  landscape        lines and planes in weight space
  members          runs whose snapshots are the ensemble's members
  slow_mixout      Mixout with λ and k, to compare with GMixout
  by_setting       the first two on the demo's task, against p, λ, k, ...
  between_weights  the third on the demo's task

``python -m experiments.diagnostics --help`` runs the last two.
"""

import pathlib

FILE = pathlib.Path("runs/diagnostics.jsonl")
"""What the commands append to, unless told otherwise."""
