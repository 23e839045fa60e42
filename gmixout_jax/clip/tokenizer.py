"""Text to token ids, with the tokenizer.json of a CLIP folder."""

import contextlib
import pathlib
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
from jaxtyping import Int

from gmixout_jax.checkpoint.files import Path, local_path
from gmixout_jax.clip import huggingface, open_clip
from gmixout_jax.clip.config import LEGACY_EOS, MOST, TextConfig


class Tokenizer:
  """Texts to token ids of one length, each text closed by its end token.

  Made by `load_tokenizer`. The ids are [begin, text ..., end, padding ...]. A
  text that is too long is truncated before the end token, where CLIP reads the
  text's features.

  Attributes:
    context_length: Tokens per text.
    eos_token_id: The id of the end token.
    pad_token_id: The id after it; often the same.
  """

  def __init__(
    self,
    encoder: Any,
    *,
    context_length: int,
    pad_token_id: int | None = None,
    source: str = "",
  ):
    """Wraps a tokenizer.

    Args:
      encoder: A `tokenizers.Tokenizer`; its padding and truncation are turned
        off.
      context_length: Tokens per text, at least 2: begin and end; at most 65536.
      pad_token_id: The id after the end token; None repeats the end token.
      source: The file that it was read from, for messages.

    Raises:
      ValueError: `context_length` is out of range, or the tokenizer adds no
        end token.
    """
    least, most = 2, MOST["context_length"]
    if not least <= context_length <= most:
      bound = f"least {least}" if context_length < least else f"most {most}"
      raise ValueError(
        f"context_length must be at {bound}, got {context_length}."
      )
    # Both are done here: the result does not depend on the file's settings.
    encoder.no_padding()
    encoder.no_truncation()
    with _of_rust("The tokenizer cannot encode an empty text"):
      special = encoder.encode("").ids
    if not special:
      raise ValueError(
        "The tokenizer adds no end token: tokenizer.json has no post-processor."
      )
    self.context_length = context_length
    self.eos_token_id: int = special[-1]
    self.pad_token_id = (
      self.eos_token_id if pad_token_id is None else pad_token_id
    )
    vocabulary = encoder.get_vocab().values()
    for token_id in (self.pad_token_id, *special, *vocabulary):
      if not 0 <= token_id < 2**31:
        raise ValueError(
          f"Token ids must be at least 0 and below 2**31, got {token_id}."
        )
    self._encoder, self._source = encoder, source

  def __call__(
    self, texts: Sequence[str]
  ) -> Int[np.ndarray, "texts context_length"]:
    """Encodes texts.

    Args:
      texts: The texts; a single string is refused, as a list of its letters
        is never what was meant.

    Returns:
      The token ids, int32.

    Raises:
      ValueError: `texts` is a string.
    """
    if isinstance(texts, str):
      raise ValueError(f"texts must be a list of strings, got {texts!r}.")
    ids = np.full(
      (len(texts), self.context_length), self.pad_token_id, np.int32
    )
    what = f"The tokenizer cannot encode texts such as {texts[:1]}"
    with _of_rust(f"{self._source}: {what}" if self._source else what):
      encodings = self._encoder.encode_batch(list(texts))
    for row, encoding in zip(ids, encodings, strict=True):
      kept = encoding.ids[: self.context_length]
      row[: len(kept)] = kept
      if len(encoding.ids) > self.context_length:
        row[-1] = self.eos_token_id
    return ids


def load_tokenizer(
  directory: Path, *, context_length: int | None = None
) -> Tokenizer:
  """Loads the tokenizer of a Hugging Face CLIP folder.

  Args:
    directory: The folder, with tokenizer.json; tokenizer_config.json and
      config.json are read if they are there.
    context_length: Tokens per text; by default config.json's
      `max_position_embeddings`, else 77.

  Returns:
    The tokenizer. Its padding is the file's own, else the `pad_token` of
    tokenizer_config.json, else the `pad_token_id` of config.json, else the
    end token.

  Raises:
    ImportError: The package `tokenizers` is not installed.
    FileNotFoundError: There is no tokenizer.json.
    ValueError: A file is damaged, or the tokenizer does not go with the
      model: they disagree on the end token (49407 where config.json names
      none, as for `from_pretrained`), or the padding would be taken for the
      end of the text. The file is named. Or `directory` is the address of a
      bucket.

  Example:
    >>> import tempfile
    >>> import tokenizers
    >>> from gmixout_jax import clip
    >>> words = {"<s>": 0, "</s>": 1, "<unk>": 2, "a": 3, "cat": 4}
    >>> made = tokenizers.Tokenizer(
    ...   tokenizers.models.WordLevel(words, unk_token="<unk>")
    ... )
    >>> made.pre_tokenizer = tokenizers.pre_tokenizers.Whitespace()
    >>> made.post_processor = tokenizers.processors.TemplateProcessing(
    ...   single="<s> $A </s>", special_tokens=[("<s>", 0), ("</s>", 1)]
    ... )
    >>> with tempfile.TemporaryDirectory() as folder:
    ...   made.save(f"{folder}/tokenizer.json")
    ...   tokenizer = clip.load_tokenizer(folder, context_length=6)
    >>> tokenizer(["a cat"]).tolist()
    [[0, 3, 4, 1, 1, 1]]
  """
  directory = local_path("directory", directory)
  try:
    import tokenizers
  except ImportError as error:
    raise ImportError(
      "Reading tokenizer.json needs the package tokenizers: "
      "pip install 'gmixout-jax[experiments]'."
    ) from error
  path = directory / "tokenizer.json"
  if not path.is_file():
    raise FileNotFoundError(
      f"There is no file {path}, by which words are read. It comes with the"
      " model; where transformers is installed, two lines write it:\n"
      "  from transformers import AutoTokenizer\n"
      f"  AutoTokenizer.from_pretrained({str(directory)!r}).save_pretrained("
      f"{str(directory)!r})"
    )
  with _of_rust(f"{path} is not a tokenizer"):
    encoder = tokenizers.Tokenizer.from_file(str(path))
  model = _model_ids(directory)
  pad = _padding(encoder, directory / "tokenizer_config.json")
  try:
    tokenizer = Tokenizer(
      encoder,
      context_length=model["max_position_embeddings"]
      if context_length is None
      else context_length,
      pad_token_id=model["pad_token_id"] if pad is None else pad,
      source=str(path),
    )
    _check(tokenizer, model["eos_token_id"], encoder.get_vocab())
  except ValueError as error:
    raise ValueError(f"{path}: {error}") from None
  return tokenizer


