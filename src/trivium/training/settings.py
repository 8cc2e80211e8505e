"""How training is done, as a recipe says it. Nothing here needs torch, so that recipes are read at once."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Any, ClassVar, Literal

from trivium.errors import TriviumError, nearest
from trivium.extensions import Code, file_of, names, resolve

BUILT_IN = ("muon", "adamw", "sgd")
"""The optimizers that are here."""

NumberFormat = Literal["float32", "bf16", "bf16-weights"]
"""In what products are made; see :mod:`trivium.training.precision`."""

Precision = Literal["auto", "float32", "bf16", "bf16-weights"]
"""A number format, or ``auto``: the one that suits the machine."""


@dataclass(frozen=True)
class Optimization:
    """How weights follow gradients."""

    __pydantic_config__: ClassVar[dict[str, object]] = {"extra": "forbid", "use_attribute_docstrings": True}

    optimizer: Code = "adamw"
    """muon: Muon for the blocks' matrices and AdamW for the rest; adamw: AdamW for all; sgd: plain gradient descent;
    `FILE.py:NAME`, or what an installed package offers: an optimizer of your own for all weights."""
    learning_rate: float | None = None
    """The highest learning rate; with muon that of the weights outside the blocks. null: by the kind of stage and the
    model's size (the tables in docs/sft.md and docs/rlhf.md)."""
    matrix_learning_rate: float | None = None
    """Muon's highest learning rate. null: 0.02 for models below 10 million parameters and those that begin with random
    weights, else ten times the learning rate of the table."""
    newton_schulz: int = 5
    """Steps of Muon's iteration; 3 cost little accuracy, and on small batches much less time. 2 have polynomials of
    their own, and cost as little."""
    weight_decay: float = 0.0
    """Decoupled weight decay of matrices."""
    beta1: float = 0.9
    """Decay of AdamW's mean of gradients."""
    beta2: float = 0.95
    """Decay of AdamW's mean of squared gradients."""
    epsilon: float = 1e-8
    """AdamW's epsilon. A large one (1e-3) leaves weights with tiny gradients where they are: in fine-tuning, the
    embeddings of words that the demonstrations never use."""
    schedule: Literal["constant", "cosine", "linear", "wsd", "plateau"] = "cosine"
    """The learning rate after warm-up: constant; falling to `final` of its height by a cosine or a line; wsd: constant,
    and a line in the last `decay` of the steps (Hu et al. 2024); plateau: halved whenever the loss stops falling."""
    decay: float = 0.2
    """Share of the steps over which wsd falls."""
    patience: int = 50
    """Steps whose mean loss plateau compares with the lowest such mean before."""
    warmup: float = 0.03
    """Share of the steps over which the learning rate rises."""
    final: float = 0.05
    """Share of the highest learning rate that is left at the end."""
    clip: float = 1.0
    """Highest norm of the gradient; 0 leaves it as it is."""
    optimizer_options: dict[str, Any] = field(default_factory=dict)
    """What an optimizer of your own is given besides, by name."""

    @property
    def rate(self) -> float:
        """The highest learning rate; outside of stages 3e-4 where none is given."""
        return 3e-4 if self.learning_rate is None else self.learning_rate

    @property
    def matrix_rate(self) -> float:
        """Muon's highest learning rate; outside of stages 0.02 where none is given."""
        return 0.02 if self.matrix_learning_rate is None else self.matrix_learning_rate

    def __post_init__(self) -> None:
        shares = ("warmup", "final", "decay", "beta1", "beta2")
        for name in shares:
            if not 0 <= getattr(self, name) <= 1:
                raise TriviumError(f"optimization: {name} is {getattr(self, name)}; it must lie between 0 and 1")
        for name in ("learning_rate", "matrix_learning_rate", "weight_decay", "epsilon", "clip"):
            if getattr(self, name) is not None and not 0 <= getattr(self, name) < math.inf:
                raise TriviumError(f"optimization: {name} is {getattr(self, name)}; it must be 0 or more")
        if self.optimizer not in BUILT_IN and file_of(resolve(self.optimizer, "optimizers")) is None:
            raise TriviumError(
                "optimization: there is no optimizer "
                f"{self.optimizer!r}{nearest(self.optimizer, [*BUILT_IN, *names('optimizers')])}; "
                "one of your own is named as FILE.py:NAME")
        if self.optimizer_options and self.optimizer in BUILT_IN:
            raise TriviumError(
                f"optimization: optimizer_options are for optimizers of your own, not for {self.optimizer}")
        for name in ("newton_schulz", "patience"):
            if getattr(self, name) < 1:
                raise TriviumError(f"optimization: {name} is {getattr(self, name)}; it must be at least 1")


@dataclass(frozen=True)
class Parallel:
    """How a model is spread over processes and sped up. None of it changes what is learned."""

    __pydantic_config__: ClassVar[dict[str, object]] = {"extra": "forbid", "use_attribute_docstrings": True}

    rows: int | None = None
    """Packed rows in one forward pass of a process; more are gone through in turn, their gradients added (gradient
    accumulation). null: for models of 10 million parameters or more as many as hold 4,096 tokens, on a GPU up to
    16,384; all for smaller ones."""
    tensor_parallel: int = 1
    """Processes that share each matrix; it must divide the number of processes, of heads and of kv_heads."""
    checkpoint_activations: bool = False
    """Keep only each block's input and compute the rest again for the gradient: less memory, a third more
    arithmetic."""
    compile: Literal["auto", "always", "never"] = "auto"
    """torch.compile of the blocks; auto compiles where the run is long enough to repay it."""

    def __post_init__(self) -> None:
        if self.tensor_parallel < 1 or (self.rows is not None and self.rows < 1):
            raise TriviumError("parallel: tensor_parallel and rows must be at least 1")


@dataclass(frozen=True)
class Saving:
    """When checkpoints are written, and which stay. They are written while training goes on, from a copy."""

    __pydantic_config__: ClassVar[dict[str, object]] = {"extra": "forbid", "use_attribute_docstrings": True}

    seconds: float | None = None
    """Seconds from the end of a save to the next one. null: 20 times what the last one cost the training, so that
    saving takes at most 5 % of the time, and at least 20 (in PPO and GRPO: no less than an iteration)."""
    steps: int | None = None
    """Updates, in PPO and GRPO iterations, after each of which a checkpoint is written besides. null: by time alone."""
    keep_every: int | None = None
    """Updates, in PPO and GRPO iterations, after each of which a checkpoint is written and stays for good, in the
    folder `checkpoints` of the model. null: none; all go when the stage is done."""

    def __post_init__(self) -> None:
        if self.seconds is not None and not 0 <= self.seconds < math.inf:
            raise TriviumError(f"checkpoints: seconds is {self.seconds}; it must be 0 or more")
        for name in ("steps", "keep_every"):
            if getattr(self, name) is not None and getattr(self, name) < 1:
                raise TriviumError(f"checkpoints: {name} is {getattr(self, name)}; it must be at least 1")
