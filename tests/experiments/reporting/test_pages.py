"""Tests `experiments/reporting/pages.py`, and that published pages are its."""

import inspect
import json

import pytest

from experiments.bench import flops as flops_bench
from experiments.methods.full_finetuning import FullFinetuning
from experiments.methods.gmixout import GMixout
from experiments.reporting import facts as facts_of
from experiments.reporting import pages, records
from tests.experiments.reporting.lines import line


@pytest.fixture
def facts(tmp_path, rng):
  path = tmp_path / "curves.jsonl"
  for seed in range(3):
    luck = rng.normal(0, 0.01)
    for rate, brier, top1, ood in (
      (1e-4, 0.6, 0.80, 0.5),
      (1e-3, 0.2, 0.90, 0.7),
      (1e-2, 0.9, 0.70, 0.1),
    ):
      for make, more in ((FullFinetuning, 0.0), (GMixout, 0.02)):
        made = line(
          make(learning_rate=rate),
          seed,
          top1=top1,
          brier=brier,
          ood=ood + more + luck,
        )
        if make is GMixout:
          made["stats"]["optimizer_bytes"] //= 4
        records.append(path, made)
  return facts_of.Facts([path], pages.RESULTS / "demo_cpu.jsonl")


def test_expressions_are_what_the_lines_say(facts):
  source = """{{difference|digits|GMixout}} at
state {{cost | digits | GMixout | state (bytes)}}, rate
{{rate | digits | GMixout}}"""
  found = pages.rendered(source, facts)
  assert found == "+2.0 ± 0.0 at\nstate 0.25, rate\n0.001"


def test_methods_are_compared_at_their_chosen_rates(facts):
  ours = "paired | digits | GMixout | Full fine-tuning"
  assert facts.text(f"{ours} | mean_ood") == "+2.0 ± 0.0"
  assert facts.text(f"{ours} | id") == "+0.0 ± 0.0"
  back = "paired | digits | Full fine-tuning | GMixout | mean_ood"
  assert facts.text(back) == "-2.0 ± 0.0"


def test_the_rule_is_compared_with_the_best(facts):
  assert facts.text("rule | digits | methods") == "2"
  assert facts.text("rule | digits | best_id") == "90.0"
  assert facts.text("rule | digits | smaller_better") == "0"


def test_one_table_has_the_accuracies_of_several_tasks(facts):
  header, rule, full, ours = facts.text(
    "accuracies | digits | one | digits | other"
  ).splitlines()
  assert header == "| method | one: ID | OOD | rate | other: ID | OOD | rate |"
  assert rule == "|---|---|---|---|---|---|---|"
  for row, name in ((full, "Full fine-tuning"), (ours, "GMixout")):
    first, *cells = row.strip("| ").split(" | ")
    assert first == name
    assert cells[0] == "90.0 ± 0.0"
    assert cells[2] == "0.001"
    assert cells[:3] == cells[3:]


def test_figures_are_those_that_the_benchmarks_wrote(facts):
  path = pages.RESULTS / "bench_comms_cpu.json"
  found = json.loads(path.read_text(encoding="utf-8"))
  name = "compact_jit_allreduce_bytes"
  shown = facts.text(f"bench | comms | {name} | MB")
  assert shown == f"{round(found[name] / 1e6)} MB"
  ratio = facts.text("bench | comms | allreduce_bytes_ratio")
  assert ratio == f"{found['allreduce_bytes_ratio']:.2f}"
  longer = facts.text("bench | comms | allreduce_bytes_ratio | 3")
  assert len(longer) == len(ratio) + 1
  assert float(longer) == pytest.approx(
    found["allreduce_bytes_ratio"], abs=5e-4
  )


def test_cells_of_bvcl_are_those_of_its_table(facts):
  header, _, *rows = facts.text("bvcl").splitlines()
  assert header.startswith("|  | bias² | variance | covariance | member |")
  assert len(rows) == len(records.read(pages.RESULTS / "bvcl_digits_cpu.jsonl"))
  name, first, *_ = rows[0].strip("| ").split(" | ")
  assert facts.text(f"bvcl | {name} | bias²") == first
  with pytest.raises(LookupError, match="no 'SWA' in bvcl's lines: GMixout"):
    facts.text("bvcl | SWA | bias²")
  with pytest.raises(LookupError, match="no 'speed' of GMixout: , bias²"):
    facts.text("bvcl | GMixout | speed")


def test_predictions_are_computed(facts):
  # Of ten episodes each leaves the anchor 0.3 + 0.7 x 0.9 of the way.
  assert facts.text("bound | 100 | 10") == f"{1 - 0.93**10:.2f}"
  assert facts.text("bound | 24500 | 10") == "> 0.99"
  flops = json.loads((pages.RESULTS / "bench_flops_cpu.json").read_text())
  images = 100 * 512
  found = images * flops["full_flops"] / 8 / 1e14 / 3600
  assert facts.text("hours | 100 | 512") == f"{found:.1f}"
  counted = inspect.signature(flops_bench.run).parameters["batch_size"]
  assert counted.default == facts_of.BATCH_OF_FLOPS


@pytest.mark.parametrize(
  ("expression", "message"),
  [
    ("mean | digits", "'mean' is none of paired, rule, difference, "),
    ("rate | pacs | GMixout", "no task 'pacs': digits"),
    ("rate | digits | Mixout", "no 'Mixout' in digits: Full"),
    ("difference | digits | SWA", "no 'SWA' in digits: Full fine-tuning"),
    ("rule | pacs | methods", "no task 'pacs': digits"),
    ("rule | digits | worst", "the rule's effect has no 'worst': methods, "),
    ("demo | SWA | id", "no 'SWA' in the demo: Zero-shot, Full fine-tuning, "),
    ("bounds | scaled", "bounds are not of 'scaled': rescale, no rescale"),
    ("bench | nothing | seconds", "no experiments/results/bench_nothing_cpu"),
    ("bench | flops | seconds", "no 'seconds' in bench_flops_cpu.json: full_"),
  ],
)
def test_what_is_not_there_is_an_error(facts, expression, message):
  with pytest.raises(LookupError, match=message):
    pages.rendered(f"a {{{{{expression}}}}} b", facts)


def test_published_pages_are_made_of_published_lines():
  sources = pages.sources()
  assert len(sources) == 6
  facts = pages.published()
  for page, source in sources.items():
    assert page.read_text(encoding="utf-8") == pages.rendered(source, facts)
  assert pages.EQUAL_ID.read_text(encoding="utf-8") == facts.equal_id
