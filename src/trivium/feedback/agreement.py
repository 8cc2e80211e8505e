"""How well judges agree, with intervals. Pure functions of rankings and ratings.

A *ranking* is groups of response indices, best first, ties in one group. Responses to one prompt are judged together,
so what is resampled, or counted as independent, is always the prompt (the *cluster*), never a single pair.
"""

from __future__ import annotations

import functools
import itertools
import math
from collections import Counter
from collections.abc import Iterable, Sequence
from typing import NamedTuple

import numpy as np

from trivium import randomness

Ranking = Sequence[Sequence[int]]
LEVELS = ("nominal", "ordinal", "interval")
_CHUNK = 4_000_000  # weights drawn at a time: 32 MB


class Estimate(NamedTuple):
    """A figure with its 95 % interval and the number of clusters it rests on; NaN where nothing can be said."""

    value: float
    low: float
    high: float
    n: int

    def row(self) -> dict[str, float | int | None]:
        """For JSON, which has no NaN."""
        return {
            name: None if isinstance(x, float) and not math.isfinite(x) else x
            for name, x in self._asdict().items()
        }


NOTHING = Estimate(math.nan, math.nan, math.nan, 0)


def preferences(ranking: Ranking) -> set[tuple[int, int]]:
    """Every strict preference in a ranking, as ``(better, worse)``."""
    return {(better, worse)
            for above, below in itertools.combinations(ranking, 2)
            for better in above
            for worse in below}


def pair_agreement(one: Ranking, other: Ranking) -> tuple[int, int]:
    """``(pairs ordered alike, pairs that both rankings order strictly)``."""
    first, second = preferences(one), preferences(other)
    same = len(first & second)
    return same, same + len(first & {(worse, better) for better, worse in second})


def share(counts: Iterable[tuple[float, float]], z: float = 1.959963985) -> Estimate:
    """A share of pooled counts, ``sum(hits) / sum(totals)``, from ``(hits, total)`` of each cluster.

    Wilson's interval at the effective sample size ``p (1 - p) / v``, where ``v`` is the linearised variance between
    clusters (Dean & Pagano 2015, section 2.2, for complex samples). Where that variance is 0, as with one cluster or a
    share of 0 or 1, the number of clusters is the sample size, the most cautious choice.
    """
    table = np.array([(hits, total) for hits, total in counts if total > 0], dtype=float).reshape(-1, 2)
    clusters, total = len(table), table[:, 1].sum()
    if not clusters:
        return NOTHING
    p = table[:, 0].sum() / total
    size = float(clusters)
    if clusters > 1:
        variance = clusters / (clusters - 1) * np.square(table[:, 0] - p * table[:, 1]).sum() / total**2
        if variance > 0:
            size = min(float(total), p * (1 - p) / variance)
    size = max(size, 1.0)
    middle, half = p + z * z / (2 * size), z * math.sqrt(max(0.0, p * (1 - p) / size + z * z / (4 * size * size)))
    scale = 1 + z * z / size
    return Estimate(float(p), float(max(0.0, (middle - half) / scale)), float(min(1.0, (middle + half) / scale)),
                    clusters)


def kendall_w(rankings: Sequence[Ranking]) -> float:
    """Kendall's coefficient of concordance of m rankings of the same n responses, corrected for ties:
    ``W = (12 Σ R_i² - 3 m² n (n + 1)²) / (m² n (n² - 1) - m Σ T_j)`` with rank sums ``R_i`` and ``T_j = Σ (t³ - t)``
    over the tied groups of judge j (Kendall 1948; Siegel & Castellan 1988, equation 9.18). 1 is full agreement; m
    judges who rank at random have ``1 / m`` on average. NaN when it is undefined: fewer than two judges, or nobody
    prefers anything.
    """
    m = len(rankings)
    n = sum(len(group) for group in rankings[0]) if rankings else 0
    if m < 2 or n < 2:
        return math.nan
    sums, ties = np.zeros(n), 0
    for ranking in rankings:
        place = 0
        for group in ranking:
            sums[list(group)] += place + (len(group) + 1) / 2  # the mean of the ranks that the group takes
            place += len(group)
            ties += len(group)**3 - len(group)
    below = m * m * n * (n * n - 1) - m * ties
    return float((12 * np.square(sums).sum() - 3 * m * m * n * (n + 1)**2) / below) if below else math.nan


