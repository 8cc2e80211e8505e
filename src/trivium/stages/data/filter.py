"""Examples in, a learned filter of documents out."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import ClassVar, Literal

from pydantic import Field, model_validator

from trivium import randomness
from trivium.corpus.classifier import FeatureSettings, train
from trivium.corpus.extract import extract
from trivium.data.readers import Malformed, find, read, rows
from trivium.data.unpack import Bad
from trivium.errors import TriviumError
from trivium.files import read_rows
from trivium.stage import Context, Input, Stage, Title


class Filter(Stage):
    """Train a filter of documents: logistic regression on hashed n-grams, from good and bad examples."""

    kind: ClassVar[str] = "filter"
    version: ClassVar[int] = 3
    title: ClassVar[Title] = Title("a filter of documents", "训练文档过滤器", "read")
    finds: Literal["good", "harmful"] = "good"
    """What its probability is about: good documents (a corpus's `quality_filter`) or harmful ones (its
    `harmful_filter`)."""
    sought: list[Input] = []
    """Documents of the kind that it finds."""
    other: list[Input] = []
    """Documents of the other kind; for good ones, random web pages."""
    rows: list[Input] = []
    """Instead of both, files of labelled rows (JSON, JSON lines, Parquet, CSV)."""
    text: str = "text"
    """The rows' field with the text."""
    label: str = "label"
    """The rows' field with the label."""
    labels: list[str] = []
    """The labels of the kind that it finds; all others are of the other kind."""
    limit: int | None = Field(50_000, ge=2)
    """Most examples of a kind, chosen by a hash of the text; null takes all."""
    heldout: float = Field(0.2, gt=0, lt=1)
    """Share of the examples, chosen by a hash, that is kept from training to measure the filter."""
    regularization: float = Field(10.0, gt=0)
    """Inverse strength of the L2 penalty (scikit-learn's C)."""
    features: FeatureSettings = FeatureSettings()
    """What it sees of a text."""

    @model_validator(mode="after")
    def _one_way(self) -> Filter:
        if bool(self.rows) == bool(self.sought or self.other) or bool(self.sought) != bool(self.other):
            raise ValueError("give `sought` and `other`, or `rows` with `labels`")
        if self.rows and not self.labels:
            raise ValueError("`labels` names the labels of what is sought, such as [harmful]")
        return self

    def run(self, context: Context) -> dict[str, object]:
        """Train the filter; what it did on examples kept from training stands in its header."""
        kinds: list[list[str]] = [[], []]  # other, sought
        if self.rows:
            for text, label in labelled(context.inputs["rows"], self):
                kinds[label in self.labels].append(text)
        else:
            kinds = [list(texts(context.inputs[name])) for name in ("other", "sought")]
        for number, found in enumerate(kinds):
            unique = sorted(set(found), key=lambda text: randomness.derive(context.seed, "filter", text))
            kinds[number] = unique[:self.limit]
        other, sought = kinds
        both = set(other) & set(sought)  # an example of both kinds teaches nothing
        examples = [(text, label) for label, found in ((True, sought), (False, other)) for text in found
                    if text not in both]
        aside = [randomness.derive(context.seed, "heldout", text) / 2**64 < self.heldout for text, _ in examples]
        made = train([text for text, _ in examples], [label for _, label in examples], self.finds, self.features,
                     self.regularization, aside)
        made.save(context.folder)
        return {
            "finds": self.finds, "sought": len(sought), "other": len(other),
            **{f"heldout_{name}": value
               for name, value in made.header["heldout"].items()}
        }


def texts(sources: list[Path]) -> Iterator[str]:
    """The texts of documents of every known kind, of corpus stages and of folders and files."""
    for source in sources:
        if (source / "documents").is_dir():
            for part in sorted((source / "documents").glob("part-*.jsonl")):
                yield from (str(row["text"]) for _, row in read_rows(part))
            continue
        for file in find([source]):
            for item in read(file):
                if not isinstance(item, Malformed):
                    text = item.text if item.html is None else extract(item.html, "fast")[0]
                    if text:
                        yield text


def labelled(sources: list[Path], settings: Filter) -> Iterator[tuple[str, str]]:
    """``(text, label)`` of every row that has both."""
    seen: set[str] = set()
    for file in find(sources):
        for name, number, row in rows(file):
            if isinstance(row, Bad):
                continue
            for wanted in (settings.text, settings.label):
                if wanted not in row:
                    raise TriviumError(
                        f"{name}: row {number}: the field {wanted!r} is missing; there are "
                        f"{', '.join(map(str, row))[:300]}"
                    )
            label = row[settings.label]
            label = label if isinstance(label, str) else json.dumps(label)
            seen.add(label)
            if isinstance(row[settings.text], str) and row[settings.text].strip():
                yield row[settings.text], label
    if missing := sorted(set(settings.labels) - seen):
        raise TriviumError(
            f"{sources[0]}: no row has the label {missing[0]!r}; there are {', '.join(sorted(seen)[:20])}")
