"""A byte-level BPE tokenizer, trained on the clean corpus."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from trivium.files import read_rows
from trivium.pipeline import Context
from trivium.stages.settings import Tokenizer
from trivium.tokenizer.chat import ChatTokenizer
from trivium.tokenizer.train import train

VERSION = 1


def run(settings: Tokenizer, context: Context) -> dict[str, object]:
    """Train the tokenizer and write it as Hugging Face's files."""
    tokenizer = ChatTokenizer(train(documents_of(context.inputs["corpus"]), settings.vocab_size))
    tokenizer.save(context.folder)
    return {"vocab_size": tokenizer.vocab_size}


def documents_of(corpus: Path) -> Iterator[str]:
    """The texts of a corpus artifact, in order."""
    for part in sorted((corpus / "documents").glob("part-*.jsonl")):
        for _, row in read_rows(part):
            yield str(row["text"])
