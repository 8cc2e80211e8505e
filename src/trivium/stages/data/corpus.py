"""Raw documents in, clean documents out, and every reject kept with its reason."""

from __future__ import annotations

import statistics
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from pydantic import Field, field_validator

from trivium.corpus.build import Extras, build
from trivium.corpus.cluster import pool_of
from trivium.corpus.settings import CorpusSettings
from trivium.corpus.truth import measure
from trivium.data.readers import Document, find, irregular, read, rows
from trivium.data.unpack import Bad
from trivium.errors import TriviumError
from trivium.extensions import file_of, resolve
from trivium.files import read_rows, write_rows
from trivium.stage import Code, Context, Input, Stage, Title
from trivium.stages.outlook import SAMPLE_BYTES, Small
from trivium.stages.rows import rows_of

if TYPE_CHECKING:
    from trivium.stages.cost import Cost, Estimate


class Corpus(Stage):
    """Clean raw documents: extraction, languages, quality, harm, duplicates, private data, decontamination, mixture."""

    kind: ClassVar[str] = "corpus"
    version: ClassVar[int] = 7
    title: ClassVar[Title] = Title("cleaning the documents", "清洗语料", "read")
    unlearned: ClassVar[frozenset[str]] = frozenset({"workers", "executor"})
    documents: list[Input] = ["world"]
    """Raw documents: earlier stages, folders, files, globs or archives."""
    evaluation: Input | list[Input] | None = None
    """Stages whose evaluation prompts must not occur in the corpus, or files of evaluation texts (JSON, JSON lines,
    Parquet, CSV)."""
    quality_filter: Input | None = None
    """A filter stage, or the folder of a learned filter, that finds good documents."""
    harmful_filter: Input | None = None
    """A filter stage, or the folder of a learned filter, that finds harmful documents."""
    term_lists: list[Input] = []
    """Files of harmful terms, one a line, with a weight after a tab where it is not 1; '#' begins a comment."""
    blocked_domains: list[Input] = []
    """Files of domains, one a line, whose pages are rejected, subdomains included."""
    readers: dict[str, Code] = {}
    """Functions of your own that read files of other kinds, by the suffix of their names, as in
    `{.eml: readers.py:mails}`: each is given a path and yields mappings with `text` or `html`, and with `id`, `url` and
    `source` where there are any."""
    settings: CorpusSettings = CorpusSettings()
    """The steps and their thresholds."""
    workers: int | None = Field(None, ge=1)
    """Processes; null takes the recipe's threads. They change no byte of the corpus."""
    executor: Literal["local", "ray"] = "local"
    """Where the tasks run: in processes of this machine, or on a Ray cluster (extra `distributed`), whose machines must
    share the folder of the results and see the documents under the same paths."""

    @field_validator("readers")
    @classmethod
    def _suffixes(cls, readers: dict[str, str]) -> dict[str, str]:
        for suffix, reader in readers.items():
            if not suffix.startswith(".") or file_of(resolve(reader, "readers")) is None:
                raise ValueError(f"{suffix}: {reader}: name a suffix such as .eml and a function as FILE.py:NAME")
        return readers

    def run(self, context: Context) -> dict[str, object]:
        """Clean the documents; where the truth about them is known, say how well each kind of dirt was found."""
        inputs = [
            folder / "documents" if (folder / "documents").is_dir() else folder
            for folder in context.inputs["documents"]
        ]
        given = context.inputs.get("evaluation") or []
        extras = Extras([
            text for source in (given if isinstance(given, list) else [given])
            for text in evaluation_texts(source, context)
        ], context.inputs["term_lists"], context.inputs["blocked_domains"], context.inputs.get("quality_filter"),
                        context.inputs.get("harmful_filter"), {suffix.lower(): reader
                                                               for suffix, reader in self.readers.items()})
        pool = pool_of(self.executor, context.tasks, self.workers or context.threads,
                       lambda step, done, total: context.progress.update(done, total, step))
        counts = build(inputs, extras, self.settings, context.folder, context.tasks, context.seed, pool)
        context.progress.say(
            f"{counts['kept']:,} of {counts['documents']:,} documents kept; "
            "the others are in rejects/ with their reasons"
        )
        summary: dict[str, object] = {
            name: counts[name] for name in ("documents", "kept", "rejected", "funnel", "reasons")
        }
        summary |= {name: counts[name] for name in ("extraction", "spans", "private", "epochs") if counts[name]}
        if counts["contamination"]["texts"]:
            summary["contamination"] = {
                name: counts["contamination"][name]
                for name in ("texts", "texts_hit", "documents")
            }
        truths = [
            folder / "truth.jsonl" for folder in context.inputs["documents"] if (folder / "truth.jsonl").is_file()
        ]
        if truths:
            summary |= measure(*(_all(files) for files in (truths, _parts(context.folder, "documents"),
                                                          _parts(context.folder, "rejects"))))
        return summary

    def sample(self, estimate: Estimate) -> Small:
        """The corpus of a sample of the documents. It does without learned filters, which the sample does not
        train."""
        documents, factors = [], []
        for number, reference in enumerate(self.documents):
            if reference in estimate.factors:
                documents.append(reference)
                factors.append(estimate.factor(reference))
            else:
                place = estimate.folder(reference)
                kept, times = some_documents(place / "documents" if reference in estimate.stages else place,
                                             estimate.scratch(estimate.name_of(self)) / f"{number}.jsonl")
                documents.append(str(kept))
                factors.append(times)
        untrained = {name: None for name in ("quality_filter", "harmful_filter")
                     if getattr(self, name) in estimate.stages}
        return Small(self.model_copy(update={"documents": documents} | untrained),
                     statistics.mean(factors) if factors else 1.0)

    def cost(self, estimate: Estimate) -> Cost:
        """The time of the sample, a share of which grows with the data."""
        return estimate.sampled(self, 0.5)


