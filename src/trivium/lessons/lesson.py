"""What the lessons share: examples, batches of them, the loss of a classifier, and the training.

All of it plugs into the loop that trains language models (:func:`trivium.training.loop.train`): a lesson brings a
network, an objective that returns sums, and batches that are a pure function of the step.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from trivium import randomness
from trivium.files import read_rows
from trivium.stage import Context
from trivium.training.loop import Evaluation, Outcome, train
from trivium.training.objective import Objective, Total
from trivium.training.optimizers import Optimization


@dataclass
class Examples:
    """Examples: a row of numbers each, and what should come out."""

    inputs: Tensor
    """``[N, ...]``"""
    targets: Tensor
    """``[N]`` the right class (int64), or ``[N]`` the right number (float32)."""
    unit: ClassVar[str] = "examples"
    counts: dict[str, float] = field(default_factory=dict)
    """The number of examples."""

    def __post_init__(self) -> None:
        self.counts = self.counts or {"examples": float(len(self.targets))}

    @property
    def size(self) -> int:
        """Examples."""
        return len(self.targets)

    @property
    def real(self) -> int:
        """Examples: there is no padding."""
        return len(self.targets)

    def to(self, device: torch.device) -> Examples:
        """The same table on another device."""
        return Examples(self.inputs.to(device), self.targets.to(device), counts=self.counts)

    def rows(self, chosen: Any) -> Examples:
        """Some of the rows."""
        return Examples(self.inputs[chosen], self.targets[chosen])


class Epochs:
    """Batches of ``size`` examples, a pure function of the step: each epoch goes through all examples once, in an order
    of its own. ``change`` may alter a batch, given the step as well (augmentation)."""

    def __init__(self, examples: Examples, size: int, seed: int,
                 change: Callable[[Examples, int], Examples] = lambda batch, step: batch) -> None:
        self.examples, self.seed, self.change = examples, seed, change
        self.batch = min(size, len(examples.targets))
        self.steps_per_epoch = math.ceil(len(examples.targets) / self.batch)

    def __call__(self, step: int, part: int = 0, parts: int = 1, rows: int | None = None) -> list[Examples]:
        """The slice ``part`` of ``parts`` of the batch at a step."""
        epoch, within = divmod(step, self.steps_per_epoch)
        order = torch.from_numpy(randomness.numpy(self.seed, "order", epoch).permutation(len(self.examples.targets)))
        chosen = order[within * self.batch:(within + 1) * self.batch][part::parts]
        return [self.change(self.examples.rows(chosen), step)]


class Classification(Objective):
    """Softmax and cross-entropy: the mean over examples of ``-log p(right class)``, in nats, and how often the
    likeliest class is the right one."""

    weights = {"loss": 1.0}

    def __call__(self, model: Any, batch: Examples) -> dict[str, Total]:
        """Sums over the examples."""
        logits = model(batch.inputs)
        loss = F.cross_entropy(logits, batch.targets, reduction="sum")
        return {"loss": Total(loss, "examples"),
                "accuracy": Total((logits.argmax(-1) == batch.targets).float().sum(), "examples")}


def learn(model: nn.Module, objective: Any, batches: Any, steps: int, settings: Optimization, context: Context,
          name: str, heldout: Sequence[Any] = (), evaluate_every: int = 0) -> Outcome:
    """Train ``model`` with the one loop, under ``name``: its curve goes to ``NAME/log.jsonl`` of the lesson's folder,
    its checkpoints to a folder of their own, so that a killed lesson goes on where it was."""
    context.progress.say(f"{name}: {sum(p.numel() for p in model.parameters()):,} parameters, {steps} steps")
    (context.folder / name).mkdir(parents=True, exist_ok=True)
    return train(model, objective, batches, steps, settings, scratch=context.scratch / name,
                 log=context.folder / name / "log.jsonl", fingerprint=str(
                     randomness.derive(context.seed, name, repr(settings), steps)), precision="float32",
                 evaluation=Evaluation(evaluate_every, (lambda part, parts: heldout) if heldout else None),
                 progress=lambda done, total, text: context.progress.update(done, total, f"{name}  {text}"))


def curve(context: Context, name: str, key: str) -> tuple[list[int], list[float]]:
    """A logged quantity of a training: steps done, and values."""
    points = [(row["step"] + 1, row[key]) for _, row in read_rows(context.folder / name / "log.jsonl")
              if isinstance(row.get(key), (int, float))]
    return [x for x, _ in points], [y for _, y in points]


def initialise(model: nn.Module, seed: int) -> nn.Module:
    """Random weights of deviation ``sqrt(2 / inputs)`` (He et al. 2015), zero biases, that depend on the seed alone."""
    generator = torch.Generator().manual_seed(seed % 2**63)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.ndim > 1:
                parameter.normal_(0.0, math.sqrt(2 / parameter.shape[1]), generator=generator)
            else:
                parameter.zero_()
    return model


def split(count: int, share: float, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Places of the training and of the held-out examples, by a permutation that the seed decides."""
    order = randomness.numpy(seed, "heldout").permutation(count)
    cut = round(count * (1 - share))
    return order[:cut], order[cut:]


def save_weights(model: nn.Module, path: Path) -> None:
    """Write a network's weights as safetensors."""
    from safetensors.torch import save_file

    from trivium.files import written_aside
    with written_aside(path) as aside:
        save_file({name: value.contiguous() for name, value in model.state_dict().items()}, str(aside))
