"""Ways to ask: what stands before a question, what counts as right, and what a bad file says."""

from __future__ import annotations

import json

import pytest

from trivium.errors import TriviumError
from trivium.evaluation.prompting import (
    Example,
    Question,
    choose,
    compare,
    conclusion_of,
    prompt_for,
    read_examples,
    read_questions,
    reasoning_of,
    same_answer,
)
from trivium.evaluation.statistics import mean_difference
from trivium.files import write_rows
from trivium.model import LanguageModel, ModelConfig
from trivium.stages.models import save_model
from trivium.tokenizer.chat import ChatTokenizer
from trivium.tokenizer.train import train


@pytest.fixture(scope="module")
def tokenizer():
    return ChatTokenizer(train(iter(["Question: how much is 2 + 2? Answer: 2 + 2 = 4. The answer is 4.\n"] * 20), 300))


@pytest.mark.parametrize(("answer", "conclusion", "reasoning"), [
    ("2 * 3 = <<2*3=6>>6 apples\n#### 6", "The answer is 6.", "2 * 3 = 6 apples The answer is 6."),
    ("Step by step: 4 + 4 = 8. The answer is 8.", "The answer is 8.", "Step by step: 4 + 4 = 8. The answer is 8."),
    ("It is red.", "It is red.", "It is red."),
])
def test_what_an_answer_comes_to(answer, conclusion, reasoning):
    assert conclusion_of(answer) == conclusion and reasoning_of(answer) == reasoning


@pytest.mark.parametrize(("expected", "answer", "right"), [
    ("6", "2 * 3 = 6, so 6.", True), ("6", "6 or 7", False), ("1,200", "it makes 1200", True), ("6", "none", False),
    ("red", "It is RED.", True), ("-2.5", "That is -2.5 degrees", True), ("6", "60", False),
])
def test_which_answers_are_right(expected, answer, right):
    assert same_answer(expected, answer) is right


def test_each_way_shows_what_it_says(tokenizer):
    question, example = Question("How much is 1 + 1?", "sums",
                                 lambda text: True), Example("How much is 2 + 2?", "2 + 2 = 4. The answer is 4.",
                                                             "The answer is 4.", "sums")
    shown = {(method, chat): tokenizer.decode(prompt_for(method, question, [example], tokenizer, chat))
             for method in ("zero-shot", "few-shot", "chain-of-thought", "step-by-step") for chat in (True, False)}
    for chat in (True, False):
        assert "2 + 2" not in shown["zero-shot",
                                    chat] and "= 4" not in shown["few-shot",
                                                                 chat] and "The answer is 4" in shown["few-shot", chat]
        assert "2 + 2 = 4" in shown["chain-of-thought", chat] and "step by step" in shown["step-by-step", chat]
    assert shown["few-shot", True].endswith("<|assistant|>") and shown["few-shot", False].endswith("Answer:")


def test_examples_are_of_the_task_never_the_question_itself_and_always_the_same():
    question = Question("q3", "sums", lambda text: True)
    examples = [Example(f"q{i}", "so. The answer is 1.", "The answer is 1.", "sums")
                for i in range(8)] + [Example("other", "a", "a", "talk")]
    for number in range(20):
        chosen = choose(examples, question, 4, 0, number)
        assert chosen == choose(examples, question, 4, 0, number) and len(chosen) == 4
        assert all(example.task == "sums" and example.question != "q3" for example in chosen)


def test_a_model_is_asked_in_every_way_the_same_questions(tmp_path, tokenizer):
    config = ModelConfig(vocab_size=tokenizer.vocab_size, hidden_size=32, intermediate_size=32, num_layers=1,
                         num_heads=1, num_kv_heads=1, max_positions=256)
    save_model(LanguageModel(config).initialise(0), tokenizer, tmp_path / "model")
    write_rows(tmp_path / "questions.jsonl",
               [{"question": f"How much is {i} + 1?", "answer": f"{i} + 1 = {i + 1}\n#### {i + 1}"}
                for i in range(12)] + [{"question": "long " * 200, "answer": "no"}])
    questions, examples = read_questions(tmp_path / "questions.jsonl"), read_examples(tmp_path / "questions.jsonl")
    found = compare(tmp_path / "model", questions, examples, ["zero-shot", "few-shot", "chain-of-thought"], 2, 8)
    assert found["questions"] < 13 and found["questions"] + found["left_out"] == 13
    for method in found["methods"].values():
        assert 0 <= method["right"]["low"] <= method["right"]["value"] <= method["right"]["high"] <= 1 and len(
            method["answers"]) == found["questions"]
    assert found["methods"]["zero-shot"]["versus"] is None and "value" in found["methods"]["few-shot"]["versus"]
    assert compare(tmp_path / "model", questions, examples, ["zero-shot"], 2, 8)["questions"] >= found["questions"]
    for methods, more, message in ((["few-shots"], {}, "did you mean 'few-shot'"), (["few-shot"], {
            "examples": []
    }, "name a file of them with --examples"), (["few-shot"], {"shots": 0}, "at least 1 example"),
                                   (["zero-shot"], {"max_new_tokens": 255}, "no question fits")):
        with pytest.raises(TriviumError, match=message):
            compare(tmp_path / "model", questions, more.pop("examples", examples), methods, **more)
    with pytest.raises(TriviumError, match="need"):
        compare(tmp_path / "model", questions, [Example("q", "a", "a", "x")], ["chain-of-thought"])


@pytest.mark.parametrize(("row", "message"), [
    ({"question": "how?"}, "row 1: the field 'answer' is missing"),
    ({"prompt": [], "truth": {}, "task": "code"}, "row 1"),
    ({"prompt": "how?", "truth": {}, "task": "code"}, "row 1"),
    ({"truth": {}}, "row 1"),
])
def test_a_bad_question_names_its_row(tmp_path, row, message):
    write_rows(tmp_path / "q.jsonl", [row])
    with pytest.raises(TriviumError, match=message):
        read_questions(tmp_path / "q.jsonl")
    with pytest.raises(TriviumError, match="row 1"):
        read_examples(tmp_path / "q.jsonl")


def test_an_unknown_task_names_the_nearest(tmp_path):
    (tmp_path / "q.jsonl").write_text(json.dumps({"question": "a", "answer": "b", "task": "reasoning"}) + "\n")
    with pytest.raises(TriviumError, match="did you mean 'reasoning'"):
        read_questions(tmp_path / "q.jsonl", "reason")


def test_a_paired_difference_is_narrower_than_two_rates():
    a, b = [1.0] * 60 + [0.0] * 40, [1.0] * 50 + [0.0] * 50
    found = mean_difference(a, b)
    assert found["value"] == pytest.approx(0.1) and 0.03 < found["low"] < found["high"] < 0.17