def mean(values: Iterable[float], seed: int = 0, resamples: int = 1000) -> Estimate:
    """The mean of a figure of each cluster, with a percentile bootstrap interval over clusters. NaN values are left
    out."""
    known = np.array([value for value in values if math.isfinite(value)])
    if not len(known):
        return NOTHING
    means = np.concatenate([weights @ known / len(known) for weights in _resampled(len(known), resamples, seed)])
    return Estimate(float(known.mean()), *_interval(means), len(known))


def krippendorff_alpha(clusters: Sequence[Sequence[Sequence[int]]], level: str = "ordinal", resamples: int = 1000,
                       seed: int = 0) -> Estimate:
    """Krippendorff's alpha of ratings, with a bootstrap interval.

    ``clusters`` holds, for each prompt, its units (responses), and for each unit the values that judges gave it, in any
    order; units with fewer than two values do not count. With coincidences ``o_ck``, their margins ``n_c`` and total
    ``n``, ``alpha = 1 - (n - 1) Σ o_ck δ²_ck / Σ n_c n_k δ²_ck`` (Krippendorff 2011, "Computing Krippendorff's Alpha-
    Reliability", section D), where for ordinal data ``δ_ck = Σ_{g=c..k} n_g - (n_c + n_k) / 2``. The interval is the
    percentile bootstrap over prompts, whose responses belong together; the metric is recomputed in each resample. NaN
    when nothing varies: alpha is then undefined.
    """
    values = sorted({value for units in clusters for unit in units for value in unit})
    return alpha_of_tables([coincidences(units, values) for units in clusters], values, level, resamples, seed)


def coincidences(units: Sequence[Sequence[int]], values: Sequence[int]) -> np.ndarray:
    """The coincidences ``o_ck`` of one prompt's units, ``[values, values]``: each pair of a unit's values, weighed by
    one over the number of its values less one."""
    index = {value: place for place, value in enumerate(values)}
    table = np.zeros((len(values), len(values)))
    for unit in units:
        if len(unit) > 1:
            counts = Counter(unit)
            for (c, n_c), (k, n_k) in itertools.product(counts.items(), repeat=2):
                table[index[c], index[k]] += n_c * (n_k - (c == k)) / (len(unit) - 1)
    return table


def alpha_of_tables(tables: Sequence[np.ndarray], values: Sequence[int], level: str = "ordinal", resamples: int = 1000,
                    seed: int = 0) -> Estimate:
    """:func:`krippendorff_alpha` from the :func:`coincidences` of each prompt."""
    if level not in LEVELS:
        raise ValueError(f"level {level!r}; known: {', '.join(LEVELS)}")
    tables = [table for table in tables if table.any()]
    if not tables:
        return NOTHING
    observed = np.stack(tables)  # [cluster, c, k]
    numbers = np.array(values, dtype=float)
    value = float(_alpha(observed.sum(0, keepdims=True), level, numbers)[0])
    flat = observed.reshape(len(observed), -1)
    drawn = np.concatenate([_alpha((weights @ flat).reshape(-1, *observed.shape[1:]), level, numbers)
                            for weights in _resampled(len(observed), resamples, seed)])
    return Estimate(value, *_interval(drawn), len(observed))


def _alpha(coincidences: np.ndarray, level: str, values: np.ndarray) -> np.ndarray:
    """Alpha of each coincidence matrix ``[R, C, C]`` -> ``[R]``."""
    margins = coincidences.sum(2)  # [R, C]
    if level == "ordinal":
        upto = margins.cumsum(1) - margins / 2  # halves of n_c and n_k drop out of the sum between them
        distance = np.square(upto[:, :, None] - upto[:, None, :])
    else:
        away = np.square(values[:, None] - values[None, :])
        distance = np.broadcast_to(away if level == "interval" else (away > 0).astype(float), coincidences.shape)
    expected = np.einsum("rc,rk,rck->r", margins, margins, distance)
    disagreement = (coincidences * distance).sum((1, 2)) * (margins.sum(1) - 1)
    with np.errstate(invalid="ignore", divide="ignore"):
        return 1 - np.where(expected > 0, disagreement / expected, math.nan)


