"""Demonstrations of every format, mixed by weight, phrased by templates; bad rows are rejected with their reason."""

from __future__ import annotations

import json
from collections import Counter

import pyarrow as pa
import pytest
from pyarrow import parquet

from trivium.data.demonstrations import demonstration
from trivium.data.phrasings import FAMILIES, Phraser
from trivium.errors import TriviumError
from trivium.progress import Progress
from trivium.stage import Context
from trivium.stages.data.imports import Imports

CHAT = [{"role": "user", "content": "Hello?"}, {"role": "assistant", "content": "Hello."}]


def run(tmp_path, demonstrations, **settings):
    place = Context("r", "imports", 0, {"demonstrations": demonstrations, "comparisons": []}, tmp_path / "out",
                    tmp_path / "scratch", Progress(quiet=True), 1)
    place.folder.mkdir(exist_ok=True)
    given = {name: str(path)
             for name, path in demonstrations.items()} if isinstance(demonstrations, dict) else list(
                 map(str, demonstrations))
    summary = Imports.model_validate({"demonstrations": given, **settings}).run(place)
    rows = [json.loads(line) for line in (place.folder / "demonstrations.jsonl").read_text().splitlines()]
    rejects = [json.loads(line) for line in (place.folder / "rejects.jsonl").read_text().splitlines()]
    return summary, rows, rejects


@pytest.mark.parametrize(("row", "said"), [
    ({"messages": CHAT}, ["Hello?", "Hello."]),
    ({
        "messages": [{"role": "user", "content": [{"type": "text", "text": "a"}, {"type": "text", "text": "b"}]},
                     CHAT[1]]
    }, ["ab", "Hello."]),
    ({"conversations": [{"from": "human", "value": "a"}, {"from": "gpt", "value": "b"}], "system": "s"
      }, ["s", "a", "b"]),
    ({"instruction": "a", "input": "b", "output": "c"}, ["a\n\nb", "c"]),
    ({"instruction": "a", "input": "", "output": "c", "history": [["x", "y"]]}, ["x", "y", "a", "c"]),
    ({"question": "a", "answer": "1<<1=1>>\n#### 1"}, ["a", "1\nThe answer is 1."]),
    ({"prompt": "一加一？", "completion": "二"}, ["一加一？", "二"]),
    ({"prompt": CHAT[:1], "completion": CHAT[1:]}, ["Hello?", "Hello."]),
])
def test_every_format(row, said):
    assert [m["content"] for m in demonstration(row)["messages"]] == said


@pytest.mark.parametrize(("row", "reason"), [
    ({"messages": CHAT[1:]}, "starts with the assistant"),
    ({"messages": [{"role": "system", "content": "s"}, *CHAT[1:]]}, "starts with the assistant"),
    ({"messages": [CHAT[0], {"role": "assistant", "content": " \n"}]}, "message 2: the content is empty"),
    ({"messages": [{"role": "wizard", "content": "x"}, CHAT[1]]}, "unknown role 'wizard'"),
    ({"conversations": [{"from": "wizard", "value": "x"}]}, "unknown role 'wizard'"),
    ({"messages": CHAT[:1]}, "the last message is not the assistant's"),
    ({"text": "x"}, "no known kind"),
    ({"messages": [*CHAT, {"role": "system", "content": "s"}, *CHAT]}, "the system speaks after"),
    ({"messages": "hello"}, "messages is neither a list nor the JSON of one"),
    ({"messages": 5}, "messages is no list"),
    ({"messages": "[]"}, "at least one message"),
    ({"messages": [CHAT[0], "x"]}, "message 2: not an object with role and content"),
    ({"messages": [{"role": "user"}, CHAT[1]]}, "message 1: there is no content"),
    ({"conversations": "x"}, "conversations is neither a list"),
    ({"conversations": [["human", "x"]]}, "message 1: not an object"),
    ({"conversations": [{"from": ["x"], "value": "x"}]}, "message 1: unknown role"),
    ({"conversations": [{"from": "human"}]}, "message 1: there is no content"),
    ({"instruction": "a", "output": ""}, "message 2: the content is empty"),
    ({"prompt": "a", "completion": 5}, "the field .completion. is no text, but a number"),
])
def test_bad_rows_have_a_reason(row, reason):
    with pytest.raises(TriviumError, match=reason):
        demonstration(row)


