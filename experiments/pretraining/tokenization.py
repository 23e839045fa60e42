"""A tokenizer of byte-pair encodings, trained on captions."""

from collections.abc import Iterable, Sequence

import numpy as np
import tokenizers
from jaxtyping import Int
from tokenizers import (
  decoders,
  models,
  normalizers,
  pre_tokenizers,
  processors,
  trainers,
)

from gmixout_jax import clip

PAD, BEGIN, END = "<|pad|>", "<|startoftext|>", "<|endoftext|>"

_ALPHABET = pre_tokenizers.ByteLevel.alphabet()
SMALLEST = len(_ALPHABET) + 3  # every byte, and the three above


def train(texts: Iterable[str], *, size: int) -> tokenizers.Tokenizer:
  """Trains a tokenizer; lower case, as CLIP's.

  Every byte is in the vocabulary, so any text can be written in it. Words and
  punctuation are cut apart first: "a dog." and "a dog ." are the same tokens.

  Args:
    texts: What to learn frequent words and their parts from.
    size: The most tokens to know, at least 259.

  Returns:
    The tokenizer, which adds the begin and the end of a text, and pads.

  Raises:
    ValueError: If `size` is too small.

  Example:
    >>> tokenizer = train(["a dog runs .", "Two dogs run ."] * 2, size=280)
    >>> tokenizer.encode("Dogs.").tokens
    ['<|startoftext|>', 'Ġdogs', 'Ġ.', '<|endoftext|>']
  """
  if size < SMALLEST:
    raise ValueError(
      f"the vocabulary must have at least {SMALLEST} tokens, got {size}."
    )
  tokenizer = tokenizers.Tokenizer(models.BPE())
  tokenizer.normalizer = normalizers.Sequence(
    [normalizers.NFKC(), normalizers.Lowercase()]
  )
  tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
    [
      pre_tokenizers.Whitespace(),
      pre_tokenizers.ByteLevel(add_prefix_space=True, use_regex=False),
    ]
  )
  tokenizer.decoder = decoders.ByteLevel()
  tokenizer.train_from_iterator(
    texts,
    trainers.BpeTrainer(
      vocab_size=size,
      min_frequency=2,
      # The end is not the third: an end token of id 2 stands for "the largest
      # id of the text" in configs of CLIP.
      special_tokens=[PAD, END, BEGIN],
      initial_alphabet=_ALPHABET,
      show_progress=False,
    ),
  )
  ids = {token: tokenizer.token_to_id(token) for token in (PAD, BEGIN, END)}
  tokenizer.post_processor = processors.TemplateProcessing(
    single=f"{BEGIN} $A {END}",
    special_tokens=[(token, ids[token]) for token in (BEGIN, END)],
  )
  tokenizer.enable_padding(pad_id=ids[PAD], pad_token=PAD)
  return tokenizer


def encode(
  tokenizer: tokenizers.Tokenizer, texts: Sequence[str], *, length: int
) -> Int[np.ndarray, "texts length"]:
  """Texts as `clip.load_tokenizer` will encode them once this is saved."""
  # A copy, for the wrapper takes the padding off what it is given.
  copy = tokenizers.Tokenizer.from_str(tokenizer.to_str())
  return clip.Tokenizer(
    copy, context_length=length, pad_token_id=tokenizer.token_to_id(PAD)
  )(texts)
