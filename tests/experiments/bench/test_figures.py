"""Tests `bench/figures.py`, and `bench/console.py` without rich."""

import json

import pytest

from experiments.bench import console, figures


def test_steps_are_taken_once_and_those_that_fail_left_out(capsys):
  taken = []

  def fails():
    raise ValueError("no such step")

  makers = {
    "one": lambda: lambda: taken.append("one"),
    "not_made": fails,
    "not_taken": lambda: fails,
    "last": lambda: lambda: taken.append("last"),
  }
  ready = figures.Ready(makers, 60)
  assert list(ready.steps) == taken == ["one", "last"]
  assert ready.missing == dict.fromkeys(
    ("not_made", "not_taken"), "ValueError: no such step"
  )
  assert "in fails" in capsys.readouterr().err  # where it failed
  with pytest.raises(figures.IncompleteError) as error:
    ready.demand_all()
  assert str(error.value) == (
    "not measured: not_made: ValueError: no such step; not_taken: ValueError:"
    " no such step"
  )


def test_when_the_time_is_up_no_step_is_made():
  ready = figures.Ready({"one": lambda: print}, -1)
  assert (ready.steps, ready.missing) == ({}, {"one": "no time was left"})
  figures.Ready({"one": lambda: print}, 60).demand_all()


def test_a_report_without_rich(tmp_path, monkeypatch, capsys):
  monkeypatch.setattr(console, "_rich", lambda: None)
  path = tmp_path / "folder" / "figures.json"
  found = {"ratio": 0.5, "speedup": 0.25, "held_bytes": 1234567.0}
  least = {"speedup": 1.0}
  figures.report("Title", found, {"ratio": 0.6}, path, least=least)
  title, *lines = capsys.readouterr().out.splitlines()
  assert title.startswith("Title (cpu, jax 0.")
  assert lines == [
    "figure          value  target",
    "ratio             0.5   ≤ 0.6",
    "speedup          0.25     ≥ 1  missed",
    "held_bytes  1,234,567",
  ]
  assert json.loads(path.read_text()) == found
  assert list(console.track([1, 2], "what")) == [1, 2]
  with console.status("what"):
    pass
