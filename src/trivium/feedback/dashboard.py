"""What the lead watches: progress, agreement with intervals, biases, and the items on which people differ."""

from __future__ import annotations

import math
import statistics
import threading
import time
from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np

from trivium.feedback.agreement import (
    NOTHING,
    Estimate,
    agreement_with_others,
    agreement_within,
    alpha_of_tables,
    coincidences,
    kendall_w,
    length_counts,
    mean,
    overlap,
    pair_agreement,
    position_counts,
    share,
    signs,
)
from trivium.feedback.settings import RATINGS
from trivium.feedback.state import JUDGED, OPEN, SKIPPED, Item, State, Work
from trivium.feedback.store import Store
from trivium.files import Row

Counts = tuple[float, float]
SHARES = ("agreement", "known", "themselves", "first", "longer", "marks", "marks_kind")
BUSY = 0.1
"""The dashboard computes for at most this share of the time."""


@dataclass(frozen=True)
class Figures:
    """What one item says about agreement: counts over everybody and for each person, by the names of :data:`SHARES`."""

    version: int  # the newest answer it has seen
    shares: dict[str, Counts]
    people: dict[int, dict[str, Counts]]
    w: float
    table: np.ndarray | None  # coincidences of the ratings


def item_figures(item: Item) -> Figures:
    """Count an item's agreements once; they change only with its answers."""
    judged = [work for work in item.works if work.state == JUDGED]
    firsts, again = [work for work in judged if work.counts], {work.person: work for work in judged if not work.counts}
    people: dict[int, dict[str, Counts]] = {work.person: {} for work in judged}
    for work in firsts:
        counts = people[work.person]
        counts["longer"] = length_counts(work.ranking, item.lengths)
        if work.why != "import":  # nobody knows how those were shown
            counts["first"] = position_counts(work.ranking, work.order)
        if item.known:
            counts["known"] = pair_agreement(work.ranking, item.known)
        if work.person in again:
            counts["themselves"] = pair_agreement(work.ranking, again[work.person].ranking)
    shares = {name: _sum(counts[name] for counts in people.values() if name in counts) for name in SHARES}
    w, table = math.nan, None
    if not item.known and len(firsts) > 1:
        matrix = np.stack([signs(work.ranking) for work in firsts])
        shares["agreement"] = agreement_within(matrix)[0]
        if any(any(work.marks) for work in firsts):
            marked = [work.marks or [()] * len(item.lengths) for work in firsts]
            shares["marks"], shares["marks_kind"] = overlap(marked, False), overlap(marked, True)
        for work, counted in zip(firsts, agreement_with_others(matrix)):
            people[work.person]["agreement"] = counted
        w = kendall_w([work.ranking for work in firsts])
        rated = [work.ratings for work in firsts if work.ratings]
        if len(rated) > 1:
            table = coincidences(list(zip(*rated)), list(RATINGS))
    return Figures(_version(item), shares, people, w, table)


def _version(item: Item) -> int:
    return max((work.event for work in item.works), default=0)


def _sum(counts: Iterable[Counts]) -> Counts:
    hits = total = 0.0
    for hit, of in counts:
        hits, total = hits + hit, total + of
    return hits, total


def agreements(figures: Sequence[Figures]) -> dict[str, Estimate]:
    """Every figure of agreement and bias over all people. Intervals are at 95 %."""
    tables = [one.table for one in figures if one.table is not None]
    return {**{name: share(one.shares[name] for one in figures) for name in SHARES},
            "alpha": alpha_of_tables(tables, list(RATINGS), resamples=400) if tables else NOTHING,
            "w": mean((one.w for one in figures), resamples=400)}


def agreements_of_people(figures: Sequence[Figures]) -> dict[int, dict[str, Estimate]]:
    """The figures of :data:`SHARES` for each person, against everybody else."""
    counts: dict[int, dict[str, list[Counts]]] = defaultdict(lambda: {name: [] for name in SHARES})
    for one in figures:
        for person, named in one.people.items():
            for name, counted in named.items():
                counts[person][name].append(counted)
    return {person: {name: share(values) for name, values in named.items()} for person, named in counts.items()}


def disputed(state: State) -> list[tuple[Item, float, int]]:
    """``(item, agreement, skips)`` of items that the lead should settle, the worst first."""
    result = [(item, item.agreement, item.skips()) for item in state.items.values() if state.disputed(item)]
    return sorted(result, key=lambda one: (one[1] if math.isfinite(one[1]) else 1.0, -one[2], one[0].id))


def of_batches(store: Store, now: float) -> list[Row]:
    """``{"batch", "deadline", "items", "finished", "late"}`` of every batch: what is due first comes first."""
    with store.state() as state:
        found: dict[str, Row] = {name: {"batch": name, "deadline": deadline, "items": 0, "finished": 0, "late": 0}
                                 for name, deadline in state.batches.items()}
        for item in state.items.values():
            if item.batch and not item.closed:
                row, done, deadline = found[item.batch], state.finished(item), state.deadline(item)
                row["items"] += 1
                row["finished"] += done
                row["late"] += not done and deadline is not None and deadline < now
    return sorted(found.values(), key=lambda row: (row["deadline"] or math.inf, row["batch"]))


