"""What becomes of rows: texts come out as they went in, columns that are named win, and nothing goes without a word."""

from __future__ import annotations

import json
import re
import shutil

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from trivium.data.demonstrations import demonstration
from trivium.data.row_kinds.comparisons import comparison
from trivium.data.row_kinds.thumbs import thumb
from trivium.data.sources import Source
from trivium.errors import TriviumError
from trivium.feedback.rows import prompt_key, split_of
from trivium.files import write_rows
from trivium.progress import Progress
from trivium.stage import Context
from trivium.stages.data.imports import Imports
from trivium.stages.preferences.kto import thumbs
from trivium.stages.rows import rows_of

TEXT = st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=30).filter(
    lambda text: text.strip() and not text.lstrip().startswith("Human:"))


def turn(role, content):
    return {"role": role, "content": content}


def run(folder, seed=0, sources=None, heldout=0.2, **given):
    """The stage's files by name, and what it says. Rows are given by kind, as a list or by source."""
    folder.mkdir(exist_ok=True)
    said: list[str] = []
    progress = Progress(quiet=True)
    progress.say = said.append
    inputs: dict[str, object] = {"demonstrations": [], "comparisons": [], "thumbs": []}
    for kind, rows in given.items():
        if isinstance(rows, list):
            path = folder / f"{kind}.jsonl"
            path.write_text("".join(json.dumps(row) + "\n" for row in rows))
            rows = {"mine": path}
        inputs[kind] = rows
    texts = {kind: {name: str(path) for name, path in rows.items()} for kind, rows in inputs.items() if rows}
    (folder / "out").mkdir(exist_ok=True)
    Imports.model_validate({**texts, "sources": sources or {}, "heldout": heldout}).run(
        Context("r", "imports", seed, inputs, folder / "out", folder / "scratch", progress, 1))
    return {path.stem: [json.loads(line) for line in path.read_text().splitlines()]
            for path in (folder / "out").glob("*.jsonl")}, said


def said_in(made):
    return [(message["role"], message["content"]) for message in made["messages"]]


CODE = [
    'std::cout << "name? "; std::cin >> name;', "add<<<blocks, threads>>>(x, y);", "x << 2 and y >> 1",
    "A plan.\n#### Spring\nSow.\n#### Autumn\nHarvest.", "#### 5 ways\nto go", "a<<b=c>>d", "<<x=1>> is a mark",
]


@pytest.mark.parametrize("answer", CODE)
def test_only_gsm8ks_answers_are_cleaned(answer):
    for asks, answers in (("question", "answer"), ("问题", "答案"), ("prompt", "completion")):
        assert said_in(demonstration({asks: "q", answers: answer})) == [("user", "q"), ("assistant", answer)]


@pytest.mark.parametrize(("answer", "learned"), [
    ("He has 2*3=<<2*3=6>>6.\n#### 6", "He has 2*3=6.\nThe answer is 6."),
    ("So -1,200.5\n#### -1,200.5", "So -1,200.5\nThe answer is -1,200.5."),
    ("<<a, b>>(x) and <<1+1=2>>2\n#### 2\n", "<<a, b>>(x) and 2\nThe answer is 2."),
])
def test_gsm8ks_marks(answer, learned):
    assert said_in(demonstration({"question": "q", "answer": answer}))[-1] == ("assistant", learned)


FORMS = [
    lambda q, a: {"messages": [turn("user", q), turn("assistant", a)]},
    lambda q, a: {"messages": json.dumps([turn("user", q), turn("assistant", a)])},
    lambda q, a: {"conversations": [{"from": "human", "value": q}, {"from": "gpt", "value": a}]},
    lambda q, a: {"conversations": {"from": ["human", "gpt"], "value": [q, a]}},
    lambda q, a: {"instruction": q, "output": a}, lambda q, a: {"query": q, "response": a},
    lambda q, a: {"prompt": q, "completion": a}, lambda q, a: {"input": q, "output": a},
    lambda q, a: {"prompt": [turn("user", q)], "completion": [turn("assistant", a)]},
    lambda q, a: {"提问": q, "回答": a}, lambda q, a: {"用户": q, "助手": a},
    lambda q, a: {"conversation": [{"human": q, "assistant": a}]},
]


