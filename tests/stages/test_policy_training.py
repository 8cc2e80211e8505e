"""What PPO and GRPO have in common: prompts, judges, the KL budget, what is said when it goes wrong, and several
processes."""

from __future__ import annotations

import json
import os
import subprocess
import sys

import pytest
import torch
from tiny import FEW, context, lines

from trivium.errors import TriviumError
from trivium.files import write_rows
from trivium.model import LanguageModel, RewardModel
from trivium.stages.models import load_language_model, load_reward_model, save_model
from trivium.stages.reinforcement import grpo, ppo, rollout
from trivium.stages.reinforcement.grpo import Grpo
from trivium.stages.reinforcement.ppo import Ppo
from trivium.stages.reinforcement.training import RunState
from trivium.tokenizer import train as tokenizer_training
from trivium.tokenizer.chat import ChatTokenizer
from trivium.training.optimizers import Optimization
from trivium.training.parallel import Parallel
from trivium.training.trainer import Trainer


def test_the_kl_budget_ends_the_training(school, tmp_path):
    place, said = context(school, tmp_path)
    summary = Ppo(**FEW | {"iterations": 5}, kl_budget=1e-6, optimization=Optimization(learning_rate=1e-3)).run(place)
    done = lines(tmp_path)
    assert summary["ended"] == "KL budget" and 1 < len(done) < 5 and summary["episodes"] == 8 * (len(done) - 1)
    assert done[-1]["kl"] > 1e-6 and "policy_loss" not in done[-1] and all(line["kl"] <= 1e-6 for line in done[:-1])
    assert any("KL budget" in text for text in said)


def test_prompts_that_are_too_long_are_said(school, tmp_path):
    place, _ = context(school, tmp_path)
    with pytest.raises(TriviumError, match="a rollout needs 25"):
        Ppo(**FEW | {"episodes": 25}).run(place)


def test_a_prompt_that_leaves_no_room_is_left_out(school, tmp_path):
    rows = [json.loads(line) for line in (school / "world/prompts.jsonl").read_text().splitlines()]
    write_rows(tmp_path / "prompts.jsonl",
               [*rows[:8], {"id": "long", "prompt": [{"role": "user", "content": "say hello " * 70}]}])
    place, said = context(school, tmp_path / "run", prompts=tmp_path / "prompts.jsonl")
    policy, tokenizer = ppo.load_language_model(school / "sft")
    rollouts = rollout.Rollouts(Ppo(**FEW), place, policy, tokenizer, 1)
    assert [row["id"] for row in rollouts.prompts] == [f"p{n}" for n in range(8)]
    longest = len(rollouts.ids["long"]) + 6
    assert said == [f"WARNING: 1 of 9 prompts with 6 new tokens (11%) were left out, as they are longer than `length: "
                    f"128`; the longest has {longest:,} tokens; no setting takes them in, as the model has "
                    "256 positions: shorten them"]


@pytest.mark.parametrize("name", ["reward", "safety", "gold"])
def test_a_judge_must_read_the_policys_tokens(school, tmp_path, name):
    tokenizer = ChatTokenizer(tokenizer_training.train(["ein anderer Text, noch einer"] * 9, 280))
    judge = RewardModel.from_language_model(
        LanguageModel(load_reward_model(school / "reward")[0].config).initialise(1), 1)
    (tmp_path / "judge").mkdir()
    save_model(judge, tokenizer, tmp_path / "judge")
    place, _ = context(school, tmp_path / "run", **{name: tmp_path / "judge"})
    with pytest.raises(TriviumError,
                       match=rf"judge: this reward model \(`{name}`\) has another tokenizer than the policy"):
        Ppo(**FEW, **({name: "judge"} if name != "reward" else {})).run(place)


def test_rows_of_parallel_change_nothing_but_memory(school, tmp_path):
    logs = []
    for rows in (None, 1):
        place, _ = context(school, tmp_path / str(rows))
        Ppo(**FEW | {"length": 48}, parallel=Parallel(rows=rows)).run(place)
        logs.append(lines(tmp_path / str(rows)))
    for one, other in zip(*logs, strict=True):
        assert other == {name: pytest.approx(value, abs=1e-4) for name, value in one.items()}


def test_a_killed_run_remembers_what_its_watch_saw(school, tmp_path, monkeypatch):
    settings = Grpo(**FEW | {"iterations": 4, "episodes": 4, "samples": 3},
                    checker="number",
                    watch_every=1,
                    watch_prompts=6,
                    gold="gold",
                    optimization=Optimization(learning_rate=0.02))
    settings.run(context(school, tmp_path / "whole", reward=None, gold=school / "reward")[0])
    place, _ = context(school, tmp_path / "stopped", reward=None, gold=school / "reward")
    real, calls = Trainer.step, []

    def stops(*given, **more):
        calls.append(1)
        if len(calls) == 6:
            raise KeyboardInterrupt
        return real(*given, **more)
    with monkeypatch.context() as patched, pytest.raises(KeyboardInterrupt):
        patched.setattr(Trainer, "step", stops)
        settings.run(place)
    note = json.loads((tmp_path / "stopped/scratch/step-00000002.json").read_text())["extra"]
    state = RunState.from_json(note)
    assert len(state.watch.best) == 6 and state.to_json() == note
    settings.run(place)
    assert lines(tmp_path / "stopped") == lines(tmp_path / "whole")
    assert (tmp_path / "stopped/model.safetensors").read_bytes() == (tmp_path / "whole/model.safetensors").read_bytes()


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
    with pytest.raises(
            TriviumError,
            match=
            r"practice: iteration 1: checker .*ValueError: the file of answers is gone \(line 8\) "
            r"\(the checkpoint after iteration 0 is kept\)"
    ):
        settings.run(place)
    first = lines(tmp_path / "run")
    (tmp_path / "mended").touch()
    settings.run(place)
    assert len(first) == 1 and lines(tmp_path / "run")[0] == first[0] and len(lines(tmp_path / "run")) == 3


