"""Learning from feedback: what PPO, GRPO and KTO must get right, on tiny models."""

from __future__ import annotations

import copy
import http.server
import json
import os
import subprocess
import sys
import threading
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from trivium.errors import TriviumError
from trivium.files import write_rows
from trivium.generation.engine import Completion
from trivium.model import LanguageModel, ModelConfig, RewardModel
from trivium.model.adapters import AdapterSettings, attach
from trivium.model.adapters import folder as adapter_folder
from trivium.objectives.policy import generalised_advantages, whiten
from trivium.progress import Progress
from trivium.stages.endpoint import EndpointSettings as Endpoint
from trivium.stages.models import load_language_model, load_reward_model, response_ids, save_model
from trivium.stages.preferences import ai_feedback, dpo, kto
from trivium.stages.preferences import reference as preference_reference
from trivium.stages.preferences.ai_feedback import AiFeedback
from trivium.stages.preferences.kto import Kto
from trivium.stages.preferences.revise import Revise
from trivium.stages.preferences.select import Select
from trivium.stages.pretraining.pretrain import LanguageModelling
from trivium.stages.reinforcement import grpo, ppo, rollout
from trivium.stages.reinforcement.grpo import Grpo
from trivium.stages.reinforcement.ppo import Ppo
from trivium.stages.results import evaluate
from trivium.stages.results.evaluate import Evaluate
from trivium.tokenizer import train as tokenizer_training
from trivium.tokenizer.chat import ChatTokenizer
from trivium.training.batch import Tree, make_batch
from trivium.training.optimizers import Optimization
from trivium.training.parallel import Parallel
from trivium.training.precision import as_trained
from trivium.training.trainer import Trainer

TEXTS = ["what is two and two? it is four.", "please say hello to the cat.", "goodbye, my friend, and thank you."] * 9


@pytest.fixture(scope="module")
def school(tmp_path_factory):
    """A policy, a reward model, prompts and thumbs."""
    folder = tmp_path_factory.mktemp("school")
    tokenizer = ChatTokenizer(tokenizer_training.train(TEXTS, 300))
    config = ModelConfig(vocab_size=tokenizer.vocab_size, hidden_size=32, intermediate_size=48, num_layers=2, num_heads=2, num_kv_heads=1,
                         head_dim=16, max_positions=256)
    policy = LanguageModel(config).initialise(0)
    trees = [Tree(ai_feedback.prompt_ids(tokenizer, [{"role": "user", "content": f"say {n} please"}]),
                  (response_ids(tokenizer, ("yes", "no thanks", "hello")[n % 3] * (n % 2 + 1)),)) for n in range(24)]
    trainer = Trainer(policy, Optimization(learning_rate=5e-3), 40, "float32")
    for step in range(40):  # until most answers end
        trainer.step(step, [make_batch([[tree] for tree in trees], 64)], LanguageModelling())
    reward = RewardModel.from_language_model(LanguageModel(config).initialise(1), 1)
    reward.shift = 0.5
    for name, model in (("sft", policy), ("reward", reward)):
        (folder / name).mkdir()
        save_model(model, tokenizer, folder / name)
    (folder / "world").mkdir()
    write_rows(folder / "world/prompts.jsonl", [{"id": f"p{n}", "prompt": [{"role": "user", "content": f"say {n} please"}], "answer": str(n)}
                                                for n in range(24)])
    write_rows(folder / "thumbs.jsonl", [{"prompt": [{"role": "user", "content": f"say {n}"}], "completion": "yes " * (n % 5 + 1),
                                          "label": n % 3 == 0} for n in range(20)])
    return folder


def context(school, folder, **inputs):
    folder.mkdir(parents=True, exist_ok=True)
    said = []
    progress = Progress(quiet=True)
    progress.say = said.append
    places = {"model": school / "sft", "reward": school / "reward", "prompts": school / "world"} | inputs
    return SimpleNamespace(folder=folder, scratch=folder / "scratch", progress=progress, inputs=places, seed=0, name="practice", threads=1), said


FEW = {"iterations": 2, "episodes": 8, "max_new_tokens": 6, "rows": 4, "length": 128, "precision": "float32"}


def lines(folder):
    return [json.loads(line) for line in (folder / "log.jsonl").read_text().splitlines()]


def test_the_first_ratio_is_one_and_log_probs_agree(school, tmp_path, precision):
    few = FEW | {"precision": precision}
    place, _ = context(school, tmp_path)
    assert Ppo(**few).run(place)["precision"] == precision
    first, second = lines(tmp_path)
    near = 1e-4 if precision == "float32" else 0.2  # sampled in float32, learned in bf16
    assert first["sample_prompt"].startswith("say ") and isinstance(first["sample"], str) and np.isfinite(first["sample_score"])
    assert first["first_ratio_error"] < 1e-6 and first["kl"] == 0 and abs(second["kl"]) > 0
    assert first["log_prob_disagreement"] < near and second["log_prob_disagreement"] < near
    place, _ = context(school, tmp_path / "g", reward=None)
    assert Grpo(**few | {"episodes": 4, "samples": 3}, checker="number").run(place)["precision"] == precision
    assert lines(tmp_path / "g")[0]["first_ratio_error"] < 1e-6 and lines(tmp_path / "g")[0]["kl"] == 0


