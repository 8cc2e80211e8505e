"""Raw documents from files of every common kind.

:func:`find` turns paths, folders and globs into a sorted list of files; :func:`read` turns one file into documents.
What cannot be read comes out too, as :class:`Malformed` with its file, row and reason, so that nothing disappears.
"""

from __future__ import annotations

import errno
import glob
import json
import os
import stat
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from hashlib import blake2b
from io import BytesIO
from pathlib import Path, PurePosixPath
from typing import IO, Any, TypeVar

from trivium.data.encodings import as_utf8, is_file
from trivium.data.json_text import json_lines, json_rows
from trivium.data.page_text import decode_page
from trivium.data.plain_text import decode, is_text, newlines, split_text, without_front_matter
from trivium.data.separated import separated_rows
from trivium.data.sheets import sheet_rows
from trivium.data.tables import arrow_rows, parquet_rows
from trivium.data.unpack import ARCHIVES, COMPRESSED, DAMAGE, Bad, Budget, decompress, members
from trivium.data.warc import warc_rows
from trivium.errors import TriviumError
from trivium.extensions import load_object, resolve
from trivium.files import is_away, unreadable, what
from trivium.remote import Remote, listing, name_of, url_of

MOST_ROWS, ROWS_PER_BYTE = 100_000, 1
"""A file of more rows has at most so many for each of its bytes on the disk."""
ROWS = (".jsonl", ".ndjson")
LIST = (".json",)
HTML = (".html", ".htm", ".xhtml")
MARKDOWN = (".md", ".markdown")
PROSE = (*MARKDOWN, ".txt", ".text")
TABLE = (".parquet", ".arrow", ".feather")
SHEETS = (".xlsx",)
OLD_SHEETS = (".xls", ".xlsb", ".ods", ".numbers", ".et")
SEPARATED = (".csv", ".tsv")
CRAWL = (".warc", ".wet")
OLD_CRAWL = (".arc",)
UNKNOWN = {
    **dict.fromkeys((".pdf", ".ps", ".djvu"),
                    "; make text of it first, as with pdftotext, or give a reader of your own"),
    **dict.fromkeys((".doc", ".docx", ".odt", ".rtf", ".epub", ".ppt", ".pptx"),
                    "; make text or HTML of it first, as with pandoc, or give a reader of your own")
}
"""What to do with files of some kinds that are not read here."""
KNOWN = (*ROWS, *LIST, *HTML, *PROSE, *TABLE, *SHEETS, *SEPARATED, *CRAWL, *ARCHIVES)


@dataclass
class Document:
    """One raw document. Either ``text`` or ``html`` is given. ``id`` is the row's own, or made of the file, the row and
    a digest of the content."""

    id: str
    text: str | None
    html: str | None
    url: str | None
    source: str
    metadata: dict[str, Any] = field(default_factory=dict)
    file: str = ""
    row: int = 1


@dataclass
class Malformed:
    """A row or file that holds no document, and why. ``row`` is 0 when the whole file is meant."""

    id: str
    file: str
    row: int
    reason: str
    text: str
    source: str


@dataclass(frozen=True)
class Limits:
    """How much one file may hold."""

    book_characters: int = 20_000
    """Longer texts in plain text and Markdown files are split at paragraphs into documents of at most this length."""
    max_document_bytes: int = 64 << 20
    """The longest row, and the largest file of a kind that is read whole."""
    max_page_bytes: int = 16 << 20
    """The largest HTML page."""
    max_unpacked_bytes: int = 64 << 30
    """The most that one compressed file or archive may unpack to."""
    readers: dict[str, str] = field(default_factory=dict)
    """Functions of the user's own that read files, as ``FILE.py:NAME``, by the suffix of the files' names."""
    fields: dict[str, str] = field(default_factory=dict)
    """What rows call the fields ``text``, ``html``, ``id``, ``url`` and ``source``, where they call them otherwise."""
    encoding: str | None = None
    """The character set of text files with rows; None tells it by their bytes."""
    unwrap: bool = False
    """Whether a JSON object that holds a list of objects under ``data`` or the like is a file of those rows."""
    heads: frozenset[str] | None = None
    """Names of which the first line of a CSV must hold one, in small letters, or it is a row; None takes any."""


