"""Lines as a result file of the study would hold them."""


def line(cell, top1, brier=0.5):
  """What a result file would hold of a cell."""
  found = {"details": {"id": {"top1": top1, "brier": brier}}}
  return {"config": cell.config, "seed": cell.seed, "metrics": found}
