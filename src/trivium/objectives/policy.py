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


def policy_losses(log_probs: Tensor, old_log_probs: Tensor, advantages: Tensor, clip: float) -> tuple[Tensor, Tensor]:
    """PPO's clipped surrogate (Schulman et al. 2017, eq. 7), negated, for each token ``[N]``; and the ratios ``[N]``."""
    ratios = torch.exp(log_probs - old_log_probs)
    return torch.maximum(-advantages * ratios, -advantages * ratios.clamp(1 - clip, 1 + clip)), ratios


def value_losses(values: Tensor, old_values: Tensor, returns: Tensor, clip: float) -> Tensor:
    """``0.5 * max((v - R)^2, (clip(v, old_v - clip, old_v + clip) - R)^2)`` for each token ``[N]``."""
    clipped = old_values + (values - old_values).clamp(-clip, clip)
    return 0.5 * torch.maximum((values - returns) ** 2, (clipped - returns) ** 2)


def kl_k3(log_probs: np.ndarray, reference: np.ndarray) -> np.ndarray:
    """An unbiased, never negative estimate of KL(policy || reference) from samples of the policy (Schulman 2020, k3)."""
    ratio = reference - log_probs
    return np.exp(ratio) - 1 - ratio


def adapt_kl_coefficient(coefficient: float, kl: float, target: float, horizon: float, episodes: int) -> float:
    """The proportional controller of Ziegler et al. 2019: moves the coefficient so that KL approaches ``target``."""
    error = float(np.clip(kl / target - 1, -0.2, 0.2))
    return coefficient * (1 + error * episodes / horizon)
