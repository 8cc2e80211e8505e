"""The objectives without a value model: their losses and gradients against their papers' equations in float64, how they
are split, what they learn, and what is refused."""

from __future__ import annotations

import math
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from groups import LONGEST, SAMPLES, alone, flat, groups_of, learned, rollout_of
from tiny import FEW, context, lines

from trivium.errors import TriviumError
from trivium.files import write_rows
from trivium.model import LanguageModel, ModelConfig
from trivium.objectives.policy import kl_penalties, overlong_punishments
from trivium.objectives.policy_presets import OBJECTIVES
from trivium.stages.models import load_language_model, prompt_ids
from trivium.stages.reinforcement import engines, grpo
from trivium.stages.reinforcement.grpo import ALL_ALIKE, Grpo
from trivium.training.optimizers import Optimization
from trivium.training.trainer import Trainer


@pytest.fixture(scope="module")
def policy():
    return LanguageModel(ModelConfig(vocab_size=40, hidden_size=16, intermediate_size=24, num_layers=1, num_heads=2,
                                     num_kv_heads=1, head_dim=8, max_positions=64)).initialise(3)


@pytest.fixture(scope="module")
def made(policy):
    return groups_of(policy)


# ------------------------------------------------------------------------------------------------ the papers' equations

def standardised(scores):
    return [(group - group.mean()) / (group.std(ddof=1) + 1e-4) for group in scores]


def spread(made, groups):
    """One advantage for each token of each response."""
    return [torch.full((len(response),), float(value), dtype=torch.float64)
            for tree, group in zip(made.trees, groups, strict=True)
            for response, value in zip(tree.responses, group, strict=True)]


def clipped(ratio, advantage, low, high):
    return torch.minimum(ratio * advantage, ratio.clamp(1 - low, 1 + high) * advantage)


def k3(now, reference):
    return torch.exp(reference - now) - (reference - now) - 1


def grpo_tokens(made, now, old, reference):
    advantages, count = spread(made, standardised(made.scores)), sum(map(len, now))
    gain = sum(clipped(torch.exp(p - q), a, 0.2, 0.2).sum() for p, q, a in zip(now, old, advantages, strict=True))
    return -gain / count + 0.04 * sum(k3(p, r).sum() for p, r in zip(now, reference, strict=True)) / count


def grpo_responses(made, now, old, reference):
    """Shao et al. 2024, eq. 3 with eq. 4."""
    advantages = spread(made, standardised(made.scores))
    return -sum((clipped(torch.exp(p - q), a, 0.2, 0.2) - 0.04 * k3(p, r)).mean()
                for p, q, r, a in zip(now, old, reference, advantages, strict=True)) / len(now)


def rloo(made, now, old, reference):
    """Ahmadian et al. 2024, eqs. 3 and 9."""
    place, groups = 0, []
    for scores in made.scores:
        rewards = [float(score - 0.05 * (old[place + i] - reference[place + i]).sum())
                   for i, score in enumerate(scores)]
        groups.append([one - (sum(rewards) - one) / (SAMPLES - 1) for one in rewards])
        place += SAMPLES
    gain = sum(clipped(torch.exp(p - q), a, 0.2, 0.2).sum()
               for p, q, a in zip(now, old, spread(made, groups), strict=True))
    return -gain / (LONGEST * len(now))


def reinforce_plus_plus(made, now, old, reference):
    gained = [torch.stack([score - 0.01 * (q - r)[t:].sum() for t in range(len(q))])
              for score, q, r in zip(np.concatenate(made.scores), old, reference, strict=True)]
    every = torch.cat(gained)
    mean, deviation = every.mean(), every.std(unbiased=False)
    gain = sum(clipped(torch.exp(p - q), (g - mean) / deviation, 0.2, 0.2).sum()
               for p, q, g in zip(now, old, gained, strict=True))
    return -gain / sum(map(len, now))


def dr_grpo(made, now, old, reference):
    advantages = spread(made, [group - group.mean() for group in made.scores])
    gain = sum(clipped(torch.exp(p - q), a, 0.2, 0.2).sum() for p, q, a in zip(now, old, advantages, strict=True))
    return -gain / (LONGEST * len(now))


def dapo(made, now, old, reference):
    """Yu et al. 2025, eq. 8."""
    advantages = spread(made, standardised(made.scores))
    gain = sum(clipped(torch.exp(p - q), a, 0.2, 0.28).sum() for p, q, a in zip(now, old, advantages, strict=True))
    return -gain / sum(map(len, now))


