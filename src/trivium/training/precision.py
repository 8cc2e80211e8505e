"""Number formats: bf16 weights with float32 masters (Micikevicius et al. 2018, section 3.1), and models in the format
they are trained in.

The forward and backward pass read weights in bf16; gradients are added up, and weights moved, in float32, as a step is
often smaller than bf16's spacing of 1/256 of a weight. Of weights that are spread over processes FSDP keeps float32
shards and gathers them in bf16, which is the same.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

import torch
from torch import Tensor, nn

from trivium.training.machine import autocast


def halve(model: nn.Module) -> None:
    """Put a bf16 copy in the place of every weight of ``model``. The weights themselves become the masters: the
    optimizers' and the checkpoints', to which every gradient is moved as soon as it is there. Weights that their module
    names in ``in_float32`` stay."""
    copies: dict[int, nn.Parameter] = {}
    for module in model.modules():
        for name, weight in list(module._parameters.items()):
            if weight is None or hasattr(weight, "master") or name in getattr(module, "in_float32", ()):
                continue
            if id(weight) not in copies:  # tied weights stay tied
                copy = nn.Parameter(weight.detach().to(torch.bfloat16), requires_grad=weight.requires_grad)
                copy.master = weight  # type: ignore[attr-defined]
                if weight.requires_grad:
                    copy.register_post_accumulate_grad_hook(move_gradient)  # type: ignore[no-untyped-call]
                copies[id(weight)] = copy
            module._parameters[name] = copies[id(weight)]


def move_gradient(weight: Tensor) -> None:
    """Add a bf16 weight's gradient to that of its master."""
    master, gradient = master_of(weight), weight.grad
    assert gradient is not None
    if master.grad is None:
        master.grad = gradient.to(master.dtype)
    else:
        master.grad += gradient
    weight.grad = None


def restore_masters(model: nn.Module) -> None:
    """Undo :func:`halve`: the masters are the model's weights again."""
    for module in model.modules():
        for name, weight in list(module._parameters.items()):
            if weight is not None:
                module._parameters[name] = master_of(weight)  # type: ignore[assignment]


def master_of(weight: Tensor) -> Tensor:
    """What the optimizers move: a bf16 weight's master, or the weight itself."""
    master: Tensor = getattr(weight, "master", weight)
    return master


def masters(model: nn.Module) -> Iterator[tuple[str, Tensor]]:
    """What the optimizers move and checkpoints hold, by name: ``model.named_parameters()`` in float32."""
    for name, weight in model.named_parameters():
        yield name, master_of(weight)


@torch.no_grad()
def follow_masters(model: nn.Module) -> None:
    """Round the masters to the bf16 weights, after an update or the reading of a checkpoint."""
    halved: list[Tensor] = [
        weight for weight in model.parameters() if hasattr(weight, "master") and weight.requires_grad
    ]
    if halved:
        torch._foreach_copy_(halved, [master_of(weight) for weight in halved])


@contextlib.contextmanager
def as_trained(model: nn.Module, precision: str) -> Iterator[None]:
    """The context in which a model with float32 weights computes as the training step will in ``precision``: what is
    measured of it there, such as a reference's log-probabilities, equals what the step computes before the first
    update."""
    if precision == "bf16-weights":
        halve(model)
        try:
            yield
        finally:
            restore_masters(model)
    else:
        with autocast(precision, next(model.parameters()).device):
            yield
