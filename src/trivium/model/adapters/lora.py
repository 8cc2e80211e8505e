"""LoRA: the change of a weight is a product of two thin matrices (Hu et al. 2021, 'LoRA'), ``W + s * B @ A``."""

from __future__ import annotations

import math
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from trivium.errors import TriviumError
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

    With PiSSA (Meng et al. 2024, eq. 2 to 4) both begin at the matrix's ``rank`` largest singular directions, ``s * B @
    A`` being their part of it. What they began at is kept and taken off, so the frozen matrix stays whole: the change
    is ``s * (B @ A - B0 @ A0)``, and is saved as LoRA of twice the rank.
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
        self.b_rate = settings.b_rate
        self.begun = settings.initial == "pissa"
        if self.begun:
            a, b = leading(matrix(layer), rank, generator)
            self.A.data, self.B.data = a / math.sqrt(self.scale), b / math.sqrt(self.scale)
            self.register_buffer("A0", self.A.data.clone(), persistent=False)
            self.register_buffer("B0", self.B.data.clone(), persistent=False)
        self.magnitude = nn.Parameter(matrix(layer).detach().float().norm(dim=1)) if settings.dora else None

    def forward(self, x: Tensor, y: Tensor, layer: nn.Linear) -> Tensor:
        """The layer's output ``y`` for the input ``x``, changed."""
        a, b = self.product()
        change = F.linear(F.linear(x, a), b)
        if self.magnitude is None:
            return torch.add(y, change, alpha=self.scale)
        stretch = self.magnitude / self.lengths(matrix(layer))
        stretched = y if layer.bias is None else y - layer.bias
        return (y + (stretch - 1) * stretched + self.scale * stretch * change).to(y.dtype)

    def product(self) -> tuple[Tensor, Tensor]:
        """The thin matrices ``[rank, in]`` and ``[out, rank]`` whose product is the change; of twice the rank where it
        began at something."""
        if not self.begun:
            return self.A, self.B
        assert isinstance(self.A0, Tensor) and isinstance(self.B0, Tensor)
        return torch.cat([self.A, self.A0.to(self.A.dtype)]), torch.cat([self.B, -self.B0.to(self.B.dtype)], 1)

    def changed(self, weight: Tensor) -> Tensor:
        """``W + s * B @ A``."""
        a, b = self.product()
        return torch.addmm(weight, b.to(weight.dtype), a.to(weight.dtype), alpha=self.scale)

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


def leading(weight: Tensor, rank: int, generator: torch.Generator, rounds: int = 8) -> tuple[Tensor, Tensor]:
    """``(a [rank, in], b [out, rank])`` with ``b @ a`` the best approximation of ``weight [out, in]`` of that rank,
    each with the root of the singular values: by subspace iteration from random directions (Halko et al. 2011,
    algorithm 4.4), as a whole decomposition of a large matrix takes minutes. Raises :class:`TriviumError` for a rank
    that the matrix does not have."""
    if rank > min(weight.shape):
        raise TriviumError(f"adapter: pissa of rank {rank} in a matrix of {weight.shape[0]} x {weight.shape[1]}, which "
                           f"has {min(weight.shape)} directions")
    with torch.no_grad():
        whole = weight.detach().float()
        width = min(rank + 8, *whole.shape)
        start = torch.randn(whole.shape[1], width, generator=generator).to(whole.device)
        basis = torch.linalg.qr(whole @ start).Q
        for _ in range(rounds):
            basis = torch.linalg.qr(whole @ torch.linalg.qr(whole.T @ basis).Q).Q
        left, values, right = torch.linalg.svd(basis.T @ whole, full_matrices=False)
        root = values[:rank].sqrt()
        return root[:, None] * right[:rank], (basis @ left[:, :rank]) * root
