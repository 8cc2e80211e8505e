"""What somebody does next: functions of a project's state, the person and the moment, and of nothing else."""

from __future__ import annotations

from collections.abc import Iterator

from trivium import randomness
from trivium.feedback.state import JUDGED, OPEN, Item, State, Work
from trivium.files import Row

REGULAR = ("random", "uncertain", "due", "given")
"""Why somebody has an item that is no check."""


def open_work(state: State, person: int, kind: str, now: float) -> Work | None:
    """The work that a person has taken and holds yet."""
    return next((work for work in state.by_person.get(person, ()) if work.state == OPEN and work.until > now
                 and work.kind == kind and not (work.item and state.items[work.item].closed)), None)


def choose(state: State, person: int, kind: str, now: float) -> tuple[Item | None, str] | None:
    """The next item and why: ``given`` (by the lead), ``due`` (it has a deadline; the earliest comes first),
    ``random``, ``uncertain``, ``known``, ``repeat`` or ``own`` (no item: a prompt of the person's own). None when
    nothing is left, or their quota is used up. Chance decides between known answers, repetitions, held-out prompts,
    uncertain and random ones; it is a function of the seed, the person and how much they have done."""
    if state.left(person, now).nothing:
        return None
    mine = (state.items[name] for name in state.given.get(person, ()))
    given = next((item for item in mine if item.kind == kind and state.vacant(item, person, now)), None)
    if given:
        return given, "given"
    due = _vacant(state, state.most_due(kind), person, now)
    works = state.by_person.get(person, [])
    chance = randomness.python(state.settings.seed, "next", person, len(works))
    if kind == "write":
        item = (due or _vacant(state, state.in_order("write", "train"), person, now)
                or _vacant(state, state.in_order("write", "heldout"), person, now))
        return (item, "due" if due else "random") if item else (None, "own") if state.settings.free_writing else None
    luck, heldout = chance.random(), chance.random() < state.settings.heldout
    regular, why = due, "due"
    if chance.random() < state.settings.uncertain_share and not heldout and not due:
        regular, why = _vacant(state, state.most_uncertain(), person, now), "uncertain"
    if regular is None:
        why = "random"
        for split in ("heldout", "train") if heldout else ("train", "heldout"):
            regular = regular or _vacant(state, state.in_order(kind, split), person, now)
    if regular is None:
        return None
    if luck < state.settings.known_share:
        fresh = [name for name in state.known if not state.items[name].closed
                 and not any(work.person == person for work in state.items[name].works)]
        if fresh:
            return state.items[chance.choice(sorted(fresh))], "known"
    elif luck < state.settings.known_share + state.settings.repeat_share:
        old = _repeatable(state, works)
        if old:
            return state.items[chance.choice(old)], "repeat"
    return regular, why


def _vacant(state: State, items: Iterator[Item], person: int, now: float) -> Item | None:
    """The first of the items that the person may take."""
    return next((item for item in items if state.vacant(item, person, now)), None)


def _repeatable(state: State, works: list[Work]) -> list[str]:
    """Items that a person judged long enough ago, and has not judged again."""
    done = [work for work in works if work.state == JUDGED and work.item and work.why in REGULAR]
    again = {work.item for work in works if work.why == "repeat"}
    return [work.item for work in done[:-state.settings.repeat_after]
            if work.item and work.item not in again and not state.items[work.item].closed]


def lease(state: State, item: Item | None, person: int, kind: str, why: str, until: float) -> Row:
    """The body of a lease. The order is a function of the seed, the person, the item and how often they had it."""
    order = list(range(len(item.lengths) if item else 0))
    if item:
        times = sum(work.person == person for work in item.works)
        randomness.python(state.settings.seed, "order", person, item.id, times).shuffle(order)
    return {"kind": kind, "item": item.id if item else None, "order": order, "why": why, "until": until}
