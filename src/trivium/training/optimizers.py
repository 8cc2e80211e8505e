"""Optimizers and schedules. Muon for the matrices inside the blocks, AdamW for everything else."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

import torch
from torch import Tensor, nn

from trivium.errors import TriviumError
from trivium.training.parallel import by_mesh, shard_like, whole


@dataclass(frozen=True)
class Optimization:
    """How weights follow gradients."""

    __pydantic_config__: ClassVar[dict[str, object]] = {"extra": "forbid", "use_attribute_docstrings": True}

    optimizer: Literal["muon", "adamw", "sgd"] = "adamw"
    """muon: Muon for the blocks' matrices and AdamW for the rest; adamw: AdamW for all; sgd: plain gradient descent."""
    learning_rate: float = 3e-4
    """AdamW's highest learning rate, or that of plain gradient descent."""
    matrix_learning_rate: float = 0.02
    """Muon's highest learning rate."""
    newton_schulz: int = 5
    """Steps of Muon's iteration; 3 cost little accuracy, and on small batches much less time."""
    weight_decay: float = 0.0
    """Decoupled weight decay of matrices."""
    beta1: float = 0.9
    """Decay of AdamW's mean of gradients."""
    beta2: float = 0.95
    """Decay of AdamW's mean of squared gradients."""
    epsilon: float = 1e-8
    """AdamW's epsilon. A large one (1e-3) leaves weights with tiny gradients where they are: in fine-tuning, the
    embeddings of words that the demonstrations never use."""
    schedule: Literal["constant", "cosine", "linear", "wsd", "plateau"] = "cosine"
    """The learning rate after warm-up: constant; falling to `final` of its height by a cosine or a line; wsd: constant, and
    a line in the last `decay` of the steps (Hu et al. 2024); plateau: halved whenever the loss stops falling."""
    decay: float = 0.2
    """Share of the steps over which wsd falls."""
    patience: int = 50
    """Steps whose mean loss plateau compares with the lowest such mean before."""
    warmup: float = 0.03
    """Share of the steps over which the learning rate rises."""
    final: float = 0.05
    """Share of the highest learning rate that is left at the end."""
    clip: float = 1.0
    """Highest norm of the gradient; 0 leaves it as it is."""

    def __post_init__(self) -> None:
        shares = ("warmup", "final", "decay", "beta1", "beta2")
        for name in shares:
            if not 0 <= getattr(self, name) <= 1:
                raise TriviumError(f"optimization: {name} is {getattr(self, name)}; it must lie between 0 and 1")
        for name in ("learning_rate", "matrix_learning_rate", "weight_decay", "epsilon", "clip"):
            if not 0 <= getattr(self, name) < math.inf:
                raise TriviumError(f"optimization: {name} is {getattr(self, name)}; it must be 0 or more")
        for name in ("newton_schulz", "patience"):
            if getattr(self, name) < 1:
                raise TriviumError(f"optimization: {name} is {getattr(self, name)}; it must be at least 1")


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
    """Halves the learning rate whenever the mean loss of `patience` steps is not lower than the lowest such mean before.
    ``state`` is all that a checkpoint needs."""

    def __init__(self, settings: Optimization) -> None:
        self.patience = settings.patience if settings.schedule == "plateau" else 0
        self.state = {"share": 1.0, "sum": 0.0, "count": 0.0, "lowest": 1e300}

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


def orthogonalise(matrices: Tensor, steps: int = 5) -> Tensor:
    """The nearest semi-orthogonal matrix to each of ``matrices [n, rows, columns]``, roughly: a quintic Newton-Schulz
    iteration that brings all singular values near 1 (Jordan et al. 2024, 'Muon')."""
    x = matrices / matrices.flatten(1).norm(dim=1).clamp(min=1e-7)[:, None, None]
    tall = x.shape[1] > x.shape[2]
    x = x.mT if tall else x
    for _ in range(steps):
        gram = x @ x.mT
        x = torch.baddbmm(x, torch.baddbmm(gram, gram, gram, beta=-4.7750, alpha=2.0315), x, beta=3.4445)
    return x.mT if tall else x


class Muon(torch.optim.Optimizer):
    """Momentum whose steps are made orthogonal (Jordan et al. 2024), matrices of one shape in one batched product.

    ``torch.optim.Muon`` takes matrices one by one and always in bf16, which a CPU without bf16 instructions emulates;
    this one iterates in the weights' own format. Of a weight that is spread over processes each gathers the whole gradient and
    keeps its own part of the step. Steps are scaled by ``sqrt(max(1, rows / columns))`` as there.
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
    """The optimizers of ``model``; every trainable parameter is in exactly one group (asserted)."""
    matrices, embeddings, vectors = [], [], []
    for name, parameter in model.named_parameters():
        if not parameter.requires_grad:
            continue
        if parameter.ndim < 2:
            vectors.append(parameter)
        elif settings.optimizer == "muon" and ".layers." in f".{name}":
            matrices.append(parameter)
        else:
            embeddings.append(parameter)
    if not (matrices or embeddings or vectors):
        raise TriviumError("nothing to train: every parameter is frozen")
    groups = [{"params": group, "weight_decay": decay} for parameters, decay in ((embeddings, settings.weight_decay), (vectors, 0.0))
              for group in by_mesh(parameters)]
    optimizers: list[torch.optim.Optimizer] = [
        torch.optim.SGD(groups, lr=settings.learning_rate) if settings.optimizer == "sgd" else
        torch.optim.AdamW(groups, lr=settings.learning_rate, betas=(settings.beta1, settings.beta2), eps=settings.epsilon, fused=True)]
    if matrices:
        optimizers.append(Muon(matrices, settings.matrix_learning_rate, weight_decay=settings.weight_decay,
                               steps=settings.newton_schulz))
    grouped = [id(p) for o in optimizers for g in o.param_groups for p in g["params"]]
    trainable = {id(p) for p in model.parameters() if p.requires_grad}
    assert len(grouped) == len(set(grouped)) and set(grouped) == trainable, "a parameter is in no group, or in two"
    for optimizer in optimizers:
        for group in optimizer.param_groups:
            group["highest"] = group["lr"]
    return optimizers
