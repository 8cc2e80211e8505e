"""All items and answers of a project, to be filtered, sorted and read: what the lead looks things up in.

What can be asked for stands in columns of numbers, one row an entry and one an answer, which catch up with what has
happened whenever somebody asks. Of 100,000 items a page is then a few operations on arrays; texts are found by
:mod:`~trivium.feedback.search`, and read for the entries of one page alone.
"""

from __future__ import annotations

import math
import threading
import time
from dataclasses import dataclass
from typing import Any

import numpy as np

from trivium.feedback.search import Search
from trivium.feedback.settings import FLAGS
from trivium.feedback.state import JUDGED, OPEN, SKIPPED, Item, State, Work
from trivium.feedback.store import Store
from trivium.files import Row

PAGE = 50
"""Entries of one page."""

STATES = ("waiting", "begun", "finished", "disputed", "settled", "withdrawn")
"""What an entry is at the moment: nobody has answered, some have, all have; people differ; the lead has had the last
word; the lead has taken it out."""

_WAITING, _BEGUN, _FINISHED, _DISPUTED, _SETTLED, _WITHDRAWN = range(len(STATES))
KINDS = ("compare", "write", "known")

SORTS: tuple[str, ...] = ("newest", "imported", "agreement", "rating", "-rating", "skips", "answers")


@dataclass(frozen=True)
class Wanted:
    """What is asked for; whatever is left as it is does not matter. ``person`` to ``corrected`` are about one and the
    same answer."""

    text: str = ""
    kind: str = ""  # of KINDS
    state: str = ""  # of STATES, "held": in somebody's hands, or "late": its deadline has passed, and it is not done
    agreement: float | None = None  # less than this share of the pairs is ordered alike
    person: int | None = None
    flag: str = ""
    rating: int | None = None  # of some response
    skipped: bool = False
    noted: bool = False
    all_bad: bool = False
    corrected: bool = False
    sort: str = "newest"
    page: int = 0

    @property
    def of_answers(self) -> bool:
        """Whether it asks for something about answers."""
        return self.person is not None or bool(self.flag) or self.rating is not None or any(
            (self.skipped, self.noted, self.all_bad, self.corrected))


@dataclass(frozen=True)
class Listed:
    """An entry of a page."""

    number: int
    item: str | None
    kind: str
    state: str
    text: str
    answers: int
    wanted: int
    skips: int
    agreement: float
    rating: float
    flags: tuple[str, ...]
    noted: bool
    newest: float  # when somebody answered last; 0 for never
    deadline: float | None = None
    late: bool = False


class _Table:
    """Columns of numbers under keys, which grow."""

    def __init__(self, **types: Any) -> None:
        self.rows: dict[int, int] = {}
        self._columns = {name: np.zeros(1024, dtype) for name, dtype in types.items()}

    def put(self, key: int, **values: Any) -> None:
        """Write the row of a key."""
        row = self.rows.setdefault(key, len(self.rows))
        for name, value in values.items():
            if row >= len(self._columns[name]):
                self._columns[name] = np.concatenate([self._columns[name], np.zeros_like(self._columns[name])])
            self._columns[name][row] = value

    def __getitem__(self, name: str) -> np.ndarray:
        """A column."""
        return self._columns[name][:len(self.rows)]


