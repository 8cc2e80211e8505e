"""Exercises of several kinds, each once, as a pure function of a seed."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence

import numpy as np

from trivium import randomness
from trivium.data.exercises import numbers
from trivium.data.exercises.instructed import instructions
from trivium.errors import TriviumError
from trivium.files import Row

KINDS: dict[str, Callable[[np.random.Generator, str, int], Row]] = {
    "instructions": instructions, "sums": numbers.sums, "letters": numbers.letters, "words": numbers.words,
    "items": numbers.items}
"""What makes a row of each kind, of a source of randomness, a language and a difficulty from 1 to 3."""
TRIES = 30
"""Drawings for each exercise that is wanted, before too few different ones are said to exist."""


def make(count: int, kinds: Mapping[str, float], languages: Sequence[str], difficulty: int, seed: int,
         refused: Callable[[str], bool] = lambda text: False) -> Iterator[Row]:
    """``count`` different rows ``{"prompt", "task", "language", "check", "key", ...}``, of kinds in proportion to their
    weights; rows with one ``key`` ask the same in other words. ``refused`` says of a prompt that it must not be taken.
    Raises :class:`TriviumError` where there are not so many."""
    seen = set[str]()
    shares = np.array([kinds[name] for name in kinds]) / sum(kinds.values())
    for number in range(TRIES * count):
        rng = randomness.numpy(seed, "exercise", number)
        task, language = list(kinds)[int(rng.choice(len(shares), p=shares))], numbers.pick(rng, languages)
        row = KINDS[task](rng, language, difficulty)
        if row["prompt"] in seen or refused(row["prompt"]):
            continue
        seen.add(row["prompt"])
        yield {"prompt": row.pop("prompt"), "task": task, "language": language, **row}
        if len(seen) == count:
            return
    raise TriviumError(f"only {len(seen):,} different exercises of {', '.join(kinds)} were found at difficulty "
                       f"{difficulty}, and count is {count:,}; lower `count`, or add kinds, languages or difficulty")
