"""Span corruption: an encoder-decoder learns to write what was cut out of a text (Raffel et al. 2020, section
3.1.4)."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import torch
from pydantic import Field

from trivium import randomness
from trivium.errors import TriviumError, counted
from trivium.files import write_bytes, write_json
from trivium.model.config import EncoderDecoderConfig
from trivium.model.encoder_decoder import EncoderDecoder, look_at
from trivium.objectives.language_modeling import token_log_probs
from trivium.stage import Context, Panel, Title
from trivium.stages.cost import Estimate
from trivium.stages.outlook import Cost
from trivium.stages.pretraining.encode import texts
from trivium.stages.training import FromText, run_training
from trivium.tokenizer.chat import ChatTokenizer
from trivium.tokenizer.tokens import Tokens
from trivium.training.batch import Batch, Tree, hidden_states, make_batch
from trivium.training.epochs import PackedEpochs
from trivium.training.machine import prepare
from trivium.training.objective import Objective, Total


class Spans(FromText):
    """Train an encoder-decoder from random weights to write the spans that were cut out of texts."""

    kind: ClassVar[str] = "spans"
    version: ClassVar[int] = 2
    title: ClassVar[Title] = Title("pretraining, cut-out spans", "预训练（挖空片段）", "read")
    panel: ClassVar[Panel] = Panel(headline="validation_loss", beside=("chance_loss",))
    every_process: ClassVar[bool] = True
    model: EncoderDecoderConfig = EncoderDecoderConfig()
    """The model's shape; vocab_size is taken from the tokenizer, with one more for each sentinel."""
    share: float = Field(0.15, gt=0, le=0.4)
    """Share of a text's tokens that is cut out (T5: 0.15)."""
    span: float = Field(3.0, ge=1)
    """Mean length of a span, in tokens (T5: 3)."""
    sentinels: int = Field(64, ge=1)
    """Tokens that name spans, and so the most spans of a text (T5: 100)."""

    def training_data(self, context: Context) -> tuple[PairEpochs, ChatTokenizer]:
        """The batches, and their tokenizer, which knows the sentinels too."""
        tokenizer = ChatTokenizer.load(context.inputs["tokenizer"])
        return batches_of("train", self, context, tokenizer), with_sentinels(tokenizer, self.sentinels)

    def run(self, context: Context) -> dict[str, object]:
        """Train from random weights and measure the loss on spans of held-out documents."""
        device = prepare(context.threads)
        tokenizer = ChatTokenizer.load(context.inputs["tokenizer"])
        if self.length > self.model.max_positions:
            raise TriviumError(
                f"spans: rows of {self.length} tokens, but the model has {self.model.max_positions} positions; raise "
                "model.max_positions or lower length")
        corpus, config = Tokens.open(context.inputs["tokens"] / "train", tokenizer.digest), shape_of(self, tokenizer)
        batches, unseen = (batches_of(part, self, context, tokenizer) for part in ("train", "validation"))
        if not batches.trees or not unseen.trees:
            raise TriviumError("spans: there is nothing to read; the corpus, or its held-out part, is empty")
        model = EncoderDecoder(config).initialise(randomness.derive(context.seed, "initialise")).to(device)
        steps = self.steps if self.steps is not None else round(self.epochs * batches.steps_per_epoch)
        context.progress.say(f"{sum(p.numel() for p in model.parameters()) / 1e6:.2f}M parameters, "
                             f"{counted(steps, 'step')}")
        outcome = run_training(model, WritingTargets(), batches, steps, self, context, corpus.header, heldout=unseen)
        if not outcome.leader:
            return {}
        save_folder(outcome.model.eval(), with_sentinels(tokenizer, self.sentinels), context)
        return {
            "parameters": sum(p.numel() for p in model.parameters()), "steps": steps, "precision": outcome.precision,
            "validation_loss": mean_loss(outcome.model, unseen, device), "chance_loss": float(np.log(config.vocab_size))
        }

    def cost(self, estimate: Estimate) -> Cost:
        """The updates, and a pass over the held-out text."""
        context = estimate.context(self)
        tokenizer = ChatTokenizer.load(context.inputs["tokenizer"])
        model = EncoderDecoder(shape_of(self, tokenizer)).initialise(0)
        batches, unseen = (batches_of(part, self, context, tokenizer) for part in ("train", "validation"))
        return self.reading_cost(estimate, model, WritingTargets(), batches, unseen)

    def stand_in(self, estimate: Estimate) -> Path:
        """An encoder-decoder with random weights."""
        context = estimate.context(self)
        tokenizer = ChatTokenizer.load(context.inputs["tokenizer"])
        save_folder(EncoderDecoder(shape_of(self, tokenizer)).initialise(0), with_sentinels(tokenizer, self.sentinels),
                    context)
        return context.folder


