"""LoRA: the change of a weight is a product of two thin matrices (Hu et al. 2021, 'LoRA'), ``W + s * B @ A``."""

from __future__ import annotations

import math
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from trivium.model.adapter_settings import AdapterSettings


def is_matrix(layer: nn.Module) -> bool:
    """Whether a layer is a matrix that LoRA can change: a linear one, or GPT-2's, which is stored as ``[in, out]``."""
    return isinstance(layer, nn.Linear) or is_turned(layer)


def is_turned(layer: nn.Module) -> bool:
    """Whether a layer's weight is stored as ``[in, out]``: the library's Conv1D."""
    return any(kind.__name__ == "Conv1D" for kind in type(layer).__mro__)


def matrix(layer: Any) -> Tensor:
    """A layer's weight as ``[out, in]``."""
    weight: Tensor = layer.weight
    return weight.T if is_turned(layer) else weight


class Lora(nn.Module):
    """``A [rank, in]`` begins random and ``B [out, rank]`` at zero, so that training begins at the frozen model
    (section 4.1).

    The scale is ``alpha / rank``, or ``alpha / sqrt(rank)`` with rsLoRA (Kalajdzievski 2023, theorem 3.2). With DoRA
    (Liu et al. 2024, eq. 5) the weight is ``m * (W + s * B @ A) / |W + s * B @ A|`` with norms over each row and a
    trained length ``m [out]``; no gradient goes through the norm (their section 4.3). Length and norm are float32
    whatever the products are made in: rounded, they would not cancel out, and training would not begin at the frozen
    model.
    """

    in_float32 = ("magnitude",)
    on: bool

    def __init__(self, layer: nn.Linear, settings: AdapterSettings, generator: torch.Generator) -> None:
        super().__init__()
        rank, (outs, ins) = settings.rank, matrix(layer).shape
        bound = 1 / math.sqrt(ins)
        self.A = nn.Parameter((torch.rand(rank, ins, generator=generator) * 2 - 1) * bound)
        self.B = nn.Parameter(torch.zeros(outs, rank))
        self.scale = settings.alpha / (math.sqrt(rank) if settings.rslora else rank)
        self.magnitude = nn.Parameter(matrix(layer).detach().float().norm(dim=1)) if settings.dora else None

    def forward(self, x: Tensor, y: Tensor, layer: nn.Linear) -> Tensor:
        """The layer's output ``y`` for the input ``x``, changed."""
        change = F.linear(F.linear(x, self.A), self.B)
        if self.magnitude is None:
            return torch.add(y, change, alpha=self.scale)
        stretch = self.magnitude / self.lengths(matrix(layer))
        stretched = y if layer.bias is None else y - layer.bias
        return (y + (stretch - 1) * stretched + self.scale * stretch * change).to(y.dtype)

    def changed(self, weight: Tensor) -> Tensor:
        """``W + s * B @ A``."""
        return torch.addmm(weight, self.B, self.A, alpha=self.scale)

    @torch.no_grad()
    def lengths(self, weight: Tensor) -> Tensor:
        """The norm of each row of the changed weight, ``[out]`` in float32; of bf16 weights, of their masters
        (:mod:`trivium.training.precision`)."""
        with torch.autocast(weight.device.type, enabled=False):
            whole, b, a = (getattr(one, "master", one).float() for one in (weight, self.B, self.A))
            return torch.addmm(whole, b, a, alpha=self.scale).norm(dim=1)

    @torch.no_grad()
    def merge(self, layer: nn.Linear) -> None:
        """Fold the change into the weight."""
        weight = self.changed(matrix(layer))
        if self.magnitude is not None:
            weight = weight * (self.magnitude / weight.norm(dim=1))[:, None]
        matrix(layer).copy_(weight)
