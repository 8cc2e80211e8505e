"""What the stages that train a model have in common: their settings, and how they call the training loop."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from typing import Any, ClassVar, Protocol

import numpy as np
import torch
from pydantic import Field, field_validator

from trivium import randomness
from trivium.errors import TriviumError
from trivium.resources import running_and_waiting
from trivium.stage import Context, Input, Stage
from trivium.stages.cost import Estimate, size_of, steps_of
from trivium.stages.outlook import Cost, Step
from trivium.training.batch import Batch, Tree, make_batch
from trivium.training.epochs import PackedEpochs
from trivium.training.loop import Evaluation, Outcome, train
from trivium.training.machine import choose_device, resolve_precision
from trivium.training.objective import Batches, Microbatch, Objective
from trivium.training.settings import NumberFormat, Optimization, Parallel, Precision


class Measuring(Stage):
    """What every stage that computes with a model has in common: what it makes depends on the number format."""

    precision: Precision = "auto"
    """Number format of the products. float32; bf16: autocast; bf16-weights: weights in bf16 with float32 masters; auto:
    bf16 where the hardware multiplies it natively, else float32. What it was decided to be is part of the key."""

    def number_format(self) -> NumberFormat:
        """The number format, decided from the setting and the machine alone."""
        return resolve_precision(self.precision, choose_device())

    def learned(self) -> dict[str, Any]:
        """The settings that decide what the stage makes, with the number format that was decided."""
        return super().learned() | self.decided()

    def decided(self) -> dict[str, Any]:
        """The number format."""
        return {"precision": self.number_format()}


class Training(Measuring):
    """What every stage that trains a model has in common."""

    optimization: Optimization = Optimization()
    """The optimizer and its schedule."""
    length: int = Field(256, ge=2)
    """Tokens in one packed row: the longest sequence that can be trained on."""
    rows: int = Field(16, ge=1)
    """Packed rows in a batch."""


class Looped(Training):
    """What stages have in common that are nothing but the training loop."""

    unlearned: ClassVar[frozenset[str]] = frozenset({"parallel", "track"})
    parallel: Parallel = Parallel()
    """Processes, memory and compilation."""
    track: bool = False
    """Write TensorBoard's files too, into the model's folder; needs the extra `track`."""
    alone: ClassVar[bool] = False
    """Whether the stage is trained in one process only."""

    @property
    def update_slices(self) -> tuple[int, str]:
        """How many slices an update can be cut into, and what a slice is, with what to do about too few."""
        return self.rows, "rows; raise `rows`"

    def check_processes(self, processes: int) -> None:
        """Raise :class:`TriviumError` where so many processes cannot share an update, or each matrix."""
        if processes > 1 and (self.alone or getattr(self, "adapter", None) is not None):
            raise TriviumError(
                f"{'it is' if self.alone else 'adapters are'} trained in one process; start it without torchrun")
        each = self.parallel.tensor_parallel
        if processes % each:
            raise TriviumError(
                f"tensor_parallel is {each}, which does not divide {processes} processes; "
                "start a multiple of it with torchrun"
            )
        slices, unit = self.update_slices
        if processes // each > slices:
            raise TriviumError(f"{processes // each} processes cannot share a batch of {slices} {unit} or start fewer")

    def full_batches(self, processes: int, tree: Tree, finish: Callable[[Batch], None] = lambda batch: None,
                     length: int | None = None) -> list[Batch]:
        """The microbatches of one of so many processes, when ``tree`` fills each row of ``length`` places; of more
        than two, two."""
        rows = -(-self.rows // max(1, processes // self.parallel.tensor_parallel))
        each = min(rows, self.parallel.rows or rows)
        batch = make_batch([[tree] for _ in range(each)], length or len(tree))
        finish(batch)
        return [batch] * min(2, -(-rows // each))

    def step_with(self, estimate: Estimate, models: Callable[[], tuple[Any, list[Any]]], objective: Any,
                  batches: list[Batch]) -> Step:
        """An update with this stage's settings."""
        return Step(self.optimization, self.parallel, resolve_precision(self.precision, estimate.device), models,
                    objective, batches)


def sizes_alone(value: object) -> object:
    """The sizes of a new model as they are. Raises :class:`ValueError` for a text, which would name a model."""
    if isinstance(value, str):
        raise ValueError(f"is {value!r}, but it holds the sizes of a new model, such as {{num_layers: 6}}: this stage "
                         "begins with random weights, and cannot go on from a model's folder; "
                         "`sft` and the stages that follow can")
    return value


