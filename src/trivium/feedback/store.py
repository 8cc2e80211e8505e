"""The store of human feedback: every answer is an event that is appended and never changed.

People in a browser, simulated annotators, AI annotators and the chat page all come through :class:`Store`:

    store = Store("my-project", create=True)
    store.add_items([{"prompt": "Hello", "responses": ["Hi!", "Go away."]}])
    anna = store.add_person("anna")
    work = store.next_work(anna)
    store.judge(work.id, anna, ranking=[[0], [1]], ratings=[6, 2])
    store.add_thumb([{"role": "user", "content": "Hello"}], "Hi!", True, who="visitor", model="runs/quickstart/ppo")

A store may be used from many threads, and a project by many processes at once. What a method has returned from is on
the disk.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import sqlalchemy as sql
from pydantic import ValidationError
from sqlalchemy.engine import Connection

from trivium.errors import TriviumError, counted, nearest
from trivium.faults import explain
from trivium.feedback import rows
from trivium.feedback.agreement import Ranking
from trivium.feedback.assignment import choose, lease, open_work
from trivium.feedback.database import (
    APPEND,
    EVENT_BODY,
    EVENTS_SINCE,
    PRESENT,
    events,
    hidden,
    lock_events,
    meta,
    open_database,
    people,
    pictures,
    sessions,
    writing,
)
from trivium.feedback.pictures import apart, keep
from trivium.feedback.rows import canonical, prompt_key
from trivium.feedback.settings import KINDS, ROLES, FeedbackSettings
from trivium.feedback.state import JUDGED, OPEN, SKIPPED, Event, Item, State, Work
from trivium.files import Row, what

_BATCH = 500


@dataclass(frozen=True)
class Person:
    """Somebody who works on a project, or worked: the name and password of a removed person may be gone, their work is
    not."""

    id: int
    name: str
    role: str  # annotator, lead
    kind: str  # human, simulated, ai
    added_at: float
    removed: bool


@dataclass(frozen=True)
class Task:
    """A piece of work with its texts: what an annotator sees. ``order[i]`` is the number of the response shown at place
    i."""

    id: int
    kind: str  # compare, write
    item: str | None
    prompt: list[Row]
    responses: list[str]
    order: tuple[int, ...]
    why: str
    state: str
    at: float
    until: float
    answer: Row | None = None
    deadline: float | None = None
    pictures: Sequence[Row] = ()  # {"message": its number, "picture": name} of the prompt's

    @property
    def shown(self) -> list[str]:
        """The responses in the order in which they are shown."""
        return [self.responses[number] for number in self.order]


@dataclass
class Imported:
    """What became of rows that were given to a store: how many were added, how many were there already, and the others
    with their reason, ``{"row": number from 1, "reason": ..., "text": the row}``."""

    added: int = 0
    known_already: int = 0
    again: int = 0  # of those that were there, how many one more person is asked about
    rejects: list[Row] = field(default_factory=list)

    def reject(self, row: int, reason: str, value: Any, file: str = "") -> None:
        """Keep a row that cannot be taken."""
        text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=True, default=repr)
        self.rejects.append(({"file": file} if file else {}) | {"row": row, "reason": reason, "text": text})


class Conflict(TriviumError):
    """What was asked contradicts what is so: somebody else's work, or nothing to do."""