@contextlib.contextmanager
def _of_rust(what: str) -> Iterator[None]:
  """Turns what the Rust side raises, bare exceptions and panics, into an error.

  Raises:
    ValueError: If it raises something.
  """
  try:
    yield
  except BaseException as error:
    panics = type(error).__name__ == "PanicException"
    if not panics and not isinstance(error, Exception):
      raise
    raise ValueError(f"{what}: {error}.") from None


def _model_ids(directory: pathlib.Path) -> dict[str, Any]:
  """What the model's config says of tokens; an id that it does not is None."""
  path = directory / "config.json"
  ids = {
    "max_position_embeddings": TextConfig.context_length,
    "eos_token_id": None,
    "pad_token_id": None,
  }
  if (directory / open_clip.CONFIG).is_file():
    path = directory / open_clip.CONFIG
    text = open_clip.parse(huggingface.read_object(path)).text
    return {
      "max_position_embeddings": text.context_length,
      "eos_token_id": text.eos_token_id if text.pool == "end" else None,
      "pad_token_id": text.pad_token_id,
    }
  if not path.is_file():
    return ids
  raw = huggingface.read_object(path)
  try:
    text = huggingface.section(raw, "text_config")
    ids["eos_token_id"] = TextConfig.eos_token_id
    ids |= {name: text[name] for name in ids if name in text}
    if raw.get("model_type") == "siglip":
      ids["max_position_embeddings"] = text.get("max_position_embeddings", 64)
      ids["eos_token_id"] = None  # it pools at the last token, whichever it is
      return ids
    for name, value in ids.items():
      least = 2 if name == "max_position_embeddings" else 0
      if value is None and name == "pad_token_id":
        continue
      if not isinstance(value, int) or value < least:
        raise ValueError(
          f"{name} must be an integer of at least {least}, got {value!r}."
        )
  except ValueError as error:
    raise ValueError(f"{path}: {error}") from None
  return ids


def _padding(encoder: Any, path: pathlib.Path) -> int | None:
  """The id that tokenizer.json or tokenizer_config.json pads with."""
  if encoder.padding:
    return encoder.padding["pad_id"]
  raw = huggingface.read_object(path) if path.is_file() else {}
  token = raw.get("pad_token")
  # Saved as a string, or as an object with the token's properties.
  token = token.get("content") if isinstance(token, dict) else token
  if token is None:
    return None
  if not isinstance(token, str):
    raise ValueError(f"{path}: pad_token must be a string, got {token!r}.")
  return encoder.token_to_id(token)


def _check(
  tokenizer: Tokenizer, eos_token_id: int | None, vocabulary: dict[str, int]
) -> None:
  end, pad = tokenizer.eos_token_id, tokenizer.pad_token_id
  if eos_token_id == LEGACY_EOS and pad > end:
    raise ValueError(
      f"The model pools at the largest id (eos_token_id = {LEGACY_EOS}), which "
      f"would be the padding: pad id {pad} is above the end token's {end}."
    )
  last = max(vocabulary, key=vocabulary.__getitem__, default="")
  if eos_token_id == LEGACY_EOS and vocabulary.get(last, end) > end:
    raise ValueError(
      f"The model pools at the largest id of a text (eos_token_id ="
      f" {LEGACY_EOS}), which the end token's {end} is not: {last!r} has"
      f" {vocabulary[last]}."
    )
  if eos_token_id not in (None, LEGACY_EOS, end):
    raise ValueError(
      f"The tokenizer ends a text with id {end}, but the model's eos_token_id "
      f"is {eos_token_id}."
    )
