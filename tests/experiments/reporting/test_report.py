"""Tests the report, from result lines to files."""

import base64
import io
import re

import numpy as np
import pytest
from PIL import Image

from experiments import report as command
from experiments.models import evaluation
from experiments.reporting import (
  cost_figure,
  entries,
  figures,
  records,
  sections,
)
from tests.combinations import EXHAUSTIVE, tried


def details(rng, names):
  found = {}
  for name in names:
    labels = rng.integers(0, 3, 60)
    logits = rng.standard_normal((60, 3))
    logits[np.arange(60), labels] += 1
    found[name] = evaluation.measure(logits, labels)
  return found


def run(
  name, seed, id_accuracy, ood_accuracy, data="digits", rng=None, **settings
):
  record = {
    "config": {"method": {"name": name, **settings}, "data": data},
    "seed": seed,
    "metrics": {
      "id": id_accuracy,
      "ood": {"art": ood_accuracy + 0.1, "photo": ood_accuracy - 0.1},
      "mean_ood": ood_accuracy,
      "worst_ood": ood_accuracy - 0.1,
    },
    "stats": {
      "steps": 0 if name == "zero_shot" else 5,
      "steps_per_second": 2.0,
      "optimizer_bytes": 3 << 20,
    },
  }
  if rng is not None:
    record["metrics"]["details"] = details(rng, ("id", "ood/art", "ood/photo"))
  return record


@pytest.fixture
def lines(rng):
  results = [run("zero_shot", 0, 0.7, 0.6, rng=rng)]
  for seed in range(3):
    luck = 0.01 * seed
    results += [
      run("full_finetuning", seed, 0.9 + luck, 0.5 + luck, rng=rng),
      run("gmixout", seed, 0.88 + luck, 0.62 + 1.1 * luck, rng=rng,
          sparsity=0.9, anchor_decay=0.3),
      run("gmixout", seed, 0.86 + luck, 0.58 + luck, rng=rng, sparsity=0.5,
          anchor_decay=0.3),
    ]  # fmt: skip
  return results


def test_runs_are_grouped_and_labelled_by_what_differs(lines):
  found = entries.group(lines)
  assert [entry.label for entry in found] == [
    "Zero-shot",
    "Full fine-tuning",
    "GMixout (p 0.9)",
    "GMixout (p 0.5)",
  ]
  assert list(found[2].runs) == [0, 1, 2]
  assert found[2].interval("id").mean == pytest.approx(0.89)


def test_a_seed_counts_once_with_its_latest_line():
  reordered = run("m", 2, 0.4, 0.35, lr=1.0)
  reordered["config"] = dict(reversed(reordered["config"].items()))
  (entry,) = entries.group(
    [run("m", 0, 0.4, 0.3, lr=1.0), run("m", 2, 0.4, 0.8, lr=1.0), reordered]
  )
  assert entry.values("mean_ood") == {0: 0.3, 2: 0.35}


def test_tasks_are_kept_apart(lines):
  other = run("gmixout", 0, 0.8, 0.3, data={"root": "PACS", "source": "sketch"})
  tasks = entries.by_task([*lines, other])
  assert list(tasks) == ["digits", "PACS from sketch"]
  assert [entry.label for entry in tasks["PACS from sketch"]] == ["GMixout"]


def test_a_task_is_called_by_its_source_or_its_target():
  data = {"root": "PACS", "source": "photo", "image_size": 64}
  assert entries.task_of({"data": data}) == "PACS from photo"
  left_out = {"root": "PACS", "source": None, "target": "art"}
  assert entries.task_of({"data": left_out}) == "PACS but for art"
  words = {"data": data, "backbone": "clip", "crops": "original"}
  assert entries.task_of(words) == "PACS from photo, clip"


def test_what_saw_the_input_of_before_is_a_task_of_its_own(lines):
  data = {"root": "PACS", "source": "photo", "image_size": 64}
  old = {"data": data, "weights": "vit.safetensors"}
  assert entries.task_of(old) == "PACS from photo (input of 0.1.0)"
  told = old | {"augment": "basic"}  # as `train` of 0.1.0 had it
  assert entries.task_of(told) == entries.task_of(old)
  # What evaluation sees has not changed, nor have arrays of pixels.
  assert entries.task_of(old | {"augment": "none"}) == "PACS from photo"
  digits = {"data": "scanned_digits", "backbone": "random"}
  assert entries.task_of(digits) == "scanned_digits"
  both = [run("gmixout", 0, 0.8, 0.3) for _ in range(2)]
  both[0]["config"] |= old
  both[1]["config"] |= old | {"crops": "original"}
  tasks = entries.by_task(both)
  assert list(tasks) == ["PACS from photo (input of 0.1.0)", "PACS from photo"]


def test_a_line_that_is_no_run_is_named():
  with pytest.raises(ValueError, match=r"record 1 .* lacks 'metrics'"):
    entries.group([{"config": {}}])
  with pytest.raises(ValueError, match="no records"):
    entries.by_task([])


