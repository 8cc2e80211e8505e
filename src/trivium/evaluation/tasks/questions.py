"""Tasks whose rows are questions: how a row becomes a question, and a question with its examples a prompt."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any, Literal, TypeVar

from pydantic import Field

from trivium import randomness
from trivium.errors import TriviumError, counted
from trivium.evaluation.model import EvaluatedModel, Messages
from trivium.evaluation.statistics import rate
from trivium.evaluation.tasks.rows import place_of, read_files
from trivium.evaluation.tasks.task import Task
from trivium.evaluation.tasks.templates import render
from trivium.files import Row, read_text

T = TypeVar("T")


@dataclass(frozen=True)
class Item:
    """A question made from a row."""

    where: str
    """The file and row, for errors."""
    row: Row
    prompt: str
    group: str
    cluster: str
    key: int
    """A hash of the row's content, by which rows are chosen."""
    opening: str = ""
    """What stands before everything when it is asked."""

    @property
    def place(self) -> Row:
        """Where it stands, its group, and its cluster where that is not its own."""
        alone = {} if self.cluster == self.where else {"cluster": self.cluster}
        return {"where": self.where, "group": self.group, **alone}


class QuestionTask(Task):
    """What tasks have whose rows are questions."""

    prompt: str = "{{ prompt }}"
    """The question, as a template over the row's fields. ``stem`` is the name of its file without endings."""
    group: str = ""
    """A template that names the part a row belongs to, such as its subject: results come for each part too."""
    cluster: str = ""
    """A template that names questions which stand and fall together: intervals count them as one. Empty: each is its
    own."""
    lines: dict[str, str] = {}
    """Fields of the rows that stand in files of their own, a line for each row of ``data``: {label: labels.lst}."""
    examples: list[str] = []
    """Files of rows to show as examples; when empty, other rows of ``data`` are shown."""
    shots: int = Field(0, ge=0)
    """Examples before each question: rows of the same group, chosen by a hash of the question's row."""
    separator: str = "\n\n"
    """What stands between examples in text."""
    intro: str = ""
    """What stands before everything, as a template over the row."""
    intro_file: str = ""
    """A file whose text ``intro`` may show as ``file_text``; its name is a template over the row."""
    form: Literal["auto", "chat", "text"] = "auto"
    """Ask by chat messages or by plain text; auto asks models that end turns by chat."""

    def files(self) -> list[str]:
        """Every file, folder or pattern that the task reads."""
        before = [re.sub(r"\{[{%].*?[%}]\}", "*", self.intro_file)] if self.intro_file else []
        return [*self.data, *self.examples, *self.lines.values(), *before]

    def asks_by_chat(self, model: EvaluatedModel) -> bool:
        """Whether a model is asked by chat messages."""
        return self.form == "chat" or (self.form == "auto" and model.chat)

    def items(self, file: Path, names: Iterable[str], seed: int) -> list[Item]:
        """The questions of the files ``names``, in their order. Raises :class:`TriviumError` that names file and
        row."""
        items = []
        beside = self.beside(file) if list(names) == list(self.data) else {}
        for place, (source, number, row) in enumerate(read_files(file, names, self.rows)):
            if beside and any(place >= len(values) for values in beside.values()):
                raise TriviumError(f"{source}: row {number}: {', '.join(self.lines.values())}: has no line for it")
            row |= {field: values[place] for field, values in beside.items()}
            where = f"{source}: row {number}"
            key = randomness.derive(seed, "task", json.dumps(row, sort_keys=True, ensure_ascii=False, default=str))
            group = render(self.group, row, where) if self.group else ""
            cluster = render(self.cluster, row, where) if self.cluster else where
            items.append(Item(where, row, render(self.prompt, row, where), group, cluster, key,
                              self.opening(file, row, where)))
        if not items:
            raise TriviumError(f"{file}: no rows in {', '.join(names)}")
        for field, values in beside.items():
            if len(values) != len(items):
                raise TriviumError(f"{file}: {self.lines[field]}: {len(values)} lines for {counted(len(items), 'row')}")
        return items

    def opening(self, file: Path, row: Row, where: str) -> str:
        """What stands before everything when a row is asked. Raises :class:`TriviumError` that names the row for an
        ``intro_file`` that is not there."""
        if not self.intro_file:
            return render(self.intro, row, where) if self.intro else ""
        name = render(self.intro_file, row, where)
        place = place_of(file, name)
        if not place.is_file():
            raise TriviumError(f"{where}: intro_file: {name}: no such file beside {file} or in {Path.cwd()}")
        return render(self.intro, {**row, "file_text": _text_of(place)}, where)

    def beside(self, file: Path) -> dict[str, list[str]]:
        """The fields that stand in files of ``lines``. Raises :class:`TriviumError` for one that is not there."""
        found = {}
        for field, name in self.lines.items():
            place = place_of(file, name)
            if not place.is_file():
                raise TriviumError(f"{file}: lines: {name}: no such file beside it or in {Path.cwd()}")
            found[field] = read_text(place).splitlines()
        return found

    def example_pool(self, file: Path, items: list[Item], seed: int) -> dict[str, list[Item]]:
        """The questions that may be shown as examples, by group: those of ``examples``, or else the task's own."""
        return by_group(self.items(file, self.examples, seed) if self.examples else items)

    def choose_examples(self, item: Item, pool: dict[str, list[Item]], seed: int) -> list[Item]:
        """The examples for a question, from ``pool`` by group: of its own group if that has any.

        Of ``examples`` the first ones are shown, the same for all; of the task's own questions some that a hash
        chooses, never the question itself."""
        if not self.shots:
            return []
        alike = pool.get(item.group) or [other for group in pool.values() for other in group]
        if len(alike) - any(other.where == item.where for other in alike[:self.shots + 1]) < self.shots:
            raise TriviumError(f"{item.where}: only {counted(len(alike), 'row')} can be shown as examples, but "
                               f"shots is {self.shots}; lower `shots` or name more `examples`")
        if self.examples:
            return [other for other in alike[:self.shots + 1] if other.where != item.where][:self.shots]
        drawn = randomness.python(seed, "shots", item.key).sample(alike, self.shots + 1)
        return [other for other in drawn if other is not item][:self.shots]

    def question_text(self, item: Item, examples: Sequence[tuple[str, str]], lead: str) -> str:
        """A question after its examples ``(prompt, answer)`` as plain text; ``lead`` stands between a prompt and its
        answer."""
        before = "".join(f"{prompt}{lead}{answer}{self.separator}" for prompt, answer in examples)
        return item.opening + before + item.prompt

    def question_messages(self, item: Item, examples: Sequence[tuple[str, str]]) -> Messages:
        """A question after its examples as chat messages."""
        messages = [{"role": role, "content": text} for prompt, answer in examples
                    for role, text in (("user", prompt), ("assistant", answer))]
        messages.append({"role": "user", "content": item.prompt})
        messages[0] = {"role": "user", "content": item.opening + messages[0]["content"]}
        return messages

    def encode_question(self, item: Item, examples: Sequence[tuple[str, str]], model: EvaluatedModel, lead: str,
                        think: str = "") -> list[int]:
        """A question after its examples, as the tokens that the answer continues; ``think`` is what the answer begins
        with."""
        tokenizer = model.tokenizer
        if self.asks_by_chat(model):
            tokens = tokenizer.encode_chat(self.question_messages(item, examples), generation_prompt=True)[0]
            return tokens + (tokenizer.encode(think) if think else [])
        text = self.question_text(item, examples, lead) + (lead + think if think else "")
        return tokenizer.started(tokenizer.encode(text))

    def fitting(self, examples: Sequence[tuple[str, str]], encode: Callable[[Sequence[tuple[str, str]]], T],
                fits: Callable[[T], bool]) -> tuple[T, bool]:
        """What ``encode`` makes of a question with as many of its examples as ``fits``, the first ones left out, and
        whether anything was too long. A question that does not fit alone is not cut."""
        for start in range(len(examples) + 1):
            encoded = encode(examples[start:])
            if fits(encoded):
                break
        return encoded, not fits(encoded) or len(examples) - start < self.shots

    def conditions(self, model: EvaluatedModel, trimmed: int = 0) -> dict[str, Any]:
        """How a model was asked. ``trimmed`` counts questions with fewer examples, or with a beginning cut off, because
        the model has no more room."""
        form = "chat" if self.asks_by_chat(model) else "text"
        return {"form": form, "shots": self.shots} | ({"trimmed": trimmed} if trimmed else {})


