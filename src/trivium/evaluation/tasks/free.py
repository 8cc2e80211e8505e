"""Free answers: the model writes, an extractor finds the answer, a comparison judges it."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any, ClassVar, Literal

from pydantic import Field

from trivium.errors import TriviumError
from trivium.evaluation import choices, comparing, overlap
from trivium.evaluation.checkers import CHECKS, answer_fault
from trivium.evaluation.model import EvaluatedModel
from trivium.evaluation.statistics import classification, rate
from trivium.evaluation.tasks.questions import Item, QuestionTask, limit_groups, rate_with_groups
from trivium.evaluation.tasks.task import Pattern, Result
from trivium.evaluation.tasks.templates import render
from trivium.files import Row


class Free(QuestionTask):
    """Free answers: the model writes, an extractor finds the answer, a comparison judges it."""

    kind: ClassVar[str] = "free"
    answer: str = "{{ answer }}"
    """The right answer, as a template."""
    worked: str = ""
    """What an example shows as its answer, as a template: with the reasoning, it makes a chain of thought. Empty: the
    answer."""
    think: str = ""
    """What the answer begins with, such as "Let's think step by step." (Kojima et al. 2022)."""
    extract: Pattern = ""
    """A regular expression for the answer in what the model wrote: its first group, or all of it. Empty takes all."""
    take: Literal["first", "last"] = "last"
    """Which match."""
    compare: Literal["exact", "number", "choice", "contains", "rouge_1", "rouge_2", "rouge_l", "bleu", "chrf"] = "exact"
    """How it is judged, from 0 to 1. exact: the same apart from case, width, spaces and marks around it; number: the
    same number; choice: the letter that it settles on; contains: the answer stands in it as whole words; rouge_1,
    rouge_2, rouge_l, bleu, chrf: how much it has in common with the answer."""
    stop: list[str] = ["\n\n"]
    """Where an answer ends, in text."""
    max_new_tokens: int = Field(128, ge=1)
    """Longest answer, in tokens."""
    labels: list[str] = []
    """The classes, when the answers are such: precision, recall and F1 are then reported for each."""

    def examine(self, file: Path, model: EvaluatedModel, opponent: EvaluatedModel | None = None) -> Result:
        """``right``: the share of answers that the task's comparison accepts, or the mean of what it gives;
        ``answered``: the share of those in which the extractor found anything, and of a choice a letter."""
        every = self.items(file, self.data, model.seed)
        items = limit_groups(every, self.limit)
        expected = {id(item): self.expected_answer(item) for item in every}
        answers = [expected[id(item)] for item in items]
        prompts, trimmed = self.prompts(file, items, every, model)
        texts = [group[0] for group in model.generate(prompts, self.max_new_tokens, what=self.name,
                                                      stop=() if self.asks_by_chat(model) else self.stop)]
        rows: list[Row] = []
        for item, answer, text in zip(items, answers, texts, strict=True):
            found = self.extracted(text)
            rows.append({
                **item.place, "prompt": item.prompt, "answer": answer, "said": text,
                "found": found, "score": 0.0 if found is None else self.points(found, answer)
            })
        return self.result(self.metrics(rows, items), rows, self.conditions(model, trimmed))

    def check(self, file: Path) -> None:
        """Raise :class:`TriviumError` for a row without a prompt and an answer that can be right."""
        for item in self.items(file, self.data, 0):
            self.expected_answer(item)
        if self.compare in ("bleu", "chrf"):
            overlap.require()

    def expected_answer(self, item: Item) -> str:
        """The right answer. Raises :class:`TriviumError` that names file and row for one that cannot be right."""
        answer = render(self.answer, item.row, item.where)
        if self.labels and answer not in self.labels:
            raise TriviumError(f"{item.where}: the answer {answer!r} is outside its choices ({', '.join(self.labels)})")
        if fault := answer_fault(self.compare, answer):
            raise TriviumError(f"{item.where}: the answer {answer!r} {fault}")
        if self.compare == "number" and not self.same(answer, answer):
            raise TriviumError(f"{item.where}: the answer {answer!r} is no number")
        return answer

    def prompts(self, file: Path, items: Sequence[Item], every: list[Item],
                model: EvaluatedModel) -> tuple[list[list[int]], int]:
        """The questions with their examples as token ids, and how many had to be shortened."""
        longest = model.longest_prompt(self.max_new_tokens)
        if longest < 2:
            raise TriviumError(f"{file}: max_new_tokens: {self.max_new_tokens} leave no room for a question in the "
                               f"model's {model.longest_prompt(0)} positions")
        pool = self.example_pool(file, every, model.seed)
        prompts, trimmed = [], 0
        for item in items:
            examples = [(other.prompt, render(self.worked or self.answer, other.row, other.where))
                        for other in self.choose_examples(item, pool, model.seed)]
            prompt, short = self.fitting(
                examples, lambda shown, item=item: self.encode_question(  # type: ignore[misc]
                    item, shown, model, " ", self.think), lambda tokens: len(tokens) <= longest)
            prompts.append(prompt[-longest:])
            trimmed += short
        return prompts, trimmed

    def extracted(self, text: str) -> str | None:
        """The answer in what a model wrote, or None."""
        if not self.extract:
            return text.strip() or None
        matches = list(re.finditer(self.extract, text, re.MULTILINE))
        if not matches:
            return None
        match = matches[0 if self.take == "first" else -1]
        return next((group for group in match.groups() if group is not None), match[0]).strip()

    def points(self, found: str, answer: str) -> float:
        """How good an extracted answer is, from 0 to 1."""
        if self.compare == "exact":
            return float(comparing.exact(found, answer))
        return CHECKS[self.compare][1]({"answer": answer}, found)

    def same(self, found: str, answer: str) -> bool:
        """Whether an extracted answer is the right one."""
        return self.points(found, answer) == 1.0

    def metrics(self, rows: Sequence[Row], items: Sequence[Item]) -> dict[str, Any]:
        """The figures of all questions together, and the rate of right answers of each group."""
        metrics = rate_with_groups("right", rows, items)
        metrics["answered"] = rate([float(self.is_answer(row["found"], row["answer"])) for row in rows],
                                   [item.cluster for item in items])
        if self.labels:
            metrics["classification"] = classification([row["answer"] for row in rows],
                                                       [self.label_of(row["found"]) for row in rows])
        return metrics

    def is_answer(self, found: str | None, answer: str) -> bool:
        """Whether an answer could be read: of a choice, a letter."""
        return found is not None and (self.compare != "choice" or choices.choice_of(found, answer) is not None)

    def label_of(self, found: str | None) -> str | None:
        """The class that an extracted answer names."""
        return None if found is None else next((label for label in self.labels if self.same(found, label)), None)
