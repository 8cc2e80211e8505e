"""Figures that say how sure they are: bootstrap and permutation over prompts, and win rates freed of length."""

from __future__ import annotations

import math
from collections.abc import Hashable, Mapping, Sequence
from statistics import NormalDist
from typing import Any

import numpy as np

from trivium import randomness
from trivium.intervals import Z, effective_number, mean_interval, student_t, wilson

Vector = np.ndarray


def clustered(values: Sequence[float] | Vector, clusters: Sequence[Hashable] | None = None) -> tuple[Vector, Vector]:
    """Sums and counts of ``values [N]`` by cluster, both ``[C]``, in the order in which the clusters first occur.
    Without ``clusters`` each value is its own."""
    if clusters is None:
        return np.asarray(values, float), np.ones(len(values))
    if len(clusters) != len(values):
        raise ValueError(f"{len(values)} values, but {len(clusters)} clusters")
    index = numbered(clusters)
    return np.bincount(index, np.asarray(values, float)), np.bincount(index).astype(float)


def numbered(clusters: Sequence[Hashable]) -> Vector:
    """The number of each item's cluster, ``[N]``, from 0 in the order in which they first occur."""
    number: dict[Hashable, int] = {}
    return np.array([number.setdefault(cluster, len(number)) for cluster in clusters], np.int64)


def bootstrap(values: Sequence[float], clusters: Sequence[Hashable] | None = None, seed: int = 0, draws: int = 2000,
              level: float = 0.95) -> dict[str, Any]:
    """The mean with a bootstrap interval over clusters, such as all samples of one prompt (Miller 2024):
    :func:`ratio_bootstrap` of the clusters' sums and sizes. Where no two clusters differ, and for a single one, a draw
    says nothing: the interval is then that of :func:`~trivium.intervals.mean_interval` if the values are shares, and
    None if they are not."""
    sums, counts = clustered(values, clusters)
    if not len(sums) or (_constant(sums, counts) and _are_shares(values)):
        return mean_interval(sums.tolist(), counts.tolist())
    return ratio_bootstrap(sums, counts, seed, draws, level)


def ratio_bootstrap(sums: Sequence[float] | Vector, weights: Sequence[float] | Vector, seed: int = 0,
                    draws: int = 2000, level: float = 0.95) -> dict[str, Any]:
    """``sum(sums) / sum(weights)`` with a BCa bootstrap interval over the items (Efron 1987: percentiles, corrected for
    the estimate's bias and for how its error changes with it); of a single item, or of items that are all alike, the
    interval's ends are None."""
    sums, weights = np.asarray(sums, float), np.asarray(weights, float)
    n, value = len(sums), float(sums.sum() / max(weights.sum(), 1e-9))
    if n < 2 or _constant(sums, weights):
        return {"value": value if n else None, "low": None, "high": None, "n": n, "method": "none"}
    drawn = randomness.numpy(seed, "bootstrap").multinomial(n, np.full(n, 1 / n), draws)
    ratios = drawn @ sums / np.maximum(drawn @ weights, 1e-9)
    normal = NormalDist()
    below = float((ratios < value).mean() + (ratios <= value).mean()) / 2
    bias = normal.inv_cdf(min(max(below, 1 / (draws + 1)), draws / (draws + 1)))
    without = (sums.sum() - sums) / np.maximum(weights.sum() - weights, 1e-9)
    apart = without.mean() - without
    skew = float((apart**3).sum() / (6 * ((apart**2).sum() or 1.0)**1.5))
    tails = [bias + normal.inv_cdf(tail) for tail in ((1 - level) / 2, (1 + level) / 2)]
    low, high = np.quantile(ratios, [normal.cdf(bias + tail / (1 - skew * tail)) for tail in tails])
    plain = bool((weights == 1).all())
    return {"value": value, "low": float(low), "high": float(high), "n": n,
            "method": "BCa" if plain else "BCa (clusters)"}


def _constant(sums: Vector, weights: Vector) -> bool:
    """Whether no cluster differs from another."""
    ratios = sums / np.maximum(weights, 1e-9)
    return bool(np.ptp(ratios) <= 1e-12 * max(1.0, float(np.abs(ratios).max())))


def _are_shares(values: Sequence[float] | Vector) -> bool:
    return min(values) >= 0 and max(values) <= 1


def mean_with_interval(values: Sequence[float], seed: int = 0, clusters: Sequence[Hashable] | None = None,
                       ) -> dict[str, Any]:
    """The mean with Wilson's interval where all values are shares, else with a bootstrap one."""
    return rate(values, clusters) if len(values) and _are_shares(values) else bootstrap(values, clusters, seed)


