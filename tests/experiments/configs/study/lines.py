"""Lines as a result file of the study would hold them."""


def line(cell, top1, images=400):
  """What a result file would hold of a cell."""
  found = {"top1": top1, "reliability": {"count": [images]}}
  metrics = {"id": top1, "ood": {}, "details": {"id": found}}
  return {"config": cell.config, "seed": cell.seed, "metrics": metrics}
