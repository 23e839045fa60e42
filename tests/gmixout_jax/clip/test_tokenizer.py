"""Tests `gmixout_jax/clip/tokenizer.py` with a tokenizer trained here."""

import json

import numpy as np
import pytest

from gmixout_jax import clip
from gmixout_jax.clip import huggingface

tokenizers = pytest.importorskip("tokenizers")

WORDS = ["a photo of a cat", "a drawing of a dog", "the dog and the cat"]
END, START, PAD = "<|endoftext|>", "<|startoftext|>", "<pad>"


@pytest.fixture
def folder(tmp_path):
  """A folder like CLIP's: byte-pair tokens, and the specials around a text."""
  made = tokenizers.Tokenizer(tokenizers.models.BPE(unk_token=END))
  made.pre_tokenizer = tokenizers.pre_tokenizers.Whitespace()
  trainer = tokenizers.trainers.BpeTrainer(
    vocab_size=60, special_tokens=[PAD], show_progress=False
  )
  made.train_from_iterator(WORDS, trainer)
  # Like OpenAI's, the end token has the largest id.
  made.add_special_tokens([START, END])
  start, end = made.token_to_id(START), made.token_to_id(END)
  assert end == made.get_vocab_size() - 1
  made.post_processor = tokenizers.processors.TemplateProcessing(
    single=f"{START} $A {END}", special_tokens=[(START, start), (END, end)]
  )
  made.save(str(tmp_path / "tokenizer.json"))
  return tmp_path


def write(folder, name, content):
  (folder / name).write_text(json.dumps(content))


def write_config(folder, **text):
  """A config.json whose end token is the folder's, if nothing else is said."""
  made = tokenizers.Tokenizer.from_file(str(folder / "tokenizer.json"))
  text = {"eos_token_id": made.token_to_id(END)} | text
  write(folder, "config.json", {"text_config": text})


def test_texts_are_padded_and_cut_but_always_end(folder):
  tokenizer = clip.load_tokenizer(folder, context_length=8)
  end = tokenizer.eos_token_id
  ids = tokenizer(["", "a cat", "a photo of a cat and the dog and the cat"])
  assert ids.shape == (3, 8)
  assert ids.dtype == np.int32
  start = ids[0, 0]
  assert ids[0].tolist() == [start] + [end] * 7
  assert ids[1, 0] == start
  assert end in ids[1]
  assert ids[2, -1] == end
  assert end not in ids[2, :-1]
  longer = clip.load_tokenizer(folder, context_length=77)
  whole = longer(["a photo of a cat and the dog and the cat"])[0]
  np.testing.assert_array_equal(ids[2, :-1], whole[:7])
  assert longer.context_length == 77


def test_a_text_that_just_fits_is_not_cut(folder):
  whole = clip.load_tokenizer(folder, context_length=50)(["a dog"])[0]
  length = int(np.argmax(whole == whole[-1])) + 1
  tight = clip.load_tokenizer(folder, context_length=length)(["a dog"])[0]
  np.testing.assert_array_equal(tight, whole[:length])


def test_padding_comes_from_the_files(folder):
  write_config(folder, pad_token_id=7)
  assert clip.load_tokenizer(folder).pad_token_id == 7
  write(folder, "tokenizer_config.json", {"pad_token": {"content": PAD}})
  assert clip.load_tokenizer(folder).pad_token_id == 0
  made = tokenizers.Tokenizer.from_file(str(folder / "tokenizer.json"))
  made.enable_padding(pad_id=5, length=3)
  made.enable_truncation(4)
  made.save(str(folder / "tokenizer.json"))
  tokenizer = clip.load_tokenizer(folder)
  assert tokenizer.pad_token_id == 5
  # The file's own lengths must not leak in.
  assert tokenizer.eos_token_id == made.token_to_id(END)
  assert tokenizer(["a photo of a cat"]).shape == (1, 77)
  assert (tokenizer(["a photo of a cat"])[0] != 5).sum() > 4


def test_context_length_is_the_model_s(folder):
  write_config(folder, max_position_embeddings=9)
  assert clip.load_tokenizer(folder)(["a"]).shape == (1, 9)


