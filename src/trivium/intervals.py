"""Intervals: a rate without one is not reported.

A figure with its interval is ``{"value", "low", "high", "n", "method"}``. The method is one of

- ``Wilson``: of plain yes and no;
- ``Wilson (clusters)``, ``Wilson (effective n)``: Wilson's of as many answers as would be as sure, where answers stand
  and fall together, or are shares themselves;
- ``Wilson (constant)``: no two clusters differ; Wilson's bound on the share of those unseen that do;
- ``BCa`` and ``BCa (clusters)``: the bias-corrected and accelerated bootstrap;
- ``none``: one number, or always the same, of an unknown range: there is no interval.

Where nothing was seen, the value is None, and there is no method.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

Z = 1.959963984540054
"""The normal quantile of a 95 % interval."""


def wilson(successes: float, n: float, z: float = Z) -> tuple[float, float]:
    """Wilson's score interval for a rate of ``successes`` out of ``n`` (Wilson 1927), 95 % by default.

    (p + z²/2n ± z √(p(1-p)/n + z²/4n²)) / (1 + z²/n) with p = successes/n. It stays inside [0, 1], is not empty at
    p = 0 or 1, and is (0, 1) when nothing was observed. Neither number needs to be whole.
    """
    if not 0 <= successes <= n:
        raise ValueError(f"{successes} successes out of {n}")
    if n == 0:
        return 0.0, 1.0
    p = successes / n
    centre = p + z * z / (2 * n)
    half = z * math.sqrt(p * (1 - p) / n + z * z / (4 * n * n))
    scale = 1 + z * z / n
    low = (centre - half) / scale if successes else 0.0
    high = (centre + half) / scale if successes < n else 1.0
    return low, high


def student_t(freedom: int, z: float = Z) -> float:
    """The quantile of Student's t that the normal quantile ``z`` is of the normal: exact for 1 and 2 degrees of
    freedom, else by the expansion in 1/freedom to the fourth term (Abramowitz and Stegun 26.7.5), right to 0.15 %."""
    share = math.erf(z / math.sqrt(2))  # of the distribution that lies between -z and z
    if freedom == 1:
        return math.tan(math.pi * share / 2)
    if freedom == 2:
        return share * math.sqrt(2 / (1 - share * share))
    terms = ((z**3 + z) / 4, (5 * z**5 + 16 * z**3 + 3 * z) / 96, (3 * z**7 + 19 * z**5 + 17 * z**3 - 15 * z) / 384,
             (79 * z**9 + 776 * z**7 + 1482 * z**5 - 1920 * z**3 - 945 * z) / 92160)
    return z + sum(term / freedom**(power + 1) for power, term in enumerate(terms))


def effective_number(sums: Sequence[float], weights: Sequence[float]) -> float:
    """How many independent answers of yes or no would be as sure of ``sum(sums) / sum(weights)`` as clusters are (Korn
    and Graubard 1998): p(1 - p) over the ratio estimator's variance (Cochran 1977, sec. 6.3), times (z / t)² for the
    variance is itself estimated. Where no cluster differs from another, as many as there are clusters."""
    n, total = len(sums), math.fsum(weights)
    p = math.fsum(sums) / total
    spread = math.fsum((s - p * w)**2 for s, w in zip(sums, weights, strict=True))
    if n < 2 or spread <= 1e-18 * total * total:
        return float(n)
    return p * (1 - p) * total * total * (n - 1) / (n * spread) * (Z / student_t(n - 1))**2


def mean_interval(sums: Sequence[float], weights: Sequence[float] | None = None,
                  within: tuple[float, float] = (0.0, 1.0)) -> dict[str, Any]:
    """The ratio ``sum(sums) / sum(weights)`` over clusters (one prompt each; weights 1 unless given) of what lies
    ``within`` two bounds, with its 95 % interval: Wilson's, of the effective number of answers unless all are plain yes
    and no. ``n`` counts the clusters. The value is None where nothing was observed.

    Raises :class:`ValueError` for what lies outside the bounds."""
    single = weights is None or all(weight == 1 for weight in weights)
    weights = [1.0] * len(sums) if weights is None else weights
    n, total, (least, most) = len(sums), math.fsum(weights), within
    if n == 0 or total == 0:
        return {"value": None, "low": least, "high": most, "n": 0}
    shares = [(s - least * w) / (most - least) for s, w in zip(sums, weights, strict=True)]
    if not all(-1e-9 <= share <= w + 1e-9 for share, w in zip(shares, weights, strict=True)):
        raise ValueError(f"a value lies outside {within}")
    p = min(1.0, max(0.0, math.fsum(shares) / total))
    if single and within == (0.0, 1.0) and all(s in (0.0, 1.0) for s in sums):
        low, high, method = *wilson(round(math.fsum(sums)), n), "Wilson"
    elif all(abs(share - p * w) <= 1e-12 * w for share, w in zip(shares, weights, strict=True)):
        others = wilson(0, n)[1]
        low, high, method = p - others * p, p + others * (1 - p), "Wilson (constant)"
    else:
        effective = effective_number(shares, weights)
        low, high = wilson(p * effective, effective)
        method = "Wilson (effective n)" if single else "Wilson (clusters)"
    span = most - least
    return {"value": math.fsum(sums) / total, "low": least + span * low, "high": least + span * high, "n": n,
            "method": method}