def gspo(made, now, old, reference):
    """Zheng et al. 2025, eqs. 5 and 7."""
    gain = 0.0
    for p, q, a in zip(now, old, np.concatenate(standardised(made.scores)), strict=True):
        likelihood = torch.exp(p.sum()) / torch.exp(q.sum())
        gain = gain + clipped(likelihood ** (1 / len(p)), float(a), 3e-4, 4e-4)
    return -gain / len(now)


def cispo(made, now, old, reference):
    """MiniMax-M1 2025, eqs. 4 and 5."""
    advantages = spread(made, standardised(made.scores))
    gain = sum((torch.exp(p - q).detach().clamp(max=5.0) * a * p).sum()
               for p, q, a in zip(now, old, advantages, strict=True))
    return -gain / sum(map(len, now))


PAPERS = [({"objective": "grpo"}, grpo_tokens), ({"objective": "grpo", "aggregation": "responses"}, grpo_responses),
          ({"objective": "rloo"}, rloo), ({"objective": "reinforce++"}, reinforce_plus_plus),
          ({"objective": "dr_grpo"}, dr_grpo), ({"objective": "dapo"}, dapo), ({"objective": "gspo"}, gspo),
          ({"objective": "cispo"}, cispo)]
NAMES = [" ".join(settings.values()) for settings, _ in PAPERS]


def on_its_own(policy, made, temperature=1.0):
    """Of each response the log-probabilities and the entropies, and the model that they come from."""
    groups, entropies, model = alone(policy, made.trees, temperature)
    return [part for parts in groups for part in parts], entropies, model


def agree_on(gradient, model):
    for name, weight in model.named_parameters():
        torch.testing.assert_close(gradient[name].double(), weight.grad, atol=2e-6, rtol=2e-4, msg=name)


@pytest.mark.parametrize(("settings", "paper"), PAPERS, ids=NAMES)
def test_loss_and_gradient_are_the_papers(policy, made, settings, paper):
    ours = Grpo(**settings, max_new_tokens=LONGEST, samples=SAMPLES)
    loss, gradient, _ = learned(policy, ours, rollout_of(made, ours))
    now, _, model = on_its_own(policy, made)
    expected = paper(made, now, flat(made.trees, made.old), flat(made.trees, made.reference))
    expected.backward()
    assert loss == pytest.approx(float(expected.detach()), rel=1e-5, abs=1e-6)
    agree_on(gradient, model)
    assert max(float(each.abs().max()) for each in gradient.values()) > 1e-3


@pytest.mark.parametrize("settings", [
    *[settings for settings, _ in PAPERS],
    {"objective": "gspo", "kl_coefficient": 0.1, "entropy_bonus": 0.05, "importance_cap": 1.05},
    {"objective": "grpo", "aggregation": "constant", "advantages": "centred_batch", "kl_estimate": "k2"},
], ids=[*NAMES, "gspo and more", "grpo and more"])
def test_neither_rows_nor_microbatches_change_anything(policy, made, settings):
    """A group longer than a row is in several, which are several microbatches: no response is ever in two."""
    ours = Grpo(**settings, max_new_tokens=LONGEST, samples=SAMPLES)
    rollout = rollout_of(made, ours)
    loss, gradient, count = learned(policy, ours, rollout)
    split, parts, microbatch_count = learned(policy, ours, rollout, length=14, rows=1)
    assert microbatch_count > 4 and count == 1
    assert split == pytest.approx(loss, rel=1e-5, abs=1e-6)
    for name, each in gradient.items():
        torch.testing.assert_close(parts[name], each, atol=1e-6, rtol=1e-4, msg=name)


def test_further_terms_are_their_formulas(policy, made):
    """The entropy's bonus, KL by k2 in the loss, weights of importance and ratios of sequences over tokens."""
    ours = Grpo(advantages="centred", ratio="sequence", kl_coefficient=0.3, kl_estimate="k2", entropy_bonus=0.2,
                importance_cap=1.1, temperature=0.7, max_new_tokens=LONGEST, samples=SAMPLES)
    loss, gradient, _ = learned(policy, ours, rollout_of(made, ours))
    now, entropies, model = on_its_own(policy, made, 0.7)
    old, reference, sampled = (flat(made.trees, each) for each in (made.old, made.reference, made.sampled))
    advantages = spread(made, [group - group.mean() for group in made.scores])
    total = sum((-torch.exp(q - s).clamp(max=1.1) * clipped(torch.exp((p - q).mean()), a, 0.2, 0.2)
                 + 0.3 * (p - r)**2 / 2).sum()
                for p, q, r, s, a in zip(now, old, reference, sampled, advantages, strict=True))
    total = total - 0.2 * sum(each.sum() for each in entropies)
    expected = total / sum(map(len, now))
    expected.backward()
    assert loss == pytest.approx(float(expected.detach()), rel=1e-5)
    agree_on(gradient, model)


