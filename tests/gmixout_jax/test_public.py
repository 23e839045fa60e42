"""Tests what the library shows to others: names, arguments, types."""

import ast
import importlib
import inspect
import pathlib
import types

import pytest

import gmixout_jax as gx
from gmixout_jax._core.settings import MixSettings

ROOT = pathlib.Path(__file__).parents[2]
PROJECT = ROOT / "tests" / "typing" / "user_project.py"
MODULES = [
  importlib.import_module(f"gmixout_jax{name}")
  for name in (
    "",
    ".averaging",
    ".checkpoint",
    ".clip",
    ".linen",
    ".nnx",
    ".parallel",
  )
]
# Options that are mostly given, and read well, without their names.
POSITIONAL = {
  ("gmixout", "inner"),
  ("mixout", "inner"),
  ("random_mask", "inner"),
  ("gmixout_labels", "rules"),
  ("mean", "weights"),
  ("data_mesh", "devices"),
  ("data_parallel", "mesh"),
  ("zero_shot_head", "templates"),
}


def name_of(module):
  return module.__name__


def described(module):
  """Public names of a module with a docstring of their own."""
  for name in module.__all__:
    value = getattr(module, name)
    if inspect.isclass(value) or inspect.isfunction(value):
      yield name, value


@pytest.mark.parametrize("module", MODULES, ids=name_of)
def test_all_is_complete(module):
  """It names what a stranger finds: no more, no less, and in order."""
  listed = module.__all__
  assert len(set(listed)) == len(listed)
  assert [n for n in listed if not hasattr(module, n)] == []
  is_package = module.__file__.endswith("__init__.py")
  public = {
    name
    for name, value in vars(module).items()
    if not name.startswith("_")
    and getattr(value, "__module__", None) is not None
    and value.__module__.startswith("gmixout_jax")
    and (is_package or value.__module__ == module.__name__)
  }
  assert public <= set(listed)


@pytest.mark.parametrize("module", MODULES, ids=name_of)
def test_options_go_by_name(module):
  """What has a default is keyword-only, so that options can be added."""
  for name, value in described(module):
    if issubclass(type(value), type) and not inspect.isfunction(value.__init__):
      continue
    signature = inspect.signature(value)
    data = inspect.isclass(value) and (
      issubclass(value, tuple) or hasattr(value, "__dataclass_fields__")
    )
    for parameter in signature.parameters.values():
      if parameter.kind is parameter.POSITIONAL_OR_KEYWORD and not data:
        optional = parameter.default is not parameter.empty
        assert not optional or (name, parameter.name) in POSITIONAL, (
          f"{name}({parameter.name}=)"
        )


@pytest.mark.parametrize("module", MODULES, ids=name_of)
def test_every_argument_has_a_type_and_a_line(module):
  for name, value in described(module):
    assert inspect.getdoc(value), name
    if not isinstance(value, types.FunctionType):
      continue
    doc = inspect.getdoc(value) or ""
    for parameter in inspect.signature(value).parameters.values():
      assert parameter.annotation is not parameter.empty, (name, parameter)
      if (
        "**settings: " in doc and parameter.name in MixSettings.__annotations__
      ):
        continue
      if "Args:" in doc:
        assert f"{parameter.name}: " in doc, (name, parameter)


def test_a_users_project_uses_every_name():
  """`make lint` has pyright check that project, so every name has a type."""
  tree = ast.parse(PROJECT.read_text())
  used = {
    node.attr for node in ast.walk(tree) if isinstance(node, ast.Attribute)
  }
  for module in MODULES:
    assert set(module.__all__) - used <= {
      m.__name__.rpartition(".")[2] for m in MODULES
    }, module.__name__


def settings_of(function):
  """Its keyword arguments that are settings: name, default, type."""
  own = {"key", "wrt"}
  return {
    name: (p.default, p.annotation)
    for name, p in inspect.signature(function).parameters.items()
    if p.kind is p.KEYWORD_ONLY and name not in own
  }


@pytest.mark.parametrize(
  "function",
  [gx.MixedParams.create, gx.nnx.split, gx.nnx.MixedOptimizer.__init__],
  ids=lambda function: function.__qualname__,
)
def test_settings_are_the_same_everywhere(function):
  """Also as `help` and type checkers show them, and in their order."""
  listed = settings_of(gx.gmixout)
  assert list(listed) == list(MixSettings.__annotations__)
  assert settings_of(function) == listed


@pytest.mark.parametrize("neighbour", [gx.mixout, gx.random_mask])
def test_its_neighbours_take_some_of_them(neighbour):
  listed, own = settings_of(gx.gmixout), settings_of(neighbour)
  assert own.keys() < listed.keys()
  different = {name for name in own if own[name] != listed[name]} - {"sampler"}
  assert {own[name][1] for name in different} <= {gx.transform.Target}
