"""Files of rows: their formats, and what is said about one that is not right."""

from __future__ import annotations

import json
import zipfile

import pytest

from trivium.errors import TriviumError
from trivium.evaluation.run import run_tasks
from trivium.evaluation.tasks.load import load_task
from trivium.evaluation.tasks.rows import read_files

CHOICE = "kind: choice\ndata: rows.jsonl\n"


def test_rows_that_are_no_json_and_files_that_are_not_there(tmp_path, task_file):
    path = task_file(CHOICE)
    task = load_task(path)
    with pytest.raises(TriviumError, match=r"rows\.jsonl: no such file beside it"):
        list(read_files(path, task.data))
    (tmp_path / "rows.jsonl").write_text('{"prompt": "x"}\n{"prompt": \n')
    with pytest.raises(TriviumError, match=r"rows\.jsonl: row 2: "):
        list(read_files(path, task.data))
    (tmp_path / "rows.jsonl").write_bytes(b'{"prompt": "\xff"}\n')
    with pytest.raises(TriviumError, match=r"rows\.jsonl: row 1: .*UTF-8"):
        list(read_files(path, task.data))
    (tmp_path / "rows.csv").write_text("a,b\n1,2\n3\n")
    with pytest.raises(TriviumError, match=r"rows\.csv: row 2: 1 field, where the first line names 2"):
        list(read_files(path, ["rows.csv"]))


def test_rows_from_csv_json_and_archives(tmp_path):
    (tmp_path / "a.csv").write_text('question,A,B,answer\n"one, two?",x,y,1\n', encoding="utf-8-sig")
    (tmp_path / "b.json").write_text(json.dumps({"note": 1, "examples": [{"question": "three?"}]}))
    with zipfile.ZipFile(tmp_path / "c.zip", "w") as archive:
        archive.writestr("data/part.jsonl", '{"question": "four?"}\n')
        archive.writestr("__MACOSX/._part.jsonl", b"\x00\xff")
    path = tmp_path / "task.yaml"
    read = [row for name, inner in (("a.csv", ""), ("b.json", "examples"), ("c.zip", ""))
            for _, _, row in read_files(path, [name], inner)]
    assert [row["question"] for row in read] == ["one, two?", "three?", "four?"]
    assert [row["stem"] for row in read] == ["a", "b", "part"]
    with pytest.raises(TriviumError, match="row 1: the field 'rows' is missing or no list"):
        list(read_files(path, ["b.json"], "rows"))


@pytest.mark.parametrize(("row", "message"), [
    ({"prompt": "?", "answer": None}, "rows.jsonl: row 1: a field that the template shows is null; give it a text"),
    ({"question": "?", "answer": "x"},
     "rows.jsonl: row 1: the field 'prompt' is missing; the row has answer, question"),
    ({"prompt": "?", "answer": " "}, "rows.jsonl: row 1: the answer ' ' is empty or no text"),
    ({"prompt": "?", "answer": "both"}, "is no single letter or number of a choice; compare longer ones by `exact`"),
])
def test_a_row_that_cannot_be_judged_is_refused_before_a_model_is_loaded(task_file, row, message):
    path = task_file("kind: free\ndata: rows.jsonl\ncompare: choice\n", [row])
    with pytest.raises(TriviumError) as error:
        run_tasks([path.parent / "no-model-is-needed"], [path], quiet=True)
    assert "no such folder" in str(error.value)
    with pytest.raises(TriviumError) as error:
        load_task(path).check(path)
    assert message in str(error.value) and "\n" not in str(error.value)
