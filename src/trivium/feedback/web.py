"""The annotation app: server-rendered pages over a :class:`~trivium.feedback.store.Store`.

Whatever comes from a browser or a model is hostile. Texts of prompts and responses are escaped and never interpreted;
the Content-Security-Policy allows no inline script or style; whoever changes something carries a token of their
session.
"""

import hashlib
import hmac
import json
import secrets
import time
from collections.abc import Awaitable, Callable, Iterator, MutableMapping
from datetime import UTC, datetime
from importlib import resources
from typing import Annotated, Any, Literal, TypeAlias
from urllib.parse import urlencode, urlsplit

import jinja2
from fastapi import Depends, FastAPI, Form, Header, HTTPException, Path, Query, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import HTMLResponse, JSONResponse, RedirectResponse, Response, StreamingResponse
from pydantic import BaseModel, ConfigDict, Field
from starlette.exceptions import HTTPException as AnyHTTPException

from trivium.errors import TriviumError
from trivium.feedback import rows
from trivium.feedback.accounts import Accounts, TooManyTries, Visitor
from trivium.feedback.dashboard import Dashboard, disputed
from trivium.feedback.database import hidden
from trivium.feedback.exports import EXPORTS, write_lines
from trivium.feedback.settings import FLAGS, SKIPS, FeedbackSettings
from trivium.feedback.store import Conflict, Store, Task
from trivium.feedback.texts import LANGUAGES, WORDS, fault_words, script_words, translate

COOKIE = "trivium_session"
DOOR_COOKIE = "trivium_door"  # ties a login form to the browser that asked for it
LETTERS = "ABCDEFGHIJKLMNOPQRSTUVWXYZ"
MOST_BYTES = 2_000_000
POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; form-action 'self'; "
    "base-uri 'none'; "
    "frame-ancestors 'none'; require-trusted-types-for 'script'; trusted-types 'none'")
HEADERS = {"content-security-policy": POLICY, "x-content-type-options": "nosniff", "referrer-policy": "same-origin",
           "cross-origin-opener-policy": "same-origin", "cross-origin-resource-policy": "same-origin",
           "permissions-policy": "camera=(), microphone=(), geolocation=()", "x-frame-options": "DENY"}
STATIC = {
    "app.css": "text/css", "app.js": "text/javascript", "compare.js": "text/javascript", "write.js": "text/javascript",
    "lead.js": "text/javascript", "icon.svg": "image/svg+xml"
}

WorkNumber = Annotated[int, Path(ge=1, lt=2**53)]
Scope = MutableMapping[str, Any]


class _Body(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True)


class JudgementBody(_Body):
    """Places are those of the responses as they were shown, from 0."""

    ranking: list[list[int]] | None = None
    ratings: list[int | None] | None = None
    flags: list[list[str]] | None = None
    all_bad: bool = False
    note: str = ""
    seconds: float | None = None


class SkipBody(_Body):
    reason: str
    note: str = ""
    seconds: float | None = None


class DemonstrationBody(_Body):
    """``prompt`` is needed for a prompt of one's own, and ignored otherwise."""

    prompt: str = ""
    answer: str
    seconds: float | None = None


class SettleBody(_Body):
    item: str = Field(max_length=rows.LONGEST_ID)
    ranking: list[list[int]]
    ratings: list[int | None] | None = None
    flags: list[list[str]] | None = None
    all_bad: Literal[False] = False
    note: str = ""
    seconds: float | None = None


class Said(_Body):
    """``next`` is where to go."""

    next: str


class Wrong(_Body):
    error: str


class Elsewhere(Exception):
    """Send the browser to another page."""

    def __init__(self, to: str) -> None:
        self.to = to


