"""Peak memory of the loss at a vocabulary of 152k and 8k tokens: in pieces against all logits at once.

    python benchmarks/memory.py [--quick]

A minute on two cores. Each side runs in a process of its own, from the same hidden states and output matrix, and must
find the same loss. Two figures: the process's peak, libraries, inputs and gradients included, and what the loss and its
gradients add to what was held before. All logits at once take 15 GB; where less is free, fewer tokens are compared, and
how many is said in the table.
"""

from __future__ import annotations

import contextlib
import json
import math
import os
import sys
from pathlib import Path
from typing import Any

import common


def run(options: dict[str, Any]) -> dict[str, float]:
    """One loss and its gradient, in this process: the peak of its memory and how much was added to what it held, in
    bytes."""
    import torch
    import torch.nn.functional as F

    from trivium.objectives.language_modeling import token_log_probs
    from trivium.training.machine import prepare
    prepare()
    torch.manual_seed(0)
    hidden = torch.randn(options["tokens"], 256, requires_grad=True)
    # larger ones make probabilities that a float hardly holds
    weight = torch.nn.init.normal_(torch.empty(options["vocabulary"], 256, requires_grad=True), std=0.02)
    targets = torch.randint(0, options["vocabulary"], (options["tokens"],))
    (torch.randn(64, 64, requires_grad=True) @ torch.randn(64, 64)).sum().backward()  # what the libraries take once
    with contextlib.suppress(OSError):
        Path("/proc/self/clear_refs").write_text("5")  # forget the peak so far: importing may have had a higher one
    before = resident("VmRSS")
    if options["side"] == "ours":
        loss = -token_log_probs(hidden, weight, targets).mean()
    else:
        loss = F.cross_entropy(F.linear(hidden, weight).float(), targets)
    loss.backward()
    peak = resident("VmHWM")
    return {"peak": peak, "added": peak - before, "loss": loss.item()}


def resident(name: str) -> float:
    """This process's memory in RAM, in bytes: VmRSS now, VmHWM at its highest."""
    line = next(line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith(name))
    return 1024.0 * int(line.split()[1])


def main() -> None:
    """Both sides in turn."""
    options = common.arguments(__doc__ or "")
    if options.worker:
        print(json.dumps(run(json.loads(options.worker))))
        return
    vocabulary = 151_936
    free = os.sysconf("SC_AVPHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    size = {
        "tokens": min(512 if options.quick else 8192, int(0.8 * free / (3 * 4 * vocabulary))), "vocabulary": vocabulary
    }

    ours, theirs = (common.call(__file__, {**size, "side": name}, sys.executable) for name in ("ours", "all"))
    if not math.isclose(ours["loss"], theirs["loss"], rel_tol=1e-4):
        raise SystemExit(f"the two sides disagree: {ours['loss']} and {theirs['loss']}")
    case = f"loss over {size['tokens']} tokens x {size['vocabulary']}"
    common.report("memory", [
        common.Result(f"{case}, {words}", ours[name] / 2**20, theirs[name] / 2**20, "MiB", 4.0, lower_is_better=True)
        for name, words in (("peak", "peak of the process"), ("added", "added by it"))
    ], loss=ours["loss"])


if __name__ == "__main__":
    main()
