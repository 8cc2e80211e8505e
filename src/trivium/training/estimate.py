"""How much memory training needs, before any is taken: the training step itself, run on tensors without contents.

PyTorch's fake tensors have shapes and no memory; its tracker counts what would be alive. So the prediction follows the
model, the objective and the sharding as they are, and no formula has to be kept in step with them.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from trivium.training.batch import Batch
from trivium.training.loop import Objective
from trivium.training.machine import autocast
from trivium.training.optimizers import Optimization, make_optimizers
from trivium.training.parallel import Parallel, World, by_mesh, mesh_of, prepare_model, total_norm


@dataclass(frozen=True)
class Memory:
    """Bytes alive in one process when most are."""

    parameters: int
    gradients: int
    optimizer: int
    activations: int
    temporary: int
    """Results on their way, such as gradients of activations."""

    @property
    def total(self) -> int:
        """All of them."""
        return self.parameters + self.gradients + self.optimizer + self.activations + self.temporary


def estimate(make_model: Any, objective: Objective, batch: Batch, settings: Optimization, parallel: Parallel, precision: str,
             processes: int = 1) -> Memory:
    """The peak of a training step. ``make_model()`` gives the model; ``batch`` is one microbatch of one process."""
    import torch.distributed as dist
    from torch._subclasses.fake_tensor import FakeTensorMode
    from torch.distributed._tools.mem_tracker import MemTracker
    world = World()
    if processes > 1:
        dist.init_process_group("fake", rank=0, world_size=processes)
        world = World(0, processes, mesh_of("cpu", processes, parallel.tensor_parallel))
    try:
        with FakeTensorMode(allow_non_fake_inputs=True):
            model: nn.Module = make_model()
            learner = prepare_model(model, parallel, world, precision, compiled=False)
            optimizers = make_optimizers(model, settings)
            empty = {name: torch.empty_like(value) for name, value in vars(batch).items() if isinstance(value, Tensor)}
            fake = Batch(**empty, trees=batch.trees, counts=batch.counts,
                         extra={name: torch.empty_like(value) for name, value in batch.extra.items()})
            tracker = MemTracker()
            tracker.track_external(learner, *optimizers)
            with tracker:
                for _ in range(2):  # the optimizers' state is there from the second step on
                    tracker.reset_mod_stats()
                    with autocast(precision, torch.device("cpu")):
                        totals = learner(objective, fake)
                    torch.stack([totals[name].value for name in objective.weights]).sum().backward()  # type: ignore[no-untyped-call]
                    norm = total_norm(p.grad for p in model.parameters() if p.grad is not None)
                    for group in by_mesh(model.parameters()):
                        torch.nn.utils.clip_grads_with_norm_(group, 1.0, norm)
                    for optimizer in optimizers:
                        optimizer.step()
                    for parameter in model.parameters():
                        parameter.grad = None
                    del totals, norm
            peak = tracker.get_tracker_snapshot("peak")[torch.device("cpu")]
    finally:
        if processes > 1:
            dist.destroy_process_group()
    bytes_of = {str(getattr(kind, "value", kind)): int(size) for kind, size in peak.items()}
    return Memory(bytes_of.get("Parameter", 0), sum(bytes_of.get(k, 0) for k in ("Gradient", "Unsharded Grad", "Sharded Grad")),
                  bytes_of.get("Optstate", 0), bytes_of.get("Activation", 0),
                  bytes_of["Total"] - sum(bytes_of.get(k, 0) for k in ("Parameter", "Gradient", "Unsharded Grad", "Sharded Grad",
                                                                       "Optstate", "Activation")))
