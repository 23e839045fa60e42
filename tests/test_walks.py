"""Takes the walks of docs/extending.md: each first guess is to be right."""

import ast
import dataclasses
import functools
import pathlib
import re
import sys
import types

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import gmixout_jax as gx
from experiments import methods
from experiments.bench import kernels
from experiments.configs.study import plan
from experiments.data import __main__ as data_command
from experiments.data import domainbed, known
from experiments.data.decode import View
from experiments.methods.composition import Trained
from experiments.methods.full_finetuning import FullFinetuning
from experiments.methods.schedule import Schedule
from experiments.tasks.domains import Domains
from gmixout_jax._core import layouts, mixed_leaf, samplers
from pallas_kernels import dispatch
from tests.experiments import tiny
from tests.experiments.configs.study import test_plan

ROOT = pathlib.Path(__file__).parents[1]
TEXT = (ROOT / "docs" / "extending.md").read_text()
SECTIONS = re.split(r"^## (.*)$", TEXT, flags=re.MULTILINE)[1:]
WALKS = {
  title: text
  for title, text in zip(SECTIONS[::2], SECTIONS[1::2], strict=True)
  if "\n1. " in text
}


def names_in(path):
  """Names that a file defines: `a` at the top, `A.b` in a class."""
  for node in ast.parse(path.read_text()).body:
    match node:
      case ast.FunctionDef(name=name):
        yield name
      case ast.ClassDef(name=name, body=body):
        yield name
        yield from (
          f"{name}.{inner.name}"
          for inner in body
          if isinstance(inner, ast.FunctionDef)
        )
      case ast.Assign(targets=targets):
        yield from (t.id for t in targets if isinstance(t, ast.Name))
      case ast.AnnAssign(target=ast.Name(id=name)):
        yield name


def steps_of(walk):
  return re.split(r"^\d+\. ", walk, flags=re.M)[1:]


def test_all_walks_are_tested():
  assert list(WALKS) == [
    "The anchor's rule",
    "A sampler",
    "A method",
    "A data set",
    "A kernel",
  ]
  assert all(len(steps_of(walk)) >= 4 for walk in WALKS.values())


@pytest.mark.parametrize("walk", WALKS)
def test_every_step_names_what_is_there(walk):
  """Paths exist; after a path and a colon come names that its file defines."""
  for step in steps_of(WALKS[walk]):
    quoted = re.findall(r"`([\w/.]+/\w[\w.]*)`", step)
    assert quoted or "`python -m experiments.data check" in step, step
    for place in quoted:
      assert (ROOT / place).exists(), place
    for place, rest in re.findall(r"`([\w/]+\.py)`: (.*?)(?=;|\Z)", step, re.S):
      defined = set(names_in(ROOT / place))
      named = re.findall(r"`([A-Z]\w*(?:\.\w+)?|_CLASSES|\w+_\w+)`", rest)
      assert set(named) <= defined, f"{set(named) - defined} not in {place}"


def run(tx, params, steps):
  """Descends the sum of all weights: training weights, evaluation weights."""
  state = tx.init(params)
  for _ in range(steps):
    gradient = jax.tree.map(jnp.ones_like, params)
    updates, state = tx.update(gradient, state, params)
    params = optax.apply_updates(params, updates)
  return params, gx.gmixout_eval_params(state, params)


def test_the_anchors_rule(monkeypatch):
  """A rule that forgets every residual: nothing is ever learned."""

  def forget(self, leaf, residual, update, memory, step):
    wanted = memory.anchor + (residual + update) / self.divisor
    wanted = jnp.where(step.episode.ends, memory.anchor, wanted)
    return wanted - self.active(leaf, step.indices), memory

  make = lambda: gx.gmixout(
    optax.sgd(0.1), sparsity=0.5, resample_every=2, key=0
  )
  params = {"kernel": jnp.ones((4, 8))}
  learned, _ = run(make(), params, 4)
  with monkeypatch.context() as changed:
    changed.setattr(mixed_leaf.ResetResidual, "finish", forget)
    changed.setattr(
      mixed_leaf.ResetResidual,
      "evaluated",
      lambda self, leaf, memory, step: jnp.zeros_like(leaf),
    )
    jax.clear_caches()  # a class that changes under its programs: here alone
    forgotten, evaluated = run(make(), params, 4)
  jax.clear_caches()
  assert np.all(np.asarray(learned["kernel"]).min() < 0.9)
  np.testing.assert_allclose(forgotten["kernel"], 1.0, rtol=1e-6)
  np.testing.assert_array_equal(evaluated["kernel"], 0.0)


