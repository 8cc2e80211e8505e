"""Judgements by places on the page, and by the numbers of the item's responses.

The page shows the responses in a random order; ``order[place]`` is the number of the response shown at ``place``.
"""

from __future__ import annotations

from typing import Any

from trivium.errors import TriviumError
from trivium.feedback import rows


def by_response(judgement: dict[str, Any], order: tuple[int, ...]) -> dict[str, Any]:
    """A judgement of places, as one of responses. Raises :class:`TriviumError` where it does not fit the page."""
    ranking, ratings = judgement["ranking"], judgement["ratings"]
    if ranking is not None:
        rows.ranking(ranking, len(order), tied=True)  # names each place once
        ranking = [[order[place] for place in group] for group in ranking]
    if ratings is not None and judgement["all_bad"] and None in ratings:
        ratings = None
    return {
        "ranking": ranking, "ratings": _values_by_response(ratings, "ratings", order),
        "flags": _values_by_response(judgement["flags"], "flags", order), "all_bad": judgement["all_bad"]
    }


def _values_by_response(values: list[Any] | None, name: str, order: tuple[int, ...]) -> list[Any] | None:
    if values is None:
        return None
    if len(values) != len(order):
        raise TriviumError(f"`{name}` does not have one value for each of the {len(order)} responses")
    result: list[Any] = [None] * len(order)
    for number, value in zip(order, values):
        result[number] = value
    return result


def by_place(judgement: dict[str, Any] | None, order: tuple[int, ...]) -> dict[str, Any] | None:
    """An earlier judgement, by places. None for what is no judgement, such as a skip."""
    if judgement is None or "ranking" not in judgement:
        return None
    place = {number: at for at, number in enumerate(order)}
    untouched = judgement["all_bad"] and len(judgement["ranking"]) == 1
    return {
        "ranking": [] if untouched else [sorted(place[number] for number in group) for group in judgement["ranking"]],
        "ratings": [judgement["ratings"][number] for number in order] if judgement["ratings"] else None,
        "flags": [judgement["flags"][number] for number in order], "all_bad": judgement["all_bad"],
        "note": judgement["note"]
    }