def test_a_table_of_chinese_reviews_becomes_instructions(tmp_path):
    (tmp_path / "reviews.csv").write_text(
        "label,review\n" + "".join(f'{i % 2},"第{i}次点，味道{"很好" if i % 2 else "很差"}"\n' for i in range(40)) +
        "7,不知道\n1\n0,第0次点，味道很差\n1, \n", encoding="utf-8-sig")
    summary, rows, rejects = run(tmp_path, {"reviews": tmp_path / "reviews.csv"}, sources={"reviews": {
        "columns": {"text": "review"}, "labels": {"0": "差评", "1": "好评"}, "templates": "classification-zh"}})
    assert len(rows) == 40 and {row["messages"][1]["content"] for row in rows} == {"差评", "好评"}
    assert all(row["source"] == "reviews" and ("很好" in row["messages"][0]["content"]) == (
        row["messages"][1]["content"] == "好评") for row in rows)
    shapes = Counter(row["messages"][0]["content"].partition("第")[0] for row in rows)
    assert len(shapes) == len(FAMILIES["classification-zh"])
    reasons = [row["reason"] for row in rejects]
    assert "the label '7' is none of 0, 1" in reasons and "1 field, where the first line names 2 columns" in reasons
    assert any("a duplicate of reviews.csv, row 1" in reason
               for reason in reasons) and "the field 'text' is empty" in reasons
    report = summary["sources"]["reviews"]
    assert (report["rows"], report["kept"], report["used"], sum(report["rejected"].values())) == (44, 40, 40, 4)
    assert report["rejected"] == {
        "the label … is none of 0, 1": 1, "… fields, where the first line names 2 columns": 1, "a duplicate": 1,
        "the field 'text' is empty": 1
    }
    assert len({row["group"] for row in rows}) == 40


def test_phrasings_of_one_row_are_one_group(tmp_path):
    (tmp_path / "a.csv").write_text("text,label\n" + "".join(f"text {i},{i % 2}\n" for i in range(9)))
    _, rows, _ = run(tmp_path, {"a": tmp_path / "a.csv"}, rows=27,
                     sources={"a": {"labels": {"0": "no", "1": "yes"}, "templates": "classification", "weight": 1}})
    asked = {row["messages"][0]["content"]: row["group"] for row in rows}
    assert len(asked) == 27 and Counter(asked.values()) == dict.fromkeys(asked.values(), 3) and len(set(
        asked.values())) == 9
    for asks, group in asked.items():
        assert all(group == other for text, other in asked.items()
                   if f"text {next(i for i in range(9) if f'text {i}' in asks)}" in text)


def test_a_row_of_another_source_is_a_duplicate_too(tmp_path):
    (tmp_path / "a.jsonl").write_text(json.dumps({"prompt": "p", "completion": "c"}))
    (tmp_path / "b.jsonl").write_text("".join(
        json.dumps({"instruction": text, "output": "c"}) + "\n" for text in ("p", "q")))
    summary, rows, rejects = run(tmp_path, {"a": tmp_path / "a.jsonl", "b": tmp_path / "b.jsonl"})
    assert len(rows) == 2 and [(row["file"], row["row"], row["reason"])
                               for row in rejects] == [("b.jsonl", 1, "a duplicate of a.jsonl, row 1")]
    assert summary["sources"]["b"]["rejected"] == {"a duplicate": 1}


def test_sources_are_mixed_by_weight(tmp_path):
    data = tmp_path / "dataset" / "data"
    data.mkdir(parents=True)
    table = [{"prompt": f"p{i}", "completion": f"c{i}"} for i in range(300)]
    parquet.write_table(pa.Table.from_pylist(table), data / "train-00000-of-00001.parquet")
    parquet.write_table(pa.Table.from_pylist(table[:5]), data / "test-00000-of-00001.parquet")
    (tmp_path / "few.jsonl").write_text("".join(
        json.dumps({"instruction": f"i{i}", "output": f"o{i}"}) + "\n" for i in range(20)))
    settings = {"sources": {"many": {"weight": 3, "split": "train"}, "few": {"weight": 1}}, "rows": 200}
    summary, rows, _ = run(tmp_path, {"many": tmp_path / "dataset", "few": tmp_path / "few.jsonl"}, **settings)
    counts = Counter(row["source"] for row in rows)
    assert counts == {"many": 150, "few": 50} and summary["sources"]["few"]["passes"] == 2.5
    times = Counter(row["messages"][0]["content"] for row in rows if row["source"] == "few")
    assert set(times.values()) == {2, 3} and len(times) == 20
    assert run(tmp_path, {"many": tmp_path / "dataset", "few": tmp_path / "few.jsonl"}, **settings)[1] == rows
    assert summary["sources"]["many"]["rows"] == 300


