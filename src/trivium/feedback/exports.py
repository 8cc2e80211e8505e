"""What a project gives to training: rows of the formats that the stages read, split by prompt."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from trivium.errors import TriviumError, nearest
from trivium.feedback.agreement import preferences
from trivium.feedback.assignment import REGULAR
from trivium.feedback.pictures import together
from trivium.feedback.rows import prompt_key, split_of
from trivium.feedback.state import JUDGED, SKIPPED, Item, State, Work
from trivium.feedback.store import Store
from trivium.files import Row, written_aside

LIKED, DISLIKED = 5, 3
"""Ratings from which on a response counts as a thumb up, and up to which as one down; 4 is neither."""


def export(store: Store, kind: str) -> Iterator[Row]:
    """The rows of one kind of :data:`EXPORTS`, as the project is now. Known-answer items, repetitions and items that
    were withdrawn are in none of them, what was skipped in ``skips`` alone; of corrected answers they hold the
    newest."""
    if kind not in EXPORTS:
        raise TriviumError(f"there is no export {kind!r}{nearest(kind, EXPORTS)}")
    return EXPORTS[kind](store)


def export_all(store: Store, folder: Path) -> dict[str, int]:
    """Write ``KIND.jsonl`` for every kind; returns the number of rows of each."""
    counts = {}
    for kind in EXPORTS:
        counts[kind] = 0
        with written_aside(folder / f"{kind}.jsonl") as aside, open(aside, "w", encoding="utf-8") as file:
            for row in export(store, kind):
                file.write(json.dumps(row, ensure_ascii=False, allow_nan=False) + "\n")
                counts[kind] += 1
    return counts


def demonstrations(store: Store) -> Iterator[Row]:
    """Answers that annotators wrote: ``{"messages", "annotator", "split"}``."""
    with store.state() as state:
        heldout = state.settings.heldout
        chosen = [(state.items[work.item].event if work.item else 0, work.event, work.person)
                  for work in state.works.values() if work.kind == "write" and work.state == JUDGED
                  and not (work.item and state.items[work.item].closed)]
    names = _names(store)
    for batch in _batches(chosen):
        bodies = store.bodies(number for item, event, _ in batch for number in (item, event) if number)
        for item, event, person in batch:
            messages = bodies[event]["messages"]
            whole = [*asked(store, bodies[item]), messages[-1]] if item else messages
            yield {"messages": whole, "annotator": names[person],
                   "split": split_of(prompt_key(messages[:-1]), heldout)}


def rankings(store: Store) -> Iterator[Row]:
    """One judgement a row: ``{"id", "prompt", "responses", "ranking", "ratings", "flags", "annotator", "seconds",
    "split", "chosen", "source"}``, and a ``note`` and ``marks`` where there are any. ``chosen`` is ``"random"``,
    ``"uncertain"``, ``"due"`` or ``"given"``: how the item was picked. Of a settled item there is the lead's ranking
    alone; what says `all bad` or ties everything prefers nothing and is left out."""
    yield from (row for row in _judgements(store) if len(row["ranking"]) > 1 and not row.pop("all_bad"))


def pairs(store: Store) -> Iterator[Row]:
    """Every strict preference of :func:`rankings` as ``{"prompt", "chosen", "rejected", "annotator", "split"}``, for
    DPO."""
    for row in rankings(store):
        for better, worse in sorted(preferences(row["ranking"])):
            yield {"prompt": row["prompt"], "chosen": row["responses"][better], "rejected": row["responses"][worse],
                   "annotator": row["annotator"], "split": row["split"], "id": row["id"]}


def ratings(store: Store) -> Iterator[Row]:
    """One rated response a row: ``{"prompt", "response", "rating": 1..7, "flags", "all_bad", "annotator",
    "split"}``."""
    for row in _judgements(store):
        for index, rating in enumerate(row.get("ratings") or ()):
            yield {
                "prompt": row["prompt"], "response": row["responses"][index], "rating": rating,
                "flags": row["flags"][index], "all_bad": row["all_bad"], "annotator": row["annotator"],
                "split": row["split"], "id": row["id"], **({"note": row["note"]} if "note" in row else {})
            }


def marks(store: Store) -> Iterator[Row]:
    """One mark on a part of a response a row: ``{"prompt", "response", "start", "end", "kind", "text", "annotator",
    "split"}``, places in characters."""
    for row in _judgements(store):
        for response, given in zip(row["responses"], row.get("marks", ())):
            for one in given:
                yield {"prompt": row["prompt"], "response": response, **one,
                       "text": response[one["start"]:one["end"]], "annotator": row["annotator"], "split": row["split"],
                       "id": row["id"]}


def thumbs(store: Store) -> Iterator[Row]:
    """Good or bad, for KTO: ``{"prompt", "completion", "label", "annotator", "source", "split"}``: the chat page's
    thumbs, and ratings, where 5 to 7 is good, 1 to 3 bad, and all is bad where an annotator said so."""
    with store.state() as state:
        heldout, newest = state.settings.heldout, sorted(state.thumbs.values())
    for batch in _batches(newest):
        for body in store.bodies(batch).values():
            if body["label"] is not None:
                yield {
                    "prompt": body["prompt"], "completion": body["completion"], "label": body["label"],
                    "annotator": body["who"], "source": "chat", "model": body["model"],
                    "split": split_of(body["key"], heldout)
                }
    for row in _judgements(store):
        for index, response in enumerate(row["responses"]):
            rating = row["ratings"][index] if row.get("ratings") else None
            if row["all_bad"] or (rating is not None and not DISLIKED < rating < LIKED):
                yield {
                    "prompt": row["prompt"], "completion": response, "label": not row["all_bad"] and rating is not None
                    and rating >= LIKED, "annotator": row["annotator"], "source": row["source"], "split": row["split"]
                }


def skips(store: Store) -> Iterator[Row]:
    """What was skipped and not answered since: ``{"id", "prompt", "reason", "note", "annotator", "split"}``."""
    names = _names(store)
    with store.state() as state:
        heldout = state.settings.heldout
        chosen = [(item.event, work.event, work.person) for item in state.items.values()
                  if not item.known and not item.closed for work in item.works if work.state == SKIPPED and work.counts]
    for batch in _batches(chosen):
        bodies = store.bodies(number for entry in batch for number in entry[:2])
        for number, event, person in batch:
            item, body = bodies[number], bodies[event]
            yield {"id": item["item"], "prompt": asked(store, item), "reason": body["reason"], "note": body["note"],
                   "annotator": names[person], "split": split_of(prompt_key(item["prompt"]), heldout)}


EXPORTS: dict[str, Callable[[Store], Iterator[Row]]] = {
    "demonstrations": demonstrations, "rankings": rankings, "pairs": pairs, "ratings": ratings, "thumbs": thumbs,
    "skips": skips, "marks": marks}


def _judgements(store: Store) -> Iterator[Row]:
    """Rows of every judgement that counts, and of the chat page's votes."""
    names = _names(store)
    with store.state() as state:
        heldout, votes = state.settings.heldout, sorted(state.choices.values())
        chosen = [_picked(state, item) for item in state.items.values()
                  if item.kind == "compare" and not item.known and not item.closed]
    for batch in _batches([one for one in chosen if one[1]]):
        bodies = store.bodies([event
                               for event, works in batch] + [event for _, works in batch for event, _, _ in works])
        for item_event, works in batch:
            item = bodies[item_event]
            prompt = asked(store, item)
            for event, person, why in works:
                body = bodies[event]
                row = {
                    "id": item["item"], "prompt": prompt, "responses": item["responses"],
                    "ranking": body["ranking"], "ratings": body["ratings"], "flags": body["flags"],
                    "all_bad": body["all_bad"], "annotator": names.get(person, ""), "seconds": body.get("seconds"),
                    "split": split_of(prompt_key(item["prompt"]), heldout), "chosen": why, "source": "annotation",
                    "note": body.get("note") or None,
                    "marks": body.get("marks") if any(body.get("marks", ())) else None
                }
                for name in ("finished", "models", "task", "truth"):
                    if name in item:
                        row[name] = item[name]
                yield {name: value for name, value in row.items() if value is not None}
    for numbers in _batches(votes):
        for number, body in sorted(store.bodies(numbers).items()):
            yield {
                "id": f"chat-{number}", "prompt": body["prompt"], "responses": body["responses"],
                "ranking": body["ranking"], "flags": [[] for _ in body["responses"]], "all_bad": body["all_bad"],
                "annotator": body["who"], "split": split_of(prompt_key(body["prompt"]), heldout), "chosen": "chat",
                "source": "chat", "models": body["models"]
            }


