"""The loss of held-out answers, against transformers."""

from __future__ import annotations

import json

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from trivium.errors import TriviumError
from trivium.evaluation.model import EvaluatedModel
from trivium.evaluation.tasks.load import load_task

ROWS = [{"messages": [{"role": "user", "content": f"Where is kite {n}?"}, {"role": "assistant", "content": "Up high."},
                      {"role": "user", "content": "And now?"}, {"role": "assistant", "content": "It fell " * (1 + n)}],
         "kite": 1 + n // 2} for n in range(4)] + [{"prompt": "Which?", "answer": "That one."}]


@pytest.mark.parametrize("name", ["chat", "base"])
def test_the_loss_of_answers_is_transformers(models, task_file, name):
    path = task_file("kind: answers\ndata: rows.jsonl\ncluster: '{{ kite }}'\n",
                     [{"kite": 9} | row for row in ROWS])
    task = load_task(path)
    task.check(path)
    result = task.examine(path, EvaluatedModel.load(models[name]))
    oracle = AutoModelForCausalLM.from_pretrained(models[name]).eval()
    tokenizer = AutoTokenizer.from_pretrained(models[name])
    answer, end = (tokenizer.convert_tokens_to_ids(mark) for mark in ("<|assistant|>", "<|end|>"))
    total = count = 0
    for row in result.rows:
        ids = tokenizer.apply_chat_template(row["messages"], tokenize=True, return_dict=False)
        speaking, nats, number = False, 0.0, 0
        with torch.no_grad():
            log_probs = torch.log_softmax(oracle(torch.tensor([ids])).logits[0].double(), -1)
        for place, token in enumerate(ids):
            if speaking:
                nats -= float(log_probs[place - 1, token])
                number += 1
            speaking = (speaking or token == answer) and token != end
        assert row["score"] == pytest.approx(nats / number, abs=1e-4) and row["tokens"] == number
        total, count = total + nats, count + number
    loss = result.metrics["answer_loss"]
    assert loss["value"] == pytest.approx(total / count, abs=1e-4) and loss["n"] == 3
    assert loss["low"] < loss["value"] < loss["high"] and loss["method"] == "BCa (clusters)"
    assert result.metrics["tokens"] == count


@pytest.mark.parametrize(("row", "message"), [
    ({"question": "?"}, "row 2: the field 'prompt' is missing; a row has `messages`, or `prompt` and `answer`"),
    ({"prompt": "?"}, "row 2: the field 'answer' is missing"),
    ({"messages": [{"role": "user", "content": "?"}]}, "row 2: the assistant says nothing"),
    ({"messages": []}, "row 2: messages: a chat needs at least one message"),
    ({"prompt": "?", "answer": " "}, "row 2: the assistant says nothing"),
])
def test_a_row_without_an_answer_is_refused_before_a_model_is_loaded(task_file, row, message):
    path = task_file("kind: answers\ndata: rows.jsonl\n", [ROWS[0], row])
    with pytest.raises(TriviumError) as error:
        load_task(path).check(path)
    assert message in str(error.value) and "rows.jsonl" in str(error.value) and "\n" not in str(error.value)


def test_what_is_too_long_is_left_out_and_counted(models, task_file):
    long = {"prompt": "Where?", "answer": "far " * 400}
    path = task_file("kind: answers\ndata: rows.jsonl\n", [ROWS[0], long])
    result = load_task(path).examine(path, EvaluatedModel.load(models["chat"]))
    assert result.notes == {"left_out": 1} and result.metrics["answer_loss"]["method"] == "none"
    (path.parent / "rows.jsonl").write_text(json.dumps(long) + "\n")
    with pytest.raises(TriviumError, match="every conversation is longer than the model's 160 positions"):
        load_task(path).examine(path, EvaluatedModel.load(models["chat"]))
