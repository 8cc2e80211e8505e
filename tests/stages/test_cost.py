"""What is timed for a prediction."""

from __future__ import annotations

import numpy as np
import torch

from trivium.model import LanguageModel, ModelConfig
from trivium.stages.cost import Estimate
from trivium.training.batch import Tree
from trivium.training.epochs import PackedEpochs
from trivium.training.next_token import LanguageModeling
from trivium.training.settings import Optimization


class Noting(LanguageModeling):
    """Notes whether its products are in bf16."""

    def __init__(self):
        self.seen = []

    def __call__(self, model, batch):
        self.seen.append(torch.is_autocast_enabled("cpu"))
        return super().__call__(model, batch)


def test_updates_are_timed_in_the_stages_number_format_and_once_in_each():
    config = ModelConfig(vocab_size=32, hidden_size=16, intermediate_size=16, num_layers=1, num_heads=1, num_kv_heads=1)
    trees = [Tree(np.zeros(1, np.int64), (np.arange(1, 9),))] * 8
    estimate = Estimate({}, device=torch.device("cpu"))

    def measured(precision):
        noting = Noting()
        estimate.updates("key", lambda: LanguageModel(config).initialise(0), noting, PackedEpochs(trees, 16, 2, 0),
                         Optimization(), precision)
        return set(noting.seen)

    assert measured("float32") == {False} and measured("bf16") == {True}
    assert measured("float32") == measured("bf16") == set()  # they are known by now
