"""The report's text, as Markdown and as one self-contained HTML page."""

import base64
import html
import io
import math
import re
from collections.abc import Sequence
from typing import NamedTuple

from PIL import Image

from experiments import metrics
from experiments.reporting import display_names
from experiments.reporting.entries import Entry, compare
from experiments.reporting.knobs import RATE, setting

Row = Sequence[str]

_WORDS = {"id": "ID", "mean_ood": "OOD mean"}


class Table(NamedTuple):
  """A table with a heading and a note.

  Attributes:
    title: The heading.
    note: What the numbers are.
    header: One per column.
    rows: Cells as text.
  """

  title: str
  note: str
  header: Row
  rows: Sequence[Row]


class Picture(NamedTuple):
  """A picture with what it shows.

  Attributes:
    name: Of its files, without a suffix.
    caption: What it shows; its first sentence is also the text that stands for
      the picture where it is not seen.
    png: Its content.
    pdf: Likewise.
  """

  name: str
  caption: str
  png: bytes
  pdf: bytes

  @property
  def alternative(self) -> str:
    """The first sentence of the caption."""
    return self.caption.split(". ", 1)[0].removesuffix(".") + "."


class Section(NamedTuple):
  """Tables and pictures on one subject.

  Attributes:
    title: Its heading.
    parts: In order.
  """

  title: str
  parts: Sequence[Table | Picture]


def summary(entries: Sequence[Entry]) -> Table:
  """Accuracy and calibration of every configuration."""
  rows = []
  before = [e for e in entries if e.method == display_names.ZERO_SHOT]
  for entry in entries:
    columns = [
      entry.percent(metric) for metric in ("id", "mean_ood", "worst_ood")
    ]
    columns.append(_relative(entry, before[0]) if before else "–")
    for kind in ("id", "ood"):
      columns.append(_ece(entry, kind))
    rate = setting(entry.config["method"], RATE)
    columns.append("–" if rate is None else f"{rate:g}")
    rows.append((entry.label, *columns, str(len(entry.runs))))
  return Table(
    "Accuracy",
    "In percent, mean over seeds ± half its 95 % interval (Student's t). ECE"
    " has 15 bins; out of distribution it is the mean over domains. Relative"
    " robustness τ is OOD, mean, less that of zero-shot.",
    (
      "method", "ID", "OOD, mean", "OOD, worst", "τ", "ECE, ID", "ECE, OOD",
      "rate", "seeds",
    ),
    rows,
  )  # fmt: skip


def _relative(entry: Entry, zero_shot: Entry) -> str:
  """Zero-shot is one number: it has no seed."""
  if entry is zero_shot or not (entry.has_targets and zero_shot.has_targets):
    return "–"
  before = zero_shot.interval("mean_ood").mean
  values = entry.values("mean_ood").values()
  gained = [metrics.relative_robustness(value, before) for value in values]
  return metrics.interval(gained).percent()


def _ece(entry: Entry, kind: str) -> str:
  """The mean over seeds of the mean over sets of a kind."""
  values = []
  for run in entry.runs.values():
    found = [
      each["ece"]
      for name, each in run["metrics"].get("details", {}).items()
      if name.split("/")[0] == kind
    ]
    if not found:
      return "–"
    values.append(sum(found) / len(found))
  return metrics.interval(values).percent()


def by_domain(entries: Sequence[Entry]) -> Table:
  """Accuracy on every domain."""
  names: list[str] = []
  for entry in entries:
    for run in entry.runs.values():
      names += [name for name in run["metrics"]["ood"] if name not in names]
  rows = []
  for entry in entries:
    cells = []
    for name in names:
      values = [
        run["metrics"]["ood"][name]
        for run in entry.runs.values()
        if name in run["metrics"]["ood"]
      ]
      cells.append(metrics.interval(values).percent() if values else "–")
    rows.append((entry.label, *cells))
  return Table(
    "Accuracy by domain",
    "In percent, mean over seeds ± half its 95 % interval.",
    ("method", *names),
    rows,
  )


def comparison(
  entries: Sequence[Entry], reference: Entry, metric: str = "mean_ood"
) -> Table:
  """Differences from a reference on the same seeds, "id" or "mean_ood"."""
  rows = []
  for found in compare(entries, reference, metric):
    pair = found.paired
    rows.append(
      (
        found.label,
        pair.difference.percent(),
        _p(pair.p_t),
        _p(found.p_adjusted),
        _p(pair.p_sign),
        str(len(pair.seeds)),
      )
    )
  return Table(
    f"Difference from {reference.label}, {_WORDS[metric]}",
    "In points, paired by seed, ± half its 95 % interval. p of the paired"
    " t-test, the same adjusted for the number of rows (Benjamini–Hochberg),"
    " and of the exact sign-flip test, which n seeds keep from falling below"
    " 2 / 2^n.",
    ("method", "difference", "p (t)", "adjusted", "p (sign flips)", "seeds"),
    rows,
  )


