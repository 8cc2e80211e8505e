"""How adapters are set, as a recipe says it. Nothing here needs torch, so that recipes are read at once."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import ClassVar, Literal

from trivium.errors import TriviumError, nearest


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
    initial: Literal["zero", "pissa"] = "zero"
    """LoRA: where the product begins. zero: at nothing, one matrix random; pissa: at the matrix's own largest
    directions, from which it is taken off again, so that the model begins as it is and the largest directions learn
    first (Meng et al. 2024)."""
    b_rate: float = 1.0
    """LoRA: the learning rate of the second thin matrix, as a multiple of the first's. Above 1 it is LoRA+; there 16 is
    usual (Hayou et al. 2024)."""
    ranks: dict[str, int] = field(default_factory=dict)
    """LoRA: another `rank` for some of the `targets`, by name."""
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
        if not 0 < self.b_rate < float("inf"):
            raise TriviumError(f"adapter: b_rate is {self.b_rate}; it must be more than 0 (1: as the other matrix)")
        if self.initial == "pissa" and self.dora:
            raise TriviumError("adapter: pissa changes where the product begins, and dora measures rows by it; "
                               "leave one out")
        for name, rank in self.ranks.items():
            if name not in self.targets:
                raise TriviumError(f"adapter: ranks names {name!r}{nearest(name, self.targets)}, which is none of the "
                                   "targets")
            if rank < 1:
                raise TriviumError(f"adapter: ranks gives {name} the rank {rank}; it must be at least 1")

    def of(self, target: str) -> AdapterSettings:
        """The settings of one of the targets."""
        return replace(self, rank=self.ranks.get(target, self.rank), ranks={})
