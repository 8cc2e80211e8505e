"""A byte-level BPE tokenizer, trained on the clean corpus and, where named, on demonstrations."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from pydantic import Field

from trivium import randomness
from trivium.errors import TriviumError
from trivium.files import read_rows
from trivium.stage import Context, Figure, Input, Stage, Title
from trivium.stages.outlook import Outlook, Small
from trivium.stages.rows import rows_of
from trivium.tokenizer.chat import ChatTokenizer, written
from trivium.tokenizer.train import train

if TYPE_CHECKING:
    from trivium.stages.cost import Cost, Estimate


class Tokenizer(Stage):
    """Train a byte-level BPE tokenizer on a corpus."""

    kind: ClassVar[str] = "tokenizer"
    version: ClassVar[int] = 3
    title: ClassVar[Title] = Title("the tokenizer", "训练分词器", "read")
    figures: ClassVar[tuple[Figure, ...]] = (
        Figure("vocab_size", "vocabulary", "词表大小"),
    )
    corpus: Input = "corpus"
    """The clean documents."""
    demonstrations: Input | None = None
    """Conversations whose words count as well: an answer's words that no document has are otherwise spelled in pieces,
    and a small model puts pieces together wrongly."""
    vocab_size: int = Field(2048, ge=262)
    """Entries, the six special tokens included."""
    sample_bytes: int | None = Field(None, ge=1)
    """About how much of the corpus to learn from, chosen by a hash of the text; null takes all. A few gigabytes are
    plenty."""

    def run(self, context: Context) -> dict[str, object]:
        """Train the tokenizer, write it as Hugging Face's files, and say how many bytes of each language one of its
        tokens holds."""
        corpus = context.inputs["corpus"]
        share = 1.0
        if self.sample_bytes is not None:
            share = self.sample_bytes / max(
                1, sum(part.stat().st_size for part in (corpus / "documents").glob("part-*.jsonl")))
        tokenizer = ChatTokenizer(
            train(chain((text for text in documents_of(corpus)
                         if share >= 1 or randomness.derive(context.seed, "tokenizer", text) / 2**64 < share),
                        said_in(context)),
                  self.vocab_size))
        if tokenizer.vocab_size < self.vocab_size:
            context.progress.say(
                f"{tokenizer.vocab_size:,} entries rather than {self.vocab_size:,}: "
                "so few texts have no more pairs to merge"
            )
        tokenizer.save(context.folder)
        return {"vocab_size": tokenizer.vocab_size, "bytes_per_token": bytes_per_token(corpus, tokenizer)}

    def sample(self, estimate: Estimate) -> Small:
        """The tokenizer of the sampled corpus."""
        return Small(self, estimate.factor(self.corpus))

    def outlook(self, estimate: Estimate) -> Outlook:
        """The entries of the tokenizer."""
        return Outlook(vocab_size=self.vocab_size)

    def cost(self, estimate: Estimate) -> Cost:
        """The time of the sample, a share of which grows with the data."""
        return estimate.sampled(self, 0.15)


MEASURED_BYTES = 200_000
"""How much of each language the tokenizer is measured on."""




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
    return {
        language: round(sizes[language] / tokens[language], 3)
        for language in sorted(sizes, key=lambda name: -sizes[name]) if tokens[language]
    }


def said_in(context: Context) -> Iterator[str]:
    """All that is said in a tokenizer's `demonstrations`, where it has some."""
    if "demonstrations" in context.inputs:
        for row in rows_of(context.inputs["demonstrations"], "demonstrations.jsonl", ["messages"], context):
            for message in row["messages"]:
                yield from (text for text in written(message) if text)


def documents_of(corpus: Path) -> Iterator[str]:
    """The texts of a corpus artifact, in order."""
    return (str(row["text"]) for row in rows_of_corpus(corpus))


def rows_of_corpus(corpus: Path) -> Iterator[dict[str, Any]]:
    """The documents of a corpus artifact, in order."""
    parts = sorted((corpus / "documents").glob("part-*.jsonl"))
    if not parts:
        raise TriviumError(f"{corpus}: no corpus here (documents/part-*.jsonl are missing); name the folder that a "
                           "stage of the kind 'corpus' made of your documents")
    for part in parts:
        for number, row in read_rows(part):
            if not isinstance(row.get("text"), str):
                raise TriviumError(f"{part}: row {number}: has no `text`; name a folder that a corpus stage made")
            yield row
