"""Noise on embeddings: its size by the paper, its seeds, and where there is none."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from torch import nn
from transformers.integrations.neftune import neftune_post_forward_hook

from trivium.errors import TriviumError
from trivium.model import LanguageModel, ModelConfig
from trivium.objectives.language_modeling import token_log_probs
from trivium.training.batch import Tree
from trivium.training.epochs import PackedEpochs
from trivium.training.next_token import LanguageModeling
from trivium.training.noise import NoisyEpochs, noise_of, noisy
from trivium.training.optimizers import Optimization
from trivium.training.trainer import Trainer

CONFIG = ModelConfig(vocab_size=50, hidden_size=32, intermediate_size=48, num_layers=2, num_heads=4, num_kv_heads=2,
                     head_dim=8, max_positions=64)


def trees(count=9, seed=0):
    rng = np.random.default_rng(seed)
    return [Tree(rng.integers(0, 50, rng.integers(1, 9)), (rng.integers(0, 50, rng.integers(1, 12)),))
            for _ in range(count)]


def test_it_is_as_large_as_the_papers_and_as_transformers_makes_it():
    (batch, ) = NoisyEpochs([Tree(np.arange(40) % 50, (np.arange(24) % 50,))], 64, 1, 0)(0)
    noise, most = noise_of(batch, 32, 5.0), 5 / math.sqrt(64 * 32)
    assert noise.shape == (64, 32) and float(noise.abs().max()) <= most
    assert float(noise.std()) == pytest.approx(most / math.sqrt(3), rel=0.05) and abs(float(noise.mean())) < most / 20
    embedding = nn.Embedding(50, 32)
    embedding.neftune_noise_alpha = 5.0
    theirs = neftune_post_forward_hook(embedding, (), torch.zeros(1, 64, 32))[0]
    assert float(theirs.std()) == pytest.approx(float(noise.std()), rel=0.05)


def test_each_text_has_the_noise_of_its_own_length_and_padding_none():
    for batch in NoisyEpochs(trees(), 32, 2, 1)(0):
        noise, begin = noise_of(batch, 32, 7.0), 0
        places = (batch.documents.flatten() >= 0).nonzero()[:, 0]
        for tree in batch.trees:
            mine = noise[places[begin:begin + len(tree)]]
            assert 0.9 < float(mine.abs().max()) / (7 / math.sqrt(len(tree) * 32)) <= 1
            begin += len(tree)
        padding = torch.ones(len(noise), dtype=torch.bool)
        padding[places] = False
        assert not noise[padding].any()


def by_hand(model, tree, noise):
    """The loss of a text alone whose embeddings got the noise."""
    ids = torch.from_numpy(np.concatenate([tree.prompt, *tree.responses]))
    hidden = model.model((model.model.embed_tokens(ids) + noise)[None])[0]
    first = len(tree.prompt)
    return -token_log_probs(hidden[first - 1:-1], model.lm_head.weight, ids[first:]).sum()


def test_the_loss_is_that_of_noisy_texts_alone():
    model, losses = LanguageModel(CONFIG).initialise(0), []
    (batch, ) = NoisyEpochs(trees(), 32, 6, 1)(0)
    noise = noise_of(batch, 32, 9.0)[(batch.documents.flatten() >= 0)]
    for tree, mine in zip(batch.trees, noise.split([len(tree) for tree in batch.trees]), strict=True):
        losses.append(by_hand(model, tree, mine))
    found = LanguageModeling(9.0)(model, batch)["loss"].value
    plain = LanguageModeling()(model, batch)["loss"].value
    torch.testing.assert_close(found, torch.stack(losses).sum(), rtol=1e-5, atol=1e-4)
    assert abs(float(found - plain)) > 1e-3 and not model.model.embed_tokens._forward_hooks
    (still, ) = PackedEpochs(trees(), 32, 6, 1)(0)
    assert torch.equal(LanguageModeling(9.0)(model, still)["loss"].value, plain)


def test_it_is_a_pure_function_of_the_step():
    epochs, again = (NoisyEpochs(trees(), 32, 2, 1) for _ in range(2))
    seeds = [[batch.extra["noise_seeds"].tolist() for batch in epochs(step)] for step in range(8)]
    assert seeds == [[batch.extra["noise_seeds"].tolist() for batch in again(step)] for step in range(8)]
    every = [seed for step in seeds for batch in step for seed in batch]
    assert len(set(every)) == len(every), "each epoch has noise of its own"


def test_microbatches_and_halves_learn_the_same(any_precision):
    losses = []
    for rows in (4, 1):
        model = LanguageModel(CONFIG).initialise(0)
        epochs = NoisyEpochs(trees(30), 32, 4, 1)
        trainer = Trainer(model, Optimization(learning_rate=0.01), 5, any_precision)
        losses.append([trainer.step(step, epochs(step, rows=rows), LanguageModeling(5.0))["loss"] for step in range(5)])
    assert losses[0] == pytest.approx(losses[1], rel=1e-4 if any_precision == "float32" else 2e-2)
    assert losses[0][-1] < losses[0][0]


def test_texts_in_rows_of_their_own_are_refused():
    (batch, ) = NoisyEpochs(trees(2), 32, 1, 1)(0)
    trunk = nn.Module()
    trunk.embed_tokens = nn.Embedding(50, 32)
    with noisy(trunk, batch, 5.0), pytest.raises(TriviumError, match="in a row of its own"):
        trunk.embed_tokens(torch.zeros(5, 3, dtype=torch.int64))