def test_questions_become_prompts_with_what_their_answers_are_checked_by(tmp_path):
    path = tmp_path / "sums.jsonl"
    path.write_text("".join(
        json.dumps({"question": f"{n} and {n}?", "answer": f"It is <<{n}+{n}={2 * n}>>{2 * n}.\n#### {2 * n}"}) + "\n"
        for n in range(40)))
    _, rows, _ = run(tmp_path, {"sums": path}, sources={"sums": {"prompts": True}}, heldout=0.25)
    prompts, heldout = ([json.loads(line) for line in (tmp_path / "out" / name).read_text().splitlines()]
                        for name in ("prompts.jsonl", "evaluation.jsonl"))
    assert len(prompts) + len(heldout) == 40 and 3 < len(heldout) < 20 and len({row["id"]
                                                                                for row in prompts + heldout}) == 40
    for row in prompts + heldout:
        assert row["answer"] == str(2 * int(row["prompt"][0]["content"].split()[0]))
    # those held out teach nothing
    assert sorted(row["messages"][0]["content"] for row in rows) == sorted(row["prompt"][0]["content"]
                                                                           for row in prompts)
    assert all(set(row) == {"messages", "source"} for row in rows)


@pytest.mark.parametrize("family", FAMILIES)
def test_every_family_of_templates_makes_conversations(family):
    row = {
        "text": "它很好", "labels": ["yes", "no"], "label": "yes", "premise": "p", "hypothesis": "h", "field": "name",
        "value": "v", "source": "s", "target": "t", "language": "法语", "question": "q", "answer": "a",
        "steps": "one, two"
    }
    phraser = Phraser(family, "x")
    asked = {phraser(row, i)[0]["content"] for i in range(len(phraser))}
    assert len(asked) == len(phraser) >= 2 and all(phraser(row, i)[1]["content"] for i in range(len(phraser)))


@pytest.mark.parametrize(("source", "message"), [
    ({"templates": "clasification"}, "did you mean 'classification'"),
    ({"templates": "classification"}, "name them under `labels`"),
    ({"templates": [{"user": "{{ text", "assistant": "x"}]}, r"sources.a.templates.0: not valid Jinja: line 1"),
    ({"templates": [{"user": "{{ txt }}", "assistant": "x"}]}, "'txt' is undefined"),
    ({"templates": [{"user": "{{ text.__class__.__mro__ }}", "assistant": "x"}]}, "unsafe"),
    ({"columns": {"label": "lable"}}, "the column 'lable' is missing; did you mean 'label'"),
    ({"split": "validation"}, "no file's name has"),
])
def test_a_bad_recipe_is_one_clear_error(tmp_path, source, message):
    (tmp_path / "a.csv").write_text("text,label\nx,1\n")
    with pytest.raises(TriviumError, match=message):
        run(tmp_path, {"a": tmp_path / "a.csv"}, sources={"a": source})


def test_settings_of_a_source_that_is_not_there(tmp_path):
    (tmp_path / "a.csv").write_text("prompt,completion\nx,1\n")
    with pytest.raises(TriviumError, match="did you mean 'reviews'"):
        run(tmp_path, {"reviews": tmp_path / "a.csv"}, sources={"review": {"weight": 2}})


def test_rows_that_contradict_one_another_are_counted_and_kept(tmp_path):
    (tmp_path /
     "rows.csv").write_text("review,stars\nGood soup.,1\nGood soup.,0\nGood soup.,1\nBad soup.,0\nOdd soup.,7\n")
    source = {
        "columns": {"text": "review", "label": "stars"}, "labels": {0: "bad", 1: "good"}, "templates": "classification"
    }
    summary, rows, rejects = run(tmp_path, {"soups": tmp_path / "rows.csv"}, sources={"soups": source})
    assert len(rows) == 3 and len(rejects) == 2
    counts = summary["sources"]["soups"]
    assert counts["answered_otherwise"] == 1 and counts["rejected"] == {
        "a duplicate": 1, "the label … is none of 0, 1": 1
    }


def test_labels_without_a_label_are_a_fault_of_the_recipe_that_is_named(tmp_path):
    (tmp_path / "rows.csv").write_text("review,stars\nGood soup.,1\n")
    with pytest.raises(TriviumError,
                       match="needs a field `label`.* `columns` does not name; the row has review, stars, text"):
        run(tmp_path, {"soups": tmp_path / "rows.csv"},
            sources={"soups": {"columns": {"text": "review"}, "labels": {"1": "good"}, "templates": "classification"}})
