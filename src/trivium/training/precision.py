"""bf16 weights with float32 masters (Micikevicius et al. 2018, section 3.1), and which way to use bf16 is the faster one here.

The forward and backward pass read weights in bf16; gradients are added up, and weights moved, in float32, as a step is often
smaller than bf16's spacing of 1/256 of a weight. Of weights that are spread over processes FSDP keeps float32 shards and gathers
them in bf16, which is the same.
"""

from __future__ import annotations

import contextlib
import json
import os
import platform
import statistics
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Literal

import torch
from torch import Tensor, nn

from trivium.files import write_json
from trivium.model.config import ModelConfig
from trivium.training.settings import Optimization, Parallel

Bf16 = Literal["bf16", "bf16-weights"]


def halve(model: nn.Module) -> None:
    """Put a bf16 copy in the place of every weight of ``model``. The weights themselves become the masters: the optimizers' and
    the checkpoints', to which every gradient is moved as soon as it is there."""
    copies: dict[int, nn.Parameter] = {}
    for module in model.modules():
        for name, weight in list(module._parameters.items()):
            if weight is None or hasattr(weight, "master"):
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
    halved: list[Tensor] = [weight for weight in model.parameters() if hasattr(weight, "master") and weight.requires_grad]
    if halved:
        torch._foreach_copy_(halved, [master_of(weight) for weight in halved])


def faster_bf16(device: torch.device) -> Bf16:
    """Which of autocast and bf16 weights trains faster on this machine: measured once, within seconds, and kept in the user's cache
    by the machine's name, so that all later runs here decide alike."""
    kept = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "trivium" / "bf16.json"
    machine = f"{machine_name(device)}, {torch.get_num_threads()} threads, torch {torch.__version__}"
    found: dict[str, Bf16] = {}
    with contextlib.suppress(OSError, ValueError):
        found = dict(json.loads(kept.read_bytes()))
    if found.get(machine) not in ("bf16", "bf16-weights"):
        seconds = measure_bf16(device)
        found[machine] = min(seconds, key=seconds.__getitem__)
        with contextlib.suppress(OSError):
            kept.parent.mkdir(parents=True, exist_ok=True)
            write_json(kept, found)
    return found[machine]


def machine_name(device: torch.device) -> str:
    """The GPU's name, or the processor's."""
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    with contextlib.suppress(OSError):
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()


def measure_bf16(device: torch.device, rounds: int = 5) -> dict[Bf16, float]:
    """The median time in seconds of an update of a small model, both ways in turn, after one that warms up."""
    import numpy as np

    from trivium.model.transformer import LanguageModel
    from trivium.training.batch import Tree, make_batch
    from trivium.training.loop import Trainer
    from trivium.training.next_token import LanguageModelling
    width, length = (2048, 2048) if device.type == "cuda" else (384, 256)
    config = ModelConfig(vocab_size=8192, hidden_size=width, intermediate_size=8 * width // 3, num_layers=2, num_heads=width // 64,
                         num_kv_heads=width // 64, head_dim=64, max_positions=length)
    batch = make_batch([[Tree(np.zeros(1, np.int64), (np.arange(length - 1) % 8192,))] for _ in range(4)], length)
    ways: tuple[Bf16, Bf16] = ("bf16", "bf16-weights")
    trainers = {way: Trainer(LanguageModel(config).initialise(0).to(device), Optimization(), rounds + 1, way, Parallel()) for way in ways}
    seen: dict[Bf16, list[float]] = {way: [] for way in ways}
    for number in range(rounds + 1):
        for way, trainer in trainers.items():
            begun = time.perf_counter()
            trainer.step(number, [batch], LanguageModelling())  # ends with numbers on the CPU, so with an idle GPU
            seen[way].append(time.perf_counter() - begun)
    return {way: statistics.median(times[1:]) for way, times in seen.items()}
