"""How many tokens go through a model at a time."""

import pytest

from trivium.model import ModelConfig
from trivium.training.at_once import SHARE, activations, tokens_at_once


def shape(width: int, inner: int, layers: int) -> ModelConfig:
    return ModelConfig(vocab_size=32000, hidden_size=width, intermediate_size=inner, num_layers=layers,
                       num_heads=width // 64, num_kv_heads=2, head_dim=64, max_positions=4096)


HALF, LARGE = shape(896, 4864, 24), shape(1536, 8960, 28)


@pytest.mark.parametrize(("config", "gigabytes", "expected"), [
    (HALF, 0, 4096), (HALF, 24, 4096), (HALF, 40, 8192), (HALF, 80, 16384), (HALF, 141, 16384), (LARGE, 24, 4096),
    (LARGE, 80, 8192), (LARGE, 141, 16384), (None, 141, 4096)
])
def test_a_gpu_takes_as_many_tokens_at_once_as_a_third_of_its_memory_holds(config, gigabytes, expected):
    assert tokens_at_once(config, memory=gigabytes * 1e9) == expected
    if expected > 4096:
        assert activations(config, expected, checkpointed=False) <= SHARE * gigabytes * 1e9


def test_checkpointed_activations_let_more_through():
    assert tokens_at_once(LARGE, checkpointed=True, memory=24e9) > tokens_at_once(LARGE, memory=24e9)


@pytest.mark.parametrize(("config", "measured"), [(HALF, 30.2e9 - 12.9e9), (LARGE, 70.8e9 - 36.5e9)])
def test_the_formula_is_near_what_was_measured_on_a_gpu(config, measured):
    # an H200, PyTorch 2.11: the peaks of updates in microbatches of 16,384 and of 4,096 tokens, autocast
    assert activations(config, 16384 - 4096, checkpointed=False) == pytest.approx(measured, rel=0.12)
