"""The corpus as token ids, with a share kept for validation."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, ClassVar

from pydantic import Field

from trivium import randomness
from trivium.errors import TriviumError
from trivium.stage import Context, Input, Stage, Title
from trivium.stages.data.tokenizer import documents_of
from trivium.stages.outlook import Outlook, Small
from trivium.tokenizer import tokens
from trivium.tokenizer.chat import ChatTokenizer

if TYPE_CHECKING:
    from trivium.stages.cost import Cost, Estimate


class Tokens(Stage):
    """Turn a corpus into token ids, ready to be mapped into memory."""

    kind: ClassVar[str] = "tokens"
    version: ClassVar[int] = 1
    title: ClassVar[Title] = Title("text into tokens", "文本转词元", "read")
    corpus: Input = "corpus"
    """The clean documents."""
    tokenizer: Input = "tokenizer"
    """The tokenizer."""
    validation: float = Field(0.03, gt=0, lt=0.5)
    """Share of the documents, chosen by a hash, that is kept for validation."""

    def run(self, context: Context) -> dict[str, object]:
        """Write ``train/`` and ``validation/``. A document's text alone decides which it goes to."""
        tokenizer = ChatTokenizer.load(context.inputs["tokenizer"])
        summary: dict[str, object] = {}
        for split in ("train", "validation"):
            size = 0

            def texts(split: str = split) -> Iterator[str]:
                nonlocal size
                for text in documents_of(context.inputs["corpus"]):
                    if (randomness.derive(context.seed, "validation", text) / 2**64
                            < self.validation) == (split == "validation"):
                        size += len(text.encode())
                        yield text

            header = tokens.write(context.folder / split, texts(), tokenizer)
            if not header["documents"]:
                raise TriviumError(
                    f"{context.inputs['corpus']}: no document is left for {split}; the corpus is too small")
            summary[split] = {"documents": header["documents"], "tokens": header["tokens"], "bytes": size,
                              "bytes_per_token": size / header["tokens"]}
        return summary

    def sample(self, estimate: Estimate) -> Small:
        """The tokens of the sampled corpus."""
        return Small(self, estimate.factor(self.corpus))

    def outlook(self, estimate: Estimate) -> Outlook:
        """The share that is kept for validation."""
        return Outlook(validation=self.validation)

    def cost(self, estimate: Estimate) -> Cost:
        """The time of the sample, a share of which grows with the data."""
        return estimate.sampled(self, 0.5)
