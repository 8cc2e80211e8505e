"""Files at URLs: ``s3://``, ``gs://``, ``hdfs://`` and what else fsspec knows; ``https://`` by Python's own client.

A :class:`Remote` is an object as a listing shows it, with the mark by which its store tells its states apart (its ETag,
else when it was changed). Its bytes are fetched in ranges that are asked for again where a connection breaks, hashed
as they come, and refused where the mark is another one before or after. Where a :class:`~pathlib.Path` is expected, a
URL goes by as one that has lost a slash, which :func:`url_of` gives back.

Credentials are the store's own affair (``AWS_ACCESS_KEY_ID``, ``~/.aws`` ...). A URL that needs one
itself names an environment variable, ``https://host/file?${SIGNATURE}``, which is looked up when the store is asked and
no earlier: recipes, manifests, tasks and errors hold its name alone. What libraries say of an error may quote the URL
that was asked for, so it is never shown.
"""

from __future__ import annotations

import base64
import hashlib
import json
import os
import re
import shutil
import time
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any, TypeVar
from urllib.error import HTTPError
from urllib.parse import unquote, urlsplit
from urllib.request import Request, urlopen

from trivium.errors import TriviumError, extra
from trivium.files import digest_json, disk_errors

RANGE = 16 << 20
TRIES = 7
"""How often a range is asked for before the stage ends; the pauses between grow from 0.1 to 3.2 seconds."""
THREADS = 32
_URL = re.compile(r"(?!project:)([a-z][a-z0-9+.-]+):/{1,2}(?=[^/])")
_PROJECT = "project:"
_VARIABLE = re.compile(r"\$\{(\w+)\}")
_SECRET = re.compile(r"key|token|sig|secret|pass|auth|cred", re.IGNORECASE)
_MARKS = ("ETag", "etag", "generation", "Content-MD5", "Last-Modified", "LastModified", "mtime", "modificationTime",
          "created")
_Answer = TypeVar("_Answer")


@dataclass(frozen=True)
class Remote:
    """An object at a URL, its size in bytes where the store tells it, and the mark of its state."""

    url: str
    size: int | None
    state: str
    ranges: bool = True
    """Whether the store gives parts of it."""


def url_of(place: str | Path) -> str | None:
    """The URL that a text or a path stands for; None for a place on this machine."""
    found = _URL.match(str(place))
    return f"{found[1]}://{str(place)[found.end():]}" if found else None


def project_of(place: str | Path) -> str | None:
    """The feedback project that ``project:NAME`` names: a folder, or the URL of its database; None for anything else.
    """
    return str(place).removeprefix(_PROJECT) if str(place).startswith(_PROJECT) else None


def elsewhere(place: str | Path) -> str | None:
    """A URL or a project as a recipe names it; None for what lies in a folder of this machine."""
    return url_of(place) or (str(place) if project_of(place) is not None else None)


def name_of(url: str) -> str:
    """The last part of a URL's path."""
    return PurePosixPath(url.partition("?")[0] if _is_http(url) else url).name


def check(url: str) -> None:
    """Raise :class:`TriviumError` for a URL that holds a secret, or that a path cannot stand for."""
    scheme, rest = url.split("://", 1)
    place, _, query = rest.partition("?") if _is_http(url) else (rest, "", "")
    host, _, path = place.rpartition("@") if _is_http(url) or "@" in place.split("/")[0] else ("", "", place)
    shown = f"{scheme}://{path}"
    name, _, password = host.partition(":")
    if _VARIABLE.sub("", password) or (not password and _VARIABLE.sub("", name)):
        raise TriviumError(f"{shown}: the URL holds a password, which would be stored with the results; "
                           "write ${NAME} in their place, and set the environment variable NAME")
    for part in query.split("&"):
        name, _, value = part.partition("=")
        left = _VARIABLE.sub("", value or name)
        if left and (len(left) > 8 or _SECRET.search(name)):
            raise TriviumError(f"{shown}: what follows the ? may hold a secret, which would be stored with the "
                               "results; write ${NAME} in its place, and set the environment variable NAME")
    if "//" in path or {".", ".."} & set(path.split("/")):
        raise TriviumError(f"{shown}: holds an empty folder, . or ..; name the place without them")


def describe(url: str) -> Remote:
    """The object at a URL. Raises :class:`TriviumError` where there is none."""
    system, path = _system(url)
    return _remote(url, _asked(url, lambda: system.info(path)))


def describe_all(urls: Iterable[str]) -> list[Remote]:
    """:func:`describe` for many, several at a time."""
    with ThreadPoolExecutor(THREADS) as threads:
        return list(threads.map(describe, urls))


def is_file(url: str) -> bool:
    """Whether an object lies at a URL."""
    system, path = _system(url)
    try:
        return bool(_asked(url, lambda: system.info(path))["type"] == "file")
    except _Missing:
        return False


