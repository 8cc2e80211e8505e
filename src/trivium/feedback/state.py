"""What is so, derived from what happened: a project's events in their order make its state, and nothing else does.

Texts stay in the database; the state of an item is a few hundred bytes, so that hundreds of thousands fit into memory.
"""

from __future__ import annotations

import bisect
import copy
import itertools
import math
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np

from trivium import randomness
from trivium.feedback.agreement import agreement_within, disagreement, signs
from trivium.feedback.rows import prompt_key, split_of
from trivium.feedback.settings import FeedbackSettings

OPEN, JUDGED, SKIPPED = "open", "judged", "skipped"


class Event(NamedTuple):
    """One thing that happened. ``id`` grows with time; ``who`` is a person's number, or None."""

    id: int
    at: float
    kind: str
    who: int | None
    body: dict[str, Any]


@dataclass(slots=True)
class Work:
    """An item in somebody's hands, from its lease to its last correction. Its id is that of the event that leased
    it."""

    id: int
    kind: str
    item: str | None  # None: a prompt of the annotator's own
    person: int
    order: tuple[int, ...]
    why: str  # random, uncertain, due, given, known, repeat, own
    at: float
    until: float
    state: str = OPEN
    event: int = 0  # the newest judgement, demonstration or skip
    finished_at: float = 0.0  # of the first answer
    ranking: tuple[tuple[int, ...], ...] = ()
    ratings: tuple[int, ...] | None = None
    flags: tuple[tuple[str, ...], ...] = ()
    marks: tuple[tuple[tuple[int, int, str], ...], ...] = ()  # on each response: from, to, kind
    all_bad: bool = False
    reason: str = ""
    seconds: float | None = None
    corrections: int = 0
    earlier: tuple[int, ...] = ()  # answers that a correction took the place of
    noted: bool = False  # whether the newest answer has a note
    taken: bool = False  # whether the lead has taken it away

    @property
    def counts(self) -> bool:
        """Whether it counts towards the item's overlap: a repetition does not."""
        return self.why != "repeat"


@dataclass(slots=True)
class Item:
    """Something to judge, or a prompt to answer. Its texts are in the event ``event``."""

    id: str
    event: int
    kind: str
    lengths: tuple[int, ...]  # characters of each response
    key: str  # of the prompt
    known: tuple[tuple[int, ...], ...] | None
    disagreement: float = 0.0  # of an ensemble of reward models
    works: list[Work] = field(default_factory=list)
    settled: Event | None = None
    closed: bool = False  # withdrawn by the lead
    people: int = 0  # who are asked at least, whatever the settings say
    rulings: tuple[int, ...] = ()  # all that the lead said of it
    batch: str = ""
    deadline: float | None = None  # its own; None: that of its batch
    given: tuple[int, ...] = ()  # people to whom the lead gave it and who have not answered
    taken: tuple[int, ...] = ()  # people from whom the lead took it
    _agreement: float | None = None

    @property
    def agreement(self) -> float:
        """The share of pairs that its annotators order alike, a tie against a preference counting as half; NaN for less
        than two."""
        if self._agreement is None:
            judged = self.judgements()
            self._agreement = agreement_within(np.stack([signs(one.ranking)
                                                         for one in judged]))[1] if len(judged) > 1 else math.nan
        return self._agreement

    def judgements(self) -> list[Work]:
        """The finished judgements by different people, repetitions left out."""
        return [work for work in self.works if work.state == JUDGED and work.counts]

    def skips(self) -> int:
        """People who skipped it."""
        return len({work.person for work in self.works if work.state == SKIPPED})


class Left(NamedTuple):
    """What somebody may do yet: today, and in all; None for as much as there is."""

    today: int | None
    in_all: int | None

    @property
    def nothing(self) -> bool:
        """Whether a quota is used up."""
        return self.today == 0 or self.in_all == 0


