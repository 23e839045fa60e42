"""Tests that the README's code runs, and that its numbers and links hold."""

import json
import pathlib
import re
import shlex

import jax
import jax.numpy as jnp
import pytest

ROOT = pathlib.Path(__file__).parents[1]
README = (ROOT / "README.md").read_text()
PYTHON = re.findall(r"```python\n(.*?)```", README, re.DOTALL)
RESULTS = ROOT / "experiments" / "results"
# Rows of the table of costs: the file, and the figure of each column.
FIGURES = {
  "weights, anchor and optimizer state": (
    "memory",
    "persistent_bytes_ratio",
    "neuron_b2_96px_persistent_bytes_ratio",
  ),
  "peak memory, 2 images of 96 pixels": (
    "memory",
    "peak_bytes_ratio",
    "neuron_b2_96px_peak_bytes_ratio",
  ),
  "peak memory, 32 images of 224 pixels": (
    "memory",
    "stratified_b32_224px_peak_bytes_ratio",
    "peak_bytes_ratio_neuron",
  ),
  "bytes reduced over eight devices": ("comms", "allreduce_bytes_ratio"),
  "floating-point operations": (
    "flops",
    "flops_ratio_stratified",
    "flops_ratio_neuron",
  ),
  "seconds a step, two CPU cores": (
    "step",
    "step_time_ratio_stratified",
    "step_time_ratio_neuron",
  ),
}


@pytest.fixture(scope="module")
def ran():
  """The names that are there after each block of code."""
  names, after = {}, []
  for block in PYTHON:
    exec(compile(block, "README.md", "exec"), names)
    after.append(dict(names))
  return after


def test_it_is_short():
  assert len(README.split()) <= 700


def test_the_code_is_as_short_as_it_says():
  lines = [len([*filter(str.strip, block.splitlines())]) for block in PYTHON]
  assert lines == [12, 8]


def test_the_quickstart_trains_a_tenth_at_a_time(ran):
  names, _ = ran
  start = {"kernel": jnp.ones((8, 40))}
  assert names["loss"](names["evaluated"]) < 0.9 * names["loss"](start)
  # Ten episodes, four entries of forty in each row.
  moved = names["evaluated"]["kernel"] != 1
  assert 4 < moved.sum(axis=1).min() <= 40


def test_the_packed_form_goes_on_with_packed_gradients(ran):
  before, after = ran
  loss, mixed = after["loss"], after["mixed"]
  assert loss(mixed.eval_params()) < 0.9 * loss(before["evaluated"])
  shapes = jax.tree.map(jnp.shape, mixed.value_and_grad(loss)()[1])
  assert shapes == {"kernel": (8, 4)}


@pytest.mark.parametrize("row", FIGURES)
def test_the_table_holds_what_was_measured(row):
  (cells,) = re.findall(rf"^\| {row} \|(.*)\|$", README, re.MULTILINE)
  shown = [cell.strip() for cell in cells.split("|")]
  file, *names = FIGURES[row]
  measured = json.loads((RESULTS / f"bench_{file}_cpu.json").read_text())
  assert [one for one in shown if one] == [f"{measured[n]:.2f}" for n in names]


def test_the_table_has_no_other_rows():
  table = README.split("## What it saves")[1].split("\n## ")[0]
  rows = re.findall(r"^\| ([^|]+) \|", table, re.MULTILINE)
  assert rows == ["ratio", *FIGURES]


def commands(text):
  """Commands of shell blocks, each as its words."""
  for block in re.findall(r"```bash\n(.*?)```", text, re.DOTALL):
    for line in block.replace("\\\n", " ").splitlines():
      yield shlex.split(line)


def test_its_commands_are_those_of_the_guide():
  """Which `test_own_images.py` runs; here with fewer flags."""
  guide = (ROOT / "docs" / "guides" / "own_images.md").read_text()
  short, full = [*commands(README)], [*commands(guide)]
  assert len(short) == len(full) == 6
  for words, all_words in zip(short, full, strict=True):
    assert words[:4] == all_words[:4]
    assert set(words) <= set(all_words)


def test_make_knows_what_it_is_asked():
  targets = set(
    re.findall(r"^([\w-]+):", (ROOT / "Makefile").read_text(), re.M)
  )
  asked = set(re.findall(r"\bmake ([\w-]+)", README))
  assert {"demo", "study"} <= asked <= targets


def test_its_links_lead_somewhere():
  links = re.findall(r"\]\(([^)]+)\)", README)
  inside = [link for link in links if not link.startswith("https://")]
  assert len(inside) > 15
  for link in inside:
    assert (ROOT / link.partition("#")[0]).exists(), link


def test_every_guide_is_linked():
  for guide in (ROOT / "docs" / "guides").glob("*.md"):
    assert f"(docs/guides/{guide.name})" in README, guide.name
