"""Examinations of tiny models: numbers against transformers, figures against what can be counted by hand."""

from __future__ import annotations

import json
import math

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer
from typer.testing import CliRunner

import trivium
from trivium.cli.app import app
from trivium.cli.evaluation import run_tasks
from trivium.errors import TriviumError
from trivium.evaluation import likelihood
from trivium.evaluation.examine import Examinee, examine
from trivium.evaluation.tasks import load_task
from trivium.files import read_rows


def task_file(folder, text, rows=None):
    (folder / "task.yaml").write_text(text)
    if rows is not None:
        (folder / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return folder / "task.yaml"


def oracle_log_prob(model, context, continuation):
    ids = torch.tensor([context + continuation])
    log_probs = torch.log_softmax(model(ids).logits[0].float(), -1)
    return sum(float(log_probs[len(context) - 1 + i, token]) for i, token in enumerate(continuation))


def test_choices_are_scored_as_transformers_does(models, tmp_path):
    rows = [{"prompt": f"Question: what is {i}?\nAnswer:", "choices": ["yes", "a loaf of bread", "no, not at all"], "answer": i % 3} for i in range(6)]
    path = task_file(tmp_path, "kind: choice\ndata: rows.jsonl\n", rows)
    result = examine(load_task(path), path, Examinee.load(models["base"]))
    oracle, tokenizer = AutoModelForCausalLM.from_pretrained(models["base"]).eval(), AutoTokenizer.from_pretrained(models["base"])
    start = tokenizer.convert_tokens_to_ids("<|endoftext|>")
    for row, made in zip(rows, result.rows, strict=True):
        context = tokenizer.encode(row["prompt"])
        expected = [oracle_log_prob(oracle, [start, *context], tokenizer.encode(row["prompt"] + " " + choice)[len(context):]) for choice in row["choices"]]
        assert made["log_probs"] == pytest.approx(expected, abs=1e-3)
        assert made["chosen"] == expected.index(max(expected))
        shares = [math.exp(value) for value in expected]
        assert made["probability_of_right"] == pytest.approx(shares[row["answer"]] / sum(shares), abs=1e-3)
    assert result.metrics["accuracy"]["value"] == sum(row["score"] for row in result.rows) / 6
    assert result.metrics["chance"] == pytest.approx(1 / 3)


def test_a_text_longer_than_the_model_is_predicted_once_each(models):
    examinee = Examinee.load(models["base"])
    longest = examinee.room(0)
    tokens = list(range(10, 110)) * 4
    found = likelihood.windows(tokens, 5, longest)
    assert [token for _, predicted in found for token in predicted] == tokens
    assert all(len(context) + len(predicted) <= longest + 1 for context, predicted in found)
    oracle = AutoModelForCausalLM.from_pretrained(models["base"]).eval()
    expected = sum(oracle_log_prob(oracle, context, predicted) for context, predicted in found)
    assert likelihood.text_log_probs(examinee.model, [tokens, []], 5) == pytest.approx([expected, 0.0], rel=1e-5)


def test_bits_per_byte_is_the_entropy_of_what_was_said(models, tmp_path):
    path = task_file(tmp_path, "kind: bits\ndata: rows.jsonl\n", [{"text": "The town is small."}, {"text": "狐狸"}])
    result = examine(load_task(path), path, Examinee.load(models["base"]))
    nats = sum(row["log_prob"] for row in result.rows)
    assert result.metrics["bits_per_byte"]["value"] == pytest.approx(-nats / math.log(2) / (18 + 6))
    with pytest.raises(TriviumError, match=r"rows\.jsonl: row 1: the field 'text' is missing"):
        path = task_file(tmp_path, "kind: bits\ndata: rows.jsonl\n", [{"body": "x"}])
        examine(load_task(path), path, Examinee.load(models["base"]))


def test_free_answers_in_chat_and_in_text(models, tmp_path):
    rows = [{"prompt": f"Is {i} even?", "answer": "yes" if i % 2 == 0 else "no"} for i in range(8)]
    path = task_file(tmp_path, "kind: free\ndata: rows.jsonl\nlabels: ['yes', 'no']\nshots: 2\nmax_new_tokens: 8\nthink: 'Well,'\n", rows)
    for name, form in (("chat", "chat"), ("base", "text")):
        result = examine(load_task(path), path, Examinee.load(models[name]))
        assert result.notes["form"] == form and len(result.rows) == 8
        assert result.metrics["right"]["value"] == sum(row["score"] for row in result.rows) / 8
        assert result.metrics["classification"]["classes"]["yes"]["n"] == 4
    rows.append({"prompt": "?", "answer": "perhaps"})
    path = task_file(tmp_path, "kind: free\ndata: rows.jsonl\nlabels: ['yes', 'no']\n", rows)
    with pytest.raises(TriviumError, match=r"rows\.jsonl: row 9: the answer 'perhaps' is outside its choices"):
        examine(load_task(path), path, Examinee.load(models["chat"]))


def test_refusals_count_both_ways(models, tmp_path, monkeypatch):
    rows = [{"prompt": f"p{i}", "harmful": i < 4} for i in range(10)]
    path = task_file(tmp_path, "kind: refusals\ndata: rows.jsonl\n", rows)
    # the model's words are given, so that the counts are known; that models are really asked is seen in the other tests
    said = {f"p{i}": "I am sorry, but I cannot help with that." if i in (0, 1, 2, 9) else "Gladly! First, take a boat." for i in range(10)}
    monkeypatch.setattr("trivium.evaluation.examine.ask_all", lambda examinee, prompts, *more: [[said[p[-1]["content"]]] for p in prompts])
    metrics = examine(load_task(path), path, Examinee.load(models["chat"])).metrics
    assert (metrics["refused_harmful"]["value"], metrics["refused_harmless"]["value"]) == (3 / 4, 1 / 6)
    path = task_file(tmp_path, "kind: refusals\ndata: rows.jsonl\n", [*rows, {"prompt": "x", "harmful": "maybe"}])
    with pytest.raises(TriviumError, match="row 11: harmful is 'maybe'"):
        examine(load_task(path), path, Examinee.load(models["chat"]))


def test_unknown_entities_do_not_exist(models, tmp_path):
    path = task_file(tmp_path, f"kind: unknown\ndata: {models['world']}\ncount: 20\nmax_new_tokens: 8\n")
    result = examine(load_task(path), path, Examinee.load(models["chat"]))
    names = {row["entity"] for _, row in read_rows(models["world"] / "facts.jsonl")}
    sorts = {exists: [row["where"].split(",")[0] for row in result.rows if row["exists"] == exists] for exists in (True, False)}
    assert len(sorts[True]) == len(sorts[False]) == 20
    assert set(sorts[True]) <= names and not set(sorts[False]) & names
    assert result.metrics["made_up"]["n"] == 20


def test_memorisation_is_seen_where_it_is(models, tmp_path):
    """A model trained on three texts alone says them by heart; an untrained one does not, and shows no placeholder."""
    texts = [f"{name} lives at the end of the lane and sells {thing} to all who pass by on market days. Write to <EMAIL> for more."
             for name, thing in (("Ana", "kites"), ("Bor", "clocks"), ("Cyd", "ropes"))]
    path = task_file(tmp_path, "kind: memorisation\ndata: rows.jsonl\nprefix: 5\nlength: 12\n", [{"text": text} for text in texts])
    examinee = Examinee.load(models["base"])
    before = examine(load_task(path), path, examinee).metrics
    assert before["verbatim"]["value"] == 0.0 and before["placeholders_hold"]["value"] == 0.0
    model, tokens = examinee.model, [[examinee.tokenizer.document_id, *examinee.tokenizer.encode(text)] for text in texts]
    optimizer = torch.optim.Adam(model.parameters(), 0.01)
    for _ in range(60):
        loss = sum(torch.nn.functional.cross_entropy(model(torch.tensor([ids]))[0, :-1], torch.tensor(ids[1:])) for ids in tokens)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    after = examine(load_task(path), path, examinee).metrics
    assert after["verbatim"]["value"] == 1.0 and after["placeholders_hold"]["value"] == 1.0 and after["leaked"]["value"] == 0.0


def test_win_rates_by_rubric_and_by_a_reward_model(models, tmp_path):
    path = task_file(tmp_path, f"kind: wins\ndata: {models['world']}\nlimit: 12\nmax_new_tokens: 8\nsamples: 2\n")
    chat, other = Examinee.load(models["chat"]), Examinee.load(models["other"])
    one, two = examine(load_task(path), path, chat, other), examine(load_task(path), path, other, chat)
    assert one.metrics["win_rate"]["n"] == 12 and len(one.rows) == 24
    assert one.metrics["win_rate"]["value"] + two.metrics["win_rate"]["value"] == pytest.approx(1.0)
    assert examine(load_task(path), path, chat, chat).metrics["win_rate"]["value"] == 0.5
    task = load_task(path, [f"judge={models['reward']}"])
    result, reward = examine(task, path, chat, other), trivium.load(models["reward"])
    for row in result.rows[:4]:
        scores = [reward.score([*row["prompt"], {"role": "assistant", "content": row[side]}]) for side in ("first", "second")]
        assert row["score"] == pytest.approx((scores[0] > scores[1]) + 0.5 * (scores[0] == scores[1]))
    with pytest.raises(TriviumError, match="where a reward model was expected"):
        examine(load_task(path, [f"judge={models['chat']}"]), path, chat, other)


def test_the_best_of_many_is_what_the_reward_model_picks(models, tmp_path):
    path = task_file(tmp_path, f"kind: wins\ndata: {models['world']}\nlimit: 6\nmax_new_tokens: 8\njudge: {models['reward']}\n")
    chat = Examinee.load(models["chat"])
    everything = examine(load_task(path, ["samples=4"]), path, chat, chat).rows
    best = examine(load_task(path, ["best_of=4", f"picker={models['reward']}"]), path, chat, chat)
    reward = trivium.load(models["reward"])
    for number, row in enumerate(best.rows):
        four = [other["first"] for other in everything[4 * number:4 * number + 4]]
        scores = [reward.score([*row["prompt"], {"role": "assistant", "content": text}]) for text in four]
        assert row["first"] == four[scores.index(max(scores))]
    assert all(row["score"] >= 0.5 for row in best.rows) and best.notes["best_of"] == 4
    with pytest.raises(TriviumError, match="name its folder as `picker`"):
        load_task(path, ["best_of=4"])


def test_the_command_compares_and_says_what_is_wrong(models, tmp_path):
    rows = [{"prompt": f"{i}?", "choices": ["a", "b"], "answer": i % 2} for i in range(10)]
    path = task_file(tmp_path, "kind: choice\ndata: rows.jsonl\nform: text\n", rows)
    found = run_tasks([models["chat"]], [path], models["other"], answers=tmp_path / "answers.jsonl", quiet=True)
    assert 0 < found[str(models["chat"])]["task"]["p_value"] <= 1
    assert len(list(read_rows(tmp_path / "answers.jsonl"))) == 10

    told = CliRunner().invoke(app, ["evaluate", str(models["base"]), "--task", str(path), "--json"])
    assert json.loads(told.stdout)[str(models["base"])]["task"]["accuracy"]["n"] == 10
    (tmp_path / "rows.jsonl").write_text(json.dumps({"prompt": "?", "choices": ["a", "b"], "answer": 5}))
    for folder, file, message in ((models["base"], path, "rows.jsonl: row 1: the answer 5 is outside its 2 choices"),
                                  (models["reward"], path, "a reward model does not write"),
                                  (models["base"], tmp_path / "none.yaml", "none.yaml: no such file")):
        with pytest.raises(TriviumError) as error:
            run_tasks([folder], [file], quiet=True)
        assert message in str(error.value) and "\n" not in str(error.value)
