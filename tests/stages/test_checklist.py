"""Details that decide whether learning from feedback is right, where no other test holds them: heads, scores, defaults,
temperatures, sums and counts."""

from __future__ import annotations

import copy
import itertools
import json
from types import SimpleNamespace

import numpy as np
import pytest
import torch

import trivium
from trivium.errors import TriviumError
from trivium.feedback.agreement import disagreement
from trivium.feedback.exports import export
from trivium.feedback.simulate import reward_model, score_items
from trivium.feedback.store import Store
from trivium.files import write_rows
from trivium.model import LanguageModel, ModelConfig, RewardModel
from trivium.objectives.policy import kl_penalties
from trivium.objectives.preference import PREFERENCE_LOSSES
from trivium.objectives.ranking import TIED_LOSSES
from trivium.progress import Progress
from trivium.stage import Context
from trivium.stages import defaults
from trivium.stages.finetuning.sft import AnswersAndQuestions, mark_answers
from trivium.stages.models import load_reward_model, prompt_ids, response_ids, save_model
from trivium.stages.preferences import dpo, rankings, reference, reward
from trivium.stages.preferences.dpo import Dpo
from trivium.stages.preferences.rankings import Rated, TiedPart
from trivium.stages.preferences.reward import Reward
from trivium.stages.reinforcement import ppo, rollout, training
from trivium.stages.reinforcement.grpo import GroupSurrogate, Grpo
from trivium.stages.reinforcement.ppo import Ppo
from trivium.stages.rewards import Answers
from trivium.tokenizer import train as tokenizer_training
from trivium.tokenizer.chat import ChatTokenizer
from trivium.training.batch import Tree, make_batch
from trivium.training.optimizers import Optimization
from trivium.training.precision import masters
from trivium.training.trainer import Trainer

LOSSES = [name for name, loss in PREFERENCE_LOSSES.items() if loss.file is None]
ASK = [{"role": "user", "content": "what is two and two?"}]


@pytest.fixture(scope="module")
def school(tmp_path_factory):
    folder = tmp_path_factory.mktemp("school")
    tokenizer = ChatTokenizer(
        tokenizer_training.train(["what is two and two? it is four.", "please say hello."] * 9, 290))
    config = ModelConfig(vocab_size=tokenizer.vocab_size, hidden_size=32, intermediate_size=48, num_layers=2,
                         num_heads=2, num_kv_heads=1, head_dim=16, max_positions=128)
    policy = LanguageModel(config).initialise(0)
    judge = RewardModel.from_language_model(LanguageModel(config).initialise(1), 1)
    for name, model in (("sft", policy), ("reward", judge)):
        (folder / name).mkdir()
        save_model(model, tokenizer, folder / name)
    write_rows(folder / "prompts.jsonl",
               [{"id": n, "prompt": [{"role": "user", "content": f"say {n}"}]} for n in range(16)])
    (folder / "ranked").mkdir()
    write_rows(folder / "ranked/comparisons.jsonl", [{
        "prompt": [{"role": "user", "content": f"say {n}"}], "responses": ["yes", "no no", "it is"],
        "ranking": [[n % 3], [(n + 1) % 3, (n + 2) % 3]], "split": "heldout" if n % 4 == 0 else "train"
    } for n in range(12)])
    return SimpleNamespace(folder=folder, tokenizer=tokenizer, policy=policy, reward=judge)


def context(school, folder, **inputs):
    folder.mkdir(parents=True, exist_ok=True)
    places = {
        "model": school.folder / "sft", "reward": school.folder / "reward", "prompts": school.folder / "prompts.jsonl"
    } | inputs
    return Context("r", "practice", 0, places, folder, folder / "scratch", Progress(quiet=True), 1)


def random_tree(rng, *lengths):
    return Tree(rng.integers(6, 200, 4), tuple(rng.integers(6, 200, n) for n in lengths))


def test_the_head_is_one_small_number_on_the_policys_trunk():
    config = ModelConfig(vocab_size=50, hidden_size=1023, intermediate_size=8, num_layers=1, num_heads=1,
                         num_kv_heads=1, head_dim=8)
    source = LanguageModel(config)
    made = RewardModel.from_language_model(source, 3)
    assert made.score.bias is None and made.score.weight.shape == (1, 1023)
    assert float(made.score.weight.detach().std()) == pytest.approx((1023 + 1) ** -0.5, rel=0.1)
    assert all(torch.equal(a, b) for a, b in zip(made.model.parameters(), source.model.parameters(), strict=True))


