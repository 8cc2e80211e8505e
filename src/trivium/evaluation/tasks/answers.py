"""The loss of held-out answers, given their prompts."""

from __future__ import annotations

import json
from pathlib import Path
from typing import ClassVar

from trivium import randomness
from trivium.errors import TriviumError
from trivium.evaluation.answer_loss import answer_losses, loss_figures
from trivium.evaluation.model import EvaluatedModel
from trivium.evaluation.tasks.rows import conversation_of, read_files
from trivium.evaluation.tasks.task import Result, Task
from trivium.evaluation.tasks.templates import render
from trivium.files import Row


class Answers(Task):
    """The loss of held-out answers, given their prompts. Rows have ``messages``, in which every turn of the assistant
    counts, or ``prompt`` and ``answer``; all are asked by the model's chat template."""

    kind: ClassVar[str] = "answers"
    cluster: str = ""
    """A template that names rows which stand and fall together: intervals count them as one. Empty: each is its
    own."""

    def check(self, file: Path) -> None:
        """Raise :class:`TriviumError` for a row that is no conversation."""
        self.conversations(file, 0)

    def examine(self, file: Path, model: EvaluatedModel, opponent: EvaluatedModel | None = None) -> Result:
        """``answer_loss`` in nats a token, with a bootstrap interval over rows; ``answer_bits_per_byte``, which can be
        compared between tokenizers; ``answer_perplexity``. Conversations longer than the model can read are left out
        and counted."""
        asked = self.conversations(file, model.seed)
        losses = answer_losses(model.language_model, model.tokenizer, asked,
                               lambda done, total: model.progress(done, total, self.name))
        both = [(row, loss) for row, loss in zip(asked, losses, strict=True) if loss is not None]
        if not both:
            raise TriviumError(f"{file}: every conversation is longer than the model's {model.longest_prompt(0)} "
                               "positions")
        rows: list[Row] = [{**row, "tokens": loss.tokens, "bytes": loss.bytes, "score": loss.mean}
                           for row, loss in both]
        metrics = loss_figures([loss for _, loss in both], [row["cluster"] for row, _ in both], model.seed)
        return self.result(metrics | {"tokens": sum(row["tokens"] for row in rows)}, rows,
                           {"left_out": len(asked) - len(both)} if len(both) < len(asked) else {})

    def conversations(self, file: Path, seed: int) -> list[Row]:
        """The rows with ``where``, ``cluster`` and ``messages``, at most ``limit``."""
        rows: list[Row] = []
        for source, number, row in read_files(file, self.data, self.rows):
            where = f"{source}: row {number}"
            made: Row = {"where": where, "cluster": render(self.cluster, row, where) if self.cluster else where,
                         "messages": conversation_of(row, where)}
            rows.append(made | ({"tools": row["tools"]} if row.get("tools") else {}))
        if not rows:
            raise TriviumError(f"{file}: no rows in {', '.join(self.data)}")
        return sorted(rows, key=lambda row: randomness.derive(
            seed, json.dumps(row["messages"], sort_keys=True, ensure_ascii=False)))[:self.limit]
