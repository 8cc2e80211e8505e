"""Training a byte-level BPE tokenizer (Sennrich et al. 2016; Radford et al. 2019, section 2.2)."""

from __future__ import annotations

from collections.abc import Iterator

from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, pre_tokenizers, trainers

from trivium.errors import TriviumError

DOCUMENT, PAD, USER, ASSISTANT, SYSTEM, END = SPECIAL_TOKENS = (
    "<|endoftext|>", "<|pad|>", "<|user|>", "<|assistant|>", "<|system|>", "<|end|>")
"""Ids 0 to 5: the separator of documents, padding, the three roles, and the end of a turn. All differ: a model whose
padding is its end token never learns to stop."""

SPLIT = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|"            # English contractions
    r"[^\r\n\p{L}\p{N}]?[\p{L}\p{M}]+|"         # a word with the space or sign before it
    r"\p{N}|"                                  # digits one by one: 27 and 270 share their parts
    r" ?[^\s\p{L}\p{M}\p{N}]+[\r\n]*|"         # signs, with the line's end
    r"\s*[\r\n]+|"                             # line ends, with the indentation before them
    r"\s+(?!\S)|"                              # spaces but the last, which goes with the next word
    r"\s+"
)
"""Where merges must not reach across, in the manner of GPT-4's tokenizer: to the letter Qwen3.5's, so that programs
which know tokenizers by name, as llama.cpp does, cut texts where ours does."""


def train(texts: Iterator[str], vocab_size: int) -> Tokenizer:
    """A tokenizer of ``vocab_size`` entries: the special tokens, the 256 bytes, and the most useful merges of ``texts``
    (fewer when the texts do not hold so many). Any text has an encoding, and decoding gives it back exactly."""
    least = len(SPECIAL_TOKENS) + 256
    if vocab_size < least:
        raise TriviumError(f"tokenizer: vocab_size is {vocab_size}; it must be at least {least} (256 bytes and "
                           f"{len(SPECIAL_TOKENS)} special tokens)")
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence([
        pre_tokenizers.Split(Regex(SPLIT), behavior="isolated"),
        pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
    ])
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocab_size, min_frequency=2, show_progress=False,
        special_tokens=[AddedToken(token, special=True, normalized=False) for token in SPECIAL_TOKENS],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet())
    tokenizer.train_from_iterator(texts, trainer)
    return tokenizer
