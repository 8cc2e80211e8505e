"""The lead's pages: progress, disputed items, people and invitations, settings."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Annotated, Any

from fastapi import APIRouter, Form, HTTPException, Query, Request
from fastapi.responses import HTMLResponse, RedirectResponse, Response

from trivium.feedback.dashboard import disputed
from trivium.feedback.database import hidden
from trivium.feedback.rows import LONGEST_ID
from trivium.feedback.settings import FLAGS, FeedbackSettings
from trivium.feedback.store import Task
from trivium.feedback.texts import translate
from trivium.feedback.web.bodies import Number, Said, SettleBody
from trivium.feedback.web.pages import language_of, root_of
from trivium.feedback.web.places import by_response
from trivium.feedback.web.visitors import ActingLeader, FormLeader, Leader, ThePages, TheSite, TheStore
from trivium.files import Row

LINK_COOKIE = "trivium_link"
"""Holds the token of an invitation that has just been made, until the page of people has shown it."""

MOST_DISPUTED, MOST_SETTLED = 100, 20
"""Disputed and settled items on one page."""

Whole = Annotated[int, Form()]
Real = Annotated[float, Form()]
Text = Annotated[str, Form()]
Quota = Annotated[str, Form(pattern=r"^\d{0,7}$")]

router = APIRouter()


# progress and disputed items


@router.get("/lead", response_class=HTMLResponse)
def lead(request: Request, store: TheStore, pages: ThePages, visitor: Leader) -> Response:
    with store.state() as state:
        kinds, begun = dict(state.kinds), bool(state.works)
    flag_words = {flag: translate(language_of(request), f"flag_{flag}") for flag in FLAGS}
    return pages.page(request, "lead.html", empty=not any(kinds.values()), begun=begun, project=hidden(store.project),
                      flag_words=flag_words)


@router.get("/api/lead/figures")
def figures(site: TheSite, visitor: Leader) -> dict[str, Any]:
    return site.dashboard.figures()


@router.get("/lead/disputed", response_class=HTMLResponse)
def disputed_items(request: Request, store: TheStore, pages: ThePages, visitor: Leader) -> Response:
    with store.state() as state:
        every = disputed(state)
        worst = [(item.id, agreement, skips) for item, agreement, skips in every[:MOST_DISPUTED]]
        settled = [item.id for item in state.items.values() if item.settled][-MOST_SETTLED:]
    texts = {name: store.item(name) for name in [name for name, _, _ in worst] + settled}
    return pages.page(request, "disputed.html", worst=worst, count=len(every), settled=settled, texts=texts)


@router.get("/lead/settle", response_class=HTMLResponse)
def settle_page(request: Request, store: TheStore, pages: ThePages, visitor: Leader,
                item: Annotated[str, Query(max_length=LONGEST_ID)]) -> Response:
    names = {person.id: person.name for person in store.people()}
    with store.state() as state:
        if item not in state.items or state.items[item].kind != "compare":
            raise HTTPException(404)
        compared = state.items[item]
        works = [(names[work.person], work.event) for work in compared.works if work.counts and work.event]
        number, agreement = compared.event, compared.agreement
        before = compared.settled.body if compared.settled else None
    texts, bodies = store.item(item), store.bodies(event for _, event in works)
    judgements: list[Row] = [{"name": name} | bodies[event] for name, event in works]
    if before is None:  # what annotators flagged stays flagged, unless the lead says otherwise
        flags = [sorted({flag for one in judgements if "flags" in one for flag in one["flags"][number]})
                 for number in range(len(texts["responses"]))]
        marks: list[list[Row]] = [[] for _ in texts["responses"]]
        for judgement in judgements:
            for mine, theirs in zip(marks, judgement.get("marks", [])):
                mine += [one for one in theirs if one not in mine]
        before = {"ranking": [], "ratings": None, "flags": flags, "all_bad": False, "note": "", "marks": marks}
    task = Task(0, "compare", item, texts["prompt"], texts["responses"], tuple(range(len(texts["responses"]))),
                "settle", "open", 0.0, 0.0, before, pictures=texts.get("pictures", ()))
    return pages.comparison(request, task, judgements=judgements, agreement=agreement, number=number)


@router.post("/api/lead/settle", response_model=Said)
def settle(body: SettleBody, store: TheStore, visitor: ActingLeader) -> Any:
    given = [rating for rating in body.ratings or [] if rating is not None]
    ratings = given if body.ratings and len(given) == len(body.ratings) else None
    marks = None
    if body.marks:
        texts = store.item(body.item)["responses"]
        everything = tuple(range(len(texts)))
        marks = by_response(body.model_dump() | {"ranking": None, "ratings": None, "flags": None}, everything, texts
                            )["marks"]
    store.settle(body.item, visitor.id, body.ranking, ratings, body.note, body.flags, body.all_bad, marks=marks)
    return {"next": "/lead/disputed"}


# people


@router.get("/lead/people", response_class=HTMLResponse)
def people(request: Request, site: TheSite, visitor: Leader) -> Response:
    token = request.cookies.get(LINK_COOKIE, "")
    made = site.accounts.open_invite(token) if token else None
    address = (site.address or str(request.base_url).rstrip("/") + root_of(request)).rstrip("/")
    response = site.pages.page(request, "people.html", everybody=site.store.people(),
                               work=site.store.work_left(), invites=site.accounts.open_invites(),
                               link=f"{address}/invite/{token}" if made else None,
                               ends=made.expires if made else 0.0)
    if token:
        response.delete_cookie(LINK_COOKIE, path="/lead/people")
    return response


@router.post("/lead/invites", response_class=HTMLResponse)
def invite(request: Request, site: TheSite, visitor: FormLeader, role: Text = "annotator",
           note: Annotated[str, Form(max_length=200)] = "",
           hours: Annotated[float, Form(gt=0, le=2160)] = 72.0) -> Response:
    return _shown_once(request, site.accounts.invite(role, note, hours))


@router.post("/lead/invites/withdraw", response_class=HTMLResponse)
def withdraw(site: TheSite, visitor: FormLeader, token: Annotated[str, Form(max_length=100)]) -> Response:
    site.accounts.withdraw(token)
    return RedirectResponse("/lead/people", 303)


@router.post("/lead/people/{number}/role", response_class=HTMLResponse)
def role(number: Number, store: TheStore, visitor: FormLeader, role: Text) -> Response:
    store.change_role(number, role, visitor.id)
    return RedirectResponse("/lead/people", 303)


@router.post("/lead/people/{number}/password", response_class=HTMLResponse)
def new_password(request: Request, number: Number, site: TheSite, visitor: FormLeader) -> Response:
    person = next((one for one in site.store.people() if one.id == number and not one.removed and one.kind == "human"),
                  None)
    if person is None:
        raise HTTPException(404)
    return _shown_once(request, site.accounts.invite(person.role, person.name, 24.0, person.id))


@router.post("/lead/people/{number}/remove", response_class=HTMLResponse)
def remove(number: Number, store: TheStore, visitor: FormLeader) -> Response:
    store.remove_person(number, visitor.id)
    return RedirectResponse("/lead/people", 303)


@router.post("/lead/people/{number}/restore", response_class=HTMLResponse)
def restore(number: Number, store: TheStore, visitor: FormLeader) -> Response:
    store.restore_person(number, visitor.id)
    return RedirectResponse("/lead/people", 303)


@router.post("/lead/people/{number}/quota", response_class=HTMLResponse)
def quota(number: Number, store: TheStore, visitor: FormLeader, day: Quota = "", in_all: Quota = "") -> Response:
    store.set_quota(number, int(day) if day else None, int(in_all) if in_all else None, visitor.id)
    return RedirectResponse("/lead/people", 303)


def _shown_once(request: Request, token: str) -> Response:
    """On to the page of people, which shows the link of a new invitation once: loading it again makes no other."""
    response = RedirectResponse("/lead/people", 303)
    response.set_cookie(LINK_COOKIE, token, max_age=300, path="/lead/people", httponly=True, samesite="strict",
                        secure=request.url.scheme == "https")
    return response


# settings


@router.get("/lead/settings", response_class=HTMLResponse)
def settings_page(request: Request, store: TheStore, pages: ThePages, visitor: Leader, saved: bool = False) -> Response:
    return pages.page(request, "settings.html", current=store.settings, fields=_settings_fields(), was_saved=saved)


@router.post("/lead/settings", response_class=HTMLResponse)
def change_settings(store: TheStore, visitor: FormLeader, title: Text, overlap: Whole, overlap_share: Real,
                    lease_minutes: Real, daily_quota: Whole, quota: Whole, known_share: Real, repeat_share: Real,
                    repeat_after: Whole, uncertain_share: Real, heldout: Real, disputed_below: Real,
                    disputed_skips: Whole, seed: Whole, guidelines: Text = "", error_kinds: Text = "",
                    free_writing: Annotated[bool, Form()] = False,
                    rendered: Annotated[bool, Form()] = False) -> Response:
    store.change_settings(visitor.id, title=title, guidelines=guidelines.replace("\r\n", "\n"), overlap=overlap,
                          overlap_share=overlap_share, lease_minutes=lease_minutes, daily_quota=daily_quota,
                          quota=quota, known_share=known_share, repeat_share=repeat_share, repeat_after=repeat_after,
                          uncertain_share=uncertain_share, heldout=heldout, free_writing=free_writing,
                          error_kinds=error_kinds.splitlines(), rendered=rendered, disputed_below=disputed_below,
                          disputed_skips=disputed_skips, seed=seed)
    return RedirectResponse("/lead/settings?saved=true", 303)


def _settings_fields() -> Iterator[tuple[str, str, dict[str, Any]]]:
    """``(name, kind of input, its attributes)`` of every setting."""
    for name, about in FeedbackSettings.model_json_schema()["properties"].items():
        if name == "error_kinds":
            yield name, "lines", {"maxlength": 1300}
        elif name == "guidelines":
            yield name, "text", {"maxlength": about["maxLength"]}
        elif about["type"] == "boolean":
            yield name, "checkbox", {}
        elif about["type"] == "string":
            yield name, "line", {"maxlength": about["maxLength"], "required": "required"}
        else:
            yield name, "number", {
                "min": about.get("minimum", about.get("exclusiveMinimum")),
                "max": about.get("maximum", about.get("exclusiveMaximum")),
                "step": 1 if about["type"] == "integer" else "any", "required": "required"
            }
