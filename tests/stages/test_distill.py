"""Distillation as a stage: what is learned, whose words are learned from, kills, and what does not fit."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch
from tiny import context, lines

from trivium.errors import TriviumError
from trivium.generation.engine import Sampling, generate
from trivium.model import LanguageModel, ModelConfig
from trivium.objectives.language_modeling import token_log_probs
from trivium.stages.finetuning.distill import Distill, Distillation, OnPolicyEpochs, answered
from trivium.stages.models import load_language_model, load_tokenizer, save_model
from trivium.tokenizer import train as tokenizer_training
from trivium.tokenizer.chat import ChatTokenizer
from trivium.training.batch import Tree, hidden_states, make_batch
from trivium.training.epochs import PackedEpochs
from trivium.training.settings import Optimization, Parallel
from trivium.training.trainer import Trainer

FAST = {"length": 64, "rows": 4, "epochs": 4.0, "optimization": Optimization(learning_rate=0.02, schedule="constant")}


@pytest.fixture(scope="module")
def class_(school, tmp_path_factory):
    """A student of half the width that knows nothing, and questions whose answers are another person's."""
    folder = tmp_path_factory.mktemp("class")
    tokenizer = load_tokenizer(school / "sft", 300)
    (folder / "student").mkdir()
    save_model(student_of(tokenizer.vocab_size), tokenizer, folder / "student")
    rows = [{"messages": [{"role": "user", "content": f"say {n} please"}, {"role": "assistant", "content": "hello"}]}
            for n in range(24)]
    (folder / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return folder


def student_of(vocab, seed=3):
    return LanguageModel(ModelConfig(vocab_size=vocab, hidden_size=16, intermediate_size=24, num_layers=1, num_heads=2,
                                     num_kv_heads=1, head_dim=8, max_positions=256)).initialise(seed)


def place_of(school, class_, folder):
    return context(school, folder, model=class_ / "student", teacher=school / "sft",
                   demonstrations=class_ / "rows.jsonl")


@pytest.mark.parametrize("divergence", ["forward_kl", "reverse_kl", "jensen_shannon"])
def test_a_student_comes_to_say_what_its_teacher_says(school, class_, tmp_path, divergence, any_precision):
    place, said = place_of(school, class_, tmp_path)
    Distill(**FAST, teacher="t", divergence=divergence, precision=any_precision).run(place)
    seen = [row["divergence"] for row in lines(tmp_path) if "divergence" in row]
    assert seen[-1] < 0.4 * seen[0]
    assert any("teacher: " in line for line in said)


def test_the_loss_is_that_of_a_loop_over_tokens(school):
    teacher, _ = load_language_model(school / "sft")
    student = student_of(teacher.config.vocab_size)
    rng = np.random.default_rng(0)
    trees = [Tree(rng.integers(4, 250, 5), (rng.integers(4, 250, size),)) for size in (3, 6, 2)]
    batch = make_batch([trees[:2], trees[2:]], 32)
    found = Distillation(teacher, "float32", "forward_kl", 0.5, 1.0, 0.3)(student, batch)
    divergence, loss = 0.0, 0.0
    for tree in trees:
        ids = torch.from_numpy(np.concatenate([tree.prompt, *tree.responses]))[None]
        with torch.no_grad():
            q, p = (torch.log_softmax(model(ids)[0].double(), -1) for model in (student, teacher))
        for place in range(4, ids.shape[1] - 1):
            divergence += float((p[place].exp() * (p[place] - q[place])).sum())
            loss -= float(q[place, ids[0, place + 1]])
    assert float(found["divergence"].value) == pytest.approx(divergence, rel=1e-4)
    assert float(found["loss"].value) == pytest.approx(loss, rel=1e-4)
    assert Distillation(teacher, "float32", "forward_kl", 0.5, 1.0, 0.3).weights == {"divergence": 0.3, "loss": 0.7}


def test_a_teacher_of_more_rows_than_tokens_counts_for_its_tokens(school):
    teacher, _ = load_language_model(school / "sft")
    student = student_of(teacher.config.vocab_size)
    wide = LanguageModel(ModelConfig(**{**teacher.config.__dict__, "vocab_size": teacher.config.vocab_size + 20}))
    wide.load_state_dict({name: (torch.cat([value, torch.full((20, value.shape[1]), 9.0)])
                                 if value.shape[0] == teacher.config.vocab_size else value)
                          for name, value in teacher.state_dict().items()})
    batch = make_batch([[Tree(np.arange(4, 9), (np.arange(9, 15),))]], 16)
    one, other = (float(Distillation(model, "float32", "reverse_kl", 0.5, 1.0, 1.0)(student, batch)["divergence"].value)
                  for model in (teacher, wide))
    assert one == pytest.approx(other, rel=1e-5)


def epochs_of(teacher, share, seed=0):
    trees = [Tree(np.arange(4 + n, 9 + n), (np.arange(20, 24 + n % 5),)) for n in range(18)]
    data = PackedEpochs(trees, 32, 4, seed)
    return data, OnPolicyEpochs(data, teacher, 1, share, 8, "float32")


def test_its_own_words_are_drawn_by_the_student_as_it_is(school):
    student, _ = load_language_model(school / "sft")
    data, epochs = epochs_of(student, 1.0)
    batch, = epochs(3)
    asked = {tuple(tree.prompt.tolist()) for row in data(3) for tree in row.trees}
    assert {tuple(tree.prompt.tolist()) for tree in batch.trees} == asked and batch.counts["own"] == len(asked)
    again, = epochs(3)
    assert torch.equal(batch.tokens, again.tokens)
    alone = answered(student, [batch.trees[0]], 1, 8, 5, "float32", epochs.engines)[0].responses[0].tolist()
    (said, ), = generate(student, [batch.trees[0].prompt.tolist()], Sampling(max_new_tokens=8, seed=5), [1])
    assert alone == said.tokens
    with torch.no_grad():
        for parameter in student.parameters():
            parameter.mul_(0.5)
    other, = epochs(3)
    assert not torch.equal(batch.tokens, other.tokens), "the answers are those of the weights of now"
    found = Distillation(student, "float32", "reverse_kl", 0.5, 1.0, 0.5)(student, batch)
    assert set(found) == {"divergence"} and float(found["divergence"].value) == pytest.approx(0, abs=1e-4)


def test_a_share_of_the_updates_is_on_policy_and_pieces_are_the_whole(school):
    student, _ = load_language_model(school / "sft")
    _, epochs = epochs_of(student, 0.4)
    own = ["own" in epochs(step)[0].counts for step in range(40)]
    assert 8 <= sum(own) <= 24 and own == ["own" in epochs(step)[0].counts for step in range(40)]
    step = own.index(True)
    whole, pieces = epochs(step), epochs(step, rows=1)
    assert sum(len(batch.trees) for batch in pieces) == len(whole[0].trees) and len(pieces) > 1
    hidden = hidden_states(student.model, whole[0])[whole[0].sources]
    total = token_log_probs(hidden, student.lm_head.weight, whole[0].targets).sum()
    parts = sum(token_log_probs(hidden_states(student.model, batch)[batch.sources], student.lm_head.weight,
                                batch.targets).sum() for batch in pieces)
    torch.testing.assert_close(total, parts, rtol=1e-4, atol=1e-3)


@pytest.mark.parametrize("precision", ["float32", pytest.param("bf16", marks=pytest.mark.bf16)])
def test_a_killed_run_ends_with_the_same_weights(school, class_, tmp_path, monkeypatch, precision):
    monkeypatch.setenv("TRIVIUM_SAVE_EVERY_STEP", "1")
    settings = Distill(**FAST, teacher="t", on_policy=0.6, max_new_tokens=8, precision=precision,
                       parallel=Parallel(rows=2))
    settings.run(place_of(school, class_, tmp_path / "whole")[0])
    place, _ = place_of(school, class_, tmp_path / "stopped")
    real, calls = Trainer.step, []

    def stops(*given, **more):
        calls.append(1)
        if len(calls) == 6:
            raise KeyboardInterrupt
        return real(*given, **more)

    with monkeypatch.context() as patched, pytest.raises(KeyboardInterrupt):
        patched.setattr(Trainer, "step", stops)
        settings.run(place)
    settings.run(place)
    assert (tmp_path / "stopped/model.safetensors").read_bytes() == (tmp_path / "whole/model.safetensors").read_bytes()


@pytest.mark.parametrize(("more", "message"), [
    ({"prompt_loss": 0.2}, "prompt_loss and embedding_noise belong to `sft`"),
    ({"on_policy": 0.5, "max_new_tokens": 400}, "takes .*, more than the model's 256 positions; lower max_new_tokens"),
    ({"on_policy": 0.5, "precision": "bf16-weights"}, "choose bf16 or float32"),
])
def test_settings_that_do_not_fit(school, class_, tmp_path, more, message):
    with pytest.raises(TriviumError, match=message):
        Distill(**FAST | more, teacher="t").run(place_of(school, class_, tmp_path)[0])


def test_a_teacher_of_another_vocabulary_is_refused(school, class_, tmp_path):
    tokenizer = ChatTokenizer(tokenizer_training.train(["entirely other words, and more of them"] * 9, 300))
    (tmp_path / "teacher").mkdir()
    save_model(student_of(tokenizer.vocab_size), tokenizer, tmp_path / "teacher")
    place, _ = context(school, tmp_path / "run", model=class_ / "student", teacher=tmp_path / "teacher",
                       demonstrations=class_ / "rows.jsonl")
    with pytest.raises(TriviumError, match="has another vocabulary than .*student.*Let it write answers"):
        Distill(**FAST, teacher="t").run(place)