@lru_cache(maxsize=128)
def _text_of(place: Path) -> str:
    return read_text(place)


def by_group(items: Iterable[Item]) -> dict[str, list[Item]]:
    """Items under the names of their groups."""
    groups: dict[str, list[Item]] = {}
    for item in items:
        groups.setdefault(item.group, []).append(item)
    return groups


def limit_groups(items: list[Item], limit: int | None) -> list[Item]:
    """At most ``limit`` items of each group, by their keys; in the order of ``items``."""
    if limit is None:
        return items
    kept = {id(item) for group in by_group(items).values() for item in sorted(group, key=lambda item: item.key)[:limit]}
    return [item for item in items if id(item) in kept]


def rate_with_groups(name: str, rows: Sequence[Row], items: Sequence[Item]) -> dict[str, Any]:
    """The rate of ``score`` over all rows, under ``name``; the same for each group, and the mean over groups."""
    scores = [float(row["score"]) for row in rows]
    metrics: dict[str, Any] = {name: rate(scores, [item.cluster for item in items])}
    groups: dict[str, list[int]] = {}
    for index, item in enumerate(items):
        groups.setdefault(item.group, []).append(index)
    if set(groups) != {""}:
        metrics["groups"] = {group: rate([scores[i] for i in members], [items[i].cluster for i in members])
                             for group, members in sorted(groups.items())}
        total = math.fsum(part["value"] for part in metrics["groups"].values())
        metrics[f"mean_over_groups_{name}"] = total / len(groups)
    return metrics
