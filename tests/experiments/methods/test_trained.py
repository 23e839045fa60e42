"""Tests averages, dropout, LoRA and FLYP: what changes how a run trains."""

import types

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import nnx

from experiments.data.batches import batches, stream
from experiments.methods.ema import EMA
from experiments.methods.flyp import FLYP, contrastive_loss, sigmoid_loss
from experiments.methods.full_finetuning import FullFinetuning
from experiments.methods.lora import LoRA, LowRank
from experiments.methods.run import Run, Snapshot
from experiments.methods.schedule import Schedule
from experiments.methods.swa import SWA
from experiments.methods.swad import SWAD
from experiments.methods.very_large_dropout import Dropped, VeryLargeDropout
from experiments.models import export, probe
from experiments.models.classifier import Classifier, ClipImageEncoder, Prompts
from experiments.training import loop
from gmixout_jax import clip
from gmixout_jax.clip.model import normalize
from tests.combinations import EXHAUSTIVE
from tests.experiments import tiny

KEY = jax.random.key(0)
RATE = 0.01
SGD = FullFinetuning(learning_rate=RATE)


def walk(method, steps):
  """Deployed weights on a constant gradient of −1, from 0.

  Adam's step is then its learning rate, so that the weights are the sum of the
  rates so far: η t where the rate is constant.
  """
  params = {"backbone": jnp.zeros(2)}
  transform = method.transform(params, Schedule(steps, warmup=0), KEY)
  state = transform.init(params)
  gradient = {"backbone": -jnp.ones(2)}
  for _ in range(steps):
    updates, state = transform.update(gradient, state, params)
    params = optax.apply_updates(params, updates)
    yield float(method.deploy(state, params)["backbone"][0])


def test_ema_averages_from_the_initial_weights():
  steps, decay = 10, 0.7
  *_, got = walk(EMA(of=SGD, decay=decay), steps)
  rate = Schedule(steps, warmup=0)(RATE)
  weights = np.cumsum([float(rate(t)) for t in range(steps)])
  shares = (1 - decay) * decay ** np.arange(steps - 1, -1, -1)
  assert got == pytest.approx(float(shares @ weights), rel=1e-3)


def test_swa_averages_the_last_part_at_a_constant_rate():
  *_, got = walk(SWA(of=SGD, start=0.5), 10)
  assert got == pytest.approx(RATE * np.mean([6, 7, 8, 9, 10]), rel=1e-3)
  *_, got = walk(SWA(of=SGD, start=0.2, every=4), 10)
  assert got == pytest.approx(RATE * np.mean([3, 7]), rel=1e-3)
  with pytest.raises(ValueError, match=r"start must be in \[0, 1\), got 1"):
    SWA(start=1.0)


def test_swad_snapshots_are_means_of_segments():
  method = SWAD(of=SGD, evaluations=5)
  assert method.snapshots(11) == (2, 4, 6, 8, 10)
  got = list(walk(method, 10))
  for end in method.snapshots(10):
    assert got[end - 1] == pytest.approx(RATE * (end - 0.5), rel=1e-3)


class Validator:
  """Scripted losses and accuracies, by the value of the weights."""

  def __init__(self, values):
    self.values = values

  def loss(self, params):
    return self.values[float(params["w"])]

  accuracy = loss


def run_of(values):
  snapshots = tuple(
    Snapshot(10 * (i + 1), {"w": jnp.array(value)})
    for i, value in enumerate(values)
  )
  return Run({"w": jnp.array(0.0)}, snapshots[-1].params, snapshots)


def test_swad_averages_the_window_that_the_losses_choose():
  losses = {1.0: 3.0, 2.0: 1.0, 4.0: 1.1, 6.0: 1.2, 7.0: 9.0, 8.0: 9.0}
  method = SWAD(tolerance=1)
  combined = method.combine([run_of(losses)], Validator(losses))
  (params,) = combined.weights
  assert float(params["w"]) == pytest.approx((2 + 4 + 6) / 3)
  assert combined.notes == {"first_segment_ends": 20, "ends": 40}


def test_dropout_keeps_its_expectation():
  # Ones in, so the mean over n = 64,000 draws is 1 up to √(p/(1−p)/n) = 0.012.
  ones = types.SimpleNamespace(features=lambda images: jnp.ones((1000, 64)))
  got = np.asarray(Dropped(ones, 0.9, KEY).features(None))
  assert set(np.unique(got.round(4))) == {0.0, 10.0}
  assert np.mean(got) == pytest.approx(1.0, abs=5 * 0.012)
  rows = np.asarray(got > 0)
  assert len(np.unique(rows, axis=0)) > 990  # a mask for each image


