"""Examples in, a learned filter of documents out."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

from trivium import randomness
from trivium.corpus.classifier import train
from trivium.corpus.extract import extract
from trivium.corpus.readers import Malformed, find, read, rows
from trivium.corpus.unpack import Bad
from trivium.errors import TriviumError
from trivium.files import read_rows
from trivium.pipeline import Context
from trivium.stages.settings import Filter

VERSION = 1


def run(settings: Filter, context: Context) -> dict[str, object]:
    """Train the filter; what it did on examples kept from training stands in its header."""
    kinds: list[list[str]] = [[], []]  # other, sought
    if settings.rows:
        for text, label in labelled(context.inputs["rows"], settings):
            kinds[label in settings.labels].append(text)
    else:
        kinds = [list(texts(context.inputs[name])) for name in ("other", "sought")]
    for number, found in enumerate(kinds):
        unique = sorted(set(found), key=lambda text: randomness.derive(context.seed, "filter", text))
        kinds[number] = unique[:settings.limit]
    other, sought = kinds
    both = set(other) & set(sought)  # an example of both kinds teaches nothing
    examples = [(text, label) for label, found in ((True, sought), (False, other)) for text in found if text not in both]
    aside = [randomness.derive(context.seed, "heldout", text) / 2**64 < settings.heldout for text, _ in examples]
    made = train([text for text, _ in examples], [label for _, label in examples], settings.finds, settings.features, settings.regularization, aside)
    made.save(context.folder)
    return {"finds": settings.finds, "sought": len(sought), "other": len(other), **{f"heldout_{name}": value for name, value in made.header["heldout"].items()}}


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
                    raise TriviumError(f"{name}: row {number}: the field {wanted!r} is missing; there are {', '.join(map(str, row))[:300]}")
            label = row[settings.label]
            label = label if isinstance(label, str) else json.dumps(label)
            seen.add(label)
            if isinstance(row[settings.text], str) and row[settings.text].strip():
                yield row[settings.text], label
    if missing := sorted(set(settings.labels) - seen):
        raise TriviumError(f"{sources[0]}: no row has the label {missing[0]!r}; there are {', '.join(sorted(seen)[:20])}")