def test_a_sampler(monkeypatch):
  """One that keeps the first input of each stratum, whatever the key."""

  class First(layouts.WholeInputs):
    def draw(self, key, like):
      return jnp.arange(self.count, dtype=jnp.int32) * (
        self.inputs // self.count
      )

  monkeypatch.setitem(samplers.SAMPLERS, "first", First)
  monkeypatch.setitem(samplers.MASK_DISTRIBUTION, "first", 1)
  params = {"kernel": jnp.ones((10, 3))}
  tx = gx.gmixout(optax.sgd(0.1), sparsity=0.8, sampler="first", key=0)
  moved, _ = run(tx, params, 1)
  changed = np.asarray(moved["kernel"] != 1.0)
  np.testing.assert_array_equal(changed.all(axis=1), np.arange(10) % 5 == 0)
  np.testing.assert_array_equal(changed.any(axis=1), np.arange(10) % 5 == 0)
  with pytest.raises(ValueError, match="'first'"):
    gx.gmixout(sampler="fist", key=0)


def test_a_method(monkeypatch):
  """A file of its own, found by its line in the registry."""

  @dataclasses.dataclass(frozen=True)
  class Halved(Trained):
    title = "Halved"
    share: float = 0.5

    def wrap(self, optimizer):
      return optax.chain(optimizer, optax.scale(self.share))

  file = types.ModuleType("experiments.methods.halved")
  vars(file)["Halved"] = Halved
  monkeypatch.setitem(sys.modules, file.__name__, file)
  monkeypatch.setitem(methods._CLASSES, "halved", "halved.Halved")
  monkeypatch.setitem(
    methods.METHODS, "halved", methods._load(methods._CLASSES["halved"])
  )
  method = methods.from_name("halved", halved={"share": 0.25})
  assert methods.name_of(method) == "halved"
  assert methods.described(method)["share"] == 0.25
  params = {"backbone": jnp.ones(2), "head": jnp.ones(2)}
  schedule = Schedule(1, warmup=0, constant=True)
  one, other = (
    m.transform(params, schedule, jax.random.key(0))
    for m in (method, methods.from_name("full_finetuning"))
  )
  gradient = jax.tree.map(jnp.ones_like, params)
  (moved, _), (fully, _) = (
    tx.update(gradient, tx.init(params), params) for tx in (one, other)
  )
  np.testing.assert_allclose(moved["backbone"], 0.25 * fully["backbone"])
  # It has its own rate: a grid, and its name. The plan's tests then hold.
  made = lambda rate: Halved(of=FullFinetuning(learning_rate=rate))
  grids = plan.grids
  monkeypatch.setattr(
    plan,
    "grids",
    lambda dense: grids(dense) | {"halved": plan.Grid(made, tuple(dense))},
  )
  monkeypatch.setattr(plan, "EVERY", (*plan.EVERY, "halved"))
  test_plan.test_grids_have_one_size_and_bracket_the_recipe()
  test_plan.test_all_methods_are_compared()


def test_a_data_set(monkeypatch, tmp_path, capsys):
  """Brightness by folder, in a format that a reader knows already."""
  root = tiny.domainbed(tmp_path / "bright", per_class=2)

  def parts(path, view):
    return domainbed.open_images(path, view=view).by_domain()

  counts = dict.fromkeys(tiny.DOMAINS, 6)
  entry = known.Known(
    "<root>/<domain>/<class>/<image>", parts, counts, total=24
  )
  monkeypatch.setitem(known.KNOWN, "bright", entry)
  command = functools.partial(
    data_command.main, ["check", str(root), "--as", "bright"]
  )
  assert command() == 0
  (root / "art" / "owl" / "0.png").with_name("2.png").write_bytes(
    (root / "art" / "owl" / "0.png").read_bytes()
  )
  assert command() == 1
  shown = " ".join(capsys.readouterr().out.split())
  assert "art: found 7 images, expected 6" in shown
  sets = Domains(root=root, source="art").open(View(16), seed=0)
  source = sets.source
  assert (len(source.train), len(source.validation)) == (4, 3)
  assert len(sets.ood) == len(tiny.DOMAINS) - 1


FOLDERS = [path.parent for path in (ROOT / "pallas_kernels").glob("*/api.py")]


@pytest.mark.parametrize("folder", FOLDERS, ids=lambda folder: folder.name)
def test_a_kernel(folder):
  """Each that there is went the same way, and is found where it says."""
  defined = {
    file.stem: {name for name in names_in(file) if not name.startswith("_")}
    for file in folder.glob("*.py")
  }
  asked = defined["reference"]
  assert asked
  assert asked <= defined["mosaic_gpu"]
  assert asked <= defined["triton"]
  found = dispatch.module(folder.name, "xla")
  assert all(hasattr(found, name) for name in asked)
  assert folder.name in defined["api"]
  assert {"NAMED", "SMALL"} <= defined["shapes"]
  assert "workload" in defined["bench"]
  assert folder.name in kernels.WORKLOADS
  line = f"::: pallas_kernels.{folder.name}.api.{folder.name}\n"
  assert line in (ROOT / "docs" / "reference" / "kernels.md").read_text()
  tests = (ROOT / "tests" / "pallas_kernels").glob("test_*.py")
  named = f"from pallas_kernels.{folder.name} import mosaic_gpu"
  assert any(named in test.read_text() for test in tests)
