"""Pretraining: predict the next token of every document."""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import torch
from pydantic import ConfigDict, Field, model_validator

from trivium import randomness
from trivium.errors import TriviumError, counted
from trivium.files import read_json, write_json
from trivium.model import LanguageModel
from trivium.model.adapter_settings import AdapterSettings
from trivium.model.adapters.folder import weights_digest
from trivium.model.config import ModelConfig
from trivium.model.weights import SaveDtype
from trivium.stage import Context, Figure, Input, Marked, Panel, Title, not_default
from trivium.stages import defaults
from trivium.stages.cost import Estimate, steps_of, weights_of
from trivium.stages.models import adapt, load_language_model, sample_text, save_model, save_trained
from trivium.stages.outlook import Cost, Outlook, Step
from trivium.stages.training import FromText, decoder_to_train, full_row, run_training
from trivium.tokenizer.chat import ChatTokenizer
from trivium.tokenizer.tokens import Tokens
from trivium.training.epochs import PackedEpochs
from trivium.training.machine import autocast, prepare, resolve_precision
from trivium.training.next_token import LanguageModeling as LanguageModeling
from trivium.training.pieces import Pieces

COUNTED = 1 << 22
"""Tokens that are counted at a time."""


class Pretrain(FromText):
    """Train a decoder to predict the next token of the corpus: from random weights, or from a model that is there."""

    model_config = ConfigDict(populate_by_name=True)

    kind: ClassVar[str] = "pretrain"
    version: ClassVar[int] = 5
    title: ClassVar[Title] = Title("pretraining", "预训练", "read")
    figures: ClassVar[tuple[Figure, ...]] = (
        Figure("validation_bits_per_byte", "bits per byte, held-out text", "每字节比特数（留出文本）"),
        Figure("validation_bits_per_byte_before", "… before", "……之前"),
        Figure("unigram_bits_per_byte", "… of a unigram model", "……一元模型"),
    )
    panel: ClassVar[Panel] = Panel(headline="validation_bits_per_byte",
                                   beside=("validation_bits_per_byte_before", "unigram_bits_per_byte"))
    every_process: ClassVar[bool] = True
    model: ModelConfig = ModelConfig()
    """The model's shape; vocab_size is taken from the tokenizer."""
    start: Input | None = Field(None, alias="from")
    """A model to go on from, of this system or another's, instead of random weights. Its shape and its tokenizer are
    taken: `model` and `tokenizer` say nothing, and `tokens` must be made with the same tokenizer."""
    adapter: AdapterSettings | None = None
    """Train an adapter beside the frozen model that `from` names; null trains all weights."""
    save_dtype: SaveDtype = "base"
    """Number format of the weights that go on from a model: float32, bf16, f16, or that of the model."""

    @model_validator(mode="after")
    def _one_beginning(self) -> Pretrain:
        goes_on = self.start is not None
        useless = sorted(not_default(self) & ({"model", "tokenizer"} if goes_on else {"adapter", "save_dtype"}))
        if useless and goes_on:
            raise ValueError(f"`from` brings a model with its shape and tokenizer; leave `{useless[0]}` out")
        if useless:
            raise ValueError(
                f"`{useless[0]}` is for a model that goes on; name it with `from`, or leave `{useless[0]}` out")
        return self

    @model_validator(mode="after")
    def _rows_have_positions(self) -> Pretrain:
        if self.start is None and self.length > self.model.max_positions:
            raise ValueError(
                f"rows of {self.length} tokens, but the model has {self.model.max_positions} positions; raise "
                "model.max_positions or lower length"
            )
        return self

    def learned(self) -> dict[str, Any]:
        """What goes on from no model depends on nothing that only concerns one."""
        learned = super().learned()
        return learned if self.start else {name: value for name, value in learned.items()
                                           if name not in ("adapter", "save_dtype")}

    def _inputs(self) -> Iterator[Marked]:
        for place in super()._inputs():
            if self.start is None or place.path[0] != "tokenizer":
                yield place

    def usual_settings(self, inputs: Mapping[str, Any]) -> tuple[defaults.Usual, int]:
        """What suits a model that goes on: the rates of fine-tuning one of its size."""
        folder = inputs.get("start")
        if not isinstance(folder, Path):
            return super().usual_settings(inputs)
        parameters = defaults.parameters_of(folder)
        return defaults.usual("sft", parameters, self.adapter is not None), parameters

    def begin(self, context: Context, tokenizer: ChatTokenizer) -> LanguageModel:
        """The model before its first update. Raises :class:`TriviumError` for one that a row does not fit."""
        if self.start is None:
            config = replace(self.model, vocab_size=tokenizer.vocab_size)
            return LanguageModel(config).initialise(randomness.derive(context.seed, "initialise"))
        model, _ = load_language_model(context.inputs["start"])
        if self.length > model.config.max_positions:
            raise TriviumError(f"{context.name}.length: rows of {self.length} tokens, but the model has "
                               f"{model.config.max_positions} positions")
        return model

    def run(self, context: Context) -> dict[str, object]:
        """Train from random weights (or, with 0 epochs, keep them random) or from a model, and measure bits per byte on
        held-out documents, of a model also before."""
        device = prepare(context.threads)
        batches, tokenizer = self.training_data(context)
        corpus = Tokens.open(context.inputs["tokens"] / "train", tokenizer.digest)
        heldout = Tokens.open(context.inputs["tokens"] / "validation", tokenizer.digest)
        model = self.begin(context, tokenizer).to(device)
        base: Path | None = context.inputs.get("start")
        steps = self.steps if self.steps is not None else round(self.epochs * batches.steps_per_epoch)
        precision = resolve_precision(self.precision, device)
        context.progress.say(f"{sum(p.numel() for p in model.parameters()) / 1e6:.2f}M parameters, "
                             f"{counted(steps, 'step')}, "
                             f"{device.type} in {precision}")
        validation = PackedEpochs(pieces(heldout, tokenizer, self.length), self.length, self.rows, context.seed)
        size = sum(len(tokenizer.decode(document[:-1].tolist()).encode()) for document in heldout)
        leads = os.environ.get("RANK", "0") == "0"  # the others only learn
        before = (kept_bits(context, lambda: bits_per_byte(model, validation, size, precision))
                  if base and leads else None)
        attached = adapt(model, self.adapter, context) if base else None
        made_from = [weights_digest(base)] if base else []
        outcome = run_training(
            model, LanguageModeling(), batches, steps, self, context, corpus.header, *made_from, heldout=validation,
            sample=lambda model: sample_text(model, tokenizer, [tokenizer.document_id], context.seed))
        if not outcome.leader:
            return {}
        model = outcome.model
        if base:
            save_trained(model, attached, tokenizer, base, context, self.save_dtype)
        bits = bits_per_byte(model, validation, size, precision)
        if not base:
            save_model(model, tokenizer, context.folder, chat=False)
        trained = steps / batches.steps_per_epoch * batches.tokens
        return {
            "parameters": sum(p.numel() for p in model.parameters()), "steps": steps, "precision": outcome.precision,
            **({"validation_bits_per_byte_before": before} if before is not None else {}),
            **({"trained_parameters": sum(p.numel() for _, p in attached.parameters())} if attached else {}),
            "validation_bits_per_byte": bits, "unigram_bits_per_byte": unigram_bits_per_byte(corpus, heldout, size),
            "tokens_per_second": trained / outcome.seconds if steps else 0.0
        }

    def training_data(self, context: Context) -> tuple[PackedEpochs, ChatTokenizer]:
        """The batches, and the tokenizer that made them."""
        tokenizer = ChatTokenizer.load(context.inputs["start" if self.start else "tokenizer"])
        corpus = Tokens.open(context.inputs["tokens"] / "train", tokenizer.digest)
        return PackedEpochs(pieces(corpus, tokenizer, self.length), self.length, self.rows, context.seed), tokenizer

    def cost(self, estimate: Estimate) -> Cost:
        """The updates, and the measurement on the held-out documents."""
        batches, _ = self.training_data(estimate.context(self))
        config, factor = self.shape(estimate), estimate.factor(self.tokens)
        steps = self.steps if self.steps is not None else steps_of(self.epochs, batches, factor)
        each = estimate.updates(
            ("pretrain", config, self.length, self.rows, self.optimization.optimizer),
            lambda: LanguageModel(config).initialise(0), LanguageModeling(), batches, self.optimization,
            self.number_format())
        kept = estimate.outlook(self.tokens).validation
        heldout = kept / (1 - kept) * steps_of(1, batches, factor) / 3
        seconds = estimate.training(steps, each, weights_of(config)) + heldout * each + 1.0
        return Cost.of_updates(seconds, steps, each, ", and the held-out text")

    def shape(self, estimate: Estimate) -> ModelConfig:
        """The model's shape, with as many entries as the tokenizer will have."""
        if self.start is not None:
            return estimate.config(self.start)
        return replace(self.model, vocab_size=estimate.vocab_size(self.tokenizer))

    def outlook(self, estimate: Estimate) -> Outlook:
        """A language model."""
        if self.start is not None:
            return Outlook(like=self.start, adapter=self.adapter)
        return Outlook(config=self.shape(estimate))

    def stand_in(self, estimate: Estimate) -> Path | None:
        """A language model with random weights; none that goes on from a model, whose shape it has."""
        if self.start is not None:
            return None
        context = estimate.context(self)
        save_model(LanguageModel(self.shape(estimate)).initialise(0), ChatTokenizer.load(context.inputs["tokenizer"]),
                   context.folder)
        return context.folder

    def training_step(self, estimate: Estimate, processes: int) -> Step:
        """A model and full rows."""
        config = self.shape(estimate)
        return self.step_with(estimate, lambda: decoder_to_train(config, self.adapter), LanguageModeling(),
                              self.full_batches(processes, full_row(self.length), config=config))


