"""What is said about why averaging weights works, measured.

  bvcl             bias, variance, covariance, locality of an ensemble
  diversity        how members differ, in predictions, features and weights
  landscape        lines and planes in weight space
  members          runs whose snapshots are the ensemble's members
  slow_mixout      Mixout with λ and k, to compare with GMixout
  options          flags of both commands: any task, by default the demo's
  subject          a task that was opened, for all runs of a command
  one_setting      flags of bvcl: a method, one of its settings, values
  by_setting       the first two against that setting: bvcl
  between_weights  the third

``python -m experiments.diagnostics --help`` runs the last two files.
"""

import pathlib

FILE = pathlib.Path("runs/diagnostics.jsonl")
"""What the commands append to by default."""
