"""A user's project, which pyright checks against the library's types.

It uses every public name, as `test_public.py` makes sure, the way a user would.
It is checked and never run: what the names do is tested elsewhere. Errors that
are expected are marked, and pyright reports a mark without its error.
"""

# pyright: reportUnnecessaryTypeIgnoreComment=true

import pathlib
from typing import Any, assert_type

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import linen as nn
from flax import nnx

import gmixout_jax as gx
from gmixout_jax import averaging, checkpoint, clip, linen, parallel
from gmixout_jax import nnx as mixed_nnx

Params = dict[str, jax.Array]
PARAMS: Params = {"kernel": jnp.ones((8, 40)), "bias": jnp.zeros(40)}


def loss(params: Params) -> jax.Array:
  return jnp.mean(params["kernel"] ** 2)


def transformations(key: jax.Array) -> None:
  gx.register_held_weights(optax.EmaState, weights=("ema",), kept=("count",))
  for tx in (
    gx.gmixout(optax.adamw(1e-3), key=key, resample_every=lambda episode: 5),
    gx.mixout(optax.sgd(0.1), sparsity=0.5, key=0, sampler="bernoulli"),
    gx.random_mask(optax.sgd(0.1), key=0, target=lambda path, leaf: True),
  ):
    assert_type(tx, optax.GradientTransformationExtraArgs)
    state = tx.init(PARAMS)
    grads = jax.grad(loss)(PARAMS)
    updates, state = tx.update(grads, state, PARAMS)
    if isinstance(state, gx.GMixoutState):
      assert_type(state.count, jax.Array)
    evaluated: Params = gx.gmixout_eval_params(state, PARAMS)
    masks: Params = gx.gmixout_masks(state, evaluated)
    print(jax.tree.map(jnp.sum, masks), updates)
  optax.partition(
    {
      "mixed": gx.gmixout(optax.adamw(1e-3), key=0),
      "dense": optax.adamw(1e-3),
      "frozen": optax.set_to_zero(),
    },
    lambda params: gx.gmixout_labels(params, gx.VIT_RULES),
  )


def packed() -> gx.MixedParams:
  mixed = gx.MixedParams.create(PARAMS, key=0, target=gx.VIT_RULES)
  adamw = gx.FusedAdamW(learning_rate=optax.constant_schedule(1e-3))
  opt_state = adamw.init(mixed.trainable())
  print(gx.gmixout_summary(PARAMS, target=gx.VIT_RULES).state_bytes)
  value, grads = mixed.value_and_grad(loss)()
  mixed, opt_state = mixed.apply_gradients(adamw, grads, opt_state)
  mixed, opt_state = mixed.apply_gradients(optax.sgd(0.1), grads, opt_state)
  assert_type(mixed, gx.MixedParams)
  print(value, jax.grad(lambda t: loss(mixed.inject(t)))(mixed.trainable()))
  return mixed.apply_updates(mixed.trainable(), stepped=True)


def in_nnx(model: nnx.Linear, x: jax.Array) -> nnx.Linear:
  graphdef, mixed, rest = gx.nnx.split(model, wrt=nnx.Param, key=0)
  merged: nnx.Linear = gx.nnx.merge(graphdef, mixed, mixed.trainable(), rest)
  print(nnx.state(merged, nnx.BatchStat), mixed_nnx.axes(model))
  optimizer = mixed_nnx.MixedOptimizer(model, optax.adamw(1e-3), key=0)
  gx.nnx.split(model, key=0, sparseness=0.9)  # pyright: ignore[reportCallIssue]
  value, grads = optimizer.value_and_grad(lambda model: model(x).sum())(model)
  optimizer.update(model, grads)
  print(value)
  return optimizer.eval_model(model)


def in_linen(mixed: gx.MixedParams) -> dict[str, Any]:
  print(gx.linen.TappedDot, gx.linen.axes(nn.Dense(3), jnp.ones((2, 4))))
  return linen.variables(mixed, mixed.trainable())


def on_many_devices(style: parallel.Style) -> None:
  def step(w: jax.Array, batch: jax.Array) -> tuple[jax.Array, jax.Array]:
    whole = parallel.gathered(w) * parallel.index()
    return w, parallel.mean(jnp.mean(whole * batch))

  assert style in parallel.STYLES
  mesh = gx.parallel.data_mesh(jax.devices())
  assert mesh.axis_names == (parallel.AXIS,)
  state = parallel.replicate(jnp.ones([]), mesh, style=style)
  sharding = parallel.row_shardings(state, mesh) if style == "jit" else None
  if sharding is not None:
    state = parallel.place(state, sharding)
  run = parallel.data_parallel(step, mesh, style=style, state_sharding=sharding)
  batch = np.ones(16)[parallel.local_slice(16)]
  state, _ = run(state, parallel.global_batch(batch, mesh))
  print(parallel.unreplicate(state), parallel.on_one_device(state))
  scores = jax.jit(parallel.over_examples(lambda w, images: w * images, mesh))
  print(scores(state, batch))


