"""What runs in the process of a judge of the user's own."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from trivium.extensions import load_object


def compare(row: dict[str, Any], responses: Sequence[str]) -> list[float]:
    """The probabilities that the first and the second of two responses is better, by the function that ``row['judge']``
    names. Raises :class:`ValueError` where what it returns is no probability."""
    first, second = responses
    probability = load_object(row["judge"])(row["prompt"], first, second, row["principle"])
    if not isinstance(probability, (int, float)) or not 0 <= probability <= 1:
        raise ValueError(f"a probability from 0 to 1 was expected, not {probability!r:.80}")
    return [float(probability), 1 - float(probability)]