def progress(state: State, now: float) -> Row:
    """How much is done, and by what ways."""
    compare = [item for item in state.items.values() if item.kind == "compare" and not item.known and not item.closed]
    done = [len(item.judgements()) for item in compare]
    wanted = [state.wanted(item) for item in compare]
    works = state.works.values()
    took = [
        work.seconds for work in works if work.state == JUDGED and work.seconds is not None and work.kind == "compare"
    ]
    return {
        "items": len(compare),
        "finished": sum(d >= w or item.settled is not None for d, w, item in zip(done, wanted, compare)),
        "judgements": sum(done),
        "judgements_wanted": sum(wanted),
        "prompts_to_answer": state.kinds["write"],
        "demonstrations": sum(work.kind == "write" and work.state == JUDGED for work in works),
        "open": sum(work.state == OPEN and work.until > now for work in works),
        "skipped": sum(work.state == SKIPPED for work in works),
        "corrected": sum(work.corrections > 0 for work in works),
        "all_bad": sum(work.all_bad for work in works),
        "settled": sum(item.settled is not None for item in state.items.values()),
        "withdrawn": sum(item.closed for item in state.items.values()),
        "disputed": len(disputed(state)),
        "late": sum(1 for queue in state.due.values() for at, _ in queue if at < now),
        "known_items": len(state.known),
        "known_answers": sum(work.why == "known" and work.state == JUDGED for work in works),
        "repeats": sum(work.why == "repeat" and work.state == JUDGED for work in works),
        "random": sum(work.why == "random" and work.state == JUDGED for work in works),
        "uncertain": sum(work.why == "uncertain" and work.state == JUDGED for work in works),
        "thumbs": len(state.thumbs),
        "choices": len(state.choices),
        "seconds": statistics.median(took) if took else None,
        "last_hour": sum(work.finished_at > now - 3600 for work in works),
        "flags": dict(
            Counter(flag for work in works if work.state == JUDGED for one in work.flags
                    for flag in one).most_common()),
        "marks": dict(Counter(kind for work in works if work.state == JUDGED for one in work.marks
                              for _, _, kind in one).most_common()),
        "ratings": [
            sum(work.ratings.count(value) for work in works if work.state == JUDGED and work.ratings)
            for value in range(1, 8)
        ],
    }


class Dashboard:
    """The figures of a store. They are computed outside its lock, again only after something has happened, and not more
    often than every ``every`` seconds nor for more than :data:`BUSY` of the time."""

    def __init__(self, store: Store, every: float = 2.0) -> None:
        self.store, self.every = store, every
        self._lock = threading.Lock()
        self._next, self._last = -math.inf, -1
        self._items: dict[str, Figures] = {}
        self._figures: Row = {}

    def figures(self) -> Row:
        """``{"progress": ..., "agreement": {name: estimate}, "people": [...], "last": number of the newest event}``."""
        with self._lock:
            started = time.monotonic()
            if started < self._next:
                return self._figures
            with self.store.state() as state:
                snapshot, last = state.snapshot(), state.last
            fresh = {"progress": progress(snapshot, time.time()), "last": last}
            if last != self._last:
                for item in snapshot.items.values():
                    if item.kind == "compare" and (item.id not in self._items
                                                   or self._items[item.id].version != _version(item)):
                        self._items[item.id] = item_figures(item)
                figures = [one for name, one in self._items.items() if one.version and not snapshot.items[name].closed]
                fresh |= {
                    "agreement": {name: estimate.row()
                                  for name, estimate in agreements(figures).items()},
                    "people": self._people(figures, snapshot)
                }
            self._figures, self._last = {**self._figures, **fresh}, last
            took = time.monotonic() - started
            self._next = started + took + max(self.every, took / BUSY)
            return self._figures

    def _people(self, figures: Sequence[Figures], state: State) -> list[Row]:
        by_person, nothing = agreements_of_people(figures), dict.fromkeys(SHARES, NOTHING)
        return [{
            "id": person.id, "name": person.name, "role": person.role, "kind": person.kind, "removed": person.removed,
            **_done(state.by_person.get(person.id, [])), **state.left(person.id, time.time())._asdict(),
            "given": len(state.given.get(person.id, ())),
            **{name: estimate.row()
               for name, estimate in by_person.get(person.id, nothing).items()}
        } for person in self.store.people()]


def _done(works: Sequence[Work]) -> Row:
    """How much one person has done."""
    took = [
        work.seconds for work in works if work.state == JUDGED and work.seconds is not None and work.kind == "compare"
    ]
    return {
        "judged": sum(work.kind == "compare" and work.state == JUDGED for work in works),
        "written": sum(work.kind == "write" and work.state == JUDGED for work in works),
        "skipped": sum(work.state == SKIPPED for work in works), "seconds": statistics.median(took) if took else None
    }
