"""One update: microbatches in, sums divided once, gradients clipped, weights moved."""

from __future__ import annotations

import contextlib
import math
from collections import defaultdict
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from trivium.training.machine import autocast, give_back_freed_memory
from trivium.training.objective import Microbatch, Objective
from trivium.training.optimizers import factor, make_optimizers, step_own
from trivium.training.parallel import World, by_mesh, fill, hollow, prepare_model, reshard, total_norm, whole
from trivium.training.precision import follow_masters, masters, restore_masters
from trivium.training.settings import BUILT_IN, NumberFormat, Optimization, Parallel


class Trainer:
    """A model with its optimizers; one call of :meth:`step` is one update."""

    def __init__(self, model: nn.Module, settings: Optimization, steps: int, precision: NumberFormat = "float32",
                 parallel: Parallel | None = None, world: World | None = None, compiled: bool = False) -> None:
        self.settings, self.steps = settings, steps
        self.world = world or World()
        self.device = next(model.parameters()).device
        self.precision = precision
        self.hollow = None if self.world.mesh is None else hollow(model)
        """What the weights are put together in, where they are spread over processes."""
        self.learner = prepare_model(model, parallel or Parallel(), self.world, self.precision, compiled)
        self.model = model
        self.optimizers = make_optimizers(model, settings)
        self.frozen = self.device.type == "cpu" and any(not weight.requires_grad for weight in model.parameters())
        """Whether some weights stay as they are, on a processor. Then activations are most of the memory, and
        :func:`give_back_freed_memory` saves some of it."""
        self.moved = False
        """Whether an update has moved the weights yet."""
        self.share = 1.0
        """What the schedule's learning rate is multiplied by: halved by a plateau and after a return to a
        checkpoint."""

    def in_precision(self) -> contextlib.AbstractContextManager[object]:
        """The context of a forward pass: bf16 weights need no autocast."""
        return contextlib.nullcontext() if self.precision == "bf16-weights" else autocast(self.precision, self.device)

    def step(self, number: int, batches: Sequence[Microbatch], objective: Objective) -> dict[str, float]:
        """Update ``number`` (from 0). Returns the means of all totals, the gradient's norm and the learning rate. A
        gradient that is not finite changes nothing and is reported as ``skipped``."""
        counts = self.count(batches)
        found: list[tuple[str, float, Tensor]] = []
        self.model.train()
        objective.before(self, batches)
        for place, batch in enumerate(batches):
            last = last_of_its_kind(batches, place)
            self.learner.share_gradients(last)
            with self.in_precision():
                totals = self.learner(objective, batch.to(self.device))
            terms = [weight * totals[name].value / max(counts[totals[name].per], 1.0)
                     for name, weight in objective.weights.items() if name in totals]
            # FSDP takes the mean over the slices of the batch; the counts are those of all of them.
            (torch.stack(terms).sum() * self.world.slice[1]).backward()  # type: ignore[no-untyped-call]
            found += [(name, max(counts[per], 1.0), value.detach()) for name, (value, per) in totals.items()]
            if self.frozen and last and place + 1 < len(batches):  # what follows needs other activations
                give_back_freed_memory()
        sums = added(found)
        metrics = dict(zip(sums, self.world.add(list(sums.values()), self.device), strict=True))
        parameters = [p for _, p in masters(self.model) if p.grad is not None]
        norm = total_norm(p.grad for p in parameters if p.grad is not None)
        metrics["gradient_norm"] = norm.item()
        share = self.share * factor(self.settings, number, self.steps)
        metrics["learning_rate"] = share * self.settings.rate
        if math.isfinite(metrics["gradient_norm"]):
            if self.settings.clip:
                for group in by_mesh(parameters):
                    torch.nn.utils.clip_grads_with_norm_(group, self.settings.clip, norm)
            for optimizer in self.optimizers:
                for settings in optimizer.param_groups:
                    settings["lr"] = share * settings["highest"]
                if self.settings.optimizer in BUILT_IN:
                    optimizer.step()
                else:
                    step_own(optimizer, self.settings.optimizer, not self.moved)
            self.moved = True
            follow_masters(self.model)
        else:
            metrics["skipped"] = 1.0
        for parameter in parameters:
            parameter.grad = None
        return metrics

    def count(self, batches: Sequence[Microbatch]) -> dict[str, float]:
        """The counts of all microbatches of all processes."""
        counts: dict[str, float] = defaultdict(float)
        for batch in batches:
            for name, count in batch.counts.items():
                counts[name] += count
        return defaultdict(float, zip(counts, self.world.add(list(counts.values()), self.device), strict=True))

    @torch.no_grad()
    def evaluate(self, batches: Sequence[Microbatch], objective: Objective) -> dict[str, float]:
        """The means of the objective's totals over the slices that the processes were given."""
        counts, found = self.count(batches), list[tuple[str, float, Tensor]]()
        self.model.eval()
        for batch in batches:
            with self.in_precision():
                totals = self.learner(objective, batch.to(self.device))
            found += [(name, max(counts[per], 1.0), value.detach()) for name, (value, per) in totals.items()]
        reshard(self.learner)
        sums = added(found)
        return dict(zip(sums, self.world.add(list(sums.values()), self.device), strict=True))

    def gathered(self) -> nn.Module:
        """The model in one piece and in float32, when training is over. It is the one that was given. Of a model that
        is spread over processes it is a new one in the first process, and one without memory in the others. All
        processes must call it."""
        if self.world.mesh is None:
            restore_masters(self.model)
            return self.model
        assert self.hollow is not None
        model = hollow(self.hollow)
        weights: dict[str, Tensor] = {}
        for name, parameter in self.model.named_parameters():
            full = whole(parameter.detach())
            if self.world.leader:
                weights[name] = full.clone()
        if self.world.leader:
            fill(model, weights)
        return model


def added(found: Sequence[tuple[str, float, Tensor]]) -> dict[str, float]:
    """The sum by name of values that are each divided by a number of their own. All values are read at once, as reading
    one waits for the device: so the next microbatch is told to a GPU while it computes the last one."""
    sums: dict[str, float] = defaultdict(float)
    values = [value.double().reshape(()).to(found[0][2].device) for _, _, value in found]
    read = torch.stack(values).tolist() if values else []
    for (name, count, _), value in zip(found, read, strict=True):
        sums[name] += value / count
    return sums


def last_of_its_kind(batches: Sequence[Microbatch], place: int) -> bool:
    """Whether the microbatch at ``place`` is the last of those that are divided by the same counts. The processes add
    up their gradients after it; they do not wait for the others, which may train other weights."""
    return all(later.counts.keys() != batches[place].counts.keys() for later in batches[place + 1:])
