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


def test_a_file_may_open_what_is_asked(models, task_file, tmp_path):
    (tmp_path / "fox.txt").write_text("licence\n-----\nAbout foxes.\n")
    text = ("kind: free\ndata: rows.jsonl\nform: text\nintro_file: '{{ about }}.txt'\n"
            "intro: \"{{ file_text.split('-----')[-1].strip() }}\\n\\n\"\n")
    path = task_file(text, [{"prompt": "Red?", "answer": "yes", "about": "fox"}])
    task = load_task(path)
    [item] = task.items(path, task.data, 0)
    assert task.question_text(item, [], " ") == "About foxes.\n\nRed?" and "*.txt" in task.files()
    path = task_file(text, [{"prompt": "Red?", "answer": "yes", "about": "owl"}])
    with pytest.raises(TriviumError, match=r"rows\.jsonl: row 1: intro_file: owl\.txt: no such file"):
        load_task(path).check(path)


def test_examples_from_the_tasks_own_file_leave_the_question_out(task_file):
    rows = [{"prompt": f"{place}?", "answer": str(place)} for place in range(4)]
    path = task_file("kind: free\ndata: rows.jsonl\nexamples: rows.jsonl\nshots: 2\n", rows)
    task = load_task(path)
    items = task.items(path, task.data, 0)
    pool = task.example_pool(path, items, 0)
    assert [[other.prompt for other in task.choose_examples(item, pool, 0)] for item in items] == [
        ["1?", "2?"], ["0?", "2?"], ["0?", "1?"], ["0?", "1?"]]
