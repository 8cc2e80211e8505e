"""The pages: templates, what all of them show, and the files they load."""

from __future__ import annotations

import hashlib
import json
import time
from datetime import UTC, datetime
from functools import cache
from importlib import resources
from typing import Any, Protocol
from urllib.parse import urlencode

import jinja2
from fastapi import Request
from fastapi.responses import HTMLResponse
from markupsafe import Markup

from trivium.feedback.accounts import Visitor
from trivium.feedback.settings import FLAGS, SKIPS, FeedbackSettings
from trivium.feedback.store import Task
from trivium.feedback.texts import LANGUAGES, WORDS, script_words, translate
from trivium.feedback.web.places import by_place

LETTERS = "ABCDEFGHIJKLMNOPQRSTUVWXYZ"
STATIC = {
    "app.css": "text/css", "icon.svg": "image/svg+xml", **dict.fromkeys(
        ("app.js", "compare.js", "write.js", "lead.js", "items.js", "marks.js", "markdown.js", "rendered.js"),
        "text/javascript")
}
"""Media types of the files that pages load."""


def asset(name: str) -> bytes:
    """A file of :data:`STATIC`."""
    return (resources.files("trivium.feedback") / "static" / name).read_bytes()


def language_of(request: Request) -> str:
    """The visitor's choice, else what their browser asks for."""
    chosen = request.cookies.get("language")
    if chosen in LANGUAGES:
        return str(chosen)
    return "zh" if request.headers.get("accept-language", "").strip().lower().startswith("zh") else "en"


class HasSettings(Protocol):
    """A store, or what stands for one."""

    @property
    def settings(self) -> FeedbackSettings: ...


def root_of(request: Request) -> str:
    """What stands before every path of a project that is one of several; empty for one alone."""
    return str(getattr(request.state, "root", ""))


class Pages:
    """The templates, and what all of them show."""

    def __init__(self, store: HasSettings) -> None:
        self.store = store
        self.script_words = {language: json.dumps(script_words(language), ensure_ascii=False) for language in LANGUAGES}
        self.templates = _templates()
        for name in self.templates.list_templates():  # compiled before the first visitor comes
            self.templates.get_template(name)

    def page(self, request: Request, template: str, status: int = 200, /, **values: Any) -> HTMLResponse:
        """A page in the visitor's language."""
        language = language_of(request)
        visitor: Visitor | None = getattr(request.state, "visitor", None)

        def t(key: str, **gaps: object) -> str:
            if any(hasattr(gap, "__html__") for gap in gaps.values()):
                return Markup(translate(language, key)).format(**gaps)
            return translate(language, key, **gaps)
        theme = request.cookies.get("theme", "")
        here = request.url.path + (f"?{request.url.query}" if request.url.query else "")
        if request.method != "GET":
            here = request.url.path if template in ("login.html", "invite.html") else "/"
        root = root_of(request)
        common = {
            "root": root, "several": bool(root), "static": lambda name: root + _static(name), "t": t,
            "language": language, "visitor": visitor, "settings": self.store.settings, "here": here,
            "path": request.url.path, "theme": theme if theme in ("light", "dark") else "",
            "script_words": self.script_words[language], "message": None, "has_word": WORDS.__contains__
        }
        return HTMLResponse(self.templates.get_template(template).render(common | values), status)

    query = staticmethod(urlencode)

    def comparison(self, request: Request, task: Task, **values: Any) -> HTMLResponse:
        """The page to compare on."""
        answer = by_place(task.answer, task.order, task.responses)
        return self.page(request, "compare.html", **{"saved": None, "judgements": None, "agreement": None} | values,
                         task=task, answer=answer)


def _moment(at: float) -> Markup:
    """A time, in UTC until a script says it as the reader's clock does."""
    when = datetime.fromtimestamp(at, UTC)
    return Markup('<time datetime="{}">{}</time>').format(when.strftime("%Y-%m-%dT%H:%M:%SZ"),
                                                           when.strftime("%Y-%m-%d %H:%M UTC"))


@cache
def _static(name: str) -> str:
    """The address of a file, which changes with it."""
    return f"/static/{name}?{hashlib.sha256(asset(name)).hexdigest()[:12]}"


def _templates() -> jinja2.Environment:
    templates = jinja2.Environment(loader=jinja2.PackageLoader("trivium.feedback", "pages"), autoescape=True,
                                   undefined=jinja2.StrictUndefined, auto_reload=False, trim_blocks=True,
                                   lstrip_blocks=True)
    templates.filters.update(
        percent=lambda value: "–" if value != value else f"{100 * value:.0f} %",
        moment=_moment, with_word=lambda value, prefix, t: (value, t(f"{prefix}{value}".replace("-", "falling_"))),
        iso=lambda at: datetime.fromtimestamp(at, UTC).strftime("%Y-%m-%dT%H:%M:%SZ"),
        compact=lambda value: json.dumps(value, ensure_ascii=False), query=urlencode)
    templates.globals.update(languages=LANGUAGES, flags=FLAGS,
                             skips=SKIPS, letters=LETTERS, now=time.time)
    return templates