def test_config_json_is_read_as_the_model_reads_it(folder):
  """Of the oldest configs the second copy counts, see `test_config`."""
  end = clip.load_tokenizer(folder).eos_token_id
  copy = {"max_position_embeddings": 11, "eos_token_id": end}
  other = {"max_position_embeddings": 9, "eos_token_id": 3}
  raw = {"text_config": other, "text_config_dict": copy}
  write(folder, "config.json", raw)
  assert clip.load_tokenizer(folder).context_length == 11
  assert huggingface.parse_config(raw).text.context_length == 11
  for raw in ({}, {"text_config": {}}, {"text_config": None}):
    write(folder, "config.json", raw)
    expected = huggingface.parse_config(raw).text.eos_token_id
    with pytest.raises(ValueError, match=rf"eos_token_id is {expected}\."):
      clip.load_tokenizer(folder)


@pytest.mark.parametrize(
  ("name", "content", "message"),
  [
    ("config.json", [], r"expected an object, got list \[\]"),
    ("config.json", {"text_config": [1]}, r"text_config must be .* got \[1\]"),
    (
      "config.json",
      {"text_config_dict": 3},
      r"text_config_dict must be an object, got 3",
    ),
    (
      "config.json",
      {"text_config": {"max_position_embeddings": None}},
      r"max_position_embeddings must be an integer of at least 2, got None",
    ),
    (
      "config.json",
      {"text_config": {"pad_token_id": "x"}},
      r"pad_token_id must be an integer of at least 0, got 'x'",
    ),
    (
      "config.json",
      {"text_config": {"eos_token_id": None}},
      r"eos_token_id must be an integer of at least 0, got None",
    ),
    ("tokenizer_config.json", "x", r"expected an object, got str 'x'"),
    ("tokenizer_config.json", {"pad_token": 5}, r"must be a string, got 5"),
  ],
)
def test_files_of_another_form_are_named(folder, name, content, message):
  write(folder, name, content)
  with pytest.raises(ValueError, match=rf"{folder / name}: .*{message}"):
    clip.load_tokenizer(folder)
  (folder / name).write_text("[" * 100_000)
  with pytest.raises(ValueError, match=rf"{folder / name}: expected JSON"):
    clip.load_tokenizer(folder)


def test_ids_do_not_disturb_either_pooling(folder):
  for pad in (END, PAD):
    write(folder, "tokenizer_config.json", {"pad_token": pad})
    ids = clip.load_tokenizer(folder, context_length=20)(["a cat", "the dog"])
    end = clip.load_tokenizer(folder).eos_token_id
    first = (ids == end).argmax(1)
    np.testing.assert_array_equal(first, ids.argmax(1))
    assert (first > 1).all()


def test_a_tokenizer_that_does_not_fit_the_model_is_refused(folder):
  tokenizer = clip.load_tokenizer(folder)
  write(folder, "config.json", {"text_config": {"eos_token_id": 3}})
  with pytest.raises(
    ValueError, match=rf"id {tokenizer.eos_token_id}, but .* is 3"
  ):
    clip.load_tokenizer(folder)
  high = tokenizer.eos_token_id + 1
  content = {"text_config": {"eos_token_id": 2, "pad_token_id": high}}
  write(folder, "config.json", content)
  with pytest.raises(ValueError, match=rf"pad id {high} is above"):
    clip.load_tokenizer(folder)


def test_broken_input_is_named(folder, tmp_path):
  with pytest.raises(ValueError, match=r"list of strings, got 'a cat'"):
    clip.load_tokenizer(folder)("a cat")
  with pytest.raises(ValueError, match=r"at least 2, got 1"):
    clip.load_tokenizer(folder, context_length=1)
  with pytest.raises(FileNotFoundError, match=r"nowhere/tokenizer\.json"):
    clip.load_tokenizer(tmp_path / "nowhere")
  (folder / "tokenizer.json").write_text("{")
  with pytest.raises(ValueError, match=r"tokenizer\.json is not a tokenizer"):
    clip.load_tokenizer(folder)
  bare = tokenizers.Tokenizer(tokenizers.models.WordLevel({"a": 0}))
  bare.save(str(folder / "tokenizer.json"))
  with pytest.raises(ValueError, match=r"no end token"):
    clip.load_tokenizer(folder)