def _p(value: float) -> str:
  if math.isnan(value):
    return "–"
  return f"{value:.3f}" if value >= 0.001 else "< 0.001"


def markdown(sections: Sequence[Section], source: str) -> str:
  """The report as Markdown, with pictures as files beside it.

  Args:
    sections: In order.
    source: What it was made from.
  """
  lines = ["# Report", "", _cell(source), ""]
  for section in sections:
    lines += [f"## {_cell(section.title)}", ""]
    for part in section.parts:
      if isinstance(part, Picture):
        lines += [f"![{_cell(part.alternative)}]({part.name}.png)", ""]
        lines += [_cell(part.caption), ""]
        continue
      lines += [f"### {_cell(part.title)}", "", _cell(part.note), ""]
      lines += [markdown_table(part), ""]
  return "\n".join(lines)


def markdown_table(table: Table) -> str:
  """Header and rows."""
  lines = ["| " + " | ".join(map(_cell, table.header)) + " |"]
  lines.append("|" + "---|" * len(table.header))
  lines += ["| " + " | ".join(map(_cell, row)) + " |" for row in table.rows]
  return "\n".join(lines)


def _cell(text: str) -> str:
  """Text in which Markdown finds no tables, tags, links or code."""
  text = html.escape(" ".join(text.split()), quote=False)
  text = re.sub(r"([\\|\[\]`])", r"\\\1", text)
  # GitHub makes links of these without being asked.
  return text.replace("://", "&#58;//").replace("www.", "www&#46;")


_STYLE = """
body { font: 16px/1.5 system-ui, sans-serif; max-width: 60em; margin: 2em auto;
  padding: 0 1em; color: #222; background: #fff; }
table { border-collapse: collapse; font-variant-numeric: tabular-nums; }
th, td { padding: .25em .8em; border-bottom: 1px solid #ccc; text-align: right;
  white-space: nowrap; }
th:first-child, td:first-child { text-align: left; white-space: normal; }
div { overflow-x: auto; }
img { max-width: 100%; }
figcaption { color: #444; }
"""


def page(sections: Sequence[Section], source: str) -> str:
  """The report as one HTML page that needs no other file and no network.

  Args:
    sections: In order.
    source: What it was made from.
  """
  parts = [
    "<!doctype html>",
    '<html lang="en"><head><meta charset="utf-8">',
    '<meta name="viewport" content="width=device-width">',
    f"<title>Report</title><style>{_STYLE}</style></head><body>",
    f"<h1>Report</h1><p>{html.escape(source)}</p>",
  ]
  if len(sections) > 1:
    parts.append("<ul>")
    for number, section in enumerate(sections):
      title = html.escape(section.title)
      parts.append(f'<li><a href="#s{number}">{title}</a></li>')
    parts.append("</ul>")
  for number, section in enumerate(sections):
    parts.append(f'<h2 id="s{number}">{html.escape(section.title)}</h2>')
    for part in section.parts:
      parts += _figure(part) if isinstance(part, Picture) else _table(part)
  parts.append("</body></html>")
  return "\n".join(parts)


def _table(table: Table) -> list[str]:
  parts = [f"<h3>{html.escape(table.title)}</h3>"]
  parts.append(f"<p>{html.escape(table.note)}</p><div><table><tr>")
  parts += [f"<th>{html.escape(cell)}</th>" for cell in table.header]
  parts.append("</tr>")
  for row in table.rows:
    cells = "".join(f"<td>{html.escape(cell)}</td>" for cell in row)
    parts.append(f"<tr>{cells}</tr>")
  return [*parts, "</table></div>"]


def _figure(picture: Picture) -> list[str]:
  data = base64.b64encode(_small(picture.png)).decode()
  return [
    f'<figure><img alt="{html.escape(picture.alternative, quote=True)}"'
    f' src="data:image/webp;base64,{data}">'
    f"<figcaption>{html.escape(picture.caption)}</figcaption></figure>"
  ]


def _small(png: bytes) -> bytes:
  """The same picture in a third of the bytes: dozens are in one page."""
  image = Image.open(io.BytesIO(png)).convert("RGB")
  content = io.BytesIO()
  image.quantize(128, dither=Image.Dither.NONE).convert("RGB").save(
    content, "webp", lossless=True, quality=100
  )
  return content.getvalue()