def create_app(store: Store, address_of: str | None = None) -> FastAPI:
    """The app of one project. ``address_of`` is the address that people use, for links, where the requests do not say
    it."""
    accounts, dashboard = Accounts(store), Dashboard(store)
    refusals: dict[int | str,
                   dict[str, Any]] = {code: {"model": Wrong}
                                      for code in (400, 401, 403, 404, 409, 413, 422, 429)}
    app = FastAPI(title="Trivium feedback", docs_url=None, redoc_url=None, responses=refusals)
    pages = _Pages(store)

    # who asks

    def visitor_of(request: Request) -> Visitor | None:
        visitor = accounts.visitor(request.cookies.get(COOKIE))
        request.state.visitor = visitor
        return visitor

    def member(request: Request) -> Visitor:
        visitor = visitor_of(request)
        if visitor is None:
            raise HTTPException(401, "log in first") if request.url.path.startswith("/api/") else Elsewhere("/login")
        return visitor

    def leader(request: Request) -> Visitor:
        visitor = member(request)
        if visitor.role != "lead":
            raise HTTPException(403, translate(pages.language(request), "error_forbidden"))
        return visitor

    def check(request: Request, visitor: Visitor, token: str | None) -> None:
        if not token or not hmac.compare_digest(token.encode("utf-8", "replace"), visitor.csrf.encode()):
            raise HTTPException(403, translate(pages.language(request), "error_csrf"))

    def acting_member(request: Request, x_csrf_token: Annotated[str | None, Header()] = None) -> Visitor:
        visitor = member(request)
        check(request, visitor, x_csrf_token)
        return visitor

    def acting_leader(request: Request, x_csrf_token: Annotated[str | None, Header()] = None) -> Visitor:
        visitor = leader(request)
        check(request, visitor, x_csrf_token)
        return visitor

    def form_leader(request: Request, csrf: Annotated[str, Form()] = "") -> Visitor:
        visitor = leader(request)
        check(request, visitor, csrf)
        return visitor

    Member: TypeAlias = Annotated[Visitor, Depends(member)]
    Leader: TypeAlias = Annotated[Visitor, Depends(leader)]
    ActingMember: TypeAlias = Annotated[Visitor, Depends(acting_member)]
    ActingLeader: TypeAlias = Annotated[Visitor, Depends(acting_leader)]
    FormLeader: TypeAlias = Annotated[Visitor, Depends(form_leader)]

    def address(request: Request) -> str:
        return request.client.host if request.client else "unknown"

    def enter(request: Request, token: str) -> RedirectResponse:
        response = RedirectResponse("/", 303)
        response.set_cookie(COOKIE, token, max_age=7 * 86_400, httponly=True, samesite="lax",
                            secure=request.url.scheme == "https")
        response.delete_cookie(DOOR_COOKIE)
        return response

    def door(request: Request, page: str, status: int = 200, /, **values: Any) -> Response:
        """A page with a form for somebody who has no session yet: its token belongs to a cookie of its own."""
        ticket = request.cookies.get(DOOR_COOKIE) or secrets.token_urlsafe(24)
        if "message" in values:
            values["message"] = fault_words(pages.language(request), values["message"])
        response = pages.page(request, page, status, door=accounts.csrf(ticket), **values)
        response.set_cookie(DOOR_COOKIE, ticket, max_age=3600, httponly=True, samesite="strict",
                            secure=request.url.scheme == "https")
        return response

    def check_door(request: Request, token: str) -> None:
        ticket = request.cookies.get(DOOR_COOKIE)
        if not ticket or not hmac.compare_digest(token.encode("utf-8", "replace"), accounts.csrf(ticket).encode()):
            raise HTTPException(403, translate(pages.language(request), "error_csrf"))

    # faults

    def refuse(request: Request, status: int, message: str, headers: dict[str, str] | None = None) -> Response:
        message = fault_words(pages.language(request), message)
        if request.url.path.startswith("/api/"):
            return JSONResponse({"error": message}, status, headers)
        response = pages.page(request, "error.html", status, message=message)
        response.headers.update(headers or {})
        return response

    @app.exception_handler(Elsewhere)
    def elsewhere(_: Request, error: Elsewhere) -> Response:
        return RedirectResponse(error.to, 303)

    @app.exception_handler(TriviumError)
    def fault(request: Request, error: TriviumError) -> Response:
        if isinstance(error, TooManyTries):
            return refuse(request, 429, str(error), {"retry-after": str(error.seconds)})
        return refuse(request, 409 if isinstance(error, Conflict) else 422, str(error))

    @app.exception_handler(AnyHTTPException)
    def refused(request: Request, error: AnyHTTPException) -> Response:
        message = translate(pages.language(request), "error_missing") if error.status_code == 404 else str(error.detail)
        return refuse(request, error.status_code, message, dict(error.headers or {}))

    @app.exception_handler(RequestValidationError)
    def invalid(request: Request, error: RequestValidationError) -> Response:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"] if part != "body") or "the body"
        return refuse(request, 422, f"{where}: {first['msg']}"[:300].encode("utf-8", "replace").decode())

    app.add_middleware(_Guard)

    # doors

    @app.get("/", include_in_schema=False)
    def start(visitor: Member) -> Response:
        return RedirectResponse("/lead" if visitor.role == "lead" else "/work", 303)

    @app.get("/login", response_class=HTMLResponse)
    def login_page(request: Request) -> Response:
        return RedirectResponse("/", 303) if visitor_of(request) else door(request, "login.html")

    @app.post("/login", response_class=HTMLResponse)
    def login(request: Request, name: Annotated[str, Form(max_length=200)], password: Annotated[str,
                                                                                                Form(max_length=1000)],
              csrf: Annotated[str, Form()] = "") -> Response:
        check_door(request, csrf)
        try:
            return enter(request, accounts.login(name, password, address(request)))
        except TooManyTries:
            raise
        except TriviumError as error:
            return door(request, "login.html", 401, message=str(error), name=name)

    @app.post("/logout", response_class=HTMLResponse)
    def logout(request: Request, visitor: Member, csrf: Annotated[str, Form()] = "") -> Response:
        check(request, visitor, csrf)
        accounts.logout(request.cookies[COOKIE])
        response = RedirectResponse("/login", 303, headers={"clear-site-data": '"storage"'})
        response.delete_cookie(COOKIE)
        return response

    @app.get("/invite/{token}", response_class=HTMLResponse)
    def invite_page(request: Request, token: str) -> Response:
        return door(request, "invite.html", invite=accounts.look_up(token, address(request)), token=token)

    @app.post("/invite/{token}", response_class=HTMLResponse)
    def accept(request: Request, token: str, password: Annotated[str, Form(max_length=1000)],
               name: Annotated[str, Form(max_length=200)] = "", csrf: Annotated[str, Form()] = "") -> Response:
        check_door(request, csrf)
        invite = accounts.look_up(token, address(request))
        try:
            return enter(request, accounts.accept(token, name, password, address(request)))
        except TriviumError as error:
            return door(request, "invite.html", 422, invite=invite, token=token, message=str(error), name=name)

    @app.post("/language", response_class=HTMLResponse)
    def language(request: Request, to: Annotated[str, Form()], back: Annotated[str, Form()] = "/") -> Response:
        parts = urlsplit(back if back.isprintable() else "/")
        path = "/" + parts.path.lstrip("/\\") + (f"?{parts.query}" if parts.query else "")  # only ever a page of ours
        response = RedirectResponse(path, 303)
        response.set_cookie("language", to if to in LANGUAGES else "en", max_age=365 * 86_400, samesite="lax")
        return response

    # work

    @app.get("/work", response_class=HTMLResponse)
    def home(request: Request, visitor: Member) -> Response:
        done = store.history(visitor.id)
        counts = {
            "judged": sum(w.kind == "compare" and w.state == "judged" for w in done),
            "written": sum(w.kind == "write" and w.state == "judged" for w in done), "skipped": sum(w.state == "skipped"
                                                                                                    for w in done)
        }
        with store.state() as state:
            kinds, writing = dict(state.kinds), state.settings.free_writing
        return pages.page(request, "home.html", counts=counts, can_compare=kinds["compare"] > 0,
                          can_write=kinds["write"] > 0 or writing)

    @app.get("/compare", response_class=HTMLResponse)
    def next_comparison(request: Request, visitor: Member, saved: Annotated[int | None,
                                                                            Query(ge=1, lt=2**53)] = None) -> Response:
        task = store.next_work(visitor.id, "compare")
        if task is None:
            return pages.page(request, "nothing.html", saved=saved)
        return pages.comparison(request, task, saved=saved)

    @app.get("/write", response_class=HTMLResponse)
    def next_writing(request: Request, visitor: Member, saved: Annotated[int | None,
                                                                         Query(ge=1, lt=2**53)] = None) -> Response:
        task = store.next_work(visitor.id, "write")
        if task is None:
            return pages.page(request, "nothing.html", saved=saved)
        return pages.page(request, "write.html", task=task, saved=saved)

    @app.get("/work/{number}", response_class=HTMLResponse)
    def one_work(request: Request, number: WorkNumber, visitor: Member) -> Response:
        task = own(number, visitor)
        return pages.comparison(request, task) if task.kind == "compare" else pages.page(
            request, "write.html", task=task, saved=None)

    @app.get("/history", response_class=HTMLResponse)
    def history(request: Request, visitor: Member, page: Annotated[int, Query(ge=0, le=100_000)] = 0) -> Response:
        works = store.history(visitor.id)
        shown = works[page * 30:page * 30 + 30]
        tasks = [store.task(work.id, visitor.id) for work in shown]
        return pages.page(request, "history.html", entries=list(zip(shown, tasks)), page_number=page, more=len(works)
                          > page * 30 + 30)

    def own(number: int, visitor: Visitor) -> Task:
        try:
            return store.task(number, visitor.id)
        except Conflict as error:
            raise HTTPException(404) from error

    def time_taken(task: Task, claimed: float | None) -> float | None:
        return rows.seconds(claimed, most=max(0.0, time.time() - task.at))

    @app.post("/api/work/{number}/judgement", response_model=Said)
    def judge(number: WorkNumber, body: JudgementBody, visitor: ActingMember) -> Any:
        task = own(number, visitor)
        if task.kind != "compare":
            raise TriviumError("this work asks for an answer in words")
        said = _unshuffled(body.model_dump(), task.order)
        store.judge(number, visitor.id, **said, note=body.note, seconds=time_taken(task, body.seconds),
                    needs_ratings=True)
        return {"next": f"/compare?saved={number}" if task.state == "open" else "/history"}

    @app.post("/api/work/{number}/skip", response_model=Said)
    def skip(number: WorkNumber, body: SkipBody, visitor: ActingMember) -> Any:
        task = own(number, visitor)
        store.skip(number, visitor.id, body.reason, body.note, time_taken(task, body.seconds))
        return {"next": f"/{task.kind}?saved={number}"}

    @app.post("/api/work/{number}/demonstration", response_model=Said)
    def write(number: WorkNumber, body: DemonstrationBody, visitor: ActingMember) -> Any:
        task = own(number, visitor)
        prompt = task.prompt if task.item is not None else [{
            "role": "user", "content": rows.text(body.prompt, "the prompt").strip()
        }]
        store.write(number, visitor.id,
                    [*prompt, {"role": "assistant", "content": rows.text(body.answer, "the answer").strip()}],
                    time_taken(task, body.seconds))
        return {"next": f"/write?saved={number}" if task.state == "open" else "/history"}

    @app.post("/api/work/{number}/renew", response_model=Said)
    def renew(number: WorkNumber, visitor: ActingMember) -> Any:
        own(number, visitor)
        store.renew(number, visitor.id)
        return {"next": f"/work/{number}"}

    # the lead

    @app.get("/lead", response_class=HTMLResponse)
    def lead(request: Request, visitor: Leader) -> Response:
        with store.state() as state:
            kinds, begun = dict(state.kinds), bool(state.works)
        return pages.page(request, "lead.html", empty=not any(kinds.values()), begun=begun,
                          project=hidden(store.project),
                          flag_words={flag: translate(pages.language(request), f"flag_{flag}")
                                      for flag in FLAGS})

    @app.get("/api/lead/figures")
    def figures(visitor: Leader) -> dict[str, Any]:
        return dashboard.figures()

    @app.get("/lead/disputed", response_class=HTMLResponse)
    def disputed_items(request: Request, visitor: Leader) -> Response:
        with store.state() as state:
            every = disputed(state)
            found = [(item.id, agreed, skips) for item, agreed, skips in every[:100]]
            settled = [item.id for item in state.items.values() if item.settled][-20:]
        texts = {name: store.item(name) for name in [name for name, _, _ in found] + settled}
        return pages.page(request, "disputed.html", found=found, count=len(every), settled=settled, texts=texts)

    @app.get("/lead/settle", response_class=HTMLResponse)
    def settle_page(request: Request, visitor: Leader, item: Annotated[str,
                                                                       Query(max_length=rows.LONGEST_ID)]) -> Response:
        names = {person.id: person.name for person in store.people()}
        with store.state() as state:
            if item not in state.items or state.items[item].kind != "compare":
                raise HTTPException(404)
            here = state.items[item]
            said = [{
                "name": names[w.person], "ranking": w.ranking, "ratings": w.ratings, "flags": w.flags, "state": w.state,
                "reason": w.reason, "all_bad": w.all_bad
            } for w in here.works if w.counts and w.state != "open"]
            agreed, before = here.agreement, here.settled.body if here.settled else None
        texts = store.item(item)
        task = Task(0, "compare", item, texts["prompt"], texts["responses"], tuple(range(len(texts["responses"]))),
                    "settle", "open", 0.0, 0.0, before)
        return pages.comparison(request, task, said=said, agreed=agreed)

    @app.post("/api/lead/settle", response_model=Said)
    def settle(body: SettleBody, visitor: ActingLeader) -> Any:
        ratings = body.ratings if body.ratings and None not in body.ratings else None
        store.settle(body.item, visitor.id, body.ranking, [r for r in ratings or [] if r is not None] or None,
                     body.note)
        return {"next": "/lead/disputed"}

    @app.get("/lead/people", response_class=HTMLResponse)
    def people(request: Request, visitor: Leader) -> Response:
        return people_page(request)

    def people_page(request: Request, link: str | None = None, ends: float = 0.0) -> Response:
        return pages.page(request, "people.html", everybody=store.people(), invites=accounts.open_invites(), link=link,
                          ends=ends)

    def link_page(request: Request, token: str, hours: float) -> Response:
        return people_page(request, f"{(address_of or str(request.base_url)).rstrip('/')}/invite/{token}",
                           time.time() + 3600 * hours)

    @app.post("/lead/invites", response_class=HTMLResponse)
    def invite(request: Request, visitor: FormLeader, role: Annotated[str, Form()] = "annotator",
               note: Annotated[str, Form(max_length=200)] = "",
               hours: Annotated[float, Form(gt=0, le=2160)] = 72.0) -> Response:
        return link_page(request, accounts.invite(role, note, hours), hours)

    @app.post("/lead/invites/withdraw", response_class=HTMLResponse)
    def withdraw(visitor: FormLeader, token: Annotated[str, Form(max_length=100)]) -> Response:
        accounts.withdraw(token)
        return RedirectResponse("/lead/people", 303)

    @app.post("/lead/people/{number}/role", response_class=HTMLResponse)
    def role(number: WorkNumber, visitor: FormLeader, role: Annotated[str, Form()]) -> Response:
        store.change_role(number, role, visitor.id)
        return RedirectResponse("/lead/people", 303)

    @app.post("/lead/people/{number}/password", response_class=HTMLResponse)
    def new_password(request: Request, number: WorkNumber, visitor: FormLeader) -> Response:
        person = next((one for one in store.people() if one.id == number and not one.removed and one.kind == "human"),
                      None)
        if person is None:
            raise HTTPException(404)
        return link_page(request, accounts.invite(person.role, person.name, 24.0, person.id), 24.0)

    @app.post("/lead/people/{number}/remove", response_class=HTMLResponse)
    def remove(number: WorkNumber, visitor: FormLeader) -> Response:
        store.remove_person(number, visitor.id)
        return RedirectResponse("/lead/people", 303)

    @app.get("/lead/settings", response_class=HTMLResponse)
    def settings_page(request: Request, visitor: Leader, saved: bool = False) -> Response:
        return pages.page(request, "settings.html", current=store.settings, fields=_settings_fields(), was_saved=saved)

    @app.post("/lead/settings", response_class=HTMLResponse)
    def change_settings(visitor: FormLeader, title: Annotated[str, Form()], overlap: Annotated[int, Form()],
                        overlap_share: Annotated[float, Form()], lease_minutes: Annotated[float, Form()],
                        known_share: Annotated[float, Form()], repeat_share: Annotated[float, Form()],
                        repeat_after: Annotated[int,
                                                Form()], uncertain_share: Annotated[float,
                                                                                    Form()], heldout: Annotated[float,
                                                                                                                Form()],
                        disputed_below: Annotated[float,
                                                  Form()], disputed_skips: Annotated[int,
                                                                                     Form()], seed: Annotated[int,
                                                                                                              Form()],
                        guidelines: Annotated[str, Form()] = "", free_writing: Annotated[bool,
                                                                                         Form()] = False) -> Response:
        store.change_settings(visitor.id, title=title, guidelines=guidelines.replace("\r\n", "\n"), overlap=overlap,
                              overlap_share=overlap_share, lease_minutes=lease_minutes, known_share=known_share,
                              repeat_share=repeat_share, repeat_after=repeat_after, uncertain_share=uncertain_share,
                              heldout=heldout, free_writing=free_writing, disputed_below=disputed_below,
                              disputed_skips=disputed_skips, seed=seed)
        return RedirectResponse("/lead/settings?saved=true", 303)

    @app.get("/lead/export", response_class=HTMLResponse)
    def export_page(request: Request, visitor: Leader) -> Response:
        return pages.page(request, "export.html", kinds=list(EXPORTS))

    @app.get("/lead/export/{kind}.jsonl", response_class=StreamingResponse,
             responses={200: {"content": {"application/x-ndjson": {}}}})
    def download(kind: Annotated[str, Path(max_length=40)], visitor: Leader) -> Response:
        if kind not in EXPORTS:
            raise HTTPException(404)
        return StreamingResponse(write_lines(store, kind), media_type="application/x-ndjson",
                                 headers={"content-disposition": f'attachment; filename="{kind}.jsonl"'})

    # files of ours, under names that change with them

    @app.get("/static/{name}", include_in_schema=False)
    def static(name: str) -> Response:
        if name not in STATIC:
            raise HTTPException(404)
        return Response(_asset(name), media_type=STATIC[name],
                        headers={"cache-control": "public, max-age=31536000, immutable"})

    @app.get("/healthz", response_class=Response, responses={200: {"content": {"text/plain": {}}}})
    def healthz() -> Response:
        return Response("ok\n", media_type="text/plain")

    return app


