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
from collections.abc import Callable, Iterable, Iterator, Mapping
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
        if known is not None and (inspect.getsourcefile(known), known.__qualname__) != (inspect.getsourcefile(thing),
                                                                                        thing.__qualname__):
            raise TriviumError(f"{group}: the name {name!r} is taken by {known.__qualname__} in "
                               f"{inspect.getsourcefile(known)}")
        if "<" in thing.__qualname__:
            raise TriviumError(f"{group}: {name!r} must be a function or a class at the top level of its file, not "
                               f"{thing.__qualname__}")
        _registered[group, name] = thing
        return thing
    return keep


def installed(group: str) -> dict[str, metadata.EntryPoint]:
    """What installed packages offer under an entry-point group such as ``trivium.stages``, by name."""
    return _installed(group, tuple(sys.path))


@functools.lru_cache
def _installed(group: str, _: tuple[str, ...]) -> dict[str, metadata.EntryPoint]:
    return {entry.name: entry for entry in metadata.entry_points(group=group)}


def names(group: str) -> list[str]:
    """What is registered or offered by installed packages in a group."""
    return [*(name for place, name in _registered if place == group), *installed(f"trivium.{group}")]


def resolve(reference: str, group: str) -> str:
    """``FILE.py:NAME`` or ``MODULE:NAME`` of what a text names: itself, or what is registered or offered under that
    name in a group. A text that names nothing of that kind is returned as it is."""
    if file_of(reference) is not None:
        return reference
    if (group, reference) in _registered:
        thing = _registered[group, reference]
        return f"{inspect.getsourcefile(thing)}:{thing.__qualname__}"
    entry = installed(f"trivium.{group}").get(reference)
    return reference if entry is None else entry.value


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


_seen: dict[Path, str] = {}
"""The digest of each file of code when it was last run in this process."""


_imported_later: set[Path] = set()
"""Neighbours that functions of code that was run import when they are called."""


def digest_code(file: Path) -> str:
    """A digest of a file's bytes."""
    return blake2b(file.read_bytes(), digest_size=16).hexdigest()


def edited_since_loaded(files: Iterable[Path]) -> list[Path]:
    """The files that do not hold any more what this process runs of them."""
    return [file for file in files if _seen.get(file.resolve(), digest := digest_code(file)) != digest]


def load_module(path: Path) -> ModuleType:
    """The module of a file, run once a process and content. Modules that lie beside it can be imported by it.

    Raises :class:`TriviumError` that names the file and the line for one that is missing or that fails, and for a
    neighbour whose name the neighbour of another file has."""
    if not path.is_file():
        raise TriviumError(f"{path}: no such file; the code that a recipe names is looked for from {Path.cwd()}")
    if path.suffix != ".py":
        raise TriviumError(f"{path}: code is a Python file, whose name ends in .py")
    place = path.resolve()
    digests = {file.resolve(): digest_code(file) for _, file in code_files("", place)}
    whole = blake2b("".join(digests.values()).encode(), digest_size=8).hexdigest()
    name = f"trivium_extension_{place.stem}_{blake2b(str(place).encode(), digest_size=4).hexdigest()}_{whole}"
    if name in sys.modules:
        _seen.update(digests)
        return sys.modules[name]
    forget_neighbours(place, digests)
    spec = importlib.util.spec_from_file_location(name, place)
    assert spec and spec.loader
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    folder = str(place.parent)
    if folder in sys.path:
        sys.path.remove(folder)
    sys.path.insert(0, folder)  # in front while it is run
    importlib.invalidate_caches()
    try:
        spec.loader.exec_module(module)
    except (Exception, SystemExit) as error:
        sys.modules.pop(name, None)
        raise TriviumError(f"{path}:{line_of(error, place)}: {type(error).__name__}: {error}") from error
    finally:
        sys.path.remove(folder)
        sys.path.append(folder)  # behind everything, for what its functions import when they are called
    _seen.update(digests)
    for file in digests:
        _imported_later.update(_imported(file, place.parent, None, later=True) & digests.keys())
    return module


def forget_neighbours(place: Path, digests: Mapping[Path, str]) -> None:
    """Take out of memory the modules that a file imports from beside it, where one of them was edited since, and others
    of their names: what has imported those keeps them.

    Raises :class:`TriviumError` where other code will import a module of such a name later."""
    neighbours = {".".join(file.relative_to(place.parent).with_suffix("").parts).removesuffix(".__init__"): file
                  for file in digests if file != place and file.is_relative_to(place.parent)}
    edited = any(file in _seen and _seen[file] != digests[file] for file in neighbours.values())
    for name, file in neighbours.items():
        source = getattr(sys.modules.get(name), "__file__", None)
        loaded = Path(source).resolve() if source else None
        if loaded in _seen and loaded != file and loaded in _imported_later:
            raise TriviumError(f"{file} has the name of {loaded}, which other code imports; rename one of the two")
        if loaded in _seen and (loaded != file or edited):  # what has imported an edited one holds parts of it
            del sys.modules[name]


