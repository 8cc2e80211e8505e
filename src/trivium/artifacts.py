"""Artifacts: immutable folders with a manifest that says what they are, what they were made from, and how.

An artifact's ``digest`` covers its files, apart from the records of when and how fast they were made: the same inputs,
settings and seed give the same digest.
"""

from __future__ import annotations

import contextlib
import glob
import os
import platform
import sys
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from trivium import remote
from trivium.errors import TriviumError
from trivium.files import (
    TEMPORARY,
    digest_file,
    digest_json,
    disk_errors,
    fsync_folder,
    read_json,
    sweep,
    unreadable,
    what,
    write_json,
)
from trivium.version import __version__

MANIFEST = "manifest.json"
RECORDS = {"log.jsonl", "metrics.json", "samples.md", "index.html"}
"""Files that hold timings, like all below a folder ``report``: kept and checked, but not part of the digest."""


@dataclass(frozen=True)
class Artifact:
    """A sealed folder and its manifest."""

    folder: Path
    manifest: dict[str, Any]

    @property
    def digest(self) -> str:
        """SHA-256 over the digests of its files."""
        return str(self.manifest["digest"])

    @property
    def kind(self) -> str:
        """The kind of stage that made it."""
        return str(self.manifest["kind"])

    @property
    def name(self) -> str:
        """The name of the stage that made it."""
        return str(self.manifest["name"])

    @property
    def summary(self) -> dict[str, Any]:
        """What the stage reported."""
        return dict(self.manifest["summary"])


MEND = "digest mismatch: an artifact is never edited; move the folder away and run the recipe again"
FORMAT = 1
"""The format of manifests that this program writes, and the latest that it reads."""


def read_manifest(folder: Path) -> dict[str, Any]:
    """An artifact's manifest. Raises :class:`TriviumError` where there is none, for one that is damaged, and for one
    that a later program wrote."""
    path = folder / MANIFEST
    if not path.is_file():
        raise TriviumError(f"{folder}: no artifact here ({MANIFEST} is missing)")
    manifest = read_json(path)
    if isinstance(manifest, dict) and isinstance(made := manifest.get("format", FORMAT), int) and made > FORMAT:
        versions = manifest.get("versions")
        by = versions.get("trivium") if isinstance(versions, dict) else None
        raise TriviumError(
            f"{path}: written in format {made} by {f'Trivium {by}' if by else 'a later Trivium'}; this one "
            f"({__version__}) reads formats up to {FORMAT}: update Trivium, or move the folder away")
    if wrong := damage(manifest):
        raise TriviumError(f"{path}: not a manifest ({wrong}); move the folder away and run the recipe again")
    return dict(manifest)


def damage(manifest: Any) -> str:
    """What is wrong with the shape of a manifest; nothing where all is right."""
    if not isinstance(manifest, dict):
        return f"{what(manifest)}, where an object was expected"
    contents = manifest.get("files")
    if not isinstance(contents, dict) or not all(
            isinstance(file, dict) and isinstance(file.get("sha256"), str) and isinstance(file.get("bytes"), int)
            for file in contents.values()):
        return "no list of files"
    for name in ("kind", "name", "key", "digest", "created"):
        if not isinstance(manifest.get(name), str):
            return f"`{name}` is {what(manifest.get(name))}, where a text was expected"
    for name in ("records", "inputs", "summary", "settings"):
        if not isinstance(manifest.get(name, {}), dict):
            return f"`{name}` is {what(manifest[name])}, where an object was expected"
    if not all(isinstance(made, dict) and isinstance(made.get("path"), str) and isinstance(made.get("digest"), str)
               for made in manifest.get("inputs", {}).values()):
        return "an input without a path and a digest"
    try:
        datetime.fromisoformat(manifest["created"]).timestamp()
        float(manifest["seconds"])
    except (ValueError, OverflowError, KeyError, TypeError):
        return "`created` and `seconds` are no time"
    return ""


