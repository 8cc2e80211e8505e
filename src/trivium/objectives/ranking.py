"""Learning a score from rankings."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor


def ranking_losses(scores: Tensor, winners: Tensor, losers: Tensor, weights: Tensor) -> Tensor:
    """InstructGPT eq. 1, a loss for every pair ``[P]``: ``-log sigmoid(score[winner] - score[loser])`` times ``weights``.

    ``scores [S]`` are of all responses, ``winners`` and ``losers [P]`` index them. With ``weights`` 1 / (pairs of the same
    prompt), the losses of one prompt add up to their mean, so a prompt counts once however many responses it has.
    """
    return -F.logsigmoid(scores[winners] - scores[losers]) * weights
