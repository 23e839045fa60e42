"""The optimizers of optax and optax.contrib, and what holds for each.

`optax_table` puts them together with `optax_parts`.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import optax
from optax import contrib


class Row(NamedTuple):
  """One function of Optax.

  Attributes:
    make: Makes an optimizer that trains the tests' quadratic: with arguments,
      and with a learning rate where it has none.
    inside: What to know of ``gmixout(make(), ...)``. It begins with "no" where
      that does not train.
    around: The same of ``chain(make(), gmixout(...))``; or, if there is `wrap`,
      of that around gmixout.
    wrap: Puts it around an optimizer.
    told: What its updates are to be told: the loss's `value`, or `obj_fn`.
    resets: Whether it trains with ``moments="reset"``.
    scans: Whether its state, alone, keeps its structure, as `lax.scan` needs.
  """

  make: Callable[[], optax.GradientTransformation]
  inside: str = ""
  around: str = ""
  wrap: Callable[[Any], optax.GradientTransformation] | None = None
  told: tuple[str, ...] = ()
  resets: bool = True
  scans: bool = True


def holds(fields: str) -> str:
  return f"restarted at every redraw: {fields}"


DENSE = "not advised: in its own copy it steps the weights off the mask, too"
MOVES = "no: moves weights off the mask"
LOSS = "no: evaluates the loss, and would give it packed residuals"
SEARCHED = "no: gmixout changes the step that was searched for"
EXAMPLES = "no: needs one gradient per example, and gmixout takes their mean"
RESIDUAL = "its norm of the weights is that of the residual, zero at a redraw"
SLOW = "no: steps by a fraction of the residual, which is zero at a redraw"
MULTIPLE = "let k be a multiple of its period"
VARIANCE = "not with moments='reset': it divides by a variance from zero"
OUTPUTS = "no: only measures or ends a chain"


sgd, adam = optax.sgd, optax.adam
OPTIMIZERS: dict[str, Row] = {
  "optax.adabelief": Row(lambda: optax.adabelief(0.05)),
  "optax.adadelta": Row(lambda: optax.adadelta(30.0)),
  "optax.adafactor": Row(
    lambda: optax.adafactor(0.1, multiply_by_parameter_scale=False),
    "with multiply_by_parameter_scale=False, or it hardly moves",
  ),
  "optax.adagrad": Row(lambda: optax.adagrad(0.3)),
  "optax.adam": Row(lambda: adam(0.05)),
  "optax.adamax": Row(lambda: optax.adamax(0.05)),
  "optax.adamaxw": Row(lambda: optax.adamaxw(0.05)),
  "optax.adamw": Row(lambda: optax.adamw(0.05)),
  "optax.adan": Row(lambda: optax.adan(0.05)),
  "optax.amsgrad": Row(lambda: optax.amsgrad(0.05)),
  "optax.fromage": Row(lambda: optax.fromage(0.01), SLOW),
  "optax.lamb": Row(lambda: optax.lamb(0.05), RESIDUAL),
  "optax.lars": Row(lambda: optax.lars(0.05, trust_coefficient=0.1), RESIDUAL),
  "optax.lbfgs": Row(
    lambda: optax.lbfgs(0.1, linesearch=None),
    holds("its whole state") + "; without its line search, linesearch=None",
    DENSE,
  ),
  "optax.lion": Row(lambda: optax.lion(0.02)),
  "optax.nadam": Row(lambda: optax.nadam(0.05)),
  "optax.nadamw": Row(lambda: optax.nadamw(0.05)),
  "optax.noisy_sgd": Row(lambda: optax.noisy_sgd(0.3, key=0)),
  "optax.novograd": Row(lambda: optax.novograd(0.05)),
  "optax.optimistic_adam": Row(lambda: optax.optimistic_adam(0.05)),
  "optax.optimistic_adam_v2": Row(lambda: optax.optimistic_adam_v2(0.05)),
  "optax.optimistic_gradient_descent": Row(
    lambda: optax.optimistic_gradient_descent(0.1)
  ),
  "optax.polyak_sgd": Row(lambda: optax.polyak_sgd(0.3), told=("value",)),
  "optax.radam": Row(lambda: optax.radam(0.1)),
  "optax.rmsprop": Row(lambda: optax.rmsprop(0.02)),
  "optax.rprop": Row(lambda: optax.rprop(0.01, max_step_size=0.05)),
  "optax.sgd": Row(lambda: sgd(0.3)),
  "optax.sign_sgd": Row(lambda: optax.sign_sgd(0.02)),
  "optax.signum": Row(lambda: optax.signum(0.02)),
  "optax.sm3": Row(lambda: optax.sm3(0.3)),
  "optax.yogi": Row(lambda: optax.yogi(0.05)),
  "optax.contrib.acprop": Row(
    lambda: contrib.acprop(0.05), VARIANCE, resets=False
  ),
  "optax.contrib.ademamix": Row(lambda: contrib.ademamix(0.05)),
  "optax.contrib.adopt": Row(lambda: contrib.adopt(0.05)),
  "optax.contrib.cocob": Row(
    contrib.cocob, holds("`init_particles` and `cumulative_gradients`"), DENSE
  ),
  "optax.contrib.dadapt_adamw": Row(
    contrib.dadapt_adamw,
    "its estimate is kept at a redraw",
    "not advised: it counts on the steps that the mask drops",
  ),
  "optax.contrib.dog": Row(
    lambda: contrib.dog(init_step=("learning_rate", 0.01)),
    holds("`init_params`") + "; its distance is kept",
    DENSE,
  ),
  "optax.contrib.dowg": Row(
    contrib.dowg, holds("`init_params`") + "; its distance is kept", DENSE
  ),
  "optax.contrib.dpsgd": Row(
    lambda: contrib.dpsgd(0.3, 1.0, 0.0, seed=0), EXAMPLES, EXAMPLES
  ),
  "optax.contrib.galore": Row(
    lambda: contrib.galore(0.05, rank=4), "projects packed matrices"
  ),
  "optax.contrib.madgrad": Row(
    lambda: contrib.madgrad(0.03), holds("`x0` and `s`"), DENSE
  ),
  "optax.contrib.momo": Row(lambda: contrib.momo(0.3), told=("value",)),
  "optax.contrib.momo_adam": Row(
    lambda: contrib.momo_adam(0.05), told=("value",)
  ),
  "optax.contrib.muon": Row(
    lambda: contrib.muon(0.05), "orthogonalizes packed matrices"
  ),
  "optax.contrib.prodigy": Row(
    contrib.prodigy, holds("`params0`") + "; its distance is kept", DENSE
  ),
  "optax.contrib.schedule_free_adamw": Row(
    lambda: contrib.schedule_free_adamw(0.05),
    holds("`z` and `weight_sum`"),
    DENSE,
  ),
  "optax.contrib.schedule_free_sgd": Row(
    lambda: contrib.schedule_free_sgd(0.3),
    holds("`z` and `weight_sum`"),
    DENSE,
  ),
  "optax.contrib.simplified_ademamix": Row(
    lambda: contrib.simplified_ademamix(0.05)
  ),
  "optax.contrib.sophia": Row(
    lambda: contrib.sophia(0.05),
    LOSS + "; another `hessian_diagonal_fn` may not",
    told=("obj_fn",),
  ),
}
