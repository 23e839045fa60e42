"""What every paper's experiment is to find on tiny data."""

import dataclasses

from experiments import configs, sweep
from experiments.data import cifar_c
from experiments.tasks.experiment import Experiment

PAPERS = tuple(
  name for name in configs.names() if isinstance(configs.load(name), Experiment)
)

SHIFTS = {"V2": 6, "R": 6, "Sketch": 6, "A": 6, "ObjectNet": 2}
HEADLINE = {"ID", *SHIFTS, "mean OOD"}
DIWA = ("--set", "diwa.runs=2", "diwa.evaluations=2",
        "restricted_diwa.runs=2", "restricted_diwa.evaluations=2")  # fmt: skip


@dataclasses.dataclass(frozen=True)
class Expected:
  """A run of an experiment and what its lines must hold.

  Attributes:
    data: The fixture of its data.
    model: The fixture of the model, or of the checkpoints.
    options: Of the command.
    test: Images of the ID test.
    ood: Images by OOD set.
    headline: The numbers it is about.
    methods: The lines' methods.
    data_name: What the lines call the data, if not the experiment.
  """

  data: str
  model: str
  options: tuple[str, ...]
  test: int
  ood: dict[str, int]
  headline: set[str]
  methods: tuple[str, ...] = ("gmixout",)
  data_name: str = ""


ONE = ("gmixout",)
EXPECTED = {
  "imagenet": Expected(
    *("imagenet", "clip_folder", ("zero_shot", "gmixout")),
    *(6, SHIFTS, HEADLINE, ("zero_shot", "gmixout")),
  ),
  "imagenet_vit_l14": Expected(
    "imagenet", "clip_folder", ONE, 6, SHIFTS, HEADLINE
  ),
  "imagenet_vision_only": Expected(
    "imagenet", "vit_file", ONE, 6, SHIFTS, HEADLINE
  ),
  "imagenet_sizes": Expected(
    *("imagenet", "clip_folder", (*ONE, "--cases", "25%")),
    *(6, SHIFTS, HEADLINE),
    data_name="imagenet_sizes/25%",
  ),
  "imagenet_lt": Expected(
    *("imagenet_lt", "clip_folder", ONE),
    *(6, {}, {"all", "many", "medium", "few"}),
  ),
  "domainnet_sketch": Expected(
    *("domainnet", "clip_folder", ONE, 3),
    {"real": 15, "painting": 15, "clipart": 15},
    {"ID", "real", "painting", "clipart", "mean OOD"},
  ),
  "iwildcam": Expected(
    *("iwildcam", "clip_folder", ("flyp",), 3, {"new traps": 3}),
    {"ID macro-F1", "OOD macro-F1"},
    ("flyp",),
  ),
  "cifar100_c": Expected(
    *("cifar", "vit_file", ONE, 3),
    {
      f"{name}/{severity}": 3
      for name in cifar_c.BENCHMARK + cifar_c.EXTRA
      for severity in cifar_c.SEVERITIES
    },
    {"clean", "mean of 15", "mean of 19"},
  ),
  "transfer": Expected(
    *("five_tasks", "vit_file", (*ONE, "--cases", "eurosat")),
    *(3, {}, {"accuracy", "mean per class"}),
    data_name="transfer/eurosat/rgb",
  ),
  "domainbed_very_large_dropout": Expected(
    "domainbed",
    "vit_file",
    ("very_large_dropout", "--cases", "PACS/photo"),
    *(9, {"photo": 15}, {"ID", "photo", "mean OOD"}),
    ("very_large_dropout",) * 3,
    "domainbed_very_large_dropout/PACS/photo",
  ),
  "domainbed_diwa": Expected(
    "domainbed",
    "vit_file",
    ("diwa", "restricted_diwa", "--cases", "PACS/art", *DIWA),
    *(9, {"art": 15}, {"ID", "art", "mean OOD"}, ("diwa", "restricted_diwa")),
    "domainbed_diwa/PACS/art",
  ),
  "domainbed_high_rate_mixout": Expected(
    "domainbed",
    "vit_file",
    ("high_rate_mixout", "--cases", "domain_net/sketch"),
    *(9, {"sketch": 15}, {"ID", "sketch", "mean OOD"}, ("high_rate_mixout",)),
    "domainbed_high_rate_mixout/domain_net/sketch",
  ),
  "manifold_mixing": Expected(
    "imagenet",
    "soup_folder",
    (
      *("greedy_soup", "manifold_mixing"),
      *("--set", "manifold_mixing.budget=1"),
    ),
    *(6, SHIFTS, HEADLINE, ("greedy_soup", "manifold_mixing")),
  ),
}


def command(name, request, path):
  """The command that is to find it, on the data and the model of fixtures."""
  expected = EXPECTED[name]
  given = "checkpoints" if expected.model == "soup_folder" else "backbone"
  small = ["--image-size", "16", "--seeds", "0", "--results", str(path)]
  if given == "backbone":
    small += ["--steps", "2", "--batch-size", "6"]
  return sweep.parse(
    [
      *expected.options,
      *("--config", name),
      *("--root", str(request.getfixturevalue(expected.data))),
      *(f"--{given}", str(request.getfixturevalue(expected.model))),
      *small,
    ]
  )