def test_on_its_own_samples_rloo_is_reinforce(policy, made):
    """Where nothing has moved yet, the gradient is that of ``-A log p(response)`` (Ahmadian et al. 2024, eq. 9)."""
    here = SimpleNamespace(**vars(made) | {"old": [each.astype(np.float32) for each in made.now]})
    ours = Grpo(objective="rloo", kl_coefficient=0.0, max_new_tokens=LONGEST, samples=SAMPLES)
    _, gradient, _ = learned(policy, ours, rollout_of(here, ours))
    now, _, model = on_its_own(policy, made)
    advantages = [one - (group.sum() - one) / (SAMPLES - 1) for group in made.scores for one in group]
    (-sum(float(a) * p.sum() for p, a in zip(now, advantages, strict=True)) / (LONGEST * len(now))).backward()
    agree_on(gradient, model)


def test_estimates_of_kl_agree_in_the_mean():
    """Over samples of the policy all three estimate the same, and k3 is never negative (Schulman 2020)."""
    rng = np.random.default_rng(0)
    samples = torch.from_numpy(rng.normal(0.0, 1.0, 400_000))
    now, before = -samples**2 / 2, -(samples - 0.1)**2 / 2
    found = {kind: kl_penalties(now, before, kind) for kind in ("k1", "k2", "k3")}
    assert all(float(each.mean()) == pytest.approx(0.005, abs=5e-4) for each in found.values())
    assert float(found["k3"].min()) >= 0 > float(found["k1"].min())


def test_long_responses_are_punished_softly():
    lengths = np.array([1, 12, 13, 14, 16])
    assert overlong_punishments(lengths, 16, 4).tolist() == [0.0, 0.0, -0.25, -0.5, -1.0]


# --------------------------------------------------------------------------------------------------------- the stage

LETTERS = [{"id": f"p{n}", "prompt": [{"role": "user", "content": f"say {n} please"}], "check": "instructions",
            "instruction_id_list": ["keywords:letter_frequency"],
            "kwargs": [{"letter": "ns"[n % 2], "let_frequency": 2, "let_relation": "at least"}]} for n in range(24)]


@pytest.mark.parametrize("objective", [name for name in OBJECTIVES if name != "grpo"])
def test_each_objective_learns(school, tmp_path, precision, objective):
    """GRPO itself: test_exercises.py. No response is punished for being long, as the shortest cannot be right."""
    write_rows(tmp_path / "prompts.jsonl", LETTERS)
    place, _ = context(school, tmp_path, prompts=tmp_path / "prompts.jsonl", reward=None)
    settings = FEW | {"iterations": 12, "samples": 8, "precision": precision, "unfinished_score": None}
    Grpo(**settings, objective=objective, overlong_buffer=0, checker="by_row",
         optimization=Optimization(learning_rate=0.005)).run(place)
    done = lines(tmp_path)
    scores = [line["score"] for line in done]
    if objective == "dapo":  # only groups that teach are learned from, so their scores say less
        scores = [line["score_of_all_drawn"] for line in done]
    assert sum(scores[-3:]) / 3 > sum(scores[:2]) / 2 + 0.25, scores


