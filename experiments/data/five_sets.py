"""DomainBed's five sets in one folder, a domain left out at a time.

  <root>/PACS             <domain>/<class>/<image>
  <root>/VLCS             likewise, and so on:
  <root>/office_home
  <root>/terra_incognita
  <root>/domain_net

the names that DomainBed's own script gives them; those that are not there are
no cases. A case is "PACS/sketch": train on the other domains of PACS.
"""

import pathlib

from experiments.data import domainbed, folders
from experiments.data.decode import View
from experiments.data.folds import Fold, leave_out

SETS = ("PACS", "VLCS", "office_home", "terra_incognita", "domain_net")
LARGE = "domain_net"
"""Ten times the images of the others, and three times the steps in papers."""


def cases(root: pathlib.Path) -> tuple[str, ...]:
  """Every domain of every set that is there.

  Raises:
    FileNotFoundError: If none of the five is.
  """
  found = [name for name in SETS if (root / name).is_dir()]
  if not found:
    raise FileNotFoundError(
      f"no folder of DomainBed in {root}: expected one or more of"
      f" {', '.join(SETS)}, each <domain>/<class>/<image>."
    )
  return tuple(
    f"{name}/{domain.name}"
    for name in found
    for domain in folders.subfolders(root / name)
  )


def count_domains(root: pathlib.Path, case: str) -> int:
  """How many domains the set of a case has."""
  return len(folders.subfolders(root / case.partition("/")[0]))


def open_case(root: pathlib.Path, case: str, view: View, *, seed: int) -> Fold:
  """The fold of a case; the seed cuts off a fifth of each domain.

  Raises:
    FileNotFoundError: If the folder or its images are missing.
    ValueError: If a domain lacks a class that another one has.
  """
  name, _, target = case.partition("/")
  images = domainbed.open_images(root / name, view=view)
  return leave_out(images, target, seed=seed)
