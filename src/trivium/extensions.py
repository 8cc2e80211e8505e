"""Code that users bring: a function or a class in a file of their own, or in an installed package.

``FILE.py:NAME`` names something in a file, ``MODULE:NAME`` something in an installed package. The file is run as a
module of its own, and may import what lies beside it. What a stage makes depends on that code, so :func:`code_files`
finds all the files whose bytes belong to its key.
"""

from __future__ import annotations

import ast
import functools
import importlib
import importlib.util
import inspect
import sys
from collections.abc import Callable, Iterator
from hashlib import blake2b
from importlib import metadata
from pathlib import Path
from types import ModuleType
from typing import Annotated, Any, TypeVar

from trivium.errors import TriviumError, nearest

GROUPS = ("rewards", "readers", "formats", "judges", "optimizers")
"""What can be registered: ``trivium.`` before each is the entry-point group of installed packages. Stages are found by
their class, and preference losses have a decorator of their own."""

_registered: dict[tuple[str, str], Any] = {}

Thing = TypeVar("Thing", bound=Callable[..., Any])


class CodeMarker:
    """Marks a setting that may name a function or a class in a file of the user's own."""


Code = Annotated[str, CodeMarker()]
"""The name of something built in, registered or offered by an installed package, ``FILE.py:NAME``, or ``MODULE:NAME``.
The bytes of the file, and of what it imports from beside it, are part of the key of a stage whose setting this is."""


def register(group: str, name: str) -> Callable[[Thing], Thing]:
    """A decorator for plugins' files: a function or a class can be named in recipes by ``name``. Raises
    :class:`TriviumError` for a group that there is not, and for a name that another file has registered."""
    if group not in GROUPS:
        raise TriviumError(f"there is no group {group!r} to register {name!r} in{nearest(group, GROUPS)}")

    def keep(thing: Thing) -> Thing:
        known = _registered.get((group, name))
        if known is not None and inspect.getsourcefile(known) != inspect.getsourcefile(thing):
            raise TriviumError(f"{group}: the name {name!r} is taken by {inspect.getsourcefile(known)}")
        _registered[group, name] = thing
        return thing
    return keep


@functools.cache
def installed(group: str) -> dict[str, metadata.EntryPoint]:
    """What installed packages offer under an entry-point group such as ``trivium.stages``, by name."""
    return {entry.name: entry for entry in metadata.entry_points(group=group)}


def names(group: str) -> list[str]:
    """What is registered or offered by installed packages in a group."""
    return [*(name for place, name in _registered if place == group), *installed(f"trivium.{group}")]


def resolve(reference: str, *groups: str) -> str:
    """``FILE.py:NAME`` or ``MODULE:NAME`` of what a text names: itself, or what is registered or offered under that
    name in one of the groups. A text that names nothing of that kind is returned as it is."""
    if file_of(reference) is not None:
        return reference
    for group in groups or GROUPS:
        if (group, reference) in _registered:
            thing = _registered[group, reference]
            return f"{inspect.getsourcefile(thing)}:{thing.__qualname__}"
        if (entry := installed(f"trivium.{group}").get(reference)) is not None:
            return entry.value
    return reference


def file_of(reference: str) -> Path | None:
    """The file that ``FILE.py:NAME`` or ``MODULE:NAME`` names; None for any other text."""
    place, colon, name = reference.rpartition(":")
    if not colon or not name.isidentifier() or "://" in reference:
        return None
    if place.endswith(".py"):
        return Path(place)
    if not all(part.isidentifier() for part in place.split(".")):
        return None
    try:
        spec = importlib.util.find_spec(place)
    except (ImportError, ValueError):
        return None
    return Path(spec.origin) if spec and spec.origin and spec.origin.endswith(".py") else None


