"""What the machine at hand does best: its allocator, its cores, its number format."""

from __future__ import annotations

import contextlib
import ctypes
import os
from typing import get_args

import torch

from trivium.errors import TriviumError
from trivium.training.settings import NumberFormat
from trivium.training.settings import Precision as Precision

AUTO = "TRIVIUM_AUTO_PRECISION"
"""The environment variable that says what the precision ``auto`` means, whatever the hardware."""


def keep_freed_memory() -> None:
    """Ask glibc to keep large buffers for reuse. By default it returns each to the system, and every training step pays
    for that in page faults. Does nothing under another C library."""
    with contextlib.suppress(OSError, AttributeError):
        mallopt = ctypes.CDLL(None).mallopt
        mallopt(-3, 1 << 30)  # M_MMAP_THRESHOLD
        mallopt(-1, (1 << 31) - 1)  # M_TRIM_THRESHOLD
        mallopt(-2, 64 << 20)  # M_TOP_PAD


def give_back_freed_memory() -> None:
    """Hand what is free in glibc's heap to the system. Small tensors that stay, such as an adapter's gradients, cut
    what was freed into pieces into which the next forward pass may not fit, and the heap grows; given back, the pieces
    cost nothing. Does nothing under another C library."""
    with contextlib.suppress(OSError, AttributeError):
        ctypes.CDLL(None).malloc_trim(0)


def resolve_precision(wanted: Precision, device: torch.device) -> NumberFormat:
    """What is asked for; by ``auto`` what the environment variable :data:`AUTO` says, else ``bf16`` where the hardware
    multiplies it natively (a GPU; a CPU with AMX or AVX-512 bf16) and ``float32`` where such products would be
    emulated, several times slower. No clock has a say: equal machines decide alike. Raises :class:`TriviumError` for a
    variable that names no number format."""
    if wanted != "auto":
        return wanted
    forced = os.environ.get(AUTO)
    if forced is not None:
        found = next((kind for kind in get_args(NumberFormat) if kind == forced), None)
        if found is None:
            raise TriviumError(f"{AUTO} is {forced!r}; it may be {', '.join(get_args(NumberFormat))}, or not be set")
        return found
    return "bf16" if multiplies_bf16(device) else "float32"


def multiplies_bf16(device: torch.device) -> bool:
    """Whether a device has instructions for bf16 products."""
    if device.type == "cpu":
        capabilities = torch.cpu.get_capabilities() if hasattr(torch.cpu, "get_capabilities") else {}
        return any(capabilities.get(name, False)
                   for name in ("amx_bf16", "avx512_bf16")) or torch.cpu._is_amx_tile_supported()
    return device.type == "cuda" and torch.cuda.is_bf16_supported()


def choose_device() -> torch.device:
    """This process's GPU (``LOCAL_RANK`` under ``torchrun``, else the first) when there is one, else the CPU."""
    return torch.device("cuda", int(os.environ.get("LOCAL_RANK",
                                                   "0"))) if torch.cuda.is_available() else torch.device("cpu")


def sent(tensor: torch.Tensor, device: torch.device) -> torch.Tensor:
    """A tensor on another device. To a GPU it goes from page-locked memory: a copy from any other waits until the GPU
    has done all that it was told before."""
    if device.type == "cuda" and tensor.device.type == "cpu":
        return tensor.pin_memory().to(device, non_blocking=True)
    return tensor.to(device)


def autocast(precision: str, device: torch.device) -> contextlib.AbstractContextManager[object]:
    """The context in which float32 weights are used in ``precision``."""
    return contextlib.nullcontext() if precision == "float32" else torch.autocast(device.type, torch.bfloat16)


def prepare(threads: int | None = None) -> torch.device:
    """Set the process up for training: allocator, cores, deterministic kernels. Returns the device."""
    # read at the first product: the same bits in every process of as many threads
    os.environ.setdefault("MKL_CBWR", "AUTO")
    keep_freed_memory()
    if threads:
        torch.set_num_threads(threads)
    torch.use_deterministic_algorithms(True, warn_only=True)
    # A guard against reading what was never written costs 3 %; torch sets this name at run time, so type checkers miss
    # it.
    torch.utils.deterministic.fill_uninitialized_memory = False  # type: ignore[attr-defined]
    return choose_device()
