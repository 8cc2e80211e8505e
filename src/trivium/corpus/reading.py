"""The first steps of the corpus stage, from files to extracted documents: those here are read into raw shards and
extracted shard by shard, those at URLs are fetched and extracted in one task."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict
from itertools import islice
from pathlib import Path
from typing import Any

from trivium.corpus import steps
from trivium.corpus.extract import versions
from trivium.corpus.settings import CorpusSettings
from trivium.corpus.tasks import Pool, Task, share
from trivium.data.readers import NO_FILE, InputFile, no_file
from trivium.errors import TriviumError
from trivium.extensions import code_files, file_of, resolve
from trivium.files import digest_file, unreadable

GROUP_FILES, GROUP_BYTES = 1000, 32 << 20


def read(files: list[InputFile], settings: CorpusSettings, readers: Mapping[str, str], lists: tuple[Path, str],
          pool: Pool) -> list[Path]:
    """The finished tasks that read the files, in their order."""
    tasks = _read_tasks(files, settings, readers, lists, pool)
    for step in ("read", "fetch"):
        pool.run([task for task in tasks if task.step == step])
    return [pool.scratch / task.key for task in tasks]


def extract(read: list[Path], settings: CorpusSettings, lists: tuple[Path, str], pool: Pool) -> list[Path]:
    """The folders of extracted documents; those of files at URLs are there already."""
    how, path, digest = _extraction(settings, lists, pool)
    raw = {folder: sorted(folder.glob("raw-*")) for folder in read}
    made = iter(pool.run([
        Task("extract", steps.extract_step, how, [shard, path], [f"{folder.name}/{shard.name}", digest])
        for folder, shards in raw.items() for shard in shards
    ]))
    extracted: list[Path] = []
    for folder, shards in raw.items():
        extracted += islice(made, len(shards)) if shards else sorted(folder.glob("[0-9]*/"))
    return extracted


def _extraction(settings: CorpusSettings, lists: tuple[Path, str], pool: Pool) -> tuple[dict[str, Any], Path, str]:
    """How pages are extracted, and the lists of terms that addresses are held against."""
    how = {
        "extraction": settings.extraction, "limits": asdict(settings.limits), "versions": versions(),
        "addresses": settings.harmful.enabled
    }
    path, digest = lists if settings.harmful.enabled else share(pool.scratch, "none.json", b"{}")
    return how, path, digest


def _read_tasks(files: list[InputFile], settings: CorpusSettings, readers: Mapping[str, str], lists: tuple[Path, str],
                pool: Pool) -> list[Task]:
    """The tasks that read groups of files: those here are read into raw shards, those at URLs fetched
    and extracted."""
    limits = {
        name: getattr(settings, name)
        for name in ("book_characters", "max_document_bytes", "max_page_bytes", "max_unpacked_bytes", "fields")
    }
    if readers:
        limits["readers"] = dict(readers)
    code = {
        suffix: {
            where: digest_file(file)
            for where, file in code_files(suffix,
                                          file_of(resolve(reader, "readers")) or Path())
        }
        for suffix, reader in readers.items()
    }
    how, path, digest = _extraction(settings, lists, pool)
    with ThreadPoolExecutor(pool.workers) as threads:
        digests = dict(zip(files, threads.map(lambda file: "" if file.remote else _digest(file), files)))
    tasks: list[Task] = []
    for group in _groups(files):
        parameters = {"files": [[file.name, file.source] for file in group], "limits": limits,
                      "shard_documents": settings.shard_documents, **({"code": code} if code else {})}
        objects = [[file.remote.url, file.remote.size, file.remote.state] for file in group if file.remote]
        tasks.append(
            Task("fetch", steps.fetch_step, {**parameters, "objects": objects, "extract": how}, [path], [digest])
            if objects else
            Task("read", steps.read_step, parameters, [file.path for file in group], [digests[file] for file in group],
                 watched=[(file.path, digests[file]) for file in group if digests[file] != NO_FILE]))
    return tasks


def _groups(files: list[InputFile]) -> Iterator[list[InputFile]]:
    """Neighbouring files that one task reads: all here, or all at URLs."""
    group, size = list[InputFile](), 0
    for file in files:
        if group and (len(group) == GROUP_FILES or size >= GROUP_BYTES or bool(group[0].remote) != bool(file.remote)):
            yield group
            group, size = [], 0
        group.append(file)
        size += file.size
    if group:
        yield group


def _digest(file: InputFile) -> str:
    if no_file(file.path):  # the reader will meet it again, and reject it
        return NO_FILE
    try:
        return digest_file(file.path)
    except OSError as error:
        raise unreadable(file.path, error) from error


def check_listed(before: list[InputFile], now: list[InputFile]) -> None:
    """Raise :class:`TriviumError` where files came or went between the listing of the inputs and the end of reading
    them."""
    changed = sorted({str(file.path) for file in before} ^ {str(file.path) for file in now})
    if changed:
        raise TriviumError(f"{changed[0]}: came or went while the documents were read; run the same command again: it "
                           "reads what is there now")
