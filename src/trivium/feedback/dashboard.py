"""What the lead watches: progress, agreement with intervals, biases, and the items on which people differ."""

from __future__ import annotations

import math
import statistics
import threading
import time
from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from trivium.feedback.agreement import (
    NOTHING,
    Estimate,
    Ranking,
    kendall_w,
    krippendorff_alpha,
    length_counts,
    mean,
    pair_agreement,
    position_counts,
    share,
)
from trivium.feedback.state import JUDGED, OPEN, SKIPPED, Item, State, Work
from trivium.feedback.store import Store

Row = dict[str, Any]


@dataclass(frozen=True)
class Judged:
    """One judgement, as statistics need it."""

    person: int
    ranking: Ranking
    ratings: Sequence[int] | None
    order: Sequence[int]
    seconds: float | None
    repeat: bool
    all_bad: bool


@dataclass(frozen=True)
class Case:
    """An item with all its judgements."""

    lengths: Sequence[int]
    known: Ranking | None
    judged: tuple[Judged, ...]


def cases(state: State) -> list[Case]:
    """A copy of what the statistics need, so that nobody waits for them."""
    return [Case(item.lengths, item.known, tuple(Judged(w.person, w.ranking, w.ratings, w.order, w.seconds, not w.counts, w.all_bad)
                                                 for w in item.works if w.state == JUDGED))
            for item in state.items.values() if item.kind == "compare" and any(w.state == JUDGED for w in item.works)]


def agreements(found: Sequence[Case], person: int | None = None) -> dict[str, Estimate]:
    """Every figure of agreement and bias, over all people or about one (against everybody else). Intervals are at 95 %."""
    between: list[tuple[float, float]] = []
    known, themselves, position, length = between.copy(), between.copy(), between.copy(), between.copy()
    concordance: list[float] = []
    alpha: list[list[list[int]]] = []
    for case in found:
        firsts = [one for one in case.judged if not one.repeat]
        mine = [one for one in firsts if person in (None, one.person)]
        if not mine and not any(one.person == person for one in case.judged):
            continue
        if case.known:
            known.append(_sum(pair_agreement(one.ranking, case.known) for one in mine))
        else:
            between.append(_sum(pair_agreement(one.ranking, other.ranking) for at, one in enumerate(firsts) for other in firsts[at + 1:]
                                if person in (None, one.person, other.person)))
            if person is None:
                concordance.append(kendall_w([one.ranking for one in firsts]))
                rated = [one.ratings for one in firsts if one.ratings]
                if len(rated) > 1:
                    alpha.append([[int(each) for each in unit] for unit in zip(*rated)])
        again = {one.person: one for one in case.judged if one.repeat}
        themselves.append(_sum(pair_agreement(one.ranking, again[one.person].ranking) for one in mine if one.person in again))
        position.append(_sum(position_counts(one.ranking, one.order) for one in mine))
        length.append(_sum(length_counts(one.ranking, case.lengths) for one in mine))
    figures = {"agreement": share(between), "known": share(known), "themselves": share(themselves), "first": share(position), "longer": share(length)}
    if person is None:
        figures |= {"alpha": krippendorff_alpha(alpha, resamples=400) if alpha else NOTHING, "w": mean(concordance, resamples=400)}
    return figures


def _sum(counts: Iterable[tuple[int, int]]) -> tuple[float, float]:
    hits = total = 0
    for hit, of in counts:
        hits, total = hits + hit, total + of
    return hits, total


def item_agreement(item: Item) -> float:
    """The share of pairs that an item's annotators order alike, among pairs that two of them order; NaN when there is none.
    A tie against a preference counts as half."""
    works = item.judgements()
    hits, total = 0.0, 0
    for at, one in enumerate(works):
        for other in works[at + 1:]:
            place = [{index: level for level, group in enumerate(work.ranking) for index in group} for work in (one, other)]
            for i in range(len(item.lengths)):
                for j in range(i):
                    a, b = (_sign(levels[i] - levels[j]) for levels in place)
                    if a or b:
                        total += 1
                        hits += 1.0 if a == b else 0.5 if not (a and b) else 0.0
    return hits / total if total else math.nan


def _sign(value: int) -> int:
    return (value > 0) - (value < 0)


def disputed(state: State) -> list[tuple[Item, float, int]]:
    """``(item, agreement, skips)`` of items that the lead should settle, the worst first."""
    found = []
    for item in state.items.values():
        if item.kind != "compare" or item.known or item.settled or item.closed:
            continue
        skips = len({work.person for work in item.works if work.state == SKIPPED})
        agreed = item_agreement(item) if len(item.judgements()) > 1 else math.nan
        if skips >= state.settings.disputed_skips or agreed < state.settings.disputed_below:
            found.append((item, agreed, skips))
    return sorted(found, key=lambda one: (one[1] if math.isfinite(one[1]) else 1.0, -one[2], one[0].id))