@pytest.mark.parametrize("stage", [ppo, grpo])
def test_a_reference_in_another_format_than_the_policy_is_refused(school, tmp_path, monkeypatch, stage):
    few = FEW | {"precision": "bf16-weights"}
    kind, more = (Ppo, {}) if stage is ppo else (Grpo, {"checker": "number"})
    with pytest.raises(ValueError, match="would set the policy apart from its reference"):
        kind(**few, **more)
    monkeypatch.setenv("TRIVIUM_AUTO_PRECISION", "bf16-weights")
    place, _ = context(school, tmp_path)
    with pytest.raises(TriviumError, match="would set the policy apart from its reference"):
        stage.run(kind(**few | {"precision": "auto"}, **more), place)


def test_a_rollout_is_scored_as_the_papers_say():
    settings = Ppo(kl_coefficient=0.1, lam=0.9)
    rng = np.random.default_rng(0)
    lengths = [3, 5]
    answered = rollout.Answered([{"id": 1}, {"id": 2}], [Tree(np.array([1]), (np.arange(n),)) for n in lengths],
                                [[Completion(list(range(n)), np.zeros(n, np.float32), True)] for n in lengths])
    new, old, values = ([rng.normal(size=n) for n in lengths] for _ in range(3))
    made = ppo.learn_from(answered, new, old, values, [np.array([2.0]), np.array([-1.0])], 0.1, settings)
    expected = []
    for now, before, value, score in zip(new, old, values, (2.0, -1.0), strict=True):
        rewards = -0.1 * (now - before)
        rewards[-1] += score
        expected.append(generalised_advantages(rewards, value, 1.0, 0.9))
    np.testing.assert_allclose(np.concatenate(made.arrays["advantages"]), whiten(np.concatenate(expected)))
    np.testing.assert_allclose(made.arrays["returns"][1], expected[1] + values[1])
    with pytest.raises(TriviumError, match="prompt 2 is not finite"):
        ppo.learn_from(answered, new, old, values, [np.array([2.0]), np.array([np.nan])], 0.1, settings)


def test_a_response_that_never_ends_gets_the_fixed_score(school, tmp_path):
    place, _ = context(school, tmp_path)
    policy, tokenizer = ppo.load_language_model(school / "sft")
    practising = rollout.Practising(Ppo(**FEW, unfinished_score=-7.0), place, policy, tokenizer, 1)
    answered = practising.answer(practising.chosen(0), 1, "rollout", 0)
    answered.samples[0][0].finished, answered.samples[1][0].finished = False, True
    reward, _ = load_reward_model(school / "reward")
    scores = practising.scores(reward, answered)
    batch = make_batch([[answered.trees[1]]], 128)
    assert scores[0].tolist() == [-7.0]
    assert scores[1][0] == pytest.approx(rollout.score_trees(reward, [answered.trees[1]], 128, 1, "float32")[0][0] + 0.5, abs=1e-5)
    assert batch.ends.tolist() == [len(answered.trees[1]) - 1]


def test_two_reward_models_judge_a_rollout(school, tmp_path):
    safety = RewardModel.from_language_model(LanguageModel(load_reward_model(school / "reward")[0].config).initialise(2), 2)
    safety.shift = -0.25
    (tmp_path / "safety").mkdir()
    save_model(safety, ChatTokenizer.load(school / "sft"), tmp_path / "safety")
    rows = [json.loads(line) for line in (school / "world/prompts.jsonl").read_text().splitlines()]
    write_rows(tmp_path / "prompts.jsonl", [row | ({"safety": True} if n % 2 else {}) for n, row in enumerate(rows)])
    place, _ = context(school, tmp_path / "run", safety=tmp_path / "safety", prompts=tmp_path / "prompts.jsonl")
    settings = Ppo(**FEW, safety="safety", safety_threshold=0.0)
    policy, tokenizer = ppo.load_language_model(school / "sft")
    practising = rollout.Practising(settings, place, policy, tokenizer, 1)
    answered = practising.answer(practising.chosen(0), 1, "rollout", 0)
    for group in answered.samples:
        group[0].finished = True
    reward, _ = load_reward_model(school / "reward")
    models = {False: reward.eval(), True: safety.eval()}
    alone = [rollout.score_trees(models[bool(row.get("safety"))], [tree], 128, 1, "float32")[0][0] + models[bool(row.get("safety"))].shift
             for row, tree in zip(answered.rows, answered.trees, strict=True)]
    assert {bool(row.get("safety")) for row in answered.rows} == {False, True}
    np.testing.assert_allclose(np.concatenate(practising.scores(reward, answered, safety, 0.0)), whiten(np.array(alone)), atol=1e-4)
    settings.run(place)
    assert abs(lines(tmp_path / "run")[0]["score"]) < 1.0  # whitened, but for those that never ended