@pytest.mark.parametrize(
    "device",
    ["cpu", pytest.param("cuda", marks=pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU"))])
def test_a_score_is_read_at_the_last_real_token(school, device):
    """... and is what the prompt with this response alone gets, though its prompt was computed once for all of them."""
    rng, model = np.random.default_rng(0), copy.deepcopy(school.reward).to(device)
    trees = [random_tree(rng, 3, 7), random_tree(rng, 5), random_tree(rng, *range(2, 11))]
    with torch.no_grad():
        alone = [
            float(model(torch.tensor([[*tree.prompt, *response]], device=device))[0, -1]) for tree in trees
            for response in tree.responses
        ]
        padded = reward.score_ends(model, make_batch([trees], 100, 3).to(torch.device(device)))
    np.testing.assert_allclose(padded.cpu().numpy(), alone, atol=1e-5)


def test_demonstrations_average_zero_and_the_shift_is_in_the_config(school, tmp_path, any_precision):
    rows = [{"messages": [*ASK, {"role": "assistant", "content": text}]}
            for text in ("it is four.", "four", "hello hello")]
    write_rows(tmp_path / "demonstrations.jsonl", rows)
    place = context(school, tmp_path / "out", preferences=school.folder / "ranked",
                    demonstrations=tmp_path / "demonstrations.jsonl")
    summary = Reward(demonstrations="d", length=64, rows=2, precision=any_precision, epochs=2).run(place)
    assert summary["precision"] == any_precision and np.isfinite(summary["accuracy"]["value"])
    made, tokenizer = load_reward_model(tmp_path / "out")
    trees = [
        Tree(prompt_ids(tokenizer, ASK), (response_ids(tokenizer, row["messages"][-1]["content"]),)) for row in rows
    ]
    assert np.mean(np.concatenate(reward.score_trees(made, trees, 64, 2, any_precision))) + made.shift == pytest.approx(
        0, abs=1e-5)
    assert np.mean(np.concatenate(reward.score_trees(made, trees, 64, 2, "float32"))) + made.shift == pytest.approx(
        0, abs=0.02)
    assert json.loads((tmp_path / "out/config.json").read_text())["trivium_score_shift"] == made.shift != 0


def test_members_of_an_ensemble_differ_and_say_what_to_ask_next(school, tmp_path):
    """Reward models from the same rankings, with heads and orders of their own, score a project's items; what they
    disagree on is asked first. One of them then annotates like anybody else."""
    for name, member in (("a", 1), ("b", 2), ("again", 1)):
        Reward(member=member, length=64, rows=2,
               precision="float32").run(context(school, tmp_path / name, preferences=school.folder / "ranked"))
    first, second, again = (load_reward_model(tmp_path / name)[0] for name in ("a", "b", "again"))
    assert torch.equal(first.score.weight,
                       again.score.weight) and not torch.allclose(first.score.weight, second.score.weight, atol=1e-3)
    given = [{"id": str(n), "prompt": f"say {n}", "responses": ["yes", "no no", "it is " * n]} for n in range(1, 9)]
    with Store(tmp_path / "project", create=True) as store:
        store.change_settings(uncertain_share=1.0, heldout=0.0, overlap=1, repeat_share=0)
        store.add_items(given)
        models = [trivium.load(tmp_path / name) for name in ("a", "b")]
        with pytest.raises(TriviumError, match="one reward model cannot disagree with itself"):
            score_items(store, [models[0].score])
        assert score_items(store, [model.score for model in models]) == len(given)
        scores = {
            row["id"]: [[
                model.score([{"role": "user", "content": row["prompt"]}, {"role": "assistant", "content": text}])
                for text in row["responses"]
            ] for model in models]
            for row in given
        }
        most = max(scores, key=lambda name: disagreement(scores[name]))
        assert reward_model(store, models[0].score, "judge", most=1) == 1
        (row,) = export(store, "rankings")
        assert row["id"] == most and row["chosen"] == "uncertain" and row["annotator"] == "judge"
        assert row["ranking"] == [[place] for place in np.argsort(-np.array(scores[most][0]))]


def test_defaults_are_those_of_the_papers():
    assert Reward().epochs == 1 and defaults.BETAS["dpo"][1:] == defaults.BETAS["kto"][1:] == (0.1,) * 3
    made = Ppo()
    assert (made.gamma, made.lam, made.clip, made.value_coefficient, made.epochs,
            made.unfinished_score) == (1.0, 0.95, 0.2, 0.1, 4, -1.0)
    assert 0.02 <= made.kl_coefficient <= 0.15 and made.optimization.epsilon == 1e-5 and Grpo(
    ).optimization.epsilon == 1e-5


def test_nothing_is_dropped_out(school):
    assert not [
        module for model in (school.policy, school.reward)
        for module in model.modules() if "Dropout" in type(module).__name__
    ]
    school.policy.train()
    tokens = torch.arange(6, 20)[None]
    assert torch.equal(school.policy(tokens), school.policy(tokens))


def test_one_temperature_is_used_everywhere(school, tmp_path):
    """The engine's log-probabilities, the old policy's, the reference's and the new policy's are those at the sampling
    temperature."""
    Ppo(iterations=2, episodes=8, max_new_tokens=6, rows=4, length=64, precision="float32",
        temperature=0.6).run(context(school, tmp_path))
    first, second = (json.loads(line) for line in (tmp_path / "log.jsonl").read_text().splitlines())
    assert max(first["log_prob_disagreement"], second["log_prob_disagreement"]) < 1e-4
    assert first["kl"] == 0 and first["first_ratio_error"] < 1e-6 and second["first_ratio_error"] < 1e-6


def test_nothing_is_cut_off_the_distribution(school, tmp_path):
    place = context(school, tmp_path)
    rollouts = rollout.Rollouts(Ppo(episodes=4, max_new_tokens=4, rows=4, length=64, temperature=0.6), place,
                                school.policy, school.tokenizer, 1)
    seen = []
    rollouts.engine = lambda model, prompts, sampling, *rest: seen.append(sampling) or [[] for _ in prompts]
    rollouts.answer(rollouts.prompts_of(0), 1, "rollout", 0)
    assert (seen[0].temperature, seen[0].top_k, seen[0].top_p, seen[0].min_p,
            seen[0].repetition_penalty) == (0.6, 0, 1.0, 0.0, 1.0)


def test_the_penalty_is_k1_and_the_token_kl_that_is_logged_k3():
    rng = np.random.default_rng(0)
    new, old = [rng.normal(size=3), rng.normal(size=5)], [rng.normal(size=3), rng.normal(size=5)]
    trees = [Tree(np.array([1]), (np.arange(len(n)),)) for n in new]
    answers = Answers([{"id": 1}, {"id": 2}], trees, [["a"], ["b"]], [[True], [True]],
                      [[n.astype(np.float32)] for n in new])
    found = {name: total / count for name, (total, count) in rollout.drift_metrics(answers, new, old).items()}
    ratios = np.concatenate(new) - np.concatenate(old)
    assert found["kl"] == pytest.approx(ratios.sum() / 2)
    penalties = kl_penalties(torch.tensor(np.concatenate(new)), torch.tensor(np.concatenate(old)))
    assert found["kl_per_token"] == pytest.approx(penalties.mean().item())


def test_every_pass_sees_each_episode_once_in_an_order_of_its_own(school, tmp_path, monkeypatch):
    seen, real = [], training.microbatches
    monkeypatch.setattr(training, "microbatches",
                        lambda made, chosen, *rest: seen.append(list(chosen)) or real(made, chosen, *rest))
    Ppo(iterations=1, episodes=8, max_new_tokens=4, rows=4, length=64,
        precision="float32").run(context(school, tmp_path))
    passes = [seen[2 * i] + seen[2 * i + 1] for i in range(4)]
    assert len(seen) == 8 and all(sorted(one) == list(range(8)) for one in passes)
    assert len({tuple(one) for one in passes}) == 4


def test_the_value_model_begins_as_the_reward_model(school, tmp_path, monkeypatch):
    seen = []

    real = ppo.PolicyTraining
    monkeypatch.setattr(
        ppo, "PolicyTraining",
        lambda rollouts, pair, *rest, **more: seen.append(copy.deepcopy(pair)) or real(rollouts, pair, *rest, **more))
    Ppo(iterations=1, episodes=8, max_new_tokens=4, length=64, precision="float32").run(context(school, tmp_path))
    assert all(torch.equal(a, b) for a, b in zip(seen[0].value.parameters(), school.reward.parameters(), strict=True))
    assert not {id(p) for p in seen[0].value.parameters()} & {id(p) for p in seen[0].policy.parameters()}


@pytest.mark.parametrize("kind", ["ppo", "grpo", *LOSSES, "ranking", *TIED_LOSSES, "regression", "questions"])
def test_microbatches_of_any_size_are_one_batch(school, kind, any_precision):
    """Sums over all tokens, or prompts, are divided once: never a mean of means."""
    if any_precision == "bf16-weights" and kind in ("ppo", "grpo"):
        pytest.skip("refused")
    rng = np.random.default_rng(0)
    trees = [random_tree(rng, *lengths) for lengths in ((3, 9), (2, 2, 6), (14, 1), (5, 4))]

    def payload(tree):
        places = [[k] for k in range(len(tree.responses))]
        if kind == "regression":
            return Rated(places, [6, 2, 3][:len(places)])
        if kind in TIED_LOSSES:
            pairs = tuple(itertools.combinations(range(len(places)), 2))
            return TiedPart(pairs, len(pairs), (1.0,) * len(places), (), pairs[1:])
        return np.arange(sum(map(len, tree.responses))) % 3 > 0 if kind == "questions" else places

    trees = [Tree(tree.prompt, tree.responses, payload=payload(tree)) for tree in trees]
    extra = {id(tree): {name: rng.normal(size=sum(map(len, tree.responses))) * 0.1
                        for name in ("log_probs", "reference", "advantages", "values", "returns")} for tree in trees}
    gradients = []
    for parts in ([trees], [trees[:1], trees[1:]], [trees[2:3], trees[:2], trees[3:]]):
        batches = [make_batch([[tree] for tree in part], 40) for part in parts]
        for batch in batches:
            if kind in ("ppo", "grpo"):
                batch.extra = {
                    name: torch.from_numpy(
                        np.concatenate([extra[id(tree)][name] for tree in batch.trees]).astype(np.float32))
                    for name in extra[id(trees[0])]
                }
            else:
                {"regression": rankings.add_ratings, "questions": mark_answers}.get(kind, rankings.add_pairs)(batch)
                batch.extra |= {"reference": torch.zeros(len(batch.ends)),
                                "reference_tokens": torch.zeros(len(batch.targets))}
                batch.counts["read"] = float(len(batch.ends))
        policy = LanguageModel(school.policy.config).initialise(0)
        judge = RewardModel.from_language_model(policy, 0)
        model, objective = {
            "ppo": (ppo.PolicyAndValue(policy, judge), ppo.ClippedSurrogate(Ppo())),
            "grpo": (policy, GroupSurrogate(Grpo())),
            **{loss: (policy, dpo.DirectPreference(Dpo(loss=loss))) for loss in LOSSES},
            "ranking": (judge, reward.Ranking()),
            **{loss: (judge, reward.find_objective(loss)) for loss in TIED_LOSSES},
            "regression": (judge, reward.Regression()), "questions": (policy, AnswersAndQuestions(0.25))
        }[kind]
        trainer = Trainer(model, Optimization(clip=0.0), 1, any_precision)
        kept, learner = [], model.policy if kind == "ppo" else model
        trainer.optimizers = [
            SimpleNamespace(
                param_groups=[],
                step=lambda learner=learner, kept=kept: kept.extend(p.grad.clone() for _, p in masters(learner)))
        ]
        trainer.step(0, batches if kind != "ppo" else ppo.split_by_model(batches), objective)
        gradients.append(kept)
    assert gradients[0] and any(gradient.any() for gradient in gradients[0])
    for other in gradients[1:]:
        for a, b in zip(gradients[0], other, strict=True):
            if any_precision == "float32":
                torch.testing.assert_close(a, b, atol=1e-5 * float(a.abs().max() + 1), rtol=1e-3)
            else:
                assert a.dtype == torch.float32 and (a - b).norm() < 0.03 * a.norm() + 1e-6


@pytest.mark.parametrize("mean", [False, True])
def test_a_responses_log_prob_is_the_sum_over_its_own_tokens(school, mean):
    rng = np.random.default_rng(1)
    tree = random_tree(rng, 3, 6)
    with torch.no_grad():
        found = reference.response_log_probs(school.policy, make_batch([[tree]], 24), mean)
        for response, value in zip(tree.responses, found, strict=True):
            logits = school.policy(torch.tensor([[*tree.prompt, *response]]))[0].log_softmax(-1)
            alone = logits[len(tree.prompt) - 1:-1][range(len(response)), response]
            torch.testing.assert_close(value, alone.mean() if mean else alone.sum(), atol=1e-4, rtol=1e-4)


def test_the_reference_is_computed_once_and_the_first_margins_are_zero(school, tmp_path, monkeypatch, any_precision):
    computed, real = [], reference.map_trees
    monkeypatch.setattr(
        reference, "map_trees",
        lambda compute, trees, *rest, **more: computed.append(len(trees)) or real(compute, trees, *rest, **more))
    summary = Dpo(length=64, rows=2, epochs=3,
                  precision=any_precision).run(context(school, tmp_path, preferences=school.folder / "ranked"))
    # the training rankings once for three passes; those held out before and after
    assert summary["precision"] == any_precision and computed == [9, 3, 3]
    log = [json.loads(line) for line in (tmp_path / "log.jsonl").read_text().splitlines()]
    assert log[0]["margin"] == 0 and log[-1]["margin"] != 0 and log[0]["loss"] == pytest.approx(np.log(2), abs=1e-5)


@pytest.mark.parametrize("text", ["four", " four", "\nfour", "?it is", "two two"])
def test_prompt_and_response_meet_between_tokens(school, text):
    whole, learned = school.tokenizer.encode_chat([*ASK, {"role": "assistant", "content": text}])
    apart = [*prompt_ids(school.tokenizer, ASK), *response_ids(school.tokenizer, text)]
    assert list(whole) == apart and sum(learned) == len(response_ids(school.tokenizer, text))
