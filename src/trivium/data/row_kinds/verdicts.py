"""Rows in which two responses stand under names of their own, and a verdict says which of them is better."""

from __future__ import annotations

import math
import re
from collections.abc import Callable
from typing import Any

from trivium.data.row_kinds.fields import Fields
from trivium.errors import TriviumError

TWO = (("response1", "response2"), ("response_1", "response_2"), ("response_0", "response_1"),
       ("output_1", "output_2"), ("response_a", "response_b"), ("answer_a", "answer_b"),
       ("human_ref_A", "human_ref_B"), ("conversation_a", "conversation_b"))
"""The names of two responses: PandaLM, HelpSteer, PKU-SafeRLHF, AlpacaEval, Chatbot Arena, SHP."""
FIRST, SECOND, TIED = -1, 1, 0


def two_responses(fields: Fields) -> tuple[str, str] | None:
    """The names of a row's two responses, where there is a verdict on them."""
    there = next((pair for pair in TWO if all(name in fields for name in pair)), None)
    return there if there and any(name in fields for name in _known(fields)) else None


def lacking(fields: Fields) -> str:
    """What a row with two responses, or one of two, lacks to be a comparison; nothing for other rows."""
    for pair in TWO:
        there = [name for name in pair if name in fields]
        if len(there) == 1 and there[0] != "response_1":  # a name in two of the pairs
            absent = next(name for name in pair if name not in fields)
            return f"; it has {there[0]!r}, but no {absent!r}"
        if len(there) == 2 and not any(name in fields for name in _known(fields)):
            return ("; its two responses have no verdict beside them, such as 'annotator1' (1 the first, 2 the second, "
                    f"0 neither), {', '.join(map(repr, sorted(VERDICTS)))}")
    return ""


def verdict(fields: Fields) -> int:
    """Which response is better: -1 the first, 1 the second, 0 neither. Raises :class:`TriviumError` for a verdict that
    is none."""
    name = next(name for name in _known(fields) if name in fields)
    if name in VERDICTS:
        value = fields.take(name)
        found = VERDICTS[name](value)
        if found is None:
            raise TriviumError(f"the field {name!r} is {value!r}, which says of neither response that it is better")
        return found
    total = 0
    for name in _annotators(fields):
        value = fields.take(name)
        vote = _one_or_two(value)
        if vote is None:
            raise TriviumError(f"the field {name!r} is {value!r}, which is neither 1, 2 nor 0")
        total += vote
    return (total > 0) - (total < 0)


def _annotators(fields: Fields) -> list[str]:
    every = dict.fromkeys([*fields.names(), *(f"annotator{number}" for number in range(1, 10))])
    return [name for name in every if re.fullmatch(r"annotator_?\d+", name) and name in fields]


def _known(fields: Fields) -> list[str]:
    return [*VERDICTS, *_annotators(fields)]


def _number(value: Any) -> float | None:
    try:
        number = float(value) if not isinstance(value, bool) else math.nan
    except (TypeError, ValueError):
        return None
    return number if math.isfinite(number) else None


def _of(value: Any) -> float:
    number = _number(value)
    return math.nan if number is None else number


def _one_or_two(value: Any) -> int | None:
    """1 the first, 2 the second, 0 neither; a number between 1 and 2 is the probability of the second, above 1."""
    number = _number(value)
    if number == 0 or number == 1.5:
        return TIED
    return None if number is None or not 1 <= number <= 2 else FIRST if number < 1.5 else SECOND


def _signed(value: Any) -> int | None:
    """Negative the first, positive the second, up to 3 either way."""
    number = _number(value)
    return None if number is None or abs(number) > 3 else (number > 0) - (number < 0)


def _first_if_one(value: Any) -> int | None:
    return {1.0: FIRST, 0.0: SECOND}.get(_of(value))


def _index(value: Any) -> int | None:
    return {0.0: FIRST, 1.0: SECOND}.get(_of(value))


def _by_name(value: Any) -> int | None:
    said = str(value).strip().casefold()
    if said.startswith(("tie", "both", "neither")):
        return TIED
    return {"model_a": FIRST, "model_b": SECOND, "a": FIRST, "b": SECOND, "response_1": FIRST, "response_2": SECOND,
            "output_1": FIRST, "output_2": SECOND}.get(said)


VERDICTS: dict[str, Callable[[Any], int | None]] = {
    "preference": _one_or_two, "overall_preference": _signed, "preference_strength": _signed, "labels": _first_if_one,
    "better_response_id": _index, "winner": _by_name}
"""How the field of a verdict is read: AlpacaEval, HelpSteer 3 and 2, SHP, PKU-SafeRLHF, Chatbot Arena."""
