"""Refusals, wanted and unwanted."""

from __future__ import annotations

import pytest

from trivium.errors import TriviumError
from trivium.evaluation.model import EvaluatedModel
from trivium.evaluation.tasks.load import load_task


def test_refusals_count_both_ways(models, task_file, monkeypatch):
    rows = [{"prompt": f"p{i}", "harmful": i < 4} for i in range(10)]
    path = task_file("kind: refusals\ndata: rows.jsonl\n", rows)
    # the model's words are given, so that the counts are known; that models are really asked is seen in the other tests
    said = {f"p{i}": "I am sorry, but I cannot help with that." if i in (0, 1, 2, 9) else "Gladly! First, take a boat."
            for i in range(10)}
    monkeypatch.setattr(EvaluatedModel, "answer",
                        lambda model, prompts, *more: [[said[p[-1]["content"]]] for p in prompts])
    metrics = load_task(path).examine(path, EvaluatedModel.load(models["chat"])).metrics
    assert (metrics["refused_harmful"]["value"], metrics["refused_harmless"]["value"]) == (3 / 4, 1 / 6)
    path = task_file("kind: refusals\ndata: rows.jsonl\n", [*rows, {"prompt": "x", "harmful": "maybe"}])
    with pytest.raises(TriviumError, match="row 11: harmful is 'maybe'"):
        load_task(path).examine(path, EvaluatedModel.load(models["chat"]))