class _Guard:
    """Around the whole app: the headers of every answer, and a limit on what a request may hold."""

    def __init__(self, app: Callable[[Scope, Any, Any], Awaitable[None]]) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Any, send: Any) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        given = 0

        async def sending(message: Scope) -> None:
            if message["type"] == "http.response.start":
                present = {name for name, _ in message["headers"]}
                extra = HEADERS | ({} if b"cache-control" in present else {"cache-control": "no-store"})
                message = {
                    **message, "headers": [*message["headers"], *((k.encode(), v.encode()) for k, v in extra.items())]
                }
            await send(message)

        async def let_pass(message: Any) -> None:
            """Read what is still being sent, within reason: who sends would not see the answer."""
            nonlocal given
            while message.get("more_body") and given < 16 * MOST_BYTES:
                message = await receive()
                given += len(message.get("body", b""))

        async def receiving() -> Any:
            nonlocal given
            message = await receive()
            given += len(message.get("body", b""))
            if given > MOST_BYTES:
                await let_pass(message)
                raise AnyHTTPException(413, f"a request may hold {MOST_BYTES:,} bytes", {"connection": "close"})
            return message

        if scope["method"] == "POST" and not _same_origin(dict(scope["headers"])):
            await let_pass({"more_body": True})
            refused = JSONResponse({"error": "the request comes from another site"}, 403, {"connection": "close"})
            await refused(scope, receive, sending)
        else:
            await self.app(scope, receiving, sending)