@settings(max_examples=40, deadline=None)
@given(TEXT, TEXT, TEXT)
def test_any_text_in_any_form_comes_out_unchanged(asked, answer, worse):
    for form in FORMS:
        row = form(asked, answer)
        assert said_in(demonstration(row)) == [("user", asked), ("assistant", answer)]
        made = thumb({**row, "label": 0})
        assert made == {"prompt": [turn("user", asked)], "completion": answer, "label": False}
        if worse != answer:
            made = comparison({**row, "rejected_response": worse})
            assert made == {"prompt": [turn("user", asked)], "responses": [answer, worse], "ranking": [[0], [1]]}
    if worse != answer:
        whole = [[turn("user", asked), turn("assistant", text)] for text in (answer, worse)]
        for row in ({"prompt": asked, "chosen": answer, "rejected": worse}, {"chosen": whole[0], "rejected": whole[1]},
                    {"prompt": asked, "chosen": whole[0], "rejected": whole[1]}):
            assert comparison(row) == made


OLD = {"messages": [turn("user", "old"), turn("assistant", "old")],
       "conversations": [{"from": "human", "value": "old"}],
       "instruction": "old", "input": "old", "output": "old", "question": "old", "answer": "old", "query": "old",
       "response": "old", "prompt": "old", "completion": "old", "chosen": "old", "rejected": "older", "label": True,
       "kto_tag": True, "responses": ["old", "older"], "ranking": [[0], [1]]}


@pytest.mark.parametrize("pair", [("prompt", "completion"), ("question", "answer"), ("query", "response"),
                                  ("instruction", "output"), ("prompt", "response")])
@pytest.mark.parametrize("gone", [(), ("messages", "conversations"), ("instruction", "question")])
def test_columns_that_are_named_win(tmp_path, pair, gone):
    row = {name: value for name, value in OLD.items() if name not in (*gone, "input")}
    source = {"columns": dict(zip(pair, ("asked", "said")))}
    found, said = run(tmp_path, demonstrations=[{**row, "asked": "new?", "said": "new"}], sources={"mine": source})
    assert said_in(found["demonstrations"][0]) == [("user", "new?"), ("assistant", "new")]
    assert any("fields that were not used" in line for line in said)


def test_columns_win_for_messages_comparisons_and_thumbs(tmp_path):
    talk = [turn("user", "new?"), turn("assistant", "new")]
    found, _ = run(tmp_path, demonstrations=[{**OLD, "talk": talk}],
                   sources={"mine": {"columns": {"messages": "talk"}}})
    assert found["demonstrations"][0]["messages"] == talk
    named = {"prompt": "asked", "chosen": "good", "rejected": "bad"}
    found, _ = run(tmp_path, comparisons=[{**OLD, "asked": "new?", "good": "new", "bad": "bad"}],
                   sources={"mine": {"columns": named}})
    assert (found["comparisons"][0]["prompt"], found["comparisons"][0]["responses"]) == (talk[:1], ["new", "bad"])
    found, _ = run(tmp_path, thumbs=[{**OLD, "asked": "new?", "good": "new", "stars": "two"}],
                   sources={"mine": {"columns": {"prompt": "asked", "completion": "good", "label": "stars"},
                                     "labels": {"two": "false", "five": "true"}}})
    assert {**found["thumbs"][0], "split": 0} == {"prompt": talk[:1], "completion": "new", "label": False, "split": 0}


def test_a_column_that_is_renamed_is_not_read_twice(tmp_path):
    found, _ = run(tmp_path, demonstrations=[{"input": "q", "output": "a"}],
                   sources={"mine": {"columns": {"instruction": "input"}}})
    assert said_in(found["demonstrations"][0]) == [("user", "q"), ("assistant", "a")]


def test_columns_inside_others_are_named_by_a_path(tmp_path):
    rows = [{"id": 1, "instruction": f"do {i}", "instances": [{"input": f"this {i}", "output": f"done {i}"}]}
            for i in range(3)] + [{"instruction": "do", "instances": []}]
    columns = {"input": "instances.0.input", "output": "instances.0.output"}
    found, said = run(tmp_path, demonstrations=rows, sources={"mine": {"columns": columns}})
    assert sorted(said_in(row)[0][1] for row in found["demonstrations"]) == [f"do {i}\n\nthis {i}" for i in range(3)]
    assert found["rejects"][0]["reason"] == "the column 'instances.0.input' is missing: instances has no 0"
    assert [line for line in said if "not used" in line] == [
        "mine: fields that were not used, and rows that have them: id (3)"]


