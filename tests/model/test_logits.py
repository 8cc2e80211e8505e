"""What ``Model.logits`` takes, and what it says of anything else."""

from types import SimpleNamespace

import numpy as np
import pytest
import torch

from trivium.api import Model
from trivium.errors import TriviumError


@pytest.fixture
def model():
    found = Model.__new__(Model)
    found.model = SimpleNamespace(config=SimpleNamespace(vocab_size=11, max_positions=6))
    return found


@pytest.mark.parametrize("given", [[3, 4], (3, 4), np.array([3, 4], np.int32), torch.tensor([[3, 4], [10, 0]])])
def test_texts_of_one_length_are_taken(model, given):
    assert model._tokens(given).tolist() == torch.as_tensor(given).tolist()


@pytest.mark.parametrize(("given", "said"), [
    ("word", "not a text"), ([], "at least one token"), (4, "at least one token"), ([[[2]]], "at least one token"),
    ([[1, 2], [3]], "whole numbers"), ([0.5], "whole numbers"), ([True], "whole numbers"), (None, "whole numbers"),
    ([10**40], "whole numbers"), ([2, -3], "-3 is no token"), ([[1], [11]], "11 is no token"), ([1] * 7, "7 tokens"),
])
def test_anything_else_is_told(model, given, said):
    with pytest.raises(TriviumError, match=said):
        model._tokens(given)
