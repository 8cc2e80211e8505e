"""Lists of a crawl's files, as Common Crawl publishes them: ``warc.paths.gz`` holds one path a line, from a base."""

from __future__ import annotations

import gzip
import zlib
from dataclasses import dataclass, replace
from pathlib import Path
from typing import ClassVar

from trivium.data.readers import KNOWN, InputFile
from trivium.errors import TriviumError
from trivium.randomness import derive
from trivium.remote import check, describe_all, fetch, url_of

PATH_LISTS = (".paths", ".paths.gz")


@dataclass(frozen=True)
class CrawlSettings:
    """Which files of a crawl are read, where a list of them (warc.paths.gz) is among the documents."""

    __pydantic_config__: ClassVar[dict[str, object]] = {"extra": "forbid", "use_attribute_docstrings": True}

    base: str = "https://data.commoncrawl.org/"
    """What the list's paths begin at: a URL, such as s3://commoncrawl/ too, or a folder."""
    sample: int | None = None
    """So many files of each list, chosen by a hash of the seed and their paths; null takes all."""

    def __post_init__(self) -> None:
        if self.sample is not None and self.sample < 1:
            raise TriviumError(f"corpus: crawl: sample is {self.sample}; it must be at least 1, or null for all files")
        if url := url_of(self.base):
            check(url.rstrip("/"))


def along(files: list[InputFile], settings: CrawlSettings, seed: int, scratch: Path) -> list[InputFile]:
    """The files with every list replaced by the files that it names, or a sample of them, in its order.

    Raises :class:`TriviumError` where a list cannot be read, names nothing, or names what is not there."""
    found: list[InputFile] = []
    for file in files:
        found += _listed(file, settings, seed, scratch) if file.name.lower().endswith(PATH_LISTS) else [file]
    return list({file.remote or file.path: file for file in reversed(found)}.values())[::-1]


def _listed(file: InputFile, settings: CrawlSettings, seed: int, scratch: Path) -> list[InputFile]:
    place = file.remote.url if file.remote else str(file.path)
    lines = _lines(file, place, scratch)
    for number, line in enumerate(lines, 1):
        if not line.lower().endswith(KNOWN) and not line.lower().endswith(".gz"):
            raise TriviumError(f"{place}: line {number}: {line[:80]!r} is no path of a file of a kind known here")
        if url_of(line) or line.startswith("/") or {"..", ""} & set(line.split("/")):
            raise TriviumError(f"{place}: line {number}: {line[:80]!r} is no path below crawl.base; mend the list")
    if settings.sample is not None and settings.sample < len(lines):
        chosen = sorted(lines, key=lambda line: derive(seed, "crawl", line))[:settings.sample]
        lines = [line for line in lines if line in set(chosen)]
    base = settings.base.rstrip("/")
    named = [InputFile(Path(f"{base}/{line}"), line, _source(line, file)) for line in lines]
    if url_of(base):
        remotes = describe_all(f"{base}/{line}" for line in lines)
        return [replace(one, remote=remote) for one, remote in zip(named, remotes, strict=True)]
    for one in named:
        if not one.path.is_file():
            raise TriviumError(f"{place}: names {one.name}, which is not in {base}; mend crawl.base or the list")
    return named


def _source(line: str, file: InputFile) -> str:
    """The crawl that a file is of, as in ``crawl-data/CC-MAIN-2024-10/...``; else the list's own source."""
    parts = line.split("/")
    return parts[1] if parts[0] == "crawl-data" and len(parts) > 2 else file.source


def _lines(file: InputFile, place: str, scratch: Path) -> list[str]:
    """The paths of a list, each once."""
    path = file.path
    if file.remote:
        path = scratch / f"{derive(0, 'list', file.remote.url, file.remote.state)}.paths"
        fetch(file.remote, path)
    try:
        data = path.read_bytes()
        text = (gzip.decompress(data) if data.startswith(b"\x1f\x8b") else data).decode()
    except (OSError, EOFError, zlib.error, UnicodeDecodeError):
        raise TriviumError(f"{place}: damaged; it should hold one path a line, packed with gzip or plain") from None
    if not (lines := list(dict.fromkeys(line.strip() for line in text.splitlines() if line.strip()))):
        raise TriviumError(f"{place}: names no files")
    return lines
