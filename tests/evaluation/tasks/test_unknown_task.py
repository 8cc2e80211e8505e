"""Questions about what does not exist."""

from __future__ import annotations

from trivium.evaluation.model import EvaluatedModel
from trivium.evaluation.tasks.load import load_task
from trivium.files import read_rows


def test_unknown_entities_do_not_exist(models, task_file):
    path = task_file(f"kind: unknown\ndata: {models['world']}\ncount: 20\nmax_new_tokens: 8\n")
    result = load_task(path).examine(path, EvaluatedModel.load(models["chat"]))
    names = {row["entity"] for _, row in read_rows(models["world"] / "facts.jsonl")}
    sorts = {exists: [row["where"].split(",")[0] for row in result.rows if row["exists"] == exists]
             for exists in (True, False)}
    assert len(sorts[True]) == len(sorts[False]) == 20
    assert set(sorts[True]) <= names and not set(sorts[False]) & names
    assert result.metrics["made_up"]["n"] == 20