def test_llama_factorys_columns_and_tags(tmp_path):
    """An entry of dataset_info.json with names of its own for everything."""
    rows = [{"chat": [{"who": "doc", "says": "Hello."}, {"who": "pat", "says": "My head hurts."},
                      {"who": "doc", "says": "Rest."}, {"who": "call", "says": '{"name": "rx", "arguments": {"n": 1}}'},
                      {"who": "result", "says": "ok"}, {"who": "doc", "says": "Done."}, {"who": "pat", "says": "Bye"}],
             "rules": "Be kind.", "kit": '[{"name": "rx", "parameters": {}}]'}]
    tags = {"role_tag": "who", "content_tag": "says", "user_tag": "pat", "assistant_tag": "doc", "function_tag": "call",
            "observation_tag": "result"}
    source = {"columns": {"messages": "chat", "system": "rules", "tools": "kit"}, "tags": tags}
    found, said = run(tmp_path, demonstrations=rows, sources={"mine": source})
    [row] = found["demonstrations"]
    assert said_in(row) == [("system", "Be kind."), ("user", "My head hurts."), ("assistant", "Rest."), ("tool", "ok"),
                            ("assistant", "Done.")]
    assert row["messages"][2]["tool_calls"] == [{"type": "function", "function": {"name": "rx", "arguments": {"n": 1}}}]
    assert row["tools"] == [{"type": "function", "function": {"name": "rx", "parameters": {}}}]
    assert any("1 row: a last turn that nobody answers" in line for line in said) and any(
        "1 row: what the assistant says before anything is asked" in line for line in said)


def test_roles_of_ones_own(tmp_path):
    rows = [{"conversations": [{"role": "医生 ", "content": "早"}, {"role": "患者", "content": "头疼"},
                               {"role": "医生", "content": "休息"}]}]
    with pytest.raises(TriviumError, match="unknown role '医生 '.*others are named under `roles`"):
        run(tmp_path, demonstrations=rows)
    found, _ = run(tmp_path, demonstrations=rows, sources={"mine": {"roles": {"医生": "assistant", "患者": "user"}}})
    assert said_in(found["demonstrations"][0]) == [("user", "头疼"), ("assistant", "休息")]


@pytest.mark.parametrize(("settings", "message"), [
    ({"roles": {"x": "asistant"}}, "did you mean 'assistant'"), ({"tags": {"rol_tag": "x"}}, "did you mean 'role_tag'"),
    ({"encoding": "gbkk"}, "there is no character set 'gbkk'"),
])
def test_a_bad_setting_of_a_source(settings, message):
    with pytest.raises(ValueError, match=message):
        Source.model_validate(settings)


@pytest.mark.parametrize("setting", [{"weight": 2}, {"templates": "classification"}, {"prompts": True},
                                     {"labels": {"1": "x"}}, {"format": "alpaca"}])
def test_settings_that_say_nothing_about_comparisons_are_refused(tmp_path, setting):
    with pytest.raises(TriviumError, match=f"sources.mine.{next(iter(setting))}: says nothing about comparisons"):
        run(tmp_path, comparisons=[{"prompt": "p", "chosen": "a", "rejected": "b"}], sources={"mine": setting})


@pytest.mark.parametrize("row", [
    {"messages": [turn("user", "q"), turn("assistant", "a")]}, {"prompt": "q", "completion": "a"},
    {"question": "q", "answer": "a"}, {"instruction": "q", "output": "a"}, {"query": "q", "response": "a"},
    {"conversations": [{"from": "human", "value": "q"}, {"from": "gpt", "value": "a"}]},
])
def test_the_system_and_the_history_are_used_in_every_kind(row):
    for extra in ({"system": "s"}, {"system_prompt": "s"}, {"系统": "s"}):
        row_there = {**row, **extra, "history": [["x", "y"]]}
        before = [turn("system", "s"), turn("user", "x"), turn("assistant", "y"), turn("user", "q")]
        assert demonstration(row_there)["messages"] == [*before, turn("assistant", "a")]
        assert thumb({**row_there, "label": True})["prompt"] == before
        made = comparison({**row_there, "rejected": "b"})
        assert made["prompt"] == before and made["responses"] == ["a", "b"]
    assert demonstration({**row, "history": [turn("user", "x"), turn("assistant", "y")]})["messages"][1:3] == [
        turn("assistant", "y"), turn("user", "q")]


