"""How a model is spread and sped up, applied from outside: activation checkpointing → compile → FSDP2 on a device mesh.

``torchrun`` starts the processes. Each holds a shard of every weight (Zhao et al. 2023; PyTorch's ``fully_shard``),
takes its slice of the global batch, and adds its sums to those of the others. With ``tensor_parallel`` each matrix of a
block is also cut across neighbouring processes (Shoeybi et al. 2019), which then share a slice of the batch.
"""

from __future__ import annotations

import copy
import functools
import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import TYPE_CHECKING, Any, TypeGuard, TypeVar

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from trivium.errors import TriviumError
from trivium.model.adapters import has_adapters
from trivium.model.foreign_models import ForeignTrunk, once_more
from trivium.model.transformer import Block
from trivium.training.precision import halve
from trivium.training.settings import Parallel as Parallel

if TYPE_CHECKING:  # a second and a half to import, which a lone process need not wait for
    from torch.distributed.device_mesh import DeviceMesh
    from torch.distributed.tensor import DTensor


@dataclass(frozen=True)
class World:
    """The processes of a run, as this one sees them."""

    rank: int = 0
    """This process."""
    size: int = 1
    """All processes."""
    mesh: DeviceMesh | None = None
    """Processes by (data, tensor); None when there is one."""

    @property
    def leader(self) -> bool:
        """Whether this process writes files."""
        return self.rank == 0

    @property
    def slice(self) -> tuple[int, int]:
        """Which slice of the global batch is this process's, and how many there are."""
        if self.mesh is None:
            return 0, 1
        return self.mesh["data"].get_local_rank(), self.mesh["data"].size()

    def add(self, values: Sequence[float], device: torch.device) -> list[float]:
        """The sum of each number over all slices of the batch."""
        if self.mesh is None:
            return list(values)
        total = torch.tensor(list(values), dtype=torch.float64, device=device)
        dist.all_reduce(total, group=self.mesh["data"].get_group())
        return [float(value) for value in total.tolist()]

    def agree(self, value: bool, device: torch.device) -> bool:
        """Whether ``value`` is true in every process."""
        if self.mesh is None:
            return value
        votes = torch.tensor(float(value), device=device)
        dist.all_reduce(votes, dist.ReduceOp.MIN)
        return bool(votes.item())

    def told(self, number: int, device: torch.device) -> int:
        """The first process's ``number``, in all of them."""
        if self.mesh is None:
            return number
        message = torch.tensor(number, device=device)
        dist.broadcast(message, 0)
        return int(message.item())

    def wait(self) -> None:
        """Until every process has come here."""
        if self.mesh is not None:
            dist.barrier()


def join(device: torch.device, tensor_parallel: int = 1) -> World:
    """This process among those that ``torchrun`` started; alone when it started none. Raises :class:`TriviumError`
    where ``tensor_parallel`` does not divide them."""
    size = int(os.environ.get("WORLD_SIZE", "1"))
    if size % tensor_parallel:
        raise TriviumError(
            f"tensor_parallel is {tensor_parallel}, which does not divide {size} processes; "
            "start a multiple of it with torchrun")
    if size == 1:
        return World()
    if not dist.is_initialized():
        if device.type == "cuda":
            torch.cuda.set_device(int(os.environ.get("LOCAL_RANK", "0")))
        dist.init_process_group("nccl" if device.type == "cuda" else "gloo", timeout=timedelta(hours=2))
    return World(dist.get_rank(), size, mesh_of(device.type, size, tensor_parallel))


