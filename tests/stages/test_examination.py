"""The examination of tiny models."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch
from tiny import context

from trivium.files import write_rows
from trivium.stages.models import load_language_model, load_reward_model, prompt_ids, save_model
from trivium.stages.results import answers as answering
from trivium.stages.results.evaluate import Evaluate
from trivium.stages.scores import score_trees
from trivium.training.batch import Tree


def examined(school, folder, **settings):
    """An examination of the policy on its prompts; the summary's models, and the answers."""
    place, _ = context(school,
                       folder,
                       models={"sft": school / "sft"},
                       picker=school / "reward",
                       tasks=settings.get("tasks", []),
                       base=school / "sft",
                       prompts=school / "world/prompts.jsonl",
                       demonstrations=school / "world")
    given = Evaluate.model_validate({"models": {"sft": "sft"}, "max_new_tokens": 12, "limit": 12} | settings
                                    | {"tasks": [str(task) for task in settings.get("tasks", [])]})
    summary = given.run(place)
    models = summary["models"] | ({"tasks": summary["tasks"]} if "tasks" in summary else {})
    return models, [json.loads(line) for line in (folder / "answers.jsonl").read_text().splitlines()]


def test_the_best_of_more_scores_higher_and_is_of_the_same_samples(school, tmp_path, monkeypatch):
    reward, tokenizer = load_reward_model(school / "reward")
    drawn = []
    real = answering.generate
    monkeypatch.setattr(answering, "generate", lambda *given, **more: drawn.append(real(*given, **more)) or drawn[-1])
    models, answers = examined(school, tmp_path, checkers={"right": "number"}, best_of={"sft": [2, 8]}, picker="reward")
    for number in (2, 8):
        for row, group in zip(answers, drawn[-1], strict=True):
            first = group[:number]
            tree = Tree(prompt_ids(tokenizer, row["prompt"]), tuple(np.array(one.tokens) for one in first))
            scores = score_trees(reward, [tree], 256, 4, "float32")[0]
            scores = scores - 1e9 * np.array([not one.finished for one in first])
            best = first[int(np.argmax(scores))]
            text = tokenizer.decode([t for t in best.tokens if t != tokenizer.end_id])
            assert row["samples"][f"sft-best-of-{number}"] == text
    assert any(row["samples"]["sft-best-of-2"] != row["samples"]["sft-best-of-8"] for row in answers)
    best_of_8 = models["sft-best-of-8"]
    assert best_of_8["kl"] == pytest.approx(np.log(8) - 7 / 8) and "win_rate_vs_sft" in best_of_8
    with pytest.raises(ValueError, match="name it as `picker`"):
        Evaluate(models={"sft": "sft"}, best_of={"sft": [4]})
    with pytest.raises(ValueError, match="did you mean 'sft'"):
        Evaluate(models={"sft": "sft"}, best_of={"sf": [4]}, picker="r")


def test_checkers_count_what_is_asked_of_greedy_answers(school, tmp_path):
    (tmp_path /
     "checks.py").write_text("def longer(row, responses):\n    return [float(len(text)) for text in responses]\n")
    models, answers = examined(school, tmp_path, checkers={"right": "number", "long": f"{tmp_path}/checks.py:longer"})
    assert models["sft"]["long"]["value"] == pytest.approx(np.mean([len(row["answers"]["sft"]) for row in answers]))
    assert list(dict(Evaluate(checkers={"long": f"{tmp_path}/checks.py:longer"}).code())) == ["checkers.long.checks.py"]
    assert 0 <= models["sft"]["right"]["low"] <= models["sft"]["right"]["value"] <= models["sft"]["right"]["high"] <= 1


def test_tasks_are_examined_and_their_questions_are_inputs(school, tmp_path):
    task = tmp_path / "words.yaml"
    task.write_text("kind: choice\ndata: rows-*.jsonl\nform: text\ngroup: '{{ sort }}'\n")
    for sort in "ab":
        write_rows(tmp_path / f"rows-{sort}.jsonl",
                   [{"prompt": f"say {n}", "choices": ["yes", "no thanks"], "answer": n % 2, "sort": sort}
                    for n in range(6)])
    found, _ = examined(school, tmp_path / "out", tasks=[task], task_limit=4, base="sft")
    assert {
        model: (tasks["words"]["accuracy"]["n"], set(tasks["words"]["groups"]))
        for model, tasks in found["tasks"].items()
    } == {"sft": (8, {"a", "b"}), "base": (8, {"a", "b"})}
    assert len((tmp_path / "out/tasks.jsonl").read_text().splitlines()) == 16
    assert dict(Evaluate(models={"sft": "sft"},
                         tasks=[str(task)]).references())["tasks.0.data.0"] == str(tmp_path / "rows-*.jsonl")


def test_the_mark_of_a_documents_end_is_no_part_of_an_answer(school, tmp_path):
    model, tokenizer = load_language_model(school / "sft")
    with torch.no_grad():
        model.lm_head.weight.zero_()  # all tokens are equally likely, so that the first is taken: the mark
    assert tokenizer.document_id == 0
    (tmp_path / "mute").mkdir()
    save_model(model, tokenizer, tmp_path / "mute")
    prompts = [{"id": "p", "prompt": [{"role": "user", "content": "say it"}]}]
    assert answering.few_shot_answers(tmp_path / "mute", [], prompts, 3, 4, 0) == [""]