def test_two_systems_are_refused_but_one_for_all_rows_gives_way(tmp_path):
    own = {"messages": [turn("system", "own"), turn("user", "q"), turn("assistant", "a")]}
    with pytest.raises(TriviumError, match="two different systems"):
        demonstration({**own, "system": "another"})
    assert len(demonstration({**own, "system": "own"})["messages"]) == 3
    plain = {"messages": own["messages"][1:]}
    found, _ = run(tmp_path, demonstrations=[own, plain], sources={"mine": {"values": {"system": "for all"}}})
    assert sorted(row["messages"][0]["content"] for row in found["demonstrations"]) == ["for all", "own"]


@pytest.mark.parametrize(("key", "value", "learned"), [
    ("weight", 0, False), ("weight", 1, True), ("weight", 0.0, False), ("train", False, False), ("train", True, True),
    ("trainable", False, False), ("loss", False, False), ("loss", None, True), ("weight", "0", False),
])
def test_turns_that_are_not_to_be_learned_are_marked(tmp_path, key, value, learned):
    row = {"messages": [turn("user", "q"), {**turn("assistant", "a"), key: value}, turn("user", "q"),
                        turn("assistant", "b")]}
    marked = [turn("user", "q"), turn("assistant", "a") | ({} if learned else {"train": False}), *row["messages"][2:]]
    assert demonstration(row)["messages"] == marked
    write_rows(tmp_path / "rows.jsonl", [row])  # and where a stage reads the file itself
    place = Context("r", "stage", 0, {}, tmp_path, tmp_path / "scratch", Progress(quiet=True), 1)
    assert rows_of(tmp_path / "rows.jsonl", "", ["messages"], place) == [{"messages": marked}]


def test_weights_between_are_refused_and_a_conversation_must_teach_something():
    row = {"messages": [turn("user", "q"), {**turn("assistant", "a"), "weight": 0.5}]}
    with pytest.raises(TriviumError, match="message 2: `weight` is 0.5; a turn is learned"):
        demonstration(row)
    row["messages"][1]["weight"] = 0
    with pytest.raises(TriviumError, match="none of the assistant's messages is to be learned"):
        demonstration(row)


def test_what_is_left_out_is_counted_and_said_once(tmp_path):
    rows = [{"id": i, "messages": [turn("system", ""), turn("user", f"q{i}"), {**turn("assistant", "a"), "when": 5},
                                   turn("user", "thanks")]} for i in range(5)]
    found, said = run(tmp_path, demonstrations=rows)
    assert sorted(said_in(row)[0] for row in found["demonstrations"]) == [("user", f"q{i}") for i in range(5)]
    assert said == ["mine: 5 rows, 0 rejected, 5 used", "mine: 5 rows: an empty system message was left out",
                    "mine: 5 rows: a last turn that nobody answers was left out",
                    "mine: fields that were not used, and rows that have them: messages.when (5), id (5)"]


def test_repeated_comparisons_are_counted(tmp_path):
    found, said = run(tmp_path, comparisons=[{"prompt": "p", "chosen": "a", "rejected": "b"}] * 3)
    assert len(found["comparisons"]) == 1 and "mine: 2 rows: the same as an earlier row, and kept once" in said


@pytest.mark.parametrize(("value", "called"), [
    (1.0, "good"), (1, "good"), (True, "good"), ("1", "good"), ("1.0", "good"), (0.0, "bad"), (False, "bad"),
    ("0", "bad")])
def test_labels_however_a_table_spells_them(value, called):
    assert Source(labels={"1": "good", "0": "bad"}).label({"label": value}) == called
    assert thumb({"prompt": "p", "completion": "c", "label": value})["label"] == (called == "good")
    with pytest.raises(TriviumError, match="the label '0.5' is none of 1, 0"):
        Source(labels={"1": "good", "0": "bad"}).label({"label": 0.5})


def test_steps_are_joined_in_lines_where_nothing_else_divides_them():
    row = {"prompt": "p", "completions": ["One.", "Two.", " Three."], "labels": [True, True, False]}
    assert thumb(row) == {"prompt": [turn("user", "p")], "completion": "One.\nTwo. Three.",
                                             "label": False}
    with pytest.raises(TriviumError, match="name the file under `thumbs`"):
        demonstration(row)