class PairEpochs(PackedEpochs):
    """Packed pairs, of which the prompt is the source and the response the target: each row has ``length`` places for
    sources and as many for their targets, unless ``target_length`` says otherwise. ``end`` begins every target.
    ``change`` gets a tree and the epoch and makes the pair of it; its sizes must not depend on the epoch."""

    def __init__(self, trees: Sequence[Tree], length: int, rows: int, seed: int, end: int,
                 target_length: int | None = None, change: Callable[[Tree, int],
                                                                    Tree] = lambda tree, epoch: tree) -> None:
        self.end, self.change, self.target_length = end, change, target_length or length
        super().__init__(trees, length, rows, seed)

    def size_of(self, tree: Tree) -> int:
        """The larger of the shares of its row that source and target take, in places for sources."""
        pair = self.change(tree, 0)
        return max(len(pair.prompt), -(-(1 + len(pair.responses[0])) * self.length // self.target_length))

    def make(self, rows: list[list[Tree]], count: int, epoch: int) -> Batch:
        """The targets' batch, with the sources' in ``extra``: the n-th segment of one belongs to the n-th tree of the
        other."""
        pairs = [[self.change(tree, epoch) for tree in row] for row in rows]
        sources = make_batch([[Tree(pair.prompt, ()) for pair in row] for row in pairs], self.length, count)
        begin = np.array([self.end], np.int64)
        batch = make_batch([[replace(pair, prompt=begin) for pair in row] for row in pairs], self.target_length, count)
        batch.extra = {"tokens": sources.tokens, "positions": sources.positions, "documents": sources.documents}
        return batch


class WritingTargets(Objective):
    """Next-token prediction of targets, given their sources."""

    weights = {"loss": 1.0}

    def __call__(self, model: Any, batch: Batch) -> dict[str, Total]:
        """The mean over the targets' tokens."""
        sources = batch.extra
        memory = model.read(sources["tokens"], sources["documents"], sources["positions"])
        owners = batch.documents.div(2, rounding_mode="floor")  # a target is two segments: what begins it, and itself
        # padding sees all, lest it see nothing
        seen = (owners[:, :, None] == sources["documents"][:, None, :]) | (owners < 0)[:, :, None]
        hidden = hidden_states(model.model.decoder, batch, cross=look_at(memory, seen))
        return {
            "loss": Total(-token_log_probs(hidden[batch.sources], model.lm_head.weight, batch.targets).sum(), "tokens")
        }


def corrupted(tokens: np.ndarray, first: int, share: float, span: float, most: int,
              rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """A text ``[n]`` as a source, in which each span is replaced by a sentinel, and a target, which has each sentinel
    and what stood there. As in T5, ``round(n * share)`` tokens are cut out in ``round(that / span)`` spans (at least
    one, at most ``most``, and no more than both kinds of tokens allow), whose lengths, and those of what stays between
    them, are a random composition; the text begins with what stays. Sentinels count from ``first``."""
    n = len(tokens)
    cut = min(max(1, round(n * share)), n - 1)
    count = min(max(1, round(cut / span)), most, cut, n - cut)

    def composed(total: int) -> np.ndarray:
        """``count`` positive lengths that add up to ``total``, all such equally likely."""
        places = np.sort(rng.permutation(total - 1)[:count - 1]) + 1
        return np.diff(np.concatenate([[0], places, [total]]))

    lengths = np.stack([composed(n - cut), composed(cut)], 1).flatten()
    pieces = np.split(tokens, np.cumsum(lengths)[:-1])
    sentinels = [np.array([first + i], np.int64) for i in range(count)]
    source = [part for i in range(count) for part in (pieces[2 * i], sentinels[i])]
    target = [part for i in range(count) for part in (sentinels[i], pieces[2 * i + 1])]
    return np.concatenate(source), np.concatenate(target)


def cut_out(settings: Spans, seed: int, first: int, end: int) -> Callable[[Tree, int], Tree]:
    """What makes a pair of a text: other spans in every epoch, by the seed, the epoch and the text's number
    (``payload``) alone."""
    def change(tree: Tree, epoch: int) -> Tree:
        source, target = corrupted(tree.prompt, first, settings.share, settings.span, settings.sentinels,
                                   randomness.numpy(seed, "spans", epoch, tree.payload))
        return Tree(source, (np.append(target, end),), payload=tree.payload)

    return change




def batches_of(part: str, settings: Spans, context: Context, tokenizer: ChatTokenizer) -> PairEpochs:
    """Those of the corpus's ``train`` or ``validation``. What is cut out is a small part of what stays, so its rows are
    shorter."""
    target_length = max(8, min(settings.length,
                               round(settings.length * settings.share * (1 + 2 / settings.span) * 1.25)))
    trees = [
        tree for tree in texts(Tokens.open(context.inputs["tokens"] / part, tokenizer.digest), settings.length)
        if len(tree) > 1
    ]
    end = tokenizer.document_id
    return PairEpochs(trees, settings.length, settings.rows, context.seed, end, target_length,
                      cut_out(settings, context.seed, tokenizer.vocab_size, end))


def shape_of(settings: Spans, tokenizer: ChatTokenizer) -> EncoderDecoderConfig:
    """The model's shape, with a row of the embedding for each sentinel."""
    return replace(settings.model, vocab_size=tokenizer.vocab_size + settings.sentinels)




@torch.no_grad()
def mean_loss(model: EncoderDecoder, batches: PairEpochs, device: torch.device) -> float:
    """Nats a target's token, over an epoch."""
    nats = count = 0.0
    for step in range(batches.steps_per_epoch):
        for batch in batches(step):
            nats += WritingTargets()(model, batch.to(device))["loss"].value.item()
            count += batch.counts["tokens"]
    return nats / max(1.0, count)


def with_sentinels(tokenizer: ChatTokenizer, count: int) -> ChatTokenizer:
    """A tokenizer that knows so many sentinels as well, ``<|span_0|>`` and on."""
    from tokenizers import Tokenizer
    known = Tokenizer.from_buffer(tokenizer.data)
    known.add_special_tokens([f"<|span_{i}|>" for i in range(count)])
    return ChatTokenizer(known)


def save_folder(model: EncoderDecoder, tokenizer: ChatTokenizer, context: Context) -> None:
    """Write the model and its tokenizer."""
    save_tokenizer(tokenizer, context)
    model.save_folder(context.folder, ids_of(tokenizer))


def ids_of(tokenizer: ChatTokenizer) -> dict[str, int]:
    """The ids that an encoder-decoder's ``config.json`` names."""
    return {"pad": tokenizer.pad_id, "eos": tokenizer.document_id}


def save_tokenizer(tokenizer: ChatTokenizer, context: Context) -> None:
    """A tokenizer without a chat template: sources and targets are texts."""
    special = {"eos_token": "<|endoftext|>", "bos_token": "<|endoftext|>", "pad_token": "<|pad|>"}
    write_bytes(context.folder / "tokenizer.json", tokenizer.data)
    write_json(context.folder / "special_tokens_map.json", special)
    write_json(
        context.folder / "tokenizer_config.json", {
            **special, "tokenizer_class": "PreTrainedTokenizerFast", "clean_up_tokenization_spaces": False,
            "model_max_length": 1 << 30, "model_input_names": ["input_ids", "attention_mask"]
        })
