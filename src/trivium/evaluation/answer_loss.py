"""How surprised a model is by answers that it did not write: the loss of a conversation's assistant turns, given all
that was said before each, by the model's chat template."""

from __future__ import annotations

import math
from collections.abc import Callable, Hashable, Sequence
from typing import Any, NamedTuple

import numpy as np

from trivium.evaluation import likelihood
from trivium.evaluation.statistics import clustered, ratio_bootstrap
from trivium.files import Row
from trivium.model import LanguageModel
from trivium.tokenizer.chat import ChatTokenizer
from trivium.training.batch import Tree

AT_ONCE = 32
"""Conversations that are read in one go."""


class AnswerLoss(NamedTuple):
    """What a model made of a conversation's answers."""

    nats: float
    """The sum of the losses of the answers' tokens, those that end them included."""
    tokens: int
    bytes: int
    """The answers' length in UTF-8."""

    @property
    def mean(self) -> float:
        """Nats a token."""
        return self.nats / self.tokens


def answer_losses(model: LanguageModel, tokenizer: ChatTokenizer, rows: Sequence[Row],
                  progress: Callable[[int, int], None] = lambda done, total: None) -> list[AnswerLoss | None]:
    """The loss of what the assistant says in each row's ``messages`` (with its ``tools``, where it has any); None for a
    conversation that is longer than the model can read. Raises :class:`~trivium.errors.TriviumError` for one that the
    template refuses."""
    found: list[AnswerLoss | None] = []
    for start in range(0, len(rows), AT_ONCE):
        part = rows[start:start + AT_ONCE]
        read: dict[int, tuple[Tree, np.ndarray]] = {}
        for place, row in enumerate(part):
            more: dict[str, Any] = {"tools": row["tools"]} if row.get("tools") else {}
            ids, learned = tokenizer.encode_chat(row["messages"], **more)
            if len(ids) <= model.config.max_positions and any(learned):
                first = max(1, learned.index(True))
                tree = Tree(np.array(ids[:first], np.int64), (np.array(ids[first:], np.int64),))
                read[place] = tree, np.array(learned[first:], bool)
        values = likelihood.target_log_probs(model, [tree for tree, _ in read.values()])
        nats = {place: (-math.fsum(log_probs[mask]), int(mask.sum()))
                for (place, (_, mask)), log_probs in zip(read.items(), values, strict=True)}
        found += [AnswerLoss(*nats[place], said_bytes(row)) if place in nats else None
                  for place, row in enumerate(part)]
        progress(len(found), len(rows))
    return found


def said_bytes(row: Row) -> int:
    """The bytes of all that the assistant says to be learned in a row."""
    return sum(len(str(message["content"]).encode()) for message in row["messages"]
               if message["role"] == "assistant" and message.get("train") is not False)


def loss_figures(losses: Sequence[AnswerLoss], clusters: Sequence[Hashable], seed: int) -> dict[str, Any]:
    """``answer_loss`` in nats a token and ``answer_bits_per_byte``, each with a bootstrap interval over clusters, and
    ``answer_perplexity`` by token."""
    nats, tokens, sizes = (clustered([float(one[part]) for one in losses], clusters)[0] for part in range(3))
    return {"answer_loss": ratio_bootstrap(nats, tokens, seed),
            "answer_bits_per_byte": ratio_bootstrap(nats / math.log(2), sizes, seed),
            "answer_perplexity": math.exp(min(700.0, float(nats.sum() / tokens.sum())))}


def loss_difference(losses: Sequence[AnswerLoss], others: Sequence[AnswerLoss], clusters: Sequence[Hashable],
                    seed: int) -> dict[str, Any]:
    """How much higher the loss is than another model's on the same conversations, in nats a token."""
    nats = clustered([one.nats - other.nats for one, other in zip(losses, others, strict=True)], clusters)[0]
    return ratio_bootstrap(nats, clustered([float(one.tokens) for one in losses], clusters)[0], seed)