@pytest.mark.parametrize("adapter", [None, {"rank": 2}], ids=["whole", "lora"])
def test_stopped_in_the_middle_it_ends_with_the_same_bits(school, tmp_path, monkeypatch, precision, adapter):
    """With groups that are drawn again and a reference that is renewed: stopped right after it was, and when it has
    been for a while."""
    monkeypatch.setenv("TRIVIUM_SAVE_EVERY_STEP", "1")
    write_rows(tmp_path / "prompts.jsonl", LETTERS)
    settings = Grpo(**FEW | {"iterations": 7, "episodes": 4, "samples": 2, "precision": precision}, adapter=adapter,
                    objective="dapo", dynamic_sampling=2, kl_coefficient=0.1, reference_every=2, mask_unfinished=True,
                    checker="by_row", minibatches=1, optimization=Optimization(learning_rate=0.01))
    places = {"prompts": tmp_path / "prompts.jsonl", "reward": None}
    settings.run(context(school, tmp_path / "whole", **places)[0])
    place, _ = context(school, tmp_path / "stopped", **places)
    real = Trainer.step
    for last in (2, 3, 5):  # stopped in its update
        with monkeypatch.context() as patched, pytest.raises(KeyboardInterrupt):
            patched.setattr(Trainer, "step", lambda self, number, *given, last=last: real(
                self, number, *given) if number < last else stop())
            settings.run(place)
    settings.run(place)
    done = lines(tmp_path / "whole")
    assert lines(tmp_path / "stopped") == done
    assert sum(line["groups_drawn_again"] for line in done) > 0
    assert [line["kl"] == 0 for line in done] == [True, False, True, False, True, False, True]
    for file in (tmp_path / "whole").glob("*.safetensors"):
        assert (tmp_path / "stopped" / file.name).read_bytes() == file.read_bytes()
    kept = sorted(file.name for file in (tmp_path / "stopped/scratch").glob("reference-*"))
    assert kept == ["reference-00000004.safetensors", "reference-00000006.safetensors"]


def stop():
    raise KeyboardInterrupt


def test_a_reference_that_is_gone_is_told(school, tmp_path, monkeypatch):
    monkeypatch.setenv("TRIVIUM_SAVE_EVERY_STEP", "1")
    settings = Grpo(**FEW | {"iterations": 4, "episodes": 4, "samples": 2}, reference_every=2, checker="number",
                    minibatches=1)
    place, _ = context(school, tmp_path, reward=None)
    real = Trainer.step
    with monkeypatch.context() as patched, pytest.raises(KeyboardInterrupt):
        patched.setattr(Trainer, "step", lambda self, number, *given: real(
            self, number, *given) if number < 3 else stop())
        settings.run(place)
    (tmp_path / "scratch/reference-00000002.safetensors").unlink()
    with pytest.raises(TriviumError, match=r"reference-00000002.safetensors: the reference .* move .*scratch away"):
        settings.run(place)


CHECKS = """
def half(row, responses):
    return [float(place % 2) * (int(row["id"][1:]) % 2) for place in range(len(responses))]

def none(row, responses):
    return [1.0 for _ in responses]
"""


def test_groups_that_are_alike_are_drawn_again(school, tmp_path):
    """Only prompts of odd numbers teach: a rollout is filled with them, each asked once, as far as there are any."""
    (tmp_path / "checks.py").write_text(CHECKS)
    place, said = context(school, tmp_path / "run", reward=None)
    asked, real = [], grpo.draw

    def drawing(*given):
        asked.append(real(*given))
        return asked[-1]

    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(grpo, "draw", drawing)
        Grpo(**FEW | {"episodes": 6, "samples": 2}, dynamic_sampling=9, checker=f"{tmp_path}/checks.py:half",
             unfinished_score=None).run(place)
    for drawn, line in zip(asked, lines(tmp_path / "run"), strict=True):
        names = [row["id"] for row in drawn.answers.rows]
        assert len(set(names)) == 6 and all(int(name[1:]) % 2 for name in names)
        assert [tree.prompt.tolist() for tree in drawn.answers.trees] == [
            load_ids(school, row) for row in drawn.answers.rows]
        assert line["groups_that_teach"] == 1 and line["score"] == 0.5 and line["groups_drawn_again"] == drawn.again > 0
        assert line["score_of_all_drawn"] == pytest.approx(0.5 * 6 / (6 + drawn.again))
    assert not any("no group teaches" in text for text in said)


def load_ids(school, row):
    return prompt_ids(load_language_model(school / "sft")[1], row["prompt"]).tolist()


def test_where_no_group_teaches_it_is_said(school, tmp_path):
    (tmp_path / "checks.py").write_text(CHECKS)
    place, said = context(school, tmp_path / "run", reward=None)
    Grpo(**FEW | {"episodes": 4, "samples": 2, "iterations": 1}, objective="dapo", unfinished_score=None,
         checker=f"{tmp_path}/checks.py:none").run(place)
    told = "WARNING: iteration 0: no group teaches, though 20 were drawn again: all responses"
    assert any(told in line for line in said) and ALL_ALIKE in said
    with pytest.raises(TriviumError, match=r"a rollout asks all 24 that there are; lower `episodes`"):
        Grpo(**FEW | {"episodes": 24}, objective="dapo", checker="number").run(context(school, tmp_path / "all")[0])