@dataclass(frozen=True)
class InputFile:
    """A file to read: its path here, its name in ids and rejects (the same on every machine), and the default
    source."""

    path: Path
    name: str
    source: str
    remote: Remote | None = None
    """The object that is meant where it lies at a URL: it is fetched before it is read."""

    @property
    def size(self) -> int:
        """Its bytes; 0 where a web server does not tell, and for what is no file."""
        if self.remote is not None:
            return self.remote.size or 0
        return 0 if irregular(self.path) else self.path.stat().st_size


def find(inputs: Iterable[Path], further: Iterable[str] = (), any_kind: bool = False) -> list[InputFile]:
    """Every file that the inputs name: files, folders (recursively, sorted; hidden files are passed over) and globs,
    here or at URLs.

    Raises :class:`TriviumError` for a file that is named by itself and is of no known kind, unless ``any_kind`` are
    read; ``further`` suffixes are known too."""
    found: list[InputFile] = []
    for given in inputs:
        path, before = Path(given), len(found)
        if url := url_of(path):
            found += _at_url(url, further, any_kind)
        elif path.is_file():
            _check_kind(str(path), path.name, further, any_kind)
            found.append(InputFile(path, path.name, path.name))
        elif path.is_dir():
            label = path.resolve().name
            found += [InputFile(file, f"{label}/{file.relative_to(path).as_posix()}", label) for file in _walk(path)]
        elif path.is_symlink() or path.exists():
            raise TriviumError(f"{path}: {irregular(path)}; mend the path under the corpus stage's inputs")
        elif glob.has_magic(str(path)):
            base = Path(*_fixed(path.parts))
            label = base.resolve().name
            for match in sorted(glob.glob(str(path), recursive=True)):
                files = _walk(Path(match)) if os.path.isdir(match) else [Path(match)]
                found += [InputFile(file, f"{label}/{file.relative_to(base).as_posix()}", label) for file in files]
        else:
            raise TriviumError(f"{path}: no such file or folder; mend the path under the corpus stage's inputs")
        if len(found) == before:
            raise TriviumError(f"{path}: holds no files; name a folder, file or glob with documents in it")
    if not found:
        raise TriviumError("the corpus has no inputs; name at least one file, folder or glob of documents")
    # a file named twice is read once
    return list({file.remote or file.path: file for file in reversed(found)}.values())[::-1]


def _check_kind(place: str, name: str, further: Iterable[str], any_kind: bool) -> None:
    if not any_kind and PurePosixPath(name.lower()).suffix in OLD_SHEETS:
        raise TriviumError(f"{place}: a spreadsheet of a kind that is not read; save it as .xlsx or CSV")
    if not any_kind and not name.lower().endswith((*KNOWN, *OLD_CRAWL, *COMPRESSED, *further)):
        raise TriviumError(f"{place}: not a kind of file known here; known are {', '.join(KNOWN)}, and these "
                           f"compressed as {', '.join(COMPRESSED)}")


def _at_url(url: str, further: Iterable[str], any_kind: bool) -> list[InputFile]:
    """The files that a URL names, called as those of a folder or a glob of its name would be."""
    files = listing(url)
    if [file.url for _, file in files] == [url]:
        _check_kind(url, files[0][0], further, any_kind)
        return [InputFile(Path(url), name, name, file) for name, file in files]
    label = name_of(url.split("*")[0].rpartition("/")[0] if "*" in url else url)
    return [InputFile(Path(file.url), f"{label}/{name}", label, file) for name, file in files]


def _fixed(parts: tuple[str, ...]) -> Iterator[str]:
    for part in parts:
        if glob.has_magic(part):
            return
        yield part


