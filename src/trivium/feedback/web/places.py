"""Judgements by places on the page, and by the numbers of the item's responses.

The page shows the responses in a random order; ``order[place]`` is the number of the response shown at ``place``.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from trivium.errors import TriviumError
from trivium.feedback import rows


def by_response(judgement: dict[str, Any], order: tuple[int, ...], texts: Sequence[str]) -> dict[str, Any]:
    """A judgement of places, as one of responses. Raises :class:`TriviumError` where it does not fit the page."""
    ranking, ratings = judgement["ranking"], judgement["ratings"]
    if ranking is not None:
        rows.ranking(ranking, len(order), tied=True)  # names each place once
        ranking = [[order[place] for place in group] for group in ranking]
    if ratings is not None and judgement["all_bad"] and None in ratings:
        ratings = None
    marks = _values_by_response(judgement["marks"], "marks", order)
    return {
        "ranking": ranking, "ratings": _values_by_response(ratings, "ratings", order),
        "flags": _values_by_response(judgement["flags"], "flags", order), "all_bad": judgement["all_bad"],
        "marks": marks and [[{**one, "start": stored(text, one["start"]), "end": stored(text, one["end"])}
                             for one in given] for text, given in zip(texts, marks)]
    }


def stored(text: str, at: int) -> int:
    """The place in a text that a browser, which ends every line by one character, calls ``at``."""
    if "\r\n" not in text:
        return at
    places = [place for place in range(len(text)) if place == 0 or text[place - 1:place + 1] != "\r\n"]
    return places[at] if 0 <= at < len(places) else at + len(text) - len(places)


def shown(text: str, at: int) -> int:
    """The other way round."""
    return at - text.count("\r\n", 0, at)


def _values_by_response(values: list[Any] | None, name: str, order: tuple[int, ...]) -> list[Any] | None:
    if values is None:
        return None
    if len(values) != len(order):
        raise TriviumError(f"`{name}` does not have one value for each of the {len(order)} responses")
    result: list[Any] = [None] * len(order)
    for number, value in zip(order, values):
        result[number] = value
    return result


def by_place(judgement: dict[str, Any] | None, order: tuple[int, ...],
             texts: Sequence[str]) -> dict[str, Any] | None:
    """An earlier judgement, by places. None for what is no judgement, such as a skip."""
    if judgement is None or "ranking" not in judgement:
        return None
    place = {number: at for at, number in enumerate(order)}
    untouched = judgement["all_bad"] and len(judgement["ranking"]) == 1
    return {
        "ranking": [] if untouched else [sorted(place[number] for number in group) for group in judgement["ranking"]],
        "ratings": [judgement["ratings"][number] for number in order] if judgement["ratings"] else None,
        "flags": [judgement["flags"][number] for number in order], "all_bad": judgement["all_bad"],
        "note": judgement["note"],
        "marks": [[{**one, "start": shown(texts[number], one["start"]), "end": shown(texts[number], one["end"])}
                   for one in judgement["marks"][number]] for number in order] if judgement.get("marks") else None
    }
