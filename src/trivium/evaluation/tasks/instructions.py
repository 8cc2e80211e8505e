"""Instructions that code can check (IFEval): the model writes, and rules say which instructions it followed."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, ClassVar

from pydantic import Field

from trivium.errors import TriviumError
from trivium.evaluation.instructions.following import NAMES, fault, verdicts
from trivium.evaluation.model import EvaluatedModel
from trivium.evaluation.statistics import rate
from trivium.evaluation.tasks.questions import Item, QuestionTask, limit_groups
from trivium.evaluation.tasks.task import Result
from trivium.files import Row


class Instructions(QuestionTask):
    """Instructions that code can check, such as "in at least 300 words" (IFEval): the model writes, rules judge."""

    kind: ClassVar[str] = "instructions"
    max_new_tokens: int = Field(1280, ge=1)
    """Longest answer, in tokens."""

    def check(self, file: Path) -> None:
        """Raise :class:`TriviumError` for a row whose instructions cannot be checked."""
        for item in self.items(file, self.data, 0):
            if found := fault(item.row):
                raise TriviumError(f"{item.where}: {found}")

    def examine(self, file: Path, model: EvaluatedModel, opponent: EvaluatedModel | None = None) -> Result:
        """``prompt_strict``: the share of prompts all of whose instructions are followed; ``instruction_strict``: the
        share of instructions; both again as ``loose``, and ``kinds``: the strict share of each kind."""
        self.check(file)
        items = limit_groups(self.items(file, self.data, model.seed), self.limit)
        room = model.longest_prompt(0)
        prompts = [self.encode_question(item, (), model, "") for item in items]
        for item, prompt in zip(items, prompts, strict=True):
            if len(prompt) >= room:
                raise TriviumError(f"{item.where}: its prompt has {len(prompt)} tokens and leaves no room for an "
                                   f"answer in the model's {room} positions")
        longest = min(self.max_new_tokens, room - max(map(len, prompts)))
        said = model.generate(prompts, longest, what=self.name)
        rows = [self.judged(item, group[0]) for item, group in zip(items, said, strict=True)]
        return self.result(self.metrics(rows, items), rows, self.conditions(model) | {"max_new_tokens": longest})

    def judged(self, item: Item, said: str) -> Row:
        """A question with its answer, and which of its instructions were followed."""
        strict, loose = verdicts(item.row, said), verdicts(item.row, said, loose=True)
        return {**item.place, "prompt": item.prompt, "said": said, "instructions": item.row[NAMES], "strict": strict,
                "loose": loose, "score": float(all(strict))}

    def metrics(self, rows: Sequence[Row], items: Sequence[Item]) -> dict[str, Any]:
        """The four figures and those of each kind; the instructions of a prompt stand and fall together."""
        found: dict[str, Any] = {}
        clusters = [item.cluster for item in items]
        for way in ("strict", "loose"):
            found[f"prompt_{way}"] = rate([float(all(row[way])) for row in rows], clusters)
            found[f"instruction_{way}"] = _rate_of(
                (float(one), cluster) for row, cluster in zip(rows, clusters, strict=True) for one in row[way])
        names = sorted({name for row in rows for name in row["instructions"]})
        found["kinds"] = {wanted: _rate_of((float(one), cluster) for row, cluster in zip(rows, clusters, strict=True)
                                           for name, one in zip(row["instructions"], row["strict"], strict=True)
                                           if name == wanted) for wanted in names}
        return found


def _rate_of(scored: Iterable[tuple[float, str]]) -> dict[str, Any]:
    """A rate of scores, each with its cluster."""
    scores, clusters = zip(*scored, strict=True)
    return rate(list(scores), list(clusters))