def open_artifact(folder: Path, verify: bool = False) -> Artifact:
    """The artifact in ``folder``. Sizes are always compared with the manifest, and a file that is younger than the
    manifest is hashed; ``verify`` hashes every file, and minds hidden and temporary ones too.

    Raises :class:`TriviumError` when there is no manifest, or a file is missing, added or changed.
    """
    manifest = read_manifest(folder)
    contents, records = manifest["files"], manifest.get("records", {})
    files = {name: file["sha256"] for name, file in contents.items()} | records
    with reading(folder):
        found = {str(path.relative_to(folder)) for path in folder.rglob("*")
                 if path.is_symlink() or not path.is_dir()} - {MANIFEST}
        for name in sorted(files.keys() - found):
            raise TriviumError(f"{folder / name}: missing ({MEND})")
        sealed = (folder / MANIFEST).stat().st_mtime_ns
        for name, digest in files.items():
            path = folder / name
            state = path.stat()
            resized = name in contents and state.st_size != contents[name]["bytes"]
            if resized or ((verify or state.st_mtime_ns > sealed) and digest_file(path) != digest):
                raise TriviumError(f"{path}: changed since it was made ({MEND})")
    for name in sorted(found - files.keys()):
        if any(map(TEMPORARY.fullmatch, Path(name).parts)):
            if verify:
                raise TriviumError(f"{folder / name}: a half-written file, which a process that was killed left here; "
                                   "remove it")
        elif verify or not Path(name).name.startswith("."):
            raise TriviumError(f"{folder / name}: added since the artifact was made ({MEND})")
    if verify and (half := sorted(name for name in contents if Path(name).name.endswith(".tmp")
                                  and Path(name).name.startswith("."))):
        raise TriviumError(f"{folder / half[0]}: a half-written file, which an earlier version took for part of the "
                           "artifact; move the folder away and run the recipe again")
    return Artifact(folder, manifest)


@contextlib.contextmanager
def reading(folder: Path) -> Iterator[None]:
    """A file in a folder that goes or fails while it is read is one clear error."""
    try:
        yield
    except OSError as error:
        raise unreadable(Path(error.filename if isinstance(error.filename, str) else folder), error) from error


_checked: set[tuple[str, int, int]] = set()


def check_made(folder: Path) -> None:
    """Hash what a sealed folder holds before it is used, once per process: so a model that rotted on the disk, or was
    edited and given its old time back, is refused instead of answering. Folders without a manifest, such as models from
    elsewhere, pass; so do files that were added and that nothing would read.

    Raises :class:`TriviumError` that names the file."""
    try:
        state = (folder / MANIFEST).stat()
    except OSError:
        return
    place = (str(folder.resolve()), state.st_mtime_ns, state.st_ino)
    if place in _checked:
        return
    contents = read_manifest(folder)["files"]
    with reading(folder):
        for name, file in contents.items():
            path = folder / name
            if not path.is_file():
                raise TriviumError(f"{path}: missing ({MEND})")
            if path.stat().st_size != file["bytes"] or digest_file(path) != file["sha256"]:
                raise TriviumError(f"{path}: changed since it was made ({MEND})")
        for path in sorted(folder.iterdir()):
            if path.suffix in (".json", ".jinja", ".safetensors") and not is_record(path.name) and (
                    path.name not in contents and path.name != MANIFEST and not path.name.startswith(".")):
                raise TriviumError(f"{path}: added since the artifact was made ({MEND})")
    _checked.add(place)


def seal(folder: Path, *, kind: str, name: str, key: str, seed: int, settings: dict[str, Any], inputs: dict[str, Any],
         summary: dict[str, Any], seconds: float, peak_memory_mb: float, shared_memory_mb: float = 0.0,
         display: dict[str, Any] | None = None) -> Artifact:
    """Make ``folder`` an artifact: hash and fsync its files, and write the manifest last. ``display`` says how a
    report shows a stage that is not built in."""
    files: dict[str, dict[str, Any]] = {}
    records: dict[str, str] = {}
    with disk_errors(folder):
        sweep(folder)
        for path in sorted(folder.rglob("*")):
            if path.is_file() and path != folder / MANIFEST:
                with open(path, "rb") as file:
                    os.fsync(file.fileno())
                name_of, digest = str(path.relative_to(folder)), digest_file(path)
                if is_record(name_of):
                    records[name_of] = digest
                else:
                    files[name_of] = {"sha256": digest, "bytes": path.stat().st_size}
        for inner in (path for path in folder.rglob("*") if path.is_dir()):
            fsync_folder(inner)
    content = {path: file["sha256"] for path, file in files.items()}
    torch = sys.modules.get("torch")
    manifest = {
        "format": FORMAT,
        "kind": kind,
        "name": name,
        "key": key,
        "digest": digest_json(content),
        "seed": seed,
        "settings": settings,
        "inputs": inputs,
        "files": files,
        "records": records,
        "summary": summary,
        "seconds": seconds,
        "peak_memory_mb": peak_memory_mb,
        "shared_memory_mb": shared_memory_mb,
        "created": datetime.now(UTC).isoformat(timespec="milliseconds"),
        "versions": {
            "trivium": __version__, "python": platform.python_version(),
            **({"torch": torch.__version__} if torch else {})
        },
        **({"display": display} if display else {}),
    }
    write_json(folder / MANIFEST, manifest)
    fsync_folder(folder)
    return Artifact(folder, manifest)


