"""One stage: what decides its key, whether it was made before, and how it is run, sealed and put in its place.

A stage works in ``.work/<stage>-<key>/`` and is renamed into place when it is whole, so a kill leaves either the
old artifact or the new one, and what was half done is found again by its key.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import threading
import time
import traceback
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from trivium import remote
from trivium.artifacts import (
    MANIFEST,
    Artifact,
    Span,
    digest_path,
    is_record,
    open_artifact,
    read_manifest,
    seal,
    span_of,
)
from trivium.errors import TriviumError, nearest, out_of_memory, unexpected
from trivium.extensions import code_files, edited_since_loaded
from trivium.files import digest_json, disk_errors, fsync_folder, read_json, sweep, write_json
from trivium.pipeline.pool import alone, pooled
from trivium.pipeline.projects import place_of
from trivium.progress import Progress
from trivium.recipe.load import Recipe
from trivium.resources import peak_memory_mb, usable_cores
from trivium.stage import Context, Stage, display, is_built_in, nested
from trivium.stages.registry import Stages

NOTE_SECONDS = 2.0
"""How often the seconds spent on a stage are written down: a kill loses no more of the count."""


WRONG_INPUT = (TypeError, KeyError, IndexError, AttributeError, ValueError)
"""What Python says of rows and files that a stage did not know how to refuse."""

RunStage = Callable[[Any, Context], dict[str, Any]]
"""Makes an artifact in ``context.folder`` and returns its summary."""

Runners = Mapping[str, tuple[RunStage, int]]
"""Functions of the caller and their versions, by the kind of stage that they run."""


@dataclass
class Planned:
    """A stage with all that decides whether it is to be run."""

    name: str
    stage: Stage
    runner: RunStage
    places: dict[str, Path]
    """Its inputs and the files of its code, by where they are named."""
    urls: dict[str, str]
    """The inputs that lie at URLs or in feedback projects, as they are named."""
    digests: dict[str, str]
    code: dict[str, str]
    """The digests of its code alone."""
    work: str
    """The key without the code: a killed run goes on with code that was edited since."""
    key: str


def plan(recipe: Recipe, name: str, stage: Stage, artifacts: Mapping[str, Artifact],
         runners: Runners | None) -> Planned:
    """Where a stage's inputs are and the key that its artifact will have."""
    runner, version = (runners or {}).get(stage.kind) or (type(stage).run, stage.version)
    places = {where: artifacts[reference].folder if reference in artifacts else
              located(stage, where, reference, recipe) for where, reference in stage.references()}
    urls = {where: url for where, reference in stage.references() if (url := remote.elsewhere(reference))}
    for where, reference in stage.references():
        if reference not in artifacts and where not in urls:
            check_apart(f"{name}: {where}", places[where], recipe.folder)
    digests = {where: artifacts[reference].digest if reference in artifacts else digest_path(places[where])
               for where, reference in stage.references()}
    files = dict(stage.code()) | (code_of(runner) if runners and stage.kind in runners else {})
    for file in edited_since_loaded(files.values()):
        raise TriviumError(f"{name}: {file} was edited since this run began; start the same command again")
    code = {where: digest_path(file) for where, file in files.items()}
    stage = stage.settled(nested(stage, as_folders(places)))
    work = digest_json(
        {"kind": stage.kind, "version": version, "settings": stage.learned(), "seed": recipe.seed_of(name),
         "inputs": digests})
    key = digest_json({"work": work, "code": code}) if code else work
    return Planned(name, stage, runner, places | files, urls, digests | code, code, work, key)


def check_apart(where: str, place: Path, run: Path) -> None:
    """Raise :class:`TriviumError` for an input in which the run itself lies: it changes while it is read."""
    if place.is_dir() and run.resolve().is_relative_to(place.resolve()):
        raise TriviumError(f"{where}: {place} holds this run's own folder, {run}, which changes while it runs; name a "
                           "folder or a pattern beside it, or another `out`")


