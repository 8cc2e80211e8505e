"""Learning a score from rankings."""

from __future__ import annotations

import math
from typing import Any

import torch
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


def rao_kupper_losses(chosen: Tensor, rejected: Tensor, margins: Tensor, tied: Tensor,
                      strength: float = 3.0) -> Tensor:
    """Bradley and Terry's model with ties, of Rao and Kupper 1967: a pair is told apart where its scores differ by more
    than is noticed. A loss for every pair ``[P]``, the negative log of ``sigmoid(d - log strength)`` for one that is
    ordered, and of ``(strength^2 - 1) sigmoid(d - log strength) sigmoid(-d - log strength)`` for one that is
    ``tied [P]``, with d the difference of the scores, less the margin. Equal scores are a tie with the probability
    ``(strength - 1) / (strength + 1)``: a half by default (Chen et al. 2024, DPO-RK), none for 1."""
    differences, noticed = chosen - rejected - margins, math.log(strength)
    ordered = -F.logsigmoid(differences - noticed)
    return torch.where(tied, ordered - F.logsigmoid(-differences - noticed) - math.log(strength ** 2 - 1), ordered)


def davidson_losses(chosen: Tensor, rejected: Tensor, margins: Tensor, tied: Tensor,
                    strength: float = 2.0) -> Tensor:
    """Bradley and Terry's model with ties, of Davidson 1970: a tie weighs ``strength`` times the geometric mean of
    both responses' strengths. A loss for every pair ``[P]``, the negative log of ``exp(d / 2) / z`` for one that is
    ordered, and of ``strength / z`` for one that is ``tied [P]``, with ``z = exp(d / 2) + exp(-d / 2) + strength``
    and d the difference of the scores, less the margin. Equal scores are a tie with the probability ``strength /
    (strength + 2)``: a half by default (Chen et al. 2024, DPO-D, where it is written as 2 nu)."""
    half = (chosen - rejected - margins) / 2
    tie = torch.full_like(half, math.log(strength))
    return torch.logsumexp(torch.stack([half, -half, tie]), 0) - torch.where(tied, tie, half)


TIED_LOSSES = {"rao_kupper": rao_kupper_losses, "davidson": davidson_losses}
"""The losses that learn from ties too, by name."""


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