def _same_origin(headers: dict[bytes, bytes]) -> bool:
    """Browsers name the origin of every POST; one from elsewhere is refused, whatever cookies it carries."""
    if headers.get(b"sec-fetch-site", b"same-origin") not in (b"same-origin", b"none"):
        return False
    origin = headers.get(b"origin")
    return origin is None or origin.partition(b"://")[2] == headers.get(b"host")


def _unshuffled(said: dict[str, Any], order: tuple[int, ...]) -> dict[str, Any]:
    """What was said about places on the page, as said about the item's responses."""
    def of(values: list[Any] | None, name: str) -> list[Any] | None:
        if values is None:
            return None
        if len(values) != len(order):
            raise TriviumError(f"`{name}` does not have one value for each of the {len(order)} responses")
        found: list[Any] = [None] * len(order)
        for place, value in zip(order, values):
            found[place] = value
        return found
    ranking, ratings = said["ranking"], said["ratings"]
    if ranking is not None:
        rows.ranking(ranking, len(order), tied=True)  # names each place once
        ranking = [[order[place] for place in group] for group in ranking]
    if ratings is not None and said["all_bad"] and None in ratings:
        ratings = None
    return {
        "ranking": ranking, "ratings": of(ratings, "ratings"), "flags": of(said["flags"], "flags"),
        "all_bad": said["all_bad"]
    }


