"""Task files: what is said about one that is not right."""

from __future__ import annotations

import pytest

from trivium.errors import TriviumError
from trivium.evaluation.tasks.load import load_task

CHOICE = "kind: choice\ndata: rows.jsonl\n"


@pytest.mark.parametrize(("text", "message"), [
    ("[1, 2]", "a task is a mapping"),
    ("data: rows.jsonl", "kind: is missing"),
    ("kind: chioce\ndata: x", "no task of kind 'chioce'; did you mean 'choice'"),
    (CHOICE + "shot: 2", "shot: unknown setting; did you mean 'shots'"),
    (CHOICE + "shots: some", "shots is \"some\"; it must be a whole number"),
    (CHOICE + "prompt: 3", "prompt is 3; it must be a text"),
    ("kind: free\ndata: rows.jsonl\ncompare: rouge",
     'compare is "rouge"; it must be one of exact, number, choice, contains'),
    (CHOICE + "shots: -1", "shots is -1; it must be at least 0"),
    ("kind: free\ndata: rows.jsonl\nextract: '('", "extract: not a regular expression"),
    ("kind: choice", "data: name at least one file"),
    ("kind: [", "line 1: not valid YAML"),
])
def test_a_bad_task_file_is_named_with_its_setting(task_file, text, message):
    path = task_file(text)
    with pytest.raises(TriviumError, match="task.yaml: ") as error:
        load_task(path)
    assert message in str(error.value) and "\n" not in str(error.value)
