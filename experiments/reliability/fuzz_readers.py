"""What `fuzz` damages, how it is read, and what may come of that.

A kind writes small files that are good, and reads them. What is read of damaged
ones is an error that names the input, or a value that passes `right`.
"""

import csv
import json
import pathlib
from collections.abc import Callable
from random import Random
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import tokenizers
from flax import nnx
from PIL import Image

from experiments.data import (
  captions,
  cifar_c,
  imagenet,
  iwildcam,
  listing,
  long_tail,
  objectnet,
)
from experiments.data.augmentation import POLICIES
from experiments.data.decode import View, decode
from experiments.models import deployed, own_head
from experiments.reliability import mutations
from experiments.reporting import kinds, records
from gmixout_jax import clip
from gmixout_jax.checkpoint import Checkpoints

Path = pathlib.Path


class Reader(NamedTuple):
  """A kind of input.

  Attributes:
    name: Of it.
    make: Writes good files into a folder.
    damaged: The names of those that are damaged, as patterns.
    damage: From their bytes to others.
    read: Reads the folder.
    right: Whether what was read may be right.
    names_input: Whether an error must name the file, or the folder.
  """

  name: str
  make: Callable[[Path], None]
  damaged: str
  damage: Callable[[bytes, Random], bytes]
  read: Callable[[Path], Any]
  right: Callable[[Any], bool]
  names_input: bool = True


_TOWER: dict[str, Any] = dict(width=64, depth=1, heads=1, mlp_width=8)
_VIT = clip.VisionConfig.vit(
  image_size=16, patch_size=8, eps=1e-12, num_classes=2, **_TOWER
)
_CLIP = clip.CLIPConfig(
  vision=clip.VisionConfig(image_size=16, patch_size=8, **_TOWER),
  text=clip.TextConfig(
    vocab_size=8, context_length=6, bos_token_id=0, eos_token_id=7, **_TOWER
  ),
  projection_dim=4,
)
_SAID = clip.Preprocessing(clip.HALF, clip.HALF, 16, "crop", 1.25, "bicubic")
_VIEW = View(8, "crop")


def _filled[M: nnx.Module](make: Callable[[], M]) -> M:
  rng = np.random.default_rng(0)
  graphdef, state = nnx.split(nnx.eval_shape(make))
  draw = lambda leaf: jnp.asarray(
    rng.standard_normal(leaf.shape).astype(np.float32)
  )
  return nnx.merge(graphdef, jax.tree.map(draw, state))


def _vit(form: Any, name: str = ".") -> Callable[[Path], None]:
  def make(folder: Path) -> None:
    clip.save(
      _filled(lambda: clip.ViT(_VIT, rngs=nnx.Rngs(0))),
      folder / name,
      form=form,
      preprocessing=_SAID,
      class_names=["a", "b"],
    )

  return make


def make_clip(folder: Path) -> None:
  """A CLIP with its tokenizer, a head and all it says."""
  model = _filled(lambda: clip.CLIP(_CLIP, rngs=nnx.Rngs(0)))
  clip.save(model, folder, preprocessing=_SAID)
  words = {"<s>": 0, "a": 1, "photo": 2, "of": 3, "cat": 4, "dog": 5, "x": 6}
  made = tokenizers.Tokenizer(
    tokenizers.models.WordLevel(words | {"</s>": 7}, "x")
  )
  made.pre_tokenizer = tokenizers.pre_tokenizers.Whitespace()
  made.post_processor = tokenizers.processors.TemplateProcessing(
    single="<s> $A </s>", special_tokens=[("<s>", 0), ("</s>", 7)]
  )
  made.save(str(folder / "tokenizer.json"))
  (folder / "tokenizer_config.json").write_text('{"pad_token": "x"}')
  head = own_head.Head(jnp.ones((4, 2)), jnp.zeros(2))
  own_head.save(folder, head, ["cat", "dog"])


def _shards(folder: Path) -> None:
  make_clip(folder)
  whole = folder / "model.safetensors"
  from safetensors.numpy import load_file

  names = sorted(load_file(whole))
  whole.rename(folder / "model-1.safetensors")
  index = {"weight_map": dict.fromkeys(names, "model-1.safetensors")}
  (folder / "model.safetensors.index.json").write_text(json.dumps(index))


def _finite(model: nnx.Module) -> bool:
  leaves = jax.tree.leaves(nnx.state(model, nnx.Param))
  return all(bool(np.isfinite(np.asarray(leaf)).all()) for leaf in leaves)


