"""Defaults: every stage runs to its end with what it must be given and nothing else; rates follow kind and size; what
is left out is said; groups may span several rows."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from tiny import context

from trivium.errors import TriviumError
from trivium.files import write_rows
from trivium.model import LanguageModel, ModelConfig, RewardModel
from trivium.objectives.language_modeling import token_log_probs
from trivium.objectives.policy import group_advantages
from trivium.pipeline.run import run
from trivium.stages import defaults
from trivium.stages.finetuning.sft import Sft
from trivium.stages.models import load_language_model
from trivium.stages.preferences.dpo import DirectPreference, Dpo
from trivium.stages.preferences.kto import Kto
from trivium.stages.preferences.rankings import (
    Rated,
    add_pairs,
    add_ratings,
    count_rankings,
    longest_pair,
    part_of,
    spread,
)
from trivium.stages.preferences.reference import RUN_AWAY, drift, response_log_probs, target_log_probs
from trivium.stages.preferences.reward import Ranking, Regression, Reward
from trivium.stages.reinforcement.grpo import GroupSurrogate, Grpo
from trivium.stages.reinforcement.ppo import ClippedSurrogate, PolicyAndValue, Ppo, split_by_model
from trivium.stages.reinforcement.rollout import Rollout, microbatches
from trivium.stages.scores import score_trees
from trivium.training.batch import Tree, hidden_states, make_batch, map_trees, pack
from trivium.training.objective import Total
from trivium.training.parallel import World
from trivium.training.settings import Optimization

DOCS = Path(__file__).parents[2] / "docs"


def write_chats(folder):
    """Rows for every stage, the longest conversation twice as long as the model."""
    say = [{"role": "user", "content": "what is two and two?"}, {"role": "assistant", "content": "it is four."}]
    write_rows(folder / "chats.jsonl", [{"messages": say}] * 9 + [
        {"messages": [say[0], {"role": "assistant", "content": "four " * count}]} for count in (40, 300)])
    (folder / "ranked").mkdir()
    write_rows(folder / "ranked/comparisons.jsonl", [
        {"id": n, "prompt": [{"role": "user", "content": f"say {n} please"}],
         "responses": ["yes", "no thanks " * 6, "hello " * 9, "a " * 3], "ranking": [[0], [1, 2], [3]],
         "split": "heldout" if n % 4 == 0 else "train"} for n in range(12)])


@pytest.mark.parametrize("precision", ["float32", pytest.param("bf16", marks=pytest.mark.bf16)])
def test_every_stage_runs_to_its_end_with_its_defaults(school, tmp_path, precision):
    write_chats(tmp_path)
    given = {"sft": f"demonstrations: {tmp_path}/chats.jsonl", "reward": f"preferences: {tmp_path}/ranked",
             "dpo": f"preferences: {tmp_path}/ranked", "kto": f"feedback: {school}/thumbs.jsonl",
             "ppo": f"prompts: {school}/world, reward: {school}/reward",
             "grpo": f"prompts: {school}/world, checker: number",
             "select": f"prompts: {school}/world, reward: {school}/reward"}
    stages = "\n".join(f"  {kind}: {{model: {school}/sft, precision: {precision}, {more}}}"
                       for kind, more in given.items())
    (tmp_path / "r.yaml").write_text(f"name: all\nout: {tmp_path}/runs\nstages:\n{stages}\n")
    made = run(tmp_path / "r.yaml", ppo__iterations=1, grpo__iterations=1)
    for kind in ("sft", "reward", "dpo", "kto", "ppo", "grpo"):
        summary, settings = made[kind].summary, made[kind].manifest["settings"]
        assert summary["learning_rate"] == settings["optimization"]["learning_rate"] == defaults.RATES[kind][0]
        assert summary["length"] <= 256 and summary["precision"] == precision
    assert made["dpo"].summary["beta"] == 0.3 and made["kto"].manifest["settings"]["beta"] == 0.5
    assert made["sft"].summary["left_out"] == 1 and made["sft"].summary["length"] < 256
    assert made["grpo"].summary["episodes"] == 24 * 8  # a rollout asks all the prompts that there are


@pytest.mark.parametrize("kind, parameters, adapter, rate, beta", [
    ("sft", 135e6, False, 2e-5, None), ("sft", 135e6, True, 2e-4, None), ("dpo", 135e6, False, 1e-6, 0.1),
    ("dpo", 7e9, False, 5e-7, 0.1), ("dpo", 7e9, True, 5e-6, 0.1), ("grpo", 5e8, False, 1e-6, None),
    ("ppo", 1e9, False, 1e-6, None), ("sft", 70e9, False, 2e-6, None), ("reward", 5e8, True, 2e-4, None),
    ("sft", 2e6, False, 3e-4, None)])
def test_rates_follow_the_kind_and_the_size(kind, parameters, adapter, rate, beta):
    known = defaults.usual(kind, int(parameters), adapter)
    assert known.learning_rate == pytest.approx(rate) and known.beta == beta


@pytest.mark.long
def test_trls_own_defaults_are_those_of_middling_models():
    trl = pytest.importorskip("trl")
    for kind, config in (("sft", trl.SFTConfig), ("dpo", trl.DPOConfig), ("kto", trl.KTOConfig),
                         ("grpo", trl.GRPOConfig)):
        assert defaults.RATES[kind][1] == config.__dataclass_fields__["learning_rate"].default
    assert defaults.BETAS["dpo"][1] == trl.DPOConfig.__dataclass_fields__["beta"].default


@pytest.mark.parametrize("page, kinds", [("sft", ("sft", "classify", "translate", "see", "projector")),
                                         ("rlhf", ("reward", "dpo", "kto", "ppo", "grpo"))])
@pytest.mark.parametrize("language", ["", ".zh"])
def test_the_pages_show_the_table(page, kinds, language):
    text = (DOCS / f"{page}{language}.md").read_text(encoding="utf-8")
    for kind in kinds:
        row = re.search(rf"^\|[^|]*`{kind}`[^|]*\|(.*)\|", text, re.MULTILINE)
        assert row, kind
        shown = [float(cell.split(",")[0].strip()) for cell in row[1].split("|")[:4]]
        assert shown == list(defaults.RATES[kind]), kind


def test_the_size_is_counted_without_reading_the_weights(school):
    model, _ = load_language_model(school / "sft")
    assert defaults.parameters_of(school / "sft") == sum(p.numel() for p in model.parameters())


@pytest.mark.parametrize("parameters, adapter", [(10**5, False), (10**5, True), (7 * 10**9, False), (7 * 10**9, True)])
def test_muons_rates_are_warned_of_too(parameters, adapter):
    known = defaults.usual("sft", parameters, adapter)
    for factor, off in ((1.0, False), (9.0, False), (10.0, True), (0.1, True), (0.12, False)):
        given = Optimization(optimizer="muon", learning_rate=known.learning_rate * factor,
                             matrix_learning_rate=known.matrix_learning_rate * factor)
        names = [re.findall("`(.*?)`", line)[0] for line in defaults.warnings("sft", given, None, known, parameters)]
        both = ["optimization.learning_rate"] * (parameters > 10**7) + ["optimization.matrix_learning_rate"]
        assert names == both * off


def test_what_is_ten_times_off_is_warned_of_and_what_is_not_is_not(school, tmp_path):
    write_chats(tmp_path)
    for rate, beta, expected in ((6e-4, 0.3, ["optimization.learning_rate"]), (5e-6, 0.02, [
            "optimization.learning_rate", "beta"]), (1e-4, 0.1, [])):
        place, said = context(school, tmp_path / f"{rate}", preferences=tmp_path / "ranked")
        Dpo(optimization=Optimization(learning_rate=rate), beta=beta, precision="float32").run(place)
        warned = [line for line in said if line.startswith("WARNING: `")]
        assert [re.findall("`(.*?)`", line)[0] for line in warned] == expected, said
        assert all("is usual" in line for line in warned)


def test_what_is_left_out_is_said_with_the_setting_that_takes_it_in(school, tmp_path):
    write_chats(tmp_path)
    place, said = context(school, tmp_path / "run", demonstrations=tmp_path / "chats.jsonl")
    summary = Sft(length=32, precision="float32").run(place)
    left = next(line for line in said if line.startswith("WARNING"))
    size = int(re.search(r"`length: (\d+)`, or null, takes in 1 of them", left)[1])
    assert "2 of 11 conversations (18%) were left out" in left and "longer than `length: 32`" in left
    assert summary["left_out"] == 2
    place, said = context(school, tmp_path / "more", demonstrations=tmp_path / "chats.jsonl")
    assert Sft(length=size, precision="float32").run(place)["left_out"] == 1
    assert any("longer than the model's 256 positions" in line or "no setting takes them in" in line for line in said)
    with pytest.raises(TriviumError, match=r"none of 11 conversations fits.*`length: \d+`, or null, takes in 10"):
        Sft(length=3, precision="float32").run(place)


# ------------------------------------------------------------------------------------------ groups over several rows


CONFIG = ModelConfig(vocab_size=50, hidden_size=32, intermediate_size=48, num_layers=2, num_heads=2, num_kv_heads=1,
                     head_dim=16, max_positions=24)


def random_trees(count, responses, payload=None, seed=0):
    rng = np.random.default_rng(seed)
    return [Tree(rng.integers(0, 50, 7), tuple(rng.integers(0, 50, rng.integers(3, 16)) for _ in range(responses)),
                 payload=payload) for _ in range(count)]


def sums(objective, model, batches):
    """The means that an objective gives over microbatches, and the gradient."""
    model.zero_grad()
    counts, totals = {}, {}
    for batch in batches:
        for name, value in batch.counts.items():
            counts[name] = counts.get(name, 0.0) + value
    for batch in batches:
        for name, total in objective(model, batch).items():
            assert isinstance(total, Total)
            totals[name] = totals.get(name, 0.0) + total.value / counts[total.per]
    loss = sum(weight * totals[name] for name, weight in objective.weights.items() if name in totals)
    loss.backward()
    return {name: float(value) for name, value in totals.items()}, torch.cat(
        [p.grad.flatten() for p in model.parameters() if p.grad is not None])


def packed(trees, length, finish, each=None):
    rows = [[trees[i] for i in row] for row in pack([len(tree) for tree in trees], length)]
    each = each or len(rows)
    batches = [make_batch(rows[start:start + each], length) for start in range(0, len(rows), each)]
    for batch in batches:
        finish(batch)
    return batches


@pytest.mark.parametrize("kind", ["dpo", "ranking", "regression"])
@pytest.mark.parametrize("each", [None, 1])
def test_a_ranking_over_several_rows_teaches_what_it_teaches_in_one(kind, each):
    ranking = [[2], [0, 4], [1], [3]]
    rated = Rated(ranking, [5, 3, 7, 1, 4])
    trees = random_trees(3, 5, rated if kind == "regression" else ranking)
    model = LanguageModel(CONFIG).initialise(0)
    if kind != "dpo":
        model = RewardModel.from_language_model(model, 1)
    model = model.double()
    other = LanguageModel(CONFIG).initialise(5).double()
    objective = {"dpo": DirectPreference(Dpo(beta=0.1)), "ranking": Ranking(), "regression": Regression()}[kind]

    def finish(batch):
        (add_ratings if kind == "regression" else add_pairs)(batch)
        batch.extra = {name: value.double() if value.is_floating_point() else value
                       for name, value in batch.extra.items()}
        if kind == "dpo":
            with torch.no_grad():
                batch.extra["reference"] = response_log_probs(other, batch)

    whole = sums(objective, model, packed(trees, max(map(len, trees)), finish))
    length = max(map(longest_pair, trees)) + 3
    parts = [part for tree in trees for part in spread(tree, length)]
    assert len(parts) > 3 and all(len(part) <= length for part in parts) and count_rankings(parts) == 3
    split = sums(objective, model, packed(parts, length, finish, each))
    assert split[0] == pytest.approx(whole[0], abs=1e-6)
    torch.testing.assert_close(split[1], whole[1], atol=1e-6, rtol=1e-6)


def test_every_pair_of_a_spread_ranking_is_in_one_tree():
    for seed in range(30):
        tree = random_trees(1, 7, [[0], [1, 2], [3], [4], [5, 6]], seed)[0]
        parts = spread(tree, longest_pair(tree) + seed)
        met = [(part.responses[a].tobytes(), part.responses[b].tobytes())
               for part in parts for a, b in part_of(part).pairs]
        wanted = [(tree.responses[a].tobytes(), tree.responses[b].tobytes()) for a in range(7) for b in range(7)
                  if next(i for i, g in enumerate(tree.payload) if a in g) < next(
                      i for i, g in enumerate(tree.payload) if b in g)]
        assert sorted(met) == sorted(wanted)


@pytest.mark.parametrize("each", [None, 1])
def test_a_group_of_a_rollout_over_several_rows_teaches_what_it_teaches_in_one(each):
    trees = random_trees(4, 6)
    rng = np.random.default_rng(3)
    policy = LanguageModel(CONFIG).initialise(0)
    sizes = [sum(map(len, tree.responses)) for tree in trees]
    arrays = {name: [rng.normal(size=size).astype(np.float32) - 4 for size in sizes]
              for name in ("log_probs", "reference", "values", "returns")}
    arrays["advantages"] = [np.repeat(group_advantages(rng.normal(size=6)), [len(r) for r in tree.responses])
                            for tree in trees]
    rollout = Rollout(trees, arrays)
    for objective, model, cut in (
            (GroupSurrogate(Grpo()), policy, lambda made: made),
            (ClippedSurrogate(Ppo()), PolicyAndValue(policy, RewardModel.from_language_model(policy, 1)),
             split_by_model)):
        found = []
        for length, rows in ((max(map(len, trees)), None), (25, each)):
            batches = microbatches(rollout, range(4), length, rows, World(), torch.device("cpu"))
            found.append(sums(objective, model, cut(batches)))
        assert found[0][0] == pytest.approx(found[1][0], rel=1e-5, abs=1e-6)
        torch.testing.assert_close(found[0][1], found[1][1], atol=1e-6, rtol=1e-4)


def test_values_and_scores_of_a_group_over_several_rows_are_those_of_one(school):
    trees = random_trees(3, 6)
    model = LanguageModel(CONFIG).initialise(0)
    reward = RewardModel.from_language_model(model, 1)
    for length in (25, 30):
        for one, two in zip(score_trees(reward, trees, 200, 4, "float32"),
                            score_trees(reward, trees, length, 2, "float32"), strict=True):
            np.testing.assert_allclose(one, two, atol=1e-6)
        tokens = [map_trees(lambda batch: target_log_probs(model, batch), trees, size, 2, torch.device("cpu"), True)
                  for size in (200, length)]
        for one, two in zip(*tokens, strict=True):
            np.testing.assert_allclose(one, two, atol=1e-5)


@pytest.mark.parametrize("stage, inputs", [(Dpo, "preferences"), (Reward, "preferences"), (Grpo, "prompts"),
                                           (Ppo, "prompts"), (Kto, "feedback")])
def test_a_branch_not_a_group_is_bound_by_the_positions(school, tmp_path, stage, inputs):
    """A group of 300 tokens and more on a model of 256 positions."""
    write_rows(tmp_path / "comparisons.jsonl", [
        {"id": n, "prompt": [{"role": "user", "content": f"say {n} please"}], "split": "train",
         "responses": [f"{word} {n} " * 22 for word in ("yes", "no", "oh", "why", "well")],
         "ranking": [[0], [1], [2], [3, 4]]} for n in range(4)])
    more = {"samples": 20, "max_new_tokens": 20, "iterations": 1} if stage is Grpo else {
        "max_new_tokens": 20, "iterations": 1} if stage is Ppo else {}
    given = {} if inputs == "prompts" else {inputs: tmp_path}
    if stage is Grpo:
        (tmp_path / "own.py").write_text("def f(row, responses):\n    return [float(len(r)) for r in responses]\n")
        more["checker"] = f"{tmp_path}/own.py:f"
        given["reward"] = None
    for length in (None, 150):
        place, said = context(school, tmp_path / f"{length}", **given)
        stage(length=length, precision="float32", **more).run(place)
        assert not any("left out" in line for line in said), said


# ------------------------------------------------------------------------------------------------- how far DPO drifts


def test_the_drift_is_the_kl_of_near_models():
    """Beside the exact KL over the whole vocabulary, on responses that the reference wrote."""
    torch.manual_seed(0)
    reference = LanguageModel(CONFIG).initialise(0)
    policy = LanguageModel(CONFIG).initialise(0)
    with torch.no_grad():
        for parameter in policy.parameters():
            parameter.add_(0.01 * torch.randn_like(parameter))
    rows = torch.randint(0, 50, (300, 4))
    with torch.no_grad():
        for _ in range(16):
            drawn = torch.multinomial(reference(rows)[:, -1].softmax(-1), 1)
            rows = torch.cat([rows, drawn], 1)
        one, two = (model(rows)[:, 3:-1].log_softmax(-1) for model in (reference, policy))
    exact = float((one.exp() * (one - two)).sum(-1).mean())
    trees = [Tree(row[:4], (row[4:],)) for row in rows.numpy()]
    batch = make_batch([[tree] for tree in trees], 20)
    hidden = hidden_states(reference.model, batch)
    with torch.no_grad():
        batch.extra["reference_tokens"] = token_log_probs(hidden[batch.sources], reference.lm_head.weight,
                                                          batch.targets)
        found = drift(target_log_probs(policy, batch), batch)
    estimate = float(found["kl_per_token"].value) / batch.counts["tokens"]
    assert exact > 1e-4 and estimate == pytest.approx(exact, rel=0.15)


def test_a_model_that_runs_away_is_seen_and_said(school, tmp_path):
    write_chats(tmp_path)
    logs = {}
    for rate in (5e-5, 0.05):
        place, said = context(school, tmp_path / f"{rate}", preferences=tmp_path / "ranked")
        summary = Dpo(optimization=Optimization(learning_rate=rate), beta=0.02, epochs=6, rows=2,
                      precision="float32").run(place)
        logs[rate] = [json.loads(line) for line in (place.folder / "log.jsonl").read_text().splitlines()]
        assert logs[rate][0]["kl"] == logs[rate][0]["kl_per_token"] == 0 and summary["kl"] == logs[rate][-1]["kl"]
        assert any("it runs away" in line for line in said) is (rate > 1e-3), (said, summary)
    assert logs[0.05][-1]["kl_per_token"] > RUN_AWAY > logs[5e-5][-1]["kl_per_token"] > 0


def test_a_settled_stage_is_in_the_key_and_open_ones_settle_once(school):
    stage = Dpo()
    done = stage.settled({"model": school / "sft"})
    assert stage.beta is None and done.beta == 0.3 and done.settled({"model": school / "sft"}) == done
    assert done.learned()["beta"] == 0.3 and done.learned()["optimization"]["learning_rate"] == 5e-5
    chosen = Dpo(beta=0.7, optimization=Optimization(learning_rate=1e-3))
    assert chosen.settled({"model": school / "sft"}).optimization == replace(chosen.optimization,
                                                                            matrix_learning_rate=0.02)
