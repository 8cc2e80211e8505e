"""What a reward model says of responses: a score each, read at the last token."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch

from trivium.model import RewardModel
from trivium.training.batch import Batch, Tree, hidden_states, map_trees
from trivium.training.machine import autocast


def score_ends(model: Any, batch: Batch) -> torch.Tensor:
    """The score of each response of a batch, read at its last token, ``[S]`` in float32."""
    hidden = hidden_states(model.model, batch)
    return model.score(hidden[batch.ends]).squeeze(-1).float()


def score_trees(model: RewardModel, trees: Sequence[Tree], length: int, rows: int, precision: str,
                progress: Callable[[int, int], None] = lambda done, total: None) -> list[np.ndarray]:
    """The scores of each tree's responses, in the order of the trees, without the shift. ``progress`` is told after
    each batch how many rows of how many are done."""
    model.eval()
    device = model.score.weight.device

    def compute(batch: Batch) -> torch.Tensor:
        with autocast(precision, device):
            return score_ends(model, batch)

    return map_trees(compute, trees, length, rows, device, per_token=False, progress=progress)
