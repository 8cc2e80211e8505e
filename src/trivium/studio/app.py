"""The studio's app: its pages and what they ask for."""

from __future__ import annotations

import asyncio
import contextlib
import hmac
import json
import os
import re
import secrets
import subprocess
import sys
import tempfile
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from functools import cache
from importlib import resources
from pathlib import Path
from typing import Annotated, Any

from fastapi import APIRouter, Depends, FastAPI, Query, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import HTMLResponse, JSONResponse, Response, StreamingResponse
from pydantic import BaseModel, ConfigDict, Field
from starlette.concurrency import run_in_threadpool
from starlette.exceptions import HTTPException

from trivium.clients import Hosts
from trivium.errors import TriviumError
from trivium.files import disk_errors
from trivium.recipe.load import is_name
from trivium.report.gather import gather
from trivium.report.page import render
from trivium.report.table import over_runs
from trivium.stages.registry import Stages
from trivium.status import logs_of, rows_so_far
from trivium.studio import recipes, through
from trivium.studio.answers import Answers, Wanted
from trivium.studio.guard import COOKIE, REPORT_POLICY, Guard
from trivium.studio.jobs import Jobs
from trivium.studio.live import Follower, column_of, spread
from trivium.studio.looker import Looker
from trivium.studio.runs import NoSuchRun, Runs
from trivium.studio.talks import Talks

LOOK_SECONDS = 0.5
"""How often the files of a run that somebody watches are looked at."""
BEAT_SECONDS = 15.0
"""A stream that has nothing to tell says so after this time, so that nobody takes it for dead."""
COMMAND_SECONDS = 180
"""How long an estimate or a preview may take."""
MOST_TOKENS = 3000
"""Tokens of a batch that are shown."""
MOST_COMPARED = 12
"""Runs that are laid over one another."""
MOST_POINTS = 1000
"""Points of a curve that is compared."""
TYPES = {".html": "text/html", ".css": "text/css", ".js": "text/javascript", ".svg": "image/svg+xml"}


@dataclass
class Studio:
    """What the routes work with."""

    runs: Runs
    jobs: Jobs
    title: str
    talks: Talks
    key: str = ""
    answers: Answers = field(default_factory=Answers)
    looker: Looker = field(default_factory=Looker)


def create_app(root: Path, at_once: int = 1, key: str = "", hosts: frozenset[str] | None = None,
               title: str = "Trivium", host: str = "127.0.0.1") -> FastAPI:
    """The app for the runs in a folder, of which ``at_once`` may be under way. ``key`` is asked for where it is not
    empty; ``hosts`` are the names by which it may be asked (None: any); ``host`` is where its servers of models
    listen."""
    runs = Runs(root, Stages())
    app = FastAPI(title="Trivium studio", docs_url=None, redoc_url=None, lifespan=lifespan)
    app.state.studio = Studio(runs, Jobs(runs, at_once), title, Talks(host, key), key)
    for error, answer in ((TriviumError, fault), (HTTPException, refused), (RequestValidationError, invalid)):
        app.exception_handler(error)(answer)
    app.add_middleware(Guard, key=key)
    if hosts is not None:
        app.add_middleware(Hosts, known=hosts, refusal=lambda message: JSONResponse({"error": message}, 421))
    app.include_router(through.router)  # before the files of the pages, which take any name
    app.include_router(router)
    return app


@contextlib.asynccontextmanager
async def lifespan(app: FastAPI) -> AsyncIterator[None]:
    """While the app lives, what waits is started as soon as there is room."""
    studio: Studio = app.state.studio

    async def look() -> None:
        while True:
            with contextlib.suppress(TriviumError, OSError):
                await run_in_threadpool(studio.jobs.start_next)
                await run_in_threadpool(studio.looker.rest)
            await asyncio.sleep(1)

    looking = asyncio.create_task(look())
    yield
    looking.cancel()
    await run_in_threadpool(studio.talks.end)
    await run_in_threadpool(studio.looker.end)


# faults


async def fault(_: Request, error: Exception) -> Response:
    return JSONResponse({"error": str(error)}, 404 if isinstance(error, NoSuchRun) else 422)


