"""The annotators' work: the next comparison or text, answers to them, and what was done before."""

from __future__ import annotations

import time
from typing import Annotated, Any

from fastapi import APIRouter, HTTPException, Query, Request
from fastapi.responses import HTMLResponse, Response

from trivium.errors import TriviumError
from trivium.feedback import rows
from trivium.feedback.accounts import Visitor
from trivium.feedback.store import Conflict, Store, Task
from trivium.feedback.web.bodies import DemonstrationBody, JudgementBody, Number, Said, SkipBody
from trivium.feedback.web.pages import Pages
from trivium.feedback.web.places import by_response
from trivium.feedback.web.visitors import ActingMember, Member, ThePages, TheStore

PAGE = 30
"""Entries on a page of the history."""

Saved = Annotated[int | None, Query(ge=1, lt=2**53)]
"""The work that has just been saved."""

router = APIRouter()


@router.get("/work", response_class=HTMLResponse)
def home(request: Request, store: TheStore, pages: ThePages, visitor: Member) -> Response:
    works = store.history(visitor.id)
    counts = {
        "judged": sum(work.kind == "compare" and work.state == "judged" for work in works),
        "written": sum(work.kind == "write" and work.state == "judged" for work in works),
        "skipped": sum(work.state == "skipped" for work in works)
    }
    with store.state() as state:
        kinds, writing, left = dict(state.kinds), state.settings.free_writing, state.left(visitor.id, time.time())
    return pages.page(request, "home.html", counts=counts, can_compare=kinds["compare"] > 0,
                      can_write=kinds["write"] > 0 or writing, left=left,
                      mine=store.work_left(visitor.id)[visitor.id])


@router.get("/compare", response_class=HTMLResponse)
def next_comparison(request: Request, store: TheStore, pages: ThePages, visitor: Member,
                    saved: Saved = None) -> Response:
    task = store.next_work(visitor.id, "compare")
    if task is None:
        return _nothing(request, store, pages, visitor, saved)
    return pages.comparison(request, task, saved=saved)


@router.get("/write", response_class=HTMLResponse)
def next_writing(request: Request, store: TheStore, pages: ThePages, visitor: Member, saved: Saved = None) -> Response:
    task = store.next_work(visitor.id, "write")
    if task is None:
        return _nothing(request, store, pages, visitor, saved)
    return pages.page(request, "write.html", task=task, saved=saved)


@router.get("/work/{number}", response_class=HTMLResponse)
def one_work(request: Request, number: Number, store: TheStore, pages: ThePages, visitor: Member) -> Response:
    task = _own(store, number, visitor)
    if task.kind == "compare":
        return pages.comparison(request, task)
    return pages.page(request, "write.html", task=task, saved=None)


@router.get("/history", response_class=HTMLResponse)
def history(request: Request, store: TheStore, pages: ThePages, visitor: Member,
            page: Annotated[int, Query(ge=0, le=100_000)] = 0) -> Response:
    works = store.history(visitor.id)
    entries = [(work, store.task(work.id, visitor.id)) for work in works[page * PAGE:(page + 1) * PAGE]]
    return pages.page(request, "history.html", entries=entries, page_number=page, more=len(works) > (page + 1) * PAGE)


@router.post("/api/work/{number}/judgement", response_model=Said)
def judge(number: Number, body: JudgementBody, store: TheStore, visitor: ActingMember) -> Any:
    task = _own(store, number, visitor)
    if task.kind != "compare":
        raise TriviumError("this work asks for an answer in words")
    store.judge(number, visitor.id, **by_response(body.model_dump(), task.order, task.responses), note=body.note,
                seconds=_seconds(task, body.seconds), needs_ratings=True)
    return {"next": f"/compare?saved={number}" if task.state == "open" else "/history"}


@router.post("/api/work/{number}/skip", response_model=Said)
def skip(number: Number, body: SkipBody, store: TheStore, visitor: ActingMember) -> Any:
    task = _own(store, number, visitor)
    store.skip(number, visitor.id, body.reason, body.note, _seconds(task, body.seconds))
    return {"next": f"/{task.kind}?saved={number}"}


@router.post("/api/work/{number}/demonstration", response_model=Said)
def write(number: Number, body: DemonstrationBody, store: TheStore, visitor: ActingMember) -> Any:
    task = _own(store, number, visitor)
    prompt = task.prompt if task.item is not None else [{
        "role": "user", "content": rows.text(body.prompt, "the prompt").strip()
    }]
    answer = {"role": "assistant", "content": rows.text(body.answer, "the answer").strip()}
    store.write(number, visitor.id, [*prompt, answer], _seconds(task, body.seconds))
    return {"next": f"/write?saved={number}" if task.state == "open" else "/history"}


@router.post("/api/work/{number}/renew", response_model=Said)
def renew(number: Number, store: TheStore, visitor: ActingMember) -> Any:
    _own(store, number, visitor)
    store.renew(number, visitor.id)
    return {"next": f"/work/{number}"}


def _nothing(request: Request, store: Store, pages: Pages, visitor: Visitor, saved: int | None) -> Response:
    """That nothing is left to do, and whether that is because of a quota."""
    with store.state() as state:
        left = state.left(visitor.id, time.time())
    return pages.page(request, "nothing.html", saved=saved, left=left)


def _own(store: Store, number: int, visitor: Visitor) -> Task:
    """The visitor's own work of that number; anybody else's is not there for them (404)."""
    try:
        return store.task(number, visitor.id)
    except Conflict as error:
        raise HTTPException(404) from error


def _seconds(task: Task, claimed: float | None) -> float | None:
    """The time taken: no more than has passed since the lease."""
    return rows.seconds(claimed, most=max(0.0, time.time() - task.at))
