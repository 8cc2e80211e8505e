"""Log-probabilities of long texts against transformers."""

from __future__ import annotations

import pytest
from transformers import AutoModelForCausalLM

from trivium.evaluation import likelihood
from trivium.evaluation.model import EvaluatedModel


def test_a_text_longer_than_the_model_is_predicted_once_each(models, oracle_log_prob):
    model = EvaluatedModel.load(models["base"])
    longest = model.longest_prompt(0)
    tokens = list(range(10, 110)) * 4
    found = likelihood.windows(tokens, 5, longest)
    assert [token for _, predicted in found for token in predicted] == tokens
    assert all(len(context) + len(predicted) <= longest + 1 for context, predicted in found)
    oracle = AutoModelForCausalLM.from_pretrained(models["base"]).eval()
    expected = sum(oracle_log_prob(oracle, context, predicted) for context, predicted in found)
    assert likelihood.text_log_probs(model.language_model, [tokens, []], 5) == pytest.approx([expected, 0.0], rel=1e-5)