@pytest.mark.parametrize(("chosen", "rejected", "prompt", "answers"), [
    ("The sky is blue.", "The sky is green.", "The sky is", [" blue.", " green."]),
    ("The sky is blue.", "The sky is black.", "The sky is", [" blue.", " black."]),
    ("天是蓝的", "天是绿的", "天是", ["蓝的", "绿的"]),
])
def test_texts_without_a_prompt_part_where_a_word_begins(chosen, rejected, prompt, answers):
    made = comparison({"chosen": chosen, "rejected": rejected})
    assert made["prompt"] == [turn("user", prompt)] and made["responses"] == answers


@pytest.mark.parametrize(("row", "reason"), [
    ({"chosen": "Lead.", "rejected": "Cork."}, "there is no prompt, and the two texts do not begin alike"),
    ({"chosen": [turn("assistant", "a")], "rejected": [turn("assistant", "b")]}, "there is no prompt"),
    ({"prompt": "p", "chosen": [turn("user", "x"), turn("assistant", "a")], "rejected": [turn("user", "x"), turn(
        "assistant", "b")]}, "the prompt is not what the conversations"),
    ({"chosen": [turn("user", "x"), turn("assistant", "a")], "rejected": [turn("user", "y"), turn("assistant", "b")]},
     "differ before their last turn"),
    ({"prompt": [turn("user", "p"), turn("assistant", "x")], "chosen": "a", "rejected": "b"},
     "ends with the assistant's message"),
    ({"prompt": "p", "chosen": "a", "rejected": [turn("assistant", "b"), turn("assistant", "c")]},
     "is not one message"),
    ({"prompt": "p", "chosen": "a", "rejected": None}, "no known kind of comparison has the fields chosen, prompt"),
    ({"prompt": "p", "chosen": 5, "rejected": "b"}, "the field .chosen. is no text, but a number"),
    ({"prompt": "p", "responses": ["a", "b"]}, "the field 'ranking' is missing"),
    ({"prompt": "p", "chosen": "a", "rejected": "b", "images": ["x.png"]}, "the row has images"),
])
def test_comparisons_that_cannot_be_right_are_refused(row, reason):
    with pytest.raises(TriviumError, match=reason):
        comparison(row)


@pytest.mark.parametrize(("row", "reason"), [
    ({"prompt": "p", "chosen": "a", "rejected": "b"}, "it is a comparison: name its file under `comparisons`"),
    ({"messages": [turn("user", "q"), {"role": "assistant", "tool_calls": [
        {"function": {"name": "f", "arguments": "{"}}]}]},
     "message 2: the arguments of f are not the JSON of an object"),
    ({"messages": [turn("user", "q"), turn("tool", "x"), turn("assistant", "a")]}, "message 2: a tool answers, but no"),
    ({"messages": [turn("user", "q"), turn("function_call", "f(x)")]}, "the call is neither an object nor"),
    ({"messages": [turn("user", "q"), turn("assistant", "a")], "tools": "none"}, "`tools` is neither a list nor"),
    ({"messages": {"role": ["user"], "content": ["q", "a"]}}, "not as long as one another"),
    ({"prompt": "p", "completion": "c", "history": [["only a question"]]}, "history is no list of"),
])
def test_demonstrations_that_cannot_be_right_are_refused(row, reason):
    with pytest.raises(TriviumError, match=reason):
        demonstration(row)


def test_a_response_with_calls_or_reasoning_is_a_message():
    call = {"role": "assistant", "content": None, "tool_calls": [{"function": {"name": "f", "arguments": '{"a": 1}'}}]}
    made = comparison({"prompt": "p", "chosen": [call], "rejected": "no", "tools": [{"name": "f"}]})
    assert made["responses"] == [{"role": "assistant", "content": "", "tool_calls": [
        {"type": "function", "function": {"name": "f", "arguments": {"a": 1}}}]}, "no"]
    assert made["tools"] == [{"type": "function", "function": {"name": "f"}}]
    thought = [{**turn("assistant", "a"), "thinking": "hm"}]
    made = thumb({"prompt": "p", "completion": thought, "label": 1})
    assert made["completion"] == {"role": "assistant", "content": "a", "reasoning_content": "hm"}


def test_parallel_calls_that_are_turns_of_their_own_are_one_message():
    calls = [turn("tool_call", json.dumps({"name": "f", "arguments": {"n": n}})) for n in (1, 2)]
    row = {"messages": [turn("user", "q"), *calls, turn("tool_response", "1"), turn("tool_response", "2"),
                        turn("assistant", "3")]}
    messages = demonstration(row)["messages"]
    assert [m["role"] for m in messages] == ["user", "assistant", "tool", "tool", "assistant"]
    assert [one["function"]["arguments"]["n"] for one in messages[1]["tool_calls"]] == [1, 2]