def load_module(path: Path) -> ModuleType:
    """The module of a file, run once a process and content. While it is run, modules that lie beside it can be
    imported.

    Raises :class:`TriviumError` that names the file and the line for one that is missing or that fails."""
    if not path.is_file():
        raise TriviumError(f"{path}: no such file; the code that a recipe names is looked for from {Path.cwd()}")
    place = path.resolve()
    digest = blake2b(b"\0".join(file.read_bytes() for _, file in code_files("", place)), digest_size=8).hexdigest()
    name = f"trivium_extension_{place.stem}_{blake2b(str(place).encode(), digest_size=4).hexdigest()}_{digest}"
    if name in sys.modules:
        return sys.modules[name]
    spec = importlib.util.spec_from_file_location(name, place)
    assert spec and spec.loader
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    sys.path.insert(0, str(place.parent))
    for _, beside in code_files("", place):  # a neighbour that was imported before it was edited is read anew
        if beside != place:
            sys.modules.pop(beside.stem, None)
    importlib.invalidate_caches()
    try:
        spec.loader.exec_module(module)
    except Exception as error:
        sys.modules.pop(name, None)
        raise TriviumError(f"{path}:{_line(error, place)}: {type(error).__name__}: {error}") from error
    finally:
        sys.path.remove(str(place.parent))
    return module


def _line(error: BaseException, place: Path) -> int:
    """The last line of a file that an error passed through."""
    found, trace = 1, error.__traceback__
    while trace:
        if Path(trace.tb_frame.f_code.co_filename) == place:
            found = trace.tb_lineno
        trace = trace.tb_next
    return int(getattr(error, "lineno", None) or found) if isinstance(error, SyntaxError) else found


def load_object(reference: str) -> Any:
    """What ``FILE.py:NAME`` or ``MODULE:NAME`` names. Raises :class:`TriviumError` where there is no such file or
    name."""
    place, _, name = reference.rpartition(":")
    if place.endswith(".py"):
        module = load_module(Path(place))
    else:
        try:
            module = importlib.import_module(place)
        except Exception as error:
            raise TriviumError(f"{place} cannot be imported: {type(error).__name__}: {error}") from error
    if not hasattr(module, name):
        known = [known for known in vars(module) if not known.startswith("_")]
        raise TriviumError(f"{place}: there is no {name!r} in it{nearest(name, known)}")
    return getattr(module, name)


def code_files(where: str, path: Path) -> Iterator[tuple[str, Path]]:
    """``(where.FILE, file)`` for a file of code and every file that it imports from beside it, directly or through one
    another.

    A file that does not parse is named alone: running it will say what is wrong."""
    base, seen, todo = path.parent, set[Path](), [path]
    while todo:
        file = todo.pop(0)
        if file in seen or not file.is_file():
            continue
        seen.add(file)
        yield f"{where}.{_shown(file, base)}", file
        todo += sorted(_imported(file, base))


def _shown(file: Path, base: Path) -> str:
    return file.relative_to(base).as_posix() if file.is_relative_to(base) else file.name


def _imported(file: Path, base: Path) -> set[Path]:
    """The files in ``base``, or beside ``file``, that a file imports."""
    try:
        tree = ast.parse(file.read_bytes())
    except (SyntaxError, ValueError):
        return set()
    found: set[Path] = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            for name in node.names:
                found |= _module_files(base, name.name.split("."))
        elif isinstance(node, ast.ImportFrom):
            start = file.parents[node.level - 1] if node.level else base
            parts = node.module.split(".") if node.module else []
            found |= _module_files(start, parts)
            for name in node.names:
                found |= _module_files(start, [*parts, name.name])
    return found


def _module_files(base: Path, parts: list[str]) -> set[Path]:
    """The files of a module below ``base``, those of the packages that hold it included."""
    found: set[Path] = set()
    for end in range(1, len(parts) + 1):
        place = base.joinpath(*parts[:end])
        found |= {file for file in (place.with_suffix(".py"), place / "__init__.py") if file.is_file()}
    return found
