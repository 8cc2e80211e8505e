"""Learning a score from rankings."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor


def ranking_losses(scores: Tensor, winners: Tensor, losers: Tensor, weights: Tensor, margins: Tensor | None = None) -> Tensor:
    """InstructGPT eq. 1, a loss for every pair ``[P]``: ``-log sigmoid(score[winner] - score[loser] - margin)`` times ``weights``.

    ``scores [S]`` are of all responses, ``winners`` and ``losers [P]`` index them. With ``weights`` 1 / (pairs of the same
    prompt), the losses of one prompt add up to their mean, so a prompt counts once however many responses it has. ``margins [P]``
    ask for larger differences where people saw larger ones (Llama 2, eq. 2).
    """
    differences = scores[winners] - scores[losers]
    return -F.logsigmoid(differences if margins is None else differences - margins) * weights


def rating_losses(scores: Tensor, ratings: Tensor) -> Tensor:
    """Regression on ratings, the baseline that rankings are compared with: the squared error ``[S]`` of a response's score, for ratings of
    1 to 7 brought to -1.5 .. 1.5."""
    return (scores - (ratings - 4) / 2) ** 2