def progress(state: State, now: float) -> Row:
    """How much is done, and by what ways."""
    compare = [item for item in state.items.values() if item.kind == "compare" and not item.known and not item.closed]
    done = [len(item.judgements()) for item in compare]
    wanted = [state.wanted(item) for item in compare]
    works = state.works.values()
    took = [work.seconds for work in works if work.state == JUDGED and work.seconds is not None and work.kind == "compare"]
    return {
        "items": len(compare), "finished": sum(d >= w or item.settled is not None for d, w, item in zip(done, wanted, compare)),
        "judgements": sum(done), "judgements_wanted": sum(wanted),
        "prompts_to_answer": state.kinds["write"],
        "demonstrations": sum(work.kind == "write" and work.state == JUDGED for work in works),
        "open": sum(work.state == OPEN and work.until > now for work in works),
        "skipped": sum(work.state == SKIPPED for work in works),
        "corrected": sum(work.corrections > 0 for work in works),
        "all_bad": sum(work.all_bad for work in works),
        "settled": sum(item.settled is not None for item in state.items.values()),
        "disputed": len(disputed(state)),
        "known_items": len(state.known), "known_answers": sum(work.why == "known" and work.state == JUDGED for work in works),
        "repeats": sum(work.why == "repeat" and work.state == JUDGED for work in works),
        "random": sum(work.why == "random" and work.state == JUDGED for work in works),
        "uncertain": sum(work.why == "uncertain" and work.state == JUDGED for work in works),
        "thumbs": len(state.thumbs), "choices": len(state.choices),
        "seconds": statistics.median(took) if took else None,
        "last_hour": sum(work.finished_at > now - 3600 for work in works),
        "flags": dict(Counter(flag for work in works if work.state == JUDGED for one in work.flags for flag in one).most_common()),
        "ratings": [sum(work.ratings.count(value) for work in works if work.state == JUDGED and work.ratings) for value in range(1, 8)],
    }


class Dashboard:
    """The figures of a store, computed again only after something has happened, and not more often than ``every`` seconds."""

    def __init__(self, store: Store, every: float = 2.0) -> None:
        self.store, self.every = store, every
        self._lock = threading.Lock()
        self._made_at, self._last = -math.inf, -1
        self._figures: Row = {}

    def figures(self, fresh: bool = False) -> Row:
        """``{"progress": ..., "agreement": {name: estimate}, "people": [...], "last": number of the newest event}``."""
        with self._lock:
            if not fresh and time.monotonic() - self._made_at < self.every:
                return self._figures
            with self.store.state() as state:
                if state.last != self._last:
                    found, counts, last, done = cases(state), progress(state, time.time()), state.last, _by_person(state)
                else:
                    self._figures["progress"] = progress(state, time.time())  # leases end without any event
                    found = None
            if found is not None:
                self._figures = {"progress": counts, "last": last,
                                 "agreement": {name: estimate.row() for name, estimate in agreements(found).items()},
                                 "people": self._people(found, done)}
                self._last = last
            self._made_at = time.monotonic()
            return self._figures

    def _people(self, found: Sequence[Case], done: dict[int, Row]) -> list[Row]:
        by_person: dict[int, list[Case]] = defaultdict(list)
        for case in found:
            for number in {one.person for one in case.judged}:
                by_person[number].append(case)
        return [{"id": person.id, "name": person.name, "role": person.role, "kind": person.kind, "removed": person.removed,
                 **done.get(person.id, {"judged": 0, "written": 0, "skipped": 0, "seconds": None}),
                 **{name: estimate.row() for name, estimate in agreements(by_person[person.id], person.id).items()}}
                for person in self.store.people()]


def _by_person(state: State) -> dict[int, Row]:
    found = {}
    for person, works in state.by_person.items():
        took = [work.seconds for work in works if work.state == JUDGED and work.seconds is not None and work.kind == "compare"]
        found[person] = {"judged": _count(works, "compare", JUDGED), "written": _count(works, "write", JUDGED),
                         "skipped": sum(work.state == SKIPPED for work in works), "seconds": statistics.median(took) if took else None}
    return found


def _count(works: Sequence[Work], kind: str, state: str) -> int:
    return sum(work.kind == kind and work.state == state for work in works)
