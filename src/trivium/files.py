"""Files that are never half written, and rows that are never silently lost."""

from __future__ import annotations

import contextlib
import errno
import hashlib
import json
import os
import re
import shutil
import tempfile
import threading
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

from trivium.errors import TriviumError

FULL = (errno.ENOSPC, errno.EDQUOT)
FORBIDDEN = (errno.EACCES, errno.EPERM, errno.EROFS)
IN_THE_WAY = (errno.EEXIST, errno.ENOTDIR, errno.EISDIR)
LOST = (errno.EIO, errno.ESTALE, errno.ENODEV, errno.ENXIO, errno.ETIMEDOUT, errno.EREMOTEIO, errno.ENOTCONN,
        errno.EHOSTDOWN, errno.EHOSTUNREACH, errno.ECONNRESET)
"""What disks and network drives say that fail, or are away for a moment."""
NO_FOLDER_FSYNC = (errno.EINVAL, errno.ENOSYS, errno.EOPNOTSUPP, errno.EBADF, errno.EISDIR, errno.EACCES, errno.EPERM)
"""How file systems say that they cannot fsync, or open, a folder: renames in it are then as safe as they make them."""


@contextlib.contextmanager
def disk_errors(path: Path) -> Iterator[None]:
    """Turn a full, forbidden or limited disk into one clear error that names the path."""
    try:
        yield
    except OSError as error:
        if said := refusal(error, path):
            raise TriviumError(said) from error
        raise


def refusal(error: OSError, path: Path) -> str | None:
    """In plain words why something could not be written at or below ``path``, and the mend; None where it is no matter
    of the disk."""
    kind, place = error.errno, error.filename if isinstance(error.filename, str) else path
    if kind in FULL or (kind is None and " requested and " in str(error)):  # NumPy's words for a short write
        if kind == errno.ENOSPC and out_of_inodes(path):
            return (f"{path}: the disk has no room for more files (it is out of inodes, not of bytes); remove some "
                    "files and run the same command again: it goes on from what is already there")
        return (f"{path}: the disk is full; free some space and run the same command again: it goes on from what is "
                "already there")
    if kind in FORBIDDEN:
        return f"{place}: cannot be written ({error.strerror}); choose another folder or mend its rights"
    if kind == errno.EFBIG:
        return f"{path}: a file may not be that large here; raise the limit (ulimit -f) or choose another file system"
    if kind == errno.ENAMETOOLONG:
        return f"{str(place)[:120]}...: a name or path is too long for this file system; choose a shorter one"
    if kind in IN_THE_WAY:
        return f"{place}: something else is in the way of what is to be written there; move it away"
    if kind in LOST:
        return (f"{place}: the disk or network drive failed ({error.strerror}); run the same command again when it is "
                "back")
    return None


def out_of_inodes(path: Path) -> bool:
    """Whether the file system around ``path`` can hold no further file, although it has room for bytes."""
    try:
        state = os.statvfs(next(folder for folder in (path, *path.absolute().parents) if folder.exists()))
    except (OSError, StopIteration):
        return False
    return state.f_files > 0 and state.f_favail == 0 and state.f_bavail > 0


def fsync_folder(folder: Path) -> None:
    """Make renames inside ``folder`` durable, where the file system knows how to."""
    try:
        handle = os.open(folder, os.O_RDONLY)
    except OSError as error:
        if error.errno in NO_FOLDER_FSYNC:
            return
        raise
    try:
        os.fsync(handle)
    except OSError as error:
        if error.errno not in NO_FOLDER_FSYNC:
            raise
    finally:
        os.close(handle)


TEMPORARY = re.compile(r"\.(?P<name>.+)\.(?P<process>\d+)\.[^.]+\.tmp", re.DOTALL)
"""The names of folders in which something is written until it is whole. Whatever is called so belongs to nothing."""


@contextlib.contextmanager
def room_beside(path: Path) -> Iterator[Path]:
    """An empty folder beside ``path`` in which to make what is to stand there; it goes at the end. Those that killed
    processes left of the same name go at the beginning."""
    path.parent.mkdir(parents=True, exist_ok=True)
    short = path.name.encode()[:100].decode(errors="ignore")
    with contextlib.suppress(OSError):
        for left in path.parent.iterdir():
            named = TEMPORARY.fullmatch(left.name)
            if named and named["name"] == short and not runs(int(named["process"])):
                shutil.rmtree(left, ignore_errors=True)
    room = Path(tempfile.mkdtemp(prefix=f".{short}.{os.getpid()}.", suffix=".tmp", dir=path.parent))
    try:
        yield room
    finally:
        shutil.rmtree(room, ignore_errors=True)


