"""What the page "See through" asks for: the models of a run, and what they make of a text."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Annotated, Any

from fastapi import APIRouter, Request
from pydantic import BaseModel, ConfigDict, Field

from trivium.errors import TriviumError
from trivium.model.check import is_model
from trivium.recipe.load import is_name
from trivium.studio.looker import Looker
from trivium.studio.runs import Runs, readable

Name = Annotated[str, Field(max_length=200)]
Ids = Annotated[list[Annotated[int, Field(ge=0, lt=2**31)]], Field(min_length=1, max_length=10_000)]

router = APIRouter()


class PiecesBody(BaseModel):
    """A text, or a chat."""

    model_config = ConfigDict(extra="forbid")
    model: Name
    text: str | None = Field(None, max_length=200_000)
    messages: list[dict[str, Any]] | None = Field(None, max_length=200)


class TokensBody(BaseModel):
    """Tokens of a text, as they were given for it."""

    model_config = ConfigDict(extra="forbid")
    model: Name
    ids: Ids


class AttentionBody(TokensBody):
    """A head of a layer, both from 0."""

    layer: int = Field(ge=0, le=100_000)
    head: int = Field(ge=0, le=100_000)


class ScoresBody(TokensBody):
    """A reward model, and the first place whose score is wanted."""

    reward: Name
    first: int = Field(0, ge=0, le=100_000)


class DivergenceBody(TokensBody):
    """Another model, from which the first came."""

    reference: Name


def parts_of(request: Request) -> tuple[Runs, Looker]:
    """The runs, and who looks."""
    studio = request.app.state.studio
    return studio.runs, studio.looker


def folder_of(runs: Runs, run: str, model: str) -> str:
    """The folder of a run's model. Raises :class:`TriviumError` for a stage that is none."""
    folder = runs.folder(run) / model
    if not is_name(model) or not is_model(folder):
        raise TriviumError(f"there is no model {model[:80]!r} in the run {run}")
    return str(folder.resolve())


@router.get("/api/runs/{name}/models")
def models(name: str, request: Request) -> Any:
    """``{"models", "left_out"}``: the models that a run has made, in the order in which they were made, each with its
    shape and the models that it was made from, by the names of its settings; and why others cannot be looked
    through."""
    runs, looker = parts_of(request)
    found: list[dict[str, Any]] = []
    left_out: list[dict[str, str]] = []
    for artifact in readable(runs.folder(name)):
        if not is_model(artifact.folder):
            continue
        try:
            about = looker.ask("about", folder=str(artifact.folder.resolve()))
            if about["kind"] == "other":
                raise TriviumError("it reads one text and writes another")
        except TriviumError as error:
            left_out.append({"name": artifact.name, "why": re.sub(r"^\S+: ", "", str(error))})
            continue
        made_from = {where: Path(made["path"]).name for where, made in artifact.manifest["inputs"].items()}
        found.append({"name": artifact.name, "stage": artifact.kind, "made_from": made_from, **about})
    return {"models": found, "left_out": left_out}


@router.post("/api/runs/{name}/through/pieces")
def pieces(name: str, body: PiecesBody, request: Request) -> Any:
    runs, looker = parts_of(request)
    if (body.text is None) == (body.messages is None):
        raise TriviumError("either a text or the messages of a chat are looked at")
    return looker.ask("pieces", folder=folder_of(runs, name, body.model),
                      text=body.messages if body.text is None else body.text)


@router.post("/api/runs/{name}/through/next")
def next_tokens(name: str, body: TokensBody, request: Request) -> Any:
    runs, looker = parts_of(request)
    return looker.ask("next", folder=folder_of(runs, name, body.model), ids=body.ids)


@router.post("/api/runs/{name}/through/attention")
def attention(name: str, body: AttentionBody, request: Request) -> Any:
    runs, looker = parts_of(request)
    return looker.ask("attention", folder=folder_of(runs, name, body.model), ids=body.ids, layer=body.layer,
                      head=body.head)


@router.post("/api/runs/{name}/through/scores")
def scores(name: str, body: ScoresBody, request: Request) -> Any:
    runs, looker = parts_of(request)
    return looker.ask("scores", folder=folder_of(runs, name, body.reward), judged=folder_of(runs, name, body.model),
                      ids=body.ids, first=body.first)


@router.post("/api/runs/{name}/through/divergence")
def divergence(name: str, body: DivergenceBody, request: Request) -> Any:
    runs, looker = parts_of(request)
    return looker.ask("divergence", folder=folder_of(runs, name, body.model),
                      reference=folder_of(runs, name, body.reference), ids=body.ids)
