"""What KTO must get right, on tiny models."""

from __future__ import annotations

import copy
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from tiny import context

from trivium.errors import TriviumError
from trivium.files import write_rows
from trivium.stages.models import load_language_model, prompt_ids, response_ids
from trivium.stages.preferences import kto, reference
from trivium.stages.preferences.kto import Kto
from trivium.stages.preferences.reference import response_log_probs
from trivium.training.batch import Tree, make_batch
from trivium.training.optimizers import Optimization
from trivium.training.precision import as_trained
from trivium.training.trainer import Trainer


def test_ktos_baseline_is_that_of_the_whole_batch(school, tmp_path, monkeypatch, any_precision):
    exact = any_precision == "float32"
    place, _ = context(school, tmp_path, feedback=school / "thumbs.jsonl")
    seen = []
    monkeypatch.setattr(
        reference, "run_training", lambda model, objective, batches, *rest, **more: seen.append(
            (model, objective, batches)) or SimpleNamespace(leader=False))
    Kto(length=64, rows=4, precision=any_precision).run(place)
    model, objective, batches = seen[0]
    first = Trainer(copy.deepcopy(model), Optimization(), 1, any_precision).step(0, batches(0), objective)
    assert first["baseline"] == 0  # the policy is its reference
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
        ratios = torch.cat([response_log_probs(model, make_batch([[tree]], 64)) - objective.reference([tree])
                            for tree in others])
    assert outcomes[0]["baseline"] == pytest.approx(float(ratios.mean()), abs=1e-5 if exact else 0.02)
    assert abs(ratios.mean()) > 1e-4


def test_ktos_prompts_are_shared_and_meet_the_responses_to_another_one():
    trees = [Tree(np.array([1, 2 + n // 3]), (np.arange(n + 1),), payload=(n % 2 == 0,)) for n in range(9)]
    made = kto.mismatched(kto.grouped_by_prompt(trees, 16), 16)
    assert [[len(response) for response in tree.responses] for tree in made] == [[1, 2, 3], [4, 5], [6], [7], [8], [9]]
    assert [tree.payload.liked for tree in made][:2] == [(True, False, True), (False, True)]
    home = {len(tree.responses[0]): tree.prompt[1] for tree in trees}
    for tree in made:
        other = tree.payload.mismatched
        assert np.array_equal(other.prompt, tree.prompt) and len(other) <= 16
        assert all(home[len(response)] != tree.prompt[1] for response in other.responses)


def test_sharing_a_prompt_changes_no_thumbs_log_prob(school):
    policy, tokenizer = load_language_model(school / "sft")
    prompt = prompt_ids(tokenizer, [{"role": "user", "content": "say 1"}])
    alone = [Tree(prompt, (response_ids(tokenizer, text),), payload=(True,))
             for text in ("yes", "no thanks", "hello hello")]
    with torch.no_grad():
        apart = torch.cat([response_log_probs(policy, make_batch([[tree]], 64)) for tree in alone])
        together = response_log_probs(policy, make_batch([kto.grouped_by_prompt(alone, 64)], 64))
    torch.testing.assert_close(apart, together, atol=1e-4, rtol=1e-5)


def test_thumbs_that_are_none_are_rejected(school, tmp_path):
    write_rows(tmp_path / "thumbs.jsonl",
               [{"prompt": [{"role": "user", "content": "a"}], "completion": "b", "label": "yes"}])
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
    assert [(row["completion"], row["label"]) for row in kto.thumbs(Kto(), place)] == [("c", True), ("d", False),
                                                                                       ("b", True), ("a", False)]
