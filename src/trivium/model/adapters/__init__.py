"""Adapters: a few trainable weights beside a model whose own stay as they are. One file a method."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from trivium.errors import TriviumError, nearest


@dataclass(frozen=True)
class AdapterSettings:
    """Which adapter is trained, and how large it is."""

    __pydantic_config__: ClassVar[dict[str, object]] = {"extra": "forbid", "use_attribute_docstrings": True}

    kind: Literal["lora", "bottleneck", "prefix"] = "lora"
    """lora: a product of two thin matrices beside a matrix (Hu et al. 2021); bottleneck: a narrow network after each half of a
    layer (Houlsby et al. 2019); prefix: learned keys and values before every text (Li & Liang 2021)."""
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


class AdaptedLinear(nn.Linear):
    """A frozen linear layer followed by its adapters. It takes the place of a plain one by changing that one's class, so
    every weight keeps its name."""

    adapters: nn.ModuleList

    def forward(self, input: Tensor) -> Tensor:
        output = F.linear(input, self.weight, self.bias)
        for adapter in self.adapters:
            if adapter.on:
                output = adapter(input, output, self)
        return output


@dataclass
class Attached:
    """An adapter in its model."""

    settings: AdapterSettings
    modules: dict[str, nn.Module]
    """The adapter's modules by the name, within the trunk, of the module that each belongs to."""

    @contextlib.contextmanager
    def off(self) -> Iterator[None]:
        """Within it, the model is what it was before the adapter."""
        before = [module.on for module in self.modules.values()]
        try:
            for module in self.modules.values():
                module.on = False  # type: ignore[assignment]
            yield
        finally:
            for module, on in zip(self.modules.values(), before, strict=True):
                module.on = on

    def parameters(self) -> Iterator[tuple[str, nn.Parameter]]:
        """The adapter's own weights."""
        for name, module in self.modules.items():
            yield from ((f"{name}.{part}" if name else part, parameter) for part, parameter in module.named_parameters())


def attach(model: nn.Module, settings: AdapterSettings, seed: int) -> Attached:
    """Freeze ``model`` and give its trunk (``model.model``) an adapter that changes nothing yet, but for a prefix. Raises
    :class:`TriviumError` for targets that the model does not have."""
    for parameter in model.parameters():
        parameter.requires_grad_(False)
    trunk: Any = model.model
    generator = torch.Generator().manual_seed(seed % 2**63)
    if settings.kind == "prefix":
        from trivium.model.adapters.prefix import Prefix
        return Attached(settings, {"": add(trunk, Prefix(trunk, settings.tokens, generator))})
    from trivium.model.adapters.bottleneck import ENDS, Bottleneck
    from trivium.model.adapters.lora import Lora
    targets = ENDS if settings.kind == "bottleneck" else settings.targets
    layers = {name: module for name, module in trunk.named_modules() if isinstance(module, nn.Linear) and name.rpartition(".")[2] in targets}
    known = {name.rpartition(".")[2] for name, module in trunk.named_modules() if isinstance(module, nn.Linear) and ".adapters." not in name}
    for target in targets:
        if target not in known:
            raise TriviumError(f"adapter: the model has no matrix {target!r}{nearest(target, known)}")
    return Attached(settings, {name: add(layer, Bottleneck(layer, settings.width, generator) if settings.kind == "bottleneck" else
                                         Lora(layer, settings, generator)) for name, layer in layers.items()})


def add(layer: nn.Module, adapter: nn.Module) -> nn.Module:
    """Give a layer one more adapter; returns it."""
    if not hasattr(layer, "adapters"):
        if isinstance(layer, nn.Linear):
            layer.__class__ = AdaptedLinear
        layer.adapters = nn.ModuleList()
    adapter.on = True  # type: ignore[assignment]
    device = next(layer.parameters()).device
    if next(adapter.parameters()).device != device:
        adapter.to(device)
    layer.adapters.append(adapter)  # type: ignore[union-attr,operator]
    return adapter


def has_adapters(model: nn.Module) -> bool:
    """Whether any adapter is in the model."""
    return any(hasattr(module, "adapters") for module in model.modules())
