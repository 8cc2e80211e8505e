"""How much memory training needs, before any is taken: the training step itself, run on tensors without contents.

PyTorch's fake tensors have shapes and no memory; its tracker counts what would be alive. So the prediction follows the
model, the objective and the sharding as they are, and no formula has to be kept in step with them.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any

import torch
from torch import Tensor, nn

from trivium.training.batch import Batch
from trivium.training.checkpoint import state_of
from trivium.training.objective import Objective
from trivium.training.optimizers import Optimization
from trivium.training.parallel import Parallel, World, by_mesh, is_spread, mesh_of, total_norm
from trivium.training.precision import follow_masters, master_of, masters
from trivium.training.settings import NumberFormat
from trivium.training.trainer import Trainer, last_of_its_kind


@dataclass(frozen=True)
class Memory:
    """Bytes alive in one process when most are."""

    parameters: int
    """Weights, the frozen ones and those of models that are only run among them; with bf16 weights their masters
    too."""
    gradients: int
    optimizer: int
    activations: int
    temporary: int
    """Results on their way, such as gradients of activations."""
    checkpoint: int = 0
    """The copy that a checkpoint is written from, for the time of a save: in the machine's memory, and no part of the
    total."""

    @property
    def total(self) -> int:
        """All of a step."""
        return self.parameters + self.gradients + self.optimizer + self.activations + self.temporary


def estimate(make_models: Callable[[], tuple[nn.Module, Sequence[nn.Module]]], objective: Objective,
             batches: Sequence[Batch], settings: Optimization, parallel: Parallel, precision: NumberFormat,
             processes: int = 1) -> Memory:
    """The peak of a training step. ``make_models()`` gives the model that is trained and those that are held beside it;
    ``batches`` are the microbatches of one process (of many alike, two are enough: the gradients of the first are there
    in the second)."""
    import torch.distributed as dist
    from torch._subclasses.fake_tensor import FakeTensorMode
    world = World()
    if processes > 1:
        dist.init_process_group("fake", rank=0, world_size=processes)
        world = World(0, processes, mesh_of("cpu", processes, parallel.tensor_parallel))
    try:
        with FakeTensorMode(allow_non_fake_inputs=True):
            model, beside = make_models()
            trainer = Trainer(model, settings, 1, precision, parallel, world)
            fakes = [without_contents(batch) for batch in batches]
            tracker = tracker_of(trainer, beside)
            with tracker:
                for _ in range(2):  # the optimizers' state is there from the second step on
                    for place, fake in enumerate(fakes):
                        tracker.reset_mod_stats()
                        trainer.learner.share_gradients(last_of_its_kind(fakes, place))
                        with trainer.in_precision():
                            totals = trainer.learner(objective, fake)
                        torch.stack([totals[name].value for name in objective.weights
                                     if name in totals]).sum().backward()  # type: ignore[no-untyped-call]
                        del totals
                    moved = [weight for _, weight in masters(model) if weight.grad is not None]
                    norm = total_norm(weight.grad for weight in moved if weight.grad is not None)
                    for group in by_mesh(moved):
                        torch.nn.utils.clip_grads_with_norm_(group, 1.0, norm)
                    for optimizer in trainer.optimizers:
                        optimizer.step()
                    follow_masters(model)
                    for weight in moved:
                        weight.grad = None
                    del norm
            peak = tracker.get_tracker_snapshot("peak")[torch.device("cpu")]
            copied = sum((tensor.to_local() if is_spread(tensor) else tensor).nbytes
                         for _, tensor in state_of(model, trainer.optimizers))
    finally:
        if processes > 1:
            dist.destroy_process_group()
    bytes_of = {str(getattr(kind, "value", kind)): int(size) for kind, size in peak.items()}

    def together(*kinds: str) -> int:
        return sum(bytes_of.get(kind, 0) for kind in kinds)

    found = (together("Parameter", "Other"), together("Gradient", "Unsharded Grad",
                                                      "Sharded Grad"), together("Optstate"), together("Activation"))
    return Memory(*found, bytes_of["Total"] - sum(found), copied)


def without_contents(batch: Batch) -> Batch:
    """The shapes of a batch; call it within a fake mode."""
    empty = {name: torch.empty_like(value) for name, value in vars(batch).items() if isinstance(value, Tensor)}
    return Batch(**empty, trees=batch.trees, counts=batch.counts, plain=batch.plain,
                 extra={name: torch.empty_like(value)
                        for name, value in batch.extra.items()})


def tracker_of(trainer: Trainer, beside: Sequence[nn.Module]) -> Any:
    """PyTorch's tracker, which knows the trainer's weights and states. It wants to follow the gradient of every weight:
    of a frozen one there is none, and that of a bf16 weight is its master's."""
    from torch.distributed._tools.mem_tracker import MemTracker, _MemRefType
    tracker = MemTracker()
    weights = list(trainer.model.parameters())
    tracker.track_external(trainer.learner, *beside, *trainer.optimizers,
                           *(master_of(weight) for weight in weights if hasattr(weight, "master")))
    none = SimpleNamespace(remove=lambda: None)

    def found(weight: Tensor) -> None:
        gradient = master_of(weight).grad
        assert gradient is not None
        tracker._update_and_maybe_create_winfos(gradient, _MemRefType.GRAD)

    track = tracker._track_module_params_and_buffers

    def with_frozen(module: nn.Module, install_grad_hooks: bool = True) -> tuple[int, int]:
        for weight in module.parameters():  # of spread weights these are others than before
            if not weight.requires_grad:
                tracker._param_to_grad_hook_handles[weight] = (none, none)
        return track(module, install_grad_hooks)

    tracker._track_module_params_and_buffers = with_frozen  # type: ignore[method-assign]
    for weight in weights:
        if hasattr(weight, "master"):
            tracker._param_to_grad_hook_handles[weight] = (none, none)
        if hasattr(weight, "master") and weight.requires_grad:
            weight.register_post_accumulate_grad_hook(found)  # type: ignore[no-untyped-call]
    return tracker
