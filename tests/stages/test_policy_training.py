"""What PPO and GRPO have in common: prompts, judges, the KL budget, and what is said when it goes wrong."""

from __future__ import annotations

import json

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
    policy, tokenizer = load_language_model(school / "sft")
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
    monkeypatch.setenv("TRIVIUM_SAVE_EVERY_STEP", "1")
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


@pytest.mark.parametrize(("stage", "more"), [
    (Ppo, {}), (Grpo, {"checker": "number", "episodes": 4, "samples": 3}), (Grpo, {"checker": "number", "episodes": 4,
                                                                                   "adapter": {"rank": 2}})])
def test_no_reference_is_run_where_nothing_asks_for_it(school, tmp_path, monkeypatch, precision, stage, more):
    """What is learned is the same to the bit as with a reference that a budget of KL is measured from."""
    found, measured = {}, {}
    for name, budget in (("without", None), ("with", 1e9)):
        calls = []
        real = rollout.Rollouts.log_probs
        monkeypatch.setattr(rollout.Rollouts, "log_probs",
                            lambda *given, calls=calls, real=real: calls.append(1) or real(*given))
        place, _ = context(school, tmp_path / name)
        settings = stage(**FEW | more | {"precision": precision}, kl_coefficient=0.0, kl_budget=budget,
                         optimization=Optimization(learning_rate=1e-3))
        settings.run(place)
        monkeypatch.undo()
        weights = next((tmp_path / name).glob("*model.safetensors"))
        found[name], measured[name] = weights.read_bytes(), (len(calls), lines(tmp_path / name))
    assert found["without"] == found["with"]
    assert (measured["without"][0], measured["with"][0]) == (2, 4)
    for line, other in zip(measured["without"][1], measured["with"][1], strict=True):
        assert not {"kl", "kl_per_token", "kl_loss"} & line.keys() and {"kl", "kl_per_token"} < other.keys()
        assert line["score"] == other["score"] and line["policy_loss"] == other["policy_loss"]


def test_values_have_a_bound_of_their_own(school, tmp_path):
    """One that is never reached is none; a tight one changes what is learned of values, whatever `clip` is."""
    losses = {}
    for bound in (None, 1e9, 1e-4):
        place, _ = context(school, tmp_path / str(bound))
        Ppo(**FEW, clip_value=bound, optimization=Optimization(learning_rate=1e-3)).run(place)
        losses[bound] = [line["value_loss"] for line in lines(tmp_path / str(bound))]
    assert losses[None] == pytest.approx(losses[1e9], rel=1e-4)
    assert losses[None] != pytest.approx(losses[1e-4], rel=1e-2)


@pytest.mark.bf16
def test_responses_can_be_sampled_in_bf16(school, tmp_path):
    """Their log-probabilities then are those of bf16 products, and those that are learned from are not."""
    apart = {}
    for kind in ("float32", "bf16"):
        place, _ = context(school, tmp_path / kind)
        Grpo(**FEW | {"episodes": 4, "iterations": 1}, checker="number", sampling_precision=kind).run(place)
        apart[kind] = lines(tmp_path / kind)[0]
    assert apart["float32"]["log_prob_disagreement"] < 1e-4 < apart["bf16"]["log_prob_disagreement"] < 0.2
    assert apart["bf16"]["first_ratio_error"] == 0.0
    with pytest.raises(ValueError, match="leave it out beside `engine`"):
        Grpo(engine={"address": "http://127.0.0.1:1", "model": "m", "weights": "w"}, sampling_precision="bf16")
