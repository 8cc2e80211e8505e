"""Code: the model writes a program's rest, and tests say whether it works."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any, ClassVar

from pydantic import Field

from trivium.errors import TriviumError
from trivium.evaluation.model import EvaluatedModel
from trivium.evaluation.sandbox import apart, run_programs
from trivium.evaluation.statistics import rate
from trivium.evaluation.tasks.questions import Item, QuestionTask, limit_groups
from trivium.evaluation.tasks.task import Result
from trivium.evaluation.tasks.templates import render
from trivium.files import Row


class Code(QuestionTask):
    """Code: the model writes a program's rest, which is run in a sandbox and is right when it comes to its end."""

    kind: ClassVar[str] = "code"
    program: str = "{{ prompt }}{{ said }}\n{{ test }}"
    """The program in Python, as a template over the row and ``said``, which the model wrote. Its tests fail by an
    exception."""
    samples: int = Field(1, ge=1)
    """Programs that are written for each question."""
    at: list[int] = [1]
    """Each k of pass@k: the chance that one of k programs is right, by the unbiased estimator (Chen et al. 2021)."""
    temperature: float = Field(0.0, ge=0)
    """Of sampling; 0 always takes the likeliest token."""
    top_p: float = Field(1.0, gt=0, le=1)
    """Sample from the likeliest tokens that together have this probability."""
    stop: list[str] = ["\n\n\n"]
    """Where an answer ends."""
    max_new_tokens: int = Field(512, ge=1)
    """Longest answer, in tokens."""
    seconds: float = Field(3.0, gt=0)
    """Computing time of each program; it ends after four times as long on the clock."""
    memory_mb: int = Field(1024, ge=64)
    """Memory of each program, in MB."""

    def check(self, file: Path) -> None:
        """Raise :class:`TriviumError` for a row that makes no program, and for an ``at`` beyond ``samples``."""
        for k in self.at:
            if not 1 <= k <= self.samples:
                raise TriviumError(f"{file}: at: pass@{k} needs at least {max(k, 1)} samples, there are "
                                   f"{self.samples}; raise `samples`")
        for item in self.items(file, self.data, 0):
            render(self.program, {**item.row, "said": ""}, item.where)

    def examine(self, file: Path, model: EvaluatedModel, opponent: EvaluatedModel | None = None) -> Result:
        """``pass_at_k`` for each k of ``at``."""
        self.check(file)
        items = limit_groups(self.items(file, self.data, model.seed), self.limit)
        longest = model.longest_prompt(self.max_new_tokens)
        prompts = [self.encode_question(item, (), model, "") for item in items]
        for item, prompt in zip(items, prompts, strict=True):
            if len(prompt) > longest:
                raise TriviumError(f"{item.where}: its prompt has {len(prompt)} tokens and leaves no room for "
                                   f"{self.max_new_tokens} more in the model's {model.longest_prompt(0)} positions; "
                                   "lower `max_new_tokens`")
        said = model.generate(prompts, self.max_new_tokens, self.temperature, self.samples,
                              () if self.asks_by_chat(model) else self.stop, self.name, self.top_p)
        programs = [render(self.program, {**item.row, "said": text}, item.where)
                    for item, group in zip(items, said, strict=True) for text in group]
        model.progress(0, len(programs), f"{self.name}: running the programs")
        verdicts = run_programs(programs, self.seconds, self.memory_mb << 20)
        rows: list[Row] = []
        for place, (item, group) in enumerate(zip(items, said, strict=True)):
            part = verdicts[place * self.samples:(place + 1) * self.samples]
            right = sum(verdict.passed for verdict in part)
            rows.append({**item.place, "prompt": item.prompt, "said": group, "why": [verdict.why for verdict in part],
                         "right": right, "score": pass_at(self.samples, right, min(self.at))})
        return self.result(self.metrics(rows, items), rows, self.conditions(model) | {
            "samples": self.samples, "temperature": self.temperature,
            "sandbox": "apart" if apart() else "limits only: this system gives no namespaces"})

    def metrics(self, rows: Sequence[Row], items: Sequence[Item]) -> dict[str, Any]:
        """Each pass@k with its interval over questions."""
        clusters = [item.cluster for item in items]
        return {f"pass_at_{k}": rate([pass_at(self.samples, row["right"], k) for row in rows], clusters)
                for k in self.at}


def pass_at(samples: int, right: int, k: int) -> float:
    """The chance that one of ``k`` programs drawn from ``samples``, of which ``right`` are right, is right:
    1 - C(n - c, k) / C(n, k) (Chen et al. 2021, equation 1)."""
    return 1.0 - math.comb(samples - right, k) / math.comb(samples, k)
