"""Figures that say how sure they are: bootstrap and permutation over prompts, and win rates freed of length."""

from __future__ import annotations

import math
from collections.abc import Hashable, Mapping, Sequence
from typing import Any

import numpy as np

from trivium import randomness
from trivium.intervals import mean_interval

Vector = np.ndarray


def clustered(values: Sequence[float], clusters: Sequence[Hashable] | None = None) -> tuple[Vector, Vector]:
    """Sums and counts of ``values [N]`` by cluster, both ``[C]``, in the order in which the clusters first occur.
    Without ``clusters`` each value is its own."""
    if clusters is None:
        return np.asarray(values, float), np.ones(len(values))
    if len(clusters) != len(values):
        raise ValueError(f"{len(values)} values, but {len(clusters)} clusters")
    number: dict[Hashable, int] = {}
    index = np.array([number.setdefault(cluster, len(number)) for cluster in clusters], np.int64)
    return np.bincount(index, np.asarray(values, float), len(number)), np.bincount(index,
                                                                                   minlength=len(number)).astype(float)


def bootstrap(values: Sequence[float], clusters: Sequence[Hashable] | None = None, seed: int = 0, draws: int = 2000,
              level: float = 0.95) -> dict[str, Any]:
    """The mean with a percentile bootstrap interval over clusters, such as all samples of one prompt (Efron and
    Tibshirani 1993, ch. 13; Miller 2024): ``{"value", "low", "high", "n"}``, n the number of clusters. None where there
    is nothing."""
    sums, counts = clustered(values, clusters)
    if not len(sums):
        return {"value": None, "low": 0.0, "high": 1.0, "n": 0}
    drawn = randomness.numpy(seed, "bootstrap").multinomial(len(sums), np.full(len(sums), 1 / len(sums)), draws)
    means = drawn @ sums / (drawn @ counts)
    low, high = np.quantile(means, [(1 - level) / 2, (1 + level) / 2])
    return {"value": float(sums.sum() / counts.sum()), "low": float(low), "high": float(high), "n": len(sums)}


def ratio_bootstrap(sums: Sequence[float], weights: Sequence[float], seed: int = 0,
                    draws: int = 1000) -> dict[str, Any]:
    """``sum(sums) / sum(weights)`` with a percentile bootstrap interval over the items."""
    drawn = randomness.numpy(seed, "ratio").multinomial(len(sums), np.full(len(sums), 1 / len(sums)), draws)
    ratios = drawn @ np.asarray(sums, float) / np.maximum(drawn @ np.asarray(weights, float), 1e-9)
    low, high = np.quantile(ratios, [0.025, 0.975])
    return {
        "value": math.fsum(sums) / max(1.0, math.fsum(weights)), "low": float(low), "high": float(high), "n": len(sums)
    }


def mean_with_interval(values: Sequence[float], seed: int = 0) -> dict[str, Any]:
    """The mean with an analytic interval where all values are shares, else with a bootstrap one."""
    return mean_interval(values) if max(values) <= 1 and min(values) >= 0 else bootstrap(values, None, seed)


def rate(scores: Sequence[float], clusters: Sequence[Hashable] | None = None) -> dict[str, Any]:
    """A rate over questions, with an analytic interval: Wilson's where each stands alone, else the ratio estimator's
    over clusters."""
    if clusters is None or len(set(clusters)) == len(clusters):
        return mean_interval(scores)
    sums, counts = clustered(scores, clusters)
    return mean_interval(sums.tolist(), counts.tolist()) | {"n": len(scores)}


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
                      seed: int = 0, draws: int = 500, ridge: float = 0.05) -> dict[str, Any]:
    """The win rate that a model would have if its answers were as long as the baseline's (Dubois et al. 2024, eq. 2).

    ``wins [N]`` between 0 and 1, ``differences [N]`` the model's length minus the baseline's, ``hardness [N]`` from
    :func:`difficulty`. Fits logit P(win) = theta + phi tanh(difference / std) + psi hardness and averages the chance
    without the length term. The interval is a bootstrap over prompts, each draw fitted anew. ``phi`` is how much length
    is liked.
    """
    y = np.asarray(wins, float)
    if not len(y):
        return {"value": None, "low": 0.0, "high": 1.0, "n": 0, "phi": 0.0}
    columns = [np.ones(len(y)), _length_feature(differences)
               ] + ([] if hardness is None else [np.asarray(hardness, float)])
    features, penalty = np.stack(columns, 1), np.array([1e-3] + [ridge] * (len(columns) - 1))
    without = features * (np.arange(len(columns)) != 1)

    def fit(weights: Vector) -> tuple[float, float]:
        beta = fit_logistic(features, y, weights, penalty)
        return float(np.average(logistic(without @ beta), weights=weights)), float(beta[1])

    value, phi = fit(np.ones(len(y)))
    drawn = randomness.numpy(seed, "length").multinomial(len(y), np.full(len(y), 1 / len(y)), draws)
    low, high = np.quantile([fit(weights.astype(float))[0] for weights in drawn], [0.025, 0.975])
    return {"value": value, "low": min(value, float(low)), "high": max(value, float(high)), "n": len(y), "phi": phi}


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