def _resampled(clusters: int, resamples: int, seed: int) -> Iterable[np.ndarray]:
    """How often each cluster is drawn in each resample, ``[some resamples, clusters]`` at a time."""
    rng = randomness.numpy(seed, "bootstrap", clusters)
    step = max(1, _CHUNK // clusters)
    for start in range(0, resamples, step):
        yield rng.multinomial(clusters, np.full(clusters, 1 / clusters), size=min(step,
                                                                                  resamples - start)).astype(float)


def _interval(drawn: np.ndarray) -> tuple[float, float]:
    drawn = drawn[np.isfinite(drawn)]
    if not len(drawn):
        return math.nan, math.nan
    low, high = np.quantile(drawn, (0.025, 0.975))
    return float(low), float(high)


def signs(ranking: Ranking) -> np.ndarray:
    """For each pair ``i < j`` of K responses, 1 where i is better, -1 where j is, 0 where they are tied: ``[K (K - 1) /
    2]``."""
    levels = np.empty(sum(map(len, ranking)), dtype=int)
    for level, group in enumerate(ranking):
        levels[list(group)] = level
    first, second = _pairs(len(levels))
    return np.sign(levels[second] - levels[first])


@functools.lru_cache(32)
def _pairs(count: int) -> tuple[np.ndarray, np.ndarray]:
    """Of ``count`` responses the pairs ``i < j``, as two arrays: to make them costs more than all that is done with
    them."""
    return np.triu_indices(count, 1)


def agreement_within(judged: np.ndarray) -> tuple[tuple[int, int], float]:
    """Of the :func:`signs` of m judges ``[m, pairs]``, over all pairs of judges: ``(ordered alike, ordered strictly by
    both)``, and the share alike where a tie against a preference counts as half (NaN when nobody prefers anything)."""
    plus, minus = (judged > 0).sum(0), (judged < 0).sum(0)
    tied = len(judged) - plus - minus
    same = int((plus * (plus - 1) + minus * (minus - 1)).sum()) // 2
    halves = float((tied * (plus + minus)).sum())
    both = same + int((plus * minus).sum())
    return (same, both), (same + halves / 2) / (both + halves) if both + halves else math.nan


def agreement_with_others(judged: np.ndarray) -> list[tuple[int, int]]:
    """For each of m judges ``[m, pairs]``, ``(pairs ordered alike, pairs ordered strictly by both)`` over all the
    others."""
    plus, minus = (judged > 0).sum(0), (judged < 0).sum(0)
    same = np.where(judged > 0, plus - 1, 0) + np.where(judged < 0, minus - 1, 0)
    both = np.where(judged != 0, plus + minus - 1, 0)
    return [(int(one), int(other)) for one, other in zip(same.sum(1), both.sum(1))]


def position_counts(ranking: Ranking, order: Sequence[int]) -> tuple[int, int]:
    """``(pairs whose better response was shown first, all strict pairs)`` of a ranking whose responses were shown in
    ``order``: half, when the place on the page does not matter."""
    place = {response: at for at, response in enumerate(order)}
    pairs = preferences(ranking)
    return sum(place[better] < place[worse] for better, worse in pairs), len(pairs)


def length_counts(ranking: Ranking, lengths: Sequence[int]) -> tuple[int, int]:
    """``(pairs whose better response is the longer, strict pairs of different lengths)``."""
    pairs = [(better, worse) for better, worse in preferences(ranking) if lengths[better] != lengths[worse]]
    return sum(lengths[better] > lengths[worse] for better, worse in pairs), len(pairs)


def disagreement(scores: Sequence[Sequence[float]]) -> float:
    """How far an ensemble of reward models is from agreeing on K responses: the standard deviation over models of
    ``sigmoid(score_i - score_j)``, the probability that i is preferred to j (Bradley & Terry 1952), averaged over the
    pairs. ``scores`` is ``[models, K]``. It does not change with a model's offset, and lies in [0, 0.5]."""
    table = np.asarray(scores, dtype=float)
    if table.ndim != 2 or table.shape[0] < 2 or table.shape[1] < 2:
        return 0.0
    first, second = np.triu_indices(table.shape[1], 1)
    chances = 0.5 * (1 + np.tanh((table[:, first] - table[:, second]) / 2))
    return float(chances.std(0).mean())


Marks = Sequence[Sequence[tuple[int, int, str]]]
"""What somebody marked on each response: from, to (in characters), and the kind of error."""


def overlap(given: Sequence[Marks], by_kind: bool) -> tuple[float, float]:
    """``(shared, marked)`` over all pairs of judges: twice the characters that both marked, and those of either. Their
    quotient is the Dice coefficient (F1) of the marked characters. ``by_kind``: the kind must be the same, too. A
    response on which neither marked anything says nothing."""
    shared = marked = 0
    places = [[{(at, kind if by_kind else "") for start, end, kind in response for at in range(start, end)}
               for response in one] for one in given]
    for first, second in itertools.combinations(places, 2):
        for mine, theirs in zip(first, second):
            shared += 2 * len(mine & theirs)
            marked += len(mine) + len(theirs)
    return float(shared), float(marked)
