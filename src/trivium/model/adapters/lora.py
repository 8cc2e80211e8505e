"""LoRA: the change of a weight is a product of two thin matrices (Hu et al. 2021, 'LoRA'), ``W + s * B @ A``."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from trivium.model.adapters import AdapterSettings


class Lora(nn.Module):
    """``A [rank, in]`` begins random and ``B [out, rank]`` at zero, so that training begins at the frozen model (section 4.1).

    The scale is ``alpha / rank``, or ``alpha / sqrt(rank)`` with rsLoRA (Kalajdzievski 2023, theorem 3.2). With DoRA (Liu et al.
    2024, eq. 5) the weight is ``m * (W + s * B @ A) / |W + s * B @ A|`` with norms over each row and a trained length ``m [out]``;
    no gradient goes through the norm (their section 4.3).
    """

    on: bool

    def __init__(self, layer: nn.Linear, settings: AdapterSettings, generator: torch.Generator) -> None:
        super().__init__()
        rank = settings.rank
        bound = 1 / math.sqrt(layer.in_features)
        self.A = nn.Parameter((torch.rand(rank, layer.in_features, generator=generator) * 2 - 1) * bound)
        self.B = nn.Parameter(torch.zeros(layer.out_features, rank))
        self.scale = settings.alpha / (math.sqrt(rank) if settings.rslora else rank)
        self.magnitude = nn.Parameter(layer.weight.detach().norm(dim=1)) if settings.dora else None

    def forward(self, x: Tensor, y: Tensor, layer: nn.Linear) -> Tensor:
        """The layer's output ``y`` for the input ``x``, changed."""
        change = F.linear(F.linear(x, self.A), self.B)
        if self.magnitude is None:
            return torch.add(y, change, alpha=self.scale)
        stretch = self.magnitude / self.changed(layer.weight).norm(dim=1).detach()
        if layer.bias is None:
            return (y + self.scale * change) * stretch
        return (y - layer.bias + self.scale * change) * stretch + layer.bias

    def changed(self, weight: Tensor) -> Tensor:
        """``W + s * B @ A``."""
        return torch.addmm(weight, self.B, self.A, alpha=self.scale)

    @torch.no_grad()
    def merge(self, layer: nn.Linear) -> None:
        """Fold the change into the weight."""
        weight = self.changed(layer.weight)
        if self.magnitude is not None:
            weight = weight * (self.magnitude / weight.norm(dim=1))[:, None]
        layer.weight.copy_(weight)
