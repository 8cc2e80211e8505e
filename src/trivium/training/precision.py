"""Number formats: bf16 weights with float32 masters (Micikevicius et al. 2018, section 3.1), and models in the format
they are trained in.

The forward and backward pass read weights in bf16; gradients are added up, and weights moved, in float32, as a step is
often smaller than bf16's spacing of 1/256 of a weight. Of weights that are spread over processes FSDP keeps float32
shards and gathers them in bf16, which is the same.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator

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


HALFWAY = 1e-3
"""Share of the weights that lie halfway between two numbers of bf16 from which these are moved; of weights drawn at
random it is 2 to the power of -16."""


@torch.no_grad()
def break_ties(model: nn.Module) -> float:
    """Move trained weights that lie exactly halfway between two numbers of bf16 a little towards the one that they are
    rounded to; the share of such weights, or 0 where there are too few to matter and all stay.

    Of a float16 model every eighth weight lies so, and of one that was quantised many do: the least update would tip
    them all over, and move what the products read tens of times as far as the learning rate says. They are moved by
    less than half of float16's spacing, each by another part of it, so that updates tip over as many as their size
    says. What is rounded to bf16 or float16 stays the same."""
    weights = [weight for weight in dict.fromkeys(model.parameters())
               if weight.requires_grad and weight.dim() > 1 and weight.dtype == torch.float32]
    tied = sum(int(_halfway(weight).sum()) for weight in weights)
    share = tied / max(1, sum(weight.numel() for weight in weights))
    if share < HALFWAY:
        return 0.0
    for weight in weights:
        generator = torch.Generator(weight.device).manual_seed(weight.numel())
        bits, places = weight.data.view(torch.int32), _halfway(weight)  # sign and magnitude: adding to it adds to that
        by = torch.randint(1, 0x1000, (int(places.sum()),), generator=generator, device=weight.device,
                           dtype=torch.int32)
        bits[places] += by * (2 * (bits[places] >> 16 & 1) - 1)  # a half is rounded to the even neighbour
    return share


def settle(model: nn.Module, precision: str, say: Callable[[str], None]) -> None:
    """Make a model ready for updates in ``precision``: :func:`break_ties` where products round to bf16, and say so."""
    if precision != "float32" and (share := break_ties(model)):
        say(f"{share:.1%} of the weights lie exactly halfway between two numbers of bf16 (of float16 and quantised "
            "models many do); they are moved off by less than float16 can tell, so that an update does not tip them "
            "all over")


def _halfway(weight: Tensor) -> Tensor:
    return weight.data.view(torch.int32) & 0xFFFF == 0x8000


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