def _walk(folder: Path) -> list[Path]:
    """All files below a folder; links to folders are among them. Raises :class:`TriviumError` for a folder that cannot
    be looked into."""
    files: list[Path] = []

    def fail(error: OSError) -> None:
        raise unreadable(Path(error.filename or folder), error) from error

    for parent, folders, names in os.walk(folder, onerror=fail):
        folders[:] = [name for name in folders if not name.startswith(".")]
        links = [name for name in folders if os.path.islink(Path(parent, name))]
        files += [Path(parent, name) for name in (*names, *links) if not name.startswith(".")]
    return sorted(files, key=lambda file: file.relative_to(folder).as_posix())


def read(file: InputFile, limits: Limits = Limits(), met: set[str] | None = None) -> Iterator[Document | Malformed]:
    """The documents of one file, in order, and its malformed rows where they stand. ``met`` gathers which of
    ``limits.fields`` its rows hold."""
    met = set() if met is None else met
    try:
        yield from _capped(_read(file, limits, met), file.path)
    except Bad as bad:
        yield _malformed(file.name, 0, bad, file.source)
    except OSError as error:
        if is_away(error):
            raise unreadable(file.path, error) from error
        yield _malformed(file.name, 0, Bad(f"cannot be read: {error.strerror or 'an unknown fault of the disk'}"),
                         file.source)


def _read(file: InputFile, limits: Limits, met: set[str]) -> Iterator[Document | Malformed]:
    row = 0
    budget = Budget(limits.max_unpacked_bytes)
    own = limits.readers.get(PurePosixPath(file.name.lower()).suffix)
    if own:
        for name, row, value in rows_by(own, file):
            yield (_malformed(name, row, value, file.source) if isinstance(value, Bad) else
                   _document(name, row, value, file.source, limits.max_page_bytes))
        return
    with opened(file.path) as stream:
        if not file.name.lower().endswith(ARCHIVES):
            yield from _read_member(file.name, stream, file.source, budget, limits, met)
            return
        for name, member in members(stream, file.name, budget):
            if not any(part.startswith(".") or part == "__MACOSX" for part in PurePosixPath(name).parts):
                row += 1
                yield from _read_member(f"{file.name}/{name}", member, file.source, budget, limits, met)
        if row == 0:
            raise Bad("an archive without files")


def opened(path: Path) -> IO[bytes]:
    """A file to read. Raises :class:`Bad` for what is no file: a link to nothing, a folder, a pipe that may never
    end."""
    fault = irregular(path)
    if fault:
        raise Bad(fault)
    return open(path, "rb")


def irregular(path: Path) -> str | None:
    """Why something in a folder cannot be read as a file; None where it can be, or where only opening it tells."""
    try:
        kind = path.stat().st_mode
    except (FileNotFoundError, NotADirectoryError):
        return "a link to a file that is not there" if path.is_symlink() else None
    except OSError as error:
        return None if is_away(error) else f"cannot be read: {error.strerror}"
    if stat.S_ISREG(kind):
        return None
    if stat.S_ISDIR(kind):
        return ("a link to a folder, which is not followed; name the folder itself among the inputs"
                if path.is_symlink() else "a folder that cannot be looked into")
    kinds = [name for is_one, name in ((stat.S_ISFIFO, "a pipe"), (stat.S_ISSOCK, "a socket")) if is_one(kind)]
    return f"{kinds[0] if kinds else 'a device'}, not a file"


T = TypeVar("T")


def _capped(found: Iterator[T], path: Path) -> Iterator[T]:
    """Rows as long as a file can mean so many: what is packed to less than a byte a row repeats itself. A lack of
    memory ends the file alone."""
    most: float = MOST_ROWS
    try:
        for number, one in enumerate(found, 1):
            if number > most:
                most = max(MOST_ROWS, ROWS_PER_BYTE * path.stat().st_size)
                if number > most:
                    raise Bad(f"more than {most:,} rows, which a file of {path.stat().st_size:,} bytes cannot mean; "
                              "the rest was not read: unpack it first if it is meant to be")
            yield one
    except MemoryError as error:
        raise Bad("needs more memory than there is") from error


