"""What is said about why averaging weights works, measured.

  bvcl       bias, variance, covariance, locality of an ensemble
  diversity  how members differ, in predictions, features and weights
  landscape  lines and planes in weight space
  members    runs whose snapshots are the ensemble's members

``python -m experiments.diagnostics --help`` runs them on the demo's task.
"""