def mesh_of(kind: str, size: int, tensor_parallel: int) -> DeviceMesh:
    """Processes by (data, tensor); neighbours share matrices."""
    from torch.distributed.device_mesh import init_device_mesh
    return init_device_mesh(kind, (size // tensor_parallel, tensor_parallel), mesh_dim_names=("data", "tensor"))


class Learner(nn.Module):
    """A model whose forward pass is an objective: so FSDP gathers the weights outside the blocks (embedding, output
    matrix) once for the model and its loss."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, objective: Any, batch: Any) -> Any:
        """The objective's totals."""
        return objective(self.model, batch)

    def share_gradients(self, now: bool) -> None:
        """Set whether the processes add up their gradients after the next backward pass: see
        :func:`trivium.training.trainer.last_of_its_kind`."""
        spread: Any = self
        if hasattr(spread, "set_requires_gradient_sync"):  # FSDP has taken the module over
            spread.set_requires_gradient_sync(now)


def blocks_of(model: nn.Module) -> list[Block]:
    """The blocks of all our Transformers in a model."""
    return [module for module in model.modules() if isinstance(module, Block)]


def foreign_layers_of(model: nn.Module) -> list[nn.Module]:
    """The layers of all Transformers of other families in a model."""
    return [layer for module in model.modules() if isinstance(module, ForeignTrunk) for layer in module.layers]


def prepare_model(model: nn.Module, settings: Parallel, world: World, precision: str, compiled: bool) -> Learner:
    """Apply the settings to ``model`` in place, and wrap it. With bf16 weights the spread ones are float32 masters of
    what FSDP gathers in bf16; a lone process keeps both. Otherwise float32 is gathered, for autocast computes as in a
    lone process. Raises :class:`TriviumError` for matrices that cannot be cut."""
    if precision == "bf16-weights" and world.mesh is None:
        halve(model)
    foreign = foreign_layers_of(model)
    if world.mesh is not None and settings.tensor_parallel > 1 and (
            any(isinstance(module, ForeignTrunk) for module in model.modules()) or has_adapters(model)):
        raise TriviumError(f"tensor_parallel is {settings.tensor_parallel}, but the matrices of other families, and "
                           "those with adapters, are not cut; leave it at 1")
    if settings.checkpoint_activations:
        for layer in foreign:
            once_more(layer)
    if compiled:
        # Before PyTorch 2.13 each block would be compiled anew, as its number is another, and from the ninth on none.
        import torch._dynamo.config
        torch._dynamo.config.allow_unspec_int_on_nn_module = True
    for block in blocks_of(model):
        if world.mesh is not None and settings.tensor_parallel > 1:
            split_matrices(block, world.mesh["tensor"])
        if settings.checkpoint_activations:
            again = functools.partial(checkpoint, block.forward, use_reentrant=False)
            block.forward = again  # type: ignore[method-assign]
        if compiled:
            compile_block(block)
    learner = Learner(model)
    if world.mesh is not None:
        from torch.distributed.fsdp import MixedPrecisionPolicy, fully_shard
        policy = MixedPrecisionPolicy() if precision != "bf16-weights" else MixedPrecisionPolicy(
            param_dtype=torch.bfloat16, reduce_dtype=torch.float32, cast_forward_inputs=False)
        part_frozen([*blocks_of(model), *foreign])
        for module in [*blocks_of(model), *foreign, learner]:
            fully_shard(module, mesh=world.mesh["data"], mp_policy=policy)
    return learner


def compile_block(block: Block) -> None:
    """Compile a block, once for all lines of tokens, which are of any length. A copy of it is not compiled."""
    block.compile()
    compiled: Any = block._compiled_call_impl

    def call(x: Tensor, *more: Any) -> Tensor:
        if x.shape[0] == 1:
            for along in (x, *more[:2]):  # with the cosines and sines of its positions
                torch._dynamo.maybe_mark_dynamic(along, along.ndim - 2)
        found: Tensor = compiled(x, *more)
        return found

    block._compiled_call_impl = call


def part_frozen(layers: Sequence[nn.Module]) -> None:
    """Where two models share frozen weights, let each layer have parameters of its own with the same contents: FSDP
    takes none twice."""
    seen: set[int] = set()
    for layer in layers:
        own = {id(weight) for weight in layer.parameters()}
        for module in layer.modules():
            for name, weight in list(module._parameters.items()):
                if weight is not None and id(weight) in seen and not weight.requires_grad:
                    module._parameters[name] = nn.Parameter(weight.detach(), requires_grad=False)
        seen |= own


def reshard(learner: Learner) -> None:
    """Give up what FSDP has gathered of the weights. A backward pass does so by itself; after a forward pass alone the
    weights outside the blocks would stay whole, in the format of the products, and be neither the optimizers' nor the
    checkpoints'."""
    for module in learner.modules():
        spread: Any = module
        if hasattr(spread, "reshard"):  # FSDP has taken the module over
            spread.reshard()


def split_matrices(block: Block, mesh: DeviceMesh) -> None:
    """Split a block's matrices over ``mesh``. The processes share out the heads and the inner width, and add up their
    results after attention and after the MLP. Raises :class:`TriviumError` where the mesh does not divide them."""
    from torch.distributed.tensor.parallel import ColwiseParallel, RowwiseParallel, SequenceParallel, parallelize_module
    config = block.self_attn
    heads, kv_heads = (getattr(config, name).out_features // config.head_dim for name in ("q_proj", "k_proj"))
    for name, count in (("heads", heads), ("kv_heads", kv_heads), ("intermediate_size",
                                                                   block.mlp.gate_proj.out_features)):
        if count % mesh.size():
            raise TriviumError(f"tensor_parallel is {mesh.size()}, which does not divide the model's {count} {name}")
    looks = [name for name in ("self_attn", "cross_attn") if hasattr(block, name)]
    plan: dict[str, Any] = {
        f"{look}.{name}": ColwiseParallel()
        for look in looks
        for name in ("q_proj", "k_proj", "v_proj")
    }
    plan |= {f"{look}.o_proj": RowwiseParallel() for look in looks} | {"mlp.down_proj": RowwiseParallel()}
    plan |= {f"mlp.{name}": ColwiseParallel() for name in ("gate_proj", "up_proj")}
    if config.qk_norm:  # their weights serve all heads, so their gradients are summed over the processes' heads
        plan |= {
            f"self_attn.{name}": SequenceParallel(sequence_dim=2, use_local_output=True)
            for name in ("q_norm", "k_norm")
        }
    parallelize_module(block, mesh, plan)


def is_spread(tensor: Any) -> TypeGuard[DTensor]:
    """Whether a tensor is spread over processes."""
    return hasattr(tensor, "device_mesh")


def by_mesh(tensors: Iterable[Any]) -> list[list[Any]]:
    """Tensors in groups that one operation can take together: those spread over the same processes."""
    groups: dict[Any, list[Any]] = {}
    for tensor in tensors:
        groups.setdefault(tensor.device_mesh if is_spread(tensor) else None, []).append(tensor)
    return list(groups.values())


def total_norm(tensors: Iterable[Tensor]) -> Tensor:
    """The Euclidean norm of all tensors as one vector."""
    norms = [whole(torch.nn.utils.get_total_norm(group)) for group in by_mesh(tensors)]
    return torch.stack(norms).norm() if len(norms) > 1 else norms[0]


def shard_like(tensor: Tensor, parameter: Tensor) -> Tensor:
    """This process's part of a tensor that all of them have, spread as ``parameter`` is."""
    if not is_spread(parameter):
        return tensor
    from torch.distributed.tensor import DTensor, Replicate
    mesh = parameter.device_mesh
    return DTensor.from_local(tensor, mesh, [Replicate()] * mesh.ndim,
                              run_check=False).redistribute(mesh, parameter.placements)


M = TypeVar("M", bound=nn.Module)


def hollow(model: M) -> M:
    """A copy of a model whose weights have no contents; those that are one in the model are one in it."""
    holders: list[nn.Module] = [model, *getattr(model, "whole", [])]  # of another family: its parts are the model's
    empty = {id(weight): nn.Parameter(torch.empty_like(weight, device="meta"), weight.requires_grad)
             for holder in holders for weight in holder.parameters()}
    return copy.deepcopy(model, empty)


def fill(model: nn.Module, weights: Mapping[str, Tensor]) -> None:
    """Give a hollow model contents, by the names of its weights."""
    made = {id(weight): nn.Parameter(weights[name], weight.requires_grad) for name, weight in model.named_parameters()}
    for module in model.modules():
        for name, weight in list(module._parameters.items()):
            if weight is not None:
                module._parameters[name] = made[id(weight)]


def whole(tensor: Tensor) -> Tensor:
    """A tensor put together from all its shards, or the tensor itself where it has none. Every process must call
    it."""
    return tensor.full_tensor() if is_spread(tensor) else tensor
