"""Raw documents in, clean documents out, and every reject kept with its reason."""

from __future__ import annotations

import statistics
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from pydantic import Field, field_validator

from trivium.corpus.build import Extras, build
from trivium.corpus.cluster import pool_of
from trivium.corpus.evaluation_sets import EvaluationTexts, read_evaluation
from trivium.corpus.settings import CorpusSettings
from trivium.corpus.truth import measure
from trivium.data.readers import Document, find, read
from trivium.errors import TriviumError
from trivium.extensions import file_of, resolve
from trivium.files import read_rows, write_rows
from trivium.remote import fetch, manifest_of, url_of
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
    streams: ClassVar[frozenset[str]] = frozenset({"documents"})
    unlearned: ClassVar[frozenset[str]] = frozenset({"workers", "executor"})
    documents: list[Input] = ["world"]
    """Raw documents: earlier stages, folders, files, globs or archives, here or at URLs (s3://, gs://, hdfs://,
    https://), and lists of a crawl's files (warc.paths.gz)."""
    evaluation: Input | list[Input] | None = None
    """Stages whose evaluation prompts must not occur in the corpus, or files of evaluation sets (JSON, JSON lines,
    Parquet, CSV, plain text), whose questions, choices and answers are each searched for. A row that cannot be read
    ends the stage."""
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
    """Where the tasks run: in processes of this machine, or on a Ray cluster (extra `distributed`), whose machines need
    no folder in common: what tasks read and write travels through Ray's object store."""

    @field_validator("readers")
    @classmethod
    def _suffixes(cls, readers: dict[str, str]) -> dict[str, str]:
        for suffix, reader in readers.items():
            if not suffix.startswith(".") or file_of(resolve(reader, "readers")) is None:
                raise ValueError(f"{suffix}: {reader}: name a suffix such as .eml and a function as FILE.py:NAME")
        return readers

    def run(self, context: Context) -> dict[str, object]:
        """Clean the documents; where the truth about them is known, say how well each kind of dirt was found."""
        inputs = [folder / "documents" if _has_documents(folder) else folder for folder in context.inputs["documents"]]
        given = context.inputs.get("evaluation") or []
        searched = EvaluationTexts()
        for source in given if isinstance(given, list) else [given]:
            searched.add(evaluation_texts(source, self.settings.contamination.passages, context))
        extras = Extras(searched.questions, searched.answers, context.inputs["term_lists"],
                        context.inputs["blocked_domains"], context.inputs.get("quality_filter"),
                        context.inputs.get("harmful_filter"), {suffix.lower(): reader
                                                               for suffix, reader in self.readers.items()})
        pool = pool_of(self.executor, context.tasks, self.workers or context.threads,
                       lambda step, done, total: context.progress.update(done, total, step), context.progress.say)
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


def evaluation_texts(source: Path, passages: bool, context: Context) -> EvaluationTexts:
    """The texts of one evaluation set: a stage's prompts, or the rows of files."""
    if (source / "evaluation.jsonl").is_file():
        return EvaluationTexts([message["content"]
                                for row in rows_of(source, "evaluation.jsonl", ["prompt"], context)
                                for message in row["prompt"]])
    return read_evaluation(source, passages, lambda text: context.progress.say(f"evaluation: {text}"))


def _has_documents(folder: Path) -> bool:
    """Whether a place is what a stage left, which keeps its documents in a folder of that name."""
    url = url_of(folder)
    return manifest_of(url) is not None if url else (folder / "documents").is_dir()


def _parts(folder: Path, name: str) -> list[Path]:
    return sorted((folder / name).glob("part-*.jsonl"))


def _all(files: list[Path]) -> list[dict[str, object]]:
    return [row for file in files for _, row in read_rows(file)]


def some_documents(path: Path, sample: Path, most: int = SAMPLE_BYTES) -> tuple[Path, float]:
    """Write the first documents of evenly spread files, ``most`` bytes of them; returns the file and how many
    times more bytes the files have. Raises :class:`TriviumError` where there are no files."""
    files = find([path])
    if not files:
        raise TriviumError(f"{path}: no documents to sample")
    total = sum(file.size for file in files)
    chosen = files[::max(1, len(files) // 20)]
    if remote := chosen[0].remote:  # one file is enough to be fetched for an estimate
        chosen = [replace(chosen[0], path=sample.with_name(f"{sample.stem}-{chosen[0].path.name}"))]
        sample.parent.mkdir(parents=True, exist_ok=True)
        fetch(remote, chosen[0].path)
    texts: list[dict[str, Any]] = []
    written = 0
    packed = 1.0
    for file in chosen:
        own = 0
        for document in read(file):
            if isinstance(document, Document) and (document.text or document.html):
                content = document.text or document.html or ""
                texts.append({"text" if document.text else "html": content, "source": document.source})
                own += len(content.encode())
            if own > most / len(chosen):
                break
        written += own
        if file.path.suffix in (".gz", ".zst", ".zip"):
            packed = 3.0  # text packs to about a third
    write_rows(sample, texts)
    return sample, max(1.0, packed * total / max(1, written))