def test_unfinished_responses_teach_nothing(school, tmp_path, monkeypatch):
    """They are counted, and what is learned from has none of them; their scores count in their groups."""
    found, real = [], Grpo.compared
    monkeypatch.setattr(Grpo, "compared", lambda self, rollouts, drawn, *rest: found.append(
        (drawn.answers, real(self, rollouts, drawn, *rest))) or found[-1][1])
    place, _ = context(school, tmp_path, reward=None)
    Grpo(**FEW | {"episodes": 8, "samples": 3, "max_new_tokens": 5}, checker="number", mask_unfinished=True).run(place)
    for (answers, rollout), line in zip(found, lines(tmp_path), strict=True):
        ended = [[tokens.tolist() for tokens, ends in zip(tree.responses, flags, strict=True) if ends]
                 for tree, flags in zip(answers.trees, answers.finished, strict=True)]
        assert [[tokens.tolist() for tokens in tree.responses] for tree in rollout.trees] == ended
        assert all(len(values) == sum(map(len, group)) for values, group in zip(
            rollout.arrays["advantages"], ended, strict=True))
        assert line["masked"] == pytest.approx(1 - line["finished"]) and 0 < line["masked"] < 1


@pytest.mark.bf16
@pytest.mark.parametrize("adapter", [{"rank": 2}, {"rank": 2, "dora": True}], ids=["lora", "dora"])
def test_adapters_are_sampled_in_bf16(school, tmp_path, monkeypatch, adapter):
    """Folded in; the weights of importance make up for what sampling rounds."""
    models, real = [], engines.generate
    monkeypatch.setattr(engines, "generate", lambda model, *rest, **more: models.append(model) or real(
        model, *rest, **more))
    place, _ = context(school, tmp_path, reward=None)
    Grpo(**FEW | {"episodes": 4, "iterations": 3}, checker="number", sampling_precision="bf16", adapter=adapter,
         importance_cap=1.005, optimization=Optimization(learning_rate=0.02)).run(place)
    kept, done = load_language_model(school / "sft")[0], lines(tmp_path)
    assert not any(hasattr(module, "adapters") for model in models for module in model.modules())
    changed = [(dict(model.named_parameters())[name] - weight).abs().max() > 1e-4
               for model in models[1:] for name, weight in kept.named_parameters() if "q_proj.weight" in name]
    assert changed and all(changed)
    for line in done:
        assert 1e-5 < line["log_prob_disagreement"] < 0.2
        assert 0.95 < line["importance"] < 1.005 < line["importance_max"] < math.exp(0.2)


def test_one_response_to_a_prompt_is_enough_for_a_batch(school, tmp_path):
    place, said = context(school, tmp_path)
    Grpo(**FEW, objective="reinforce++", samples=1, reward="reward").run(place)
    assert all(line["policy_loss"] != 0 and math.isfinite(line["policy_loss"]) for line in lines(tmp_path))
    assert ALL_ALIKE not in said


@pytest.mark.parametrize(("settings", "message"), [
    ({"estimator": "rloo"}, "`estimator` is no setting any more: write `objective: rloo`"),
    ({"scaled": False}, "`scaled` is no setting any more: write `objective: dr_grpo`"),
    ({"samples": 1}, "the advantages of `group` compare the responses to a prompt, so `samples` must be at least 2"),
    ({"samples": 1, "objective": "reinforce++", "dynamic_sampling": 2}, "`samples` must be at least 2"),
    ({"dynamic_sampling": 1, "reward": "r", "safety": "s"}, "leave one of the two out"),
    ({"overlong_buffer": 65}, r"overlong_buffer \(65\) is the last part of max_new_tokens \(64\)"),
    ({"objective": "dapo", "kl_place": "reward"}, "a penalty that `kl_coefficient: 0` takes away"),
    ({"objective": "cispo", "reference_every": 3}, "with `kl_coefficient: 0` there is none"),
    ({"kl_estimate": "k1"}, "kl_estimate: k1 teaches nothing in the loss"),
    ({"adapter": {"kind": "bottleneck"}, "sampling_precision": "bf16"}, "kind bottleneck cannot be folded"),
    ({"objective": "grop"}, "objective")])
def test_what_does_not_go_together_is_refused(settings, message):
    with pytest.raises(ValueError, match=message):
        Grpo(**settings)
