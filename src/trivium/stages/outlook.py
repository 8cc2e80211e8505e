"""What a stage says of itself before it runs: its cost, what it will leave, and how it is run small.

Nothing here needs PyTorch, so that the stages of data are read at once."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from trivium.errors import counted
from trivium.model.adapter_settings import AdapterSettings
from trivium.model.config import ModelConfig
from trivium.stage import Stage
from trivium.training.settings import NumberFormat, Optimization, Parallel

if TYPE_CHECKING:
    from trivium.training.batch import Batch, Tree

SAMPLE_BYTES = 150_000
"""Raw text that is sampled."""


@dataclass(frozen=True)
class Cost:
    """The time that a stage is predicted to take."""

    seconds: float
    basis: str
    """What the seconds were reckoned from."""

    @classmethod
    def of_updates(cls, seconds: float, steps: int, each: float, more: str = "") -> Cost:
        """The cost of a training of ``steps`` updates, each of which takes ``each`` seconds."""
        return cls(seconds, f"{counted(steps, 'update')} of {each * 1000:.0f} ms{more}")


@dataclass(frozen=True)
class Rankings:
    """The rankings that a stage will give."""

    count: float = 1000
    """Prompts."""
    heldout: float = 0.2
    """Share of the prompts that is not learned from."""
    responses: float = 2
    """Different responses to a prompt, in the mean."""
    prompts: str | None = None
    """The stage of the prompts, where the truth about them is known."""


@dataclass(frozen=True)
class Outlook:
    """What a stage will leave, as far as other stages ask."""

    like: str | None = None
    """The stage or the folder whose model has the same shape and tokenizer: the one that this stage starts from."""
    config: ModelConfig | None = None
    """The shape of the language model, where it is not that of ``like``."""
    adapter: AdapterSettings | None = None
    """The adapter that the model is, on ``like``."""
    vocab_size: int | None = None
    """Entries of the tokenizer."""
    validation: float = 0.0
    """Share of the text that is kept for validation."""
    rankings: Rankings | None = None
    evaluation_prompts: int | None = None
    """Prompts of the evaluation, where the truth about them is known."""
    conversations: Callable[[], list[Tree]] | None = None
    """Some of the conversations that are learned from: a prompt with one response each."""


@dataclass(frozen=True)
class Small:
    """A stage as it is run for the sample of the data."""

    stage: Stage
    factor: float | None = None
    """How many times more data there is in the whole; None for a stage that is run on all of it."""


@dataclass(frozen=True)
class Step:
    """What one process holds and goes through in an update."""

    optimization: Optimization
    parallel: Parallel
    precision: NumberFormat
    models: Callable[[], tuple[Any, list[Any]]]
    """Makes the model that is trained, and those that are held beside it."""
    objective: Any
    batches: list[Batch]
    """The microbatches; of more than two alike, two."""