def test_dropout_is_in_the_loss_alone():
  model = probe.fit_head(tiny.classifier(), tiny.source())
  split = tiny.split(per_class=2)
  batch = {"image": split.images, "label": split.labels}
  plain = SGD.loss(model, batch, KEY)
  dropped = [
    float(VeryLargeDropout(of=SGD).loss(model, batch, jax.random.key(i)))
    for i in range(2)
  ]
  assert len({*dropped, float(plain)}) == 3
  none = VeryLargeDropout(of=SGD, rate=0.0)
  assert float(none.loss(model, batch, KEY)) == pytest.approx(float(plain))
  assert none.export(model) is model
  with pytest.raises(ValueError, match=r"rate must be in \[0, 1\), got 1"):
    VeryLargeDropout(rate=1.0)


def test_a_low_rank_layer_is_its_merged_matrix(rng):
  linear = nnx.Linear(5, 3, rngs=nnx.Rngs(0))
  layer = LowRank(linear, 2, 6.0, KEY)
  x = jnp.asarray(rng.standard_normal((4, 5)), jnp.float32)
  np.testing.assert_array_equal(layer(x), linear(x))  # B = 0
  layer.outer = nnx.Param(jnp.asarray(rng.standard_normal((2, 3)), jnp.float32))
  inner, outer = np.asarray(layer.inner[...]), np.asarray(layer.outer[...])
  assert np.abs(inner).max() <= 5**-0.5
  merged = layer.merged()
  expected = np.asarray(linear.kernel[...]) + 3.0 * inner @ outer  # α/r = 3
  np.testing.assert_allclose(merged.kernel[...], expected, rtol=1e-5)
  np.testing.assert_allclose(layer(x), merged(x), rtol=1e-5, atol=1e-6)
  assert not np.array_equal(linear.kernel[...], merged.kernel[...])


def train(method, model, source, steps=3):
  dataset = batches(source.train, batch_size=8, seed=0)
  prepared = method.prepare(model, source, KEY)
  fitted = loop.fit(
    method,
    prepared,
    lambda start: stream(dataset, start, steps),
    steps=steps,
    schedule=Schedule(steps, warmup=0),
    key=KEY,
  )
  return prepared, fitted


def test_lora_trains_factors_and_head_and_exports_a_plain_model():
  source = tiny.source()
  model = Classifier.with_zero_head(tiny.vit(), width=16, classes=3)
  _, fitted = train(LoRA(rank=2, learning_rate=0.1), model, source)
  assert not any(
    isinstance(layer, LowRank) for _, layer in nnx.iter_modules(model)
  )
  # q, k, v, o: 16x16; fc1, fc2: 16x24. Of rank 2, beside a head of 16x3 + 3.
  factors = 2 * (4 * (16 + 16) + 2 * (16 + 24))
  assert fitted.stats.trained_parameters == factors + 51
  assert nnx.split(fitted.model)[0] == nnx.split(model)[0]
  before, after = loop.weights_of(model), loop.weights_of(fitted.model)
  differing = {
    jax.tree_util.keystr(path, simple=True, separator="/")
    for (path, a), b in zip(
      jax.tree_util.tree_leaves_with_path(before),
      jax.tree.leaves(after),
      strict=True,
    )
    if not np.array_equal(a, b)
  }
  layers = [f"attention/{name}" for name in ("query", "key", "value", "out")]
  assert differing == {"head/kernel", "head/bias"} | {
    f"backbone/blocks/0/{layer}/kernel"
    for layer in [*layers, "mlp/fc1", "mlp/fc2"]
  }
  difference = (
    after["backbone"]["blocks"][0]["mlp"]["fc1"]["kernel"]
    - before["backbone"]["blocks"][0]["mlp"]["fc1"]["kernel"]
  )
  assert np.linalg.matrix_rank(difference, tol=1e-5) <= 2
  with pytest.raises(ValueError, match="rank must be at least 1, got 0"):
    LoRA(rank=0)


def test_flyps_loss_is_a_symmetric_cross_entropy_in_numpy(rng):
  images, texts = rng.standard_normal((2, 5, 7))
  logits = np.exp(1.3) * images @ texts.T
  total = 0.0
  for i in range(5):
    total -= np.log(np.exp(logits[i, i]) / np.exp(logits[i]).sum())
    total -= np.log(np.exp(logits[i, i]) / np.exp(logits[:, i]).sum())
  got = contrastive_loss(*map(jnp.asarray, (images, texts, 1.3)))
  assert float(got) == pytest.approx(total / 10, rel=1e-5)


def test_siglips_loss_is_a_sigmoid_of_every_pair():
  """Against the sum by hand, in float64."""
  rng = np.random.default_rng(0)
  images, texts = rng.normal(size=(2, 3, 4))
  images /= np.linalg.norm(images, axis=-1, keepdims=True)
  expected = 0.0
  for i in range(3):
    for j in range(3):
      logit = np.exp(1.3) * images[i] @ texts[j] - 2.5
      share = 1 / (1 + np.exp(-logit))
      expected -= np.log(share if i == j else 1 - share)
  got = sigmoid_loss(*map(jnp.asarray, (images, texts, 1.3, -2.5)))
  np.testing.assert_allclose(got, expected / 3, rtol=1e-5)