def line_of(error: BaseException, place: Path) -> int:
    """The last line of a file that an error passed through; 1 where it passed through none."""
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
        except (Exception, SystemExit) as error:
            raise TriviumError(f"{place} cannot be imported: {type(error).__name__}: {error}") from error
    if not hasattr(module, name):
        known = [known for known in vars(module) if not known.startswith("_")]
        raise TriviumError(f"{place}: there is no {name!r} in it{nearest(name, known)}")
    return getattr(module, name)


def check_reference(where: str, reference: str) -> None:
    """Raise :class:`TriviumError` where ``FILE.py:NAME`` names no file, or nothing that stands at its top level. The
    file is not run."""
    place, _, name = reference.rpartition(":")
    file = file_of(reference)
    if file is None or not place.endswith(".py"):
        return
    if not file.is_file():
        raise TriviumError(f"{where}: {file}: no such file; it is looked for from {Path.cwd()}")
    try:
        tree = ast.parse(file.read_bytes())
    except (SyntaxError, ValueError) as error:
        line = getattr(error, "lineno", None) or 1
        raise TriviumError(f"{where}: {file}:{line}: {type(error).__name__}: {error}") from error
    defined = set(_top_level(tree.body))
    if "*" not in defined and name not in defined:
        raise TriviumError(f"{where}: {file}: there is no {name!r} in it{nearest(name, defined)}")


def _top_level(body: Iterable[ast.stmt]) -> Iterator[str]:
    """The names that statements define, those inside ``if`` and ``try`` included; ``*`` where that cannot be said."""
    for node in body:
        if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)):
            yield node.name
        elif isinstance(node, (ast.Import, ast.ImportFrom)):
            yield from ((alias.asname or alias.name).partition(".")[0] for alias in node.names)
        elif isinstance(node, (ast.Assign, ast.AnnAssign)):
            targets = node.targets if isinstance(node, ast.Assign) else [node.target]
            yield from (part.id for target in targets for part in ast.walk(target) if isinstance(part, ast.Name))
        elif isinstance(node, (ast.If, ast.Try, ast.With, ast.For)):
            yield from _top_level([part for part in ast.walk(node) if isinstance(part, ast.stmt) and part is not node])


def code_files(where: str, path: Path) -> Iterator[tuple[str, Path]]:
    """``(where.FILE, file)`` for a file of code and every file that it imports from beside it, directly or through one
    another: of a file in a package all that it imports of the package, of an installed one nothing else.

    A file that does not parse is named alone: running it will say what is wrong."""
    base = path.parent
    while (base / "__init__.py").is_file():
        base = base.parent
    inside = path.parent != base or any(base.glob("*.dist-info"))
    own = path.relative_to(base).parts[0].removesuffix(".py") if inside else None
    seen, todo = set[Path](), [path]
    while todo:
        file = todo.pop(0)
        if file in seen or not file.is_file():
            continue
        seen.add(file)
        yield f"{where}.{file.relative_to(base).as_posix() if file.is_relative_to(base) else file.name}", file
        todo += sorted(_imported(file, base, own))


def _imported(file: Path, base: Path, own: str | None, later: bool = False) -> set[Path]:
    """The files in ``base``, or beside ``file``, that a file imports; only those of the package ``own``, if given;
    ``later`` only those that its functions import when they are called."""
    try:
        tree = ast.parse(file.read_bytes())
    except (SyntaxError, ValueError):
        return set()
    found: set[Path] = set()
    roots = [node for node in ast.walk(tree) if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef, ast.Lambda))]
    for node in (part for root in (roots if later else [tree]) for part in ast.walk(root)):
        if isinstance(node, ast.Import):
            for name in node.names:
                found |= _module_files(base, name.name.split("."), own)
        elif isinstance(node, ast.ImportFrom):
            start = file.parents[node.level - 1] if node.level else base
            parts = node.module.split(".") if node.module else []
            for names in [parts, *([*parts, name.name] for name in node.names)]:
                found |= _module_files(start, names, None if node.level else own)
    return found


def _module_files(base: Path, parts: list[str], own: str | None) -> set[Path]:
    """The files of a module below ``base``, those of the packages that hold it included."""
    if own is not None and parts[:1] != [own]:
        return set()
    found: set[Path] = set()
    for end in range(1, len(parts) + 1):
        place = base.joinpath(*parts[:end])
        found |= {file for file in (place.with_suffix(".py"), place / "__init__.py") if file.is_file()}
    return found
