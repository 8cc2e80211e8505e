"""Next-token prediction over packed rows: the objective of pretraining and fine-tuning."""

from __future__ import annotations

from typing import Any

from trivium.objectives.language_modeling import token_log_probs
from trivium.training.batch import Batch, hidden_states
from trivium.training.noise import noisy
from trivium.training.objective import Objective, Total


class LanguageModeling(Objective):
    """The mean negative log-likelihood of the target tokens, in nats."""

    weights = {"loss": 1.0}
    noise: float = 0.0
    """On the embeddings: see :mod:`trivium.training.noise`."""

    def __init__(self, noise: float = 0.0) -> None:
        self.noise = noise

    def __call__(self, model: Any, batch: Batch) -> dict[str, Total]:
        """Only the hidden states that predict a target reach the output matrix."""
        with noisy(model.model, batch, self.noise):
            hidden = hidden_states(model.model, batch)
        log_probs = token_log_probs(hidden[batch.sources], model.lm_head.weight, batch.targets)
        return {"loss": Total(-log_probs.sum(), "tokens")}