def located(stage: Stage, where: str, reference: str, recipe: Recipe) -> Path:
    """Where an input from elsewhere is read. One at a URL that the stage does not read itself is fetched, into a
    folder for each of its states that is kept with the run's other work, and an artifact is verified there; so are
    the rows of a feedback project."""
    folder, url = recipe.folder, remote.url_of(reference)
    if remote.project_of(reference) is not None:
        return place_of(where.partition(".")[0], reference, folder, recipe.projects)
    if url is None or where.partition(".")[0] in stage.streams:
        return Path(reference)
    found = remote.listing(url)
    label = remote.name_of(url.split("*")[0].rpartition("/")[0] if "*" in url else url)
    one = [item.url for _, item in found] == [url]
    state = digest_json([url, *([name, item.size, item.state] for name, item in found)])
    kept = folder / ".work" / "remote" / state[:16]
    if not kept.exists():
        aside = kept.with_name(f".{state[:16]}.tmp")
        shutil.rmtree(aside, ignore_errors=True)
        for name, item in found:
            target = aside / name if one else aside / label / name
            with disk_errors(target):
                target.parent.mkdir(parents=True, exist_ok=True)
            remote.fetch(item, target)
        if (aside / label / MANIFEST).is_file():
            open_artifact(aside / label, verify=True)
        os.rename(aside, kept)
    return kept / label


def as_folders(places: Mapping[str, Path]) -> dict[str, Path]:
    """Places with GGUF files as the folders that they are unpacked to: a stage's key holds the file's digest."""
    if not any(place.suffix.lower() == ".gguf" for place in places.values()):
        return dict(places)
    from trivium.model.gguf.read import opened
    return {where: opened(place) for where, place in places.items()}


def code_of(runner: RunStage) -> dict[str, Path]:
    """The files of a caller's function, where it has any."""
    source = getattr(getattr(runner, "__code__", None), "co_filename", "")
    return dict(code_files("runner", Path(source))) if Path(source).is_file() else {}


def finished(recipe: Recipe, planned: Planned, progress: Progress, earlier: list[Span]) -> Artifact | None:
    """The stage's artifact, where it was made before."""
    folder, name = recipe.folder, planned.name
    own = find(folder, name, planned)
    work = folder / ".work" / f"{name}-{planned.work[:12]}"
    found = own or pooled(recipe.pool, folder, name, planned.key, work / "linked")
    if not found:
        return None
    open_artifact(found)
    install(folder, name, found)
    for left in (work, folder / ".work" / f"{name}-tasks"):
        shutil.rmtree(left, ignore_errors=True)
    progress.say("unchanged" if own else "made by another run: linked")
    artifact = open_artifact(folder / name)
    earlier.append(span_of(artifact.manifest))
    return artifact


def run_stage(recipe: Recipe, name: str, stage: Stage, artifacts: Mapping[str, Artifact], progress: Progress,
              runners: Runners | None, earlier: list[Span], wall_seconds: Callable[[], float],
              shared_mb: float = 0.0) -> Artifact:
    """One stage: find it finished, or run it and put it in its place. Time spent on it before this run is added to
    ``earlier``. ``shared_mb`` is the memory of the process that runs stages side by side, of which this is one."""
    planned = plan(recipe, name, stage, artifacts, runners)
    place, key = recipe.folder / name, planned.key
    work = recipe.folder / ".work" / f"{name}-{planned.work[:12]}"
    context = Context(recipe.name, name, recipe.seed_of(name), nested(stage, as_folders(planned.places)),
                      work / "artifact", work / "scratch", progress, need(recipe, stage), wall_seconds,
                      Stages(map(Path, recipe.plugins)))
    if os.environ.get("RANK", "0") != "0":
        if not find(recipe.folder, name, planned) and stage.every_process:
            planned.runner(planned.stage, context)
        return awaited(place, planned)
    with alone(recipe.pool, key, progress.say):
        if found := finished(recipe, planned, progress, earlier):
            return found
        with disk_errors(work):
            context.folder.mkdir(parents=True, exist_ok=True)
            context.scratch.mkdir(parents=True, exist_ok=True)
            clear(work, context)
        stage = planned.stage
        with clock(work, earlier, progress.say) as spent, disk_errors(work):
            edited = edited_code(work, planned.code, context)
            summary = stage.decided() | summary_of(planned, context) | ({"edited": edited} if edited else {})
        check_unchanged(planned)
        inputs = {where: {"path": planned.urls.get(where) or os.path.relpath(path.absolute(), place.absolute()),
                          "digest": planned.digests[where]}
                  for where, path in planned.places.items()}
        seal(context.folder, kind=stage.kind, name=name, key=key, seed=recipe.seed_of(name),
             settings=stage.model_dump(mode="json"), inputs=inputs, summary=summary, seconds=spent(),
             peak_memory_mb=peak_memory_mb(), shared_memory_mb=shared_mb, display=shown_as(stage))
        install(recipe.folder, name, context.folder)
    for left in (work, context.tasks):
        shutil.rmtree(left, ignore_errors=True)
    progress.say(f"done in {open_artifact(place).manifest['seconds']:.1f} s")
    return open_artifact(place)


