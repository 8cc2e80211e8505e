"""What PPO must get right, on tiny models."""

from __future__ import annotations

import copy
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from tiny import FEW, context, lines

from trivium.errors import TriviumError
from trivium.model.adapters import AdapterSettings, attach
from trivium.model.adapters import folder as adapter_folder
from trivium.objectives.policy import generalised_advantages, whiten
from trivium.stages.models import load_language_model, load_reward_model
from trivium.stages.reinforcement import ppo, scoring
from trivium.stages.reinforcement.grpo import Grpo
from trivium.stages.reinforcement.ppo import Ppo
from trivium.stages.reinforcement.scoring import TrainingReward, whiten_together
from trivium.training.batch import Tree, make_batch
from trivium.training.optimizers import Optimization
from trivium.training.parallel import World
from trivium.training.trainer import Trainer


def test_the_first_ratio_is_one_and_log_probs_agree(school, tmp_path, precision):
    few = FEW | {"precision": precision}
    place, _ = context(school, tmp_path)
    assert Ppo(**few).run(place)["precision"] == precision
    first, second = lines(tmp_path)
    near = 1e-4 if precision == "float32" else 0.2  # sampled in float32, learned in bf16
    assert first["sample_prompt"].startswith("say ") and isinstance(first["sample"], str) and np.isfinite(
        first["sample_score"])
    assert first["first_ratio_error"] < 1e-6 and first["kl"] == 0 and abs(second["kl"]) > 0
    assert first["log_prob_disagreement"] < near and second["log_prob_disagreement"] < near
    place, _ = context(school, tmp_path / "g", reward=None)
    assert Grpo(**few | {"episodes": 4, "samples": 3}, checker="number").run(place)["precision"] == precision
    assert lines(tmp_path / "g")[0]["first_ratio_error"] < 1e-6 and lines(tmp_path / "g")[0]["kl"] == 0


@pytest.mark.parametrize(("stage", "more"), [(Ppo, {}), (Grpo, {"checker": "number"})])
def test_a_reference_in_another_format_than_the_policy_is_refused(school, tmp_path, monkeypatch, stage, more):
    with pytest.raises(ValueError, match="would set the policy apart from its reference"):
        stage(**FEW | {"precision": "bf16-weights"}, **more)
    monkeypatch.setenv("TRIVIUM_AUTO_PRECISION", "bf16-weights")
    place, _ = context(school, tmp_path)
    with pytest.raises(TriviumError, match="would set the policy apart from its reference"):
        stage(**FEW | {"precision": "auto"}, **more).run(place)


def test_a_rollout_is_scored_as_the_papers_say():
    settings = Ppo(kl_coefficient=0.1, lam=0.9)
    rng = np.random.default_rng(0)
    lengths = [3, 5]
    trees = [Tree(np.array([1]), (np.arange(n),)) for n in lengths]
    new, old, values = ([rng.normal(size=n) for n in lengths] for _ in range(3))
    rewards = ppo.token_rewards(trees, new, old, [np.array([2.0]), np.array([-1.0])], 0.1)
    advantages = [
        ppo.advantages_of(*one, settings.gamma, settings.lam) for one in zip(trees, rewards, values, strict=True)
    ]
    expected = []
    for now, before, value, score in zip(new, old, values, (2.0, -1.0), strict=True):
        rewards = -0.1 * (now - before)
        rewards[-1] += score
        expected.append(generalised_advantages(rewards, value, 1.0, 0.9))
    for found, wanted in zip(advantages, expected, strict=True):
        np.testing.assert_allclose(found, wanted)
    both = np.concatenate(whiten_together(advantages, World()))
    np.testing.assert_allclose(both, whiten(np.concatenate(expected)))


def test_ptx_adds_the_pretraining_gradient(school, precision):
    settings = Ppo(pretraining_coefficient=0.7)
    policy, _ = load_language_model(school / "sft")
    reward, _ = load_reward_model(school / "reward")
    objective = ppo.ClippedSurrogate(settings)
    rng = np.random.default_rng(0)
    episodes = make_batch([[Tree(np.array([1, 2]), (rng.integers(0, 200, 5),))]], 16)
    episodes.extra = {
        name: torch.from_numpy(rng.normal(size=5).astype(np.float32))
        for name in ("advantages", "values", "returns", "log_probs")
    }
    documents = make_batch([[Tree(np.array([0]), (rng.integers(0, 200, 9),))]], 16)
    documents.counts = {"pretraining_tokens": documents.counts["tokens"]}
    gradients = []
    for batches in (ppo.split_by_model([episodes]), [documents], [documents, *ppo.split_by_model([episodes])]):
        model = ppo.PolicyAndValue(copy.deepcopy(policy), copy.deepcopy(reward))
        trainer = Trainer(model, Optimization(clip=0.0), 1, precision)
        kept = []
        trainer.optimizers = [
            SimpleNamespace(param_groups=[],
                            step=lambda model=model, kept=kept: kept.append(
                                {n: p.grad.clone()
                                 for n, p in model.policy.named_parameters()
                                 if p.grad is not None}))
        ]
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
    holder, name, last = (TrainingReward, "__call__", 1) if where == "rollout" else (Trainer, "step", 6)
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


@pytest.mark.parametrize("adapter", [AdapterSettings(rank=2), AdapterSettings(rank=2, dora=True),
                                     AdapterSettings(kind="bottleneck", width=3),
                                     AdapterSettings(kind="prefix", tokens=2)],
                         ids=["lora", "dora", "bottleneck", "prefix"])
def test_with_adapters_four_models_share_one_trunk(school, tmp_path, adapter, monkeypatch, precision):
    place, said = context(school, tmp_path, reward=on_sft(school, tmp_path / "reward", adapter))
    models, training, load = [], ppo.PolicyTraining, scoring.load_judge

    def loaded(given, name, folder, policy, *rest, **more):
        models.extend([policy, load(given, name, folder, policy, *rest, **more)])
        return models[-1]

    monkeypatch.setattr(scoring, "load_judge", loaded)
    monkeypatch.setattr(
        ppo, "PolicyTraining",
        lambda rollouts, pair, *rest, **more: models.append(pair) or training(rollouts, pair, *rest, **more))
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
        assert (pair.value(tokens) - reward(tokens)).abs().max() > 1e-3
        assert (policy(tokens) - kept(tokens)).abs().max() > 1e-3
    log = lines(tmp_path)
    assert log[1]["kl"] != log[0]["kl"] and log[0]["first_ratio_error"] < 1e-5
    if adapter.kind != "prefix":  # which changes something from the first
        assert log[0]["kl"] == 0
    assert "reward: an adapter on the policy's own weights, which are held once" in said
