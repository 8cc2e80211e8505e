"""Multiple choice: the likeliest of several continuations counts as the answer."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, ClassVar

from trivium.errors import TriviumError
from trivium.evaluation import likelihood
from trivium.evaluation.model import EvaluatedModel
from trivium.evaluation.statistics import rate
from trivium.evaluation.tasks.questions import Item, QuestionTask, limit_groups, rate_with_groups
from trivium.evaluation.tasks.task import Result
from trivium.evaluation.tasks.templates import evaluate_expression
from trivium.files import Row

AT_ONCE = 64
"""Questions that are scored in one go."""


class Choice(QuestionTask):
    """Multiple choice: the likeliest of several continuations counts as the answer."""

    kind: ClassVar[str] = "choice"
    choices: str = "choices"
    """An expression over the row's fields that gives the list of continuations."""
    answer: str = "answer"
    """An expression that gives the right one's place from 0, its text, or a list of right places."""
    lead: str = " "
    """What stands between the prompt and a choice in text. White space at the prompt's end is counted with the
    choice, as lm-evaluation-harness does."""

    def examine(self, file: Path, model: EvaluatedModel, opponent: EvaluatedModel | None = None) -> Result:
        """``accuracy`` by the sum of log-probabilities, ``accuracy_per_character`` by that over the choice's characters
        (lm-evaluation-harness's acc_norm), ``accuracy_per_byte`` by that over its bytes (acc_bytes),
        ``probability_of_right``: the share that right choices have of all choices' probability (TruthfulQA's MC2)."""
        every = self.items(file, self.data, model.seed)
        items = limit_groups(every, self.limit)
        # a fault anywhere in the file is found before hours of work
        checked = {id(item): self.choices_of(item) for item in every}
        choices = [checked[id(item)] for item in items]
        pool = self.example_pool(file, every, model.seed)
        longest, encoded, trimmed = model.longest_prompt(0), [], 0
        for item, (texts, _) in zip(items, choices, strict=True):
            examples = [self.example(other) for other in self.choose_examples(item, pool, model.seed)]
            pairs, short = self.fitting(
                examples, lambda shown, item=item, texts=texts: self.encode_choices(  # type: ignore[misc]
                    item, shown, texts, model),
                lambda pairs: all(len(context) + len(choice) <= longest for context, choice in pairs))
            encoded.append(pairs)
            trimmed += short
        scored = self.score(encoded, model)
        rows = [scored_row(item, texts, places, sums)
                for item, (texts, places), sums in zip(items, choices, scored, strict=True)]
        return self.result(self.metrics(rows, items), rows, self.conditions(model, trimmed))

    def check(self, file: Path) -> None:
        """Raise :class:`TriviumError` for a row without a prompt, choices and a right one among them."""
        for item in self.items(file, self.data, 0):
            self.choices_of(item)

    def choices_of(self, item: Item) -> tuple[list[str], list[int]]:
        """An item's choices and the places of the right ones.

        Raises :class:`TriviumError` that names file and row for an answer outside the choices."""
        choices = evaluate_expression(self.choices, item.row, item.where)
        if not isinstance(choices, (list, tuple)) or len(choices) < 2 or not all(
                isinstance(choice, (str, int, float)) for choice in choices):
            raise TriviumError(
                f"{item.where}: the choices are no list of at least two texts (they are {str(choices)[:80]!r})")
        texts = [str(choice) for choice in choices]
        if "" in texts:
            raise TriviumError(f"{item.where}: choice {texts.index('')} is empty")
        answer = evaluate_expression(self.answer, item.row, item.where)
        answers = answer if isinstance(answer, (list, tuple)) else [answer]
        if not answers:
            raise TriviumError(f"{item.where}: no choice is right")
        return texts, [place_in(texts, one, item.where) for one in answers]

    def example(self, item: Item) -> tuple[str, str]:
        """An item as an example: its prompt and the first right choice."""
        texts, places = self.choices_of(item)
        return item.prompt, texts[places[0]]

    def encode_choices(self, item: Item, examples: Sequence[tuple[str, str]], choices: Sequence[str],
                       model: EvaluatedModel) -> list[tuple[list[int], list[int]]]:
        """``(context, continuation)`` of each choice as token ids. All that is asked and the choice are tokenised as
        one, as a text (:func:`~trivium.evaluation.likelihood.split_at`) or as a chat.

        Raises :class:`TriviumError` for a choice that has no token of its own."""
        tokenizer = model.tokenizer
        if self.asks_by_chat(model):
            messages = self.question_messages(item, examples)
            pairs = [likelihood.split_chat(tokenizer, messages, choice) for choice in choices]
        else:
            text, lead = self.question_text(item, examples, self.lead), self.lead if item.prompt else ""
            split = [likelihood.split_at(tokenizer, text, lead + choice) for choice in choices]
            pairs = [(tokenizer.started(context), continuation) for context, continuation in split]
        mute = next((place for place, (_, continuation) in enumerate(pairs) if not continuation), None)
        if mute is not None:
            raise TriviumError(f"{item.where}: choice {mute} ({choices[mute]!r}) has no token of its own after the "
                               "prompt; begin it, or `lead`, with a space")
        return pairs

    def score(self, encoded: Sequence[list[tuple[list[int], list[int]]]], model: EvaluatedModel) -> list[list[float]]:
        """The log-probability in nats of each continuation after its context. Choices of one question that have the
        same context share its computation."""
        scored: list[list[float]] = []
        for start in range(0, len(encoded), AT_ONCE):
            part = encoded[start:start + AT_ONCE]
            groups: dict[tuple[int, tuple[int, ...]], list[list[int]]] = {}
            for number, pairs in enumerate(part):
                for context, continuation in pairs:
                    groups.setdefault((number, tuple(context)), []).append(continuation)
            found = likelihood.score_continuations(model.language_model, [context for _, context in groups],
                                                   list(groups.values()))
            totals = {key: iter(group) for key, group in zip(groups, found, strict=True)}
            scored += [[next(totals[number, tuple(context)])[0] for context, _ in pairs]
                       for number, pairs in enumerate(part)]
            model.progress(len(scored), len(encoded), self.name)
        return scored

    def metrics(self, rows: Sequence[Row], items: Sequence[Item]) -> dict[str, Any]:
        """The figures of all questions together, and the accuracy of each group."""
        clusters = [item.cluster for item in items]
        chances = math.fsum(len(row["right"]) / len(row["choices"]) for row in rows)
        return rate_with_groups("accuracy", rows, items) | {
            "accuracy_per_character": rate([row["score_per_character"] for row in rows], clusters),
            "accuracy_per_byte": rate([row["score_per_byte"] for row in rows], clusters),
            "probability_of_right": rate([row["probability_of_right"] for row in rows], clusters),
            "chance": chances / len(rows)}


