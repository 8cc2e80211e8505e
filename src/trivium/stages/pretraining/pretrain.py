"""Pretraining: predict the next token of every document."""

from __future__ import annotations

import math
from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import ClassVar

import numpy as np
import torch
from pydantic import model_validator

from trivium import randomness
from trivium.errors import counted
from trivium.model import LanguageModel
from trivium.model.config import ModelConfig
from trivium.stage import Context, Figure, Panel, Title
from trivium.stages.cost import Estimate, steps_of, weights_of
from trivium.stages.models import sample_text, save_model
from trivium.stages.outlook import Cost, Outlook, Step
from trivium.stages.training import FromText, full_row, run_training
from trivium.tokenizer.chat import ChatTokenizer
from trivium.tokenizer.tokens import Tokens
from trivium.training.batch import Tree
from trivium.training.epochs import PackedEpochs
from trivium.training.machine import autocast, prepare, resolve_precision
from trivium.training.next_token import LanguageModeling as LanguageModeling


class Pretrain(FromText):
    """Train a decoder from random weights to predict the next token of the corpus."""

    kind: ClassVar[str] = "pretrain"
    version: ClassVar[int] = 4
    title: ClassVar[Title] = Title("pretraining", "预训练", "read")
    figures: ClassVar[tuple[Figure, ...]] = (
        Figure("validation_bits_per_byte", "bits per byte, held-out text", "每字节比特数（留出文本）"),
        Figure("unigram_bits_per_byte", "… of a unigram model", "……一元模型"),
    )
    panel: ClassVar[Panel] = Panel(headline="validation_bits_per_byte", beside=("unigram_bits_per_byte",))
    every_process: ClassVar[bool] = True
    model: ModelConfig = ModelConfig()
    """The model's shape; vocab_size is taken from the tokenizer."""

    @model_validator(mode="after")
    def _rows_have_positions(self) -> Pretrain:
        if self.length > self.model.max_positions:
            raise ValueError(
                f"rows of {self.length} tokens, but the model has {self.model.max_positions} positions; raise "
                "model.max_positions or lower length"
            )
        return self

    def run(self, context: Context) -> dict[str, object]:
        """Train from random weights (or, with 0 epochs, keep them random) and measure bits per byte on held-out
        documents."""
        device = prepare(context.threads)
        batches, tokenizer = self.training_data(context)
        corpus = Tokens.open(context.inputs["tokens"] / "train", tokenizer.digest)
        heldout = Tokens.open(context.inputs["tokens"] / "validation", tokenizer.digest)
        config = replace(self.model, vocab_size=tokenizer.vocab_size)
        model = LanguageModel(config).initialise(randomness.derive(context.seed, "initialise")).to(device)
        steps = self.steps if self.steps is not None else round(self.epochs * batches.steps_per_epoch)
        precision = resolve_precision(self.precision, device)
        context.progress.say(f"{sum(p.numel() for p in model.parameters()) / 1e6:.2f}M parameters, "
                             f"{counted(steps, 'step')}, "
                             f"{device.type} in {precision}")
        validation = PackedEpochs(pieces(heldout, tokenizer, self.length), self.length, self.rows, context.seed)
        outcome = run_training(
            model, LanguageModeling(), batches, steps, self, context, corpus.header, heldout=validation,
            sample=lambda model: sample_text(model, tokenizer, [tokenizer.document_id], context.seed))
        if not outcome.leader:
            return {}
        model = outcome.model
        size = sum(len(tokenizer.decode(document[:-1].tolist()).encode()) for document in heldout)
        bits = bits_per_byte(model, validation, size, precision)
        save_model(model, tokenizer, context.folder, chat=False)
        trained = steps / batches.steps_per_epoch * batches.tokens
        return {
            "parameters": sum(p.numel() for p in model.parameters()), "steps": steps, "precision": outcome.precision,
            "validation_bits_per_byte": bits, "unigram_bits_per_byte": unigram_bits_per_byte(corpus, heldout, size),
            "tokens_per_second": trained / outcome.seconds if steps else 0.0
        }

    def training_data(self, context: Context) -> tuple[PackedEpochs, ChatTokenizer]:
        """The batches, and the tokenizer that made them."""
        tokenizer = ChatTokenizer.load(context.inputs["tokenizer"])
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
        return replace(self.model, vocab_size=estimate.vocab_size(self.tokenizer))

    def outlook(self, estimate: Estimate) -> Outlook:
        """A language model."""
        return Outlook(config=self.shape(estimate))

    def stand_in(self, estimate: Estimate) -> Path:
        """A language model with random weights."""
        context = estimate.context(self)
        save_model(LanguageModel(self.shape(estimate)).initialise(0), ChatTokenizer.load(context.inputs["tokenizer"]),
                   context.folder)
        return context.folder

    def training_step(self, estimate: Estimate, processes: int) -> Step:
        """A model and full rows."""
        config = self.shape(estimate)
        return self.step_with(estimate, lambda: (LanguageModel(config), []), LanguageModeling(),
                              self.full_batches(processes, full_row(self.length), config=config))


def pieces(corpus: Tokens, tokenizer: ChatTokenizer, length: int) -> list[Tree]:
    """Documents as trees whose prompt is the token that ends a document; those too long for a row are cut in equal
    pieces, so that nothing is lost."""
    start = np.array([tokenizer.document_id], np.int64)
    trees = []
    for document in corpus:
        parts = math.ceil(len(document) / (length - 1))
        trees += [Tree(start, (part.astype(np.int64),)) for part in np.array_split(document, parts)]
    return trees


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
    counts = Counter(token for document in corpus for token in document.tolist())
    heard = Counter(token for document in heldout for token in document.tolist())
    total = corpus.total + len(counts.keys() | heard.keys())
    return -sum(n * math.log2((counts[token] + 1) / total) for token, n in heard.items()) / size