def _is_prepared(found: clip.Preprocessing | None) -> bool:
  if found is None:
    return True
  numbers = np.array([*found.mean, *found.std])
  return bool(np.isfinite(numbers).all()) and min(found.std) > 0


def _deployed(folder: Path) -> deployed.Deployed:
  return deployed.load(folder, classes=None, mean=clip.HALF, std=clip.HALF)


def _is_deployed(found: deployed.Deployed) -> bool:
  outputs = found.model.head.out_features
  named = found.class_names is None or len(found.class_names) == outputs
  return named and _finite(found.model) and found.view.size <= 2**14


def _tokens(folder: Path) -> Any:
  return clip.load_tokenizer(folder)(["a photo of a cat", ""])


def _is_tokens(ids: Any) -> bool:
  return ids.dtype == np.int32 and ids.shape[0] == 2 and ids.min() >= 0


_STATE = {"w": np.arange(12.0).reshape(3, 4), "n": np.int32(3)}


def _checkpoint(folder: Path) -> None:
  with Checkpoints(folder / "run", config={"a": 1}) as saved:
    saved.save(3, _STATE, iterator={"next": 3}, score=0.5)


def _restored(folder: Path) -> Any:
  import warnings

  with (
    warnings.catch_warnings(),
    Checkpoints(folder / "run", config={"a": 1}) as saved,
  ):
    warnings.simplefilter("ignore")  # which says what was set aside
    return saved.restore(_STATE)


def _is_state(found: Any) -> bool:
  return found is None or bool(
    found.step == 3
    and np.array_equal(found.state["w"], _STATE["w"])
    and int(found.state["n"]) == 3
  )


_LINE = {
  "config": {"method": {"name": "gmixout", "learning_rate": 0.1}, "data": "x"},
  "seed": 0,
  "metrics": {
    "id": 0.5, "ood": {"night": 0.25}, "mean_ood": 0.25, "worst_ood": 0.25,
    "details": {"id": {"top1": 0.5, "ece": 0.1}},
  },
}  # fmt: skip


def make_results(folder: Path) -> None:
  """Three lines."""
  for seed in range(3):
    records.append(folder / "results.jsonl", _LINE | {"seed": seed})


def _are_lines(lines: kinds.Lines) -> bool:
  return all(
    0 <= value <= 1
    for line in lines.runs
    for value in (line["metrics"]["id"], *line["metrics"]["ood"].values())
  )


def _image(suffix: str, mode: str = "RGB") -> Callable[[Path], None]:
  def make(folder: Path) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (24, 30, 3))
    image = Image.fromarray(pixels.astype(np.uint8)).convert(mode)
    image.save(folder / f"image.{suffix}")

  return make


def _seen(folder: Path) -> Any:
  (path,) = folder.iterdir()
  drawn = POLICIES["inception"].drawn(
    str(path), (8, 8), np.random.default_rng(0), border=0, name=str(path)
  )
  return decode(path, _VIEW), drawn


def _is_seen(found: Any) -> bool:
  return all(p.dtype == np.uint8 and p.shape == (8, 8, 3) for p in found)


def _photos(folder: Path, names: tuple[str, ...] = ("0.png", "1.png")) -> None:
  for name in names:
    (folder / name).parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", (9, 9)).save(folder / name)


def _table(name: str, *rows: tuple[Any, ...]) -> Callable[[Path], None]:
  def make(folder: Path) -> None:
    _photos(folder)
    _photos(folder / "images")
    _photos(folder / "train")
    with open(folder / name, "w", newline="", encoding="utf-8") as file:
      csv.writer(file).writerows(rows)

  return make


def _is_listed(found: listing.Listing) -> bool:
  named = len(found.files) == len(found.labels) > 0 and all(found.labels)
  return named and all(file.is_file() for file in found.files)


def _below(folder: Path, found: Any) -> bool:
  return all(
    folder.resolve() in pathlib.Path(path).resolve().parents
    for path in found.loader.paths
  )


def _arrays(folder: Path) -> None:
  np.save(folder / "fog.npy", np.zeros((10, 4, 4, 3), np.uint8))
  np.save(folder / "labels.npy", np.tile([0, 1], 5))


def _corrupted(folder: Path) -> Any:
  return cifar_c.open_images(folder, corruptions=["fog"])


def _is_labelled(found: Any) -> bool:
  count = len(found.class_names)
  return (
    len(found) > 0 and 0 <= found.labels.min() <= found.labels.max() < count
  )