def test_ptx_adds_the_pretraining_gradient(school):
    settings = Ppo(pretraining_coefficient=0.7)
    policy, _ = ppo.load_language_model(school / "sft")
    reward, _ = load_reward_model(school / "reward")
    objective = ppo.ClippedSurrogate(settings)
    rng = np.random.default_rng(0)
    episodes = make_batch([[Tree(np.array([1, 2]), (rng.integers(0, 200, 5),))]], 16)
    episodes.extra = {name: torch.from_numpy(rng.normal(size=5).astype(np.float32)) for name in ("advantages", "values", "returns", "log_probs")}
    documents = make_batch([[Tree(np.array([0]), (rng.integers(0, 200, 9),))]], 16)
    documents.counts = {"pretraining_tokens": documents.counts["tokens"]}
    gradients = []
    for batches in (ppo.apart(episodes), [documents], [documents, *ppo.apart(episodes)]):
        model = ppo.PolicyAndValue(copy.deepcopy(policy), copy.deepcopy(reward))
        trainer = Trainer(model, Optimization(clip=0.0), 1, "float32")
        kept = []
        trainer.optimizers = [SimpleNamespace(param_groups=[], step=lambda model=model, kept=kept: kept.append(
            {n: p.grad.clone() for n, p in model.policy.named_parameters() if p.grad is not None}))]
        trainer.step(0, batches, objective)
        gradients.append(kept[0])
    for name, both in gradients[2].items():
        torch.testing.assert_close(both, gradients[0][name] + gradients[1][name], atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("where", ["rollout", "update"])
def test_stopped_in_the_middle_it_ends_with_the_same_bits(school, tmp_path, monkeypatch, where, precision):
    """In the second iteration: after the responses were sampled, or between two updates."""
    settings = Ppo(**FEW | {"iterations": 3, "epochs": 2, "precision": precision}, kl_target=0.5, kl_horizon=50)
    place, _ = context(school, tmp_path / "whole")
    settings.run(place)
    holder, name, last = (rollout.Practising, "scores", 1) if where == "rollout" else (Trainer, "step", 6)
    real, calls = getattr(holder, name), []

    def stops(*given, **more):
        calls.append(1)
        if len(calls) == last + 1:
            raise KeyboardInterrupt
        return real(*given, **more)
    place, _ = context(school, tmp_path / "stopped")
    with monkeypatch.context() as patched, pytest.raises(KeyboardInterrupt):
        patched.setattr(holder, name, stops)
        settings.run(place)
    assert len(lines(tmp_path / "stopped")) == 1
    settings.run(place)
    assert lines(tmp_path / "stopped") == lines(tmp_path / "whole")
    if where == "update":
        with pytest.raises(TriviumError, match="another number format"):
            settings.model_copy(update={"precision": "bf16" if precision == "float32" else "float32"}).run(place)
    assert (tmp_path / "stopped/model.safetensors").read_bytes() == (tmp_path / "whole/model.safetensors").read_bytes()


def test_the_kl_budget_ends_the_practice(school, tmp_path):
    place, said = context(school, tmp_path)
    summary = Ppo(**FEW | {"iterations": 5}, kl_budget=1e-6, optimization=Optimization(learning_rate=1e-3)).run(place)
    done = lines(tmp_path)
    assert summary["ended"] == "KL budget" and 1 < len(done) < 5 and summary["episodes"] == 8 * (len(done) - 1)
    assert done[-1]["kl"] > 1e-6 and "policy_loss" not in done[-1] and all(line["kl"] <= 1e-6 for line in done[:-1])
    assert any("KL budget" in text for text in said)


def test_the_watch_keeps_the_best_policy_and_ends_past_the_peak(school, tmp_path, monkeypatch):
    quality = iter([1.0, 2.0, 0.5, 0.4, 0.3])

    def judged(self, reward, answered, *safety):
        if reward is not self.gold:
            return real(self, reward, answered, *safety)
        mean = next(quality)
        return [np.array([mean + 0.1 * (i % 2)]) for i in range(len(answered.rows))]
    real = rollout.Practising.scores
    gold, _ = load_reward_model(school / "reward")
    monkeypatch.setattr(rollout.Practising, "gold", gold, raising=False)
    monkeypatch.setattr(rollout.Practising, "scores", judged)
    load = ppo.load_judge
    monkeypatch.setattr(ppo, "load_judge", lambda context, name, *rest, **more: gold if name == "gold" else load(context, name, *rest, **more))
    place, said = context(school, tmp_path)
    summary = Ppo(**FEW | {"iterations": 9}, watch_every=1, watch_prompts=6).run(place)
    assert summary["ended"] == "past the peak" and len(lines(tmp_path)) == 4
    assert [line["watched_gold"] for line in lines(tmp_path)] == pytest.approx([1.05, 2.05, 0.55, 0.45])
    best, final = load_file(tmp_path / "scratch/best.safetensors"), load_file(tmp_path / "model.safetensors")
    assert all(torch.equal(best[name], final[name]) for name in best)
    assert any("fooling" in text for text in said)


def test_without_a_judge_there_is_no_watch(school, tmp_path):
    place, _ = context(school, tmp_path)
    with pytest.raises(TriviumError, match="gold"):
        Ppo(**FEW, watch_every=1, watch_prompts=6).run(place)


def test_prompts_that_are_too_long_are_said(school, tmp_path):
    place, _ = context(school, tmp_path)
    with pytest.raises(TriviumError, match="a rollout needs 25"):
        Ppo(**FEW | {"episodes": 25}).run(place)


def test_a_prompt_that_leaves_no_room_is_left_out(school, tmp_path):
    rows = [json.loads(line) for line in (school / "world/prompts.jsonl").read_text().splitlines()]
    write_rows(tmp_path / "prompts.jsonl", [*rows[:8], {"id": "long", "prompt": [{"role": "user", "content": "say hello " * 70}]}])
    place, said = context(school, tmp_path / "run", prompts=tmp_path / "prompts.jsonl")
    policy, tokenizer = ppo.load_language_model(school / "sft")
    practising = rollout.Practising(Ppo(**FEW), place, policy, tokenizer, 1)
    assert [row["id"] for row in practising.prompts] == [f"p{n}" for n in range(8)] and said == ["1 of 9 prompts with 1 x 6 new tokens do not fit rows of 128 "
                                                                                                "and are left out"]


@pytest.mark.parametrize("name", ["reward", "safety", "gold"])
def test_a_judge_must_read_the_policys_tokens(school, tmp_path, name):
    tokenizer = ChatTokenizer(tokenizer_training.train(["ein anderer Text, noch einer"] * 9, 280))
    judge = RewardModel.from_language_model(LanguageModel(load_reward_model(school / "reward")[0].config).initialise(1), 1)
    (tmp_path / "judge").mkdir()
    save_model(judge, tokenizer, tmp_path / "judge")
    place, _ = context(school, tmp_path / "run", **{name: tmp_path / "judge"})
    with pytest.raises(TriviumError, match=rf"judge: this reward model \(`{name}`\) has another tokenizer than the policy"):
        Ppo(**FEW, **({name: "judge"} if name != "reward" else {})).run(place)


def on_sft(school, folder, settings):
    """A reward model that is an adapter on the policy's folder."""
    policy, tokenizer = load_language_model(school / "sft")
    attached = attach(policy, settings, 3)
    generator = torch.Generator().manual_seed(4)
    for _, weight in attached.parameters():
        weight.data += 0.05 * torch.randn(weight.shape, generator=generator)
    judge = policy.rewarding(5)
    judge.shift = 0.25
    folder.mkdir()
    adapter_folder.save(judge, attached, folder, str(school / "sft"), adapter_folder.weights_digest(school / "sft"))
    tokenizer.save(folder)
    return folder


@pytest.mark.parametrize("adapter", [AdapterSettings(rank=2), AdapterSettings(rank=2, dora=True), AdapterSettings(kind="bottleneck", width=3),
                                     AdapterSettings(kind="prefix", tokens=2)], ids=["lora", "dora", "bottleneck", "prefix"])
def test_with_adapters_four_models_share_one_trunk(school, tmp_path, adapter, monkeypatch, precision):
    place, said = context(school, tmp_path, reward=on_sft(school, tmp_path / "reward", adapter))
    models, practise, load = [], ppo.practise, ppo.load_judge

    def loaded(given, name, policy, *rest, **more):
        models.extend([policy, found := load(given, name, policy, *rest, **more)] if name == "reward" else [found := load(given, name, policy, *rest, **more)])
        return found
    monkeypatch.setattr(ppo, "load_judge", loaded)
    monkeypatch.setattr(ppo, "practise", lambda pair, *rest, **more: models.append(pair) or practise(pair, *rest, **more))
    Ppo(**FEW | {"precision": precision}, adapter=adapter, optimization=Optimization(learning_rate=0.01)).run(place)
    policy, reward, pair = models[0], models[1], models[-1]
    trunk = {name: weight for name, weight in policy.model.named_parameters() if ".adapters." not in f".{name}"}
    for judge in (reward, pair.value):
        own = dict(judge.model.named_parameters())
        assert all(own[name] is weight for name, weight in trunk.items())
    kept, _ = load_language_model(school / "sft")
    assert all(torch.equal(weight, kept.model.get_parameter(name)) for name, weight in trunk.items())
    tokens = torch.arange(6, 20)[None]
    alone = load_reward_model(tmp_path / "reward")[0]
    with torch.no_grad():  # training moved policy and value model, and neither reward model nor reference
        torch.testing.assert_close(reward(tokens), alone(tokens), atol=1e-4, rtol=1e-4)
        assert (pair.value(tokens) - reward(tokens)).abs().max() > 1e-3 and (policy(tokens) - kept(tokens)).abs().max() > 1e-3
    log = lines(tmp_path)
    assert log[1]["kl"] != log[0]["kl"] and log[0]["first_ratio_error"] < 1e-5
    if adapter.kind != "prefix":  # which changes something from the first
        assert log[0]["kl"] == 0
    assert "reward: an adapter on the policy's own weights, which are held once" in said


def test_a_safety_model_judges_for_grpo_too(school, tmp_path):
    place, _ = context(school, tmp_path, safety=school / "reward")
    Grpo(**FEW | {"episodes": 4, "samples": 3}, reward="reward", safety="safety").run(place)
    assert abs(lines(tmp_path)[0]["score"]) < 1.0  # whitened, but for those that never ended
    with pytest.raises(ValueError, match="name it as `reward`"):
        Grpo(safety="safety")


def test_rows_of_parallel_change_nothing_but_memory(school, tmp_path):
    logs = []
    for rows in (None, 1):
        place, _ = context(school, tmp_path / str(rows))
        Ppo(**FEW | {"length": 48}, parallel=Parallel(rows=rows)).run(place)
        logs.append(lines(tmp_path / str(rows)))
    for one, other in zip(*logs, strict=True):
        assert other == {name: pytest.approx(value, abs=1e-4) for name, value in one.items()}


CHECKS = """
from pathlib import Path
asked = 0
def counting(row, responses):
    global asked
    asked += 1
    if asked > 4 and not Path(__file__).with_name("mended").exists():
        raise ValueError("the file of answers is gone")
    return [float(len(text)) for text in responses]
"""


def test_a_function_that_fails_names_the_iteration_and_loses_nothing(school, tmp_path):
    (tmp_path / "checks.py").write_text(CHECKS)
    place, _ = context(school, tmp_path / "run", reward=None)
    settings = Grpo(**FEW | {"episodes": 4, "samples": 2, "iterations": 3}, checker=f"{tmp_path}/checks.py:counting")
    with pytest.raises(TriviumError, match=r"practice: iteration 1: checker .*ValueError: the file of answers is gone \(the checkpoint after iteration 0 is kept\)"):
        settings.run(place)
    first = lines(tmp_path / "run")
    (tmp_path / "mended").touch()
    settings.run(place)
    assert len(first) == 1 and lines(tmp_path / "run")[0] == first[0] and len(lines(tmp_path / "run")) == 3


@pytest.mark.parametrize("stage", [ppo, grpo])
def test_scores_that_are_no_numbers_end_it(school, tmp_path, stage):
    reward, tokenizer = load_reward_model(school / "reward")
    reward.score.weight.data.fill_(torch.nan)
    (tmp_path / "reward").mkdir()
    save_model(reward, tokenizer, tmp_path / "reward")
    place, _ = context(school, tmp_path / "run", reward=tmp_path / "reward")
    settings = Ppo(**FEW, unfinished_score=1.0) if stage is ppo else Grpo(**FEW | {"episodes": 4, "samples": 3}, reward="reward")
    with pytest.raises(TriviumError, match=r"iteration 0: the score of a response to prompt p\d+ is not finite"):
        stage.run(settings, place)


@pytest.mark.parametrize(("rate", "message"), [(0.3, "nats from the reference: the policy has run away"), (1e30, "not finite")])
def test_a_policy_that_runs_away_is_said(school, tmp_path, rate, message):
    place, said = context(school, tmp_path)
    try:
        Ppo(**FEW | {"max_new_tokens": 30, "epochs": 1}, optimization=Optimization(learning_rate=rate, clip=0.0)).run(place)
    except TriviumError as error:
        said.append(str(error))
    assert any(text.startswith(("iteration 1: ", "practice: iteration ")) and message in text for text in said), said
    assert list((tmp_path / "scratch").glob("step-00000001.json")) or "iteration 0" in said[-1]


def test_a_policy_that_collapses_is_said(school, tmp_path):
    policy, tokenizer = load_language_model(school / "sft")
    policy.model.norm.weight.data *= 100  # so sure of each token that nothing is left to chance
    (tmp_path / "sft").mkdir()
    save_model(policy, tokenizer, tmp_path / "sft")
    place, said = context(school, tmp_path / "run", model=tmp_path / "sft")
    Ppo(**FEW | {"iterations": 1}).run(place)
    assert any(text.startswith("iteration 0: entropy is down to") and "may have collapsed" in text for text in said)


def test_ktos_baseline_is_that_of_the_whole_batch(school, tmp_path, monkeypatch, any_precision):
    exact = any_precision == "float32"
    place, _ = context(school, tmp_path, feedback=school / "thumbs.jsonl")
    seen = []
    monkeypatch.setattr(preference_reference, "run_training", lambda model, objective, batches, *rest: seen.append((model, objective, batches)) or SimpleNamespace(
        leader=False))
    Kto(length=64, rows=4, precision=any_precision).run(place)
    model, objective, batches = seen[0]
    assert Trainer(copy.deepcopy(model), Optimization(), 1, any_precision).step(0, batches(0), objective)["baseline"] == 0  # the policy is its reference
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.01 * torch.randn(parameter.shape, generator=torch.Generator().manual_seed(0)))
    outcomes = []
    for rows in (None, 1):
        trainer = Trainer(copy.deepcopy(model), Optimization(clip=0.0), 1, any_precision)
        outcomes.append(trainer.step(0, batches(0, rows=rows), objective))
    assert outcomes[0]["loss"] == pytest.approx(outcomes[1]["loss"], abs=1e-6 if exact else 5e-3)
    assert outcomes[0]["gradient_norm"] == pytest.approx(outcomes[1]["gradient_norm"], rel=1e-4 if exact else 0.02)
    others = [tree.payload.mismatched for tree in batches(0)[0].trees]
    with torch.no_grad(), as_trained(model, any_precision):
        ratios = [(dpo.response_log_probs(model, make_batch([[tree]], 64)) - objective.reference([tree])).numpy() for tree in others]
    assert outcomes[0]["baseline"] == pytest.approx(np.concatenate(ratios).mean(), abs=1e-5 if exact else 0.02) and abs(np.concatenate(ratios).mean()) > 1e-4