def clear(work: Path, context: Context) -> None:
    """Take away what a killed attempt left half done, wherever it was written: all of the folder that becomes the
    artifact but its records, such as the log, which is gone on with, and temporaries in the scratch."""
    for left in sorted(context.folder.rglob("*"), reverse=True):
        if not left.is_dir() or left.is_symlink():
            if not is_record(str(left.relative_to(context.folder))):
                left.unlink()
        elif not any(left.iterdir()):
            left.rmdir()
    sweep(work)
    sweep(context.tasks)


def check_unchanged(planned: Planned) -> None:
    """Raise :class:`TriviumError` where an input or code is not what the stage's key says any more: what was read of it
    may be the one or the other. What came of changed inputs is thrown away."""
    for where, digest in planned.code.items():
        if not planned.places[where].is_file() or digest_path(planned.places[where]) != digest:
            raise TriviumError(f"{planned.name}: {planned.places[where]} was edited while the stage ran; the same "
                               "command goes on with what it holds now")
    for where, digest in planned.digests.items():
        place = planned.places[where]
        try:
            same = where in planned.code or digest_path(place) == digest
        except TriviumError as error:
            raise TriviumError(f"{planned.name}: {where}: an input went away while the stage read it ({error}); bring "
                               "it back and run the same command again") from error
        if not same:
            raise TriviumError(f"{planned.name}: {where}: {place} was changed while the stage read it; run the same "
                               "command again: it reads what is there now")


def summary_of(planned: Planned, context: Context) -> dict[str, Any]:
    """Run a stage; its summary. Of what fails in a user's own code the place is said, as one line.

    Raises :class:`TriviumError` for that, and for a summary that is no mapping of JSON values."""
    name, own = planned.name, {str(planned.places[where].resolve()) for where in planned.code}
    try:
        summary = planned.runner(planned.stage, context)
    except TriviumError:
        raise
    except Exception as error:
        trace = traceback.extract_tb(error.__traceback__)
        last = next((frame for frame in reversed(trace) if str(Path(frame.filename).resolve()) in own), None)
        if last is None and out_of_memory(error):
            raise TriviumError(f"{name}: there is not enough memory; give it smaller `rows` or `length`, and ask "
                               f"`trivium estimate memory RECIPE --stage {name}` what it takes") from error
        if last is None:
            if isinstance(error, WRONG_INPUT) and planned.runner is type(planned.stage).run:
                raise TriviumError(f"{name}: {unexpected(error)}") from error
            raise
        raise TriviumError(f"{name}: {last.filename}:{last.lineno}: {type(error).__name__}: {error}") from error
    if own:
        if not isinstance(summary, dict):
            raise TriviumError(f"{name}: `run` returned {summary!r:.200}, where a mapping was expected: the summary")
        try:
            json.dumps(summary, allow_nan=False)
        except (TypeError, ValueError) as error:
            raise TriviumError(f"{name}: the summary that `run` returned cannot be written as JSON: {error}"
                               ) from error
    return summary


def shown_as(stage: Stage) -> dict[str, Any] | None:
    """How a report shows a stage that is not built in: whoever reads the run may not have its class."""
    return None if is_built_in(type(stage)) else display(type(stage))


def edited_code(work: Path, code: dict[str, str], context: Context) -> list[str]:
    """The files of the user's code that were edited, added or left out while an attempt at the stage was interrupted:
    what was made until then was made with the earlier ones. Says so, and writes down what is used from now on."""
    note = work / "code.json"
    begun = note.exists() and any(any(folder.iterdir()) for folder in (context.scratch, context.folder))
    before: dict[str, Any] = {"code": code, "edited": []}
    if begun:
        try:
            found = read_json(note)
            before = {"code": dict(found["code"]), "edited": list(found["edited"])}
        except (TriviumError, TypeError, KeyError, ValueError):
            context.progress.say(f"{note} is damaged: whether the code was edited since the stage began is not known")
            before = {"code": {}, "edited": []}
    now = sorted(where for where in before["code"].keys() | code.keys() if before["code"].get(where) != code.get(where))
    edited = sorted({*before["edited"], *now})
    if now:
        context.progress.say(
            f"goes on with code that was edited since it began: {', '.join(now)}; what was made before was made with "
            "the earlier code"
        )
    write_json(note, {"code": code, "edited": edited})
    return edited


def awaited(place: Path, planned: Planned) -> Artifact:
    """The artifact that the first process puts in its place. Processes on several machines need a folder they share."""
    while find(place.parent, place.name, planned) != place:
        time.sleep(0.1)
    return open_artifact(place)