class Store:
    """A project's feedback. Raises :class:`TriviumError` with a reason for everything that cannot be."""

    def __init__(self, project: str | Path, create: bool = False) -> None:
        """Open a project: a folder, whose database is ``feedback.sqlite``, or a URL such as
        ``postgresql://user@host/name``. With ``create``, one that is not there is made."""
        self.project = project
        self.engine = open_database(project, create)
        self._lock = threading.RLock()
        self._state = State()
        with self.engine.connect() as connection:
            self.secret = bytes.fromhex(
                connection.execute(sql.select(meta.c.value).where(meta.c.key == "secret")).scalar_one())
        self.refresh()

    def close(self) -> None:
        """Let go of the database."""
        self.engine.dispose()

    def __enter__(self) -> Store:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    # the events

    def _catch_up(self, connection: Connection) -> None:
        for id_, at, kind, who, body in connection.execute(EVENTS_SINCE, {"last": self._state.last}):
            self._state.apply(Event(id_, at, kind, who, json.loads(body)))

    def refresh(self) -> None:
        """Take in what other processes have written."""
        with self._lock, self.engine.connect() as connection:
            self._catch_up(connection)

    @contextlib.contextmanager
    def _appending(self, durable: bool = True) -> Iterator[Connection]:
        """A transaction that appends events: whoever decides sees every event before its own, and the state takes in
        new ones only after they are on the disk."""
        with self._lock:
            self._appended: list[Event] = []
            with writing(self.engine, durable) as connection:
                lock_events(connection)
                self._catch_up(connection)
                yield connection
            for event in self._appended:  # nobody else could append in between
                self._state.apply(event)

    def _append(self, connection: Connection, kind: str, who: int | None, body: Row, at: float) -> int:
        text = json.dumps(body, ensure_ascii=False, allow_nan=False)
        inserted = connection.execute(APPEND, {"at": at, "kind": kind, "who": who, "body": text})
        assert inserted.inserted_primary_key is not None
        number = int(inserted.inserted_primary_key[0])
        self._appended.append(Event(number, at, kind, who, json.loads(text)))
        return number

    def events(self, kinds: Sequence[str] = ()) -> Iterator[Event]:
        """The log from its beginning, or the events of some kinds."""
        query = sql.select(events).order_by(events.c.id)
        with self.engine.connect() as connection:
            for id_, at, kind, who, body in connection.execute(
                    query.where(events.c.kind.in_(kinds)) if kinds else query):
                yield Event(id_, at, kind, who, json.loads(body))

    def events_between(self, after: int, last: int) -> list[Event]:
        """The events after the number ``after``, up to ``last``."""
        query = sql.select(events).where(events.c.id > after, events.c.id <= last).order_by(events.c.id)
        with self.engine.connect() as connection:
            return [Event(id_, at, kind, who, json.loads(body))
                    for id_, at, kind, who, body in connection.execute(query)]

    def bodies(self, wanted: Iterable[int]) -> dict[int, Row]:
        """The bodies of events, by their numbers."""
        numbers = sorted(set(wanted))
        result: dict[int, Row] = {}
        if len(numbers) <= 2:
            with self.engine.connect() as connection:
                return {number: self._body(connection, number) for number in numbers}
        with self.engine.connect() as connection:
            for start in range(0, len(numbers), _BATCH):
                chosen = events.c.id.in_(numbers[start:start + _BATCH])
                result |= {
                    id_: json.loads(body)
                    for id_, body in connection.execute(sql.select(events.c.id, events.c.body).where(chosen))
                }
        return result

    def read(self, wanted: Iterable[int]) -> dict[int, Event]:
        """Events by their numbers, in their order."""
        numbers, result = sorted(set(wanted)), {}
        with self.engine.connect() as connection:
            for start in range(0, len(numbers), _BATCH):
                chosen = sql.select(events).where(events.c.id.in_(numbers[start:start + _BATCH])).order_by(events.c.id)
                for id_, at, kind, who, body in connection.execute(chosen):
                    result[id_] = Event(id_, at, kind, who, json.loads(body))
        return result

    @contextlib.contextmanager
    def state(self) -> Iterator[State]:
        """The state of now, to be read and not changed; nothing is written while it is held."""
        with self._lock:
            self.refresh()
            yield self._state

    # settings

    @property
    def settings(self) -> FeedbackSettings:
        """How work is given out."""
        return self._state.settings

    def change_settings(self, who: int | None = None, **values: Any) -> FeedbackSettings:
        """Change some settings. Raises :class:`TriviumError` that names the wrong one."""
        for name in values:
            if name not in FeedbackSettings.model_fields:
                raise TriviumError(f"there is no setting {name!r}{nearest(name, FeedbackSettings.model_fields)}")
        with self._appending() as connection:
            now = self._state.settings.model_dump()
            try:
                checked = FeedbackSettings(**{**now, **values}).model_dump()
            except ValidationError as error:
                raise TriviumError(explain(error.errors(include_url=False), {**now, **values}, "", lambda place: now)
                                   ) from error
            for name in ("title", "guidelines"):
                rows.text(checked[name], name, empty=True)
            changed = {name: checked[name] for name in values if checked[name] != now[name]}
            if changed:
                self._append(connection, "settings", who, changed, time.time())
        return self.settings

    # people

    def people(self) -> list[Person]:
        """Everybody, those who were removed among them."""
        with self.engine.connect() as connection:
            return [_person(row) for row in connection.execute(sql.select(people).order_by(people.c.id))]

    def person(self, name: str) -> Person | None:
        """The person of that name, unless removed."""
        with self.engine.connect() as connection:
            row = connection.execute(sql.select(people).where(people.c.name == name,
                                                              people.c.removed_at.is_(None))).first()
        return _person(row) if row else None

    def add_person(self, name: str, role: str = "annotator", kind: str = "human", password: str | None = None,
                   first: Callable[[Connection], None] | None = None) -> int:
        """Add somebody and return their number. ``password`` is an argon2 hash, as ``accounts`` makes; without one the
        person cannot log in, but programs can work in their name. ``first`` is done in the same transaction, before;
        what it raises undoes all. Raises when the name is taken."""
        name = rows.text(name, "the name", 60).strip()
        if any(not character.isprintable() for character in name):
            raise TriviumError("the name holds characters that cannot be printed")
        if role not in ROLES:
            raise TriviumError(f"there is no role {role!r}{nearest(role, ROLES)}")
        if kind not in KINDS:
            raise TriviumError(f"there is no kind of person {kind!r}{nearest(kind, KINDS)}")
        now = time.time()
        try:
            with self._appending() as connection:
                if first is not None:
                    first(connection)
                _check_alike(name, connection.execute(sql.select(people.c.name)).scalars())
                key = connection.execute(people.insert().values(name=name, role=role, kind=kind, password=password,
                                                                added_at=now)).inserted_primary_key
                assert key is not None
                self._append(connection, "person", int(key[0]), {"role": role, "kind": kind}, now)
                return int(key[0])
        except sql.exc.IntegrityError as error:
            raise Conflict(f"the name {name!r} is taken") from error

    def change_role(self, person: int, role: str, who: int | None = None) -> None:
        """Make somebody a lead, or an annotator again."""
        if role not in ROLES:
            raise TriviumError(f"there is no role {role!r}{nearest(role, ROLES)}")
        with self._appending() as connection:
            self._keep_a_lead(connection, person, role)
            connection.execute(people.update().where(people.c.id == person).values(role=role))
            self._append(connection, "role", who, {"person": person, "role": role}, time.time())

    def remove_person(self, person: int, who: int | None = None, forget: bool = False) -> None:
        """End somebody's access. Their work stays; with ``forget`` their name does not: it becomes ``person N``."""
        with self._appending() as connection:
            self._keep_a_lead(connection, person, "removed")
            values: Row = {"password": None, "removed_at": time.time()
                           } | ({"name": f"person {person}"} if forget else {})
            connection.execute(people.update().where(people.c.id == person).values(**values))
            connection.execute(sessions.delete().where(sessions.c.person == person))
            self._append(connection, "removed", who, {"person": person}, time.time())

    def restore_person(self, person: int, who: int | None = None) -> None:
        """Let somebody who was removed come back; they need a new password."""
        with self._appending() as connection:
            removed = people.c.id == person, people.c.removed_at.is_not(None)
            if connection.execute(people.update().where(*removed).values(removed_at=None)).rowcount:
                self._append(connection, "restored", who, {"person": person}, time.time())

    @staticmethod
    def _keep_a_lead(connection: Connection, person: int, role: str) -> None:
        """Refuse to leave a project without anybody who can lead it."""
        row = connection.execute(sql.select(people).where(people.c.id == person, people.c.removed_at.is_(None))).first()
        if row is None:
            raise TriviumError(f"there is no person {person}")
        others = sql.select(sql.func.count()).where(people.c.role == "lead", people.c.removed_at.is_(None), people.c.id
                                                    != person)
        if row.role == "lead" and role != "lead" and not connection.execute(others).scalar():
            raise Conflict("the last lead cannot go; make somebody else a lead first")

    # items

    def add_items(self, given: Iterable[Mapping[str, Any]], who: int | None = None, again: bool = False) -> Imported:
        """Add prompts with responses to compare, or prompts alone to answer. A row with a fault is kept aside with its
        reason; one that is there already, by its ``id`` and texts, is counted and not added again: with ``again``, one
        person more is asked about it, if nobody is to be asked otherwise and the lead has not settled it."""
        outcome, fresh = Imported(), []
        for number, row in enumerate(given, 1):
            try:
                if not isinstance(row, Mapping):
                    raise TriviumError(f"a JSON object was expected, not {what(row)}")
                fresh.append((number, row, rows.item(row)))
            except (TriviumError, UnicodeEncodeError, ValueError, TypeError) as error:
                outcome.reject(number, str(error), row)
        with self._appending() as connection:
            seen: dict[str, str] = {}
            there = self.bodies(self._state.items[item["item"]].event for _, _, item in fresh
                                if item["item"] in self._state.items)
            for body in there.values():
                seen[body["item"]] = _content(body)
            now, ready, shown = time.time(), [], []
            for number, row, item in fresh:
                content = _content(item)
                if item["item"] not in seen:
                    seen[item["item"]] = content
                    shown += apart(row["prompt"])[1] if "pictures" in item else []
                    ready.append({
                        "at": now, "kind": "item", "who": who, "body": json.dumps(item, ensure_ascii=False,
                                                                                  allow_nan=False)
                    })
                elif seen[item["item"]] == content:
                    outcome.known_already += 1
                    known = self._state.items.get(item["item"])
                    if again and known and self._state.finished(known) and not (known.settled or known.closed):
                        outcome.again += 1
                        self._append(connection, "people", who, {
                            "item": known.id, "people": len(known.judgements()) + 1}, now)
                else:
                    outcome.reject(
                        number, f"the id {item['item']!r} belongs to an item with other texts or another known answer",
                        row)
            keep(connection, shown)
            for start in range(0, len(ready), _BATCH):
                connection.execute(APPEND, ready[start:start + _BATCH])
        self.refresh()
        outcome.added = len(ready)
        return outcome

    def add_scores(self, given: Iterable[Mapping[str, Any]], who: int | None = None) -> Imported:
        """Take an ensemble's scores, ``{"id": item, "scores": [models][responses]}``: what the models disagree on is
        asked first."""
        outcome = Imported()
        with self._appending() as connection:
            for number, row in enumerate(given, 1):
                try:
                    item = self._state.items.get(str(row.get("id")))
                    if item is None:
                        raise TriviumError(f"there is no item {str(row.get('id'))[:60]!r}")
                    if item.kind != "compare":
                        raise TriviumError("the item has no responses to score")
                    self._append(connection, "scores", who,
                                 {"item": item.id, "scores": rows.scores(row.get("scores"), len(item.lengths))},
                                 time.time())
                    outcome.added += 1
                except (TriviumError, AttributeError) as error:
                    outcome.reject(number, str(error), row)
        return outcome

    def item(self, name: str) -> Row:
        """An item's texts: ``prompt``, ``responses``, and what else was imported with it."""
        with self._lock:
            if name not in self._state.items:
                raise TriviumError(f"there is no item {name[:60]!r}")
            event = self._state.items[name].event
        return self.bodies([event])[event]

    def pictures(self, wanted: Iterable[str]) -> dict[str, tuple[str, bytes]]:
        """``(media type, bytes)`` of pictures by their names."""
        query = sql.select(pictures).where(pictures.c.name.in_(sorted(set(wanted))))
        with self.engine.connect() as connection:
            return {name: (kind, data) for name, kind, data in connection.execute(query)}

    # work

    def next_work(self, person: int, kind: str = "compare", now: float | None = None) -> Task | None:
        """The work that ``person`` should do next, leased to them: what they have already taken, else a new item. None
        when there is none. With kind ``"write"`` and nothing imported to answer, a prompt of their own."""
        now = time.time() if now is None else now
        with self._appending(durable=False) as connection:
            self._check_present(connection, person)
            work = open_work(self._state, person, kind, now)
            if work is None:
                chosen = choose(self._state, person, kind, now)
                if chosen is None:
                    return None
                item, why = chosen
                until = now + 60 * self._state.settings.lease_minutes
                again = next((one for one in (item.works if item and why != "repeat" else ())
                              if one.person == person and one.state == OPEN), None)
                if again:  # its lease had ended, and nobody else took the item
                    self._append(connection, "renew", person, {"work": again.id, "until": until}, now)
                    number = again.id
                else:
                    body = lease(self._state, item, person, kind, why, until)
                    number = self._append(connection, "lease", person, body, now)
            else:
                number = work.id
        return self.task(number, person)

    def task(self, number: int, person: int) -> Task:
        """A piece of work of ``person``'s own, with its texts and the newest answer. Raises :class:`Conflict` for
        anybody else's."""
        with self._lock:
            work = self._work(number, person)
            event = self._state.items[work.item].event if work.item is not None else 0
            deadline = self._state.deadline(self._state.items[work.item]) if work.item is not None else None
            newest, snapshot = work.event, (work.id, work.kind, work.item, work.order, work.why, work.state, work.at,
                                            work.until)
        bodies = self.bodies({event, newest} - {0})
        item = bodies.get(event, {"prompt": []})
        id_, kind, name, order, why, state, at, until = snapshot
        return Task(id_, kind, name, item["prompt"], item.get("responses", []), order, why, state, at, until,
                    bodies.get(newest), deadline, item.get("pictures", ()))

    def _work(self, number: int, person: int) -> Work:
        work = self._state.works.get(number)
        if work is None or work.person != person:
            raise Conflict(f"there is no work {number} of yours")
        return work

    def renew(self, number: int, person: int, now: float | None = None) -> float:
        """Hold work for another lease while somebody is busy with it; returns until when."""
        now = time.time() if now is None else now
        with self._appending(durable=False) as connection:
            work = self._work(number, person)
            if work.state != OPEN:
                return work.until
            self._check_not_taken(work)
            if work.until <= now and work.item and not self._state.vacant(self._state.items[work.item], person, now):
                raise Conflict("the lease has ended, and the item is with others now")
            until = now + 60 * self._state.settings.lease_minutes
            self._append(connection, "renew", person, {"work": number, "until": until}, now)
            return until

    def judge(self, number: int, person: int, ranking: Ranking | None = None, ratings: Sequence[int] | None = None,
              flags: Sequence[Sequence[str]] | None = None, all_bad: bool = False, note: str = "",
              seconds: float | None = None, needs_ratings: bool = False, now: float | None = None,
              marks: Sequence[Sequence[Mapping[str, Any]]] | None = None) -> None:
        """Answer, or correct, a comparison. ``marks`` are errors in parts of each response, ``{"start", "end",
        "kind"}`` in characters. All numbers are those of the item's responses, whatever the order they were
        shown in.

        A late answer counts: the work was done. Saying the same again adds nothing."""
        given = {
            "ranking": ranking if ranking is None else [list(group) for group in ranking],
            "ratings": ratings if ratings is None else list(ratings),
            "flags": flags if flags is None else [list(one) for one in flags], "all_bad": all_bad, "note": note,
            "marks": marks if marks is None else [[dict(mark) for mark in one] for one in marks]
        }
        with self._lock:
            work = self._work(number, person)
            if work.kind != "compare":
                raise TriviumError("this work asks for an answer in words")
            assert work.item is not None
            lengths, kinds = self._state.items[work.item].lengths, self._kinds(self._state.items[work.item])
        body = rows.judgement(given, lengths, needs_ratings, kinds)
        self._answer(number, person, "judgement", body, seconds, now)

    def skip(self, number: int, person: int, reason: str, note: str = "", seconds: float | None = None,
             now: float | None = None) -> None:
        """Leave work to others, with a reason of :data:`~trivium.feedback.settings.SKIPS`."""
        body = {"reason": rows.reason(reason), "note": rows.text(note, "the note", 4000, empty=True)}
        self._answer(number, person, "skip", body, seconds, now)

    def write(self, number: int, person: int, messages: Sequence[Mapping[str, str]], seconds: float | None = None,
              now: float | None = None) -> None:
        """Answer, or correct, a writing task: the prompt's messages and the assistant's last one."""
        with self._lock:
            work = self._work(number, person)
            if work.kind != "write":
                raise TriviumError("this work asks for a comparison")
            item = self.item(work.item) if work.item is not None else None
        pictured = {one["message"] for one in item.get("pictures", ())} if item else set()
        checked = rows.messages([dict(message) for message in messages], "assistant", pictured)
        if len(checked) < 2 or checked[-2]["role"] != "user":
            raise TriviumError("a demonstration needs what the user says and then what the assistant answers")
        if item is not None and checked[:-1] != item["prompt"]:
            raise TriviumError("the prompt is not the one that was asked")
        self._answer(number, person, "demonstration", {"messages": checked}, seconds, now)

    def _answer(self, number: int, person: int, kind: str, body: Row, seconds: float | None, now: float | None) -> None:
        now = time.time() if now is None else now
        with self._appending() as connection:
            self._check_present(connection, person)
            work = self._work(number, person)
            self._check_not_taken(work)
            if kind == "skip" and work.state == JUDGED:
                raise Conflict("this is answered already; correct the answer instead")
            if work.event:
                before = self._body(connection, work.event)
                if all(_same(before, name, value) for name, value in body.items()):
                    return
            self._append(connection, kind, person, {
                "work": number, **body, "seconds": rows.seconds(seconds), "late": work.state == OPEN
                and now > work.until
            }, now)

    @staticmethod
    def _body(connection: Connection, number: int) -> Row:
        return dict(json.loads(connection.execute(EVENT_BODY, {"id": number}).scalar_one()))

    @staticmethod
    def _check_not_taken(work: Work) -> None:
        if work.taken:
            raise Conflict("the lead has given this item to others")

    @staticmethod
    def _check_present(connection: Connection, person: int) -> None:
        if connection.execute(PRESENT, {"person": person}).first() is None:
            raise Conflict(f"there is no person {person}, or they were removed")

    def settle(self, item: str, person: int, ranking: Ranking | None = None, ratings: Sequence[int] | None = None,
               note: str = "", flags: Sequence[Sequence[str]] | None = None, all_bad: bool = False,
               now: float | None = None, marks: Sequence[Sequence[Mapping[str, Any]]] | None = None) -> None:
        """The lead's last word on an item: exports take it instead of what annotators said, their flags among it. It
        can be said again, differently."""
        with self._appending() as connection:
            if item not in self._state.items or self._state.items[item].kind != "compare":
                raise TriviumError(f"there is no comparison {item[:60]!r}")
            body = rows.judgement(
                {
                    "ranking": ranking if ranking is None else [list(group) for group in ranking],
                    "ratings": ratings if ratings is None else list(ratings),
                    "flags": flags if flags is None else [list(one) for one in flags], "all_bad": all_bad, "note": note,
                    "marks": marks if marks is None else [[dict(mark) for mark in one] for one in marks]
                }, self._state.items[item].lengths, needs_ratings=False, kinds=self._kinds(self._state.items[item]))
            self._append(connection, "settled", person, {"item": item, **body}, time.time() if now is None else now)

    def give(self, item: str, person: int, who: int | None = None, now: float | None = None) -> None:
        """Let somebody have an item next, whatever its overlap. Raises :class:`Conflict` where they have answered it,
        and where it is settled or withdrawn."""
        with self._appending() as connection:
            self._check_present(connection, person)
            one = self._item(item)
            if any(work.person == person and work.state != OPEN for work in one.works):
                raise Conflict("they have answered this item already")
            if one.settled or one.closed:
                raise Conflict("the item is settled or withdrawn")
            if person not in one.given:
                self._append(connection, "give", who, {"item": item, "person": person},
                             time.time() if now is None else now)

    def take(self, item: str, person: int, who: int | None = None, now: float | None = None) -> None:
        """Take an item from somebody who has not answered it: from now on it is others' to do. Raises
        :class:`Conflict` where they have."""
        with self._appending() as connection:
            one = self._item(item)
            if any(work.person == person and work.state != OPEN for work in one.works):
                raise Conflict("they have answered this item already")
            if person not in one.taken:
                self._append(connection, "take", who, {"item": item, "person": person},
                             time.time() if now is None else now)

    def _kinds(self, item: Item) -> list[str]:
        """The kinds of errors that may be marked on an item: those of now, and what was marked on it before."""
        used = {kind for work in item.works for one in work.marks for _, _, kind in one}
        return [*self._state.settings.error_kinds, *sorted(used.difference(self._state.settings.error_kinds))]

    def _item(self, name: str) -> Item:
        if name not in self._state.items:
            raise TriviumError(f"there is no item {name[:60]!r}")
        return self._state.items[name]

    def set_quota(self, person: int, day: int | None = None, in_all: int | None = None, who: int | None = None) -> None:
        """How many answers somebody may give a day (UTC) and in all; None for what the settings say."""
        for value in (day, in_all):
            if value is not None and (isinstance(value, bool) or not 0 <= value <= 10_000_000):
                raise TriviumError(f"a quota is a whole number from 0 to 10,000,000, not {value}")
        with self._appending() as connection:
            self._check_present(connection, person)
            if self._state.quotas.get(person, (None, None)) != (day, in_all):
                self._append(connection, "quota", who, {"person": person, "day": day, "all": in_all}, time.time())

    def set_deadline(self, at: float | None, item: str = "", batch: str = "", who: int | None = None) -> None:
        """Until when an item, or all of a batch that have none of their own, should be done; None for no deadline."""
        with self._appending() as connection:
            if item:
                body, before = {"item": item}, self._item(item).deadline
            elif batch in self._state.batches:
                body, before = {"batch": batch}, self._state.batches[batch]
            else:
                raise TriviumError(f"there is no batch {batch[:60]!r}{nearest(batch, self._state.batches)}")
            if before != at:
                self._append(connection, "deadline", who, {**body, "at": at}, time.time())

    def withdraw_item(self, item: str, person: int | None = None, back: bool = False) -> None:
        """Give an item to nobody any more, and export nothing of it; with ``back``, as before again."""
        with self._appending() as connection:
            if item not in self._state.items:
                raise TriviumError(f"there is no item {item[:60]!r}")
            if self._state.items[item].closed == back:
                self._append(connection, "reopen" if back else "close", person, {"item": item}, time.time())

    # the chat page

    def add_thumb(self, prompt: Sequence[Mapping[str, str]] | str, completion: str, label: bool | None, who: str = "",
                  model: str = "", now: float | None = None) -> int:
        """A thumb, up (True) or down (False), for the answer ``completion`` to ``prompt``. The newest of the same
        visitor for the same answer counts; None takes it back. ``who`` is the visitor's name, ``model`` what answered.
        Returns the event's number."""
        if label is not None and not isinstance(label, bool):
            raise TriviumError("the label is neither true nor false nor null")
        messages = rows.messages(prompt if isinstance(prompt, str) else [dict(m) for m in prompt])
        answer = rows.text(completion, "the completion")
        body: Row = {"prompt": messages, "completion": answer, "label": label,
                     "who": rows.text(who, "who", 200, empty=True),
                     "model": rows.text(model, "the model", 1000, empty=True), "key": prompt_key(messages),
                     "answer": hashlib.sha256(answer.encode()).hexdigest()[:24]}
        with self._appending() as connection:
            known = self._state.thumbs.get((body["who"], body["key"], body["answer"]))
            return self._unless_said(connection, known, "thumb", body, now)

    def add_choice(self, prompt: Sequence[Mapping[str, str]] | str, responses: Sequence[str], ranking: Ranking | None,
                   who: str = "", models: Sequence[str] = (), now: float | None = None) -> int:
        """A vote between answers shown side by side, in the order of ``responses``: ``[[1], [0]]`` prefers the second
        of two, ``[[0, 1]]`` is a tie, None says that all are bad. ``models`` names what gave each answer. The newest
        vote of the same visitor on the same answers counts. Returns the event's number."""
        messages = rows.messages(prompt if isinstance(prompt, str) else [dict(m) for m in prompt])
        texts = rows.responses(list(responses))
        ranked = rows.ranking([list(group) for group in ranking] if ranking is not None else [list(range(len(texts)))],
                              len(texts), tied=True)
        if models and len(models) != len(texts):
            raise TriviumError(f"{counted(len(models), 'model')} for {counted(len(texts), 'response')}")
        key = hashlib.sha256(canonical([messages, sorted(texts)]).encode()).hexdigest()[:24]
        body: Row = {
            "prompt": messages, "responses": texts, "ranking": ranked, "all_bad": ranking is None,
            "who": rows.text(who, "who", 200, empty=True),
            "models": [rows.text(one, "the model", 1000, empty=True) for one in models], "key": key
        }
        with self._appending() as connection:
            known = self._state.choices.get((body["who"], body["key"]))
            return self._unless_said(connection, known, "choice", body, now)

    def _unless_said(self, connection: Connection, known: int | None, kind: str, body: Row, now: float | None) -> int:
        """Append a visitor's word, unless it is what their newest one says (the event ``known``), which is its number
        then: who says the same a thousand times fills no disk."""
        if known is not None and json.loads(connection.execute(EVENT_BODY, {"id": known}).scalar_one()) == body:
            return known
        return self._append(connection, kind, None, body, time.time() if now is None else now)

    # what others did

    def add_judgements(self, given: Iterable[Mapping[str, Any]], add_people: bool = False,
                       now: float | None = None) -> Imported:
        """Import judgements made elsewhere, ``{"id": item, "annotator": name, "ranking": ..., "ratings": ..., ...}``,
        or with ``prompt`` and ``responses`` instead of ``id``. Unknown annotators are refused, unless
        ``add_people``."""
        outcome = Imported()
        for number, row in enumerate(given, 1):
            try:
                self._add_judgement(row, add_people, outcome, now)
            except (TriviumError, TypeError, AttributeError) as error:
                outcome.reject(number, str(error), row)
        return outcome

    def _add_judgement(self, row: Mapping[str, Any], add_people: bool, outcome: Imported, now: float | None) -> None:
        if "id" not in row and {"prompt", "responses"} <= set(row):
            name = rows.item({"prompt": row["prompt"], "responses": row["responses"]})["item"]
        else:
            name = str(row.get("id"))
        item = self._state.items.get(name)
        if item is None or item.kind != "compare":
            raise TriviumError(f"there is no comparison {name[:60]!r}; import its prompt and responses first")
        texts = self.item(name) if {"prompt", "responses"} & set(row) else {}
        if row.get("prompt") is not None and rows.messages(row["prompt"]) != texts["prompt"]:
            raise TriviumError(f"the prompt is not that of the item {name[:60]!r}")
        if row.get("responses") is not None and row["responses"] != texts["responses"]:
            raise TriviumError(f"the responses are not those of the item {name[:60]!r}")
        who = rows.text(row.get("annotator"), "the annotator", 60)
        body = rows.judgement(row, item.lengths, needs_ratings=False, kinds=self._state.settings.error_kinds)
        took = rows.seconds(row.get("seconds"))
        person = self.person(who)
        if person is None:
            if not add_people:
                raise TriviumError(f"there is no annotator {who!r}; add them first, or import with --add-people")
            number = self.add_person(who)
        else:
            number = person.id
        at = time.time() if now is None else now
        with self._appending() as connection:
            mine = next((work for work in item.works if work.person == number and work.counts), None)
            if mine and mine.event:
                before = self._body(connection, mine.event)
                if all(_same(before, key, value) for key, value in body.items()):
                    outcome.known_already += 1
                    return
            leased = mine.id if mine else self._append(
                connection, "lease", number, lease(self._state, item, number, "compare", "import", at), at)
            self._append(connection, "judgement", number, {"work": leased, **body, "seconds": took, "late": False}, at)
        outcome.added += 1

    def work_left(self, only: int | None = None, now: float | None = None) -> dict[int, Row]:
        """Of everybody, or of one person, ``{"left": a Left, "own": quotas a day and in all that are their own, "done",
        "today", "given", "due": the first deadline of what they were given, "late": how much of that is late}``."""
        now = time.time() if now is None else now
        found = {}
        with self.state() as state:
            everybody = {*state.by_person, *state.quotas, *state.given}
            for person in everybody if only is None else [only]:
                works = [work for work in state.by_person.get(person, ()) if work.state == JUDGED]
                given = [state.items[name] for name in state.given.get(person, ())]
                deadlines = [at for item in given if (at := state.deadline(item)) is not None]
                found[person] = {"left": state.left(person, now), "own": state.quotas.get(person, (None, None)),
                                 "done": len(works),
                                 "today": sum(work.finished_at >= now - now % 86_400 for work in works),
                                 "given": len(given), "due": min(deadlines, default=None),
                                 "late": sum(at < now for at in deadlines)}
        return found

    def history(self, person: int) -> list[Work]:
        """What a person has done, the newest first."""
        with self.state() as state:
            return [work for work in reversed(state.by_person.get(person, [])) if work.state in (JUDGED, SKIPPED)]

    def __repr__(self) -> str:
        return f"Store({hidden(self.project)!r})"


def _content(item: Row) -> str:
    """What makes an item the one that it is."""
    return canonical([item["prompt"], item.get("responses"), item.get("known"), *item.get("pictures", [])])


def _same(before: Row, name: str, value: Any) -> bool:
    """Whether an answer says the same; one from before there were marks has none."""
    return before.get(name) == value or (name == "marks" and name not in before and not any(value))


def _check_alike(name: str, others: Iterable[str]) -> None:
    """Refuse a name that people would take for another's."""
    shape = rows.look_of(name)
    for other in others:
        if other != name and rows.look_of(other) == shape:
            raise Conflict(f"the name {name!r} looks like {other!r}, which is taken")


def _person(row: Any) -> Person:
    return Person(row.id, row.name, row.role, row.kind, row.added_at, row.removed_at is not None)
