"""Models' folders as people name them: a run's folder in their place, a misspelt one, one that is no chat model."""

from __future__ import annotations

from pathlib import Path

from trivium.errors import TriviumError, nearest
from trivium.model.check import chats, check_files, is_model

MANIFEST = "manifest.json"


def models_in(folder: Path) -> list[str]:
    """The names of the folders of models inside a folder, such as a run's."""
    inside = folder.iterdir() if folder.is_dir() else ()
    return sorted(place.name for place in inside if place.is_dir() and place.name != "superseded" and is_model(place))


def check_model(folder: Path) -> None:
    """Raise :class:`TriviumError` for what is neither a GGUF file nor the folder of a model, with what may have been
    meant: a model inside it, or a folder of nearly that name."""
    if is_model(folder):
        check_files(folder)
        return
    if folder.is_file():
        if folder.suffix.lower() != ".gguf":
            raise TriviumError(f"{folder}: a file; name the folder of a model, or a .gguf file")
        return
    if not folder.exists():
        parent = folder.parent
        beside = [place.name for place in parent.iterdir() if place.is_dir() or place.suffix == ".gguf"] if (
            parent.is_dir()) else []
        close = nearest(folder.name, beside) if beside else ""
        if "did you mean" in close:
            close = f"; did you mean {str(parent / close.split(chr(39))[1])!r}?"
        elif models_in(parent):
            close = f"; models there: {', '.join(models_in(parent))}"
        else:
            close = "" if parent.exists() else f" ({_deepest(folder)} is the last folder on the way that there is)"
        raise TriviumError(f"{folder}: no such {'file' if folder.suffix == '.gguf' else 'folder'}{close}")
    inside = [name for name in models_in(folder) if chats(folder / name)] or models_in(folder)
    if inside:
        raise TriviumError(f"{folder} is the folder of a run; name one of its models: "
                           f"{', '.join(str(folder / name) for name in inside)}")


def check_artifact(folder: Path) -> None:
    """Raise :class:`TriviumError` for the folder of a run, or for one that is not there, with what may have been
    meant."""
    if not folder.exists():
        check_model(folder)
    inside = [place.parent.name for place in sorted(folder.glob(f"*/{MANIFEST}")) if place.parent.name != "superseded"]
    if inside and not (folder / MANIFEST).is_file():
        raise TriviumError(f"{folder} is the folder of a run; name one of its stages: "
                           f"{', '.join(str(folder / name) for name in inside)}")


def artifacts_of(folder: Path) -> list[Path]:
    """The artifacts of a run's folder, or the one that the folder is. Raises :class:`TriviumError` for a folder that is
    neither."""
    inside = [place.parent for place in sorted(folder.glob(f"*/{MANIFEST}")) if place.parent.name != "superseded"]
    if inside and not (folder / MANIFEST).is_file():
        return inside
    check_artifact(folder)
    return [folder]


def _deepest(folder: Path) -> Path:
    return next(parent for parent in folder.absolute().parents if parent.exists())
