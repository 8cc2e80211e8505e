"""Learning a score from rankings."""

from __future__ import annotations

from typing import Any

import torch.nn.functional as F
from torch import Tensor

from trivium.extensions import load_object
from trivium.objectives.functions import check_signature


def ranking_losses(chosen: Tensor, rejected: Tensor, margins: Tensor) -> Tensor:
    """InstructGPT eq. 1, a loss for every pair ``[P]``: ``-log sigmoid(chosen - rejected - margin)``.

    ``chosen`` and ``rejected [P]`` are the scores of a pair's two responses. ``margins [P]`` ask for larger differences
    where people saw larger ones (Llama 2, eq. 2); 0 asks for none.
    """
    return -F.logsigmoid(chosen - rejected - margins)


def find_pairwise_loss(reference: str) -> Any:
    """The function of ``(chosen, rejected, margins)`` that ``FILE.py:NAME`` names, of the same meaning as
    :func:`ranking_losses`. Raises :class:`TriviumError` where there is none."""
    function = load_object(reference)
    check_signature(reference, function, ("chosen", "rejected", "margins"), {})
    return function


def rating_losses(scores: Tensor, ratings: Tensor) -> Tensor:
    """Regression on ratings, the baseline that rankings are compared with: the squared error ``[S]`` of a response's
    score, for ratings of 1 to 7 brought to -1.5 .. 1.5."""
    return (scores - (ratings - 4) / 2) ** 2