class Catalogue:
    """The entries of a store."""

    def __init__(self, store: Store) -> None:
        self.store, self.search = store, Search(store)
        self._lock = threading.Lock()
        self._forget(None)

    def _forget(self, settings: Any) -> None:
        self._settings, self._last = settings, 0
        self._entries = _Table(number=np.int64, kind=np.int8, state=np.int8, done=bool, agreement=float, rating=float,
                               answers=np.int32, skips=np.int32, newest=float, until=float,
                               deadline=float)
        self._answers = _Table(entry=np.int64, person=np.int64, flags=np.int32, ratings=np.int32, skipped=bool,
                               noted=bool, all_bad=bool, corrected=bool)

    def find(self, wanted: Wanted, now: float | None = None) -> tuple[int, list[Listed]]:
        """How many entries are as wanted, and those of the page."""
        found = self.search.find(wanted.text) if wanted.text.strip() else None
        with self._lock:
            self._catch_up()
            chosen = np.flatnonzero(self._as_wanted(wanted, found, time.time() if now is None else now))
            ordered = self._sorted(chosen, wanted.sort)
            page = self._entries["number"][ordered[wanted.page * PAGE:(wanted.page + 1) * PAGE]].tolist()
        return len(chosen), self._listed(page)

    def prepare(self) -> None:
        """Take in all there is, so that the first who asks need not wait for that."""
        self.search.find("a")
        self.find(Wanted())

    def _catch_up(self) -> None:
        """Take in the entries that something has happened to."""
        with self.store.state() as state:
            settings = state.settings
            deciding = (settings.overlap, settings.overlap_share, settings.seed, settings.disputed_below,
                        settings.disputed_skips)
            if deciding != self._settings:
                self._forget(deciding)
            changed = [(number, state.entries[number]) for number in state.touched_since(self._last)]
            last = state.last
        for number, entry in changed:  # outside the store's lock: what changes meanwhile comes again
            self._take(state, number, entry)
        self._last = last

    def _take(self, state: State, number: int, entry: Item | Work) -> None:
        works = entry.works if isinstance(entry, Item) else [entry]
        ratings = [rating for work in works if work.state == JUDGED for rating in work.ratings or ()]
        self._entries.put(
            number, number=number, kind=KINDS.index(_kind(entry)), state=_state(state, entry),
            done=isinstance(entry, Work) or state.finished(entry),
            agreement=entry.agreement if isinstance(entry, Item) else math.nan,
            rating=sum(ratings) / len(ratings) if ratings else math.nan,
            answers=sum(work.state == JUDGED for work in works), skips=sum(work.state == SKIPPED for work in works),
            newest=max((work.finished_at for work in works), default=0.0),
            until=max((work.until for work in works if work.state == OPEN), default=0.0),
            deadline=_deadline(state, entry) or math.inf)
        row = self._entries.rows[number]
        for work in works:
            if work.state != OPEN:
                self._answers.put(work.id, entry=row, person=work.person, flags=_flags(work.flags),
                                  ratings=_bits(work.ratings or ()), skipped=work.state == SKIPPED, noted=work.noted,
                                  all_bad=work.all_bad, corrected=work.corrections > 0)
        if isinstance(entry, Item) and entry.settled:
            body = entry.settled.body
            self._answers.put(-number, entry=row, person=entry.settled.who or 0, flags=_flags(body["flags"]),
                              ratings=_bits(body["ratings"] or ()), skipped=False, noted=bool(body["note"]),
                              all_bad=body["all_bad"], corrected=False)

    def _as_wanted(self, wanted: Wanted, found: np.ndarray | None, now: float) -> np.ndarray:
        """Whether each entry is as wanted."""
        entries, answers = self._entries, self._answers
        chosen = np.ones(len(entries.rows), bool)
        if found is not None:
            chosen &= np.isin(entries["number"], found, assume_unique=True)
        if wanted.kind:
            chosen &= entries["kind"] == KINDS.index(wanted.kind)
        if wanted.state == "held":
            chosen &= entries["until"] > now
        elif wanted.state == "late":
            chosen &= (entries["deadline"] < now) & ~entries["done"]
        elif wanted.state == "finished":  # settled and disputed ones are finished, too
            chosen &= entries["done"] & (entries["state"] != _WITHDRAWN)
        elif wanted.state:
            chosen &= entries["state"] == STATES.index(wanted.state)
        if wanted.agreement is not None:
            chosen &= entries["agreement"] < wanted.agreement  # NaN is not
        if wanted.of_answers:
            said = np.ones(len(answers.rows), bool)
            if wanted.person is not None:
                said &= answers["person"] == wanted.person
            if wanted.flag:
                said &= (answers["flags"] & _flags([[wanted.flag]])) > 0
            if wanted.rating is not None:
                said &= (answers["ratings"] & _bits([wanted.rating])) > 0
            for name in ("skipped", "noted", "all_bad", "corrected"):
                if getattr(wanted, name):
                    said &= answers[name]
            some = np.zeros(len(entries.rows), bool)
            some[answers["entry"][said]] = True
            chosen &= some
        return chosen

    def _sorted(self, chosen: np.ndarray, sort: str) -> np.ndarray:
        """Entries in an order; what is not known comes last, and of equals what was imported first."""
        if sort == "imported":
            return chosen
        falls = sort in ("newest", "skips", "answers", "-rating")
        values = self._entries[sort.lstrip("-")][chosen].astype(float)
        return chosen[np.argsort(-values if falls else values, kind="stable")]

    def _listed(self, page: list[int]) -> list[Listed]:
        with self.store.state() as state:
            entries = [(number, state.entries[number]) for number in page]
            events = [number if isinstance(entry, Item) else entry.event for number, entry in entries]
        bodies = self.store.bodies(event for event in events if event)
        return [_listed(state, number, entry, bodies.get(event)) for (number, entry), event in zip(entries, events)]

    def entry(self, number: int) -> Row | None:
        """All that is known of an entry: its ``listed``, the ``item``'s texts, the ``works`` with their newest and
        earlier answers, and the lead's ``rulings``; None where there is none."""
        with self.store.state() as state:
            entry = state.entries.get(number)
            if entry is None:
                return None
            works = list(entry.works) if isinstance(entry, Item) else [entry]
            rulings = entry.rulings if isinstance(entry, Item) else ()
            newest = {work.id: work.event for work in works}
        events = self.store.read([number, *rulings, *(event for event in newest.values() if event),
                                  *(event for work in works for event in work.earlier)])
        item = events[number].body if isinstance(entry, Item) else None
        return {
            "listed": _listed(state, number, entry, item or events[newest[number]].body if newest.get(number, 1)
                              else None),
            "item": item, "imported": events[number],
            "works": [{"work": work, "answer": events.get(newest[work.id]),
                       "earlier": [events[event] for event in work.earlier if event in events]} for work in works],
            "rulings": [events[event] for event in rulings]
        }