def mean_difference(first: Sequence[float], second: Sequence[float], seed: int = 0,
                    clusters: Sequence[Hashable] | None = None) -> dict[str, Any]:
    """The mean of ``first - second``, item by item, with Wilson's interval where all values are shares (a difference
    then lies between -1 and 1), else with a bootstrap one."""
    differences = [a - b for a, b in zip(first, second, strict=True)]
    if differences and _are_shares(first) and _are_shares(second):
        return rate(differences, clusters, (-1.0, 1.0))
    return bootstrap(differences, clusters, seed) | {"n": len(differences)}


def rate(scores: Sequence[float], clusters: Sequence[Hashable] | None = None,
         within: tuple[float, float] = (0.0, 1.0)) -> dict[str, Any]:
    """The mean of scores ``within`` two bounds, over questions, with Wilson's interval over their clusters (see
    :func:`~trivium.intervals.mean_interval`). ``n`` counts the questions, ``clusters`` the clusters where they are
    fewer."""
    if clusters is None or len(set(clusters)) == len(clusters):
        return mean_interval(scores, within=within)
    sums, counts = clustered(scores, clusters)
    found = mean_interval(sums.tolist(), counts.tolist(), within)
    return found | {"n": len(scores), "clusters": len(sums)}


def paired_test(first: Sequence[float], second: Sequence[float], clusters: Sequence[Hashable] | None = None,
                seed: int = 0, draws: int = 10000) -> float:
    """The two-sided p-value of "both have the same mean", by flipping the signs of the clusters' differences (Fisher's
    randomisation test; the draw that was observed counts, so it is never 0)."""
    differences, _ = clustered(np.asarray(first, float) - np.asarray(second, float), clusters)
    observed = abs(differences.sum())
    rng = randomness.numpy(seed, "paired test")
    beyond = 0
    for start in range(0, draws, 1000):  # no more than a thousand draws in memory
        signs = rng.integers(0, 2, (min(1000, draws - start), len(differences))) * 2 - 1
        beyond += int((np.abs(signs @ differences) >= observed - 1e-9).sum())
    return (beyond + 1) / (draws + 1)


def mcnemar(first: Sequence[bool], second: Sequence[bool]) -> float:
    """The exact two-sided p-value of "both are right equally often" for two models asked the same questions (McNemar
    1947):
    only the questions count on which they differ."""
    only_first = sum(a and not b for a, b in zip(first, second, strict=True))
    only_second = sum(b and not a for a, b in zip(first, second, strict=True))
    n = only_first + only_second
    tail = sum(math.comb(n, k) for k in range(min(only_first, only_second) + 1))
    return min(1.0, 2 * tail / 2**n)


def logistic(x: Vector) -> Vector:
    """1 / (1 + e^-x)."""
    return 0.5 * (1 + np.tanh(0.5 * np.asarray(x, float)))


def fit_logistic(features: Vector, wins: Vector, weights: Vector, ridge: Vector, offset: Vector | float = 0.0,
                 steps: int = 50) -> Vector:
    """The coefficients ``[F]`` of a logistic regression of ``wins [N]`` (between 0 and 1) on ``features [N, F]``, to
    whose logits ``offset`` is added, with a quadratic penalty of ``ridge [F]`` / 2 on each, by Newton's method."""
    beta = np.zeros(features.shape[1])
    for _ in range(steps):
        chance = logistic(features @ beta + offset)
        gradient = features.T @ (weights * (wins - chance)) - ridge * beta
        curvature = (features * (weights * chance * (1 - chance))[:, None]).T @ features + np.diag(ridge + 1e-9)
        step = np.linalg.solve(curvature, gradient)
        step *= min(1.0, 4.0 / (np.abs(step).max() + 1e-12))  # all wins: the optimum is far, steps stay finite
        beta += step
        if np.abs(step).max() < 1e-8:
            break
    return beta


def difficulty(wins: Mapping[str, Sequence[float]], lengths: Mapping[str, Sequence[float]], steps: int = 20) -> Vector:
    """How much harder each prompt is for all models alike, ``[N]``, mean 0: the gamma_x of AlpacaEval's regression,
    with a standard normal prior. Fitted in turn with each model's strength and its liking for length."""
    names = list(wins)
    sizes = {name: _length_feature(lengths[name]) for name in names}
    ones = np.ones(len(sizes[names[0]]))
    gamma = np.zeros(len(ones))
    for _ in range(steps):
        offsets = []
        for name in names:
            features = np.stack([ones, sizes[name]], 1)
            beta = fit_logistic(features, np.asarray(wins[name], float), ones, np.full(2, 1e-3), gamma)
            offsets.append(beta[0] + beta[1] * sizes[name])
        for _ in range(5):
            chances = [logistic(offset + gamma) for offset in offsets]
            slope = sum(np.asarray(wins[name], float) - chance
                        for name, chance in zip(names, chances, strict=True)) - gamma
            gamma = gamma + slope / (1 + sum(chance * (1 - chance) for chance in chances))
        gamma = gamma - gamma.mean()
    return gamma


