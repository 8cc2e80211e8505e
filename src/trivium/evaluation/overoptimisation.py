"""How a true score rises and falls with what is optimised (Gao, Schulman and Hilton 2022).

With d the root of the KL divergence from the start, in nats, the gold score gained is

- ``d (alpha - beta d)`` for best-of-n;
- ``d (alpha - beta log d)`` for reinforcement learning.

Both are linear in alpha and beta, so that the fit is a least-squares one with a single answer.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from trivium.errors import TriviumError

Form = Literal["best-of-n", "reinforcement"]


@dataclass(frozen=True)
class Law:
    """A fitted law."""

    form: Form
    alpha: float
    beta: float
    error: float
    """The root mean square of what the law leaves, in the score's units."""

    def gained(self, kl: float) -> float:
        """The score that is gained at a ``kl`` of so many nats; 0 at 0."""
        d = math.sqrt(kl)
        if d == 0:
            return 0.0
        return d * (self.alpha - self.beta * (d if self.form == "best-of-n" else math.log(d)))

    @property
    def best_kl(self) -> float | None:
        """The KL, in nats, at which most is gained; None where the law has no such point."""
        if self.beta <= 0:
            return None
        if self.form == "best-of-n":
            return (self.alpha / (2 * self.beta))**2 if self.alpha > 0 else None
        exponent = 2 * (self.alpha / self.beta - 1)
        return math.exp(exponent) if abs(exponent) < 700 else None


def fit(kls: Sequence[float], gained: Sequence[float], form: Form) -> Law:
    """The law of that form which is nearest to what was ``gained`` at each of ``kls`` (nats), by least squares. Points
    at a KL of 0, where every law is 0, are left out.

    Raises :class:`TriviumError` for fewer than two KLs above 0, and for points that are not finite."""
    points = [(kl, gain) for kl, gain in zip(kls, gained, strict=True) if kl > 0]
    if not all(math.isfinite(kl) and math.isfinite(gain) for kl, gain in points):
        raise TriviumError("over-optimisation: a KL or a score is not finite")
    if len({kl for kl, _ in points}) < 2:
        raise TriviumError(f"over-optimisation: the law has two numbers, and there are {len(points)} points above a KL "
                           "of 0; measure at two KLs or more")
    d = np.sqrt([kl for kl, _ in points])
    y = np.array([gain for _, gain in points])
    columns = np.stack([d, -d * (d if form == "best-of-n" else np.log(d))], 1)
    (alpha, beta), *_ = np.linalg.lstsq(columns, y, rcond=None)
    return Law(form, float(alpha), float(beta), float(np.sqrt(np.mean((columns @ [alpha, beta] - y)**2))))
