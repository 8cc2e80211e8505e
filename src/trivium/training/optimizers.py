"""Optimizers and schedules. Muon for the matrices inside the blocks, AdamW for everything else."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor, nn

from trivium.errors import TriviumError
from trivium.extensions import load_object, resolve
from trivium.model.adapters.lora import Lora
from trivium.training.parallel import by_mesh, shard_like, whole
from trivium.training.precision import masters
from trivium.training.settings import Optimization as Optimization


def factor(settings: Optimization, step: int, steps: int) -> float:
    """The learning rate at ``step`` (from 0) of ``steps``, as a share of its highest."""
    warmup = max(1, round(settings.warmup * steps))
    if step < warmup:
        return (step + 1) / warmup
    if settings.schedule in ("constant", "plateau"):
        return 1.0
    done = (step - warmup) / max(1, steps - warmup)
    if settings.schedule == "wsd":
        start = min(1 - settings.decay, 1.0)
        done = max(0.0, (step / max(1, steps) - start) / max(settings.decay, 1e-9))
    fall = (1 + math.cos(math.pi * done)) / 2 if settings.schedule == "cosine" else 1 - done
    return settings.final + (1 - settings.final) * fall


class Plateau:
    """Halves the learning rate whenever the mean loss of `patience` steps is not lower than the lowest such mean
    before. ``state`` is all that a checkpoint needs."""

    def __init__(self, settings: Optimization) -> None:
        self.patience = settings.patience if settings.schedule == "plateau" else 0
        self.state = {"share": 1.0, "sum": 0.0, "count": 0.0, "lowest": 1e300}

    def restore(self, state: dict[str, float] | None) -> None:
        """Go on from a checkpoint's state, where it has one."""
        self.state = state or self.state

    @property
    def share(self) -> float:
        """What the learning rate is multiplied by."""
        return self.state["share"]

    def __call__(self, loss: float) -> None:
        """Take note of one step's loss."""
        if not self.patience:
            return
        state = self.state
        state["sum"] += loss
        state["count"] += 1
        if state["count"] >= self.patience:
            mean = state["sum"] / state["count"]
            if mean >= state["lowest"]:
                state["share"] /= 2
            state |= {"lowest": min(mean, state["lowest"]), "sum": 0.0, "count": 0.0}


QUINTIC = (3.4445, -4.7750, 2.0315)
"""``a x + b x^3 + c x^5``, which five times or so brings all of (0, 1] near 1 (Jordan et al. 2024, 'Muon')."""

TWO_QUINTICS = ((7.3625, -20.7434, 15.1606), (2.9175, -2.1824, 0.4755))
"""What comes nearest to 1 on [0.03, 1], and on [0.62, 1.38] where the first leaves it (the method of Amsel et al. 2025,
'The Polar Express'). Small singular values grow 21 times by the two; by two or three steps of the other 12 or 41
times."""


def orthogonalise(matrices: Tensor, steps: int = 5) -> Tensor:
    """The nearest semi-orthogonal matrix to each of ``matrices [n, rows, columns]``, roughly: a Newton-Schulz iteration
    that brings all singular values near 1; on a GPU in bf16, as in Jordan et al. 2024. Two steps have polynomials of
    their own, and begin from a tighter bound of the largest singular value than Frobenius's norm: the root of that of
    ``x x^T``, which the iteration needs anyway."""
    kind = matrices.dtype
    x = matrices.bfloat16() if matrices.is_cuda else matrices
    tall = x.shape[1] > x.shape[2]
    x = x.mT if tall else x
    if steps == 2:
        gram = x @ x.mT
        square = gram.flatten(1).norm(dim=1).clamp(min=1e-14)[:, None, None]
        x, gram = x / square.sqrt(), gram / square
    else:
        x = x / x.flatten(1).norm(dim=1).clamp(min=1e-7)[:, None, None]
        gram = x @ x.mT
    for step, (a, b, c) in enumerate(TWO_QUINTICS if steps == 2 else (QUINTIC,) * steps):
        if step > 0:
            gram = x @ x.mT
        x = torch.baddbmm(x, torch.baddbmm(gram, gram, gram, beta=b, alpha=c), x, beta=a)
    return (x.mT if tall else x).to(kind)


class Muon(torch.optim.Optimizer):
    """Momentum whose steps are made orthogonal (Jordan et al. 2024), matrices of one shape in one batched product.

    ``torch.optim.Muon`` takes matrices one by one and always in bf16, which a CPU without bf16 instructions emulates;
    this one iterates in float32 there, and in bf16 on a GPU alone. Of a weight that is spread over processes each
    gathers the whole gradient and keeps its own part of the step. Steps are scaled by ``sqrt(max(1, rows / columns))``
    as there.
    """

    def __init__(self, params: Iterable[Any], lr: float, momentum: float = 0.95, weight_decay: float = 0.0,
                 steps: int = 5) -> None:
        super().__init__(params, {"lr": lr, "momentum": momentum, "weight_decay": weight_decay, "steps": steps})

    @torch.no_grad()
    def step(self, closure: Any = None) -> None:  # type: ignore[override]
        """One update of every matrix that has a gradient."""
        for group in self.param_groups:
            alike: dict[tuple[int, int], list[Tensor]] = defaultdict(list)
            for parameter in group["params"]:
                if parameter.grad is not None:
                    alike[tuple(parameter.shape)].append(parameter)
            for (rows, columns), parameters in alike.items():
                directions = []
                for parameter in parameters:
                    gradient = parameter.grad
                    assert gradient is not None
                    state = self.state[parameter]
                    momentum = state.setdefault("momentum", torch.zeros_like(parameter))
                    momentum.lerp_(gradient, 1 - group["momentum"])
                    directions.append(whole(gradient.lerp(momentum, group["momentum"])))  # Nesterov
                updates = orthogonalise(torch.stack(directions), group["steps"])
                scale = group["lr"] * max(1.0, rows / columns) ** 0.5
                for parameter, update in zip(parameters, updates, strict=True):
                    own = shard_like(update, parameter)
                    parameter.mul_(1 - group["lr"] * group["weight_decay"]).sub_(own, alpha=scale)


