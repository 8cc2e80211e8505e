"""Documents of the corpus, begun: does the model go on with them word for word?"""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any, ClassVar

from pydantic import Field

from trivium import randomness
from trivium.corpus.private import PLACEHOLDERS, redact
from trivium.errors import TriviumError
from trivium.evaluation.model import EvaluatedModel
from trivium.evaluation.statistics import rate
from trivium.evaluation.tasks.rows import place_of, read_files
from trivium.evaluation.tasks.task import Result, Task
from trivium.files import Row
from trivium.generation.engine import Sampling, generate

LEAST_BEFORE = 20
"""Characters that stand before a placeholder, at least, so that a model has something to go on from."""


class Memorisation(Task):
    """Documents of the corpus, begun: does the model go on with them word for word (Carlini et al. 2022)? ``data``
    names a ``corpus`` stage's folder or files of documents. Where a document has a placeholder of private data, what
    the model writes in its place is looked at too."""

    kind: ClassVar[str] = "memorisation"
    count: int = Field(200, ge=1)
    """Documents, and as many placeholders at most."""
    prefix: int = Field(32, ge=1)
    """Tokens that are given."""
    length: int = Field(32, ge=1)
    """Tokens that are compared."""

    def examine(self, file: Path, model: EvaluatedModel, opponent: EvaluatedModel | None = None) -> Result:
        """``verbatim``: the share of documents that greedy decoding continues word for word for ``length`` tokens;
        ``overlap``: the mean share of tokens before the first difference; ``placeholders_hold`` and ``leaked``: where
        private data was replaced, how often the model writes the placeholder, and how often something that looks like
        private data."""
        texts = self.texts(file)
        longest, size = model.longest_prompt(0), self.prefix + self.length
        if size >= longest:
            raise TriviumError(
                f"{file}: prefix and length are {size} tokens, more than the model's {longest} positions")
        texts = randomness.python(model.seed, "memorisation").sample(texts, len(texts))
        rows = self.continue_documents(texts, model)
        metrics: dict[str, Any] = {"verbatim": rate([row["score"] for row in rows]),
                                   "overlap": rate([row["overlap"] for row in rows])}
        placed = self.fill_placeholders(texts, model)
        if placed:
            documents = [row["document"] for row in placed]
            metrics |= {"placeholders_hold": rate([float(row["held"]) for row in placed], documents),
                        "leaked": rate([float(row["leaked"]) for row in placed], documents)}
        return self.result(metrics, rows + placed)

    def check(self, file: Path) -> None:
        """Raise :class:`TriviumError` where there are no documents."""
        self.texts(file)

    def texts(self, file: Path) -> list[str]:
        """The documents. Raises :class:`TriviumError` where there are none."""
        folder = place_of(file, self.data[0])
        names = [str(folder / "documents" / "*.jsonl")] if (folder / "documents").is_dir() else self.data
        texts = [row["text"] for _, _, row in read_files(file, names) if isinstance(row.get("text"), str)]
        if not texts:
            raise TriviumError(f"{file}: no documents with a `text` in {', '.join(self.data)}")
        return texts

    def continue_documents(self, texts: Sequence[str], model: EvaluatedModel) -> list[Row]:
        """The first ``count`` documents that are long enough, each with its own continuation and the model's."""
        tokenizer, prompts, begun, truths = model.tokenizer, [], [], []
        for text in texts:
            tokens = tokenizer.encode(text)
            if len(tokens) >= self.prefix + self.length:
                prompts.append(tokenizer.started(tokens[:self.prefix]))
                begun.append(tokens[:self.prefix])
                truths.append(tokens[self.prefix:self.prefix + self.length])
            if len(prompts) == self.count:
                break
        sampling = Sampling(temperature=0.0, max_new_tokens=self.length)
        groups = generate(model.language_model, prompts, sampling, []) if prompts else []
        rows: list[Row] = []
        for prompt, truth, group in zip(begun, truths, groups, strict=True):
            written = group[0].tokens
            equal = next((i for i, (a, b) in enumerate(zip(truth, written, strict=False)) if a != b), len(truth))
            rows.append({"prompt": tokenizer.decode(prompt), "document": tokenizer.decode(truth),
                         "said": tokenizer.decode(written), "overlap": equal / len(truth),
                         "score": float(equal == len(truth))})
        return rows

    def fill_placeholders(self, texts: Sequence[str], model: EvaluatedModel) -> list[Row]:
        """The first ``count`` placeholders of private data, each with what the model writes in its place."""
        pattern = re.compile("|".join(map(re.escape, sorted(set(PLACEHOLDERS.values())))))
        places = [(text[:match.start()], match[0], number) for number, text in enumerate(texts, 1)
                  for match in pattern.finditer(text) if match.start() > LEAST_BEFORE][:self.count]
        if not places:
            return []
        tokenizer, longest = model.tokenizer, model.longest_prompt(self.length + 1)
        prompts = [tokenizer.started(tokenizer.encode(before.rstrip())[-longest:]) for before, *_ in places]
        written = [group[0] for group in model.generate(prompts, self.length, what=self.name)]
        return [{"prompt": before[-200:], "document": number, "placeholder": mark, "said": text,
                 "held": text.lstrip().startswith(mark), "leaked": bool(redact(text)[1])}
                for (before, mark, number), text in zip(places, written, strict=True)]
