"""The lead's table of items and answers, and one item with all that was said of it."""

from __future__ import annotations

import time
from dataclasses import asdict
from typing import Annotated, Any, Literal

from fastapi import APIRouter, Depends, Form, HTTPException, Query, Request
from fastapi.responses import HTMLResponse, RedirectResponse, Response

from trivium.feedback.catalogue import KINDS, PAGE, SORTS, STATES, Listed, Wanted
from trivium.feedback.dashboard import of_batches
from trivium.feedback.rows import LONGEST_ID, moment
from trivium.feedback.settings import FLAGS
from trivium.feedback.web.bodies import Number
from trivium.feedback.web.visitors import FormLeader, Leader, Site, TheSite

Whole = Annotated[str, Query(pattern=r"^\d{0,15}$")]
"""A whole number, or nothing, as forms send it."""

Someone = Annotated[int, Form(ge=1, lt=2**53)]
Moment = Annotated[str, Form(max_length=40)]
"""A time of ISO 8601, or nothing."""

Ticked = Annotated[Literal["", "1"], Query()]

router = APIRouter()


def wanted_of(q: Annotated[str, Query(max_length=500)] = "", kind: Literal["", "compare", "write", "known"] = "",
              state: Literal["", "waiting", "begun", "finished", "disputed", "settled", "withdrawn", "held",
                             "late"] = "",
              agreement: Annotated[str, Query(pattern=r"^(\d{1,3})?$")] = "", person: Whole = "",
              flag: Annotated[str, Query(max_length=40)] = "",
              rating: Annotated[str, Query(pattern="^[1-7]?$")] = "", skipped: Ticked = "", noted: Ticked = "",
              all_bad: Ticked = "", corrected: Ticked = "",
              sort: Literal["newest", "imported", "agreement", "rating", "-rating", "skips", "answers"] = "newest",
              page: Annotated[int, Query(ge=0, lt=10**9)] = 0) -> Wanted:
    """What an address asks for. Empty values, as forms send them, ask for nothing."""
    return Wanted(q, kind, state, int(agreement) / 100 if agreement else None, int(person) if person else None,
                  flag if flag in FLAGS else "", int(rating) if rating else None, bool(skipped), bool(noted),
                  bool(all_bad), bool(corrected), sort, page)


Asked = Annotated[Wanted, Depends(wanted_of)]


@router.get("/lead/items", response_class=HTMLResponse)
def items(request: Request, site: TheSite, visitor: Leader, wanted: Asked) -> Response:
    count, page = site.catalogue.find(wanted)

    def elsewhere(**changed: Any) -> str:
        """The address of this list with something changed."""
        return "/lead/items?" + site.pages.query(_query(wanted) | changed)
    return site.pages.page(request, "items.html", wanted=wanted, count=count, entries=page, size=PAGE, kinds=KINDS,
                           states=(*STATES, "held", "late"), sorts=SORTS, everybody=site.store.people(),
                           elsewhere=elsewhere)


@router.get("/lead/items/{number}", response_class=HTMLResponse)
def one_item(request: Request, number: Number, site: TheSite, visitor: Leader) -> Response:
    entry = site.catalogue.entry(number)
    if entry is None:
        raise HTTPException(404)
    people = site.store.people()
    with site.store.state() as state:
        item = state.items.get(entry["listed"].item)
        given = list(item.given) if item else []
        answered = {work.person for work in item.works if work.state != "open"} if item else set()
        holding = [work.person for work in item.works if work.state == "open" and work.until > time.time()
                   and work.person not in given] if item else []
        own, batch = (item.deadline, item.batch) if item else (None, "")
    return site.pages.page(request, "item.html", number=number, names={person.id: person.name for person in people},
                           given=given, holding=holding, own_deadline=own, batch=batch,
                           others=[person for person in people if not person.removed
                                   and person.id not in answered and person.id not in given], **entry)


@router.post("/lead/items/{number}/give", response_class=HTMLResponse)
def give(number: Number, site: TheSite, visitor: FormLeader, person: Someone) -> Response:
    site.store.give(_item(site, number), person, visitor.id)
    return RedirectResponse(f"/lead/items/{number}", 303)


@router.post("/lead/items/{number}/take", response_class=HTMLResponse)
def take(number: Number, site: TheSite, visitor: FormLeader, person: Someone) -> Response:
    site.store.take(_item(site, number), person, visitor.id)
    return RedirectResponse(f"/lead/items/{number}", 303)


@router.post("/lead/items/{number}/deadline", response_class=HTMLResponse)
def deadline(number: Number, site: TheSite, visitor: FormLeader, deadline: Moment = "") -> Response:
    site.store.set_deadline(moment(deadline) if deadline else None, _item(site, number), who=visitor.id)
    return RedirectResponse(f"/lead/items/{number}", 303)


@router.get("/lead/batches", response_class=HTMLResponse)
def batches(request: Request, site: TheSite, visitor: Leader) -> Response:
    return site.pages.page(request, "batches.html", batches=of_batches(site.store, time.time()))


@router.post("/lead/batches", response_class=HTMLResponse)
def batch_deadline(site: TheSite, visitor: FormLeader, batch: Annotated[str, Form(max_length=LONGEST_ID)],
                   deadline: Moment = "") -> Response:
    site.store.set_deadline(moment(deadline) if deadline else None, batch=batch, who=visitor.id)
    return RedirectResponse("/lead/batches", 303)


@router.post("/lead/items/{number}/withdraw", response_class=HTMLResponse)
def withdraw(number: Number, site: TheSite, visitor: FormLeader) -> Response:
    site.store.withdraw_item(_item(site, number), visitor.id)
    return RedirectResponse(f"/lead/items/{number}", 303)


@router.post("/lead/items/{number}/restore", response_class=HTMLResponse)
def restore(number: Number, site: TheSite, visitor: FormLeader) -> Response:
    site.store.withdraw_item(_item(site, number), visitor.id, back=True)
    return RedirectResponse(f"/lead/items/{number}", 303)


def _item(site: Site, number: int) -> str:
    """The id of an item by its number; 404 for what is none."""
    entry = site.catalogue.entry(number)
    listed: Listed | None = entry["listed"] if entry else None
    if listed is None or listed.item is None:
        raise HTTPException(404)
    return listed.item


def _query(wanted: Wanted) -> dict[str, Any]:
    """What is asked for, as an address says it."""
    values = {**asdict(wanted), "q": wanted.text, "person": wanted.person or "", "rating": wanted.rating or "",
              "agreement": "" if wanted.agreement is None else round(100 * wanted.agreement),
              **{name: "1" if getattr(wanted, name) else ""
                 for name in ("skipped", "noted", "all_bad", "corrected")}}
    del values["text"]
    return {name: value for name, value in values.items() if value not in ("", 0)}
