"""What both sides of ``gpu_rlhf.py`` are given: the decoders' shapes, the rows, and what is counted."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from gpu_train import wait

from trivium import randomness
from trivium.training.batch import Tree


@dataclass(frozen=True)
class Shape:
    """A decoder with grouped heads, biases on queries, keys and values, and one matrix for embedding and output."""

    layers: int
    width: int
    inner: int
    heads: int
    kv_heads: int
    head_dim: int
    vocabulary: int

    @property
    def matrices(self) -> int:
        """Parameters of the blocks that a token is multiplied by."""
        heads = 2 * (self.heads + self.kv_heads) * self.head_dim
        return self.layers * self.width * (heads + 3 * self.inner)


SHAPES = {
    "0.5B": Shape(24, 896, 4864, 14, 2, 64, 32000), "1.5B": Shape(28, 1536, 8960, 12, 2, 128, 32000),
    "tiny": Shape(2, 64, 128, 4, 2, 16, 256)
}


@dataclass(frozen=True)
class Plan:
    """How much is computed. Ranges hold both their ends."""

    documents: tuple[int, int] = (60, 600)
    prompts: tuple[int, int] = (60, 200)
    responses: tuple[int, int] = (40, 300)
    batch: int = 16384
    """Places in the packed rows of an update."""
    warm: int = 3
    steps: int = 8
    prompt: int = 80
    new: int = 128
    episodes: int = 64
    """PPO's prompts in an iteration, each with one response."""
    groups: int = 16
    """GRPO's."""
    samples: int = 8
    """GRPO's responses to each."""
    iterations: int = 2
    """Those that are timed, after one that warms up."""
    positions: int = 2048


PLANS = {
    "": Plan(),
    "tiny": Plan((8, 40), (6, 12), (4, 20), 256, 1, 2, 8, 12, 4, 2, 3, 1, 128),
}

EPOCHS = {"ppo": 4, "grpo": 1}
MINIBATCHES = 2
LEARNING_RATE = 1e-6
BETA, CLIP, KL, VALUE = 0.1, 0.2, 0.05, 0.1
"""DPO's beta, the bound of ratios and values, the weight of the KL penalty and that of the value loss."""


def plan_of(size: str) -> Plan:
    """How much is computed with a decoder of that size."""
    return PLANS["tiny" if size == "tiny" else ""]


def documents(plan: Plan, vocabulary: int) -> list[Tree]:
    """A third of each document is its prompt; loss is on the rest."""
    rng, found, total = randomness.numpy(0, "documents"), list[Tree](), 0
    while total < plan.batch * (plan.warm + plan.steps):
        size = int(rng.integers(plan.documents[0], plan.documents[1] + 1))
        tokens = rng.integers(3, vocabulary, size)
        found.append(Tree(tokens[:size // 3], (tokens[size // 3:],)))
        total += size
    return found


def pairs(plan: Plan, vocabulary: int) -> list[Tree]:
    """Prompts with a chosen and a rejected response."""
    rng, found, total = randomness.numpy(0, "pairs"), list[Tree](), 0
    while total < plan.batch * (plan.warm + plan.steps):
        sizes = [int(rng.integers(low, high + 1)) for low, high in (plan.prompts, plan.responses, plan.responses)]
        prompt, chosen, rejected = (rng.integers(3, vocabulary, size) for size in sizes)
        found.append(Tree(prompt, (chosen, rejected)))
        total += sum(sizes)
    return found


def questions(plan: Plan, vocabulary: int, count: int, iteration: int) -> list[list[int]]:
    """An iteration's prompts, all of one length."""
    rng = randomness.numpy(0, "prompts", iteration)
    return [list(map(int, row)) for row in rng.integers(3, vocabulary, (count, plan.prompt))]


def scores(count: int, samples: int, iteration: int) -> np.ndarray:
    """The responses' scores ``[count, samples]``, drawn: no reward model is measured."""
    return randomness.numpy(0, "scores", iteration).normal(size=(count, samples))


def operations(shape: Shape, trees: Sequence[Tree], passes: float) -> float:
    """Floating-point operations for so many passes of ``trees``: a forward pass counts 1, its backward pass 2. Prompts
    count once and the output matrix for responses alone, whatever a side does; padding never, and of attention's square
    the half below the diagonal."""
    tokens = sum(map(len, trees))
    said = sum(len(response) for tree in trees for response in tree.responses)
    squares = sum(len(response) * (len(response) + 2 * len(tree.prompt)) for tree in trees for response in
                  tree.responses) + sum(len(tree.prompt)**2 for tree in trees)
    products = shape.matrices * tokens + shape.width * shape.vocabulary * said
    return passes * (2.0 * products + 2.0 * shape.layers * shape.heads * shape.head_dim * squares)


def timed(step: Callable[[int], Any], plan: Plan, device: torch.device) -> tuple[float, Any]:
    """The seconds of the timed updates together, and what the last one returns."""
    found: Any = None
    for number in range(plan.warm):
        found = step(number)
    wait(device)
    begun = time.perf_counter()
    for number in range(plan.warm, plan.warm + plan.steps):
        found = step(number)
    wait(device)
    return time.perf_counter() - begun, found


class Parts:
    """The seconds of an iteration's parts."""

    def __init__(self, device: torch.device) -> None:
        self.device, self.seen = device, dict[str, list[float]]()
        self.restart()

    def restart(self) -> None:
        """An iteration begins."""
        wait(self.device)
        self.at = time.perf_counter()

    def end(self, name: str) -> None:
        """A part is done."""
        wait(self.device)
        now = time.perf_counter()
        self.seen.setdefault(name, []).append(now - self.at)
        self.at = now

    def medians(self) -> dict[str, float]:
        """The median of each part over all iterations but the first, and their sum."""
        parts = {f"{name}_seconds": statistics.median(values[1:]) for name, values in self.seen.items()}
        return parts | {"iteration_seconds": sum(parts.values())}
