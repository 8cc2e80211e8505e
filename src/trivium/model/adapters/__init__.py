"""Adapters: a few trainable weights beside a model whose own stay as they are. One file a method."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from trivium.errors import TriviumError, nearest
from trivium.model.adapter_settings import AdapterSettings as AdapterSettings
from trivium.model.adapters.lora import Lora, is_matrix
from trivium.model.transformer import M, sharing


class Adapted(nn.Module):
    """A frozen layer followed by its adapters. It takes the place of a plain one by changing that one's class, so every
    weight keeps its name."""

    adapters: nn.ModuleList

    def adapted(self, input: Tensor, output: Tensor) -> Tensor:
        """The output, changed by the adapters that are on."""
        for adapter in self.adapters:
            if adapter.on:
                output = adapter(input, output, self)
        return output


class AdaptedLinear(Adapted, nn.Linear):
    """A linear layer with adapters."""

    def forward(self, input: Tensor) -> Tensor:
        return self.adapted(input, F.linear(input, self.weight, self.bias))


def adapted_class(layer: nn.Module) -> type[nn.Module]:
    """The class of a layer that has adapters."""
    if isinstance(layer, nn.Linear):
        return AdaptedLinear
    plain: Any = type(layer)

    def forward(self: Any, x: Tensor) -> Tensor:
        return self.adapted(x, plain.forward(self, x))

    return type("AdaptedConv1D", (Adapted, plain), {"forward": forward})


@dataclass
class Attached:
    """An adapter in its model."""

    settings: AdapterSettings
    modules: dict[str, nn.Module]
    """The adapter's modules by the name, within the trunk, of the module that each belongs to."""

    def within(self, model: Any) -> Attached:
        """The same adapter in a model that was copied, or put together again, from the one that it was attached to."""
        return Attached(self.settings, {name: model.model.get_submodule(name).adapters[-1] for name in self.modules})

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
            yield from ((f"{name}.{part}" if name else part, parameter)
                        for part, parameter in module.named_parameters())


def attach(model: nn.Module, settings: AdapterSettings, seed: int) -> Attached:
    """Freeze ``model`` and give its trunk (``model.model``) an adapter that changes nothing yet, but for a prefix.
    Raises :class:`TriviumError` for targets that the model does not have."""
    for parameter in model.parameters():
        parameter.requires_grad_(False)
    trunk: Any = model.model
    generator = torch.Generator().manual_seed(seed % 2**63)
    if settings.kind == "prefix":
        if getattr(trunk, "reach", trunk.config.max_positions) < trunk.config.max_positions:
            raise TriviumError(f"adapter: this model takes no prefix ({trunk.why}); choose lora")
        from trivium.model.adapters.prefix import Prefix
        return Attached(settings, {"": add(trunk, Prefix(trunk, settings.tokens, generator))})
    from trivium.model.adapters.bottleneck import ENDS, Bottleneck
    targets = ENDS if settings.kind == "bottleneck" else settings.targets
    layers = {
        name: module
        for name, module in trunk.named_modules()
        if is_matrix(module) and name.rpartition(".")[2] in targets
    }
    known = {
        name.rpartition(".")[2]
        for name, module in trunk.named_modules() if is_matrix(module) and ".adapters." not in name
    }
    for target in targets:
        if target not in known:
            raise TriviumError(f"adapter: the model has no matrix {target!r}{nearest(target, known)}")
    return Attached(
        settings, {
            name: add(
                layer,
                Bottleneck(layer, settings.width, generator) if settings.kind == "bottleneck" else Lora(
                    layer, settings.of(name.rpartition(".")[2]), generator))
            for name, layer in layers.items()
        })


def add(layer: nn.Module, adapter: nn.Module) -> nn.Module:
    """Give a layer one more adapter; returns it."""
    if not hasattr(layer, "adapters"):
        if is_matrix(layer):
            layer.__class__ = adapted_class(layer)
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


def folded(model: M) -> M:
    """A model of the same weights, but with its LoRA adapters folded into copies of the matrices that they change;
    other adapters stay. The very same model where there are none."""
    if not has_adapters(model):
        return model
    plain = sharing(model)
    layers: list[Any] = [module for module in plain.modules() if isinstance(module, Adapted)]
    for layer in layers:
        layer.weight = nn.Parameter(layer.weight.detach().clone(), requires_grad=False)
        while isinstance(getattr(layer, "adapters", [None])[-1], Lora):
            take_in(layer)
    return plain


def take_in(layer: Any) -> None:
    """Fold a layer's last adapter, which is LoRA's, into its weight, and take it away."""
    layer.adapters[-1].merge(layer)
    del layer.adapters[-1]
    if not len(layer.adapters):
        del layer.adapters
        layer.__class__ = type(layer).__mro__[2]  # what it was before