def prepared(recipe: Recipe, name: str, file: str = "RECIPE") -> tuple[Stage, Context]:
    """A stage and what it would be given, to look at: its inputs must be finished. Nothing is written. ``file`` is the
    recipe's, for the command that makes what is missing."""
    if name not in recipe.stages:
        raise TriviumError(f"--stage {name}: the recipe has no such stage{nearest(name, recipe.stages)}")
    stage = recipe.stages[name]
    places = {
        where: recipe.folder / reference if reference in recipe.stages else
        located(stage, where, reference, recipe)
        for where, reference in stage.references()
    }
    for where, reference in stage.references():
        if not remote.url_of(places[where]) and not places[where].exists():
            raise TriviumError(
                f"{name}: its input {reference!r} is not there yet; make it with: trivium run {file} --only {reference}"
            )
    work = recipe.folder / ".work" / f"{name}-look"
    inputs = nested(stage, as_folders(places))
    return stage.settled(inputs), Context(recipe.name, name, recipe.seed_of(name), inputs, work, work,
                                          Progress(quiet=True), need(recipe, stage))


def cores(recipe: Recipe) -> int:
    """The processor cores to use: as many as the recipe says, else all that are usable."""
    return recipe.threads or usable_cores()


def need(recipe: Recipe, stage: Stage) -> int:
    """The processor cores that a stage uses."""
    return min(stage.threads or cores(recipe), cores(recipe))


def find(folder: Path, name: str, planned: Planned) -> Path | None:
    """A finished artifact of that key: in its place, superseded, or finished but not yet put in its place."""
    kept = (folder / "superseded").glob(f"{name}-{planned.key[:12]}")
    for candidate in [folder / name, *kept, folder / ".work" / f"{name}-{planned.work[:12]}" / "artifact"]:
        if (candidate / MANIFEST).is_file() and read_manifest(candidate)["key"] == planned.key:
            return candidate
    return None


def install(folder: Path, name: str, artifact: Path) -> None:
    """Put an artifact in its place; one that stood there is kept among the superseded."""
    place = folder / name
    if artifact == place:
        return
    with disk_errors(place):
        sweep(artifact)  # a kill just after the manifest was put in its place leaves the empty folder of its making
        if place.exists():
            sealed = (place / MANIFEST).is_file()
            old = read_manifest(place)["key"][:12] if sealed else f"unsealed-{time.time_ns()}"
            (folder / "superseded").mkdir(exist_ok=True)
            kept = folder / "superseded" / f"{name}-{old}"
            if kept.exists():
                shutil.rmtree(kept)  # the same key made it: the same content
            os.rename(place, kept)
            fsync_folder(kept.parent)
        os.rename(artifact, place)
        fsync_folder(folder)


def seconds_in(note: Path, say: Callable[[str], None]) -> float:
    """The seconds that a note tells of; 0 where there is none, or a damaged one, which is said."""
    try:
        seconds = float(json.loads(note.read_bytes())["seconds"])
    except FileNotFoundError:
        return 0.0
    except (OSError, ValueError, KeyError, TypeError, RecursionError):
        seconds = -1.0
    if 0 <= seconds < 1e10:
        return seconds
    say(f"{note.name} is damaged; the seconds of earlier attempts are not counted")
    return 0.0


@contextlib.contextmanager
def clock(work: Path, earlier: list[Span],
          say: Callable[[str], None] = lambda text: None) -> Iterator[Callable[[], float]]:
    """Seconds spent on a stage, those of killed attempts included: a thread writes them down every few seconds. What
    killed attempts took is added to ``earlier``; where their note is damaged it is not known, and ``say`` is told."""
    note = work / "attempts.json"
    before = seconds_in(note, say)
    if before:
        ended_at = note.stat().st_mtime
        earlier.append((ended_at - before, ended_at))
    begun = time.monotonic()
    ended = threading.Event()

    def spent() -> float:
        return before + time.monotonic() - begun

    def keep() -> None:
        while not ended.wait(NOTE_SECONDS):
            with contextlib.suppress(OSError, TriviumError):  # a full disk is the stage's to report
                write_json(note, {"seconds": spent()})

    keeper = threading.Thread(target=keep, name="clock", daemon=True)
    keeper.start()
    try:
        yield spent
    finally:
        ended.set()
        keeper.join()
        with contextlib.suppress(OSError, TriviumError):
            write_json(note, {"seconds": spent()})