def runs(process: int) -> bool:
    """Whether a process of that number is alive here."""
    try:
        os.kill(process, 0)
    except (ProcessLookupError, OverflowError):
        return False
    except PermissionError:
        pass
    return True


def sweep(folder: Path) -> None:
    """Remove every temporary (:data:`TEMPORARY`) at any depth below a folder that nobody else writes."""
    for parent, folders, _ in os.walk(folder):
        for name in [name for name in folders if TEMPORARY.fullmatch(name)]:
            folders.remove(name)
            shutil.rmtree(Path(parent, name), ignore_errors=True)


@contextlib.contextmanager
def written_aside(path: Path) -> Iterator[Path]:
    """A place to write a file at, so that a crash leaves either the old one at ``path`` or the new one: at the end it
    is fsynced and renamed, after an error removed. Whatever writes it, it gets the rights of the user's umask."""
    with disk_errors(path), room_beside(path) as room:
        aside = room / path.name
        aside.touch()
        rights = aside.stat().st_mode & 0o777
        try:
            yield aside
        except Exception as error:
            known = next((number for number in (*FULL, errno.EFBIG) if f"os error {number}" in str(error)), None)
            if known is None:
                raise
            raise OSError(known, os.strerror(known)) from error  # safetensors has errors of its own
        with contextlib.suppress(PermissionError):  # file systems without rights
            aside.chmod(rights)
        with open(aside, "rb+") as file:
            os.fsync(file.fileno())
        os.replace(aside, path)
        fsync_folder(path.parent)


@contextlib.contextmanager
def made_aside(folder: Path) -> Iterator[Path]:
    """:func:`written_aside` for a folder with files in it, in the place of none or of an empty one."""
    with disk_errors(folder), room_beside(folder) as room:
        aside = room / folder.name
        aside.mkdir()
        yield aside
        for place in sorted(aside.rglob("*"), reverse=True):
            if place.is_dir():
                fsync_folder(place)
            else:
                with open(place, "rb") as file:
                    os.fsync(file.fileno())
        fsync_folder(aside)
        os.replace(aside, folder)
        fsync_folder(folder.parent)


def usual_rights(folder: Path) -> None:
    """Give the files in a folder the rights of the user's umask, where a library made them private."""
    with room_beside(folder / "rights") as room:
        (room / "usual").touch()
        rights = (room / "usual").stat().st_mode & 0o777
    for place in folder.iterdir():
        if place.is_file() and not place.is_symlink():
            with contextlib.suppress(PermissionError):
                place.chmod(rights)


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


def unreadable(path: Path, error: OSError) -> TriviumError:
    """The fault that a file could not be read, although nothing is wrong with what it holds."""
    if error.errno in (errno.EACCES, errno.EPERM):
        return TriviumError(f"{path}: cannot be read ({error.strerror}); mend its rights")
    return TriviumError(f"{path}: cannot be read ({error.strerror or error}); run the same command again when it can")


def is_away(error: BaseException) -> bool:
    """Whether a file could not be read because it, its disk or the right to it is gone, for a moment perhaps; not
    because of what it holds."""
    return isinstance(error, OSError) and error.errno in (*LOST, *FORBIDDEN, *IN_THE_WAY, errno.ENOENT, errno.ENOMEM,
                                                          errno.EMFILE, errno.ENFILE, errno.ELOOP)


def read_text(path: Path) -> str:
    """A UTF-8 file, or a :class:`TriviumError` that names the file and the byte."""
    try:
        return path.read_bytes().decode("utf-8-sig")
    except (FileNotFoundError, NotADirectoryError) as error:
        raise TriviumError(_missing(path)) from error
    except IsADirectoryError as error:
        raise TriviumError(f"{path}: a folder, where a file was expected") from error
    except OSError as error:
        raise unreadable(path, error) from error
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
        with open(path, "rb") as file:
            for number, line in enumerate(file, 1):
                yield from _row_of(path, number, line, reject)
    except (FileNotFoundError, NotADirectoryError) as error:
        raise TriviumError(f"{path}: no such file") from error
    except IsADirectoryError as error:
        raise TriviumError(f"{path}: a folder, where a file was expected") from error
    except OSError as error:
        raise unreadable(path, error) from error


def _row_of(path: Path, number: int, line: bytes, reject: Reject) -> Iterator[tuple[int, Row]]:
    """The row that a line holds, unless it is blank or goes to ``reject``."""
    if number == 1:
        line = line.removeprefix(b"\xef\xbb\xbf")
    if not line.strip():
        return
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
    text = json.dumps(value, sort_keys=True, ensure_ascii=False)
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()  # names of files may be no UTF-8
