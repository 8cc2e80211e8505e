"""Intervals: a rate without one is not reported."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any


def wilson(successes: int, n: int, z: float = 1.959963984540054) -> tuple[float, float]:
    """Wilson's score interval for a rate of ``successes`` out of ``n`` (Wilson 1927), 95 % by default.

    (p + z²/2n ± z √(p(1-p)/n + z²/4n²)) / (1 + z²/n) with p = successes/n. It stays inside [0, 1], is not empty at
    p = 0 or 1, and is (0, 1) when nothing was observed.
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


def mean_interval(sums: Sequence[float], weights: Sequence[float] | None = None, z: float = 1.959963984540054,
                  ) -> dict[str, Any]:
    """The ratio ``sum(sums) / sum(weights)`` over clusters (one prompt each; weights 1 unless given) with its 95 %
    interval: the ratio estimator's standard error over clusters (Cochran 1977, sec. 6.3), cut to [0, 1]; of plain yes
    and no, and where all clusters are wholly right or wholly wrong, Wilson's. The value is None where nothing was
    observed."""
    weights = [1.0] * len(sums) if weights is None else weights
    n, total = len(sums), math.fsum(weights)
    if n == 0 or total == 0:
        return {"value": None, "low": 0.0, "high": 1.0, "n": 0}
    value = math.fsum(sums) / total
    if total == n and all(s in (0.0, 1.0) for s in sums):
        low, high = wilson(round(math.fsum(sums)), n)
        return {"value": value, "low": low, "high": high, "n": n}
    if value in (0.0, 1.0):  # no cluster differs from another, which says little of those not seen
        return {"value": value, "low": wilson(round(value * n), n)[0], "high": wilson(round(value * n), n)[1], "n": n}
    spread = math.fsum((s - value * w) ** 2 for s, w in zip(sums, weights, strict=True))
    error = z * math.sqrt(spread * n / max(n - 1, 1)) / total
    return {"value": value, "low": max(0.0, value - error), "high": min(1.0, value + error), "n": n}
