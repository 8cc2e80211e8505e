"""Keeping what was learned: rows of earlier tasks, questions that the model asks itself, and right answers before and
after."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from trivium import randomness
from trivium.data.demonstrations import check_conversation
from trivium.errors import TriviumError
from trivium.files import Row
from trivium.generation.engine import Sampling, generate
from trivium.intervals import mean_interval
from trivium.model import LanguageModel
from trivium.stage import Context
from trivium.stages.models import prompt_ids
from trivium.stages.rows import rows_of
from trivium.tokenizer.chat import ChatTokenizer, text_of_answer

PROBES = 200
"""Rows of each earlier task, at most, on which right answers are counted; they are never rehearsed."""


@dataclass
class Earlier:
    """The rows of an earlier task."""

    heldout: list[Row]
    """Those on which right answers are counted."""
    rest: list[Row]
    """Those that may be rehearsed."""


def split_earlier(context: Context) -> dict[str, Earlier]:
    """The earlier tasks' rows, a tenth of them (at most :data:`PROBES`) held out by a hash of the question."""
    found: dict[str, Earlier] = {}
    for name in context.inputs.get("earlier", {}):
        rows = rows_of(context.inputs["earlier"][name], "demonstrations.jsonl", ["messages"], context,
                       lambda row: void(check_conversation(row["messages"])))
        order = sorted(rows, key=lambda row: randomness.derive(0, "probe", json.dumps(row["messages"], sort_keys=True)))
        size = min(PROBES, max(1, len(order) // 10))
        found[name] = Earlier(order[:size], order[size:])
        if not found[name].rest:
            raise TriviumError(
                f"{context.name}.earlier.{name}: one row is too few: some are held out to count right answers")
    return found


def void(value: Any) -> None:
    """Take no notice of a value."""


def exact_answers(model: LanguageModel, tokenizer: ChatTokenizer, rows: Sequence[Row],
                  max_new_tokens: int = 128) -> dict[str, Any]:
    """The share of rows whose last answer the model gives word for word (white space apart) when it takes the likeliest
    tokens."""
    prompts = [prompt_ids(tokenizer, row["messages"][:-1], row.get("tools")).tolist() for row in rows]
    asked = [(row, prompt) for row, prompt in zip(rows, prompts, strict=True)
             if len(prompt) + 1 < model.config.max_positions]
    answers = answer_all(model, tokenizer, [prompt for _, prompt in asked], 0.0, max_new_tokens, 0)
    return mean_interval([float(" ".join((text or "").split()) == " ".join(text_of_answer(row["messages"][-1]).split()))
                          for (row, _), text in zip(asked, answers, strict=True)])


def answer_all(model: LanguageModel, tokenizer: ChatTokenizer, prompts: Sequence[list[int]], temperature: float,
               max_new_tokens: int, seed: int) -> list[str | None]:
    """The model's answers; None for one that never ends."""
    groups = generate(model, prompts, Sampling(temperature=temperature, max_new_tokens=max_new_tokens, seed=seed),
                      [tokenizer.end_id])
    return [tokenizer.decode(group[0].tokens[:-1]) if group[0].finished else None for group in groups]


def asked_by_the_model(model: LanguageModel, tokenizer: ChatTokenizer, count: int, max_new_tokens: int,
                       context: Context) -> list[Row]:
    """Conversations that the model makes up: it begins a user's turn, and answers it (LAMOL's pseudo-samples). Those
    that do not end, or are empty, are drawn again, a few times; raises where most are."""
    open_turn = tokenizer.open_turn()
    stops = sorted(tokenizer.stop_ids)
    found: dict[str, Row] = {}
    for turn in range(8):
        missing = count - len(found)
        if missing <= 0:
            break
        sampling = Sampling(temperature=1.0, max_new_tokens=max_new_tokens,
                            seed=randomness.derive(context.seed, "rehearsal", turn))
        drawn = generate(model, [open_turn], sampling, stops, samples=missing + 8)[0]
        questions = [
            tokenizer.decode(sample.tokens[:-1]).split("\n<|assistant|>")[0].strip() for sample in drawn
            if sample.finished
        ]
        questions = [text for text in questions if text]
        prompts = [prompt_ids(tokenizer, [{"role": "user", "content": text}]).tolist() for text in questions]
        fitting = [(text, prompt) for text, prompt in zip(questions, prompts, strict=True)
                   if len(prompt) + 1 < model.config.max_positions]
        answers = answer_all(model, tokenizer, [prompt for _, prompt in fitting], 1.0, max_new_tokens,
                             randomness.derive(context.seed, "rehearsal answers", turn)) if fitting else []
        for (text, _), answer in zip(fitting, answers, strict=True):
            if answer and answer.strip() and len(found) < count:
                found.setdefault(
                    text, {
                        "messages": [{"role": "user", "content": text}, {"role": "assistant", "content": answer}],
                        "source": "rehearsal"
                    })
    if len(found) < count / 4:
        raise TriviumError(
            f"{context.name}: the model makes up only {len(found)} of {count} conversations to rehearse; "
            "train the stage before with `prompt_loss`, so that it learns to ask, or give `earlier` rows")
    return list(found.values())
