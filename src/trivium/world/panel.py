"""Simulated annotators: people who see the rubric through their own eyes, and not always sharply.

Every judgement is a pure function of (seed, annotator, prompt, response). An annotator who sees the same response
twice says the same twice, and the panel can be asked in any order, by any number of processes.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterable, Sequence
from typing import Any

from trivium.errors import TriviumError
from trivium.randomness import python
from trivium.world.rubric import WEIGHTS, Score, score

NOISE = 1.7
"""The standard deviation of a judgement around what the annotator really thinks, in points of the rubric. With it two
annotators agree on about 73 % of the pairs on which both have a preference, as labellers of real models do (Ouyang et
al. 2022, section 3.4: 72.6 %)."""

MARGIN = 0.15
"""Responses whose judgements are closer than this are tied."""

SPREAD = {"right": 0.2, "harmless": 0.2, "complete": 0.6, "polite": 0.9, "brief": 0.9}
"""How far an annotator's weight for each quality may be from the rubric's, as a share of it: tastes differ more in
manners than in truth."""

RATING_SCALE = (1, 7)


class Panel:
    """A group of annotators, ``annotator-0`` and so on, who rank responses to the prompts of the world."""

    def __init__(self, seed: int, annotators: int = 5, noise: float = NOISE) -> None:
        if annotators < 1:
            raise TriviumError(f"panel: {annotators} annotators; at least one is needed")
        self.seed, self.noise = seed, noise
        self.judged: dict[tuple[str, str], Score] = {}  # all annotators look at the same responses
        self.names = [f"annotator-{i}" for i in range(annotators)]
        self.weights = {name: self._tastes(name) for name in self.names}

    def _tastes(self, name: str) -> dict[str, float]:
        """An annotator's own weights for the qualities of the rubric."""
        rng = python(self.seed, "world", "panel", "tastes", name)
        return {quality: weight * (1.0 + SPREAD[quality] * rng.uniform(-1.0, 1.0))
                for quality, weight in WEIGHTS.items()}

    def impression(self, row: dict[str, Any], response: str, annotator: str) -> float:
        """What an annotator thinks of one response: the weighted qualities plus noise, in points of the rubric."""
        seen = (row["id"], response)
        judged = self.judged[seen] = self.judged.get(seen) or score(row, response)
        rng = python(self.seed, "world", "panel", annotator, row["id"], response)
        liking = sum(weight * getattr(judged, quality) for quality, weight in self.weights[annotator].items())
        return float(liking + rng.gauss(0.0, self.noise))

    def rank(self, row: dict[str, Any], responses: Sequence[str], annotator: int | str) -> dict[str, Any]:
        """One annotator's judgement of the responses to one prompt: ``{"ranking": groups of indices, best first, ties
        in one group, "ratings": 1..7 for each response, "annotator": name, "seconds": time taken}``."""
        name = self.names[annotator] if isinstance(annotator, int) else annotator
        if name not in self.weights:
            raise TriviumError(f"panel: no annotator {name!r}; known: {', '.join(self.names)}")
        points = [self.impression(row, response, name) for response in responses]
        rng = python(self.seed, "world", "panel", "seconds", name, row["id"], tuple(responses))
        words = sum(len(response.split()) for response in responses)
        return {"ranking": ranking(points, MARGIN), "ratings": [rating(point) for point in points], "annotator": name,
                "seconds": round((5.0 + 0.4 * words) * rng.lognormvariate(0.0, 0.35), 1)}


def judge(row: dict[str, Any], responses: Sequence[str]) -> list[list[int]]:
    """The true ranking, by the rubric without tastes or noise; only equal totals are tied."""
    return ranking([score(row, response).total for response in responses], 1e-9)


def ranking(points: Sequence[float], margin: float) -> list[list[int]]:
    """Indices in groups, best first. A response joins the group above it when it is within ``margin`` of that group's
    best one."""
    groups: list[list[int]] = []
    for index in sorted(range(len(points)), key=lambda i: (-points[i], i)):
        if groups and points[groups[-1][0]] - points[index] <= margin:
            groups[-1].append(index)
        else:
            groups.append([index])
    return groups


def rating(points: float) -> int:
    """Points of the rubric on the scale of :data:`RATING_SCALE`: none at all is the worst, all of them the best."""
    low, high = RATING_SCALE
    return min(high, max(low, low + math.floor(points / sum(WEIGHTS.values()) * (high - low) + 0.5)))


def preferences(ranked: Sequence[Sequence[int]]) -> set[tuple[int, int]]:
    """Every strict preference in a ranking, as (better, worse)."""
    return {(better, worse) for above, below in itertools.combinations(ranked, 2) for better in above
            for worse in below}


def agreement(rankings: Iterable[tuple[Sequence[Sequence[int]], Sequence[Sequence[int]]]]) -> float | None:
    """The share of pairs of responses that two judges order alike, among those that both order strictly. Takes the two
    judges' rankings of each prompt; None when no pair is comparable."""
    same = compared = 0
    for one, other in rankings:
        first, second = preferences(one), preferences(other)
        same += len(first & second)
        compared += len(first & second) + len(first & {(worse, better) for better, worse in second})
    return same / compared if compared else None