def test_held_out_prompts_are_the_same_whatever_the_seed(tmp_path):
    rows = [{"prompt": f"问题{i}", "chosen": "好", "rejected": "坏"} for i in range(60)]
    held = []
    for seed in (0, 1, 2):
        found, _ = run(tmp_path / str(seed), seed=seed, comparisons=rows, thumbs=[
            {"prompt": f"问题{i}", "completion": "好", "label": True} for i in range(60)])
        held.append({row["prompt"][0]["content"] for row in found["comparisons"] if row["split"] == "heldout"})
        assert held[-1] == {row["prompt"][0]["content"] for row in found["thumbs"] if row["split"] == "heldout"}
    assert held[0] == held[1] == held[2] and 4 <= len(held[0]) <= 22
    assert held[0] == {row["prompt"] for row in rows
                       if split_of(prompt_key([turn("user", row["prompt"])]), 0.2) == "heldout"}


def test_thumbs_are_what_kto_takes(tmp_path):
    found, _ = run(tmp_path, heldout=0.3, thumbs=[
        {"messages": [turn("user", f"q{i}"), turn("assistant", "a")], "kto_tag": i % 2 == 0} for i in range(20)])
    place = Context("r", "stage", 0, {"feedback": tmp_path / "out"}, tmp_path, tmp_path / "scratch",
                    Progress(quiet=True), 1)
    assert thumbs(None, place) == found["thumbs"] and len(found["thumbs"]) == 20
    assert {row["split"] for row in found["thumbs"]} == {"train", "heldout"}


def test_rows_of_a_stage_that_reads_a_file_itself_may_be_texts_and_never_crash(tmp_path):
    path = tmp_path / "thumbs.jsonl"
    path.write_text('{"prompt": "hi", "completion": "a", "label": true}\n'
                    '{"prompt": "hi \\ud83d", "completion": "a", "label": true}\n'
                    '{"prompt": [], "completion": "a", "label": true}\n')
    place = Context("r", "stage", 0, {}, tmp_path, tmp_path / "scratch", Progress(quiet=True), 1)
    rows = rows_of(path, "", ["prompt", "completion", "label"], place)
    assert rows == [{"prompt": [turn("user", "hi")], "completion": "a", "label": True}]
    rejects = [json.loads(line) for line in (tmp_path / "rejects-thumbs.jsonl").read_text().splitlines()]
    assert [row["row"] for row in rejects] == [2, 3] and "half of a surrogate pair" in rejects[0]["reason"]
    path.write_text('[{"prompt": "p"}]')
    with pytest.raises(TriviumError, match="row 1: .*; here rows are JSON lines of thumbs: a stage `imports` brings"):
        rows_of(path, "", ["completion", "label"], place)


def test_the_system_beside_messages_is_used_where_a_stage_reads_a_file_itself(tmp_path):
    talk = [turn("user", "q"), turn("assistant", "a")]
    write_rows(tmp_path / "rows.jsonl", [{"system": "s", "history": [["x", "y"]], "messages": talk, "id": 1}])
    place = Context("r", "stage", 0, {}, tmp_path, tmp_path / "scratch", Progress(quiet=True), 1)
    assert rows_of(tmp_path / "rows.jsonl", "", ["messages"], place) == [{"id": 1, "messages": [
        turn("system", "s"), turn("user", "x"), turn("assistant", "y"), *talk]}]


def test_lone_surrogates_are_rejected_with_their_row(tmp_path):
    path = tmp_path / "demonstrations.jsonl"
    row = '{"messages": [{"role": "user", "content": "hi TEXT"}, {"role": "assistant", "content": "a"}]}\n'
    path.write_text("".join(row.replace("TEXT", text) for text in ("\\ud83d there", "\\ud83d\\ude00")))
    place = Context("r", "stage", 0, {}, tmp_path, tmp_path / "scratch", Progress(quiet=True), 1)
    assert [row["messages"][0]["content"] for row in rows_of(path, "", ["messages"], place)] == ["hi \U0001f600"]
    assert json.loads((tmp_path / "rejects-demonstrations.jsonl").read_text())["row"] == 1


