"""Win rates: how often one model's answers are better than another's to the same prompts.

A win is 1 for the better answer, 0 for the worse one, and a half for a tie; a judge that is asked in both orders may
give something in between. Every win rate of the package is computed here.
"""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from typing import Any

from trivium.evaluation.statistics import length_controlled, rate


def wins_by_points(points: Sequence[float], others: Sequence[float], answers: Sequence[str],
                   other_answers: Sequence[str]) -> list[float]:
    """1 where a model's answer has more points than the other's, 0 where it has fewer, a half where as many.

    The same text is a tie: a reward model that reads it in two batches may give it points that differ by rounding."""
    return [0.5 if answer == other else (a > b) + 0.5 * (a == b)
            for a, b, answer, other in zip(points, others, answers, other_answers, strict=True)]


def win_rates(wins: Sequence[float], answers: Sequence[str], others: Sequence[str],
              clusters: Sequence[Hashable] | None = None, seed: int = 0, draws: int = 500) -> dict[str, dict[str, Any]]:
    """``win_rate``, the mean of ``wins``, and ``length_controlled``, the rate without the judge's liking for length
    (see :func:`trivium.evaluation.statistics.length_controlled`, which draws ``draws`` times).

    ``clusters`` names what stands and falls together, such as the prompt of each win; both intervals count it as
    one."""
    lengths = [float(len(a) - len(b)) for a, b in zip(answers, others, strict=True)]
    plain = rate(wins, clusters)
    return {"win_rate": plain | {"n": plain.pop("clusters", plain["n"])},
            "length_controlled": length_controlled(wins, lengths, seed=seed, draws=draws, clusters=clusters)}
