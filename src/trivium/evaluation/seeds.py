"""Means over runs of several seeds whose intervals count the seeds and the prompts.

What is measured of prompt p in the run of seed s is taken as ``y[s, p] = mean + seed[s] + prompt[p] + rest[s, p]``, the
two-way random model without replication (Searle, Casella and McCulloch 1992, ch. 4). The variance of the mean over S
seeds and P prompts is then

    Var(seed) / S + Var(prompt) / P + Var(rest) / (S P),

which ``A + B - AB`` estimates without bias: A is the variance of the seeds' means over S, B that of the prompts' means
over P, AB that of what both leave over S P. It is the variance with two ways of clustering of Cameron, Gelbach and
Miller (2011); like them we take what is larger where the estimate falls below A or B. The degrees of freedom are
Satterthwaite's (1946): few where the seeds differ much, many where the prompts do. A is S - 1, so of two seeds that
differ the interval is wide, as it should be.

Where each seed has prompts of its own, A alone counts both. Of one seed the prompts alone are counted. Prompts that
stand and fall together, such as several on one fact, are one cluster, by the linear form of the ratio of their sums
(Cochran 1977, sec. 6.3). Shares, and differences of shares, have Wilson's interval of as many answers as would be as
sure; other numbers have Student's.
"""

from __future__ import annotations

import math
from collections.abc import Hashable, Mapping, Sequence
from typing import Any

import numpy as np

from trivium.intervals import Z, wilson

Scores = Mapping[Hashable, float]
"""What was measured of each prompt in one run."""

MOST_FREEDOM = 1e6
NODES, WEIGHTS = np.polynomial.legendre.leggauss(200)


def t_tail(t: float, freedom: float) -> float:
    """P(|T| > t) of Student's t, by Gauss's rule over the angle whose tangent is ``t / sqrt(freedom)``."""
    freedom = min(freedom, MOST_FREEDOM)
    start = math.atan(abs(t) / math.sqrt(freedom))
    end = min(math.pi / 2, start + 40 / math.sqrt(freedom))
    angles = (end - start) / 2 * NODES + (end + start) / 2
    area = float(WEIGHTS @ np.cos(angles)**(freedom - 1)) * (end - start) / 2
    scale = math.exp(math.lgamma((freedom + 1) / 2) - math.lgamma(freedom / 2)) / math.sqrt(math.pi)
    return min(1.0, 2 * scale * area)


def t_quantile(freedom: float, share: float = 0.95) -> float:
    """The t between whose negative and itself lies that ``share`` of Student's distribution."""
    low, high = 0.0, 1.0
    while t_tail(high, freedom) > 1 - share:
        low, high = high, 2 * high
    for _ in range(50):
        middle = (low + high) / 2
        low, high = (middle, high) if t_tail(middle, freedom) > 1 - share else (low, middle)
    return (low + high) / 2


def over_seeds(runs: Sequence[Scores], clusters: Mapping[Hashable, Hashable] | None = None,
               within: tuple[float, float] | None = None) -> dict[str, Any]:
    """``{"value", "low", "high", "p", "seeds", "n", "method"}``: the mean over the ``runs``, one a seed, and over their
    prompts.

    ``clusters`` says of prompts what they stand and fall with; ``within`` are the bounds of what was measured, as
    (0, 1) of shares. ``n`` counts the clusters of a run, ``p`` is the two-sided p-value of "the mean is 0". Low and
    high are None where there is no interval."""
    runs = [run for run in runs if run]
    if not runs:
        return {"value": None, "low": None, "high": None, "p": None, "seeds": 0, "n": 0, "method": "none"}
    crossed = all(run.keys() == runs[0].keys() for run in runs)
    means = np.array([sum(run.values()) / len(run) for run in runs])
    tables = [linear(run, float(means.mean() if crossed else mean), clusters or {})
              for run, mean in zip(runs, means)]
    n, value = min(map(len, tables)), float(means.mean())
    if crossed:
        variance, freedom = crossed_variance(np.stack(tables))
    else:
        inside = sum(float(table.var(ddof=1)) / len(table) if len(table) > 1 else 0.0 for table in tables)
        between = float(means.var(ddof=1)) / len(runs) if len(runs) > 1 else 0.0
        variance, freedom = max(between, inside / len(runs)**2), max(1.0, len(runs) - 1.0)
    method = ("seeds and prompts" if len(runs) > 1 else "prompts of one seed") if n > 1 or len(runs) > 1 else "none"
    found = {"value": value, "seeds": len(runs), "n": n, "method": method}
    return found | interval(value, variance, freedom, n, within) | {"p": p_value(value, variance, freedom, n)}


