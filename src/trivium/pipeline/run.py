"""Runs a recipe: stage after stage, or side by side, each skipped when an artifact of the same inputs and settings is
there."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import time
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import IO, Any

from trivium import remote
from trivium.artifacts import (
    MANIFEST,
    Artifact,
    Span,
    covered,
    open_artifact,
)
from trivium.errors import TriviumError
from trivium.files import FORBIDDEN, disk_errors, read_json
from trivium.model.check import check_files
from trivium.pipeline.one_stage import Runners, cores, find, need, plan, run_stage, shown_as
from trivium.pipeline.projects import taken
from trivium.pipeline.workers import run_beside
from trivium.progress import Progress
from trivium.recipe.load import Recipe, load_recipe, needed
from trivium.stage import check_code
from trivium.stages.registry import Stages
from trivium.status import Status, told


def run(recipe: str | Path | Recipe, overrides: Iterable[str] = (), only: Iterable[str] = (), quiet: bool = True,
        runners: Runners | None = None, progress: Progress | None = None,
        **settings: Any) -> dict[str, Artifact]:
    """Run a recipe and return its artifacts by stage.

    ``overrides`` are texts such as ``"pretrain.epochs=2"``; as keywords, two underscores stand for a dot
    (``pretrain__epochs=2``). ``only`` names the stages to run, with whatever they need. ``runners`` maps kinds to
    functions ``(settings, context) -> summary`` and their versions, in the place of the stages' own or beside them: a
    kind that is not known otherwise takes any settings, and its ``inputs`` map names to earlier stages or paths.
    ``progress`` is told what goes on; by default it is a new one on standard error, silent when ``quiet``. Raises
    :class:`TriviumError`.
    """
    if isinstance(recipe, Recipe) and (overrides or settings):
        raise TriviumError(
            "run: settings can override a recipe's file, not a parsed recipe; give the path, or change the recipe")
    only = [only] if isinstance(only, str) else list(only)
    file = "" if isinstance(recipe, Recipe) else os.path.abspath(recipe)
    if not isinstance(recipe, Recipe):
        given = [f"{key.replace('__', '.')}={digestible(value)}" for key, value in settings.items()]
        overrides = [*overrides, *given]
        recipe = load_recipe(recipe, overrides, only=only, free=runners or ())
    wanted = needed(recipe.stages, only)
    folder = recipe.folder
    with disk_errors(folder):
        check_first(recipe, wanted)
    make_folder(folder)
    artifacts: dict[str, Artifact] = {}
    begun = time.monotonic()
    earlier: list[Span] = []

    def wall_seconds() -> float:
        return covered(earlier) + time.monotonic() - begun

    leader = os.environ.get("RANK", "0") == "0"  # under torchrun the first process writes, the others help and wait
    beside = "RANK" not in os.environ and not runners and told_apart(recipe) and any(
        need(recipe, recipe.stages[name]) < cores(recipe) for name in wanted)
    with contextlib.ExitStack() as around:
        shown = around.enter_context(progress or Progress(quiet or not leader))
        lock = around.enter_context(locked(folder, shown.say)) if leader else None
        status = Status(folder, file, overrides, (name for name in recipe.stages if name in wanted)) if lock else None
        if status:
            around.enter_context(told(status))
            around.callback(setattr, shown, "listener", shown.listener)
            shown.listener = status
        recipe = recipe.model_copy(update={"projects": taken(recipe, wanted)})
        if beside and lock is not None:
            run_beside(recipe, wanted, artifacts, shown, earlier, wall_seconds, lock)
        else:
            for name, stage in recipe.stages.items():
                if name in wanted:
                    shown.stage(name)
                    artifacts[name] = run_stage(recipe, name, stage, artifacts, shown, runners, earlier, wall_seconds)
                    shown.listener(name, {"finished": True})
        if recipe.publish and lock is not None:
            for name, artifact in artifacts.items():
                url = f"{recipe.publish.rstrip('/')}/{recipe.name}/{name}"
                shown.stage(name)
                shown.say(f"published at {url}" if remote.publish(artifact.folder, url, artifact.manifest) else
                          f"is at {url}")
    return artifacts


def current(recipe: Recipe, only: Iterable[str] = ()) -> dict[str, Artifact]:
    """The stages of a recipe, or those that ``only`` names with what they need, that are finished with the settings,
    inputs and code of now. Nothing is run, and nothing written but what an input at a URL takes."""
    wanted, made = needed(recipe.stages, only), dict[str, Artifact]()
    for name, stage in recipe.stages.items():
        if name not in wanted or any(reference in recipe.stages and reference not in made
                                     for _, reference in stage.references()):
            continue
        with contextlib.suppress(TriviumError):
            planned = plan(recipe, name, stage, made, None)
            if find(recipe.folder, name, planned) == recipe.folder / name:
                made[name] = open_artifact(recipe.folder / name)
    return made


def make_folder(folder: Path) -> None:
    """Make the folder of a run. One that is there and can only be read will do for what is finished already."""
    with disk_errors(folder):
        try:
            (folder / ".work").mkdir(parents=True, exist_ok=True)
        except (FileExistsError, NotADirectoryError) as error:
            raise TriviumError(
                f"{folder}: a folder for the results cannot be made here, as a file is in its way; use --set "
                "out=FOLDER") from error
        except OSError as error:
            if error.errno not in FORBIDDEN or not folder.is_dir():
                raise


def digestible(value: Any) -> str:
    """A Python value as an override's text."""
    import json
    return json.dumps(value)


