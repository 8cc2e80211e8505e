"""What is searched for of an evaluation set, whatever its rows look like: rows of the field's sets in their own form,
with questions of our own."""

import json

import pytest

from trivium.corpus.contamination import ContaminationIndex, ContaminationSettings, write_index
from trivium.corpus.evaluation_sets import read_evaluation
from trivium.errors import TriviumError

ASKED = "Which of the ferrymen rowed across the frozen bay?"
LONG = "because his boat had iron runners under the keel like a sledge"
SETS = {
    "hellaswag.jsonl": ([{"ind": 4, "activity_label": "Rowing", "ctx_a": "x", "ctx_b": "y", "ctx": ASKED,
                          "split": "val", "endings": [LONG, "he slept"], "label": "0"}], [ASKED], [LONG, "he slept"]),
    "piqa.jsonl": ([{"goal": ASKED, "sol1": LONG, "sol2": "Wait."}], [ASKED], [LONG, "Wait."]),
    "winogrande.jsonl": ([{"sentence": "Ada thanked Bea since _ had lent the lamp.", "option1": "Ada", "option2": "Bea",
                           "answer": "2"}],
                         ["Ada thanked Bea since _ had lent the lamp.", "Ada thanked Bea since Ada had lent the lamp.",
                          "Ada thanked Bea since Bea had lent the lamp."], ["Ada", "Bea"]),
    "boolq.jsonl": ([{"question": ASKED, "passage": LONG, "answer": True}], [ASKED], []),
    "squad.json": ({"version": "1", "data": [{"title": "Ferries", "paragraphs": [{"context": LONG, "qas": [
        {"id": "a1", "question": ASKED, "answers": [{"text": "the third of the brothers", "answer_start": 3}]},
        {"id": "a2", "question": "Who else?", "answers": []}]}]}]},
                   [ASKED, "Who else?"], ["the third of the brothers"]),
    "arc.jsonl": ([{"id": "q1", "question": {"stem": ASKED, "choices": [{"text": LONG, "label": "A"},
                                                                       {"text": "the oars", "label": "B"}]},
                    "answerKey": "A"}], [ASKED], [LONG, "the oars"]),
    "code.jsonl": ([{"task_id": "T/0", "prompt": "def across(bay):\n    \"\"\"Row across.\"\"\"\n",
                     "canonical_solution": "    return bay\n", "entry_point": "across"}],
                   ["def across(bay):\n    \"\"\"Row across.\"\"\"\n"], ["    return bay\n"]),
    "chat.jsonl": ([{"messages": [{"role": "system", "content": "Be brief."}, {"role": "user", "content": ASKED},
                                  {"role": "assistant", "content": LONG}]}], ["Be brief.", ASKED], [LONG]),
    "shared.jsonl": ([{"conversations": [{"from": "human", "value": ASKED}, {"from": "gpt", "value": LONG}]}], [ASKED],
                     [LONG]),
    "turns.jsonl": ([{"question_id": 1, "category": "writing", "turns": [ASKED, "And why?"]}], [ASKED, "And why?"], []),
    "bbh.json": ({"canary": "do not train", "examples": [{"input": ASKED, "target": "(A)"}]}, [ASKED], ["(A)"]),
    "strings.json": ([ASKED, "Who else rowed there at night?"], [ASKED, "Who else rowed there at night?"], []),
    "named-oddly.jsonl": ([{"nr": "7", "frage": ASKED, "moeglich": ["ja", LONG]}], [ASKED, LONG], ["ja"]),
    "chinese.jsonl": ([{"题目": "哪一位船夫划过了结冰的海湾？", "选项": ["老大", "老二"]}],
                      ["哪一位船夫划过了结冰的海湾？"], ["老大"]),
    "truthful.csv": ("Type,Category,Question,Best Answer,Correct Answers\n"
                     f"Plain,Boats,{ASKED},the third,the third; {LONG}\n",
                     [ASKED], [LONG]),
    "mmlu.csv": (f"question,choice0,choice1,answer\n{ASKED},{LONG},the oars,0\n", [ASKED], [LONG, "the oars"]),
    "mmlu-without-head.csv": (f"{ASKED},{LONG},the oars,1,1,B\nWho else rowed there at night?,a,b,c,d,A\n",
                              [ASKED, LONG, "Who else rowed there at night?"], ["the oars"]),
    "cmmlu.csv": (",Question,A,B,C,D,Answer\n0,哪一位船夫划过了结冰的海湾？,老大,老二,老三,老四,C\n",
                  ["哪一位船夫划过了结冰的海湾？"], ["老三"]),
    "lines.txt": (f"{ASKED}\nWho else rowed there at night, and for what reason did they?\n", [],
                  [ASKED, "Who else rowed there at night, and for what reason did they?"]),
}