def _kind(entry: Item | Work) -> str:
    return "known" if isinstance(entry, Item) and entry.known else entry.kind


def _state(state: State, entry: Item | Work) -> int:
    if isinstance(entry, Work):
        return _WAITING if entry.state == OPEN else _FINISHED
    if entry.closed:
        return _WITHDRAWN
    if entry.settled:
        return _SETTLED
    if state.disputed(entry):
        return _DISPUTED
    if state.finished(entry):
        return _FINISHED
    return _BEGUN if any(work.state != OPEN for work in entry.works) else _WAITING


def _listed(state: State, number: int, entry: Item | Work, body: Row | None) -> Listed:
    works = entry.works if isinstance(entry, Item) else [entry]
    ratings = [rating for work in works if work.state == JUDGED for rating in work.ratings or ()]
    settled = entry.settled.body if isinstance(entry, Item) and entry.settled else None
    flags = {flag for work in works for one in work.flags for flag in one}
    flags |= {flag for one in settled["flags"] for flag in one} if settled else set()
    deadline = _deadline(state, entry)
    prompt = (body.get("prompt") or body.get("messages") if body else None) or [{"content": ""}]
    return Listed(
        number, entry.id if isinstance(entry, Item) else None, _kind(entry), STATES[_state(state, entry)],
        prompt[-1]["content"] if isinstance(entry, Item) else prompt[0]["content"],
        sum(work.state == JUDGED for work in works), state.wanted(entry) if isinstance(entry, Item) else 1,
        sum(work.state == SKIPPED for work in works), entry.agreement if isinstance(entry, Item) else math.nan,
        sum(ratings) / len(ratings) if ratings else math.nan, tuple(flag for flag in FLAGS if flag in flags),
        any(work.noted for work in works) or bool(settled and settled["note"]),
        max((work.finished_at for work in works), default=0.0), deadline,
        deadline is not None and deadline < time.time() and isinstance(entry, Item) and not state.finished(entry))


def _deadline(state: State, entry: Item | Work) -> float | None:
    return state.deadline(entry) if isinstance(entry, Item) else None


def _flags(flags: Any) -> int:
    """Flags of all responses, as bits."""
    return _bits(FLAGS.index(flag) for one in flags for flag in one)


def _bits(numbers: Any) -> int:
    result = 0
    for number in numbers:
        result |= 1 << number
    return result