@EXHAUSTIVE
def test_flyp_trains_a_siglip_with_its_own_loss(tmp_path):
  config = clip.CLIPConfig(
    vision=clip.VisionConfig(
      image_size=16, patch_size=8, pre_norm=False, patch_bias=True,
      class_token=False, pool="attention", width=8, depth=1, heads=2,
      mlp_width=16,
    ),
    text=clip.TextConfig(
      vocab_size=10, context_length=4, causal=False, pool="last",
      projection_bias=True, width=8, depth=1, heads=2, mlp_width=16,
    ),
    projection_dim=8,
    vision_projection=False,
    logit_bias_init=-2.0,
  )  # fmt: skip
  siglip = tiny.filled(lambda: clip.CLIP(config, rngs=nnx.Rngs(0)))
  siglip.logit_bias[...] = jnp.float32(-2.0)
  ids = np.arange(12).reshape(3, 1, 4) % 10
  model = Classifier(
    ClipImageEncoder(siglip), jnp.zeros((8, 3)), prompts=Prompts(siglip, ids)
  )
  source = tiny.source()
  method = FLYP(learning_rate=1e-2)
  _, fitted = train(method, model, source)
  tuned = fitted.model.prompts.model
  assert float(tuned.logit_bias[...]) != -2.0
  batch = {"image": source.train.images[:3], "label": source.train.labels[:3]}

  @nnx.jit
  def of(model, batch):
    loss = method.loss(model, batch, KEY)
    features = model.features(batch["image"])
    return loss, features, model.embed(batch["label"], KEY)

  loss, *embedded = of(method.prepare(model, source, KEY), batch)
  expected = sigmoid_loss(*embedded, siglip.logit_scale[...], -2.0)
  np.testing.assert_allclose(loss, expected, rtol=1e-6)


@pytest.fixture(scope="module")
def worded():
  return tiny.words()


def test_flyp_trains_both_towers_and_makes_the_head_anew(worded, tmp_path):
  source = tiny.source()
  method = FLYP(learning_rate=0.01)
  prepared, fitted = train(method, worded, source, steps=2)
  # Untrained, the head is the zero-shot one.
  np.testing.assert_allclose(
    method.export(prepared).head.kernel[...],
    worded.head.kernel[...],
    rtol=1e-5,
    atol=1e-6,
  )
  before, after = loop.weights_of(worded), loop.weights_of(fitted.model)
  assert jax.tree.structure(before) == jax.tree.structure(after)
  moved = jax.tree.map(lambda a, b: not np.array_equal(a, b), before, after)
  assert moved["head"]["kernel"]
  assert moved["backbone"]["projection"]["kernel"]
  assert not moved["head"]["bias"]
  size = sum(leaf.size for leaf in jax.tree.leaves(loop.weights_of(prepared)))
  # Both towers; of the embeddings only the rows of words that occur.
  assert fitted.stats.trained_parameters > 0.5 * size
  # What is saved makes the deployed head: its text tower is the tuned one.
  export.to_hugging_face(fitted.model, tmp_path)
  saved = clip.from_pretrained(tmp_path)
  tokens = worded.prompts.token_ids.reshape(6, -1)
  encode = nnx.jit(lambda model, ids: model.encode_text(ids))
  embeddings = encode(saved, tokens).reshape(3, 2, -1)
  kernel = normalize(embeddings.mean(axis=1)).T * jnp.exp(
    saved.logit_scale[...]
  )
  np.testing.assert_allclose(
    kernel, fitted.model.head.kernel[...], rtol=1e-4, atol=1e-5
  )
  # The CLIP that training started from is as it was.
  assert not np.array_equal(
    saved.text_projection.kernel[...],
    worded.prompts.model.text_projection.kernel[...],
  )


def test_flyp_needs_a_text_tower():
  with pytest.raises(ValueError, match=r"must come from a CLIP .* Mlp without"):
    FLYP().prepare(tiny.classifier(), tiny.source(), KEY)


def test_flyp_draws_every_template(worded):
  method = FLYP()
  towers = method.prepare(worded, tiny.source(), KEY)
  labels = jnp.zeros(64, jnp.int32)
  embed = nnx.jit(lambda towers: towers.embed(labels, KEY))
  embedded = np.asarray(embed(towers)).round(5)
  assert len(np.unique(embedded, axis=0)) == 2
  np.testing.assert_allclose(np.linalg.norm(embedded, axis=1), 1, atol=1e-4)