def without_targets(line):
  """As `experiments.run imagenet_lt` writes it."""
  found = line["metrics"]
  return line | {"metrics": {"id": found["id"], "ood": {}}}


def test_runs_without_targets_are_reported(lines, tmp_path, capsys):
  path = tmp_path / "runs.jsonl"
  for line in lines:
    records.append(path, without_targets(line))
  assert command.main([str(path), "--out", str(tmp_path / "report")]) == 0
  text = (tmp_path / "report" / "report.md").read_text()
  assert "| Zero-shot | 70.0 | – | – | – |" in text
  assert "Difference from Full fine-tuning, ID" in text
  assert "OOD mean" not in text
  assert "Accuracy by domain" not in text
  capsys.readouterr()


def test_a_line_of_a_file_that_is_no_run_is_named(lines, tmp_path, capsys):
  path = tmp_path / "runs.jsonl"
  for line in [*lines[:2], {"config": {"method": {"name": "x"}}, "seed": 0}]:
    records.append(path, line)
  assert command.main([str(path), "--out", str(tmp_path / "report")]) == 1
  shown = "".join(capsys.readouterr().err.split())
  assert "runs.jsonl:3isnoline" in shown
  assert "lacks'metrics'" in shown


def test_the_pareto_front_by_hand():
  points = [(1, 5), (2, 4), (2, 3), (0, 5), (3, 1), (3, 1), (1, 1)]
  assert entries.pareto(points) == [0, 1, 4]
  assert entries.pareto([(1, 1)]) == [0]


def test_comparisons_are_paired_and_adjusted(lines):
  found = entries.group(lines)
  compared = entries.compare(found, found[1], "mean_ood")
  assert [c.label for c in compared] == [e.label for e in found[2:]]
  first, second = compared
  assert first.paired.difference.mean == pytest.approx(0.12 + 0.001)
  assert first.p_adjusted >= first.paired.p_t
  assert second.paired.difference.mean == pytest.approx(0.08)


def test_methods_keep_their_colours_and_no_two_look_alike(lines):
  found = entries.group(lines)
  styles = figures.styles_of(found)
  assert styles["Full fine-tuning"] == ("#D55E00", "s")
  assert styles["Zero-shot"] == ("black", "*")
  assert styles["GMixout (p 0.9)"] == ("#009E73", "D")
  many = [run("m", 0, 0.5, 0.4, rank=i) for i in range(40)]
  styles = figures.styles_of(entries.group([*many, *lines]))
  distinct = [s for s in styles.values() if s != figures.OTHERS]
  assert len(set(distinct)) == len(distinct) == figures.DISTINCT
  assert styles["Full fine-tuning"] == ("#D55E00", "s")


def test_the_report_is_one_page_and_its_pictures(lines, tmp_path, capsys):
  path = tmp_path / "runs.jsonl"
  for line in lines:
    records.append(path, line)
  out = tmp_path / "report"
  assert command.main([str(path), "--out", str(out)]) == 0
  names = {"ood_against_id", "curve_sparsity", "reliability", "cost"}
  for name in names:
    assert (out / f"{name}.pdf").read_bytes().startswith(b"%PDF")
    picture = np.asarray(Image.open(out / f"{name}.png").convert("RGB"))
    # Nothing is clipped: the rim of every picture is empty.
    for rim in (picture[0], picture[-1], picture[:, 0], picture[:, -1]):
      assert rim.min() == 255, name
  page = (out / "report.html").read_text()
  assert not re.search(r'(src|href)="(?!data:)', page)  # needs no other file
  pictures = re.findall(r"base64,([^\"]+)", page)
  assert len(pictures) == 4
  assert Image.open(io.BytesIO(base64.b64decode(pictures[0]))).format == "WEBP"
  text = (out / "report.md").read_text()
  assert "| GMixout (p 0.9) | 89.0 ± 2.5 | 63.1 ± " in text
  assert text.count("GMixout: λ 0.3.") == 1  # what all share is said once
  # Relative robustness: 0.62, 0.631 and 0.642 less 0.6.
  assert "| 3.1 ± 2.7 |" in text
  assert "Difference from Full fine-tuning, ID" in text
  assert "Difference from Full fine-tuning" in text
  # Of two configurations the first, against which the second is compared.
  assert "Difference from GMixout (p 0.9)" in text
  assert "Difference from GMixout (p 0.5)" not in text
  first = {name: (out / f"{name}.pdf").read_bytes() for name in names}
  command.main([str(path), "--out", str(out)])
  assert first == {name: (out / f"{name}.pdf").read_bytes() for name in names}
  capsys.readouterr()


def test_an_empty_file_is_no_report(tmp_path, capsys):
  (tmp_path / "x.jsonl").write_text("")
  assert command.main([str(tmp_path / "x.jsonl")]) == 1
  assert "no lines in" in capsys.readouterr().err