def rows(file: InputFile, limits: Limits = Limits(), say: Callable[[str], None] = lambda text: None,
         wanted: Callable[[str], bool] = lambda name: True) -> Iterator[tuple[str, int, dict[str, Any] | Bad]]:
    """``(file, row from 1, the row or what is bad about it)`` of a file of rows, compressed or in an archive; files of
    other kinds inside an archive, and those whose names are not ``wanted``, are passed over. ``say`` is told what was
    guessed of a file: its character set, or what separates its columns."""
    place: list[Any] = [file.name, 0]
    try:
        yield from _capped(_every_row(file, limits, say, wanted, place), file.path)
    except Bad as bad:
        yield place[0], place[1] + 1, bad
    except OSError as error:
        if is_away(error):
            raise unreadable(file.path, error) from error
        yield place[0], place[1] + 1, Bad(f"cannot be read: {error.strerror or 'an unknown fault of the disk'}")


def _every_row(file: InputFile, limits: Limits, say: Callable[[str], None], wanted: Callable[[str], bool],
               at: list[Any]) -> Iterator[tuple[str, int, dict[str, Any] | Bad]]:
    """:func:`rows`, but that damage to the whole file is raised; ``at`` is brought up to date with where that is."""
    budget = Budget(limits.max_unpacked_bytes)
    with opened(file.path) as stream:
        archive = file.name.lower().endswith(ARCHIVES)
        for name, member in members(stream, file.name, budget) if archive else [("", stream)]:
            place = f"{file.name}/{name}" if name else file.name
            if archive and not (isinstance(member, Bad) and name == DAMAGE) and not (has_rows(name) and wanted(name)):
                continue
            at[:] = place, 0
            try:
                if isinstance(member, Bad):
                    raise member
                for at[1], value in _rows(place, member, budget, limits, True, _told(say, place)):
                    yield place, at[1], value
            except Bad as bad:
                yield place, at[1] + 1, bad


def _told(say: Callable[[str], None], place: str) -> Callable[[str], None]:
    return lambda text: say(f"{place}: {text}")


def rows_by(reader: str, file: InputFile) -> Iterator[tuple[str, int, dict[str, Any] | Bad]]:
    """What :func:`rows` gives, by a function of the user's own: it is given a path and yields mappings. What it raises
    is what is bad about the row that it stood at."""
    function = load_object(resolve(reader, "readers"))
    number = 0
    try:
        for number, row in enumerate(function(file.path), 1):
            yield file.name, number, row if isinstance(row, dict) else Bad(
                f"{reader} yields a {type(row).__name__}, where a mapping of fields was expected", str(row)[:2000])
    except Exception as error:
        if is_away(error) and not file.path.is_file():
            raise unreadable(file.path, OSError(errno.ENOENT, "it went away while it was read")) from error
        yield file.name, number + 1, Bad(f"{reader} raises {type(error).__name__}: {error}")
        return
    if number == 0:
        yield file.name, 0, Bad(f"{reader} finds no row in it")


def has_rows(name: str) -> bool:
    """Whether a file of that name holds rows: JSON, JSON lines, CSV, Parquet, Arrow or Excel, compressed or not."""
    path = PurePosixPath(name.lower())
    return (path.with_suffix("") if path.suffix in COMPRESSED else path).suffix in (
        *ROWS, *LIST, *TABLE, *SHEETS, *SEPARATED)


