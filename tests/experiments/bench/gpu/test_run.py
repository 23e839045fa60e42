"""Tests `make gpu` where there is no GPU: what it says, and its parts."""

import json
import os
import pathlib
import signal
import subprocess
import sys
import time

import pytest

from experiments.bench import kernels
from experiments.bench.gpu import __main__ as command
from experiments.bench.gpu import machine, measure, parts
from pallas_kernels import clip_shapes
from tests.combinations import EXHAUSTIVE
from tests.experiments.bench.gpu import processes

ROOT = pathlib.Path(__file__).parents[4]
MACHINE = {
  "platform": "gpu",
  "device": "NVIDIA H9000",
  "devices": 1,
  "runtime": "cuda 13000",
  "implementations": {},
  "versions": {"jax": "0.12.0"},
}


def test_without_a_gpu_nothing_runs(tmp_path, capsys):
  out = tmp_path / "gpu"
  assert command.main(["--out", str(out)]) == 1
  assert capsys.readouterr().out == (
    "No GPU: JAX sees 1 x 'cpu'. Nothing was run.\n"
  )
  assert not out.exists()


def test_where_jax_does_not_start_nothing_runs(tmp_path, capsys, monkeypatch):
  monkeypatch.setenv("JAX_PLATFORMS", "no_such_platform")
  out = tmp_path / "gpu"
  assert command.main(["--out", str(out)]) == 1
  said = capsys.readouterr().out
  assert said.startswith("No GPU: JAX does not start: ")
  assert "no_such_platform" in said
  assert not out.exists()


def test_a_driver_that_hangs_is_not_waited_for():
  with pytest.raises(RuntimeError, match=r"devices in 0\.01 s"):
    machine.probe(0.01)


def test_make_takes_the_python_it_is_given():
  made = subprocess.run(
    ["make", "--dry-run", "gpu", "PYTHON=some-python", "OUT=some/folder"],
    cwd=ROOT,
    # Within `make test` another make says where it is.
    env={k: v for k, v in os.environ.items() if not k.startswith("MAKE")},
    capture_output=True,
    text=True,
  )
  assert made.stdout == (
    "some-python -m experiments.bench.gpu --out some/folder\n"
  )