async def refused(_: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    return JSONResponse({"error": str(error.detail)}, error.status_code, error.headers)


async def invalid(_: Request, error: Exception) -> Response:
    assert isinstance(error, RequestValidationError)
    first = error.errors()[0]
    where = ".".join(str(part) for part in first["loc"] if part not in ("body", "query")) or "the body"
    return JSONResponse({"error": f"{where}: {first['msg']}"[:300].encode("utf-8", "replace").decode()}, 422)


def studio_of(request: Request) -> Studio:
    """The studio that a request is for."""
    studio: Studio = request.app.state.studio
    return studio


TheStudio = Annotated[Studio, Depends(studio_of)]
Number = Annotated[int, Query(ge=0, le=10**9)]
Text = Annotated[str, Query(max_length=1000)]

router = APIRouter()


# coming in


class KeyBody(BaseModel):
    """The studio's key."""

    model_config = ConfigDict(extra="forbid")
    key: str = Field(max_length=200)


@router.get("/login", response_class=HTMLResponse)
def login_page() -> Response:
    return static("login.html")


@router.post("/login")
async def login(body: KeyBody, request: Request, studio: TheStudio) -> Response:
    await asyncio.sleep(0.3)  # whoever guesses is not quick
    if not studio.key or not hmac.compare_digest(body.key.encode("utf-8", "replace"), studio.key.encode()):
        raise HTTPException(401, "that is not the key; whoever started the studio sees it where it was started")
    response = JSONResponse({"ok": True})
    response.set_cookie(COOKIE, studio.key, httponly=True, samesite="strict", secure=request.url.scheme == "https",
                        max_age=30 * 86400)
    return response


# runs


@router.get("/api/studio")
def about(studio: TheStudio) -> Any:
    return {"title": studio.title, "root": studio.jobs.out, "here": str(Path.cwd()), "at_once": studio.jobs.at_once}


@router.get("/api/runs")
def listed(studio: TheStudio, text: Text = "", state: Text = "", first: Number = 0,
           count: Annotated[int, Query(ge=1, le=200)] = 50) -> Any:
    waiting = [{"id": identity, "run": job["run"], "asked": job.get("asked")}
               for identity, job in studio.jobs.waiting()]
    return studio.runs.listed(text, state, first, count) | {"waiting": waiting}


@router.get("/api/runs/{name}")
def one(name: str, studio: TheStudio) -> Any:
    found = studio.runs.of(name)
    file = Path(found["recipe"]) if found["recipe"] else None
    text = ""
    with contextlib.suppress(OSError, ValueError):
        text = file.read_text(encoding="utf-8") if file else ""
    return found | {"text": text, "output": studio.jobs.last_words(name)}


@router.get("/api/runs/{name}/events")
async def events(name: str, studio: TheStudio) -> Response:
    """Everything about a run as it happens (SSE): ``run`` with what :func:`one` tells but for the curves, whenever that
    changes, and ``rows`` with what the logs gained."""
    folder = studio.runs.folder(name)

    async def stream() -> AsyncIterator[bytes]:
        follower, last, silent = Follower(folder), "", 0.0
        while True:
            news = await run_in_threadpool(lambda: list(follower.news()))
            told = await run_in_threadpool(lambda: json.dumps(studio.runs.of(name)))
            parts = [event("rows", json.dumps(one)) for one in news]
            if told != last:
                parts, last = [event("run", told), *parts], told
            silent = 0.0 if parts else silent + LOOK_SECONDS
            if silent >= BEAT_SECONDS:
                parts, silent = [b": still here\n\n"], 0.0
            if parts:
                yield b"".join(parts)
            await asyncio.sleep(LOOK_SECONDS)

    return StreamingResponse(stream(), media_type="text/event-stream")


def event(name: str, data: str) -> bytes:
    """A message of a stream."""
    return f"event: {name}\ndata: {data}\n\n".encode()


@router.get("/runs/{name}/report", response_class=HTMLResponse)
def report(name: str, studio: TheStudio) -> Response:
    found = gather(studio.runs.folder(name), studio.runs.stages)
    return HTMLResponse(render(found), headers={"content-security-policy": REPORT_POLICY})


@router.get("/api/runs/{name}/answers")
def answers(name: str, studio: TheStudio, stage: Text, text: Text = "", right: Text = "", wrong: Text = "",
            order: Text = "", first: Number = 0, count: Annotated[int, Query(ge=1, le=100)] = 20) -> Any:
    return studio.answers.page(studio.runs.folder(name), stage, Wanted(text, right, wrong, order), first, count)


@router.get("/api/compare")
def compare(studio: TheStudio, run: Annotated[list[str], Query(max_length=MOST_COMPARED)]) -> Any:
    """Settings that differ, results, and curves of some runs."""
    folders = [studio.runs.folder(name) for name in dict.fromkeys(run)]
    found = over_runs([folder for folder in folders if studio.runs.figures_of(folder) or any(
        folder.glob("*/manifest.json"))])
    curves = {folder.name: {stage: curves_of(file) for stage, file in logs_of(folder).items()} for folder in folders}
    return found | {"runs": [Path(one).name for one in found["runs"]], "all": [folder.name for folder in folders],
                    "curves": curves}


def curves_of(log: Path) -> dict[str, list[tuple[float, float]]]:
    """The curves that a log holds, thinned."""
    rows = spread(list(rows_so_far(log)), MOST_POINTS)
    return {key: points for key, points in column_of(rows).items() if len(points) > 1}


# starting and stopping


class RecipeBody(BaseModel):
    """A recipe's text."""

    model_config = ConfigDict(extra="forbid")
    text: str = Field(max_length=1_000_000)


class PreviewBody(RecipeBody):
    """A stage of it."""

    stage: str = Field(max_length=200)


class SettingBody(RecipeBody):
    """A setting to change in it; null takes it out."""

    setting: str = Field(max_length=300, pattern=r"^[^.\s]+(\.[^.\s]+)+$")
    value: str | None = Field(None, max_length=100_000)


class TalkBody(BaseModel):
    """Whose models to talk with."""

    model_config = ConfigDict(extra="forbid")
    stages: list[Annotated[str, Field(max_length=200)]] = Field(min_length=1, max_length=4)


class AskBody(BaseModel):
    """The feedback project in which people are to be asked."""

    model_config = ConfigDict(extra="forbid")
    project: str = Field(min_length=1, max_length=200)


class StopBody(BaseModel):
    """How to stop a run."""

    model_config = ConfigDict(extra="forbid")
    at_once: bool = False


@router.get("/api/templates")
def templates() -> Any:
    return recipes.templates()


@router.post("/api/recipe/form")
def form(body: RecipeBody, studio: TheStudio) -> Any:
    """The recipe's stages and settings, and what is wrong with it, if anything is."""
    shown = recipes.form(body.text)
    try:
        recipe = studio.jobs.parse(body.text)
    except TriviumError as error:
        return {"stages": shown, "error": str(error).removeprefix("recipe: "), "run": None, "exists": False}
    return {"stages": shown, "error": "", "run": recipe.name, "exists": recipe.folder.exists()}


@router.post("/api/recipe/set")
def set_setting(body: SettingBody) -> Any:
    return {"text": recipes.changed(body.text, body.setting, body.value)}


@router.post("/api/recipe/estimate")
def estimate(body: RecipeBody, studio: TheStudio) -> Any:
    """How long the recipe will take here, measured by a process of its own."""
    studio.jobs.parse(body.text)
    return json.loads(command_on(body.text, "estimate", "RECIPE"))


def command_on(text: str, *words: str) -> str:
    """What a command prints as JSON of a recipe, which stands where its words say ``RECIPE``. Raises
    :class:`TriviumError` with its error."""
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "recipe.yaml"
        file.write_text(text, encoding="utf-8")
        given = [str(file) if word == "RECIPE" else word for word in words]
        try:
            return command(*given, "--set", f"out={folder}", "--json")
        except TriviumError as error:
            raise TriviumError(str(error).replace(str(file), "the recipe")) from error


def command(*words: str) -> str:
    """What a command prints as JSON. Raises :class:`TriviumError` with its error."""
    try:
        made = subprocess.run([sys.executable, "-m", "trivium.cli", *words], capture_output=True, text=True,
                              timeout=COMMAND_SECONDS, check=False, stdin=subprocess.DEVNULL)
    except subprocess.TimeoutExpired as error:
        raise TriviumError(f"it took longer than {COMMAND_SECONDS} s") from error
    if made.returncode:
        said = made.stderr.strip().rpartition("error: ")[2]
        raise TriviumError(said[:2000] or f"it ended with status {made.returncode}")
    return made.stdout


@router.post("/api/recipe/preview")
def preview(body: PreviewBody, studio: TheStudio) -> Any:
    """The tokens of the first batch of a stage, and which carry loss; made of a sample of the data."""
    studio.jobs.parse(body.text)
    lines = command_on(body.text, "inspect", "batch", "RECIPE", "--stage", body.stage, "--sample").splitlines()
    return {"tokens": [json.loads(line) for line in lines[:MOST_TOKENS]], "left_out": max(0, len(lines) - MOST_TOKENS)}


@router.post("/api/files")
async def upload(request: Request, studio: TheStudio, name: Annotated[str, Query(min_length=1, max_length=200)]) -> Any:
    """Keep a file for recipes to name; where it lies. Nothing that was uploaded before is written over."""
    safe = file_name(name)
    folder = studio.jobs.folder / "files" / secrets.token_hex(4)
    with disk_errors(folder):
        folder.mkdir(parents=True)
        aside = folder / f".{safe}.part"
        try:
            with open(aside, "wb") as file:
                async for part in request.stream():
                    await run_in_threadpool(file.write, part)
            aside.rename(folder / safe)
        except BaseException:
            aside.unlink(missing_ok=True)
            folder.rmdir()
            raise
    return {"path": str(folder / safe), "bytes": (folder / safe).stat().st_size}


def file_name(given: str) -> str:
    """A name for an uploaded file that every file system takes, with its ending."""
    plain = Path(re.sub(r"[^\w.\-]+", "_", given.replace("\\", "/").rpartition("/")[2]).lstrip(".") or "file")
    return plain.stem.encode()[:150].decode(errors="ignore") + plain.suffix[:12]


@router.post("/api/runs")
def start(body: RecipeBody, studio: TheStudio) -> Any:
    return studio.jobs.add(body.text)


@router.post("/api/runs/{name}/stop")
def stop(name: str, body: StopBody, studio: TheStudio) -> Any:
    studio.jobs.stop(name, body.at_once)
    return {"ok": True}


@router.post("/api/runs/{name}/talk")
def talk(name: str, body: TalkBody, studio: TheStudio) -> Any:
    """Serve some stages' models for a talk; where."""
    folder = studio.runs.folder(name)
    return {"port": studio.talks.begin([folder / stage for stage in body.stages])}


@router.get("/api/projects")
def projects(studio: TheStudio) -> Any:
    """The feedback projects beside the runs and where the studio was started."""
    return {"projects": known_projects(studio)}


def known_projects(studio: Studio) -> list[str]:
    places = {file.parent for folder in (Path(), studio.runs.root.parent, studio.runs.root)
              for file in folder.glob("*/feedback.sqlite")}
    return sorted({os.path.relpath(place) for place in places})


@router.post("/api/runs/{name}/ask")
def ask(name: str, body: AskBody, studio: TheStudio) -> Any:
    """Bring a run's disagreements into a feedback project, which is made where there is none of the name."""
    folder = studio.runs.folder(name)
    if body.project not in known_projects(studio) and not is_name(body.project):
        raise TriviumError(f"{body.project[:80]}: no feedback project is there; a new one is a folder's name alone")
    return json.loads(command("feedback", "disagreements", "--json", "--", body.project, str(folder)))


@router.post("/api/runs/{name}/again")
def again(name: str, studio: TheStudio) -> Any:
    return studio.jobs.again(name)


@router.post("/api/jobs/{identity}/withdraw")
def withdraw(identity: str, studio: TheStudio) -> Any:
    studio.jobs.withdraw(identity)
    return {"ok": True}


# pages


@router.get("/", response_class=HTMLResponse)
@router.get("/run/{name}", response_class=HTMLResponse)
@router.get("/start", response_class=HTMLResponse)
@router.get("/compare", response_class=HTMLResponse)
@router.get("/through", response_class=HTMLResponse)
def page() -> Response:
    return static("studio.html")


@router.get("/{name}", include_in_schema=False)
def file(name: str) -> Response:
    return static(name)


def static(name: str) -> Response:
    """A file of the pages."""
    content = files().get(name)
    if content is None:
        raise HTTPException(404, f"there is no page {name[:80]!r} here")
    return Response(content, media_type=TYPES[Path(name).suffix])


@cache
def files() -> dict[str, bytes]:
    """The files of the pages by name."""
    folder = resources.files("trivium.studio").joinpath("static")
    return {one.name: one.read_bytes() for one in folder.iterdir() if Path(one.name).suffix in TYPES}
