"""Runs on disk: whole or absent, and checked before they are used."""

from gmixout_jax.checkpoint.checkpointer import Checkpoints, Saved
from gmixout_jax.checkpoint.files import CheckpointError

__all__ = [
  "CheckpointError",
  "Checkpoints",
  "Saved",
]
