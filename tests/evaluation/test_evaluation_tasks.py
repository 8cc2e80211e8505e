"""Task files: what they say, and what is said about one that is not right."""

from __future__ import annotations

import json
import zipfile

import pytest

from trivium.errors import TriviumError
from trivium.evaluation.examine import extracted, number_in, same
from trivium.evaluation.tasks import by_group, first_of_each, items_of, load_task, read_files, right_choices, shots_for


def write(folder, text, rows=None, name="task.yaml"):
    path = folder / name
    path.write_text(text)
    if rows is not None:
        (folder / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


CHOICE = "kind: choice\ndata: rows.jsonl\n"


@pytest.mark.parametrize(("text", "message"), [
    ("[1, 2]", "a task is a mapping"),
    ("data: rows.jsonl", "kind: is missing"),
    ("kind: chioce\ndata: x", "no task of kind 'chioce'; did you mean 'choice'"),
    (CHOICE + "shot: 2", "shot: unknown setting; did you mean 'shots'"),
    (CHOICE + "shots: -1", "shots: Input should be greater than or equal to 0"),
    ("kind: free\ndata: rows.jsonl\nextract: '('", "extract: not a regular expression"),
    ("kind: choice", "data: name at least one file"),
    ("kind: [", "line 1: not valid YAML"),
])
def test_a_bad_task_file_is_named_with_its_setting(tmp_path, text, message):
    path = write(tmp_path, text)
    with pytest.raises(TriviumError, match="task.yaml: ") as error:
        load_task(path)
    assert message in str(error.value) and "\n" not in str(error.value)


@pytest.mark.parametrize(("row", "message"), [
    ({"choices": ["a", "b"], "answer": 0}, "rows.jsonl: row 2: the field 'prompt' is missing"),
    ({"prompt": "?", "answer": 0}, "rows.jsonl: row 2: the field 'choices' is missing"),
    ({"prompt": "?", "choices": ["a", "b"]}, "rows.jsonl: row 2: the field 'answer' is missing"),
    ({"prompt": "?", "choices": ["a", "b"], "answer": 2}, "rows.jsonl: row 2: the answer 2 is outside its 2 choices"),
    ({"prompt": "?", "choices": ["a", "b"], "answer": "c"}, "rows.jsonl: row 2: the answer 'c' is outside its 2 choices"),
    ({"prompt": "?", "choices": ["a", "b"], "answer": True}, "rows.jsonl: row 2: the answer True is outside"),
    ({"prompt": "?", "choices": ["a", "b"], "answer": []}, "rows.jsonl: row 2: no choice is right"),
    ({"prompt": "?", "choices": "ab", "answer": 0}, "rows.jsonl: row 2: the choices are no list"),
    ({"prompt": "?", "choices": ["a", ""], "answer": 0}, "rows.jsonl: row 2: choice 1 is empty"),
])
def test_a_bad_row_is_named_with_its_file_and_number(tmp_path, row, message):
    path = write(tmp_path, CHOICE, [{"prompt": "?", "choices": ["a", "b"], "answer": "b"}, row])
    task = load_task(path)
    with pytest.raises(TriviumError) as error:
        for item in items_of(task, path, task.data, 0):
            right_choices(task, item)
    assert message in str(error.value) and "\n" not in str(error.value)


def test_rows_that_are_no_json_and_files_that_are_not_there(tmp_path):
    path = write(tmp_path, CHOICE)
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
    with pytest.raises(TriviumError, match=r"rows\.csv: row 2: as many fields"):
        list(read_files(path, ["rows.csv"]))


def test_the_templates_sandbox_holds(tmp_path):
    path = write(tmp_path, 'kind: choice\ndata: rows.jsonl\nprompt: "{{ prompt.__class__.__mro__ }}"\n', [{"prompt": "x", "choices": ["a", "b"], "answer": 0}])
    with pytest.raises(TriviumError, match="row 1: "):
        items_of(load_task(path), path, ["rows.jsonl"], 0)


def test_rows_from_csv_json_and_archives(tmp_path):
    (tmp_path / "a.csv").write_text('question,A,B,answer\n"one, two?",x,y,1\n', encoding="utf-8-sig")
    (tmp_path / "b.json").write_text(json.dumps({"note": 1, "examples": [{"question": "three?"}]}))
    with zipfile.ZipFile(tmp_path / "c.zip", "w") as archive:
        archive.writestr("data/part.jsonl", '{"question": "four?"}\n')
        archive.writestr("__MACOSX/._part.jsonl", b"\x00\xff")
    path = tmp_path / "task.yaml"
    read = [row for name, inner in (("a.csv", ""), ("b.json", "examples"), ("c.zip", "")) for _, _, row in read_files(path, [name], inner)]
    assert [row["question"] for row in read] == ["one, two?", "three?", "four?"]
    assert [row["stem"] for row in read] == ["a", "b", "part"]
    with pytest.raises(TriviumError, match="row 1: the field 'rows' is missing or no list"):
        list(read_files(path, ["b.json"], "rows"))


def test_examples_are_of_the_same_group_and_never_the_question(tmp_path):
    rows = [{"prompt": f"{group}{i}", "choices": ["a", "b"], "answer": 0, "group": group} for group in "xy" for i in range(5)]
    path = write(tmp_path, CHOICE + "shots: 4\ngroup: '{{ group }}'\n", rows)
    task = load_task(path)
    items = items_of(task, path, task.data, 0)
    for item in items:
        shown = shots_for(task, item, by_group(items), 0)
        assert len({other.prompt for other in shown} - {item.prompt}) == 4
        assert {other.group for other in shown} == {item.group}
        assert shown == shots_for(task, item, by_group(items), 0)
    with pytest.raises(TriviumError, match="row 1: 5 rows are there to show as examples, but shots is 5"):
        shots_for(load_task(path, ["shots=5"]), items[0], by_group(items), 0)
    assert [item.group for item in first_of_each(items, 2)] == ["x", "x", "y", "y"]
    assert first_of_each(items, 2) == first_of_each(items, 2)


@pytest.mark.parametrize(("settings", "text", "answer", "right"), [
    ("compare: number", "so 3 + 4 = 7. The answer is 1,234.", "1234", True),
    ("compare: number\nextract: '-?\\d[\\d,]*'", "first 9, then 12", "12", True),
    ("compare: number\nextract: '-?\\d[\\d,]*'\ntake: first", "first 9, then 12", "12", False),
    ("compare: choice", "(B) because", "B", True), ("compare: choice", "Answer", "A", False),
    ("compare: contains", "It is the Seine.", "seine", True), ("compare: contains", "seines", "seine", False),
    ("compare: exact", " Positive! ", "positive", True), ("compare: exact", "not positive", "positive", False),
    ("extract: 'answer is (\\w+)'", "I do not know", "x", False),
])
def test_extractors_and_comparisons(tmp_path, settings, text, answer, right):
    task = load_task(write(tmp_path, f"kind: free\ndata: rows.jsonl\n{settings}\n"))
    found = extracted(task, text)
    assert (found is not None and same(task, found, answer)) is right


def test_numbers():
    assert number_in("from 1,000 to -2.5") == -2.5 and number_in("none") is None