def linear(run: Scores, mean: float, clusters: Mapping[Hashable, Hashable]) -> np.ndarray:
    """A run's values by cluster, ``[C]``, in the order of the prompts' names: ``mean`` and how far the cluster's sum is
    from as many times the mean, scaled so that the mean of all is the run's own."""
    sums: dict[Hashable, list[float]] = {}
    for name in sorted(run, key=repr):
        sums.setdefault(clusters.get(name, ("alone", name)), []).append(run[name])
    return np.array([mean + len(sums) / len(run) * (math.fsum(values) - mean * len(values))
                     for values in sums.values()])


def crossed_variance(table: np.ndarray) -> tuple[float, float]:
    """The variance of the mean of ``table [S, P]`` and its degrees of freedom."""
    seeds, prompts = table.shape
    by_prompt = table.mean(0)
    b = float(by_prompt.var(ddof=1)) / prompts if prompts > 1 else 0.0
    if seeds == 1:
        return b, max(1.0, prompts - 1.0)
    by_seed = table.mean(1)
    a = float(by_seed.var(ddof=1)) / seeds
    if prompts == 1:
        return a, seeds - 1.0
    rest = table - by_seed[:, None] - by_prompt[None] + table.mean()
    ab = float((rest**2).sum()) / ((seeds - 1) * (prompts - 1)) / (seeds * prompts)
    total = a + b - ab
    if total <= max(a, b):
        return (a, seeds - 1.0) if a >= b else (b, prompts - 1.0)
    spread = a * a / (seeds - 1) + b * b / (prompts - 1) + ab * ab / ((seeds - 1) * (prompts - 1))
    return total, min(prompts + seeds - 2.0, max(1.0, total * total / spread))


def interval(value: float, variance: float, freedom: float, n: int,
             within: tuple[float, float] | None) -> dict[str, float | None]:
    """The 95 % interval of a mean of ``n`` clusters."""
    nothing: dict[str, float | None] = {"low": None, "high": None}
    if within is None:
        if variance <= 0:
            return nothing
        half = t_quantile(freedom) * math.sqrt(variance)
        return {"low": value - half, "high": value + half}
    least, span = within[0], within[1] - within[0]
    share = min(1.0, max(0.0, (value - least) / span))
    if variance <= 1e-18:  # no two differ: Wilson's bound on the share of those unseen that do
        others = wilson(0, n)[1]
        low, high = share - others * share, share + others * (1 - share)
    else:
        answers = max(share * (1 - share), 1e-12) / (variance / span**2) * (Z / t_quantile(freedom))**2
        low, high = wilson(share * answers, answers)
    return {"low": min(value, least + span * low), "high": max(value, least + span * high)}


def p_value(value: float, variance: float, freedom: float, n: int) -> float:
    """The two-sided p-value of "the mean is 0"; of clusters that are all alike that of their signs alone."""
    if abs(value) < 1e-12:
        return 1.0
    return t_tail(value / math.sqrt(variance), freedom) if variance > 1e-18 else min(1.0, 2.0**(1 - n))


def of_figures(figures: Sequence[Any], within: tuple[float, float] | None = None) -> dict[str, Any]:
    """The same of one figure a seed, a number or one with an interval of its own: Student's t over the seeds. The
    variances that the figures' own intervals stand for are added: whether the seeds were measured on the same rows is
    not known, so the interval is rather too wide. Of one seed it is the figure's own. ``within`` is as for
    :func:`over_seeds`."""
    values = [float(one["value"] if isinstance(one, dict) else one) for one in figures]
    found: dict[str, Any] = {"value": math.fsum(values) / max(1, len(values)), "low": None, "high": None, "p": None,
                             "seeds": len(values), "method": "none"}
    if len(values) == 1:
        one = figures[0]
        own = {"low": one["low"], "high": one["high"], "method": "rows of one seed"} if isinstance(one, dict) else {}
        return found | own
    if len(values) < 2:
        return found | {"value": None}
    known = [((one["high"] - one["low"]) / (2 * Z))**2 if isinstance(one, dict) and one["low"] is not None else 0.0
             for one in figures]
    between = float(np.var(values, ddof=1)) / len(values)
    variance = between + math.fsum(known) / len(known)
    freedom = (len(values) - 1) * (variance / between)**2 if between > 0 else MOST_FREEDOM
    found["method"] = "seeds and rows" if any(known) else "seeds"
    return found | interval(found["value"], variance, freedom, len(values), within) | {
        "p": p_value(found["value"], variance, freedom, len(values))}


def holm(p_values: Sequence[float]) -> list[float]:
    """P-values that hold together, each in its place: Holm's step-down correction (1979), which keeps the chance of any
    false finding below the level whatever the tests have to do with one another."""
    order = sorted(range(len(p_values)), key=lambda place: p_values[place])
    adjusted, most = [0.0] * len(p_values), 0.0
    for rank, place in enumerate(order):
        most = max(most, min(1.0, (len(p_values) - rank) * p_values[place]))
        adjusted[place] = most
    return adjusted