def pieces(corpus: Tokens, tokenizer: ChatTokenizer, length: int) -> Pieces:
    """A corpus' documents as trees of at most ``length`` tokens."""
    return Pieces(corpus, tokenizer.document_id, length)


def kept_bits(context: Context, measure: Callable[[], float]) -> float:
    """What was measured before the first update, kept for an attempt that goes on."""
    file = context.scratch / "before.json"
    if not file.is_file():
        context.progress.say("measuring the held-out text before the first update")
        write_json(file, {"bits_per_byte": measure()})
    return float(read_json(file)["bits_per_byte"])


@torch.no_grad()
def bits_per_byte(model: LanguageModel, batches: PackedEpochs, size: int, precision: str) -> float:
    """Bits that the model needs for each byte of the batches' texts, which have ``size`` bytes."""
    model.eval()
    nats = 0.0
    device = model.lm_head.weight.device
    for step in range(batches.steps_per_epoch):
        for batch in batches(step):
            with autocast(precision, device):
                nats += LanguageModeling()(model, batch.to(device))["loss"].value.item()
    return nats / math.log(2) / size


def unigram_bits_per_byte(corpus: Tokens, heldout: Tokens, size: int) -> float:
    """The same for token frequencies alone (with one added to each), learned from the training documents."""
    counts, heard = token_counts(corpus), token_counts(heldout)
    counts.resize(max(len(counts), len(heard)))
    heard.resize(len(counts))
    total = corpus.total + int(((counts > 0) | (heard > 0)).sum())
    present = heard > 0
    return float(-(heard[present] * np.log2((counts[present] + 1) / total)).sum() / size)


def token_counts(corpus: Tokens) -> np.ndarray:
    """How often each token stands in a corpus, ``[the largest token + 1]``; it is read through once."""
    counts = np.zeros(1, np.int64)
    for start in range(0, corpus.total, COUNTED):
        more = np.bincount(corpus.tokens[start:start + COUNTED], minlength=len(counts))
        more[:len(counts)] += counts
        counts = more
    return counts
