"""GPUs, as their makers' data sheets describe them, and how much of that a whole run reaches."""

from __future__ import annotations

import math
from dataclasses import dataclass

from trivium.errors import TriviumError, nearest


@dataclass(frozen=True)
class Gpu:
    """One accelerator."""

    name: str
    peak: float
    """Dense 16-bit floating-point operations a second in matrix products (bf16; fp16 where there is no bf16),
    accumulated in float32; the larger figures that data sheets give for sparse matrices are halved."""
    memory: float
    """Bytes."""
    bandwidth: float
    """Bytes a second between memory and processor."""
    watts: float
    """Highest board power."""
    source: str
    reached: float = 1.0
    """What whole runs reached on it, relative to the rule of :func:`utilization`, where that is published."""


TERA, GB = 1e12, 1e9

GPUS: dict[str, Gpu] = {gpu.name: gpu for gpu in (
    Gpu("t4", 65 * TERA, 16 * GB, 320 * GB, 70, "NVIDIA T4 data sheet (fp16)"),
    Gpu("v100", 125 * TERA, 32 * GB, 900 * GB, 300, "NVIDIA V100 data sheet (SXM2, fp16)", reached=0.70),
    Gpu("a10", 125 * TERA, 24 * GB, 600 * GB, 150, "NVIDIA A10 data sheet"),
    Gpu("a100-40", 312 * TERA, 40 * GB, 1555 * GB, 400, "NVIDIA A100 data sheet (SXM)"),
    Gpu("a100", 312 * TERA, 80 * GB, 2039 * GB, 400, "NVIDIA A100 data sheet (SXM, 80 GB)"),
    Gpu("l4", 121 * TERA, 24 * GB, 300 * GB, 72, "NVIDIA L4 data sheet"),
    Gpu("l40s", 362 * TERA, 48 * GB, 864 * GB, 350, "NVIDIA L40S data sheet"),
    Gpu("h100-pcie", 756 * TERA, 80 * GB, 2000 * GB, 350, "NVIDIA H100 data sheet (PCIe)"),
    Gpu("h100", 989 * TERA, 80 * GB, 3350 * GB, 700, "NVIDIA H100 data sheet (SXM)"),
    Gpu("h200", 989 * TERA, 141 * GB, 4800 * GB, 700, "NVIDIA H200 data sheet (SXM)"),
    Gpu("b200", 2250 * TERA, 180 * GB, 8000 * GB, 1000, "NVIDIA HGX B200 data sheet, an eighth of it"),
    Gpu("rtx3090", 71 * TERA, 24 * GB, 936 * GB, 350, "NVIDIA Ampere GA102 architecture paper"),
    Gpu("rtx4090", 165 * TERA, 24 * GB, 1008 * GB, 450, "NVIDIA Ada architecture paper"),
    Gpu("rtx5090", 209 * TERA, 32 * GB, 1792 * GB, 575, "NVIDIA Blackwell RTX architecture paper"),
    Gpu("mi250x", 383 * TERA, 128 * GB, 3277 * GB, 560, "AMD Instinct MI250X data sheet"),
    Gpu("mi300x", 1307 * TERA, 192 * GB, 5300 * GB, 750, "AMD Instinct MI300X data sheet"),
)}
"""Known GPUs by name."""

HOST = 1.1
"""Power of a server beside its GPUs' boards, as a factor (GPT-3: 330 W a 300 W board; Patterson et al. 2021, table
4)."""

PUE = 1.1
"""Power of a data centre beside its servers, as a factor (the same table)."""


def gpu_named(name: str) -> Gpu:
    """A GPU of the table, however its name is spelt: ``H100``, ``RTX 4090``, ``a100-80``. Raises :class:`TriviumError`
    with the nearest."""
    plain = name.lower().replace(" ", "").replace("_",
                                                  "-").removeprefix("nvidia-").removesuffix("-sxm").removesuffix("-80")
    if plain not in GPUS:
        raise TriviumError(f"--gpu {name}: unknown{nearest(plain, GPUS)}")
    return GPUS[plain]


def utilization(gpu: Gpu, count: int, parameters: float) -> float:
    """The share of the GPUs' peak that a whole pretraining run gets done, restarts and waiting included.

    On one machine of up to eight GPUs 45 % (nanochat's logs show 45 to 48 %). On a cluster 17 % for 8 billion
    parameters, and 8.5 points more for each tenfold: small models leave a large cluster waiting for its network. The
    two numbers were fitted to the GPU-hours that Meta gives for five models, so they are no better than those, and no
    promise for another cluster.
    """
    if count <= 8:
        return 0.45 * gpu.reached
    return min(0.35, max(0.15, 0.17 + 0.085 * math.log10(parameters / 8e9))) * gpu.reached