def test_ktos_prompts_are_shared_and_meet_the_responses_to_another_one():
    trees = [Tree(np.array([1, 2 + n // 3]), (np.arange(n + 1),), payload=(n % 2 == 0,)) for n in range(9)]
    made = kto.mismatched(kto.shared(trees, 16), 16)
    assert [[len(response) for response in tree.responses] for tree in made] == [[1, 2, 3], [4, 5], [6], [7], [8], [9]]
    assert [tree.payload.liked for tree in made][:2] == [(True, False, True), (False, True)]
    home = {len(tree.responses[0]): tree.prompt[1] for tree in trees}
    for tree in made:
        other = tree.payload.mismatched
        assert np.array_equal(other.prompt, tree.prompt) and len(other) <= 16
        assert all(home[len(response)] != tree.prompt[1] for response in other.responses)


def test_sharing_a_prompt_changes_no_thumbs_log_prob(school):
    policy, tokenizer = ppo.load_language_model(school / "sft")
    prompt = ai_feedback.prompt_ids(tokenizer, [{"role": "user", "content": "say 1"}])
    alone = [Tree(prompt, (response_ids(tokenizer, text),), payload=(True,)) for text in ("yes", "no thanks", "hello hello")]
    with torch.no_grad():
        apart = torch.cat([dpo.response_log_probs(policy, make_batch([[tree]], 64)) for tree in alone])
        together = dpo.response_log_probs(policy, make_batch([kto.shared(alone, 64)], 64))
    torch.testing.assert_close(apart, together, atol=1e-4, rtol=1e-5)


def test_thumbs_that_are_none_are_rejected(school, tmp_path):
    write_rows(tmp_path / "thumbs.jsonl", [{"prompt": [{"role": "user", "content": "a"}], "completion": "b", "label": "yes"}])
    place, _ = context(school, tmp_path / "out", feedback=tmp_path / "thumbs.jsonl")
    with pytest.raises(TriviumError, match="'yes' is not true or false"):
        Kto().run(place)


def test_rankings_become_thumbs(school, tmp_path):
    (tmp_path / "in").mkdir()
    ask = [{"role": "user", "content": "a"}]
    write_rows(tmp_path / "in/comparisons.jsonl", [
        {"prompt": ask, "responses": ["a", "b", "c", "d"], "ranking": [[2], [0, 1], [3]], "split": "train"},
        {"prompt": ask, "responses": ["a", "b"], "ranking": [[0, 1]], "split": "train"},
        {"prompt": ask, "responses": ["a", "b"], "ranking": [[1], [0]], "split": "train"}])
    place, _ = context(school, tmp_path / "out", feedback=tmp_path / "in")
    assert [(row["completion"], row["label"]) for row in kto.thumbs(Kto(), place)] == [("c", True), ("d", False), ("b", True), ("a", False)]


def test_the_best_of_many_is_selected(school, tmp_path):
    place, _ = context(school, tmp_path)
    summary = Select(samples=4, count=20, skip=10, max_new_tokens=12, length=64).run(place)
    rows = [json.loads(line) for line in (tmp_path / "demonstrations.jsonl").read_text().splitlines()]
    assert summary["kept"] == len(rows) and summary["mean_gain"] >= 0
    ids = [row["id"] for row in rows]
    assert set(ids) <= {f"p{(10 + n) % 24}" for n in range(20)} and len(set(ids)) == len(ids)
    for row in map(json.loads, (tmp_path / "comparisons.jsonl").read_text().splitlines()):
        assert row["responses"][0] != row["responses"][1] and row["ranking"] == [[0], [1]]


def examined(school, folder, **settings):
    """An examination of the policy on its prompts; the summary's models, and the answers."""
    place, _ = context(school, folder, models={"sft": school / "sft"}, picker=school / "reward", tasks=settings.get("tasks", []), base=school / "sft",
                       prompts=school / "world/prompts.jsonl", demonstrations=school / "world")
    given = Evaluate.model_validate({"models": {"sft": "sft"}, "max_new_tokens": 12, "limit": 12} | settings | {"tasks": [str(task) for task in settings.get("tasks", [])]})
    summary = given.run(place)
    models = summary["models"] | ({"tasks": summary["tasks"]} if "tasks" in summary else {})
    return models, [json.loads(line) for line in (folder / "answers.jsonl").read_text().splitlines()]


def test_the_best_of_more_scores_higher_and_is_of_the_same_samples(school, tmp_path, monkeypatch):
    reward, tokenizer = load_reward_model(school / "reward")
    drawn = []
    real = evaluate.generate
    monkeypatch.setattr(evaluate, "generate", lambda *given, **more: drawn.append(real(*given, **more)) or drawn[-1])
    models, answers = examined(school, tmp_path, checkers={"right": "number"}, best_of={"sft": [2, 8]}, picker="reward")
    for number in (2, 8):
        for row, group in zip(answers, drawn[-1], strict=True):
            first = group[:number]
            tree = Tree(ai_feedback.prompt_ids(tokenizer, row["prompt"]), tuple(np.array(one.tokens) for one in first))
            scores = rollout.score_trees(reward, [tree], 256, 4, "float32")[0] - 1e9 * np.array([not one.finished for one in first])
            best = first[int(np.argmax(scores))]
            assert row["samples"][f"sft-best-of-{number}"] == tokenizer.decode([t for t in best.tokens if t != tokenizer.end_id])
    assert any(row["samples"]["sft-best-of-2"] != row["samples"]["sft-best-of-8"] for row in answers)
    assert models["sft-best-of-8"]["kl"] == pytest.approx(np.log(8) - 7 / 8) and "win_rate_vs_sft" in models["sft-best-of-8"]
    with pytest.raises(ValueError, match="name it as `picker`"):
        Evaluate(models={"sft": "sft"}, best_of={"sft": [4]})
    with pytest.raises(ValueError, match="did you mean 'sft'"):
        Evaluate(models={"sft": "sft"}, best_of={"sf": [4]}, picker="r")


def test_checkers_count_what_is_asked_of_greedy_answers(school, tmp_path):
    (tmp_path / "checks.py").write_text("def longer(row, responses):\n    return [float(len(text)) for text in responses]\n")
    models, answers = examined(school, tmp_path, checkers={"right": "number", "long": f"{tmp_path}/checks.py:longer"})
    assert models["sft"]["long"]["value"] == pytest.approx(np.mean([len(row["answers"]["sft"]) for row in answers]))
    assert 0 <= models["sft"]["right"]["low"] <= models["sft"]["right"]["value"] <= models["sft"]["right"]["high"] <= 1


def test_tasks_are_examined_and_their_questions_are_inputs(school, tmp_path):
    task = tmp_path / "words.yaml"
    task.write_text("kind: choice\ndata: rows-*.jsonl\nform: text\ngroup: '{{ sort }}'\n")
    for sort in "ab":
        write_rows(tmp_path / f"rows-{sort}.jsonl", [{"prompt": f"say {n}", "choices": ["yes", "no thanks"], "answer": n % 2, "sort": sort} for n in range(6)])
    found, _ = examined(school, tmp_path / "out", tasks=[task], task_limit=4, base="sft")
    assert {model: (tasks["words"]["accuracy"]["n"], set(tasks["words"]["groups"])) for model, tasks in found["tasks"].items()} == {
        "sft": (8, {"a", "b"}), "base": (8, {"a", "b"})}
    assert len((tmp_path / "out/tasks.jsonl").read_text().splitlines()) == 16
    assert dict(Evaluate(models={"sft": "sft"}, tasks=[str(task)]).references())["tasks.0.data.0"] == str(tmp_path / "rows-*.jsonl")


def test_the_mark_of_a_documents_end_is_no_part_of_an_answer(school, tmp_path):
    model, tokenizer = ppo.load_language_model(school / "sft")
    with torch.no_grad():
        model.lm_head.weight.zero_()  # all tokens are equally likely, so that the first is taken: the mark
    assert tokenizer.document_id == 0
    (tmp_path / "mute").mkdir()
    save_model(model, tokenizer, tmp_path / "mute")
    prompts = [{"id": "p", "prompt": [{"role": "user", "content": "say it"}]}]
    assert evaluate.few_shot(tmp_path / "mute", [], prompts, Evaluate(models={}, max_new_tokens=4), 0) == [""]


class Judged(http.server.BaseHTTPRequestHandler):
    """A judge that likes the longer answer; now and then it is busy, or says nothing of use."""

    asked: list = []

    def do_POST(self):
        request = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        text = request["messages"][0]["content"]
        self.asked.append(text)
        if self.asked.count(text) == 1 and len(self.asked) % 3 == 0:
            self.send_response(429)
            self.end_headers()
            return
        if "[[A]] or [[B]]" in text:
            first, second = (text.split(mark)[1].split("\n\n")[0] for mark in ("Answer A: ", "Answer B: "))
            reply = "hm" if "say 3 please" in text else "[[A]]" if len(first) >= len(second) else "[[B]]"
        else:
            reply = "too short" if "this principle" in text else "a better answer"
        body = json.dumps({"choices": [{"message": {"role": "assistant", "content": reply}}]}).encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_):
        pass


@pytest.fixture
def endpoint():
    Judged.asked = []
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Judged)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield Endpoint(address=f"http://127.0.0.1:{server.server_port}/v1", model="judge", pause=0.01)
    server.shutdown()
    server.server_close()


def test_an_endpoint_ranks_in_both_orders(school, tmp_path, endpoint):
    place, _ = context(school, tmp_path)
    summary = AiFeedback(endpoint=endpoint, responses=3, count=8, max_new_tokens=48, temperature=1.5).run(place)
    rows = [json.loads(line) for line in (tmp_path / "comparisons.jsonl").read_text().splitlines()]
    assert rows and all(row["id"] != "p3" for row in rows)
    for row in rows:
        lengths = [len(text) for text in row["responses"]]
        best = row["ranking"][0]
        assert max(lengths) == max(lengths[i] for i in best)
    assert summary["first_is_preferred"] == pytest.approx(0.5, abs=0.2)
    assert len(Judged.asked) > len(set(Judged.asked))  # some were asked again


def test_a_model_judges_itself_without_a_bias_of_order(school, tmp_path):
    place, _ = context(school, tmp_path)
    summary = AiFeedback(responses=2, count=6, max_new_tokens=24, temperature=1.5, constitution=["Be right."]).run(place)
    rows = [json.loads(line) for line in (tmp_path / "comparisons.jsonl").read_text().splitlines()]
    assert summary["comparisons"] == len(rows) and all(sum(row["shares"]) == pytest.approx(1) for row in rows)


def test_a_reward_model_may_judge(school, tmp_path):
    place, _ = context(school, tmp_path, judge=school / "reward")
    AiFeedback(judge="reward", responses=2, count=6, max_new_tokens=24, temperature=1.5, margin=0.0).run(place)
    reward, tokenizer = load_reward_model(school / "reward")
    for row in map(json.loads, (tmp_path / "comparisons.jsonl").read_text().splitlines()):
        trees = [Tree(ai_feedback.prompt_ids(tokenizer, row["prompt"]), (response_ids(tokenizer, text),)) for text in row["responses"]]
        scores = [float(s[0]) for s in rollout.score_trees(reward, trees, 128, 4, "float32")]
        assert row["ranking"][0] == [int(np.argmax(scores))]


def test_answers_are_criticised_and_revised(school, tmp_path, endpoint):
    place, _ = context(school, tmp_path)
    summary = Revise(endpoint=endpoint, count=12, max_new_tokens=48, temperature=1.5).run(place)
    rows = [json.loads(line) for line in (tmp_path / "demonstrations.jsonl").read_text().splitlines()]
    assert summary["revised"] == len(rows) > 0
    assert all(row["critique"] == "too short" and row["messages"][-1]["content"] == "a better answer" for row in rows)


def test_what_a_judge_said_before_its_endpoint_failed_is_not_asked_again(school, tmp_path, endpoint, monkeypatch):
    """It breaks down halfway, with a page instead of an answer; the same command goes on when it is back."""
    answer = Judged.do_POST

    def broken(self):
        self.rfile.read(int(self.headers["Content-Length"]))
        self.send_response(200)
        self.end_headers()
        self.wfile.write(b"<html>out of order</html>")
    monkeypatch.setattr(Judged, "do_POST", lambda self: (broken if len(Judged.asked) >= 9 else answer)(self))
    settings = AiFeedback(endpoint=endpoint.model_copy(update={"tries": 2, "workers": 1}), responses=3, count=8, max_new_tokens=48, temperature=1.5)
    place, _ = context(school, tmp_path)
    with pytest.raises(TriviumError, match=r"127.0.0.1:\d+/v1: .*; see that it runs .* run the same command again"):
        settings.run(place)
    known = [json.loads(line) for line in (tmp_path / "scratch/verdicts.jsonl").read_text().splitlines()]
    monkeypatch.setattr(Judged, "do_POST", answer)
    before = list(Judged.asked)
    settings.run(place)
    assert len(known) >= 5 and not set(Judged.asked[len(before):]) & set(before[:5])


def test_an_endpoint_that_is_not_there_is_said(school, tmp_path):
    place, _ = context(school, tmp_path)
    gone = Endpoint(address="http://127.0.0.1:9/v1", model="judge", pause=0.0, tries=2)
    with pytest.raises(TriviumError, match="127.0.0.1:9"):
        AiFeedback(endpoint=gone, responses=2, count=4, max_new_tokens=24, temperature=1.5).run(place)


RECIPE = """
name: r
stages:
  ppo: {{model: {school}/sft, reward: {school}/reward, prompts: {school}/world, iterations: 2, episodes: 8, max_new_tokens: 6, rows: 4,
        length: 40, epochs: 2, precision: {precision}, parallel: {{rows: 2}}}}
  grpo: {{model: {school}/sft, prompts: {school}/world, checker: number, iterations: 2, episodes: 4, samples: 3, max_new_tokens: 6, rows: 4,
        length: 64, precision: {precision}}}
  dpo: {{model: {school}/sft, preferences: {school}/ranked, length: 64, rows: 4, epochs: 2, precision: {precision}}}
  kto: {{model: {school}/sft, feedback: {school}/thumbs.jsonl, length: 64, rows: 4, epochs: 2, precision: {precision}}}
"""


def test_two_processes_learn_alike(school, tmp_path, precision):
    """PPO and GRPO, whose processes ask a share of the prompts each, DPO, and KTO with its baseline over all processes."""
    (school / "ranked").mkdir(exist_ok=True)
    write_rows(school / "ranked/comparisons.jsonl", [{"prompt": [{"role": "user", "content": f"say {n}"}], "responses": ["yes", "no " * (n % 4), "it is"],
                                                      "ranking": [[n % 3], [(n + 1) % 3, (n + 2) % 3]], "split": "train"} for n in range(16)])
    (tmp_path / "r.yaml").write_text(RECIPE.format(school=school, precision=precision))
    found = []
    for processes in (1, 2):
        launcher = [sys.executable] if processes == 1 else [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2"]
        done = subprocess.run([*launcher, "-m", "trivium.cli.app", "run", str(tmp_path / "r.yaml"), "--quiet", "--set", f"out={tmp_path}/{processes}",
                               "--set", "threads=1"], capture_output=True, text=True, env=os.environ | {"OMP_NUM_THREADS": "1"}, timeout=200)
        assert done.returncode == 0, done.stderr[-3000:]
        found.append({stage: lines(tmp_path / f"{processes}/r/{stage}") for stage in ("ppo", "grpo", "dpo", "kto")})
    for stage, alone in found[0].items():
        for one, two in zip(alone, found[1][stage], strict=True):
            for name in one if precision == "float32" else ():
                if name != "tokens_per_second":
                    assert two[name] == pytest.approx(one[name], abs=1e-4), (stage, name)
    for logs in found:  # in every format the policy begins as its reference, and is what its old log-probabilities were measured of
        assert logs["dpo"][0]["margin"] == logs["kto"][0]["baseline"] == logs["ppo"][0]["kl"] == logs["grpo"][0]["kl"] == 0
        assert max(line["first_ratio_error"] for stage in ("ppo", "grpo") for line in logs[stage]) < 1e-6
    for stage, name, near in (("dpo", "loss", 0.01), ("kto", "loss", 0.01), ("ppo", "score", 0.2), ("ppo", "explained_variance", 0.05)):
        assert found[1][stage][0][name] == pytest.approx(found[0][stage][0][name], abs=near), (stage, name)
