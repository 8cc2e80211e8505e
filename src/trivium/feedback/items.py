"""A project's items as the lead looks through them: which fit, and all that was said about one."""

from __future__ import annotations

import json
import math
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

import sqlalchemy as sql

from trivium.errors import TriviumError
from trivium.feedback.database import events
from trivium.feedback.settings import FLAGS
from trivium.feedback.state import JUDGED, OPEN, SKIPPED, Item, State, Work
from trivium.feedback.store import Store

STATES = ("new", "begun", "finished", "disputed", "settled", "withdrawn")
"""What may be so of an item: nobody has answered; some have, but not all who should; all have; they disagree; the lead
has had the last word; it was taken out."""
ORDERS = ("newest", "oldest", "agreement")
OWN = "own:"
"""Begins the name of what somebody wrote to a prompt of their own: the number of the work follows."""
SEARCHED = ("item", "judgement", "demonstration", "skip", "settled")
"""Events whose texts are searched."""


@dataclass(frozen=True)
class Wanted:
    """Which items are looked for; what is empty or 0 does not matter. All that is given must hold."""

    text: str = ""
    """What a prompt, a response, a demonstration or a note holds, capitals aside."""
    state: str = ""
    """One of :data:`STATES`."""
    person: int = 0
    """Somebody who answered or skipped it."""
    flag: str = ""
    """A mark on a response."""
    rating: int = 0
    """A rating that a response got."""
    answer: str = ""
    """``judged``, ``skipped``, ``note`` (somebody left one) or ``all_bad``."""
    kind: str = ""
    """``compare`` or ``write``."""
    order: str = "newest"
    """One of :data:`ORDERS`: by when they came, or those first that annotators order least alike."""

    def works(self, works: Iterable[Work]) -> bool:
        """Whether some answer fits all that is asked of answers."""
        return any((not self.person or work.person == self.person) and
                   (not self.flag or any(self.flag in flags for flags in work.flags)) and
                   (not self.rating or self.rating in (work.ratings or ())) and
                   (not self.answer or ANSWERS[self.answer](work)) for work in works if work.state != OPEN)

    @property
    def of_answers(self) -> bool:
        """Whether anything is asked of answers."""
        return bool(self.person or self.flag or self.rating or self.answer)


ANSWERS = {
    "judged": lambda work: work.state == JUDGED, "skipped": lambda work: work.state == SKIPPED,
    "note": lambda work: work.noted, "all_bad": lambda work: work.all_bad}
"""What may be asked of an answer."""


@dataclass(frozen=True)
class Entry:
    """An item, or what somebody wrote to a prompt of their own."""

    name: str
    kind: str
    event: int
    works: list[Work]
    item: Item | None


def find(store: Store, wanted: Wanted, first: int, count: int) -> dict[str, Any]:
    """``{"total", "rows"}``: some of the items that fit. A row has ``name``, ``kind``, ``state``, the end of its prompt
    (``text``), how many ``judged`` and ``skipped`` it, the ``agreement`` (None for less than two), the ``flags`` with
    their counts, and whether there are ``notes``. Raises :class:`TriviumError` for a filter that there is not."""
    for given, known, what in ((wanted.state, STATES, "state"), (wanted.answer, ANSWERS, "answer"),
                               (wanted.order, ORDERS, "order"), (wanted.flag, FLAGS, "flag")):
        if given and given not in known:
            raise TriviumError(f"there is no {what} {given[:40]!r}")
    matching = names_with(store, wanted.text) if wanted.text.strip() else None
    with store.state() as state:
        fitting = [entry for entry in entries(state)
                   if (matching is None or entry.name in matching)
                   and (not wanted.kind or entry.kind == wanted.kind)
                   and (not wanted.of_answers or wanted.works(entry.works))
                   and (not wanted.state or state_of(state, entry) == wanted.state)]
        if wanted.order == "agreement":
            fitting.sort(key=lambda entry: 2.0 if (agreement := agreement_of(entry)) is None else agreement)
        elif wanted.order == "newest":
            fitting.reverse()
        page = [(entry, row_of(state, entry)) for entry in fitting[first:first + count]]
    bodies = store.bodies(entry.event for entry, _ in page)
    return {"total": len(fitting), "rows": [row | {"text": last_words(bodies[entry.event])} for entry, row in page]}


def entries(state: State) -> Iterator[Entry]:
    """All that a lead may look at, the oldest first. Items whose answer is known are left out: they test people."""
    for item in state.items.values():
        if not item.known:
            yield Entry(item.id, item.kind, item.event, item.works, item)
    for work in state.works.values():
        if work.item is None and work.state == JUDGED:
            yield Entry(f"{OWN}{work.id}", "write", work.event, [work], None)