def test_the_splits_of_a_folder(tmp_path):
    data = tmp_path / "set"
    for name, text in (("data/train-00000-of-00001.jsonl", "train"), ("data/test-00000-of-00001.jsonl", "test"),
                       ("data/validation-00000-of-00001.jsonl", "valid"), ("train_sft/more.jsonl", "more")):
        (data / name).parent.mkdir(parents=True, exist_ok=True)
        write_rows(data / name, [{"prompt": text, "completion": "a"}])
    (data / "dataset_info.json").write_text('{"features": {}}')

    def asked(**source):
        found, said = run(tmp_path, demonstrations={"mine": data}, sources={"mine": source})
        return sorted(row["messages"][0]["content"] for row in found["demonstrations"]), said

    texts, said = asked()
    assert texts == ["more", "train"] and any("left out (data/test-00000-of-00001.jsonl, data/validation" in line
                                              for line in said)
    assert asked(split="test")[0] == ["test"] and asked(split="train")[0] == ["more", "train"]
    assert asked(split="data")[0] == ["test", "train", "valid"]
    shutil.make_archive(str(tmp_path / "packed"), "zip", data)
    shutil.rmtree(data)
    data = tmp_path / "packed.zip"
    texts, said = asked()
    assert texts == ["more", "train"] and any("data/test-00000-of-00001.jsonl" in line for line in said)
    assert asked(split="test")[0] == ["test"]


def test_what_datasets_saves_is_what_datasets_loads(tmp_path):
    datasets = pytest.importorskip("datasets")
    datasets.disable_progress_bars()
    talk = [{"from": "human", "value": "q"}, {"from": "gpt", "value": "a"}]
    lists = datasets.Features({"conversations": {"from": datasets.Sequence(datasets.Value("string")),
                                                 "value": datasets.Sequence(datasets.Value("string"))}})
    train = datasets.Dataset.from_list([{"conversations": [{**talk[0], "value": f"q{i}"}, talk[1]]} for i in range(30)])
    old = datasets.Dataset.from_list([{"conversations": {"from": ["human", "gpt"], "value": [f"o{i}", "a"]}}
                                      for i in range(3)], features=lists)
    datasets.DatasetDict(train=train, test=old).save_to_disk(str(tmp_path / "both"))
    for split, there, letter in (("train", train, "q"), ("test", old, "o")):
        found, _ = run(tmp_path, demonstrations={"mine": tmp_path / "both"}, sources={"mine": {"split": split}})
        assert sorted(row["messages"][0]["content"] for row in found["demonstrations"]) == sorted(
            f"{letter}{i}" for i in range(len(there))) and found["rejects"] == []


@pytest.mark.long
def test_rows_mean_what_they_mean_to_trl(tmp_path):
    """trl's own functions make conversations of ShareGPT, prompts of implicit ones, and thumbs of pairs."""
    data_utils = pytest.importorskip("trl.data_utils")
    datasets = pytest.importorskip("datasets")
    shared = {"conversations": [{"from": "user", "value": "q"}, {"from": "assistant", "value": "a"}]}
    assert demonstration(shared)["messages"] == data_utils.maybe_convert_to_chatml(shared)["messages"]
    implicit = {"chosen": [turn("user", "q"), turn("assistant", "a"), turn("user", "r"), turn("assistant", "good")],
                "rejected": [turn("user", "q"), turn("assistant", "a"), turn("user", "r"), turn("assistant", "bad")]}
    theirs = data_utils.extract_prompt(implicit)
    assert comparison(implicit) == comparison(theirs) == {
        "prompt": theirs["prompt"], "responses": ["good", "bad"], "ranking": [[0], [1]]}
    for chosen, rejected in (("The sky is blue.", "The sky is green."), ("Two words here", "Two words there")):
        theirs = data_utils.extract_prompt({"chosen": chosen, "rejected": rejected})
        ours = comparison({"chosen": chosen, "rejected": rejected})
        assert ours["prompt"][0]["content"] in (theirs["prompt"], "Two words")
    pairs = datasets.Dataset.from_list([{"prompt": f"p{i}", "chosen": "a", "rejected": "b"} for i in range(3)])
    unpaired = data_utils.unpair_preference_dataset(pairs)
    made = [thumb(row) for row in unpaired]
    assert [(row["prompt"][0]["content"], row["completion"], row["label"]) for row in made] == [
        (row["prompt"], row["completion"], row["label"]) for row in unpaired]