def saved(folder: pathlib.Path) -> int:
  try:
    with checkpoint.Checkpoints(folder, config={"seed": 0}, keep=3) as runs:
      runs.save(1, PARAMS, score=0.5)
      found = runs.restore(PARAMS)
  except checkpoint.CheckpointError as error:
    raise SystemExit(str(error)) from error
  if found is None:
    return 0
  assert_type(found, checkpoint.Saved)
  return found.step


def averages(runs: list[Params]) -> list[Params]:
  validate = lambda params: float(loss(params))
  line = averaging.interpolate(runs[0], runs[1], 0.5)
  groups = averaging.components(runs, depth=1)
  soup: averaging.Soup = averaging.greedy_soup(runs, validate, ties=False)
  learned: averaging.LearnedSoup = averaging.learned_soup(
    runs,
    lambda params, scale, batch: scale * loss(params),
    [0, 1],
    learning_rate=0.1,
  )
  manifold: averaging.ManifoldSoup = averaging.manifold_soup(
    runs, validate, lambda of, start, low, high, budget: start, budget=3
  )
  stock: averaging.Stock = averaging.model_stock(runs[0], runs[1:])
  window: averaging.Window = averaging.swad_window([3.0, 2.0], converge=1)
  print(window.start, window.end, soup.ingredients, learned.losses)
  return [
    line,
    averaging.mean(runs, weights=[1.0] * len(runs)),
    averaging.mix_leaves(runs, jnp.ones(len(runs))),
    averaging.mix_components(runs[0], runs[1], groups, {"kernel": 0.5}),
    soup.params,
    learned.params,
    manifold.params,
    stock.params,
  ]


def trajectories() -> None:
  for rate in (
    averaging.exponential(0.9),
    averaging.uniform(start=3, every=2),
    averaging.segments(every=5),
  ):
    tx = averaging.average(optax.sgd(0.1), rate)
    state = tx.init(PARAMS)
    if isinstance(state, averaging.AverageState):
      print(state.step)
    print(averaging.average_params(state, PARAMS))


def rate(full: float) -> float:
  found = gx.gmixout_learning_rate(full, resample_every=20)
  progress: float = gx.gmixout_progress(100, resample_every=20)
  return found * progress


def schedule(full: optax.Schedule) -> optax.Schedule:
  return gx.gmixout_learning_rate(full_finetuning_lr=full)


def pretrained(folder: pathlib.Path, images: np.ndarray) -> jax.Array:
  model = clip.from_pretrained(folder, dtype=jnp.bfloat16)
  assert_type(model, clip.CLIP)
  tokenizer: clip.Tokenizer = clip.load_tokenizer(folder, context_length=77)
  templates = (*clip.PHOTO_TEMPLATES, *clip.STYLE_TEMPLATES)
  head = clip.zero_shot_head(model, tokenizer, ["cat", "dog"], templates)
  clip.save_pretrained(model, folder / "again", dtype="float16")
  pixels = clip.preprocess(images, mean=clip.CLIP_MEAN, std=clip.CLIP_STD)
  return model.encode_image(pixels) @ head


def towers(path: pathlib.Path, images: np.ndarray) -> jax.Array:
  try:
    vit = clip.vit_from_safetensors(path, image_size=224)
  except clip.CheckpointError:
    config = clip.VisionConfig.vit(image_size=224, num_classes=10)
    vit = clip.ViT(config, rngs=nnx.Rngs(0))
  clip.vit_to_safetensors(vit, path)
  prepared = clip.Preprocessing(clip.HALF, clip.HALF, 224)
  clip.save(vit, path.parent / "vit", preprocessing=prepared)
  print(clip.load_class_names(path.parent / "vit"))
  whole = clip.load(path.parent / "vit", image_size=112)
  if isinstance(whole, clip.ViT):
    print(whole.features(images))
  text = clip.TextTransformer(clip.TextConfig(width=64), rngs=nnx.Rngs(0))
  fresh = clip.CLIP(clip.CLIPConfig(projection_dim=64), rngs=nnx.Rngs(0))
  print(text.features(np.ones((1, 7), np.int32)), fresh.logit_scale)
  for mean, std in (
    (clip.HALF, clip.HALF),
    (clip.IMAGENET_MEAN, clip.IMAGENET_STD),
  ):
    images = np.asarray(clip.preprocess(images, mean=mean, std=std))
  clip.save_normalization(path.parent, clip.HALF, clip.HALF)
  clip.save_preprocessing(path.parent, prepared)
  print(clip.load_normalization(path.parent))
  found = clip.load_preprocessing(path.parent)
  print(found == clip.Preprocessing(clip.HALF, clip.HALF))
  print(clip.resize_positions(np.zeros((17, 64), np.float32), 7))
  return vit.features(images)
