"""Learning from preferences without a reward model: DPO, IPO and KTO."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor


def dpo_losses(chosen: Tensor, rejected: Tensor, reference_chosen: Tensor, reference_rejected: Tensor, beta: float,
               label_smoothing: float = 0.0) -> tuple[Tensor, Tensor]:
    """Direct preference optimisation (Rafailov et al. 2023, eq. 7): ``-log sigmoid(beta * margin)`` for each pair ``[P]``.

    All tensors are log-probabilities of whole responses, in nats: summed over their tokens or, for the length-normalised
    form, means. With ``label_smoothing`` e a pair is taken to be labelled the wrong way round with that probability
    (Mitchell 2023, 'conservative DPO'): ``-(1 - e) log sigmoid(m) - e log sigmoid(-m)``. Also returns the margins of implicit
    reward, ``beta * ((chosen - reference_chosen) - (rejected - reference_rejected))``.
    """
    margins = beta * ((chosen - reference_chosen) - (rejected - reference_rejected))
    return -(1 - label_smoothing) * F.logsigmoid(margins) - label_smoothing * F.logsigmoid(-margins), margins


def ipo_losses(chosen: Tensor, rejected: Tensor, reference_chosen: Tensor, reference_rejected: Tensor, beta: float,
               ) -> tuple[Tensor, Tensor]:
    """Identity preference optimisation (Azar et al. 2023, eq. 17): ``(h - 1 / (2 * beta))^2`` for each pair ``[P]``, with ``h``
    the difference of log-ratios.

    The paper's log-probabilities are of whole responses, summed over tokens. Means instead, as its authors came to advise, are
    a matter of what the caller hands in. Also returns the margins, ``beta * h``, comparable with DPO's.
    """
    differences = (chosen - reference_chosen) - (rejected - reference_rejected)
    return (differences - 1 / (2 * beta)) ** 2, beta * differences


def kto_losses(log_ratios: Tensor, desirable: Tensor, baseline: Tensor, beta: float, desirable_weight: float = 1.0,
               undesirable_weight: float = 1.0) -> Tensor:
    """Kahneman-Tversky optimisation (Ethayarajh et al. 2024, eq. 8) for each response ``[S]``.

    ``log_ratios [S]`` are log-probabilities of responses under the policy minus those under the reference, ``desirable [S]`` says
    which were liked. ``baseline`` estimates KL(policy || reference), is not learned through and not below 0:
    ``weight * (1 - sigmoid(beta * (r - baseline)))`` for what was liked, with the sign turned for what was not.
    """
    gains = beta * (log_ratios - baseline.detach().clamp(min=0.0))
    return torch.where(desirable, desirable_weight * (1 - torch.sigmoid(gains)), undesirable_weight * (1 - torch.sigmoid(-gains)))


def balanced_weights(liked: int, disliked: int) -> tuple[float, float]:
    """Weights of desirable and undesirable responses with which both sides weigh alike, however many of each there are
    (Ethayarajh et al. 2024, eq. 9, where the ratio of the weighted numbers may lie between 1 and 4/3)."""
    if not liked or not disliked:
        return 1.0, 1.0
    return (disliked / liked, 1.0) if liked < disliked else (1.0, liked / disliked)