class State:
    """A project at one moment. :meth:`apply` takes the next event."""

    def __init__(self) -> None:
        self.last = 0
        self.settings = FeedbackSettings()
        self.items: dict[str, Item] = {}
        self.works: dict[int, Work] = {}
        # What the lead can look at, by the number of the event that it began with: items, and work on prompts of
        # people's own. `touched` holds the newest event about each, the newest last.
        self.entries: dict[int, Item | Work] = {}
        self.touched: dict[int, int] = {}
        self.by_person: dict[int, list[Work]] = {}
        self.thumbs: dict[tuple[str, str, str], int] = {}  # the newest event of (who, prompt's key, answer's key)
        self.choices: dict[tuple[str, str], int] = {}
        self.known: list[str] = []
        self.kinds = {"compare": 0, "write": 0}
        self.scored = False
        # Items that want somebody yet, in the order in which they are drawn: (place, id). A place is a hash, or minus
        # the disagreement.
        self.random: dict[tuple[str, str], list[tuple[float, str]]] = {}
        self.uncertain: list[tuple[float, str]] = []
        self.due: dict[str, list[tuple[float, str]]] = {}  # by kind: those with a deadline
        self.batches: dict[str, float | None] = {}  # their deadlines
        self.quotas: dict[int, tuple[int | None, int | None]] = {}  # a day and in all, where they are a person's own
        self.given: dict[int, dict[str, None]] = {}  # by person: what the lead gave them, in this order

    def snapshot(self) -> State:
        """A copy for statistics, made in a moment: its lists stand still, while an item or a work may still take its
        newest answer."""
        copied = copy.copy(self)
        copied.items, copied.works = self.items.copy(), self.works.copy()
        copied.by_person = {person: works.copy() for person, works in self.by_person.items()}
        return copied

    def apply(self, event: Event) -> None:
        """Take one event. Events of unknown kinds change nothing."""
        assert event.id > self.last
        self.last = event.id
        handle = getattr(self, f"_on_{event.kind}", None)
        if handle:
            handle(event)

    def split(self, item: Item) -> str:
        """``"train"`` or ``"heldout"``."""
        return split_of(item.key, self.settings.heldout)

    def wanted(self, item: Item) -> int:
        """People who should judge it."""
        return max(item.people, self._usual(item))

    def _usual(self, item: Item) -> int:
        if self.settings.overlap_share >= 1 or item.kind == "write":
            return self.settings.overlap if item.kind == "compare" else 1
        lucky = randomness.derive(self.settings.seed, "overlap", item.id) / 2**64 < self.settings.overlap_share
        return self.settings.overlap if lucky else 1

    def vacant(self, item: Item, person: int, now: float) -> bool:
        """Whether ``person`` may take the item now: its overlap is neither reached nor spoken for, and they have not
        had it."""
        taken, holding = 0, set()
        for work in item.works:
            if work.person == person and (work.state != OPEN or work.until > now):
                return False
            if work.counts and (work.state == JUDGED or (work.state == OPEN and work.until > now)):
                taken += 1
                holding.add(work.person)
        if item.settled or item.closed or person in item.taken:
            return False
        return person in item.given or taken + len(set(item.given) - holding) < self.wanted(item)

    def deadline(self, item: Item) -> float | None:
        """Until when an item should be done, in seconds since the epoch."""
        return self.batches.get(item.batch) if item.deadline is None else item.deadline

    def left(self, person: int, now: float) -> Left:
        """What their quotas leave somebody. What they hold counts as done, so that nobody takes more than they may;
        a skip does not count."""
        own = self.quotas.get(person, (None, None))
        usual = (self.settings.daily_quota or None, self.settings.quota or None)
        today, in_all = (usual[at] if mine is None else mine for at, mine in enumerate(own))
        if today is None and in_all is None:
            return Left(None, None)
        works = self.by_person.get(person, ())
        held = sum(work.state == OPEN and work.until > now for work in works)
        done = [work.finished_at for work in works if work.state == JUDGED]
        since = now - now % 86_400
        return Left(None if today is None else max(0, today - held - sum(at >= since for at in done)),
                    None if in_all is None else max(0, in_all - held - len(done)))

    def finished(self, item: Item) -> bool:
        """Whether nobody is to be asked about it any more, as things are."""
        return item.closed or item.settled is not None or len(item.judgements()) >= self.wanted(item)

    def disputed(self, item: Item) -> bool:
        """Whether the lead should settle it."""
        if item.kind != "compare" or item.known or item.settled or item.closed:
            return False
        return item.agreement < self.settings.disputed_below or item.skips() >= self.settings.disputed_skips

    def entry(self, work: Work) -> int:
        """The number of the entry that a work belongs to."""
        return work.id if work.item is None else self.items[work.item].event

    def touched_since(self, last: int) -> list[int]:
        """The entries that something happened to after event ``last``, by their numbers."""
        newest = itertools.takewhile(lambda number: self.touched[number] > last, reversed(self.touched))
        return sorted(newest)

    def _touch(self, number: int, event: Event) -> None:
        self.touched.pop(number, None)
        self.touched[number] = event.id

    def in_order(self, kind: str, split: str) -> Iterator[Item]:
        """The unfinished items of a split in their random order, that of a hash: whoever takes the first vacant one
        shares the front of the queue with the others, so overlapping items are finished early."""
        yield from (self.items[name] for _, name in self.random.get((kind, split), ()))

    def most_uncertain(self) -> Iterator[Item]:
        """Unfinished items of the training split with scores, the most disputed by the ensemble first."""
        yield from (self.items[name] for _, name in self.uncertain)

    def most_due(self, kind: str) -> Iterator[Item]:
        """Unfinished items with a deadline, the earliest first."""
        yield from (self.items[name] for _, name in self.due.get(kind, ()))

    # what each kind of event does

    def _on_settings(self, event: Event) -> None:
        before = self.settings
        self.settings = FeedbackSettings(**{**before.model_dump(), **event.body})
        if any(
                getattr(before, name) != getattr(self.settings, name)
                for name in ("heldout", "seed", "overlap", "overlap_share")):
            self.random, self.uncertain, self.due = {}, [], {}
            for item in self.items.values():
                self._queue(item)

    def _on_item(self, event: Event) -> None:
        body = event.body
        known = body.get("known")
        item = Item(body["item"], event.id, body["kind"], tuple(len(one) for one in body.get("responses", ())),
                    prompt_key(body["prompt"]),
                    tuple(tuple(group) for group in known) if known else None,
                    disagreement(body["scores"]) if body.get("scores") else 0.0, batch=body.get("batch", ""),
                    deadline=body.get("deadline"))
        if item.batch:
            self.batches.setdefault(item.batch, None)
        self.items[item.id] = self.entries[event.id] = item
        self._touch(event.id, event)
        if known:
            self.known.append(item.id)
            return
        self.kinds[item.kind] += 1
        self._queue(item)

    def _queues(self, item: Item) -> Iterator[tuple[list[tuple[float, str]], tuple[float, str]]]:
        """The queues that an item stands in, and its entry in each."""
        split = self.split(item)
        yield self.random.setdefault((item.kind, split),
                                     []), (randomness.derive(self.settings.seed, "draw", item.id) / 2**64, item.id)
        if item.disagreement and split == "train":
            yield self.uncertain, (-item.disagreement, item.id)
        deadline = self.deadline(item)
        if deadline is not None:
            yield self.due.setdefault(item.kind, []), (deadline, item.id)

    def _queue(self, item: Item) -> None:
        """Put an item where it belongs now: into its queues, or out of them when it is finished, so that nobody has to
        look past it."""
        if item.known:
            return
        self._unqueue(item)
        if not self.finished(item):
            for queue, entry in self._queues(item):
                bisect.insort(queue, entry)

    def _unqueue(self, item: Item) -> None:
        for queue, entry in self._queues(item):
            at = bisect.bisect_left(queue, entry)
            if at < len(queue) and queue[at] == entry:
                del queue[at]

    def _on_scores(self, event: Event) -> None:
        item = self.items[event.body["item"]]
        self._unqueue(item)
        item.disagreement = disagreement(event.body["scores"])
        self._queue(item)

    def _on_settled(self, event: Event) -> None:
        item = self.items[event.body["item"]]
        item.settled = event
        self._ruled(item, event)

    def _on_people(self, event: Event) -> None:
        item = self.items[event.body["item"]]
        item.people = event.body["people"]
        self._touch(item.event, event)
        self._queue(item)

    def _on_close(self, event: Event) -> None:
        item = self.items[event.body["item"]]
        item.closed = True
        self._ruled(item, event)

    def _on_reopen(self, event: Event) -> None:
        item = self.items[event.body["item"]]
        item.closed = False
        self._ruled(item, event)

    def _ruled(self, item: Item, event: Event) -> None:
        item.rulings += (event.id,)
        self._touch(item.event, event)
        self._queue(item)

    def _on_deadline(self, event: Event) -> None:
        body = event.body
        changed = [self.items[body["item"]]] if "item" in body else [
            item for item in self.items.values() if item.batch == body["batch"]]
        for item in changed:
            self._unqueue(item)
        if "item" in body:
            changed[0].deadline = body["at"]
        else:
            self.batches[body["batch"]] = body["at"]
        for item in changed:
            self._touch(item.event, event)
            self._queue(item)

    def _on_quota(self, event: Event) -> None:
        self.quotas[event.body["person"]] = event.body["day"], event.body["all"]

    def _on_give(self, event: Event) -> None:
        item, person = self.items[event.body["item"]], event.body["person"]
        item.given = (*(one for one in item.given if one != person), person)
        item.taken = tuple(one for one in item.taken if one != person)
        for work in item.works:
            if work.person == person:
                work.taken = False
        self.given.setdefault(person, {})[item.id] = None
        self._touch(item.event, event)

    def _on_take(self, event: Event) -> None:
        item, person = self.items[event.body["item"]], event.body["person"]
        self._no_longer_given(item, person)
        item.taken = (*item.taken, person)
        for work in item.works:
            if work.person == person and work.state == OPEN:
                work.taken, work.until = True, min(work.until, event.at)
        self._touch(item.event, event)

    def _no_longer_given(self, item: Item, person: int) -> None:
        item.given = tuple(one for one in item.given if one != person)
        self.given.get(person, {}).pop(item.id, None)

    def _on_removed(self, event: Event) -> None:
        person = event.body["person"]
        for name in list(self.given.get(person, ())):
            self._no_longer_given(self.items[name], person)

    def _on_lease(self, event: Event) -> None:
        assert event.who is not None
        body = event.body
        work = Work(event.id, body["kind"], body["item"], event.who, tuple(body["order"]), body["why"], event.at,
                    body["until"])
        self.works[work.id] = work
        self.by_person.setdefault(work.person, []).append(work)
        if work.item is not None:
            self.items[work.item].works.append(work)
        else:
            self.entries[work.id] = work
        self._touch(self.entry(work), event)

    def _on_renew(self, event: Event) -> None:
        work = self.works[event.body["work"]]
        work.until = event.body["until"]
        self._touch(self.entry(work), event)

    def _answer(self, event: Event, state: str) -> Work:
        work = self.works[event.body["work"]]
        if work.event:
            work.corrections += 1
            work.earlier += (work.event,)
        else:
            work.finished_at, work.seconds = event.at, event.body.get("seconds")
        work.state, work.event, work.noted = state, event.id, bool(event.body.get("note"))
        if work.item is not None:
            self._no_longer_given(self.items[work.item], work.person)
        self._touch(self.entry(work), event)
        return work

    def _on_judgement(self, event: Event) -> None:
        work, body = self._answer(event, JUDGED), event.body
        work.ranking = tuple(tuple(group) for group in body["ranking"])
        work.ratings = tuple(body["ratings"]) if body["ratings"] else None
        work.flags = tuple(tuple(one) for one in body["flags"])
        work.marks = tuple(tuple((one["start"], one["end"], one["kind"]) for one in given)
                           for given in body.get("marks", ()))
        work.all_bad, work.reason = body["all_bad"], ""
        assert work.item is not None
        item = self.items[work.item]
        item._agreement = None  # to be computed again when somebody asks
        self._queue(item)

    def _on_demonstration(self, event: Event) -> None:
        work = self._answer(event, JUDGED)
        work.reason = ""
        if work.item is not None:
            self._queue(self.items[work.item])

    def _on_skip(self, event: Event) -> None:
        self._answer(event, SKIPPED).reason = event.body["reason"]

    def _on_thumb(self, event: Event) -> None:
        self.thumbs[(event.body["who"], event.body["key"], event.body["answer"])] = event.id

    def _on_choice(self, event: Event) -> None:
        self.choices[(event.body["who"], event.body["key"])] = event.id
