"""Bottleneck adapters (Houlsby et al. 2019, 'Parameter-Efficient Transfer Learning for NLP', section 2.1 and figure
2)."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

ENDS = ("o_proj", "down_proj")
"""The matrices that end the two halves of a layer: an adapter follows each, before the residual stream takes its
output."""


class Bottleneck(nn.Module):
    """``y + up(gelu(down(y)))``: the output of a half layer through a narrow middle and back.

    The paper begins near the identity with small random weights; here ``up`` begins at zero, so it begins at it, and a
    model with a fresh adapter is exactly the model without. The norms stay frozen with all else.
    """

    on: bool

    def __init__(self, layer: nn.Linear, width: int, generator: torch.Generator) -> None:
        super().__init__()
        self.down = nn.Linear(layer.out_features, width)
        self.up = nn.Linear(width, layer.out_features)
        with torch.no_grad():
            self.down.weight.normal_(0.0, layer.out_features ** -0.5, generator=generator)
            for zero in (self.down.bias, self.up.weight, self.up.bias):
                zero.zero_()

    def forward(self, x: Tensor, y: Tensor, layer: nn.Linear) -> Tensor:
        """The layer's output ``y``, changed."""
        return y + self.up(F.gelu(self.down(y)))