def _read_member(name: str, stream: IO[bytes] | Bad, source: str, budget: Budget, limits: Limits,
                 met: set[str]) -> Iterator[Document | Malformed]:
    row = 0
    fields = limits.fields if has_rows(name) else {}  # a page or a Markdown file has no names of its own
    name, source = (part.encode("utf-8", "replace").decode() for part in (name, source))
    try:
        if isinstance(stream, Bad):
            raise stream
        for row, value in _rows(name, stream, budget, limits):
            if isinstance(value, Bad):
                yield _malformed(name, row, value, source)
            else:
                met.update(other for other in fields.values() if other in value)
                yield _document(name, row, renamed(value, fields) if fields else value, source, limits.max_page_bytes)
        if row == 0:
            raise Bad("empty file")
    except Bad as bad:
        yield _malformed(name, row and row + 1, bad, source)


def _rows(name: str, stream: IO[bytes], budget: Budget, limits: Limits, any_columns: bool = False,
          say: Callable[[str], None] = lambda text: None) -> Iterator[tuple[int, dict[str, Any] | Bad]]:
    """``(row from 1, the row)`` of a stream that is no archive."""
    lower = name.lower()
    suffix = PurePosixPath(lower).suffix
    if suffix in COMPRESSED and not lower.endswith(ARCHIVES):
        inner = PurePosixPath(PurePosixPath(lower).stem).suffix
        if suffix == ".gz" and inner in CRAWL:  # read member by member, so that damage costs one record only
            yield from warc_rows(stream, True, budget, limits.max_page_bytes)
            return
        stream, suffix = decompress(stream, suffix, budget), inner
    if any_columns and suffix == ".txt":
        data = _whole(stream, limits.max_document_bytes)
        stream, suffix = BytesIO(data), ".tsv" if _has_columns(data, limits.encoding) else suffix
    if suffix in (*SEPARATED, *LIST) or (any_columns and suffix in ROWS):
        stream, encoding = as_utf8(stream, limits.encoding)
        if encoding != "utf-8" and limits.encoding is None:
            say(f"read as {encoding}")
    most = limits.max_document_bytes
    advice = "" if any_columns else "; raise max_document_bytes if it is meant to be"
    if suffix in ROWS:
        yield from json_lines(stream, most, advice)
    elif suffix in LIST:
        yield from json_rows(stream, most, limits.unwrap, advice, say)
    elif suffix in HTML:
        yield 1, {"html": decode_page(_whole(stream, limits.max_page_bytes, "max_page_bytes"))}
    elif suffix in PROSE:
        text = newlines(decode(_whole(stream, most)))
        if suffix in MARKDOWN:
            text = without_front_matter(text)
        for row, piece in enumerate(split_text(text, limits.book_characters), 1):
            yield row, {"text": piece}
    elif suffix in SEPARATED:
        yield from separated_rows(stream, "\t" if suffix == ".tsv" else None, most, say, limits.heads)
    elif suffix in CRAWL:
        yield from warc_rows(stream, False, budget, limits.max_page_bytes)
    elif suffix in (*TABLE, *SHEETS):
        yield from _table(suffix, stream, budget, limits, any_columns)
    elif lower.endswith(ARCHIVES):
        raise Bad("an archive inside an archive is not opened")
    elif suffix in OLD_CRAWL:
        raise Bad("an ARC archive, the format before WARC; convert it with: warcio recompress IN.arc.gz OUT.warc.gz")
    else:
        raise Bad(f"not a kind of file known here ({suffix or 'no suffix'}){UNKNOWN.get(suffix, '')}")


def _table(suffix: str, stream: IO[bytes], budget: Budget, limits: Limits,
           any_columns: bool) -> Iterator[tuple[int, dict[str, Any] | Bad]]:
    """Rows of a table that is no text; one inside an archive or compressed must fit into memory."""
    if not is_file(stream):
        stream = BytesIO(_whole(stream, limits.max_document_bytes, "" if any_columns else "max_document_bytes"))
    if suffix in SHEETS:
        return sheet_rows(stream, budget, limits.max_document_bytes)
    read_table = parquet_rows if suffix == ".parquet" else arrow_rows
    return read_table(stream, budget, limits.max_document_bytes, None if any_columns else _roles(limits))


