"""What is known of the runs in a folder, finished, failed or under way: read from their files, which nothing here
writes."""

from __future__ import annotations

import contextlib
import math
import os
import threading
import time
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from trivium.artifacts import MANIFEST, Artifact, open_artifact
from trivium.errors import TriviumError
from trivium.model.check import chats
from trivium.recipe.load import is_name
from trivium.report.compare import TIMES
from trivium.report.display import Display, display_of
from trivium.report.formats import is_known_rate, is_number
from trivium.report.gather import in_order
from trivium.report.texts import figure_words
from trivium.stage import Stage
from trivium.status import is_locked, read_status

STATES = ("running", "killed", "interrupted", "failed", "finished")
"""What may become of a run. One that was killed or interrupted goes on by the same command."""
MOST_FIGURES = 6
"""Figures of a run that the list shows."""
HIDDEN = {"superseded"}
"""Folders of a run that are no stages."""


class NoSuchRun(TriviumError):
    """A name that no run has."""


@dataclass(frozen=True)
class Brief:
    """A run as the list shows it."""

    signature: tuple[int, ...]
    """Changes whenever the run's files do."""
    about: dict[str, Any]


class Runs:
    """The runs in a folder. What was read of a run is kept until its files change, and the list of all of them for a
    second, however many people look."""

    def __init__(self, root: Path, stages: Mapping[str, type[Stage]], keep: float = 1.0) -> None:
        self.root, self.stages, self.keep = root, stages, keep
        self.known: dict[str, Brief] = {}
        self.known_figures: dict[Path, tuple[int, list[dict[str, Any]]]] = {}
        self.known_stages: dict[str, tuple[tuple[Any, ...], list[dict[str, Any]]]] = {}
        self.guard = threading.Lock()
        self.list: tuple[float, float, list[dict[str, Any]]] = (-math.inf, 0.0, [])

    def folder(self, name: str) -> Path:
        """The folder of a run. Raises :class:`NoSuchRun`."""
        folder = self.root / name
        if not is_name(name) or not is_run(folder):
            raise NoSuchRun(f"there is no run {name[:80]!r} here")
        return folder

    def listed(self, text: str = "", state: str = "", first: int = 0, count: int = 50) -> dict[str, Any]:
        """``{"total", "counts", "runs"}``: a page of the runs whose names hold ``text`` and that are in a state (any,
        where it is empty), those that wrote last first; and how many there are in each state."""
        every, wanted = self.all(), text.casefold()
        found = [about for about in every if wanted in about["name"].casefold()] if wanted else every
        counts = dict.fromkeys(STATES, 0) | Counter(about["state"] for about in found)
        chosen = [about for about in found if state in ("", about["state"])]
        page = chosen[first:first + count]
        return {"total": len(chosen), "counts": counts,
                "runs": [about | {"figures": self.figures_of(self.root / about["name"])} for about in page]}

    def all(self) -> list[dict[str, Any]]:
        """What :meth:`brief` tells of every run, those that wrote last first. It is gathered anew after a second, or
        after ten times as long as it takes."""
        with self.guard:
            read, took, known = self.list
            if time.monotonic() - read > max(self.keep, 10 * took if self.keep else 0.0):
                begun = time.monotonic()
                found = sorted(self.changes(), key=lambda one: (-one[1][0], one[0]))
                known = [self.brief(name, signature) for name, signature in found]
                self.list = time.monotonic(), time.monotonic() - begun, known
            return known

    def changes(self) -> Iterator[tuple[str, tuple[int, int]]]:
        """Every run's name, and when it and its folder changed, in nanoseconds since 1970."""
        try:
            with os.scandir(self.root) as entries:
                for entry in entries:  # thousands of them: no more is asked of each than whether it has changed
                    with contextlib.suppress(FileNotFoundError):
                        if is_name(entry.name) and entry.is_dir() and (
                                entry.name in self.known or is_run(Path(entry.path))):
                            yield entry.name, signature_of(entry.path)
        except FileNotFoundError:
            return
        except OSError as error:
            raise TriviumError(f"{self.root}: cannot be read ({error.strerror})") from error

    def brief(self, name: str, signature: tuple[int, int] | None = None) -> dict[str, Any]:
        """A run's state, times, and how far it is: ``done`` of ``stages``."""
        signature = signature or signature_of(str(self.root / name))
        known = self.known.get(name)
        if known and known.signature == signature and known.about["state"] != "running":
            return known.about
        about = self.read(name, self.root / name)
        self.known[name] = Brief(signature, about)
        return about

    def read(self, name: str, folder: Path) -> dict[str, Any]:
        """The same, from its files."""
        status = read_status(folder)
        made = made_stages(folder)
        if status is None:
            begun = min((one.stat().st_mtime for one in made), default=folder.stat().st_mtime)
            ended = max((one.stat().st_mtime for one in made), default=begun)
            state = "running" if is_locked(folder) else "finished" if made else "interrupted"
            return {"name": name, "state": state, "begun": begun, "ended": ended, "stages": len(made),
                    "done": len(made), "now": [], "error": "", "recipe": "", "end": None}
        of_stages = status["stages"]
        now = [stage for stage, about in of_stages.items() if about["state"] == "running"]
        ends = [about.get("end") for about in of_stages.values() if about["state"] == "running"]
        return {"name": name, "state": status["state"], "begun": status["begun"],
                "ended": status["ended"] or signature_of(str(folder))[0] / 1e9, "stages": len(of_stages),
                "done": sum(about["state"] == "finished" for about in of_stages.values()), "now": now,
                "error": status["error"], "recipe": status["recipe"],
                "end": max((end for end in ends if end), default=None)}

    def figures_of(self, folder: Path) -> list[dict[str, Any]]:
        """The figures that the report would put first, of the last stages that have any."""
        changed = folder.stat().st_mtime_ns  # a stage that is put in its place changes it
        read, found = self.known_figures.get(folder, (-1, []))
        if read == changed:
            return found
        found = []
        for artifact in readable(folder):
            shown = display_of(artifact.manifest, self.stages)
            if shown.panel.headline in artifact.summary:
                found.append(figure_of(artifact, shown, shown.panel.headline))
        found = [one for one in found if one["value"] is not None][-MOST_FIGURES:]
        self.known_figures[folder] = changed, found
        return found

    def of(self, name: str) -> dict[str, Any]:
        """All of a run but its curves: the status, and its stages in order."""
        folder = self.folder(name)
        status = read_status(folder)
        told: dict[str, Any] = dict(status["stages"]) if status else {}
        signature = (*signature_of(str(folder)), status["state"] if status else "")
        read, stages = self.known_stages.get(name, ((), []))
        if read != signature:
            stages = [self.stage(folder, stage, told.get(stage, {}), artifact)
                      for stage, artifact in self.stages_of(folder, told).items()]
            self.known_stages[name] = signature, stages
        return self.brief(name) | {"overrides": status["overrides"] if status else [],
                                   "said": status["said"] if status else [], "stages": stages}

    def stages_of(self, folder: Path, told: Mapping[str, Any]) -> dict[str, Artifact | None]:
        """A run's stages in the order of its recipe, each with its artifact where it has one; those that the recipe no
        longer has come first."""
        made = {artifact.name: artifact for artifact in readable(folder)}
        return {name: made.get(name) for name in [*(name for name in made if name not in told), *told]}

    def stage(self, folder: Path, name: str, told: Mapping[str, Any], artifact: Artifact | None) -> dict[str, Any]:
        """One stage: what it is called, its state and progress, and what came of it."""
        about: dict[str, Any] = {"name": name, "title": [name, name], "kind": "", "figures": [], "settings": {},
                                 "inputs": {}, "state": "finished" if artifact else "waiting", "headline": "",
                                 "folder": str(folder / name), **told}
        if artifact is None or about["state"] == "running":
            return about
        shown = display_of(artifact.manifest, self.stages)
        first = [shown.panel.headline, *shown.panel.beside]
        keys = [key for key, value in artifact.summary.items() if is_number(value) or is_known_rate(value)]
        keys.sort(key=lambda key: first.index(key) if key in first else len(first))
        return about | {
            "title": [shown.title.english, shown.title.chinese], "kind": artifact.kind,
            "headline": shown.panel.headline,
            "figures": [figure_of(artifact, shown, key) for key in keys if key not in TIMES],
            "settings": {key: value for key, value in artifact.manifest["settings"].items()
                         if shown.defaults.get(key) != value},
            "inputs": {where: made["path"] for where, made in artifact.manifest["inputs"].items()},
            "seconds": artifact.manifest["seconds"], "peak_memory_mb": artifact.manifest["peak_memory_mb"],
            "chats": artifact.kind != "pretrain" and chats(artifact.folder),
            "digest": artifact.digest, "created": artifact.manifest["created"]}


