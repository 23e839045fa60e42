"""Which parameters of a classifier belong to the backbone, by name."""

from typing import Any

import jax


def in_backbone(params: Any) -> Any:
  """True for every leaf outside the head: what is pretrained.

  Example:
    >>> in_backbone({"backbone": [1.0, 2.0], "head": {"bias": 3.0}})
    {'backbone': [True, True], 'head': {'bias': False}}
  """
  return jax.tree_util.tree_map_with_path(
    lambda path, _: getattr(path[0], "key", None) != "head", params
  )
