"""What the machine at hand does best: its allocator, its cores, its number format."""

from __future__ import annotations

import contextlib
import ctypes
import os
from typing import Literal

import torch

from trivium.training.settings import Precision as Precision


def keep_freed_memory() -> None:
    """Ask glibc to keep large buffers for reuse. By default it returns each to the system, and every training step pays
    for that in page faults. Does nothing under another C library."""
    with contextlib.suppress(OSError, AttributeError):
        mallopt = ctypes.CDLL(None).mallopt
        mallopt(-3, 1 << 30)  # M_MMAP_THRESHOLD
        mallopt(-1, (1 << 31) - 1)  # M_TRIM_THRESHOLD
        mallopt(-2, 64 << 20)  # M_TOP_PAD


def give_back_freed_memory() -> None:
    """Hand what is free in glibc's heap to the system. Small tensors that stay, such as an adapter's gradients, cut what was freed into pieces into which
    the next forward pass may not fit, and the heap grows; given back, the pieces cost nothing. Does nothing under another C library."""
    with contextlib.suppress(OSError, AttributeError):
        ctypes.CDLL(None).malloc_trim(0)


def choose_precision(wanted: Precision, device: torch.device) -> Literal["float32", "bf16", "bf16-weights"]:
    """What is asked for; by ``auto``, ``bf16`` where the hardware multiplies it natively (a GPU; a CPU with AMX or AVX-512 bf16), else ``float32``:
    without those instructions bf16 products are emulated and several times slower."""
    if wanted != "auto":
        return wanted
    if device.type == "cpu":
        capabilities = torch.cpu.get_capabilities() if hasattr(torch.cpu, "get_capabilities") else {}
        native = any(capabilities.get(name, False) for name in ("amx_bf16", "avx512_bf16"))
        return "bf16" if native or torch.cpu._is_amx_tile_supported() else "float32"
    return "bf16" if device.type == "cuda" and torch.cuda.is_bf16_supported() else "float32"


def choose_device() -> torch.device:
    """This process's GPU (``LOCAL_RANK`` under ``torchrun``, else the first) when there is one, else the CPU."""
    return torch.device("cuda", int(os.environ.get("LOCAL_RANK", "0"))) if torch.cuda.is_available() else torch.device("cpu")


def autocast(precision: str, device: torch.device) -> contextlib.AbstractContextManager[object]:
    """The context in which float32 weights are used in ``precision``."""
    return contextlib.nullcontext() if precision == "float32" else torch.autocast(device.type, torch.bfloat16)


def prepare(threads: int | None = None) -> torch.device:
    """Set the process up for training: allocator, cores, deterministic kernels. Returns the device."""
    os.environ.setdefault("MKL_CBWR", "AUTO")  # read at the first product: the same bits in every process of as many threads
    keep_freed_memory()
    if threads:
        torch.set_num_threads(threads)
    torch.use_deterministic_algorithms(True, warn_only=True)
    # A guard against reading what was never written costs 3 %; torch sets this name at run time, so type checkers miss it.
    torch.utils.deterministic.fill_uninitialized_memory = False  # type: ignore[attr-defined]
    return choose_device()