def names_with(store: Store, text: str) -> set[str]:
    """The names of the entries whose prompts, responses, answers or notes hold a text."""
    inside = json.dumps(text.strip(), ensure_ascii=False)[1:-1]
    found = sql.select(events.c.kind, events.c.body).where(
        events.c.kind.in_(SEARCHED), events.c.body.icontains(inside, autoescape=True))
    names = set[str]()
    with store.engine.connect() as connection, store.state() as state:
        for kind, body in connection.execute(found):
            about = json.loads(body)
            if kind in ("item", "settled"):
                names.add(about["item"])
            elif (work := state.works.get(about["work"])) is not None:
                names.add(work.item if work.item is not None else f"{OWN}{work.id}")
    return names


def row_of(state: State, entry: Entry) -> dict[str, Any]:
    """What the table shows of an entry, its text aside."""
    answered = [work for work in entry.works if work.state != OPEN]
    return {
        "name": entry.name, "kind": entry.kind, "state": state_of(state, entry),
        "judged": sum(work.state == JUDGED for work in answered),
        "skipped": sum(work.state == SKIPPED for work in answered), "agreement": agreement_of(entry),
        "flags": dict(Counter(flag for work in answered for flags in work.flags for flag in flags)),
        "notes": sum(work.noted for work in answered)}


def state_of(state: State, entry: Entry) -> str:
    """One of :data:`STATES`."""
    item = entry.item
    if item is None:
        return "finished"
    if item.withdrawn:
        return "withdrawn"
    if item.settled is not None:
        return "settled"
    agreement = agreement_of(entry)
    if agreement is not None and agreement < state.settings.disputed_below:
        return "disputed"
    if state.finished(item):
        return "finished"
    return "begun" if any(work.state != OPEN for work in item.works) else "new"


def agreement_of(entry: Entry) -> float | None:
    """The share of pairs that annotators order alike; None for less than two of them."""
    if entry.item is None or entry.kind != "compare":
        return None
    return None if math.isnan(entry.item.agreement) else entry.item.agreement


def last_words(body: dict[str, Any]) -> str:
    """The end of a prompt."""
    prompt = body.get("prompt") or body.get("messages", [])[:-1]
    return str(prompt[-1]["content"])[:300] if prompt else ""


def whole(store: Store, name: str) -> dict[str, Any]:
    """All about one entry: what :func:`row_of` tells, ``prompt``, ``responses``, the lead's word (``settled``), and
    everybody's ``answers`` with ``person``, ``state``, ``at``, ``seconds``, ``corrections`` and what they said. Raises
    :class:`TriviumError` for a name that there is not."""
    with store.state() as state:
        entry = entry_of(state, name)
        about = row_of(state, entry)
        works: list[tuple[int, dict[str, Any]]] = [(work.event, {
            "person": work.person, "state": work.state, "at": work.finished_at or work.at, "why": work.why,
            "seconds": work.seconds, "corrections": work.corrections, "ranking": work.ranking, "ratings": work.ratings,
            "flags": work.flags, "all_bad": work.all_bad, "reason": work.reason
        }) for work in entry.works if work.state != OPEN]
        settled = entry.item.settled if entry.item else None
    bodies = store.bodies([entry.event, *(event for event, _ in works)])
    body, names = bodies[entry.event], {person.id: person.name for person in store.people()}
    answers = []
    for event, work in works:
        said = bodies[event]
        written = said.get("messages", [])
        answers.append(work | {"name": names.get(work["person"], ""), "note": said.get("note", ""),
                               "written": written[-1]["content"] if written else ""})
    return about | {
        "text": last_words(body), "prompt": body.get("prompt") or body["messages"][:-1],
        "responses": body.get("responses", []), "answers": answers,
        "settled": settled and settled.body | {"at": settled.at, "name": names.get(settled.who or 0, "")}}


def entry_of(state: State, name: str) -> Entry:
    """The entry of a name. Raises :class:`TriviumError`."""
    if (item := state.items.get(name)) is not None:
        return Entry(item.id, item.kind, item.event, item.works, item)
    number = name.removeprefix(OWN)
    work = state.works.get(int(number)) if name.startswith(OWN) and number.isascii() and number.isdecimal() and len(
        number) < 19 else None
    if work is None or work.item is not None or work.state != JUDGED:
        raise TriviumError(f"there is no item {name[:60]!r}")
    return Entry(name, "write", work.event, [work], None)
