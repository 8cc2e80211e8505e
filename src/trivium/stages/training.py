"""What the stages that train a model have in common: their settings, and how they call the training loop."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, ClassVar, Protocol, Self

import numpy as np
import torch
from pydantic import Field, field_validator

from trivium import randomness
from trivium.errors import TriviumError, counted
from trivium.model import LanguageModel
from trivium.model.adapter_settings import AdapterSettings
from trivium.model.adapters import attach
from trivium.model.config import ModelConfig
from trivium.model.weights import SaveDtype
from trivium.resources import running_and_waiting
from trivium.stage import Context, Input, Stage
from trivium.stages import defaults
from trivium.stages.cost import Estimate, size_of, steps_of, weights_of
from trivium.stages.models import in_format_to_save
from trivium.stages.outlook import Cost, Step
from trivium.training.at_once import tokens_at_once
from trivium.training.batch import Batch, Tree, make_batch
from trivium.training.epochs import PackedEpochs
from trivium.training.loop import Evaluation, Outcome, train
from trivium.training.machine import choose_device, resolve_precision
from trivium.training.objective import Batches, Microbatch, Objective
from trivium.training.settings import NumberFormat, Optimization, Parallel, Precision, Saving
from trivium.training.trackers import Name, Tracking

FEW_UPDATES = 20
"""Batches whose size is left open are made small enough for so many."""

USUAL_LENGTH = 1024
"""Tokens in a row that are reckoned with where nothing is known of the rows (TRL's `max_length`)."""

MANY = 1 << 30
"""Rows of a batch whose size is not known yet, where processes are to share it."""


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
        return super().learned() | {"precision": self.number_format()}

    def decided(self) -> dict[str, Any]:
        """The number format."""
        return {"precision": self.number_format()}


class Training(Measuring):
    """What every stage that trains a model has in common."""

    usual: ClassVar[str] = ""
    """The row of the table of defaults (:mod:`trivium.stages.defaults`) that counts."""
    optimization: Optimization = Optimization()
    """The optimizer and its schedule."""
    length: int | None = Field(None, ge=2)
    """Tokens in one packed row: the longest sequence that can be trained on. null: what the longest one needs, up to
    the model's positions."""
    rows: int | None = Field(None, ge=1)
    """Packed rows in a batch. null: as many as hold 4,096 tokens for a model below 10 million parameters, 16,384 below
    a billion, 65,536 below 20 billion, else 131,072; fewer where that would make less than 20 updates."""

    def usual_settings(self, inputs: Mapping[str, Any]) -> tuple[defaults.Usual, int]:
        """What the table says of this kind of stage and of the model that it starts from, and the parameters of that
        (0: it begins with random weights)."""
        folder = inputs.get("model")
        parameters = defaults.parameters_of(folder) if isinstance(folder, Path) else 0
        return defaults.usual(self.usual, parameters, getattr(self, "adapter", None) is not None), parameters

    def settled(self, inputs: Mapping[str, Any]) -> Self:
        """The stage with the table's learning rates, and its beta where it has one, in the place of null."""
        open_beta = hasattr(self, "beta") and self.beta is None
        if self.optimization.learning_rate is not None and self.optimization.matrix_learning_rate is not None \
                and not open_beta:
            return self
        known, _ = self.usual_settings(inputs)
        return self.model_copy(update={"optimization": defaults.settled(self.optimization, known),
                                       **({"beta": known.beta} if open_beta else {})})

    def decided(self) -> dict[str, Any]:
        """The number format, the learning rate and, where there is one, beta."""
        return super().decided() | {"learning_rate": self.optimization.rate} | (
            {"beta": self.beta} if hasattr(self, "beta") else {})

    def warn(self, context: Context) -> None:
        """Say of which settings the table would say something else entirely."""
        known, parameters = self.usual_settings(context.inputs)
        if not parameters:
            return
        for line in defaults.warnings(self.usual, self.optimization, getattr(self, "beta", None), known, parameters):
            context.progress.say(line)

    def lay_out(self, context: Context, sizes: Sequence[int], most: int, epochs: float) -> tuple[int, int]:
        """``(length, rows)`` of the batches in which so large items are packed. ``most`` bounds a length that no
        setting gives."""
        length = defaults.row_length(self.length, list(sizes), most)
        if self.rows is not None:
            return length, self.rows
        known, _ = self.usual_settings(context.inputs)
        return length, defaults.row_count(None, list(sizes), length, known.batch, epochs, FEW_UPDATES)

    def usual_layout(self, config: ModelConfig) -> tuple[int, int]:
        """``(length, rows)`` that are reckoned with before the rows are known."""
        length = self.length or min(config.max_positions, USUAL_LENGTH)
        return length, self.rows or max(1, defaults.usual(self.usual, weights_of(config)).batch // length)


class Looped(Training):
    """What stages have in common that are nothing but the training loop."""

    unlearned: ClassVar[frozenset[str]] = frozenset({"parallel", "track", "checkpoints"})
    parallel: Parallel = Parallel()
    """Processes, memory and compilation."""
    track: bool | list[Name] = False
    """Who else is told what is logged, with the settings and what the stage was made from: a list of `tensorboard`
    (files in the model's folder), `wandb`, `mlflow` and `swanlab`; true for TensorBoard alone. W&B and SwanLab write
    for later sending where nobody is signed in. TensorBoard needs the extra `track`, each other its own."""
    checkpoints: Saving = Saving()
    """When checkpoints are written, and which of them stay."""
    alone: ClassVar[bool] = False
    """Whether the stage is trained in one process only."""

    @property
    def update_slices(self) -> tuple[int, str]:
        """How many slices an update can be cut into, and what a slice is, with what to do about too few."""
        return self.rows or MANY, "rows; raise `rows`"

    def check_processes(self, processes: int) -> None:
        """Raise :class:`TriviumError` where so many processes cannot share an update, or each matrix."""
        each, adapter = self.parallel.tensor_parallel, getattr(self, "adapter", None)
        if processes > 1 and self.alone:
            raise TriviumError("it is trained in one process; start it without torchrun")
        if processes > 1 and adapter is not None:
            check_spread_adapter(adapter, each, self.number_format())
        if processes % each:
            raise TriviumError(
                f"tensor_parallel is {each}, which does not divide {processes} processes; "
                "start a multiple of it with torchrun"
            )
        slices, unit = self.update_slices
        if processes // each > slices:
            raise TriviumError(f"{processes // each} processes cannot share a batch of {slices} {unit} or start fewer")

    def at_once(self, inputs: Mapping[str, Any], length: int, config: object) -> Parallel:
        """How the model is spread. A batch goes through a model that is not small in microbatches of
        :func:`~trivium.training.at_once.tokens_at_once` tokens, unless ``parallel.rows`` says otherwise."""
        if self.parallel.rows is not None or not length:
            return self.parallel
        if self.usual_settings(inputs)[0].small:
            return self.parallel
        return replace(self.parallel, rows=max(1, self.tokens_at_once(config) // length))

    def tokens_at_once(self, config: object) -> int:
        """Tokens that go through a model of that shape at a time."""
        return tokens_at_once(config, self.parallel.checkpoint_activations)

    def full_batches(self, processes: int, tree: Tree, finish: Callable[[Batch], None] = lambda batch: None,
                     length: int | None = None, config: ModelConfig | None = None) -> list[Batch]:
        """The microbatches of one of so many processes, when ``tree`` fills each row of ``length`` places; of more
        than two, two. ``config`` is the shape of the model, which has a say in how many rows are taken at once."""
        length = length or len(tree)
        at_once = self.tokens_at_once(config)
        count = self.rows or max(1, at_once // length)
        rows = -(-count // max(1, processes // self.parallel.tensor_parallel))
        small = config is None or defaults.usual(self.usual, weights_of(config)).small
        each = min(rows, self.parallel.rows or (rows if small else max(1, at_once // length)))
        batch = make_batch([[tree] for _ in range(each)], length)
        finish(batch)
        return [batch] * min(2, -(-rows // each))

    def step_with(self, estimate: Estimate, models: Callable[[], tuple[Any, list[Any]]], objective: Any,
                  batches: list[Batch]) -> Step:
        """An update with this stage's settings."""
        return Step(self.optimization, self.parallel, resolve_precision(self.precision, estimate.device), models,
                    objective, batches)


def decoder_to_train(config: ModelConfig, adapter: AdapterSettings | None) -> tuple[LanguageModel, list[Any]]:
    """A decoder as a step holds it, with its adapter where it has one, and no other models."""
    model = LanguageModel(config)
    if adapter is not None:
        attach(model, adapter, 0)
    return model, []


def check_spread_adapter(adapter: AdapterSettings, tensor_parallel: int, precision: NumberFormat) -> None:
    """Raise :class:`TriviumError` for an adapter that several processes cannot train together: one whose matrices would
    be cut, and DoRA where the frozen weights are gathered rounded, as its lengths are theirs in float32."""
    if tensor_parallel > 1:
        raise TriviumError("tensor_parallel cuts no adapters; leave it at 1, and all processes share out the rows")
    if adapter.dora and precision == "bf16-weights":
        raise TriviumError("DoRA with `precision: bf16-weights` is trained in one process; choose bf16")


class FromModel(Looped):
    """What stages have in common that begin with a model and write one."""

    save_dtype: SaveDtype = "base"
    """Number format of the weights that are written: float32, bf16, f16, or that of the model it starts from. While
    training, weights are float32 all the same, and so are adapters, always."""


def sizes_alone(value: object) -> object:
    """The sizes of a new model as they are. Raises :class:`ValueError` for a text, which would name a model."""
    if isinstance(value, str):
        raise ValueError(f"is {value!r}, but it holds the sizes of a new model, such as {{num_layers: 6}}: this stage "
                         "begins with random weights; `pretrain` goes on from a model that `from` names, and so do "
                         "`sft` and the stages that follow")
    return value


class FromText(Looped):
    """What models that begin with random weights and read the corpus have in common."""

    length: int = Field(256, ge=2)
    """Tokens in one packed row: the longest sequence that can be trained on."""
    rows: int = Field(16, ge=1)
    """Packed rows in a batch."""
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


SHORT = 50
"""A run of fewer updates is said to be short."""

BUSY = 0.3
"""Share of the time that threads wait for a core from which on a machine is said to be busy with something else."""


def run_training(model: torch.nn.Module, objective: Objective, batches: Epochs, steps: int, settings: Looped,
                 context: Context, *made_from: object, heldout: Epochs | None = None,
                 sample: Callable[[Any], str] | None = None, evaluate_every: int | None = None, keep_best: bool = False,
                 patience: int = 0, watch: Callable[[int, Mapping[str, float]], None] | None = None) -> Outcome:
    """The training loop with a stage's settings. ``made_from`` names what the run depends on besides them; ``heldout``
    is the data for ``evaluate_every`` (the stage's setting, unless given). ``watch`` is told the metrics of each
    update."""

    def validation(part: int, parts: int) -> list[Microbatch]:
        assert heldout is not None
        return [batch for step in range(heldout.steps_per_epoch) for batch in heldout(step, part, parts)]

    if hasattr(model, "vision") and int(os.environ.get("WORLD_SIZE", "1")) > 1:
        raise TriviumError(f"{context.name}: models that see are trained in one process; start it without torchrun")
    if 0 < steps < SHORT:
        context.progress.say(
            f"only {counted(steps, 'update')}; {'one teaches' if steps == 1 else 'so few teach'} "
            "little: smaller batches (`rows` counts packed rows, each of many examples) or more `epochs` give more"
        )
    settings.warn(context)
    settings = settings.settled(context.inputs)
    precision = resolve_precision(settings.precision, next(model.parameters()).device)
    every: int = getattr(settings, "evaluate_every", 0) if evaluate_every is None else evaluate_every
    parallel = settings.at_once(context.inputs, getattr(batches, "length", 0), getattr(model, "config", None))
    outcome = train(model, objective, batches, steps, settings.optimization,
                    scratch=context.scratch, log=context.folder / "log.jsonl", fingerprint=fingerprint(
                        *made_from, settings.learned(), context.seed), precision=precision,
                    parallel=parallel,
                    evaluation=Evaluation(every, validation if heldout else None, sample, keep_best, patience),
                    saving=settings.checkpoints, kept=context.folder / "checkpoints",
                    track=tracking(settings, context), progress=Watched(context),
                    say=context.progress.say, watch=watch)
    if outcome.leader and isinstance(settings, FromModel) and getattr(settings, "adapter", None) is None:
        with in_format_to_save(outcome.model, context.inputs["model"], context, settings.save_dtype):
            pass  # what is measured now is what will be written
    return outcome


def tracking(settings: Any, context: Context) -> Tracking:
    """Whom a stage tells what it logs."""
    names: list[Name] = ["tensorboard"] if settings.track is True else settings.track or []
    about = settings.model_dump(mode="json") | {"kind": settings.kind, "seed": context.seed,
                                                "inputs": {name: str(place) for name, place in context.inputs.items()}}
    return Tracking(names, context.run_name, context.name, about, context.folder / "tensorboard", context.scratch)


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
