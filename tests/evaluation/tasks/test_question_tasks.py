"""Questions made from rows: templates, examples and limits."""

from __future__ import annotations

import pytest

from trivium.errors import TriviumError
from trivium.evaluation.tasks.load import load_task
from trivium.evaluation.tasks.questions import by_group, limit_groups

CHOICE = "kind: choice\ndata: rows.jsonl\n"


def test_the_templates_sandbox_holds(task_file):
    path = task_file('kind: choice\ndata: rows.jsonl\nprompt: "{{ prompt.__class__.__mro__ }}"\n',
                     [{"prompt": "x", "choices": ["a", "b"], "answer": 0}])
    with pytest.raises(TriviumError, match="row 1: "):
        load_task(path).items(path, ["rows.jsonl"], 0)


def test_examples_are_of_the_same_group_and_never_the_question(task_file):
    rows = [{"prompt": f"{group}{i}", "choices": ["a", "b"], "answer": 0, "group": group}
            for group in "xy" for i in range(5)]
    path = task_file(CHOICE + "shots: 4\ngroup: '{{ group }}'\n", rows)
    task = load_task(path)
    items = task.items(path, task.data, 0)
    for item in items:
        shown = task.choose_examples(item, by_group(items), 0)
        assert len({other.prompt for other in shown} - {item.prompt}) == 4
        assert {other.group for other in shown} == {item.group}
        assert shown == task.choose_examples(item, by_group(items), 0)
    with pytest.raises(TriviumError, match="row 1: only 5 rows can be shown as examples, but shots is 5"):
        load_task(path, ["shots=5"]).choose_examples(items[0], by_group(items), 0)
    assert [item.group for item in limit_groups(items, 2)] == ["x", "x", "y", "y"]
    assert limit_groups(items, 2) == limit_groups(items, 2)
