"""Multiple choice: numbers against transformers."""

from __future__ import annotations

import math

import pytest
from transformers import AutoModelForCausalLM, AutoTokenizer

from trivium.errors import TriviumError
from trivium.evaluation.model import EvaluatedModel
from trivium.evaluation.tasks.load import load_task

CHOICE = "kind: choice\ndata: rows.jsonl\n"


def test_choices_are_scored_as_transformers_does(models, task_file, oracle_log_prob):
    rows = [{"prompt": f"Question: what is {i}?\nAnswer:", "choices": ["yes", "a loaf of bread", "no, not at all"],
             "answer": i % 3} for i in range(6)]
    path = task_file("kind: choice\ndata: rows.jsonl\n", rows)
    result = load_task(path).examine(path, EvaluatedModel.load(models["base"]))
    oracle = AutoModelForCausalLM.from_pretrained(models["base"]).eval()
    tokenizer = AutoTokenizer.from_pretrained(models["base"])
    for row, made in zip(rows, result.rows, strict=True):
        context = tokenizer.encode(row["prompt"])
        whole = [tokenizer.encode(row["prompt"] + " " + choice) for choice in row["choices"]]
        expected = [oracle_log_prob(oracle, context, tokens[len(context):]) for tokens in whole]
        assert made["log_probs"] == pytest.approx(expected, abs=1e-3)
        assert made["chosen"] == expected.index(max(expected))
        shares = [math.exp(value) for value in expected]
        assert made["probability_of_right"] == pytest.approx(shares[row["answer"]] / sum(shares), abs=1e-3)
    assert result.metrics["accuracy"]["value"] == sum(row["score"] for row in result.rows) / 6
    assert result.metrics["chance"] == pytest.approx(1 / 3)


@pytest.mark.parametrize(("row", "message"), [
    ({"choices": ["a", "b"], "answer": 0}, "rows.jsonl: row 2: the field 'prompt' is missing"),
    ({"prompt": "?", "answer": 0}, "rows.jsonl: row 2: the field 'choices' is missing"),
    ({"prompt": "?", "choices": ["a", "b"]}, "rows.jsonl: row 2: the field 'answer' is missing"),
    ({"prompt": "?", "choices": ["a", "b"], "answer": 2}, "rows.jsonl: row 2: the answer 2 is outside its 2 choices"),
    ({"prompt": "?", "choices": ["a", "b"], "answer": "c"},
     "rows.jsonl: row 2: the answer 'c' is outside its 2 choices"),
    ({"prompt": "?", "choices": ["a", "b"], "answer": True}, "rows.jsonl: row 2: the answer True is outside"),
    ({"prompt": "?", "choices": ["a", "b"], "answer": []}, "rows.jsonl: row 2: no choice is right"),
    ({"prompt": "?", "choices": "ab", "answer": 0}, "rows.jsonl: row 2: the choices are no list"),
    ({"prompt": "?", "choices": ["a", ""], "answer": 0}, "rows.jsonl: row 2: choice 1 is empty"),
])
def test_a_bad_row_is_named_with_its_file_and_number(task_file, row, message):
    path = task_file(CHOICE, [{"prompt": "?", "choices": ["a", "b"], "answer": "b"}, row])
    task = load_task(path)
    with pytest.raises(TriviumError) as error:
        for item in task.items(path, task.data, 0):
            task.choices_of(item)
    assert message in str(error.value) and "\n" not in str(error.value)