def listing(url: str) -> list[tuple[str, Remote]]:
    """``(name, object)`` for every file that a URL names, sorted: one object (whose name is its own), all below a
    folder, or all that a pattern with ``*`` matches (their names as seen from the folder where it begins). Hidden ones
    are passed over. Raises :class:`TriviumError` where there is none."""
    check(url)
    system, path = _system(url)
    base = url
    if "*" in path:
        if _is_http(url):
            raise TriviumError(f"{url}: a web server does not say what it holds; name its files one by one")
        found = _asked(url, lambda: system.glob(path, detail=True))
        base = url.split("*")[0].rpartition("/")[0]
        found = {key: info for key, info in found.items() if info["type"] == "file"}
    elif is_file(url):
        return [(name_of(url), describe(url))]
    elif _is_http(url):
        raise TriviumError(f"{url}: no such file on the server")
    else:
        found = _asked(url, lambda: system.find(path, detail=True))
    top = str(system._strip_protocol(_resolved(base))).rstrip("/") + "/"
    rows = []
    for key, info in sorted(found.items()):
        name = key.removeprefix(top)
        if not key.endswith("/") and not any(part.startswith(".") for part in name.split("/")):
            rows.append((name, _remote(f"{base.rstrip('/')}/{name}", info)))
    if not rows:
        raise TriviumError(f"{url}: holds no files; mend the URL, or look whether this machine may list it")
    return rows


def digest(url: str) -> str:
    """What tells one state of a URL from another, without its bytes: the digest in the manifest of an artifact, or one
    of the names, sizes and marks of what is there."""
    manifest = manifest_of(url)
    if manifest is not None:
        return str(manifest.get("digest"))
    return digest_json({name: [item.size, item.state] for name, item in listing(url)})


def manifest_of(url: str) -> dict[str, Any] | None:
    """The manifest of an artifact at a URL, None where there is none."""
    check(url)
    if _is_http(url) or "*" in url or not is_file(f"{url}/manifest.json"):
        return None
    system, path = _system(f"{url}/manifest.json")
    try:
        found = json.loads(_asked(url, lambda: system.cat_file(path)))
    except ValueError:
        found = None
    if not isinstance(found, dict):
        raise TriviumError(f"{url}/manifest.json: not a manifest")
    return found


def fetch(item: Remote, target: Path) -> str:
    """Write an object's bytes to ``target``; their SHA-256.

    Raises :class:`TriviumError` where it cannot be read, or is no longer what was listed."""
    before = describe(item.url)
    _same(item, before)
    system, path = _system(item.url)
    found = hashlib.sha256()
    with disk_errors(target), open(target, "wb") as file:
        if before.ranges and before.size is not None:
            for start in range(0, before.size, RANGE):
                stop = min(start + RANGE, before.size)
                data = _asked(item.url, lambda: _whole_range(system, path, start, stop))  # noqa: B023
                found.update(data)
                file.write(data)
        else:
            _asked(item.url, lambda: _copied(system, path, file))
            file.flush()
            with open(target, "rb") as again:
                found = hashlib.file_digest(again, "sha256")
    _same(item, describe(item.url))
    return found.hexdigest()


def publish(folder: Path, url: str, manifest: dict[str, Any]) -> bool:
    """Copy an artifact to a URL, its manifest last, so that what is half copied is none; whether anything had to be
    done. An artifact that is there already and is another loses its manifest first, and at last what the new one does
    not have."""
    check(url)
    if _is_http(url):
        raise TriviumError(f"{url}: a web server takes no files here; publish to s3://, gs:// or hdfs://")
    there = manifest_of(url)
    if there == manifest:
        return False
    names = [*manifest["files"], *manifest["records"]]
    if there is not None:
        _removed(url, ["manifest.json"])
    with ThreadPoolExecutor(8) as threads:
        list(threads.map(lambda name: _put(folder / name, f"{url}/{name}"), names))
    _put(folder / "manifest.json", f"{url}/manifest.json")
    if there is not None:
        _removed(url, {*there.get("files", {}), *there.get("records", {})} - set(names))
    return True


def _put(file: Path, url: str) -> None:
    system, path = _system(url)

    def put() -> None:
        system.makedirs(path.rpartition("/")[0], exist_ok=True)
        system.put_file(str(file), path)
        if system.info(path)["size"] != file.stat().st_size:
            raise OSError("torn")

    _asked(url, put)


def _removed(url: str, names: Iterable[str]) -> None:
    for name in sorted(names):
        system, path = _system(f"{url}/{name}")
        if is_file(f"{url}/{name}"):
            _asked(url, lambda: system.rm_file(path))  # noqa: B023


def _same(listed: Remote, now: Remote) -> None:
    if (listed.size, listed.state) != (now.size, now.state):
        raise TriviumError(f"{listed.url}: was changed after it was listed; run the same command again, which reads "
                           "what is there now")


