"""How much of each source: weights or a temperature, good sources repeated, others thinned.

What is drawn follows from a hash of the seed, the document's id and its text, never from a generator's state: the same
corpus comes out of any number of workers, and a change of one source's share leaves the choice within the others alone.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import ClassVar

from trivium.errors import TriviumError, nearest
from trivium.randomness import derive


@dataclass(frozen=True)
class MixtureSettings:
    """How much of each source the corpus holds."""

    __pydantic_config__: ClassVar[dict[str, object]] = {"extra": "forbid", "use_attribute_docstrings": True}

    weights: dict[str, float] = field(default_factory=dict)
    """How many times its natural share a source gets: {books: 3, forum: 0.5} has books three times as often as sources
    that are not named, and {forum: 0} leaves it out."""
    temperature: float = 1.0
    """Shares are sizes to the power of 1 / temperature before they are weighed: above 1 small sources count for
    more."""
    size: int | None = None
    """Bytes of the corpus; null keeps its size, so that what one source gains another loses."""
    max_epochs: float = 4.0
    """Most repetitions of one source; what it would have needed beyond them goes to the others (Muennighoff et al.
    2023: up to four are nearly as good as new text)."""

    def __post_init__(self) -> None:
        for source, weight in self.weights.items():
            if not (weight >= 0 and math.isfinite(weight)):
                raise TriviumError(f"corpus: mixture: the weight of {source!r} is {weight}; it must be 0 or more")
        if not (self.temperature > 0 and self.max_epochs > 0 and (self.size is None or self.size > 0)):
            raise TriviumError(
                f"corpus: mixture: temperature is {self.temperature}, "
                f"max_epochs {self.max_epochs} and size {self.size}; all must be above 0")

    @property
    def enabled(self) -> bool:
        """Whether anything is asked for."""
        return bool(self.weights) or self.temperature != 1.0 or self.size is not None


def epochs(sizes: dict[str, int], settings: MixtureSettings) -> dict[str, float]:
    """How often each source is to be read, given its bytes. Raises :class:`TriviumError` for the weight of a source
    that there is not."""
    for source in settings.weights:
        if source not in sizes:
            raise TriviumError(
                f"corpus: mixture: no document that was kept is of the source {source!r}{nearest(source, sizes)}")
    wanted = {
        source: settings.weights.get(source, 1.0) * size**(1 / settings.temperature)
        for source, size in sorted(sizes.items()) if size
    }
    wanted = {source: share for source, share in wanted.items() if share > 0}
    if not wanted:
        raise TriviumError("corpus: mixture: all sources have the weight 0; leave one of them in")
    left = float(settings.size or sum(sizes.values()))
    found = dict.fromkeys(sizes, 0.0)
    while wanted:
        total = sum(wanted.values())
        shares = {source: left * share / total / sizes[source] for source, share in wanted.items()}
        full = [source for source, share in shares.items() if share >= settings.max_epochs]
        if not full:
            return found | shares
        for source in full:
            found[source] = settings.max_epochs
            left -= settings.max_epochs * sizes[source]
            del wanted[source]
    return found


def copies(identity: str, text: str, share: float, seed: int) -> int:
    """How often one document is written: the whole epochs, and one more where its hash falls into the rest."""
    whole = math.floor(share)
    return whole + (derive(seed, "mixture", identity, text) / 2**64 < share - whole)
