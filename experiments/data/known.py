"""The data sets that have a name: how to open a copy, and what it should hold.

Only counts with a source are here. What every class should hold is known of the
balanced test sets alone; of others a check lists what it found.
"""

import functools
import itertools
import pathlib
from collections.abc import Callable, Mapping, Sequence
from typing import Literal, NamedTuple

from experiments.data import (
  cifar_c,
  domainbed,
  imagenet,
  iwildcam,
  long_tail,
  objectnet,
  tfds_sets,
)
from experiments.data.decode import View
from experiments.data.images import ImageSet

Parts = dict[str, ImageSet]  # by domain, split or corruption


class Known(NamedTuple):
  """A data set with a name.

  Attributes:
    layout: The layout of a copy.
    parts: Opens a copy.
    images: How many each part should have. A part that is missing here should
      not be there; if all are, parts are not compared.
    total: How many all parts together should have, if known.
    classes: How many there should be, if known.
    per_class: By part, how many images every class should have, if all have as
      many.
    source: Where these counts come from.
  """

  layout: str
  parts: Callable[[pathlib.Path, View], Parts]
  images: Mapping[str, int] = {}
  total: int | None = None
  classes: int | None = None
  per_class: Mapping[str, int] = {}
  source: str = ""


def _domains(path: pathlib.Path, view: View) -> Parts:
  # A class that a domain lacks is what a check is to report, not to stop at.
  images = domainbed.open_images(path, view=view, same_classes=False)
  return images.by_domain()


def _tree(path: pathlib.Path, view: View) -> Parts:
  return {"all": imagenet.tree(path, view=view)}


def _cifar(
  which: Literal["benchmark", "all"], path: pathlib.Path, view: View
) -> Parts:
  del view  # they stay 32 x 32
  return cifar_c.open_images(path, corruptions=which).by_domain()


def _long_tail(path: pathlib.Path, view: View) -> Parts:
  parts = {}
  for split in ("train", "val", "test"):
    file = path / f"ImageNet_LT_{split}.txt"
    if file.is_file() or split == "train":
      parts[split] = long_tail.open_list(file, root=path, view=view)
  return parts


def _tfds(path: pathlib.Path, view: View) -> Parts:
  return {
    split: tfds_sets.open_images(path, split, view=view)
    for split in tfds_sets.splits(path)
  }


def _shots(corruptions: Sequence[str], count: int) -> dict[str, int]:
  shots = itertools.product(corruptions, cifar_c.SEVERITIES)
  return {f"{name}/{severity}": count for name, severity in shots}


_DOMAINBED = "<root>/<domain>/<class>/<image>"
_IMAGENET = "<root>/<WordNet id>/<image>"
_SURVEY = "Zhou et al., 2022, https://arxiv.org/abs/2103.02503"

KNOWN: dict[str, Known] = {
  "domainbed": Known(_DOMAINBED, _domains),
  "pacs": Known(
    _DOMAINBED,
    _domains,
    {"art_painting": 2048, "cartoon": 2344, "photo": 1670, "sketch": 3929},
    total=9991,
    classes=7,
    source="Li et al., 2017, https://arxiv.org/abs/1710.03077",
  ),
  "vlcs": Known(
    _DOMAINBED,
    _domains,
    {"Caltech101": 1415, "LabelMe": 2656, "SUN09": 3282, "VOC2007": 3376},
    total=10729,
    classes=5,
    source=_SURVEY,
  ),
  "office_home": Known(
    _DOMAINBED,
    _domains,
    {"Art": 2427, "Clipart": 4365, "Product": 4439, "Real World": 4357},
    total=15588,
    classes=65,
    source="Venkateswara et al., 2017, https://arxiv.org/abs/1706.07522",
  ),
  "terra_incognita": Known(
    _DOMAINBED, _domains, total=24788, classes=10, source=_SURVEY
  ),
  "domain_net": Known(  # the cleaned version
    _DOMAINBED,
    _domains,
    {
      "clipart": 48129,
      "infograph": 51605,
      "painting": 72266,
      "quickdraw": 172500,
      "real": 172947,
      "sketch": 69128,
    },
    total=586575,
    classes=345,
    source=_SURVEY,
  ),
  "imagenet_train": Known(
    _IMAGENET,
    _tree,
    total=1281167,
    classes=1000,
    source="Russakovsky et al., 2015, https://arxiv.org/abs/1409.0575",
  ),
  "imagenet_val": Known(
    _IMAGENET,
    _tree,
    total=50000,
    classes=1000,
    per_class={"all": 50},
    source="Russakovsky et al., 2015, https://arxiv.org/abs/1409.0575",
  ),
  "imagenet_v2": Known(
    "<root>/<number>/<image>",
    lambda path, view: {"all": imagenet.v2(path, view=view)},
    total=10000,
    classes=1000,
    per_class={"all": 10},
    source="Recht et al., 2019, https://arxiv.org/abs/1902.10811",
  ),
  "imagenet_a": Known(
    _IMAGENET,
    _tree,
    total=7500,
    classes=200,
    source="Hendrycks et al., 2021, https://arxiv.org/abs/1907.07174",
  ),
  "imagenet_r": Known(
    _IMAGENET,
    _tree,
    total=30000,
    classes=200,
    source="Hendrycks et al., 2021, https://arxiv.org/abs/2006.16241",
  ),
  "imagenet_sketch": Known(
    _IMAGENET,
    _tree,
    total=50889,
    classes=1000,
    source="Wang et al., 2019, https://arxiv.org/abs/1905.13549",
  ),
  "objectnet": Known(
    "<root>/images/<folder>/<image> and <root>/mappings",
    lambda path, view: {
      "overlap with ImageNet": objectnet.open_images(path, view=view)
    },
    total=18574,
    classes=113,
    source="Barbu et al., 2019",
  ),
  "imagenet_lt": Known(
    "<root>/ImageNet_LT_train.txt, _val, _test and the images they name",
    _long_tail,
    {"train": 115846, "val": 20000, "test": 50000},
    classes=1000,
    per_class={"val": 20, "test": 50},
    source="Liu et al., 2019, https://arxiv.org/abs/1904.05160",
  ),
  "cifar100_c": Known(
    "<root>/<corruption>.npy, 15 of them, and <root>/labels.npy",
    functools.partial(_cifar, "benchmark"),
    total=15 * 5 * 10000,
    classes=100,
    per_class=_shots(cifar_c.BENCHMARK, 100),
    source="Hendrycks and Dietterich, 2019, https://arxiv.org/abs/1903.12261",
  ),
  "cifar100_c_all": Known(
    "<root>/<corruption>.npy, 19 of them, and <root>/labels.npy",
    functools.partial(_cifar, "all"),
    total=19 * 5 * 10000,
    classes=100,
    per_class=_shots(cifar_c.BENCHMARK + cifar_c.EXTRA, 100),
    source="https://zenodo.org/records/3555552",
  ),
  "iwildcam": Known(
    "<root>/metadata.csv and <root>/train/<image>",
    lambda path, view: iwildcam.open_images(path, view=view),
    {
      "train": 129809,
      "id_val": 7314,
      "id_test": 8154,
      "val": 14961,
      "test": 42791,
    },
    total=203029,
    classes=182,
    source="Koh et al., 2021, https://arxiv.org/abs/2012.07421",
  ),
  "tfds": Known("the folder of a prepared version", _tfds),
}
"""By the name that ``python -m experiments.data check --as`` takes."""