def asked(store: Store, item: Row) -> list[Row]:
    """An item's prompt, its pictures in their messages as parts."""
    shown = item.get("pictures")
    prompt: list[Row] = item["prompt"]
    return together(prompt, shown, store.pictures(one["picture"] for one in shown)) if shown else prompt


def _picked(state: State, item: Item) -> tuple[int, list[tuple[int, int, str]]]:
    """An item's event and those of its judgements, ``(event, person, why)``: the lead's alone when there is one."""
    if item.settled:
        first = item.works[0].why if item.works else "random"
        return item.event, [(item.settled.id, item.settled.who
                             or 0, first if first in REGULAR else "random")]

    def why(work: Work) -> str:
        return "random" if work.why == "import" else work.why
    return item.event, [(work.event, work.person, why(work)) for work in item.judgements()]


def _names(store: Store) -> dict[int, str]:
    return {person.id: person.name for person in store.people()}


def _batches(values: list[Any], size: int = 200) -> Iterator[list[Any]]:
    yield from (values[start:start + size] for start in range(0, len(values), size))


def write_lines(store: Store, kind: str) -> Iterator[bytes]:
    """An export as JSON lines, for a download."""
    with contextlib.closing(export(store, kind)) as exported:  # type: ignore[type-var]
        for row in exported:
            yield (json.dumps(row, ensure_ascii=False, allow_nan=False) + "\n").encode()