Span = tuple[float, float]
"""From when to when something was done, in seconds since the epoch."""


def span_of(manifest: dict[str, Any]) -> Span:
    """When an artifact was made."""
    end = datetime.fromisoformat(manifest["created"]).timestamp()
    return end - float(manifest["seconds"]), end


def covered(spans: Iterable[Span]) -> float:
    """The seconds that lie in any of the spans."""
    total, reached = 0.0, 0.0
    for start, end in sorted(spans):
        total += max(0.0, end - max(start, reached))
        reached = max(reached, end)
    return total


def is_record(name: str) -> bool:
    """Whether a file, by its path in the artifact, tells of the making rather than being what was made."""
    return Path(name).name in RECORDS or bool({"report", "tensorboard", "checkpoints"} & set(Path(name).parts[:-1]))


def digest_path(path: Path) -> str:
    """Digest of an artifact, a file (its name and content), a folder of files (their names and contents), or all that a
    pattern with ``*`` matches (likewise, their names taken from where the pattern begins); of what lies at a URL
    :func:`trivium.remote.digest`."""
    if url := remote.url_of(path):
        return remote.digest(url)
    if "*" in str(path):
        base = Path(*path.parts[:next(i for i, part in enumerate(path.parts) if "*" in part)])
        matches = sorted(Path(match) for match in glob.glob(str(path), recursive=True))
        if not matches:
            raise TriviumError(f"{path}: no file matches this pattern")
        readable = {match for match in matches if match.is_file() or match.is_dir()}
        return digest_json({str(match.relative_to(base)): digest_path(match) if match in readable else ""
                            for match in matches})
    if (path / MANIFEST).is_file():
        return open_artifact(path).digest
    with reading(path):
        if path.is_file():
            return digest_json({path.name: digest_file(path)})  # the name says how it is read
        if path.is_dir():
            return digest_json(
                {str(file.relative_to(path)): digest_file(file)
                 for file in sorted(path.rglob("*")) if file.is_file()})
    raise TriviumError(f"{path}: no such file or folder")


def kinds_behind(folder: Path, seen: set[Path] | None = None) -> set[str]:
    """The kinds of the stages that made an artifact and all that it was made from, as far as they are still there.
    Manifests alone are read."""
    seen = set() if seen is None else seen
    place = Path(os.path.normpath(folder.absolute()))
    if place in seen or not (place / MANIFEST).is_file():
        return set()
    seen.add(place)
    manifest = read_manifest(place)
    goes_on = "start" in manifest.get("inputs", {})  # from weights that were there
    found = {"continued" if goes_on and manifest.get("kind") == "pretrain" else str(manifest.get("kind"))}
    for made in manifest.get("inputs", {}).values():
        if remote.elsewhere(made["path"]):
            continue
        found |= kinds_behind(place / made["path"], seen)
    return found


def lineage(folder: Path, depth: int = 0, field: str = "",
            told: set[Path] | None = None) -> Iterator[tuple[int, str, Path, str, bool]]:
    """``(depth, field, place, digest, changed)`` for an artifact and, below it, everything it was made from, down to
    raw documents. ``changed`` says that what is there now is not what was used; URLs and
    projects are not looked at. What an artifact was made from is told
    where it comes first, and not again below the artifact's other places; ``told`` are those that were."""
    artifact = open_artifact(folder)
    told = set() if told is None else told
    yield depth, field, folder, artifact.digest, False
    if folder in told:
        return
    told.add(folder)
    for name, made in artifact.manifest["inputs"].items():
        if remote.elsewhere(made["path"]):
            yield depth + 1, name, Path(made["path"]), made["digest"], False
            continue
        place = Path(os.path.normpath(folder / made["path"]))
        now = digest_path(place) if place.exists() or glob.glob(str(place), recursive=True) else ""
        if now != made["digest"]:  # an earlier stage was run anew: what was used may have been kept
            kept = (old.parent for old in sorted((place.parent / "superseded").glob(f"{place.name}-*/{MANIFEST}")))
            place = next((old for old in kept if digest_path(old) == made["digest"]), place)
            now = digest_path(place) if place.exists() else now
        if (place / MANIFEST).is_file() and now == made["digest"]:
            yield from lineage(place, depth + 1, name, told)
        else:
            yield depth + 1, name, place, made["digest"], now != made["digest"]
