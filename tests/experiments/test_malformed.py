"""Files that are not what they should be: a typed error that names them."""

import json
import pathlib
import tempfile

import numpy as np
import pytest
import safetensors.numpy
from flax import nnx
from hypothesis import given, settings
from hypothesis import strategies as st

from experiments.reporting import records
from gmixout_jax import checkpoint, clip
from tests.experiments import tiny

few = settings(max_examples=60, deadline=None, derandomize=True)

json_values = st.recursive(
  st.none() | st.booleans() | st.floats() | st.text() | st.integers(),
  lambda values: (
    st.lists(values, max_size=3)
    | st.dictionaries(
      st.sampled_from(["vision_config", "text_config", "config", "manifest"])
      | st.text(max_size=4),
      values,
      max_size=3,
    )
  ),
  max_leaves=6,
)

# What breaks parsers that recurse or convert, by a name short enough to print.
EXTREMES = {
  "deep list": b"[" * 100_000,
  "deep object": b'{"a": ' * 50_000,
  "long number": b"1" * 5000,
  "not UTF-8": b"\xff\xfe",
  "deep list in an object": b'{"weight_map": ' + b"[" * 100_000,
  "shards of numbers": b'{"weight_map": {"a": 1}}',
  "shards of lists": b'{"weight_map": {"a": ["b"]}}',
  "towers of lists": b'{"vision_config": [], "text_config": [1]}',
  "words for numbers": b'{"vision_config": {"hidden_size": "wide"}}',
  "no width": b'{"vision_config": {"hidden_size": 0}}',
  "infinite width": b'{"vision_config": {"hidden_size": 1e999}}',
}

# Bytes, JSON of some kind, or one of the above by name.
contents = st.one_of(
  st.binary(max_size=200),
  json_values.map(lambda value: json.dumps(value).encode()),
  st.sampled_from(sorted(EXTREMES)),
)


@st.composite
def damaged(draw, whole: bytes):
  """A valid file with a stretch of it replaced, cut out or added to."""
  start = draw(st.integers(0, len(whole)))
  # Mostly in the header, which is what parsers look at.
  if draw(st.booleans()):
    start = min(start, draw(st.integers(0, 200)))
  stop = draw(st.integers(start, min(len(whole), start + 300)))
  return whole[:start] + draw(st.binary(max_size=20)) + whole[stop:]


def vit_bytes():
  with tempfile.TemporaryDirectory() as folder:
    path = pathlib.Path(folder) / "vit.safetensors"
    tiny.save_vit(path)
    return path.read_bytes()


VIT = vit_bytes()


def read(load, content, name):
  """What is loaded, and the message if it was refused.

  Any error but a ValueError or a FileNotFoundError is a failure.
  """
  content = EXTREMES[content] if isinstance(content, str) else content
  with tempfile.TemporaryDirectory() as folder:
    path = pathlib.Path(folder) / name
    path.write_bytes(content)
    try:
      return load(path), None
    except (FileNotFoundError, ValueError) as error:
      return None, str(error)


@few
@given(content=st.one_of(contents, damaged(VIT)))
def test_safetensors(content):
  model, message = read(clip.vit_from_safetensors, content, "vit.safetensors")
  if message is None:  # the damage was to values, or there was none
    assert isinstance(model, clip.ViT)
  else:
    assert "vit.safetensors" in message


@few
@given(content=contents)
def test_configs_of_clip(content):
  """A config may be good by chance; then the weights are missing."""
  load = lambda path: clip.from_pretrained(path.parent)
  model, message = read(load, content, "config.json")
  assert model is None
  assert "config.json" in message or "no model.safetensors" in message


@few
@given(content=contents)
def test_indices_of_shards(content):
  def load(path):
    (path.parent / "config.json").write_text('{"model_type": "clip"}')
    return clip.from_pretrained(path.parent)

  model, message = read(load, content, "model.safetensors.index.json")
  assert model is None
  assert "index.json" in message or "There is no file" in message


@few
@given(content=contents)
def test_results(content):
  results, message = read(records.read, content, "results.jsonl")
  if message is None:
    assert all(isinstance(record, dict) for record in results)
  else:
    assert "results.jsonl" in message


@few
@given(content=contents)
def test_manifests_of_checkpoints(content):
  with tempfile.TemporaryDirectory() as name:
    folder = pathlib.Path(name)
    (folder / "00000003").mkdir()
    content = EXTREMES[content] if isinstance(content, str) else content
    (folder / "00000003/manifest.json").write_bytes(content)
    with (
      checkpoint.Checkpoints(folder) as checkpoints,
      pytest.warns(UserWarning, match=r"manifest.json .*step 3 is set aside"),
    ):
      assert checkpoints.restore({"x": np.zeros(1)}) is None


def test_the_file_that_is_damaged_here_is_good():
  model, _ = read(clip.vit_from_safetensors, VIT, "vit.safetensors")
  assert nnx.state(model, nnx.Param)
  assert len(safetensors.numpy.load(VIT)) > 10
