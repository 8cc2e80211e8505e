"""The examination of tiny models."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch
from tiny import context

from trivium.errors import TriviumError
from trivium.feedback.store import Store
from trivium.files import write_rows
from trivium.stages.cost import Estimate
from trivium.stages.models import load_language_model, load_reward_model, prompt_ids, save_model
from trivium.stages.results import answers as answering
from trivium.stages.results.evaluate import Evaluate
from trivium.stages.rewards import Answers
from trivium.stages.scores import score_trees
from trivium.training.batch import Tree


def examined(school, folder, **settings):
    """An examination of the policy on its prompts; the summary's models, and the answers."""
    place, _ = context(school,
                       folder,
                       models={"sft": school / "sft"},
                       picker=settings.pop("picker_place", school / "reward"),
                       reward=settings.pop("reward_place", school / "reward"),
                       tasks=settings.get("tasks", []),
                       base=school / "sft",
                       prompts=school / "world/prompts.jsonl",
                       demonstrations=school / "world")
    given = Evaluate.model_validate({"models": {"sft": "sft"}, "reward": "reward", "max_new_tokens": 12, "limit": 12}
                                    | settings | {"tasks": [str(task) for task in settings.get("tasks", [])]})
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


def test_blind_pairs_are_items_of_the_annotation_app(school, tmp_path):
    """Each of two answers to one prompt, in an order that says nothing; whose they are is in a file of its own."""
    _, answers = examined(school, tmp_path, best_of={"sft": [2, 4]}, picker="reward", pairs=8, limit=12)
    samples = {row["id"]: row["samples"] for row in answers}
    pairs, key = ([json.loads(line) for line in (tmp_path / name).read_text().splitlines()]
                  for name in ("pairs.jsonl", "pairs-key.jsonl"))
    assert 0 < len(pairs) <= 8 and [row["id"] for row in pairs] == [row["id"] for row in key]
    assert len({row["id"] for row in pairs}) == len(pairs) and not any("sft" in json.dumps(row["id"]) for row in pairs)
    for pair, names in zip(pairs, key, strict=True):
        assert "sft" in names["models"] and len(set(pair["responses"])) == 2
        assert pair["responses"] == [samples[pair["id"]][name] for name in names["models"]]
    assert len({names["models"].index("sft") for names in key}) == 2
    assert {name for names in key for name in names["models"]} == {"sft", "sft-best-of-2", "sft-best-of-4"}
    with Store(tmp_path / "project", create=True) as store:
        assert store.add_items(pairs).added == len(pairs)


@pytest.fixture
def own(tmp_path):
    (tmp_path / "own.py").write_text("""
def short(row, responses): return [-float(len(text)) for text in responses]
def ended(row, responses, finished): return [float(one) for one in finished]
""")
    return f"{tmp_path}/own.py"


def test_a_function_or_a_sum_may_pick(school, tmp_path, monkeypatch, own):
    reward, tokenizer = load_reward_model(school / "reward")
    drawn = []
    real = answering.generate
    monkeypatch.setattr(answering, "generate", lambda *given, **more: drawn.append(real(*given, **more)) or drawn[-1])

    def liked(row, group):
        tree = Tree(prompt_ids(tokenizer, row["prompt"]), tuple(np.array(one.tokens) for one in group))
        return score_trees(reward, [tree], 256, 4, "float32")[0]

    def short(group):
        texts = [tokenizer.decode([token for token in one.tokens if token != tokenizer.end_id]) for one in group]
        return texts, -np.array([len(text) for text in texts])

    terms = {"liked": {"model": "reward"}, "short": {"function": f"{own}:short", "weight": 0.5}}
    for name, picker, place in (("function", f"{own}:short", None),
                                ("sum", terms, {"liked": {"model": school / "reward"}})):
        _, answers = examined(school, tmp_path / name, checkers={"right": "number"}, best_of={"sft": [6]},
                              picker=picker, picker_place=place, precision="float32")
        for row, group in zip(answers, drawn[-1], strict=True):
            texts, lengths = short(group)
            scores = lengths if name == "function" else liked(row, group) + 0.5 * lengths
            best = int(np.argmax(scores - 1e9 * np.array([not one.finished for one in group])))
            assert row["samples"]["sft-best-of-6"] == texts[best]
        stage = Evaluate(models={"sft": "sft"}, best_of={"sft": [6]}, picker=picker)
        assert [where for where, _ in stage.code()] == [
            "picker.own.py" if name == "function" else "picker.short.function.own.py"]
        assert ("picker.liked.model", "reward") in list(stage.references()) or name == "function"


def test_a_reward_model_a_function_or_a_sum_may_judge(school, tmp_path, own):
    model, tokenizer = load_reward_model(school / "reward")
    terms = {"liked": {"model": "reward"}, "short": {"function": f"{own}:short", "weight": 0.5}}
    for name, reward, place in (("model", "reward", school / "reward"), ("function", f"{own}:short", None),
                                ("ended", f"{own}:ended", None),
                                ("sum", terms, {"liked": {"model": school / "reward"}})):
        _, answers = examined(school, tmp_path / name, reward=reward, reward_place=place, precision="float32")
        texts = [row["samples"]["sft"] for row in answers]
        points = [row["points"]["sft"] for row in answers]
        trees = Answers.of_texts(tokenizer, answers, [[text] for text in texts]).trees
        liked = [float(one[0]) for one in score_trees(model, trees, max(map(len, trees)), 16, "float32")]
        if name == "model":
            assert points == liked
        elif name == "function":
            assert points == [-float(len(text)) for text in texts]
        elif name == "sum":
            np.testing.assert_allclose(points, np.array(liked) - 0.5 * np.array([len(text) for text in texts]),
                                       rtol=1e-6)
        else:
            assert set(points) == {0.0, 1.0}  # a function is told which answers ended
    assert [where for where, _ in Evaluate(reward=f"{own}:short").code()] == ["reward.own.py"]


def test_the_key_of_an_examination_by_a_reward_model_is_that_of_its_inputs():
    learned = Evaluate(models={"sft": "sft"}).learned()
    assert learned == Evaluate(models={"sft": "sft"}, reward="judge", picker="judge").learned()
    assert "reward" not in learned and Evaluate(reward="number").learned()["reward"] == "number"


def test_who_judges_is_named_and_must_suit_the_prompts(school, tmp_path):
    with pytest.raises(TriviumError, match="no known truth; name a reward"):
        examined(school, tmp_path / "none", reward=None)
    with pytest.raises(TriviumError, match="picker 'world' needs the field 'truth'"):
        examined(school, tmp_path / "picker", reward="number", best_of={"sft": [2]}, picker="world",
                 picker_place=None)
    place, _ = context(school, tmp_path / "sum", models={"sft": school / "sft"}, reward=None,
                       prompts=school / "world/prompts.jsonl", picker=None, tasks=[], base=None)
    settings = Evaluate(models={"sft": "sft"}, reward={"right": {"function": "number"}}, max_new_tokens=4, limit=4)
    assert settings.run(place)["judge"] == "reward"


def test_the_passes_of_a_reward_model_that_judges_are_part_of_the_cost(school):
    judges = {"reward": True, "number": False, "liked": True}
    for name, read in judges.items():
        stage = Evaluate(models={"sft": str(school / "sft")}, prompts=str(school / "world/prompts.jsonl"),
                         max_new_tokens=2, reward={"liked": {"model": "reward"}} if name == "liked" else name)
        estimate = Estimate({"evaluate": stage}, device=torch.device("cpu"))
        assert stage.cost(estimate).seconds > 0
        assert any(key[0] == "reading" for _, key in estimate.timed) == read


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
