"""A byte-level BPE tokenizer, trained on the clean corpus."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from trivium import randomness
from trivium.files import read_rows
from trivium.pipeline import Context
from trivium.stages.settings import Tokenizer
from trivium.tokenizer.chat import ChatTokenizer
from trivium.tokenizer.train import train

VERSION = 1
MEASURED_BYTES = 200_000
"""How much of each language the tokenizer is measured on."""


def run(settings: Tokenizer, context: Context) -> dict[str, object]:
    """Train the tokenizer, write it as Hugging Face's files, and say how many bytes of each language one of its tokens holds."""
    corpus = context.inputs["corpus"]
    share = 1.0
    if settings.sample_bytes is not None:
        share = settings.sample_bytes / max(1, sum(part.stat().st_size for part in (corpus / "documents").glob("part-*.jsonl")))
    tokenizer = ChatTokenizer(train((text for text in documents_of(corpus)
                                     if share >= 1 or randomness.derive(context.seed, "tokenizer", text) / 2**64 < share), settings.vocab_size))
    if tokenizer.vocab_size < settings.vocab_size:
        context.progress.say(f"{tokenizer.vocab_size:,} entries rather than {settings.vocab_size:,}: so small a corpus has no more pairs to merge")
    tokenizer.save(context.folder)
    return {"vocab_size": tokenizer.vocab_size, "bytes_per_token": bytes_per_token(corpus, tokenizer)}


def bytes_per_token(corpus: Path, tokenizer: ChatTokenizer) -> dict[str, float]:
    """By language, where documents name theirs, else for ``all``: measured on each one's first documents."""
    sizes: dict[str, int] = {}
    tokens: dict[str, int] = {}
    for row in rows_of_corpus(corpus):
        language, text = str(row.get("language", "all")), str(row["text"])
        if sizes.get(language, 0) < MEASURED_BYTES:
            sizes[language] = sizes.get(language, 0) + len(text.encode())
            tokens[language] = tokens.get(language, 0) + len(tokenizer.encode(text))
        elif list(sizes) == ["all"]:
            break
    return {language: round(sizes[language] / tokens[language], 3) for language in sorted(sizes, key=lambda name: -sizes[name]) if tokens[language]}


def documents_of(corpus: Path) -> Iterator[str]:
    """The texts of a corpus artifact, in order."""
    return (str(row["text"]) for row in rows_of_corpus(corpus))


def rows_of_corpus(corpus: Path) -> Iterator[dict[str, Any]]:
    """The documents of a corpus artifact, in order."""
    for part in sorted((corpus / "documents").glob("part-*.jsonl")):
        yield from (row for _, row in read_rows(part))
