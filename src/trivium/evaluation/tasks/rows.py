"""Files of rows that tasks name: JSON lines, JSON, Parquet or CSV, compressed or in an archive."""

from __future__ import annotations

import glob
import struct
import zipfile
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from trivium.data.readers import InputFile, find, rows
from trivium.data.unpack import Bad
from trivium.errors import TriviumError
from trivium.files import Row, read_text
from trivium.tokenizer.chat import check_messages


def place_of(task_file: Path, name: str) -> Path:
    """A file that a task names: beside the task's file if it is there, else from the folder that the command runs
    in."""
    beside = task_file.parent / name
    matches = glob.has_magic(name) and glob.glob(str(beside), recursive=True)
    return beside if beside.exists() or matches else Path(name)


def read_files(task_file: Path, names: Iterable[str], inner: str = "") -> Iterator[tuple[str, int, Row]]:
    """``(file, row from 1, row)`` of all the files that a task names; ``inner`` is the field that holds the rows.

    Raises :class:`TriviumError` for a file that is not there and a row that is none."""
    for name in names:
        for file in _matches(task_file, name):
            for where, number, row in _rows(file):
                stem = Path(where).name.partition(".")[0]
                if inner:
                    yield from ((where, index, {"stem": stem, **part})
                                for index, part in _inner_rows(row, inner, where, number))
                else:
                    yield where, number, {"stem": stem, **row}


def messages_of(prompt: Any, where: str) -> list[dict[str, Any]]:
    """A prompt as chat messages: it may be a text. Raises :class:`TriviumError` that begins with ``where``."""
    messages = [{"role": "user", "content": prompt}] if isinstance(prompt, str) else prompt
    try:
        check_messages(messages)
    except TriviumError as error:
        raise TriviumError(f"{where}: prompt: {error}") from error
    return [dict(message) for message in messages]


def conversation_of(row: Row, where: str) -> list[dict[str, Any]]:
    """A row's ``messages`` up to the assistant's last, or its ``prompt`` with its ``answer`` as a conversation. Raises
    :class:`TriviumError` that begins with ``where`` for a row that has neither, and where nothing is answered."""
    if "messages" in row:
        try:
            messages = [dict(message) for message in check_messages(row["messages"])]
        except TriviumError as error:
            raise TriviumError(f"{where}: messages: {error}") from error
    else:
        missing = next((name for name in ("prompt", "answer") if name not in row), None)
        if missing:
            raise TriviumError(f"{where}: the field {missing!r} is missing; a row has `messages`, or `prompt` and "
                               f"`answer` (it has {', '.join(sorted(set(row) - {'stem'})) or 'nothing'})")
        messages = [*messages_of(row["prompt"], where), {"role": "assistant", "content": str(row["answer"])}]
    last = max((place for place, message in enumerate(messages) if message["role"] == "assistant"), default=0)
    if not last or not (str(messages[last]["content"]).strip() or messages[last].get("tool_calls")):
        raise TriviumError(f"{where}: the assistant says nothing after a question here, so there is no answer")
    return messages[:last + 1]


def _matches(task_file: Path, name: str) -> list[Path]:
    """The files of a name or a pattern."""
    place = place_of(task_file, name)
    files = sorted(map(Path, glob.glob(str(place), recursive=True))) if glob.has_magic(name) else [place]
    if not files or not files[0].exists():
        raise TriviumError(f"{task_file}: data: {name}: no such file beside it or in {Path.cwd()}; change it in the "
                           "file, or with --set 'data=[PATH]'")
    return files


def _inner_rows(row: Row, inner: str, where: str, number: int) -> Iterator[tuple[int, Row]]:
    """The rows in a field of a row, numbered from 1."""
    if not isinstance(row.get(inner), list):
        raise TriviumError(f"{where}: row {number}: the field {inner!r} is missing or no list")
    for index, part in enumerate(row[inner], 1):
        if not isinstance(part, dict):
            raise TriviumError(f"{where}: row {index} of {inner!r}: a JSON object was expected")
        yield index, part


def _rows(file: Path) -> Iterator[tuple[str, int, Row]]:
    if file.suffix.lower() in (".txt", ".md"):
        yield str(file), 1, {"text": read_text(file)}
        return
    tables: list[str] = _csv_names(file) if file.suffix.lower() == ".zip" else []
    for source in find([file]):
        for wanted in tables or [""]:  # of an archive with CSV those alone, in the order of their names
            yield from _rows_of(file, source, wanted)


def _rows_of(file: Path, source: InputFile, wanted: str) -> Iterator[tuple[str, int, Row]]:
    for where, number, row in rows(source, wanted=lambda name: wanted in ("", name)):
        if any(part.startswith((".", "__MACOSX")) for part in Path(where).parts):
            continue  # what some systems put into their archives
        where = str(file) if where == file.name else f"{file.parent / where}"
        if isinstance(row, Bad):
            raise TriviumError(f"{where}: row {number}: {row.reason}")
        yield where, number, row


def _csv_names(file: Path) -> list[str]:
    """The CSV files in a zip archive; none of one that is damaged, which its reader will tell."""
    try:
        with zipfile.ZipFile(file) as archive:
            return sorted(name for name in archive.namelist() if name.lower().endswith(".csv"))
    except (zipfile.BadZipFile, ValueError, OSError, NotImplementedError, struct.error):
        return []