def place_in(choices: Sequence[str], answer: Any, where: str) -> int:
    """The place of an answer, given by its text or its place, among the choices."""
    if isinstance(answer, str) and answer in choices:
        return choices.index(answer)
    number = isinstance(answer, (int, str)) and not isinstance(answer, bool) and re.fullmatch(r"\d{1,4}", str(answer))
    if number and int(answer) < len(choices):
        return int(answer)
    raise TriviumError(f"{where}: the answer {answer!r} is outside its {len(choices)} choices (0 to "
                       f"{len(choices) - 1}, or one of their texts)")


def scored_row(item: Item, choices: list[str], right: list[int], log_probs: list[float]) -> Row:
    """A question with the log-probability of each choice, and what follows from them."""
    chosen = log_probs.index(max(log_probs))

    def right_by(size: Callable[[str], int]) -> float:
        means = [total / size(choice) for total, choice in zip(log_probs, choices, strict=True)]
        return float(means.index(max(means)) in right)

    shares = [math.exp(total - max(log_probs)) for total in log_probs]
    return {
        **item.place, "prompt": item.prompt, "choices": choices, "right": right,
        "log_probs": log_probs, "chosen": chosen, "score": float(chosen in right),
        "score_per_character": right_by(len), "score_per_byte": right_by(lambda choice: len(choice.encode())),
        "probability_of_right": math.fsum(shares[place] for place in right) / math.fsum(shares)
    }