class FromText(Looped):
    """What models that begin with random weights and read the corpus have in common."""

    tokens: Input = "tokens"
    """The tokenised corpus."""
    tokenizer: Input = "tokenizer"
    """The tokenizer, which becomes part of the model's folder."""
    epochs: float = Field(1.0, ge=0)
    """Passes over the corpus; 0 leaves the model random."""
    steps: int | None = Field(None, ge=0)
    """Updates, instead of epochs."""
    evaluate_every: int = Field(0, ge=0)
    """Updates between two measurements of the held-out loss (of a decoder, with a sample text) in log.jsonl; 0 for
    none."""

    _sizes_alone = field_validator("model", mode="before", check_fields=False)(sizes_alone)

    def reading_cost(self, estimate: Estimate, model: torch.nn.Module, objective: Objective, batches: PackedEpochs,
                     unseen: PackedEpochs) -> Cost:
        """The cost of the updates, and of a pass over the held-out text."""
        factor, each = estimate.factor(self.tokens), 0.0
        steps = self.steps if self.steps is not None else steps_of(self.epochs, batches, factor)
        if steps:
            key = (self.kind, getattr(model, "config", None), self.length, self.rows, self.optimization.optimizer)
            each = estimate.updates(key, lambda: model, objective, batches, self.optimization, self.number_format())
        seconds = estimate.training(steps, each, size_of(model)) + steps_of(1, unseen, factor) * each / 3 + 1.0
        return Cost.of_updates(seconds, steps, each, ", and the held-out text")


class Epochs(Batches, Protocol):
    """Batches that go through their data again and again."""

    steps_per_epoch: int


FEW_UPDATES = 50
"""A run of fewer is said to be short: with few rows the default batch is all of them."""

BUSY = 0.3
"""Share of the time that threads wait for a core from which on a machine is said to be busy with something else."""


def run_training(model: torch.nn.Module, objective: Objective, batches: Epochs, steps: int, settings: Looped,
                 context: Context, *made_from: object, heldout: Epochs | None = None,
                 sample: Callable[[Any], str] | None = None, evaluate_every: int | None = None, keep_best: bool = False,
                 patience: int = 0) -> Outcome:
    """The training loop with a stage's settings. ``made_from`` names what the run depends on besides them; ``heldout``
    is the data for ``evaluate_every`` (the stage's setting, unless given)."""

    def validation(part: int, parts: int) -> list[Microbatch]:
        assert heldout is not None
        return [batch for step in range(heldout.steps_per_epoch) for batch in heldout(step, part, parts)]

    if (hasattr(model, "whole") or hasattr(model, "vision")) and int(os.environ.get("WORLD_SIZE", "1")) > 1:
        raise TriviumError(
            f"{context.name}: models of other families, and those that see, are trained in one process; "
            "start it without torchrun"
        )
    if 0 < steps < FEW_UPDATES:
        context.progress.say(
            f"only {steps} update{'s' if steps != 1 else ''}; {'one teaches' if steps == 1 else 'so few teach'} "
            "little: smaller batches (`rows` counts packed rows, each of many examples) or more `epochs` give more"
        )
    precision = resolve_precision(settings.precision, next(model.parameters()).device)
    every: int = getattr(settings, "evaluate_every", 0) if evaluate_every is None else evaluate_every
    return train(model, objective, batches, steps, settings.optimization,
                 scratch=context.scratch, log=context.folder / "log.jsonl", fingerprint=fingerprint(
                     *made_from, settings.learned(), context.seed), precision=precision, parallel=settings.parallel,
                 evaluation=Evaluation(every, validation if heldout else None, sample, keep_best, patience),
                 track=context.folder / "tensorboard" if settings.track else None, progress=Watched(context),
                 say=context.progress.say)


class Watched:
    """Progress that looks once, after some seconds, whether the threads wait for one another."""

    def __init__(self, context: Context) -> None:
        self.progress, self.begun, self.looked = context.progress, time.monotonic(), False
        self.before = running_and_waiting()

    def __call__(self, done: int, total: int, text: str) -> None:
        """Tell of an update."""
        self.progress.update(done, total, text)
        if self.looked or time.monotonic() - self.begun < 10:
            return
        self.looked = True
        ran, waited = (now - then for now, then in zip(running_and_waiting(), self.before))
        if torch.get_num_threads() > 1 and waited > BUSY * (ran + waited):
            self.progress.say("this machine is busy with something else, and threads that wait for one another train "
                              "many times slower: interrupt, and start the same command with OMP_NUM_THREADS=1 in "
                              "front of it; it goes on from here")


def fingerprint(*parts: object) -> str:
    """A name for data and settings, by which a checkpoint is known to belong to them."""
    return str(randomness.derive(0, *map(str, parts)))


def full_row(length: int) -> Tree:
    """A document that fills a row of ``length`` places."""
    return Tree(np.zeros(1, np.int64), (np.zeros(length - 1, np.int64),))