def _shuffled(answer: dict[str, Any] | None, order: tuple[int, ...]) -> dict[str, Any] | None:
    """An earlier answer, by places on the page."""
    if answer is None or "ranking" not in answer:
        return None
    place = {number: at for at, number in enumerate(order)}
    untouched = answer["all_bad"] and len(answer["ranking"]) == 1
    return {
        "ranking": [] if untouched else [sorted(place[number] for number in group) for group in answer["ranking"]],
        "ratings": [answer["ratings"][number] for number in order] if answer["ratings"] else None,
        "flags": [answer["flags"][number] for number in order], "all_bad": answer["all_bad"], "note": answer["note"]
    }


def _settings_fields() -> Iterator[tuple[str, str, dict[str, Any]]]:
    """``(name, kind of input, its attributes)`` of every setting."""
    for name, about in FeedbackSettings.model_json_schema()["properties"].items():
        if name == "guidelines":
            yield name, "text", {"maxlength": about["maxLength"]}
        elif about["type"] == "boolean":
            yield name, "checkbox", {}
        elif about["type"] == "string":
            yield name, "line", {"maxlength": about["maxLength"], "required": "required"}
        else:
            low, high = about.get("minimum",
                                  about.get("exclusiveMinimum")), about.get("maximum", about.get("exclusiveMaximum"))
            yield name, "number", {
                "min": low, "max": high, "step": 1 if about["type"] == "integer" else "any", "required": "required"
            }