@pytest.mark.parametrize("score, told", [("1.0", True), ("float(len(text))", False)])
def test_grpo_says_when_no_group_had_different_scores(school, tmp_path, monkeypatch, score, told):
    (tmp_path / "checks.py").write_text(f"def score(row, responses):\n    return [{score} for text in responses]\n")
    place, _ = context(school, tmp_path / "run", reward=None)
    said: list[str] = []
    monkeypatch.setattr(place.progress, "say", said.append)
    Grpo(**FEW | {"episodes": 4, "samples": 4, "iterations": 2}, checker=f"{tmp_path}/checks.py:score",
         unfinished_score=None).run(place)
    assert any("nothing was learned" in line for line in said) is told


@pytest.mark.parametrize("stage", [ppo, grpo])
def test_scores_that_are_no_numbers_end_it(school, tmp_path, stage):
    reward, tokenizer = load_reward_model(school / "reward")
    reward.score.weight.data.fill_(torch.nan)
    (tmp_path / "reward").mkdir()
    save_model(reward, tokenizer, tmp_path / "reward")
    place, _ = context(school, tmp_path / "run", reward=tmp_path / "reward")
    settings = Ppo(**FEW, unfinished_score=1.0) if stage is ppo else Grpo(**FEW | {"episodes": 4, "samples": 3},
                                                                          reward="reward")
    with pytest.raises(TriviumError, match=r"iteration 0: the score of a response to prompt p\d+ is not finite"):
        settings.run(place)


@pytest.mark.parametrize(("rate", "message"), [(0.3, "nats from the reference: the policy has run away"),
                                               (1e30, "not finite")])
def test_a_policy_that_runs_away_is_said(school, tmp_path, rate, message):
    place, said = context(school, tmp_path)
    try:
        Ppo(**FEW | {"max_new_tokens": 30, "epochs": 1}, optimization=Optimization(learning_rate=rate,
                                                                                   clip=0.0)).run(place)
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


RECIPE = """
name: r
stages:
  ppo: {{model: {school}/sft, reward: {school}/reward, prompts: {school}/world, iterations: 2, episodes: 8,
        max_new_tokens: 6, rows: 4, length: 40, epochs: 2, precision: {precision}, parallel: {{rows: 2}}}}
  grpo: {{model: {school}/sft, prompts: {school}/world, checker: number, iterations: 2, episodes: 4, samples: 3,
        max_new_tokens: 6, rows: 4, length: 64, precision: {precision}}}
  dpo: {{model: {school}/sft, preferences: {school}/ranked, length: 64, rows: 4, epochs: 2, precision: {precision}}}
  kto: {{model: {school}/sft, feedback: {school}/thumbs.jsonl, length: 64, rows: 4, epochs: 2, precision: {precision}}}
"""


def test_two_processes_learn_alike(school, tmp_path, precision):
    """PPO and GRPO, whose processes ask a share of the prompts each, DPO, and KTO with its baseline over all."""
    (school / "ranked").mkdir(exist_ok=True)
    write_rows(school / "ranked/comparisons.jsonl", [{
        "prompt": [{"role": "user", "content": f"say {n}"}], "responses": ["yes", "no " * (n % 4), "it is"],
        "ranking": [[n % 3], [(n + 1) % 3, (n + 2) % 3]], "split": "train"
    } for n in range(16)])
    (tmp_path / "r.yaml").write_text(RECIPE.format(school=school, precision=precision))
    found = []
    for processes in (1, 2):
        launcher = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2"] if processes == 2 else []
        done = subprocess.run([sys.executable, *launcher, "-m", "trivium.cli.app", "run", str(tmp_path / "r.yaml"),
                               "--quiet", "--set", f"out={tmp_path}/{processes}", "--set", "threads=1"],
                              capture_output=True, text=True, env=os.environ | {"OMP_NUM_THREADS": "1"}, timeout=200)
        assert done.returncode == 0, done.stderr[-3000:]
        found.append({stage: lines(tmp_path / f"{processes}/r/{stage}") for stage in ("ppo", "grpo", "dpo", "kto")})
    for stage, alone in found[0].items():
        for one, two in zip(alone, found[1][stage], strict=True):
            for name in one if precision == "float32" else ():
                if name != "tokens_per_second":
                    assert two[name] == pytest.approx(one[name], abs=1e-4), (stage, name)
    # In every format the policy begins as its reference, and is what its old log-probabilities were measured of.
    for logs in found:
        assert logs["dpo"][0]["margin"] == logs["kto"][0]["baseline"] == logs["ppo"][0]["kl"] == logs["grpo"][0]["kl"]
        assert logs["ppo"][0]["kl"] == 0
        assert max(line["first_ratio_error"] for stage in ("ppo", "grpo") for line in logs[stage]) < 1e-6
    for stage, name, near in (("dpo", "loss", 0.01), ("kto", "loss", 0.01), ("ppo", "score", 0.2),
                              ("ppo", "explained_variance", 0.05)):
        assert found[1][stage][0][name] == pytest.approx(found[0][stage][0][name], abs=near), (stage, name)
