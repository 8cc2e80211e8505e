"""What the training loop is given: batches, and an objective that returns sums."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Any, ClassVar, NamedTuple, Protocol

import torch
from torch import Tensor


class Total(NamedTuple):
    """A sum over a batch, and the name of the count (:attr:`Batch.counts`) that makes it a mean."""

    value: Tensor
    per: str


class Microbatch(Protocol):
    """What a model learns from at once: packed rows of tokens (:class:`~trivium.training.batch.Batch`), or anything
    else that its objective understands."""

    counts: dict[str, float]
    """What the objective's sums are divided by, once they are added over all microbatches and processes."""
    unit: ClassVar[str]
    """What ``real`` counts."""

    @property
    def size(self) -> int:
        """Places, padding included: the work there is."""

    @property
    def real(self) -> int:
        """Places that are not padding."""

    def to(self, device: torch.device) -> Any:
        """The same on another device."""


class Objective(ABC):
    """A loss. ``weights`` names the totals whose weighted means are minimised, where a batch has them; all others are
    only reported."""

    weights: dict[str, float]

    def before(self, trainer: Any, batches: Any) -> None:  # noqa: B027 (most objectives have nothing to do here)
        """Look at the whole batch before an update, and put into every microbatch's ``extra`` what is to be known of
        it. Most objectives need nothing."""

    @abstractmethod
    def __call__(self, model: Any, batch: Any) -> dict[str, Total]:
        """Sums over one microbatch. They are divided once, by counts over all microbatches and processes: so gradient
        accumulation and data parallelism cannot change the loss."""


class Batches(Protocol):
    """The microbatches of the global batch at a step: a pure function of the step."""

    def __call__(self, step: int, part: int = 0, parts: int = 1, rows: int | None = None) -> Sequence[Microbatch]:
        """The slice ``part`` of ``parts`` of the global batch, in microbatches of at most ``rows`` rows; as many for
        every slice."""
