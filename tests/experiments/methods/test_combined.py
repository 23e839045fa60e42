"""Tests composition, pools and what is made of finished runs."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import gmixout_jax as gx
from experiments import methods
from experiments.methods import Member, Run
from experiments.methods.composition import with_rates_times
from experiments.methods.diwa import DiWA, RestrictedDiWA
from experiments.methods.ema import EMA
from experiments.methods.ftp import FTP
from experiments.methods.full_finetuning import FullFinetuning
from experiments.methods.gmixout import GMixout
from experiments.methods.l2_sp import L2SP
from experiments.methods.manifold_mixing import ManifoldMixing
from experiments.methods.model_soups import GreedySoup, LearnedSoup, UniformSoup
from experiments.methods.model_stock import ModelStock
from experiments.methods.output_ensemble import OutputEnsemble
from experiments.methods.run import Snapshot
from experiments.methods.spd import SPD
from experiments.methods.swa import SWA
from experiments.methods.swad import SWAD
from experiments.methods.very_large_dropout import VeryLargeDropout
from experiments.methods.wise_ft import WiseFT


class Validator:
  """Accuracy falls with the distance of "w" from a target."""

  def __init__(self, target):
    self.target = target

  def accuracy(self, params):
    return 1 - 0.01 * abs(float(params["w"]) - self.target)

  def loss(self, params):
    return abs(float(params["w"]) - self.target)

  def objective(self, params, scale, batch):
    return (params["w"] - self.target) ** 2 + (scale - 1) ** 2

  def batches(self, *, batch_size, epochs):
    return range(100 * epochs)


def runs(*ends, start=0.0, snapshots=()):
  def tree(value):
    return {"w": jnp.array(value), "frozen": jnp.ones(2)}

  taken = [
    tuple(Snapshot(i + 1, tree(value)) for i, value in enumerate(values))
    for values in snapshots
  ] or [()] * len(ends)
  return [
    Run(tree(start), tree(end), own)
    for end, own in zip(ends, taken, strict=True)
  ]


def deployed(combined):
  return [float(params["w"]) for params in combined.weights]


def test_wise_ft_goes_from_the_initial_weights():
  method = WiseFT(alpha=0.25)
  assert method.members() == FullFinetuning().members()
  combined = method.combine(runs(8.0, start=4.0), Validator(0))
  assert deployed(combined) == [5.0]


def test_wise_ft_works_on_soups_and_on_ensembles():
  of_soup = WiseFT(of=UniformSoup(runs=2))
  assert len(of_soup.members()) == 2
  assert deployed(of_soup.combine(runs(2.0, 4.0), Validator(0))) == [1.5]
  of_ensemble = WiseFT(of=OutputEnsemble(runs=2))
  combined = of_ensemble.combine(runs(2.0, 4.0), Validator(0))
  assert deployed(combined) == [1.0, 2.0]
  assert combined.ingredients == (0, 1)


def test_soups_work_on_what_another_method_makes_of_each_run():
  soup = UniformSoup(of=WiseFT(alpha=0.5), runs=2)
  assert deployed(soup.combine(runs(2.0, 4.0), Validator(0))) == [1.5]
  assert soup.members() == UniformSoup(runs=2).members()


def test_soups_and_ensembles():
  three = runs(1.0, 4.0, 10.0)
  validator = Validator(3.0)
  assert deployed(UniformSoup(runs=3).combine(three, validator)) == [5.0]
  assert deployed(OutputEnsemble(runs=3).combine(three, validator)) == [
    1,
    4,
    10,
  ]
  # Best first: 4 (off by 1), then {4, 1} = 2.5 (0.5), then {…, 10} = 5 (2).
  greedy = GreedySoup(runs=3).combine(three, validator)
  assert (deployed(greedy), greedy.ingredients) == ([2.5], (1, 0))
  learned = LearnedSoup(runs=3).combine(three, validator)
  assert deployed(learned) == [pytest.approx(3.0, abs=0.01)]
  assert sum(learned.notes["mean_shares"]) == pytest.approx(1, abs=1e-3)


def test_a_greedy_soup_of_equals_takes_them_unless_strict():
  twins = runs(4.0, 4.0)
  for ties, used in ((True, (0, 1)), (False, (0,))):
    soup = GreedySoup(runs=2, ties=ties)
    assert soup.combine(twins, Validator(3.0)).ingredients == used


def test_diwa_takes_each_run_at_its_best_step():
  # Of the first run 5 is best; of the second 3 and 7 tie, and 7 is later.
  two = runs(9.0, 8.0, snapshots=[[1.0, 5.0, 9.0], [3.0, 7.0, 8.0]])
  validator = Validator(5.0)
  assert deployed(DiWA(runs=2).combine(two, validator)) == [6.0]
  restricted = RestrictedDiWA(runs=2).combine(two, validator)
  assert (deployed(restricted), restricted.ingredients) == ([5.0], (0,))
  assert DiWA(evaluations=4).snapshots(10) == (2, 5, 7, 10)
  assert DiWA(evaluations=4).snapshots(2) == (1, 2)


def test_model_stock_takes_runs_that_differ_in_the_seed_alone():
  method = ModelStock(runs=6)
  assert method.members() == (
    Member(FullFinetuning(), 0),
    Member(FullFinetuning(), 3),
  )
  assert set(method.members()) <= set(UniformSoup(runs=6).members())
  # In one dimension two runs to one side have cos θ = 1: their mean.
  combined = method.combine(runs(2.0, 4.0), Validator(0))
  assert deployed(combined) == [pytest.approx(3.0)]
  combined = method.combine(runs(2.0, -4.0), Validator(0))
  assert deployed(combined) == [pytest.approx(0.0)]
  with pytest.raises(ValueError, match=r"in \[2, 1\].* got 2"):
    ModelStock(runs=3).members()


def test_manifold_mixing_finds_a_known_optimum_with_nevergrad():
  method = ManifoldMixing(runs=2, depth=1, threshold=0.0, optimizer="Cobyla")
  combined = method.combine(runs(0.0, 1.0), Validator(0.8))
  assert deployed(combined) == [pytest.approx(0.8, abs=0.01)]
  assert combined.notes["shares"] == {"w": [0.8, 0.2]}
  assert combined.ingredients == (1, 0)


@pytest.mark.parametrize("optimizer", ["NGOpt", "Cobyla"])
def test_the_search_finds_the_optimum_again_and_again(optimizer):
  target, half = np.array([0.6, 0.4]), np.full(2, 0.5)
  method, tried = ManifoldMixing(optimizer=optimizer), []

  def loss(point):
    tried.append(point)
    return float(np.sum((point - target) ** 2))

  low, high = half - 0.25, half + 0.25
  found = [method.minimise(loss, half, low, high, 60) for _ in range(2)]
  np.testing.assert_array_equal(*found)
  np.testing.assert_allclose(found[0], target, atol=0.02)
  assert np.all((low <= tried) & (tried <= high))
  assert 100 <= len(tried) <= 120


def test_a_search_names_its_optimizers():
  half = np.full(2, 0.5)
  with pytest.raises(ValueError, match="Nevergrad's, got 'Nope'"):
    ManifoldMixing(optimizer="Nope").minimise(float, half, half, half, 10)


def test_a_pool_starts_with_the_methods_own_run_and_equal_pools_share():
  base = FullFinetuning(learning_rate=3.0)
  pool = UniformSoup(of=base, runs=4, factors=(1.0, 0.5))
  rates = [m.method.learning_rate for m in pool.members()]
  assert rates == [3.0, 1.5, 3.0, 1.5]
  assert [m.repeat for m in pool.members()] == [0, 1, 2, 3]
  assert pool.members()[:1] == base.members()
  other = DiWA(of=base, runs=6, factors=(1.0, 0.5))
  assert other.members()[:4] == pool.members()


def test_rates_are_found_where_they_are():
  nested = VeryLargeDropout(of=GMixout(learning_rate=2.0))
  half = with_rates_times(nested, 0.5)
  assert half.of == GMixout(learning_rate=1.0, head_learning_rate=5e-5)
  assert half.rate == nested.rate
  with pytest.raises(ValueError, match="ZeroShot has no learning rate"):
    with_rates_times(methods.METHODS["zero_shot"](), 0.5)


def test_what_does_not_compose_says_so():
  with pytest.raises(ValueError, match=r"EMA changes .* made of 6 runs"):
    EMA(of=UniformSoup())
  with pytest.raises(ValueError, match="GreedySoup is made of methods of one"):
    GreedySoup(of=UniformSoup())
  with pytest.raises(ValueError, match="runs must be at least 1, got 0"):
    UniformSoup(runs=0)
  for make, message in (
    (lambda: SWAD(evaluations=0), "evaluations must be at least 1, got 0"),
    (lambda: DiWA(evaluations=0), "evaluations must be at least 1, got 0"),
    (lambda: DiWA(runs=0), "runs must be at least 1, got 0"),
    (
      lambda: DiWA(of=SWAD()),
      "takes single steps .* and SWAD averages several",
    ),
    (lambda: WiseFT(alpha=1.5), r"alpha must be in \[0, 1\], got 1.5"),
    (lambda: EMA(decay=1.0), r"decay must be in \[0, 1\), got 1.0"),
    (lambda: SPD(strength=-1.0), "strength must be at least 0, got -1"),
    (lambda: FTP(shrink=-0.5), "shrink must be at least 0, got -0.5"),
    (lambda: FTP(norm="l1"), r"norm must be one of \('l2', 'mars'\), got 'l1'"),
    (lambda: L2SP(alpha=-0.1), "alpha must be at least 0, got -0.1"),
    (lambda: L2SP(beta=float("nan")), "beta must be at least 0, got nan"),
  ):
    with pytest.raises(ValueError, match=message):
      make()
  with pytest.raises(ValueError, match="factors must be positive"):
    UniformSoup(factors=(1.0, -1.0))
  still = SPD(of=methods.METHODS["zero_shot"]())
  with pytest.raises(ValueError, match="ZeroShot trains nothing"):
    still.transform({}, methods.Schedule(3), jax.random.key(0))


PARAMS = {"backbone": {"blocks": {0: {"kernel": jnp.ones((8, 20))}}}}


@pytest.mark.parametrize("cls", [EMA, SWA, SWAD, SPD, L2SP, FTP])
@pytest.mark.parametrize(
  "of", [GMixout(), VeryLargeDropout(of=GMixout()), WiseFT(of=GMixout())]
)
def test_what_needs_whole_weights_gets_them_however_deep(cls, of):
  form = lambda method: method.parametrize(PARAMS, jax.random.key(0))
  assert isinstance(form(of), gx.MixedParams)
  assert form(cls(of=of)) is PARAMS
  assert cls(of=of).of == of


def test_names_of_compositions_and_back():
  for method, name in [
    (WiseFT(of=GMixout()), "gmixout+wise_ft"),
    (VeryLargeDropout(of=GMixout()), "gmixout+very_large_dropout"),
    (UniformSoup(of=GMixout()), "gmixout+uniform_soup"),
    (WiseFT(of=SWAD(of=GMixout())), "gmixout+swad+wise_ft"),
  ]:
    assert methods.name_of(method) == name
    assert methods.from_name(name) == method
  changed = methods.from_name(
    "wise_ft", wise_ft={"alpha": 0.1}, full_finetuning={"learning_rate": 2.0}
  )
  assert changed == WiseFT(of=FullFinetuning(learning_rate=2.0), alpha=0.1)
  with pytest.raises(ValueError, match="'nope' is not one of diwa, ema"):
    methods.from_name("nope")
  with pytest.raises(ValueError, match="'lora' in 'gmixout\\+lora' does not"):
    methods.from_name("gmixout+lora")


def test_a_description_names_what_is_inside():
  described = methods.described(WiseFT(of=GMixout(sparsity=0.5)))
  assert described["name"] == "gmixout+wise_ft"
  assert described["of"]["name"] == "gmixout"
  assert described["of"]["sparsity"] == 0.5
