"""Which domains of a DomainBed folder train, and which are targets.

One domain trains and all others are targets, or all but one train and that one
is the target (`experiments.data.folds`).
"""

import dataclasses
import pathlib
from typing import Any

from experiments.data import domainbed, folds, joined
from experiments.data.source import Source, hold_out
from experiments.data.split import Split
from experiments.reporting import records

DEFAULT_SOURCE = "sketch"


@dataclasses.dataclass(frozen=True)
class Data:
  """What to train on.

  Attributes:
    root: A folder in DomainBed's layout.
    source: The domain to train on; all others are targets. "sketch" if there is
      no target either.
    target: The domain to leave out, instead of a source: all others train.
      `experiments.train` and `experiments.sweep` then take as many images of
      one as of another into a batch; `experiments.study` draws from all images
      alike.
    image_size: Side of the images in pixels, a multiple of the patch size.
    batch_size: Images per step.
    held_out: The share of each training domain kept for validation.
    skip_broken: Leave out images that cannot be decoded, with a warning that
      counts them; by default the first one stops the run.

  Raises:
    ValueError: If there are both a source and a target.
  """

  root: pathlib.Path = pathlib.Path("data/PACS")
  source: str | None = None
  target: str | None = None
  image_size: int = 96
  batch_size: int = 32
  held_out: float = 0.2
  skip_broken: bool = False

  def __post_init__(self):
    if self.source is not None and self.target is not None:
      raise ValueError(
        "--data.source names the one domain to train on, --data.target the one"
        f" to leave out: give one of them, got {self.source!r} and"
        f" {self.target!r}."
      )

  @property
  def chosen(self) -> tuple[str, str]:
    """The option that says what trains, and the domain that it names."""
    if self.target is not None:
      return "target", self.target
    return "source", self.source or DEFAULT_SOURCE

  def described(self) -> dict[str, Any]:
    """As JSON, for a line of results.

    An option that changes nothing is left out, so that lines compare with those
    from before there was one.
    """
    option, name = self.chosen
    fields: dict[str, Any] = records.plain(self) | {option: name}
    return {key: value for key, value in fields.items() if value is not None
            and value is not False}  # fmt: skip

  def read(self) -> dict[str, Split]:
    """Decodes every domain.

    Raises:
      FileNotFoundError: If the data are not there.
      ValueError: If the source or target is not one of the domains, or is the
        only one, or an image is broken.
    """
    # Before the images are decoded, which takes longer.
    available = sorted(domainbed.find(self.root))
    option, name = self.chosen
    if name not in available or len(available) < 2:
      raise ValueError(
        f"--data.{option} must be one of at least two domains, got {name!r} and"
        f" the domains {', '.join(available)}."
      )
    return domainbed.read(
      self.root, image_size=self.image_size, skip_broken=self.skip_broken
    )

  def source_of(self, domains: dict[str, Split], seed: int) -> Source:
    """What a method may see; the seed cuts off the validation images."""
    option, name = self.chosen
    if option == "source":
      return hold_out(domains[name], fraction=self.held_out, seed=seed)
    images = joined.of_splits(domains)
    return folds.leave_out(
      images, name, fraction=self.held_out, seed=seed
    ).source

  def targets_of(self, domains: dict[str, Split]) -> dict[str, Split]:
    """All that is tested on, by domain."""
    option, name = self.chosen
    return {
      domain: split
      for domain, split in domains.items()
      if (domain == name) == (option == "target")
    }