def write(folder, name, content):
    path = folder / name
    text = content if isinstance(content, str) else json.dumps(content, ensure_ascii=False) if name.endswith(
        ".json") else "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in content)
    path.write_bytes(text.encode("gb18030" if name == "cmmlu.csv" else "utf-8"))
    return path


@pytest.mark.parametrize("name", SETS)
def test_questions_and_answers_are_each_searched_for(name, tmp_path):
    content, questions, answers = SETS[name]
    found = read_evaluation(write(tmp_path, name, content), False, lambda text: None)
    assert set(questions) <= set(found.questions)
    assert {text.strip() for text in answers} <= {text.strip() for text in found.answers}
    assert LONG not in found.questions or name in ("named-oddly.jsonl", "mmlu-without-head.csv")
    write_index(found.questions, ContaminationSettings(), tmp_path, found.answers)
    index = ContaminationIndex(tmp_path)
    for text in (*questions, *answers):
        words = text.split()
        if len(words) >= 8 or (text in questions and (len(words) >= 3 or not text.isascii())):
            assert index.find(f"Once upon a time: {text} So it went on.") is not None, text
    assert index.find("The united oars of the third of the brothers, yes, and the sledge under the keel.") is None


def test_passages_are_searched_for_on_request(tmp_path):
    path = write(tmp_path, "boolq.jsonl", SETS["boolq.jsonl"][0])
    said = []
    assert read_evaluation(path, True, said.append).questions == [ASKED, LONG]
    assert read_evaluation(path, False, said.append).questions == [ASKED]
    assert said == ["boolq.jsonl: 1 file: 'question' as questions; 'passage' as passages",
                    "boolq.jsonl: 1 file: 'question' as questions; 'passage' as passages, which are not searched for"]


def test_nothing_is_passed_over_without_a_word(tmp_path):
    folder = tmp_path / "sets"
    folder.mkdir()
    write(folder, "piqa.jsonl", SETS["piqa.jsonl"][0])
    (folder / "LICENSE").write_text("free")
    (folder / "labels.lst").write_text("0\n")
    said = []
    assert read_evaluation(folder, False, said.append).questions == [ASKED]
    assert said[-1] == "sets: without rows and not searched for: sets/LICENSE, sets/labels.lst"
    (folder / "bad.jsonl").write_text(json.dumps({"question": ASKED}) + "\n{\"question\": \n")
    with pytest.raises(TriviumError, match=r"sets/bad\.jsonl: row 2: .*not be searched for"):
        read_evaluation(folder, False, said.append)
    (folder / "bad.jsonl").write_bytes(b"")
    with pytest.raises(TriviumError, match=r"sets/bad\.jsonl: holds no rows"):
        read_evaluation(folder, False, said.append)
    (folder / "bad.jsonl").unlink()
    (folder / "bad.csv").write_bytes(b"Question,A\n\"never closed,1\n")
    with pytest.raises(TriviumError, match=r"sets/bad\.csv: row 1: "):
        read_evaluation(folder, False, said.append)
    (tmp_path / "notes.md").write_text("# Notes")
    with pytest.raises(TriviumError, match="holds no rows"):
        read_evaluation(tmp_path / "notes.md", False, said.append)
