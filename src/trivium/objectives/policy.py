"""Proximal policy optimisation: advantages, clipped losses and estimates of the KL divergence."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor


def generalised_advantages(rewards: np.ndarray, values: np.ndarray, gamma: float, lam: float) -> np.ndarray:
    """GAE (Schulman et al. 2016, eq. 16) over one response: ``sum_l (gamma * lam)^l * delta[t + l]`` with
    ``delta[t] = reward[t] + gamma * value[t + 1] - value[t]`` and a value of 0 after the end. All ``[T]``."""
    advantages = np.zeros(len(rewards))
    running, following = 0.0, 0.0
    for t in reversed(range(len(rewards))):
        running = rewards[t] + gamma * following - values[t] + gamma * lam * running
        advantages[t], following = running, values[t]
    return advantages


def whiten(values: np.ndarray, shift_mean: bool = True) -> np.ndarray:
    """Scale to deviation 1 and, unless ``shift_mean`` is False, move the mean to 0."""
    mean = values.mean()
    scaled = (values - mean) / (values.std() + 1e-8)
    return scaled if shift_mean else scaled + mean


def group_advantages(rewards: np.ndarray, scaled: bool = True) -> np.ndarray:
    """GRPO's advantages of K responses to one prompt ``[K]``: their rewards minus the group's mean and, if ``scaled``,
    over its deviation (Shao et al. 2024, sec. 4.1.2). A group of equal rewards teaches nothing: all are 0.

    The deviation is that of a sample, over K - 1, plus 1e-4, as in TRL, whose learning rates so carry over. The paper
    does not say which; over K the advantages of K = 2 would be 1.41 times as large, of K = 8 1.07 times. The 1e-4 keeps
    rewards that differ by rounding alone, such as a reward model's, from teaching as much as a right answer does."""
    centred = rewards - rewards.mean()
    if not scaled or len(rewards) < 2:
        return centred
    return centred / (rewards.std(ddof=1) + 1e-4)


def leave_one_out_advantages(rewards: np.ndarray) -> np.ndarray:
    """RLOO's advantages of K responses to one prompt ``[K]``: each reward minus the mean of the other K - 1 (Ahmadian
    et al. 2024, eq. 9; Kool et al. 2019). Unbiased, as no response is its own baseline."""
    others = (rewards.sum() - rewards) / max(len(rewards) - 1, 1)
    return rewards - others


def rewards_to_go(reward: float, penalties: np.ndarray) -> np.ndarray:
    """What REINFORCE++ gains from each token of a response on (Hu 2025): the reward at its end minus the penalties
    ``[T]`` of that token and all after it."""
    return reward - np.cumsum(penalties[::-1])[::-1]


def overlong_punishments(lengths: np.ndarray, most: int, buffer: int) -> np.ndarray:
    """DAPO's soft punishment of long responses (Yu et al. 2025, eq. 13): 0 for those ``lengths [S]`` that leave the
    last ``buffer`` of ``most`` tokens free, and from there on down to -1 at ``most``."""
    return np.clip((most - buffer - lengths) / buffer, -1.0, 0.0)


def combined_scores(helpfulness: np.ndarray, safety: np.ndarray, about_safety: np.ndarray,
                    threshold: float = 0.15) -> np.ndarray:
    """Two reward models as one (Touvron et al. 2023, Llama 2, sec. 3.2.3): the safety model's score where the prompt is
    ``about_safety``, or where it gives the response a probability of less than ``threshold`` to be safe; the
    helpfulness model's elsewhere. All ``[S]``.

    Scores are linear, before the sigmoid: the paper's LOGIT of a probability gives them back. Its WHITEN is left to the
    caller, who knows over which responses."""
    return np.where(about_safety | (0.5 * (1 + np.tanh(0.5 * safety)) < threshold), safety, helpfulness)


def policy_losses(
    log_probs: Tensor,
    old_log_probs: Tensor,
    advantages: Tensor,
    clip: float,
    clip_high: float | None = None,
) -> tuple[Tensor, Tensor]:
    """PPO's clipped surrogate (Schulman et al. 2017, eq. 7), negated, for each token ``[N]``; and the ratios ``[N]``.
    Ratios may rise by ``clip_high`` where it is given (Yu et al. 2025, 'clip-higher')."""
    ratios = torch.exp(log_probs - old_log_probs)
    bounded = ratios.clamp(1 - clip, 1 + (clip if clip_high is None else clip_high))
    return torch.maximum(-advantages * ratios, -advantages * bounded), ratios


def detached_losses(log_probs: Tensor, log_ratios: Tensor, advantages: Tensor, clip: float,
                    clip_high: float) -> tuple[Tensor, Tensor]:
    """CISPO's loss (MiniMax-M1 2025, eqs. 4 and 5), ``-sg(clip(ratio, 1 - clip, 1 + clip_high)) A log p`` for each
    token ``[N]``; and the ratios ``[N]``. They are weights alone, so clipping takes no token's gradient away."""
    ratios = torch.exp(log_ratios).detach()
    return -ratios.clamp(1 - clip, 1 + clip_high) * advantages * log_probs, ratios


def sums_of_responses(values: Tensor, owners: Tensor, count: int) -> Tensor:
    """The sum of values ``[N]`` of tokens over each of ``count`` responses; ``owners [N]`` says whose a token is."""
    return values.new_zeros(count).index_add_(0, owners, values)


def means_of_responses(values: Tensor, owners: Tensor, count: int) -> Tensor:
    """The same as means over the tokens of each response ``[count]``. Of log-ratios it is the logarithm of GSPO's ratio
    of the response, the geometric mean of its tokens' (Zheng et al. 2025, eq. 7)."""
    lengths = sums_of_responses(torch.ones_like(values), owners, count)
    return sums_of_responses(values, owners, count) / lengths.clamp(min=1)


def kl_penalties(log_probs: Tensor, reference: Tensor, estimate: str = "k3") -> Tensor:
    """An estimate of KL(policy || reference) at each token ``[N]`` (Schulman 2020), from r, how much likelier the
    policy finds it: ``k1`` is r, unbiased, ``k2`` r²/2, whose gradient is KL's (Hu 2025), and ``k3`` exp(-r) - 1 + r,
    unbiased and never negative, which is to be learned through (Shao et al. 2024, eq. 4)."""
    difference = reference - log_probs
    if estimate == "k3":
        return torch.exp(difference) - 1 - difference
    return -difference if estimate == "k1" else 0.5 * difference**2


def value_losses(values: Tensor, old_values: Tensor, returns: Tensor, clip: float | None) -> Tensor:
    """``0.5 * max((v - R)^2, (clip(v, old_v - clip, old_v + clip) - R)^2)`` for each token ``[N]``; ``0.5 * (v - R)^2``
    where ``clip`` is None."""
    if clip is None:
        return 0.5 * (values - returns)**2
    clipped = old_values + (values - old_values).clamp(-clip, clip)
    return 0.5 * torch.maximum((values - returns) ** 2, (clipped - returns) ** 2)


def adapt_kl_coefficient(coefficient: float, kl: float, target: float, horizon: float, episodes: int) -> float:
    """The proportional controller of Ziegler et al. 2019: moves the coefficient so that KL approaches ``target``."""
    error = float(np.clip(kl / target - 1, -0.2, 0.2))
    return coefficient * (1 + error * episodes / horizon)