JUNK = st.recursive(
    st.none() | st.booleans() | st.integers(-2, 2) | st.floats(allow_nan=False) | st.sampled_from(
        ["", "x", "[]", "[1]", '{"a": 1}', "\n\nHuman: a\n\nAssistant: b", "user", "assistant", "tool",
         "function_call"]),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(
        st.sampled_from(["role", "from", "content", "value", "tool_calls", "function", "name", "arguments", "weight",
                         "type", "text", "messages", "response", "overall_score", "human", "gpt"]), inner, max_size=4),
    max_leaves=12)
FIELDS = ["messages", "conversations", "instruction", "input", "output", "question", "answer", "prompt", "completion",
          "query", "response", "system", "history", "context", "tools", "reasoning_content", "chosen", "rejected",
          "label", "text", "responses", "ranking", "completions", "labels", "preferred_output", "non_preferred_output",
          "ratings", "finished", "images"]


@settings(max_examples=150, deadline=None)
@given(st.dictionaries(st.sampled_from(FIELDS), JUNK, min_size=1, max_size=6))
def test_whatever_a_row_holds_it_is_read_or_refused_in_words(row):
    for make in (demonstration, comparison, thumb):
        try:
            json.dumps(make(row))
        except TriviumError as error:
            assert str(error)


@pytest.mark.parametrize(("verdict", "better"), [
    ({"preference": 1}, "a"), ({"preference": "2.0"}, "b"), ({"preference": 1.31}, "a"), ({"preference": 1.9}, "b"),
    ({"preference": 0}, "tied"), ({"preference": 1.5}, "tied"), ({"preference": 3}, "'preference' is 3, which says of"),
    ({"preference": None, "winner": "model_b"}, "b"), ({"preference": True}, "'preference' is True"),
    ({"overall_preference": -3}, "a"), ({"overall_preference": 1}, "b"), ({"overall_preference": 0}, "tied"),
    ({"overall_preference": -100}, "is -100"), ({"preference_strength": "2"}, "b"), ({"labels": 1}, "a"),
    ({"labels": 0}, "b"), ({"labels": 2}, "'labels' is 2"), ({"better_response_id": 0}, "a"),
    ({"winner": "Model_A"}, "a"), ({"winner": "tie (bothbad)"}, "tied"), ({"winner": "gpt-4"}, "'winner' is 'gpt-4'"),
    ({"annotator1": "1", "annotator2": 2, "annotator3": 1}, "a"), ({"annotator_1": 1, "annotator_2": 2}, "tied"),
    ({"annotator1": "yes"}, "the field 'annotator1' is 'yes', which is neither 1, 2 nor 0")])
def test_verdicts_on_two_responses(verdict, better):
    row = {"instruction": "Which?", "response_1": "This.", "response_2": "That."} | verdict
    if better in ("a", "b"):
        made = comparison(row)
        best = made["responses"][made["ranking"][0][0]]
        assert best == {"a": "This.", "b": "That."}[better]
        assert made["prompt"] == [{"role": "user", "content": "Which?"}]
    else:
        with pytest.raises(TriviumError, match=re.escape(better)):
            comparison(row)


def test_two_responses_without_a_verdict_are_no_comparison():
    with pytest.raises(TriviumError, match="no known kind of comparison has the fields output_1, output_2, prompt"):
        comparison({"prompt": "Which?", "output_1": "This.", "output_2": "That."})
    with pytest.raises(TriviumError, match="its two responses have no verdict beside them, such as 'annotator1'"):
        comparison({"prompt": "Which?", "output_1": "This.", "output_2": "That.", "annotator": "anna"})
    with pytest.raises(TriviumError, match="it has 'response1', but no 'response2'"):
        comparison({"prompt": "Which?", "response1": "This.", "annotator1": 1})


def test_two_responses_and_votes_under_chinese_names():
    votes = {"标注员1": 2, "标注员2": 2, "标注员3": 1}
    made = comparison({"问题": "哪个？", "回答1": "这个。", "回答2": "那个。", **votes})
    assert made["responses"][made["ranking"][0][0]] == "那个。"


def test_calls_alone_answer_a_question():
    calls = [{"name": "weigh", "arguments": {"of": "lead"}}, {"name": "weigh", "arguments": {"of": "cork"}}]
    tools = [{"name": "weigh", "description": "Weigh it.", "parameters": {"type": "object", "properties": {}}}]
    row = {"id": 3, "query": "Which is heavier?", "tools": json.dumps(tools), "answers": json.dumps(calls)}
    made = demonstration(row)
    assert [call["function"] for call in made["messages"][1]["tool_calls"]] == calls
    assert made["tools"][0]["function"]["name"] == "weigh"