def _asset(name: str) -> bytes:
    return (resources.files("trivium.feedback") / "static" / name).read_bytes()


class _Pages:
    """The templates, and what all of them show."""

    def __init__(self, store: Store) -> None:
        self.store = store
        versions = {name: hashlib.sha256(_asset(name)).hexdigest()[:12] for name in STATIC}
        self.templates = jinja2.Environment(loader=jinja2.PackageLoader("trivium.feedback", "pages"), autoescape=True,
                                            undefined=jinja2.StrictUndefined, auto_reload=False, trim_blocks=True,
                                            lstrip_blocks=True)
        self.script_words = {language: json.dumps(script_words(language), ensure_ascii=False) for language in LANGUAGES}
        self.templates.filters["percent"] = lambda value: "–" if value != value else f"{100 * value:.0f} %"
        self.templates.filters["moment"] = lambda at: datetime.fromtimestamp(at, UTC).strftime("%Y-%m-%d %H:%M UTC")
        self.templates.filters["compact"] = lambda value: json.dumps(value, ensure_ascii=False)
        self.templates.filters["query"] = urlencode
        self.templates.globals.update(static=lambda name: f"/static/{name}?{versions[name]}", languages=LANGUAGES,
                                      flags=FLAGS, skips=SKIPS, letters=LETTERS)

        for name in self.templates.list_templates():  # compiled before the first visitor comes
            self.templates.get_template(name)

    def language(self, request: Request) -> str:
        """The visitor's choice, else what their browser asks for."""
        chosen = request.cookies.get("language")
        if chosen in LANGUAGES:
            return str(chosen)
        return "zh" if request.headers.get("accept-language", "").strip().lower().startswith("zh") else "en"

    def page(self, request: Request, template: str, status: int = 200, /, **values: Any) -> HTMLResponse:
        """A page in the visitor's language."""
        language = self.language(request)
        visitor: Visitor | None = getattr(request.state, "visitor", None)

        def t(key: str, **gaps: object) -> str:
            return translate(language, key, **gaps)
        theme = request.cookies.get("theme", "")
        here = request.url.path + (f"?{request.url.query}" if request.url.query else "")
        if request.method != "GET":
            here = request.url.path if template in ("login.html", "invite.html") else "/"
        common = {
            "t": t, "language": language, "visitor": visitor, "settings": self.store.settings, "here": here,
            "path": request.url.path, "theme": theme if theme in ("light", "dark") else "",
            "script_words": self.script_words[language], "message": None, "has_word": WORDS.__contains__
        }
        return HTMLResponse(self.templates.get_template(template).render(common | values), status)

    def comparison(self, request: Request, task: Task, **values: Any) -> HTMLResponse:
        """The page to compare on."""
        answer = _shuffled(task.answer, task.order)
        return self.page(request, "compare.html", **{"saved": None, "said": None, "agreed": None} | values, task=task,
                         answer=answer)