def check_first(recipe: Recipe, wanted: Iterable[str]) -> None:
    """Raise :class:`TriviumError` for what would end a stage when time has been spent on those before it: more
    processes than can share what is still to be trained, stages that a report could not show, and models from elsewhere
    that cannot be read."""
    processes = int(os.environ.get("WORLD_SIZE", "1"))
    for name in wanted:
        stage = recipe.stages[name]
        shown_as(stage)
        try:
            check_code(stage)
        except TriviumError as error:
            raise TriviumError(f"{name}.{error}") from error
        if not (recipe.folder / name / MANIFEST).is_file():
            try:
                stage.check_processes(processes)
            except TriviumError as error:
                raise TriviumError(f"{name}: {error}") from error
        for _, reference in stage.references():
            if reference in recipe.stages or remote.elsewhere(reference):
                continue
            if reference.lower().endswith(".gguf"):
                from trivium.model.gguf.read import check_gguf
                check_gguf(Path(reference))
                continue
            check_files(Path(reference))
            config = Path(reference) / "config.json"
            if config.is_file() and "model_type" in read_json(config):
                from trivium.stages.models import check_model
                check_model(Path(reference))


@contextlib.contextmanager
def locked(folder: Path, say: Callable[[str], None]) -> Iterator[IO[str] | None]:
    """Only one run at a time may write a folder. What a killed run had started may hold the lock for a moment more.
    None where the folder can only be read: nothing can be written then anyway. ``say`` is told where the file system
    has no locks."""
    place = folder / ".work" / "lock"
    with disk_errors(place):
        try:
            lock = open(place, "a")
        except OSError as error:
            if error.errno not in FORBIDDEN:
                raise
            if not place.is_file():
                if os.access(folder, os.W_OK):
                    raise
                yield None
                return
            lock = open(place)  # somebody else's: it can be held all the same
    with lock:
        for last in (*[False] * 20, True):
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except OSError as error:
                if error.errno not in (errno.EWOULDBLOCK, errno.EAGAIN, errno.EINTR):
                    if os.access(folder, os.W_OK):
                        say(f"{folder}: this file system has no locks ({error.strerror}); see to it that no other run "
                            "writes here at the same time")
                    break
                if last:
                    raise TriviumError(
                        f"{folder}: another run is writing here; wait for it, or use --set out=FOLDER") from error
                time.sleep(0.1)
        yield lock


def told_apart(recipe: Recipe) -> bool:
    """Whether another process finds the same classes for all stages: not those that only this program knows."""
    known = Stages(map(Path, recipe.plugins))
    return all(stage.kind in known and known[stage.kind] is type(stage) for stage in recipe.stages.values())