@pytest.mark.parametrize("settings", tried([1, 5], lambda count: count == 5))
def test_nothing_overlaps_or_is_clipped_however_many_there_are(settings, rng):
  # A layout that cannot be made is a warning, and so fails as well.
  names = ["zero_shot", "full_finetuning", "gmixout", "wise_ft", "swad"]
  lines = [
    run(name, seed, rng.uniform(0.8, 0.9), rng.uniform(0.5, 0.7), rng=rng,
        sparsity=0.05 * i, learning_rate=1e-3, a_setting_with_a_long_name=i)
    for name in names
    for i in range(settings)
    for seed in range(2)
  ]  # fmt: skip
  found = entries.group(lines)
  for draw in (figures.ood_against_id, figures.reliability, cost_figure.draw):
    picture = draw(found)
    picture.draw_without_rendering()
    (legend,) = picture.legends
    renderer = picture._get_renderer()
    whole = picture.bbox
    below = legend.get_window_extent(renderer)
    assert below.x0 >= whole.x0
    assert below.x1 <= whole.x1
    assert below.y0 >= whole.y0
    for text in picture.texts:
      box = text.get_window_extent(renderer)
      assert box.y0 >= below.y1 or box.y1 <= below.y0, text
    shown = [view for view in picture.axes if view.axison]
    boxes = [view.get_tightbbox(renderer) for view in shown]
    for i, (view, box) in enumerate(zip(shown, boxes, strict=True)):
      assert box.y0 >= below.y1 - 1, draw
      assert box.x0 >= whole.x0 - 1
      assert box.x1 <= whole.x1 + 1
      assert view.get_window_extent(renderer).height > 150  # at 100 to the inch
      for other in boxes[i + 1 :]:
        both = box.intersection(box, other)
        assert both is None or min(both.width, both.height) < 2


def test_old_lines_without_details_or_cost_still_make_a_report(tmp_path):
  record = run("gmixout", 0, 0.8, 0.6)
  del record["stats"]
  records.append(tmp_path / "runs.jsonl", record)
  out = tmp_path / "report"
  command.write((tmp_path / "runs.jsonl",), out)
  assert {file.suffix for file in out.iterdir()} == {
    ".md", ".html", ".png", ".pdf",
  }  # fmt: skip
  assert not (out / "reliability.png").exists()
  assert not (out / "cost.png").exists()


def test_words_cannot_break_the_page(tmp_path):
  path = tmp_path / "runs.jsonl"
  records.append(path, run("<b>a|b", 0, 0.8, 0.6))
  command.write((path,), tmp_path / "out")
  assert "<b>" not in (tmp_path / "out" / "report.html").read_text()
  assert "a\\|b" in (tmp_path / "out" / "report.md").read_text()


def test_wrong_files_end_in_an_error(tmp_path, capsys):
  assert command.main([str(tmp_path / "none.jsonl")]) == 1
  (tmp_path / "x.jsonl").write_text('{"seed": 0}\n')
  assert command.main([str(tmp_path / "x.jsonl")]) == 1
  assert "lacks" in capsys.readouterr().err


@EXHAUSTIVE  # in our script above
def test_tasks_in_other_scripts_have_pictures_of_their_own(tmp_path):
  path = tmp_path / "runs.jsonl"
  for data in ("犬", "猫", "a b", "a/b"):
    for name in ("full_finetuning", "gmixout"):
      records.append(path, run(name, 0, 0.8, 0.6, data=data))
  command.write((path,), tmp_path / "out")
  pictures = sorted((tmp_path / "out").glob("ood_against_id*.png"))
  assert len(pictures) == 4
  text = (tmp_path / "out" / "report.md").read_text()
  assert all(f"({picture.name})" in text for picture in pictures)
  assert sections.slug("PACS, 100 steps") == "pacs_100_steps"


def test_what_differs_between_tasks_is_in_their_names():
  lines = [run("gmixout", 0, 0.8, 0.6) for _ in range(3)]
  lines[1]["config"] |= {"steps": 400}
  lines[2]["config"] |= {"backbone": "random"}
  assert list(entries.by_task(lines)) == [
    "digits", "digits, 400 steps", "digits, backbone random",
  ]  # fmt: skip


def test_files_that_are_asked_for_are_written(lines, tmp_path):
  path = tmp_path / "runs.jsonl"
  for line in lines:
    records.append(path, line)
  arguments = [str(path), "--out", str(tmp_path / "out"), "--csv", "--latex"]
  assert command.main(arguments) == 0
  assert (tmp_path / "out" / "results.csv").read_text().startswith("task,")
  assert "\\toprule" in (tmp_path / "out" / "tables.tex").read_text()


def test_a_reference_that_is_no_method_is_refused(lines, tmp_path, capsys):
  arguments = [str(lines), "--out", str(tmp_path / "r"), "--references", "swaa"]
  assert command.main(arguments) == 1
  assert "swaa" in capsys.readouterr().err
