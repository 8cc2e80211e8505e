"""Supervised fine-tuning: learn to answer from demonstrations."""

from __future__ import annotations

import numpy as np

from trivium.errors import TriviumError
from trivium.model.folder import read_config
from trivium.pipeline import Context
from trivium.stages.common import (
    PackedEpochs,
    Row,
    contents_of,
    fits,
    load_language_model,
    load_tokenizer,
    rows_of,
    run_training,
    sample_text,
    save_model,
    weights_digest,
)
from trivium.stages.pretrain import LanguageModelling
from trivium.stages.settings import Sft
from trivium.tokenizer.chat import ChatTokenizer
from trivium.training.batch import Tree
from trivium.training.machine import prepare

VERSION = 1
PARALLEL = True


def run(settings: Sft, context: Context) -> dict[str, object]:
    """Next-token prediction again, with loss on the assistant's words and the token that ends them."""
    device = prepare(context.threads)
    model, _ = load_language_model(context.inputs["model"])
    batches, tokenizer = training_data(settings, context)
    steps = max(1, round(settings.epochs * batches.steps_per_epoch))
    outcome = run_training(model.to(device), LanguageModelling(), batches, steps, settings, context,
                           weights_digest(context.inputs["model"]), contents_of(batches.trees),
                           sample=lambda model: sample_text(model, tokenizer, batches.trees[0].prompt.tolist(), context.seed))
    if not outcome.leader:
        return {}
    save_model(outcome.model, tokenizer, context.folder)
    return {"demonstrations": len(batches.trees), "steps": steps, "loss": outcome.metrics.get("loss")}


def training_data(settings: Sft, context: Context) -> tuple[PackedEpochs, ChatTokenizer]:
    """The batches, and the tokenizer that made them."""
    config, _ = read_config(context.inputs["model"])
    tokenizer = load_tokenizer(context.inputs["model"], config.vocab_size)
    length = min(settings.length, config.max_positions)
    rows = rows_of(context.inputs["demonstrations"], "demonstrations.jsonl", ["messages"], context, answered)
    trees = fits((conversation(tokenizer, row["messages"]) for row in rows), length, context.progress.say)
    return PackedEpochs(trees, length, settings.rows, context.seed), tokenizer


def answered(row: Row) -> None:
    """Refuse a demonstration in which the assistant says nothing."""
    if not any(message["role"] == "assistant" for message in row["messages"]):
        raise TriviumError("the assistant says nothing in these messages")


def conversation(tokenizer: ChatTokenizer, messages: list[dict[str, str]]) -> Tree:
    """A conversation as a tree: all up to the first word of the assistant is prompt, the rest is the response, in which
    only what the assistant says carries loss."""
    ids, learn = tokenizer.encode_chat(messages)
    first = learn.index(True)
    return Tree(np.array(ids[:first], np.int64), (np.array(ids[first:], np.int64),), (np.array(learn[first:], bool),))