def make_optimizers(model: nn.Module, settings: Optimization) -> list[torch.optim.Optimizer]:
    """The optimizers of ``model``; every trainable parameter is in exactly one group (asserted). Raises
    :class:`TriviumError` where there is nothing to train, and for an optimizer of the user's own that cannot be
    made."""
    blocks: list[Tensor] = []  # matrices that Muon moves
    decayed: list[Tensor] = []
    vectors: list[Tensor] = []
    faster: dict[float, list[Tensor]] = defaultdict(list)  # second matrices of LoRA+
    rates = {f"{name}.B": module.b_rate for name, module in model.named_modules()
             if isinstance(module, Lora) and module.b_rate != 1}
    for name, parameter in masters(model):
        if parameter.requires_grad and name in rates:
            faster[rates[name]].append(parameter)
        elif parameter.requires_grad:
            muon = settings.optimizer == "muon" and parameter.ndim > 1 and ".layers." in f".{name}"
            (vectors if parameter.ndim < 2 else blocks if muon else decayed).append(parameter)
    if not (blocks or decayed or vectors or faster):
        raise TriviumError("nothing to train: every parameter is frozen")
    groups = [{"params": group, "weight_decay": decay}
              for parameters, decay in ((decayed, settings.weight_decay), (vectors, 0.0))
              for group in by_mesh(parameters)]
    groups += [{"params": group, "weight_decay": settings.weight_decay, "lr": share * settings.rate}
               for share, parameters in faster.items() for group in by_mesh(parameters)]
    optimizers: list[torch.optim.Optimizer] = []
    if groups:  # an adapter may be matrices alone
        if settings.optimizer == "sgd":
            optimizers.append(torch.optim.SGD(groups, lr=settings.rate))
        elif settings.optimizer in ("adamw", "muon"):
            optimizers.append(
                torch.optim.AdamW(groups, lr=settings.rate, betas=(settings.beta1, settings.beta2),
                                  eps=settings.epsilon, fused=True))
        else:
            optimizers.append(own_optimizer(groups, settings))
    if blocks:
        optimizers.append(Muon(blocks, settings.matrix_rate, weight_decay=settings.weight_decay,
                               steps=settings.newton_schulz))
    grouped = [id(p) for o in optimizers for g in o.param_groups for p in g["params"]]
    trainable = {id(p) for _, p in masters(model) if p.requires_grad}
    assert len(grouped) == len(set(grouped)) and set(grouped) == trainable, "a parameter is in no group, or in two"
    for optimizer in optimizers:
        for group in optimizer.param_groups:
            group["highest"] = group["lr"]
    return optimizers


def own_optimizer(groups: list[dict[str, Any]], settings: Optimization) -> torch.optim.Optimizer:
    """The optimizer that the user's code makes. It is called with groups of parameters, each with its ``weight_decay``,
    with ``lr``, and with ``optimizer_options`` by name. Raises :class:`TriviumError` where that fails or makes
    something else. What the optimizer keeps of a weight is known after its first update: see :func:`step_own`."""
    name = settings.optimizer
    make = load_object(resolve(name, "optimizers"))
    try:
        made = make(groups, lr=settings.rate, **settings.optimizer_options)
    except Exception as error:
        raise TriviumError(f"{name}: the optimizer cannot be made: {type(error).__name__}: {error}") from error
    if not isinstance(made, torch.optim.Optimizer):
        raise TriviumError(f"{name} makes a {type(made).__name__}, where a torch.optim.Optimizer was expected")
    return made


def step_own(optimizer: torch.optim.Optimizer, name: str, first: bool) -> None:
    """One update by an optimizer of the user's own. Raises :class:`TriviumError` where it fails and, after the
    ``first`` update, where it keeps what no checkpoint would hold."""
    try:
        optimizer.step()
    except (TriviumError, torch.OutOfMemoryError):
        raise
    except Exception as error:
        raise TriviumError(
            f"optimization.optimizer: {name}: its step fails: {type(error).__name__}: {error}") from error
    if first:
        check_state(optimizer, name)


def check_state(optimizer: torch.optim.Optimizer, name: str) -> None:
    """Raise :class:`TriviumError` for an optimizer that keeps anything but tensors and numbers of a weight."""
    for values in optimizer.state.values():
        for key, value in values.items():
            if not isinstance(value, (Tensor, int, float)):
                raise TriviumError(
                    f"optimization.optimizer: {name} keeps a {type(value).__name__} as {key!r} of a weight; "
                    "only tensors and numbers can be kept in a checkpoint")