def _mappings(folder: Path) -> None:
  for name, value in (
    ("folder_to_objectnet_label.json", {"cup": "Cup", "dog": "Dog"}),
    ("objectnet_to_imagenet_1k.json", {"Cup": "cup; mug", "Dog": "dog"}),
    ("pytorch_to_imagenet_2012_id.json", {"0": 0, "1": 1, "2": 2}),
  ):
    (folder / name).write_text(json.dumps(value))
  (folder / "imagenet_to_label_2012_v2").write_text("cup\nmug\ndog\n")


def _words(folder: Path) -> None:
  (folder / "words.txt").write_text("n00000001 cat, puss\nn00000002 dog\n")


def _read_words(folder: Path) -> Any:
  return imagenet.words(
    folder / "words.txt", imagenet.head_classes(folder / "words.txt")
  )


def _long_tail(folder: Path) -> None:
  _photos(folder)
  (folder / "list.txt").write_text("0.png 0\n1.png 1\n")


_BYTES, _JSON, _LINES = (
  mutations.of_bytes,
  mutations.of_json,
  mutations.of_lines,
)

READERS: tuple[Reader, ...] = (
  Reader(
    "ViT in a file", _vit(None, "x.safetensors"), "x.safetensors", _BYTES,
    lambda folder: clip.load(folder / "x.safetensors"), _finite,
  ),
  Reader("timm, config.json", _vit("timm"), "config.json", _JSON, clip.load,
         _finite),
  Reader("Hugging Face ViT, config.json", _vit("huggingface"), "config.json",
         _JSON, clip.load, _finite),
  Reader("CLIP, config.json", make_clip, "config.json", _JSON, clip.load,
         _finite),
  Reader("CLIP, weights", make_clip, "model.safetensors", _BYTES, clip.load,
         _finite),
  Reader("CLIP, index of shards", _shards, "*.index.json", _JSON, clip.load,
         _finite),
  Reader("preprocessor_config.json", make_clip, "preprocessor_config.json",
         _JSON, clip.load_preprocessing, _is_prepared),
  Reader("exported head", make_clip, "head.safetensors", _BYTES, _deployed,
         _is_deployed),
  Reader("tokenizer.json", make_clip, "tokenizer.json", _JSON, _tokens,
         _is_tokens),
  Reader("tokenizer_config.json", make_clip, "tokenizer_config.json", _JSON,
         _tokens, _is_tokens),
  Reader("checkpoint", _checkpoint, "run/**/*", _BYTES, _restored, _is_state),
  Reader("result lines", make_results, "results.jsonl", _LINES,
         lambda folder: kinds.read([folder / "results.jsonl"]), _are_lines),
  *(
    Reader(f"image, {suffix}, {mode}", _image(suffix, mode), "image.*",
           _BYTES, _seen, _is_seen)
    for suffix, mode in (
      ("png", "RGB"), ("jpg", "RGB"), ("webp", "RGB"), ("tif", "RGB"),
      ("bmp", "RGB"), ("png", "LA"), ("jpg", "CMYK"),
    )
  ),
  Reader(
    "labels in a CSV",
    _table("labels.csv", ("file", "label"), ("0.png", "a"), ("1.png", "b")),
    "labels.csv", _LINES,
    lambda folder: listing.read(folder / "labels.csv"), _is_listed,
  ),
  Reader(
    "captions",
    _table("captions.csv", ("image", "caption"), ("0.png", "a"),
           ("1.png", "b")),
    "captions.csv", _LINES,
    lambda folder: (folder, captions.open_csv(
      folder / "captions.csv", view=_VIEW).images),
    lambda found: _below(*found),
  ),
  Reader(
    "iWildCam, metadata.csv",
    _table("metadata.csv", ("split", "filename", "y", "location_remapped"),
           ("train", "0.png", 0, 0), ("test", "1.png", 1, 1)),
    "metadata.csv", _LINES,
    lambda folder: (folder, next(iter(
      iwildcam.open_images(folder, view=_VIEW).values()))),
    lambda found: _below(*found),
  ),
  Reader(
    "ImageNet-LT, list", _long_tail, "list.txt", _LINES,
    lambda folder: (folder, long_tail.open_list(
      folder / "list.txt", root=folder, view=_VIEW)),
    lambda found: _below(*found),
  ),
  Reader("ObjectNet, mappings", _mappings, "*.json", _JSON, objectnet.overlap,
         lambda found: isinstance(found, dict)),
  Reader("ImageNet, words", _words, "words.txt", _LINES, _read_words,
         lambda found: all(isinstance(word, str) for word in found)),
  Reader("CIFAR-C, arrays", _arrays, "*.npy", _BYTES, _corrupted, _is_labelled),
)  # fmt: skip