def figure_of(artifact: Artifact, shown: Display, key: str) -> dict[str, Any]:
    """A figure with its words, and its interval where it has one."""
    value = artifact.summary[key]
    about = {"stage": artifact.name, "key": key, "words": list(shown.figures.get(key) or figure_words(key))}
    if is_known_rate(value):
        return about | {part: value[part] for part in ("value", "low", "high")} | {"n": value.get("n")}
    return about | {"value": value if is_number(value) else None, "low": None, "high": None, "n": None}


def is_run(folder: Path) -> bool:
    """Whether a folder is one of a run: a run worked in it, or a stage lies there."""
    return (folder / ".work").is_dir() or bool(made_stages(folder))


def made_stages(folder: Path) -> list[Path]:
    """The manifests of a run's finished stages."""
    return [path for path in folder.glob(f"*/{MANIFEST}") if path.parent.name not in HIDDEN]


def readable(folder: Path) -> list[Artifact]:
    """A run's artifacts, each after what it was made from. One whose manifest is damaged is left out; ``trivium
    verify`` names it."""
    return in_order(list(_opened(made_stages(folder))))


def _opened(manifests: Iterable[Path]) -> Iterator[Artifact]:
    for path in manifests:
        try:
            yield open_artifact(path.parent)
        except TriviumError:
            continue


def signature_of(folder: str) -> tuple[int, int]:
    """When a run last wrote, and when its folder last changed, in nanoseconds since 1970."""
    changed = os.stat(folder).st_mtime_ns
    try:
        return os.stat(f"{folder}/.work/status.json").st_mtime_ns, changed
    except OSError:
        return changed, changed
