"""Tests `experiments/reporting/chosen_rates.py`."""

import pytest

from experiments.methods.full_finetuning import FullFinetuning
from experiments.methods.gmixout import GMixout
from experiments.methods.l2_sp import L2SP
from experiments.methods.wise_ft import WiseFT
from experiments.reporting import chosen_rates, knobs
from experiments.reporting.entries import group
from tests.experiments.reporting.lines import line


def full(rate):
  return FullFinetuning(learning_rate=rate)


def rates(entries):
  return [knobs.setting(e.config["method"], "learning_rate") for e in entries]


def test_the_smallest_rate_within_one_standard_error_of_the_best():
  # 400 images: the error at .9 is .015. Lines come in any order.
  accuracies = {1e-2: 0.7, 1e-3: 0.90, 1e-4: 0.886, 1e-5: 0.884}
  lines = [
    line(full(rate), seed, top1=value + 0.001 * seed, ood=1 - value)
    for rate, value in accuracies.items()
    for seed in (-1, 0, 1)
  ]
  assert rates(chosen_rates.choose(group(lines))) == [1e-4]


def test_validation_images_decide_where_there_are_some():
  lines = [line(full(rate), 0, top1=0.9) for rate in (1e-4, 1e-3, 1e-2)]
  for each, value in zip(lines, (0.1, 0.9, 0.895), strict=True):
    details = each["metrics"]["details"]
    details["validation"] = details["id"] | {"top1": value}
  assert rates(chosen_rates.choose(group(lines))) == [1e-3]


def test_of_several_domains_the_mean_decides():
  lines = [line(full(rate), 0, top1=0.9) for rate in (1e-4, 1e-3, 1e-2)]
  for each, value in zip(lines, (0.1, 0.9, 0.1), strict=True):
    each["metrics"]["mean_id"] = value
  assert rates(chosen_rates.choose(group(lines))) == [1e-3]


def test_each_method_and_setting_has_its_own():
  lines = [
    line(make(rate), 0, top1=top1)
    for make, best in (
      (full, 1e-2),
      (lambda rate: L2SP(of=full(rate)), 1e-3),
      (lambda rate: GMixout(learning_rate=rate), 1e-4),
      (lambda rate: GMixout(learning_rate=rate, resample_every=1), 1e-2),
    )
    for rate in (1e-4, 1e-3, 1e-2)
    for top1 in [0.99 if rate == best else 0.5]
  ]
  found = chosen_rates.choose(group(lines))
  assert rates(found) == [1e-2, 1e-3, 1e-4, 1e-2]
  labels = [entry.label for entry in chosen_rates.relabelled(found)]
  assert labels == [
    "Full fine-tuning",
    "L2-SP",
    "GMixout (k 10)",
    "GMixout (k 1)",
  ]


def test_of_wise_ft_alpha_is_chosen():
  lines = [
    line(WiseFT(of=full(1e-3), alpha=alpha), 0, top1=top1)
    for alpha, top1 in ((0.2, 0.5), (0.5, 0.895), (0.8, 0.9))
  ]
  (found,) = chosen_rates.choose(group(lines))
  assert found.config["method"]["alpha"] == 0.5


def test_of_wise_ft_with_one_alpha_the_inner_rate_is_chosen():
  lines = [
    line(WiseFT(of=full(rate), alpha=0.5), 0, top1=top1)
    for rate, top1 in ((1e-4, 0.5), (1e-3, 0.895), (1e-2, 0.9))
  ]
  (found,) = chosen_rates.choose(group(lines))
  assert found.config["method"]["of"]["learning_rate"] == 1e-3
  (said,) = chosen_rates.sentences(lines)
  assert "0.001 is chosen of 0.0001, 0.001, 0.01" in said


def test_rates_that_were_only_looked_at_are_left_out():
  lines = [line(full(1e-3), seed) for seed in range(5)]
  lines += [line(full(rate), 100, top1=0.99) for rate in (1e-4, 1e-3, 1e-2)]
  (found,) = chosen_rates.choose(group(lines))
  assert rates([found]) == [1e-3]
  assert len(found.runs) == 6


def test_without_a_seed_in_common_all_stay():
  lines = [line(full(1e-3), 0), line(full(1e-2), 1)]
  assert len(chosen_rates.choose(group(lines))) == 2
  told = [line(full(rate), 0) for rate in (1e-3, 1e-2)]
  for each in told:
    del each["metrics"]["details"]["id"]["reliability"]
  assert len(chosen_rates.choose(group(told))) == 2
  with pytest.raises(ValueError, match="does not tell how many images"):
    chosen_rates.validation_images(told[0])


def test_what_was_chosen_is_told_and_whether_at_an_edge():
  lines = [
    line(full(rate), 0, top1=top1, data=data)
    for data, accuracies in (("a", (0.5, 0.9, 0.5)), ("b", (0.9, 0.9, 0.5)))
    for rate, top1 in zip((1e-4, 1e-3, 1e-2), accuracies, strict=True)
  ]
  lines += [
    line(WiseFT(of=full(1e-3), alpha=alpha), 0, top1=alpha)
    for alpha in (0.2, 0.9)
  ]
  lines += [line("zero_shot", 0)]
  # Whose other seeds are missing: not one of those that were chosen of.
  lines += [line(full(0.1), seed, top1=0.5, data="c") for seed in (0, 1)]
  lines += [line(full(0.2), seed, top1=0.9, data="c") for seed in (0, 1)]
  lines += [line(full(0.3), 0, top1=1.0, data="c")]
  assert chosen_rates.sentences([]) == []
  assert chosen_rates.sentences(lines) == [
    "Full fine-tuning: lr 0.001 is chosen of 0.0001, 0.001, 0.01.",
    "Full fine-tuning: lr 0.0001 is chosen of 0.0001, 0.001, 0.01. It is the"
    " smallest: try smaller ones.",
    "WiSE-FT: α 0.9 is chosen of 0.2, 0.9. It is the largest: try larger ones.",
    "Full fine-tuning: lr 0.2 is chosen of 0.1, 0.2. It is the largest: try"
    " larger ones.",
  ]