def _whole_range(system: Any, path: str, start: int, stop: int) -> bytes:
    data: bytes = system.cat_file(path, start=start, end=stop)
    if len(data) != stop - start:
        raise OSError("torn")
    return data


def _copied(system: Any, path: str, file: Any) -> None:
    """A whole object, from its beginning."""
    file.seek(0)
    file.truncate()
    with system.open(path) as stream:
        shutil.copyfileobj(stream, file)
        if stream.headers["Content-Length"] not in (None, str(file.tell())):
            raise OSError("torn")


class _Missing(TriviumError):
    """Nothing lies at a URL."""


def _asked(url: str, ask: Callable[[], _Answer]) -> _Answer:
    """What a store answers; where a connection breaks it is asked again. Raises :class:`TriviumError`."""
    for tried in range(1, TRIES + 1):
        try:
            return ask()
        except FileNotFoundError:
            raise _Missing(f"{url}: nothing is there; mend the URL") from None
        except Exception as error:
            status = getattr(error, "code", None) if isinstance(error, HTTPError) else getattr(error, "status", None)
            kind = type(error).__name__
            if status in (404, 410):
                raise _Missing(f"{url}: nothing is there; mend the URL") from None
            if isinstance(error, PermissionError) or status in (401, 403):
                raise TriviumError(f"{url}: access is denied; look at this machine's credentials for it") from None
            if "Credentials" in kind:
                raise TriviumError(f"{url}: no credentials are found on this machine; set those of its store "
                                   "(for S3 AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or ~/.aws)") from None
            if isinstance(error, (NotImplementedError, TypeError, AttributeError)):
                raise
            if tried == TRIES:
                why = f"the server answers {status}" if status else "the connection breaks off, or nobody answers"
                raise TriviumError(f"{url}: {why}, {TRIES} times; the same command goes on from what is done"
                                   ) from None
        time.sleep(0.05 * 2**tried)
    raise AssertionError


def _is_http(url: str) -> bool:
    return url.startswith(("http://", "https://"))


def _resolved(url: str) -> str:
    """A URL with the values of the environment variables that it names."""

    def value(match: re.Match[str]) -> str:
        if match[1] not in os.environ:
            raise TriviumError(f"{url}: there is no environment variable {match[1]}; set it, or take it out of the URL")
        return os.environ[match[1]]

    return _VARIABLE.sub(value, url)


def _system(url: str) -> tuple[Any, str]:
    """The file system of a URL and the path in it. Raises :class:`TriviumError` where it is not known."""
    if _is_http(url):
        return _Web(), _resolved(url)
    with extra("remote"):
        from fsspec.core import url_to_fs
        once = {"config_kwargs": {"retries": {"total_max_attempts": 1}}} if url.startswith(("s3:", "s3a:")) else {}
        try:
            system, path = url_to_fs(_resolved(url), use_listings_cache=False, **once)
        except ValueError:
            raise TriviumError(f"{url}: not a kind of place known here; known are s3://, gs://, hdfs:// and https://"
                               ) from None
    if once:
        system.retries = 1  # it is asked again here, however it fails
    return system, str(path)


def _remote(url: str, info: dict[str, Any]) -> Remote:
    if info["type"] != "file":
        raise _Missing(f"{url}: a folder, where a file was expected")
    mark = next((str(info[name]) for name in _MARKS if info.get(name)), "")
    return Remote(url, info.get("size"), mark, info.get("ranges", True))


class _Web:
    """Web servers, as much of them as is read here. What a URL holds before its @ goes to its own host alone."""

    @staticmethod
    def _strip_protocol(url: str) -> str:
        return url

    def open(self, url: str, **headers: str) -> Any:
        """The answer to a request for a URL."""
        parts = urlsplit(url)
        user, _, host = parts.netloc.rpartition("@")
        request = Request(parts._replace(netloc=host).geturl(), headers=headers)
        if user:
            key = base64.b64encode(unquote(user).encode()).decode()
            request.add_unredirected_header("Authorization", f"Basic {key}")
        return urlopen(request, timeout=60)

    def info(self, url: str) -> dict[str, Any]:
        """Size and marks, by a request for the first byte: a URL that is signed for reading may refuse others."""
        try:
            with self.open(url, Range="bytes=0-0") as answer:
                headers, ranges = answer.headers, answer.status == 206
        except HTTPError as error:
            if error.code != 416:  # there is no first byte
                raise
            headers, ranges = error.headers, False
        size = headers["Content-Range"].rpartition("/")[2] if headers["Content-Range"] else headers["Content-Length"]
        known = str(size).isdigit()
        return {"type": "file", "size": int(size) if known else None, "ranges": ranges and known, **dict(headers)}

    def cat_file(self, url: str, start: int, end: int) -> bytes:
        """The bytes from ``start`` to before ``end``."""
        with self.open(url, Range=f"bytes={start}-{end - 1}") as answer:
            if answer.status != 206:
                raise OSError("a part was asked for, and the whole came")
            data: bytes = answer.read()
        return data
