"""What settings are where a recipe leaves them open: by the kind of stage, and by the size of the model that it starts
from. docs/rlhf.md and docs/sft.md show the table with the source of every number."""

from __future__ import annotations

import math
from bisect import bisect_right
from dataclasses import dataclass, replace
from pathlib import Path

import safetensors

from trivium.errors import TriviumError
from trivium.files import read_json
from trivium.model.adapters.folder import CONFIG, base_of
from trivium.model.weights import shards
from trivium.training.settings import Optimization

SIZES = (10_000_000, 1_000_000_000, 20_000_000_000)
"""Parameters from which the next column of the table counts."""

BATCHES = (4_096, 16_384, 65_536, 131_072)
"""Tokens in a batch, by size."""

ADAPTER = 10.0
"""An adapter's learning rate, in those of all weights (TRL's examples; Schulman et al. 2025, 'LoRA Without Regret')."""

MATRIX = 10.0
"""Muon's learning rate, in AdamW's: steps of about one size for matrices some thousands wide (Liu et al. 2025,
'Muon is Scalable for LLM Training', eq. 4). Below :data:`SIZES` [0] parameters it is :data:`SMALL_MATRIX`."""

SMALL_MATRIX = 0.02

RATES: dict[str, tuple[float, float, float, float]] = {
    "sft": (3e-4, 2e-5, 2e-5, 2e-6),
    "reward": (3e-4, 2e-5, 1e-5, 5e-6),
    "dpo": (5e-5, 1e-6, 5e-7, 2e-7),
    "kto": (5e-5, 1e-6, 5e-7, 2e-7),
    "ppo": (1e-4, 3e-6, 1e-6, 1e-6),
    "grpo": (1e-4, 1e-6, 1e-6, 1e-6),
    "classify": (3e-4, 5e-5, 2e-5, 1e-5),
    "translate": (3e-4, 1e-4, 1e-4, 5e-5),
    "see": (3e-4, 2e-5, 2e-5, 2e-6),
    "projector": (3e-4, 1e-3, 1e-3, 1e-3),
    "": (3e-4, 3e-4, 3e-4, 3e-4),
}
"""Learning rates of AdamW for all weights, by the kind of stage; the last for models that begin with random weights."""

BETAS: dict[str, tuple[float, float, float, float]] = {"dpo": (0.3, 0.1, 0.1, 0.1), "kto": (0.5, 0.1, 0.1, 0.1)}

FAR_OFF = 10.0
"""A setting that is so many times the table's, or less than that part of it, is warned of."""


@dataclass(frozen=True)
class Usual:
    """A column of the table."""

    learning_rate: float
    matrix_learning_rate: float
    beta: float | None
    batch: int
    """Tokens in a batch."""
    small: bool
    """Whether the model is of the smallest size."""


def usual(kind: str, parameters: int, adapter: bool = False) -> Usual:
    """What suits a stage of that row of the table and a model of so many parameters."""
    column = bisect_right(SIZES, parameters)
    rate = RATES[kind][column] * (ADAPTER if adapter else 1.0)
    return Usual(rate, SMALL_MATRIX if column == 0 else MATRIX * rate, BETAS[kind][column] if kind in BETAS else None,
                 BATCHES[column], column == 0)


def parameters_of(folder: Path) -> int:
    """The parameters of a model's folder, or of the base of an adapter, read from the heads of its files. Of a file of
    another format, its bytes: near enough to find a column of the table."""
    if folder.is_file():
        return folder.stat().st_size
    if (folder / CONFIG).exists() and not (folder / "model.safetensors").exists():
        return parameters_of(base_of(folder))
    read_json(folder / "config.json")  # what is no model's folder is told by the file that is missing
    total = 0
    for path in sorted(set(shards(folder).values())):
        with safetensors.safe_open(path, framework="pt") as file:
            total += sum(math.prod(file.get_slice(name).get_shape()) for name in file.keys())
    return total


def settled(given: Optimization, known: Usual) -> Optimization:
    """The settings with the table's rates where none are given."""
    if given.learning_rate is not None and given.matrix_learning_rate is not None:
        return given
    rate = known.learning_rate if given.learning_rate is None else given.learning_rate
    matrices = known.matrix_learning_rate if given.matrix_learning_rate is None else given.matrix_learning_rate
    return replace(given, learning_rate=rate, matrix_learning_rate=matrices)


def warnings(kind: str, given: Optimization, beta: float | None, known: Usual, parameters: int) -> list[str]:
    """A line for each setting that is far from the table's. With Muon small models bear any rate outside of the blocks
    (the quickstart's is fifty times AdamW's), so there that of the matrices alone is looked at."""
    found = []
    checked = []
    if given.optimizer == "adamw" or (given.optimizer == "muon" and not known.small):
        checked.append(("optimization.learning_rate", given.learning_rate, known.learning_rate))
    if given.optimizer == "muon":
        checked.append(("optimization.matrix_learning_rate", given.matrix_learning_rate, known.matrix_learning_rate))
    if known.beta is not None:
        checked.append(("beta", beta, known.beta))
    for name, value, expected in checked:
        ratio = value / expected if value else 1.0
        if max(ratio, 1 / ratio) > FAR_OFF * 0.999:
            harm = "may wreck it" if (ratio > 1) == (name != "beta") else "may teach it nothing"
            found.append(f"WARNING: `{name}` is {value:g}; for {kind} of a model of {short(parameters)} parameters "
                         f"{expected:g} is usual, and ten times off {harm}")
    return found


def short(count: float) -> str:
    """A count in a few letters, such as 135M."""
    for unit, size in (("B", 1e9), ("M", 1e6), ("k", 1e3)):
        if count >= size:
            return f"{count / size:.3g}{unit}"
    return f"{count:.0f}"


def row_length(given: int | None, sizes: list[int], most: int) -> int:
    """Tokens in a row: what is given or, without, what the longest of the ``sizes`` needs, but ``most`` at most. Raises
    :class:`TriviumError` where there is nothing to lay out."""
    if given is not None:
        return given
    if not sizes:
        raise TriviumError("there is nothing to train on")
    return max(2, min(max(sizes), most))


def row_count(given: int | None, sizes: list[int], length: int, batch: int, epochs: float, updates: int) -> int:
    """Rows in a batch: what is given or, without, those that hold ``batch`` tokens, and fewer where little data would
    else make less than so many ``updates``."""
    if given is not None:
        return given
    return max(1, min(batch // length, int(epochs * sum(sizes) / length / updates)))