def _length_feature(differences: Sequence[float]) -> Vector:
    """tanh of the difference in length over its standard deviation, ``[N]``."""
    raw = np.asarray(differences, float)
    return np.tanh(raw / (raw.std() or 1.0))


def length_controlled(wins: Sequence[float], differences: Sequence[float], hardness: Vector | None = None,
                      seed: int = 0, draws: int = 500, ridge: float = 0.05,
                      clusters: Sequence[Hashable] | None = None) -> dict[str, Any]:
    """The win rate that a model would have if its answers were as long as the baseline's (Dubois et al. 2024, eq. 2).

    ``wins [N]`` between 0 and 1, ``differences [N]`` the model's length minus the baseline's, ``hardness [N]`` from
    :func:`difficulty`, ``clusters [N]`` such as the prompts. Fits logit P(win) = theta + phi tanh(difference / std) +
    psi hardness and averages the chance without the length term. The interval is Wilson's, of the effective number of
    answers that follows from the variance of ``draws`` fits to clusters drawn anew, but never of more than the plain
    rate has: where the fit is certain of what few prompts say, its draws hardly differ. ``n`` counts the clusters;
    ``phi`` is how much length is liked.
    """
    y = np.asarray(wins, float)
    if not len(y):
        return mean_interval([]) | {"phi": 0.0}
    columns = [np.ones(len(y)), _length_feature(differences)
               ] + ([] if hardness is None else [np.asarray(hardness, float)])
    features, penalty = np.stack(columns, 1), np.array([1e-3] + [ridge] * (len(columns) - 1))
    without = features * (np.arange(len(columns)) != 1)

    def fit(weights: Vector) -> tuple[float, float]:
        beta = fit_logistic(features, y, weights, penalty)
        return float(np.average(logistic(without @ beta), weights=weights)), float(beta[1])

    value, phi = fit(np.ones(len(y)))
    sums, counts = clustered(y, clusters)
    plain, n = mean_interval(sums.tolist(), counts.tolist()), len(sums)
    if _constant(sums, counts):
        low, high = plain["low"], plain["high"]
    else:
        of_row = np.arange(n) if clusters is None else numbered(clusters)
        drawn = randomness.numpy(seed, "length").multinomial(n, np.full(n, 1 / n), draws)[:, of_row]
        spread = float(np.var([fit(weights.astype(float))[0] for weights in drawn])) * n / (n - 1)
        known = value * (1 - value) / max(spread, 1e-12) * (Z / student_t(n - 1))**2
        effective = min(known, effective_number(sums.tolist(), counts.tolist()))
        low, high = wilson(value * effective, effective)
    return {"value": value, "low": min(value, low), "high": max(value, high), "n": n,
            "method": plain["method"] if _constant(sums, counts) else "Wilson (refitted draws)", "phi": phi}


def classification(truths: Sequence[str], guesses: Sequence[str | None]) -> dict[str, Any]:
    """Accuracy, precision, recall and F1 for each class, their macro means, and the confusion counts
    ``{truth: {guess: n}}``. A guess of None is wrong and counts as no class; a class that nobody guesses has precision
    0."""
    labels = sorted(set(truths))
    confusion: dict[str, dict[str, int]] = {label: {} for label in labels}
    for truth, guess in zip(truths, guesses, strict=True):
        named = guess if guess is not None else "(none)"
        confusion[truth][named] = confusion[truth].get(named, 0) + 1
    classes = {}
    for label in labels:
        hits = confusion[label].get(label, 0)
        precision = hits / max(1, sum(row.get(label, 0) for row in confusion.values()))
        recall = hits / sum(confusion[label].values())
        classes[label] = {
            "precision": precision, "recall": recall, "f1": 2 * precision * recall / ((precision + recall) or 1.0),
            "n": sum(confusion[label].values())
        }
    return {"accuracy": sum(t == g for t, g in zip(truths, guesses, strict=True)) / max(1, len(truths)),
            **{f"macro_{name}": float(np.mean([row[name] for row in classes.values()])) if classes else 0.0
               for name in ("precision", "recall", "f1")}, "classes": classes, "confusion": confusion}