QUESTION_FIELDS = ("question", "prompt", "input", "instruction", "text", "problem", "sentence_good", "test_case")
"""Where the sets of the field keep what must not be learned by heart; a row with none of them counts with all its
texts."""


def evaluation_texts(source: Path, context: Context) -> Iterator[str]:
    """The texts of one evaluation set: a stage's prompts, or the rows of files."""
    if (source / "evaluation.jsonl").is_file():
        for row in rows_of(source, "evaluation.jsonl", ["prompt"], context):
            yield from (message["content"] for message in row["prompt"])
        return
    found = 0
    for file in find([source]):
        for _, _, found_row in rows(file):
            if isinstance(found_row, Bad):
                continue
            outer: dict[str, Any] = found_row
            for example in outer["examples"] if isinstance(outer.get("examples"), list) else (outer,):
                values: dict[str, Any] = {str(name).lower(): value
                                          for name, value in example.items()} if isinstance(example, dict) else {}
                said = next((values[name] for name in QUESTION_FIELDS if isinstance(values.get(name), str)), None)
                text = said if said is not None else "\n".join(value for value in values.values()
                                                               if isinstance(value, str))
                if text.strip():
                    found += 1
                    yield text
    if not found:
        raise TriviumError(
            f"{source}: holds no evaluation texts; name JSON, JSON lines, "
            "Parquet or CSV files with questions, prompts or texts"
        )


def _parts(folder: Path, name: str) -> list[Path]:
    return sorted((folder / name).glob("part-*.jsonl"))


def _all(files: list[Path]) -> list[dict[str, object]]:
    return [row for file in files for _, row in read_rows(file)]


def some_documents(path: Path, sample: Path) -> tuple[Path, float]:
    """Write the first documents of evenly spread files, :data:`SAMPLE_BYTES` of them; returns the file and how many
    times more bytes the files have. Raises :class:`TriviumError` where there are no files."""
    files = [file for file in find([path]) if not irregular(file.path)]
    if not files:
        raise TriviumError(f"{path}: no documents to sample")
    total = sum(file.path.stat().st_size for file in files)
    chosen = files[::max(1, len(files) // 20)]
    texts: list[dict[str, Any]] = []
    written = 0
    packed = 1.0
    for file in chosen:
        own = 0
        for document in read(file):
            if isinstance(document, Document) and (document.text or document.html):
                texts.append({"text": document.text or document.html, "source": document.source})
                own += len(texts[-1]["text"].encode())
            if own > SAMPLE_BYTES / len(chosen):
                break
        written += own
        if file.path.suffix in (".gz", ".zst", ".zip"):
            packed = 3.0  # text packs to about a third
    write_rows(sample, texts)
    return sample, max(1.0, packed * total / max(1, written))
