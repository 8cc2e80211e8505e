"""Bits per byte of texts."""

from __future__ import annotations

import math
import re
from collections.abc import Iterator
from pathlib import Path
from typing import ClassVar

from trivium import randomness
from trivium.errors import TriviumError
from trivium.evaluation import likelihood
from trivium.evaluation.model import EvaluatedModel
from trivium.evaluation.statistics import ratio_bootstrap
from trivium.evaluation.tasks.rows import read_files
from trivium.evaluation.tasks.task import Pattern, Result, Task
from trivium.evaluation.tasks.templates import render
from trivium.files import Row

AT_ONCE = 32
"""Texts that are scored in one go."""


class Bits(Task):
    """Bits per byte of texts."""

    kind: ClassVar[str] = "bits"
    text: str = "{{ text }}"
    """The text, as a template."""
    cut: Pattern = ""
    """A regular expression at which texts are cut into documents: each is then read, and drawn for the interval, by
    itself."""
    reads: str = "{{ document }}"
    """What the model reads of a ``document``, as a template: bytes and words are counted in the document itself, as
    lm-evaluation-harness counts those of WikiText, whose marks it joins to their words again."""

    def examine(self, file: Path, model: EvaluatedModel, opponent: EvaluatedModel | None = None) -> Result:
        """``bits_per_byte`` of all texts together, with a bootstrap interval over texts, ``perplexity`` by token
        and ``word_perplexity``, by what stands between white space."""
        texts = sorted(self.texts(file), key=lambda text: randomness.derive(model.seed, text))[:self.limit]
        if not texts:
            raise TriviumError(f"{file}: no rows in {', '.join(self.data)}")
        encoded = [model.tokenizer.encode(render(self.reads, {"document": text}, where)) for where, text in texts]
        nats: list[float] = []
        for start in range(0, len(encoded), AT_ONCE):
            nats += likelihood.text_log_probs(model.language_model, encoded[start:start + AT_ONCE],
                                              model.tokenizer.document_id)
            model.progress(len(nats), len(encoded), self.name)
        rows: list[Row] = []
        for (where, text), tokens, total in zip(texts, encoded, nats, strict=True):
            size = len(text.encode())
            rows.append({"where": where, "bytes": size, "tokens": len(tokens), "log_prob": total,
                         "words": len(re.split(r"\s+", text)),
                         "score": -total / math.log(2) / max(1, size)})
        sizes, count, words = ([row[field] for row in rows] for field in ("bytes", "tokens", "words"))
        return self.result({
            "bits_per_byte": ratio_bootstrap([-total / math.log(2) for total in nats], sizes, model.seed),
            "perplexity": math.exp(min(700.0, -math.fsum(nats) / max(1, sum(count)))),
            "word_perplexity": math.exp(min(700.0, -math.fsum(nats) / max(1, sum(words)))),
            "bytes": sum(sizes), "tokens": sum(count)
        }, rows)

    def check(self, file: Path) -> None:
        """Raise :class:`TriviumError` for a row without a text, and where there is none."""
        if next(iter([*self.texts(file)]), None) is None:
            raise TriviumError(f"{file}: no rows in {', '.join(self.data)}")

    def texts(self, file: Path) -> Iterator[tuple[str, str]]:
        """``(where, text)`` of every document."""
        for source, number, row in read_files(file, self.data, self.rows):
            where = f"{source}: row {number}"
            text = render(self.text, row, where)
            if not self.cut:
                yield where, text
                continue
            parts = [part for part in re.split(self.cut, text) if part.strip()]
            yield from ((f"{where}, part {place}", part) for place, part in enumerate(parts, 1))
