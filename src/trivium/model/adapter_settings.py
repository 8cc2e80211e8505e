"""How adapters are set, as a recipe says it. Nothing here needs torch, so that recipes are read at once."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Literal

from trivium.errors import TriviumError


@dataclass(frozen=True)
class AdapterSettings:
    """Which adapter is trained, and how large it is."""

    __pydantic_config__: ClassVar[dict[str, object]] = {"extra": "forbid", "use_attribute_docstrings": True}

    kind: Literal["lora", "bottleneck", "prefix"] = "lora"
    """lora: a product of two thin matrices beside a matrix (Hu et al. 2021); bottleneck: a narrow network after each
    half of a layer (Houlsby et al. 2019); prefix: learned keys and values before every text (Li & Liang 2021)."""
    rank: int = 8
    """LoRA: the width of the thin matrices."""
    alpha: float = 16.0
    """LoRA: the product is multiplied by alpha / rank."""
    targets: tuple[str, ...] = ("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj")
    """LoRA: the matrices that get one."""
    rslora: bool = False
    """LoRA: multiply by alpha / sqrt(rank) instead, so that large ranks learn as fast (Kalajdzievski 2023)."""
    dora: bool = False
    """LoRA: train each row's length apart from its direction (Liu et al. 2024)."""
    width: int = 32
    """Bottleneck: the width of its middle."""
    tokens: int = 16
    """Prefix: how many positions are put before every text."""

    def __post_init__(self) -> None:
        for name in ("rank", "width", "tokens"):
            if getattr(self, name) < 1:
                raise TriviumError(f"adapter: {name} is {getattr(self, name)}; it must be at least 1")
        if not self.alpha > 0:
            raise TriviumError(f"adapter: alpha is {self.alpha}; it must be more than 0")
        if not self.targets:
            raise TriviumError("adapter: targets names no matrix")
