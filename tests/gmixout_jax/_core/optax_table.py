"""Every optimizer of optax and optax.contrib, and what holds for it.

`docs/guides/optimizers.md` shows this table, and `test_optax_table.py` runs
every row of it. To write the page anew after a change:

    python -m tests.gmixout_jax._core.optax_table
"""

import functools
import inspect
import pathlib
from collections.abc import Iterator

import optax
from optax import contrib

from tests.gmixout_jax._core.optax_optimizers import OPTIMIZERS
from tests.gmixout_jax._core.optax_parts import PARTS, WRAPPERS

PAGE = pathlib.Path(__file__).parents[3] / "docs/guides/optimizers.md"
BEGIN, END = "<!-- the table -->", "<!-- its end -->"

# What says nothing of what it returns, and returns no optimizer.
NO_OPTIMIZERS = {
  "bias_correction",
  "matrix_inverse_pth_root",
  "schedule_free_eval_params",
  "sigmoid_binary_cross_entropy",
  "update_infinity_moment",
  "update_moment",
  "update_moment_per_elem_norm",
}


ROWS = OPTIMIZERS | PARTS | WRAPPERS


def public_optimizers() -> Iterator[str]:
  """What the installed Optax has that makes an optimizer, by full name."""
  for module in (optax, contrib):
    for name, value in vars(module).items():
      makes = inspect.isfunction(value) or isinstance(value, functools.partial)
      if name.startswith("_") or not (makes or value is optax.MultiSteps):
        continue
      returned = inspect.signature(value).return_annotation
      says_nothing = returned is inspect.Signature.empty
      if (says_nothing and name not in NO_OPTIMIZERS) or (
        "GradientTransformation" in str(returned)
      ):
        yield f"{module.__name__}.{name}"


def table() -> str:
  """The rows as Markdown."""
  lines = ["| | inside | around |", "|---|---|---|"]
  for name, row in ROWS.items():
    kind = f"`{name}`" + (" (wraps)" if row.wrap else "")
    lines.append(f"| {kind} | {row.inside or 'yes'} | {row.around or 'yes'} |")
  return "\n".join(lines) + "\n"


def page_with_table(page: str) -> str:
  """The page with its table as it should be."""
  before, rest = page.split(BEGIN)
  _, after = rest.split(END)
  return f"{before}{BEGIN}\n{table()}{END}{after}"


if __name__ == "__main__":
  PAGE.write_text(page_with_table(PAGE.read_text()))