def test_who_runs_the_parts_has_no_gpu():
  """Or it would keep three quarters of the memory that they need."""
  script = (
    "from experiments.bench.gpu import __main__\n"
    "from jax._src import xla_bridge\n"
    "print(xla_bridge.backends_are_initialized())\n"
  )
  done = subprocess.run(
    [sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True
  )
  assert done.stdout == "False\n", done.stderr


def test_there_is_time_for_all():
  needed = [part.least for part in parts.PARTS if not part.spare]
  assert sum(needed) + 90 <= command.SECONDS
  assert parts.PARTS[0].name == parts.TESTS
  named = {part.name for part in parts.PARTS[1:]}
  assert named == set(measure.PARTS)


def test_every_kernel_is_timed():
  asked = [
    part.keywords["only"]
    for part in measure.PARTS.values()
    if hasattr(part, "keywords")
  ]
  assert {name for only in asked for name in only} == {
    kernels.BLOCKS,
    *kernels.WORKLOADS,
  }


def test_later_parts_keep_what_they_need_at_least():
  one, spare = parts.Part("one", 20, 80), parts.Part("two", 30, 80, spare=True)
  other = parts.Part("three", 25, 80)
  wanted = {200: 80, 100: 75, 50: 25, 40: 20, 20: 20, 19: 0}
  assert wanted == {
    left: parts.allowance(one, [other, spare], left) for left in wanted
  }


WRITES = (
  "import json, os, pathlib, time\n"
  "pathlib.Path({file!r}).write_text(json.dumps({{'figure': 3.0}}))\n"
  "print('so far', flush=True)\n"
)
ENDINGS = {
  "hangs": "time.sleep(600)",
  "crashes": "os.abort()",
  "raises": "raise ValueError('no such thing')",
  "goes_well": "",
}


@pytest.fixture
def broken(monkeypatch, tmp_path):
  """Parts that end in all ways, in the place of the real ones."""

  def measuring(name, file, seconds, reduced):
    # Of an earlier run: a kill would leave it among the files of this one.
    assert not (tmp_path / "late.json").exists()
    script = WRITES.format(file=str(file)) + ENDINGS[name]
    return [sys.executable, "-c", script]

  monkeypatch.setattr(parts, "measuring", measuring)
  seconds = {"hangs": 2.0}
  made = [parts.Part(n, 1, seconds.get(n, 60)) for n in ENDINGS]
  monkeypatch.setattr(
    parts, "PARTS", (*made, parts.Part("late", 900, 900, True))
  )
  monkeypatch.setattr(machine, "probe", lambda: MACHINE)
  monkeypatch.setattr(command.signal, "signal", lambda *_: None)


@pytest.mark.usefixtures("broken")
def test_a_part_that_fails_loses_nothing_of_the_others(tmp_path, capsys):
  stale = tmp_path / "late.json"
  stale.write_text("{}")
  assert command.main(["--out", str(tmp_path)]) == 1
  found = command.read(tmp_path)
  assert {name: record["error"] for name, record in found.items()} == {
    "hangs": "stopped after 2 s",
    "crashes": "ended by SIGABRT",
    "raises": "ValueError: no such thing",
    "goes_well": None,
    "late": "no time was left",
  }
  assert all(record["machine"] == MACHINE for record in found.values())
  measured = {name: record["figures"] for name, record in found.items()}
  assert measured.pop("late") == {}
  assert all(figures == {"figure": 3.0} for figures in measured.values())
  assert "[crashes]\nso far\nFatal" in found["crashes"]["output"]
  assert "in <module>" in found["raises"]["output"]
  said = capsys.readouterr().out
  assert "see hangs, crashes, raises in" in said
  assert "| figure | target | measured |" in said
  assert command.main(["--out", str(tmp_path), "--only-table"]) == 0
  assert capsys.readouterr().out.strip() in said


def test_a_kill_leaves_nothing_on_the_gpu(tmp_path):
  """As where the machine is wanted back."""
  script = f"""
import sys
from experiments.bench.gpu import __main__, machine, parts

hangs = "import os, time; print(os.getpid(), flush=True); time.sleep(600)"
file = {str(tmp_path / "log")!r}
starts = f"import sys; sys.stdout = open({{file!r}}, 'w'); {{hangs}}"
parts.measuring = lambda *_: [sys.executable, "-c", starts]
parts.PARTS = (parts.Part("hangs", 1, 600),)
machine.probe = lambda: {MACHINE!r}
__main__.main(["--out", {str(tmp_path / "out")!r}])
"""
  runs = subprocess.Popen([sys.executable, "-c", script], cwd=ROOT)
  log = tmp_path / "log"
  try:
    while not (log.exists() and log.read_text().endswith("\n")):
      assert runs.poll() is None
      time.sleep(0.05)
    runs.send_signal(signal.SIGTERM)
    assert runs.wait(30) == 128 + signal.SIGTERM
  finally:
    runs.kill()
  assert processes.has_ended(int(log.read_text()))


FIGURES = {
  "packed_step": "blocks/ViT-L/14/bf16/xla_over_adamw",
  "masked_mix": "masked_mix/b16_attention/bf16/xla_of_copy",
  "pack": "pack/b16_attention/bf16/xla_of_copy",
  "images": "speedup_neuron",
  "images_by_kernels": "speedup_stratified_xla_fused",
  "update": "update_time_ratio",
  "step": "resample_time_ratio",
  "memory": "peak_bytes_ratio_neuron",
  "float32": "packed_step/b16_attention/f32/xla_over_adamw",
}


@EXHAUSTIVE  # below a part runs, too; others are tests of the benches
@pytest.mark.slow
@pytest.mark.parametrize(
  "name",
  # `bench memory` has a test of its own, and takes the longest.
  sorted(FIGURES.keys() - {"float32", "memory"}),
)
def test_a_part_measures(name, tmp_path, monkeypatch):
  """On a CPU, reduced; that is what there is to see of it here."""
  monkeypatch.setenv("XLA_FLAGS", os.environ.get("XLA_FLAGS", ""))
  # One matrix of one model: of all they are ten programs.
  matrices = {"ViT-L/14": {"b16_attention": 1}}
  monkeypatch.setattr(clip_shapes, "BLOCK_MATRICES", matrices)
  measure.main(
    [name, str(tmp_path / "file"), str(time.time() + 600), "--reduced"]
  )
  found = json.loads((tmp_path / "file").read_text())
  assert FIGURES[name] in found
  assert all(value > 0 for value in found.values())


@pytest.mark.slow
def test_the_command_runs_its_parts(tmp_path, monkeypatch, capsys):
  monkeypatch.setenv("JAX_PLATFORMS", "cpu")
  pack = tuple(part for part in parts.PARTS if part.name == "pack")
  monkeypatch.setattr(parts, "PARTS", pack)
  assert command.main(["--out", str(tmp_path), "--reduced-on-cpu"]) == 0
  found = {
    path.stem: json.loads(path.read_text()) for path in tmp_path.iterdir()
  }
  assert set(found) == {"pack"}
  for record in found.values():
    assert record["error"] is None, record
    assert record["machine"]["device"] == "cpu"
    assert {"jax", "jaxlib", "flax", "optax", "numpy"} <= set(
      record["machine"]["versions"]
    )
  assert FIGURES["pack"] in found["pack"]["figures"]
  assert "| each kernel over XLA's version | < 1 | not measured: " in (
    capsys.readouterr().out
  )
