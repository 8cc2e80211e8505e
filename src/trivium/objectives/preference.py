"""Learning from preferences without a reward model."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor


def dpo_losses(chosen: Tensor, rejected: Tensor, reference_chosen: Tensor, reference_rejected: Tensor, beta: float,
               ) -> tuple[Tensor, Tensor]:
    """Direct preference optimisation (Rafailov et al. 2023, eq. 7): ``-log sigmoid(beta * margin)`` for each pair ``[P]``.

    All arguments are log-probabilities of whole responses, summed over their tokens, in nats. Also returns the margins of
    implicit reward, ``beta * ((chosen - reference_chosen) - (rejected - reference_rejected))``.
    """
    margins = beta * ((chosen - reference_chosen) - (rejected - reference_rejected))
    return -F.logsigmoid(margins), margins
