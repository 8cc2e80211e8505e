"""The corpus as token ids, with a share kept for validation."""

from __future__ import annotations

from collections.abc import Iterator

from trivium import randomness
from trivium.errors import TriviumError
from trivium.pipeline import Context
from trivium.stages.settings import Tokens
from trivium.stages.tokenizer import documents_of
from trivium.tokenizer import tokens
from trivium.tokenizer.chat import ChatTokenizer

VERSION = 1


def run(settings: Tokens, context: Context) -> dict[str, object]:
    """Write ``train/`` and ``validation/``. A document's text alone decides which it goes to."""
    tokenizer = ChatTokenizer.load(context.inputs["tokenizer"])
    summary: dict[str, object] = {}
    for split in ("train", "validation"):
        size = 0

        def texts(split: str = split) -> Iterator[str]:
            nonlocal size
            for text in documents_of(context.inputs["corpus"]):
                if (randomness.derive(context.seed, "validation", text) / 2**64 < settings.validation) == (split == "validation"):
                    size += len(text.encode())
                    yield text

        header = tokens.write(context.folder / split, texts(), tokenizer)
        if not header["documents"]:
            raise TriviumError(f"{context.inputs['corpus']}: no document is left for {split}; the corpus is too small")
        summary[split] = {"documents": header["documents"], "tokens": header["tokens"], "bytes": size,
                          "bytes_per_token": size / header["tokens"]}
    return summary
