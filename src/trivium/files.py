"""Files that are never half written, and rows that are never silently lost."""

from __future__ import annotations

import contextlib
import errno
import hashlib
import json
import os
import threading
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

from trivium.errors import TriviumError


@contextlib.contextmanager
def disk_errors(path: Path) -> Iterator[None]:
    """Turn a full or forbidden disk into one clear error that names the path."""
    try:
        yield
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise TriviumError(f"{path}: the disk is full; free some space and run the same command again: it goes on "
                               "from what is already there") from error
        if error.errno in (errno.EACCES, errno.EPERM, errno.EROFS):
            raise TriviumError(f"{path}: cannot be written ({error.strerror}); choose another folder or mend its rights"
                               ) from error
        raise


def fsync_folder(folder: Path) -> None:
    """Make renames inside ``folder`` durable."""
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


@contextlib.contextmanager
def written_aside(path: Path) -> Iterator[Path]:
    """A place beside ``path`` to write a file at, so that a crash leaves either the old one or the new one: at the end
    it is fsynced and renamed, after an error removed."""
    with disk_errors(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        aside = path.with_name(f".{path.name}.{os.getpid()}.tmp")
        try:
            try:
                yield aside
            except Exception as error:
                full = next((number for number in (errno.ENOSPC, errno.EDQUOT) if f"os error {number}" in str(error)),
                            None)
                if full is None:
                    raise
                raise OSError(full, os.strerror(full)) from error  # safetensors has errors of its own
            with open(aside, "rb+") as file:
                os.fsync(file.fileno())
            os.replace(aside, path)
            fsync_folder(path.parent)
        finally:
            aside.unlink(missing_ok=True)


def write_bytes(path: Path, data: bytes) -> None:
    """Write a file, whole or not at all."""
    with written_aside(path) as aside:
        aside.write_bytes(data)


def write_text(path: Path, text: str) -> None:
    """:func:`write_bytes` for UTF-8 text."""
    write_bytes(path, text.encode())


def write_json(path: Path, value: Any) -> None:
    """:func:`write_bytes` for indented JSON with sorted keys, the same bytes for the same value."""
    write_text(path, json.dumps(value, indent=1, sort_keys=True, ensure_ascii=False, allow_nan=False) + "\n")


def write_rows(path: Path, rows: Iterable[dict[str, Any]]) -> int:
    """:func:`write_bytes` for JSONL; returns the number of rows."""
    lines = [json.dumps(row, ensure_ascii=False, allow_nan=False) for row in rows]
    write_text(path, "".join(line + "\n" for line in lines))
    return len(lines)


def what(value: Any) -> str:
    """What a JSON value is, in words."""
    kinds = {dict: "an object", list: "a list", str: "a text", bool: "true or false", int: "a number",
             float: "a number", type(None): "null"}
    return kinds.get(type(value), "something else")


def read_json(path: Path) -> Any:
    """A JSON file, or a :class:`TriviumError` that names it and the place of the fault."""
    try:
        return json.loads(read_text(path))
    except json.JSONDecodeError as error:
        raise TriviumError(f"{path}: line {error.lineno}: not valid JSON ({error.msg})") from error
    except RecursionError as error:
        raise TriviumError(f"{path}: not valid JSON (too many brackets within brackets)") from error
    except ValueError as error:
        raise TriviumError(f"{path}: not valid JSON (a number of more digits than are read)") from error


def _missing(path: Path) -> str:
    """What to say of a file that is not there: that its folder is not, or what the folder holds instead."""
    if not path.parent.exists():
        return f"{path.parent}: no such folder"
    try:
        kind = json.loads((path.parent / "manifest.json").read_bytes())["kind"]
    except (OSError, ValueError, KeyError, TypeError):
        return f"{path}: no such file"
    return f"{path}: no such file; the folder is what a stage of the kind {kind!r} made"


def read_text(path: Path) -> str:
    """A UTF-8 file, or a :class:`TriviumError` that names the file and the byte."""
    try:
        return path.read_bytes().decode("utf-8-sig")
    except (FileNotFoundError, NotADirectoryError) as error:
        raise TriviumError(_missing(path)) from error
    except IsADirectoryError as error:
        raise TriviumError(f"{path}: a folder, where a file was expected") from error
    except PermissionError as error:
        raise TriviumError(f"{path}: cannot be read ({error.strerror}); mend its rights") from error
    except UnicodeDecodeError as error:
        raise TriviumError(f"{path}: byte {error.start}: not valid UTF-8; convert the file to UTF-8") from error


Row = dict[str, Any]
"""A row of JSON lines: field names to values."""

Reject = Callable[[str, int, str, str], None]
"""Called for a bad row as ``reject(file, row number from 1, reason, the row's text)``."""


def raise_reject(file: str, row: int, reason: str, text: str) -> None:
    """The strict :data:`Reject`: the first bad row ends the run."""
    raise TriviumError(f"{file}: row {row}: {reason}")


def read_rows(path: Path, reject: Reject = raise_reject) -> Iterator[tuple[int, dict[str, Any]]]:
    """``(row number from 1, object)`` for each line of a JSONL file; a line that is not a JSON object in UTF-8, or
    that spells half of a surrogate pair, goes to ``reject`` and reading goes on. Blank lines are skipped."""
    try:
        file = open(path, "rb")
    except (FileNotFoundError, NotADirectoryError) as error:
        raise TriviumError(f"{path}: no such file") from error
    except IsADirectoryError as error:
        raise TriviumError(f"{path}: a folder, where a file was expected") from error
    except PermissionError as error:
        raise TriviumError(f"{path}: cannot be read ({error.strerror}); mend its rights") from error
    with file:
        for number, line in enumerate(file, 1):
            if number == 1:
                line = line.removeprefix(b"\xef\xbb\xbf")
            if not line.strip():
                continue
            try:
                row = json.loads(line)
            except UnicodeDecodeError as error:
                reject(str(path), number, f"byte {error.start} of the line is not valid UTF-8",
                       line.decode("utf-8", "replace"))
            except (ValueError, RecursionError) as error:
                reject(str(path), number, f"not valid JSON ({str(error)[:120]})", line.decode("utf-8", "replace"))
            else:
                if not isinstance(row, dict):
                    reject(str(path), number, f"a JSON object was expected, not {what(row)}", line.decode())
                elif b"\\ud" in line.lower() and not _is_text(row):
                    reject(str(path), number, "half of a surrogate pair (\\ud...), which is no text", line.decode())
                else:
                    yield number, row


def _is_text(row: Row) -> bool:
    """Whether all texts of a row can be written as UTF-8."""
    try:
        json.dumps(row, ensure_ascii=False).encode()
    except UnicodeEncodeError:
        return False
    return True


class Journal:
    """Answers by key in a file of JSON lines, each on the disk as soon as it is there, so that none is asked for twice.
    For several threads."""

    def __init__(self, path: Path) -> None:
        self.path, self.known, self.lock = path, dict[str, str](), threading.Lock()
        path.parent.mkdir(parents=True, exist_ok=True)
        for line in path.read_bytes().splitlines() if path.exists() else ():
            try:
                row = json.loads(line)
                self.known[row["key"]] = row["answer"]
            except (ValueError, KeyError, TypeError):
                break  # a line torn by a crash
        write_rows(path, ({"key": key, "answer": answer} for key, answer in self.known.items()))

    def __call__(self, key: str, ask: Callable[[], str]) -> str:
        """The answer under ``key``; ``ask`` is called where there is none yet."""
        if key not in self.known:
            answer = ask()
            with self.lock, open(self.path, "a", encoding="utf-8") as file:
                self.known[key] = answer
                file.write(json.dumps({"key": key, "answer": answer}) + "\n")
                file.flush()
                os.fsync(file.fileno())
        return self.known[key]


RECIPES = Path(__file__).with_name("recipes")
"""The recipes, checkers and tasks that come with the package."""


def shipped(path: Path) -> Path:
    """``path`` or, where nothing lies there and it begins with ``recipes/``, the package's own file of that name: what
    works in a checkout works with the package alone."""
    own = RECIPES.joinpath(*path.parts[1:])
    return own if path.parts[:1] == ("recipes",) and not path.exists() and own.exists() else path


def digest_file(path: Path) -> str:
    """SHA-256 of a file's bytes, in hexadecimal."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def digest_json(value: Any) -> str:
    """SHA-256 of a JSON value in canonical form."""
    return hashlib.sha256(json.dumps(value, sort_keys=True, ensure_ascii=False).encode()).hexdigest()
