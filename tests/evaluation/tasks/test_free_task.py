"""Free answers: extractors, comparisons, and questions in chat and in text."""

from __future__ import annotations

import pytest

from trivium.errors import TriviumError
from trivium.evaluation.model import EvaluatedModel
from trivium.evaluation.tasks.load import load_task


@pytest.mark.parametrize(("settings", "text", "answer", "right"), [
    ("compare: number", "so 3 + 4 = 7. The answer is 1,234.", "1234", True),
    ("compare: number\nextract: '-?\\d[\\d,]*'", "first 9, then 12", "12", True),
    ("compare: number\nextract: '-?\\d[\\d,]*'\ntake: first", "first 9, then 12", "12", False),
    ("compare: choice", "(B) because", "B", True), ("compare: choice", "Answer", "A", False),
    ("compare: contains", "It is the Seine.", "seine", True), ("compare: contains", "seines", "seine", False),
    ("compare: exact", " Positive! ", "positive", True), ("compare: exact", "not positive", "positive", False),
    ("extract: 'answer is (\\w+)'", "I do not know", "x", False),
])
def test_extractors_and_comparisons(task_file, settings, text, answer, right):
    task = load_task(task_file(f"kind: free\ndata: rows.jsonl\n{settings}\n"))
    found = task.extracted(text)
    assert (found is not None and task.same(found, answer)) is right



def test_free_answers_in_chat_and_in_text(models, task_file):
    rows = [{"prompt": f"Is {i} even?", "answer": "yes" if i % 2 == 0 else "no"} for i in range(8)]
    path = task_file("kind: free\ndata: rows.jsonl\nlabels: ['yes', 'no']\nshots: 2\nmax_new_tokens: 8\n"
                     "think: 'Well,'\n", rows)
    for name, form in (("chat", "chat"), ("base", "text")):
        result = load_task(path).examine(path, EvaluatedModel.load(models[name]))
        assert result.notes["form"] == form and len(result.rows) == 8
        assert result.metrics["right"]["value"] == sum(row["score"] for row in result.rows) / 8
        assert result.metrics["classification"]["classes"]["yes"]["n"] == 4
    rows.append({"prompt": "?", "answer": "perhaps"})
    path = task_file("kind: free\ndata: rows.jsonl\nlabels: ['yes', 'no']\n", rows)
    with pytest.raises(TriviumError, match=r"rows\.jsonl: row 9: the answer 'perhaps' is outside its choices"):
        load_task(path).examine(path, EvaluatedModel.load(models["chat"]))