def _roles(limits: Limits) -> dict[str, str]:
    """What the columns are that are read of a table, by their names there."""
    own = ("text", "html", "id", "url", "source")
    return {**{name: name for name in own}, **{there: here for here, there in limits.fields.items()}}


def _has_columns(data: bytes, encoding: str | None) -> bool:
    """Whether a plain text is a table: its lines hold tabs, as many each (Excel's "Unicode text")."""
    start = as_utf8(BytesIO(data), encoding)[0].read(1 << 16)
    lines = [line for line in start.splitlines()[:20] if line.strip()]
    return len(lines) > 1 and len({line.count(b"\t") for line in lines}) == 1 and b"\t" in lines[0]


def _whole(stream: IO[bytes], limit: int, setting: str = "max_document_bytes") -> bytes:
    data = stream.read(limit + 1)
    if len(data) > limit:
        raise Bad(f"a file of more than {limit:,} bytes; " + (
            f"raise {setting} if it is meant to be" if setting else "unpack it first"))
    return data


def _document(file: str, row: int, value: dict[str, Any], source: str, page_bytes: int) -> Document | Malformed:
    text, html = value.get("text"), value.get("html")
    given = value.get("source")
    source = given if isinstance(given, str) and given and is_text(given) else source
    for name, content in (("text", text), ("html", html)):
        if content is not None and not isinstance(content, str):
            bad = Bad(f"no text: {name} is {what(content)}", str(content)[:2000])
            return _malformed(file, row, bad, source)
    content = text if isinstance(text, str) and text.strip() else html
    if not isinstance(content, str) or not content.strip():
        longest = max(value, key=lambda name: len(value[name]) if isinstance(value[name], str) else 0, default="")
        names = "" if {"text", "html"} & set(value) else (
            f"; the row has {', '.join(value)[:200]}; name the one to read under fields, as in {{text: {longest}}}"
            if value else "; the row has no fields")
        bad = Bad(f"no text: neither text nor html holds any{names}",
                      json.dumps(value, default=str, ensure_ascii=False)[:2000])
        return _malformed(file, row, bad, source)
    if content is not text and 4 * len(content) > page_bytes and len(content.encode("utf-8", "replace")) > page_bytes:
        return _malformed(
            file, row,
            Bad(f"a page of more than {page_bytes:,} bytes; raise max_page_bytes if it is meant to be", content[:2000]),
            source)
    if "\0" in content:
        return _malformed(file, row, Bad("null byte in the text", content.replace("\0", "\ufffd")), source)
    if not is_text(content):
        return _malformed(file, row, Bad("invalid Unicode: half of a surrogate pair", content), source)
    url, given = value.get("url"), value.get("id")
    has_id = isinstance(given, (str, int)) and str(given) and is_text(str(given))
    return Document(
        id=str(given) if has_id else make_id(file, row, content),
        text=newlines(text).strip() if content is text else None,
        html=None if content is text else html,
        url=url if isinstance(url, str) and is_text(url) else None, source=source, file=file, row=row,
        metadata={k: v for k, v in value.items() if k not in ("id", "text", "html", "url", "source")})


def renamed(row: dict[str, Any], fields: dict[str, str]) -> dict[str, Any]:
    """A row with the names that its fields have here, given ``{name here: name there}``; a field that it does not hold
    under the name there keeps its own, so that files with and without such names can be mixed."""
    there = {name: row[other] for name, other in fields.items() if other in row}
    return {**{name: value for name, value in row.items() if name not in fields.values()}, **there}


def make_id(file: str, row: int, content: str) -> str:
    """An id that tells where a document came from and stays the same from run to run."""
    return f"{file}:{row}#{blake2b(content.encode('utf-8', 'replace'), digest_size=4).hexdigest()}"


def _malformed(file: str, row: int, bad: Bad, source: str) -> Malformed:
    # both may quote the row
    reason, text = (said.encode("utf-8", "replace").decode() for said in (bad.reason, bad.text[:2000]))
    return Malformed(make_id(file, row, bad.text), file, row, reason, text, source)
