"""Models on tasks, by the command and by the function beneath it."""

from __future__ import annotations

import json

import pytest
from typer.testing import CliRunner

from trivium.cli.app import app
from trivium.errors import TriviumError
from trivium.evaluation.run import run_tasks
from trivium.files import read_rows


def test_the_command_compares_and_says_what_is_wrong(models, tmp_path, task_file):
    rows = [{"prompt": f"{i}?", "choices": ["a", "b"], "answer": i % 2} for i in range(10)]
    path = task_file("kind: choice\ndata: rows.jsonl\nform: text\n", rows)
    found = run_tasks([models["chat"]], [path], models["other"], answers=tmp_path / "answers.jsonl", quiet=True)
    assert 0 < found[str(models["chat"])]["task"]["p_value"] <= 1
    assert len(list(read_rows(tmp_path / "answers.jsonl"))) == 10

    printed = CliRunner().invoke(app, ["evaluate", str(models["base"]), "--task", str(path), "--json"])
    assert json.loads(printed.stdout)[str(models["base"])]["task"]["accuracy"]["n"] == 10
    (tmp_path / "rows.jsonl").write_text(json.dumps({"prompt": "?", "choices": ["a", "b"], "answer": 5}))
    for folder, file, message in ((models["base"], path, "rows.jsonl: row 1: the answer 5 is outside its 2 choices"),
                                  (models["reward"], path, "a reward model does not write"),
                                  (models["base"], tmp_path / "none.yaml", "none.yaml: no such file")):
        with pytest.raises(TriviumError) as error:
            run_tasks([folder], [file], quiet=True)
        assert message in str(error.value) and "\n" not in str(error.value)
