"""Fine-tuning and reinforcement learning on a GPU against plain loops over transformers: SFT, DPO, PPO and GRPO.

    PYTHONPATH=src python benchmarks/gpu_rlhf.py [--sizes 0.5B 1.5B] [--methods sft dpo ppo grpo] [--seconds 500]
    PYTHONPATH=src python benchmarks/gpu_rlhf.py --tiny          # the same on a CPU in about a minute, to see that it
    works

Needs torch, numpy and transformers. Decoders with the shapes of Qwen2.5-0.5B and -1.5B, grouped heads and all, but with
random weights and a vocabulary of 32,000 (theirs is 151,936), so of 0.39 and 1.36 billion parameters. Both sides begin
with the same weights and learn from the same rows, of random tokens. Ours: trainer, objectives and sampling as the
stages put them together, eager, as many tokens at a time as
the stages take on that device, sampled in bf16 (which a recipe must ask for: one of the
further sides samples in float32). Theirs: Qwen2ForCausalLM with SDPA, fused AdamW, rows
padded to the longest of those that go through it at a time, under bf16 autocast over float32 weights; and with bf16
weights alone (no float32 copy: less exact, less work).

SFT and DPO: real tokens a second, where padding does not count and a prompt once for both its responses; eight updates
of 16,384 places after three that warm up. DPO's reference is measured in every update by theirs and before training by
ours, which counts too. PPO and GRPO: the seconds of an iteration and of its parts, prompts of 80 tokens with 128 new
ones: PPO of 64 responses, with a value model, 4 passes; GRPO of 8 responses to each of 16 prompts, one pass; each pass
of 2 updates. Scores are drawn, as judging is not measured.

MFU is the operations that are needed for real tokens, a prompt's once and logits of responses alone, whatever a side
computes besides (in PPO and GRPO: those of the updates, against their time) over those of a product
of 8192-square bf16 matrices measured in the same run. Each side runs in a process of its own, and its line is printed
as soon as it is there; one that fails is told and left out.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import time
from typing import Any

import common
import gpu_train
import torch

SIDES: dict[str, dict[str, Any]] = {
    "ours, autocast": {"precision": "bf16", "sampling": "bf16"},
    "transformers, autocast": {"weights": "float32"},
    "ours, bf16 weights": {"precision": "bf16-weights"},
    "transformers, bf16 weights alone": {"weights": "bfloat16"},
    "ours, autocast, not deterministic": {"precision": "bf16", "sampling": "bf16", "deterministic": False},
    "ours, autocast, compiled": {"precision": "bf16", "compile": True},
    "ours, sampling in float32": {"precision": "bf16", "sampling": "float32"},
}
USUAL = list(SIDES)[:4]
METHODS = ("sft", "dpo", "ppo", "grpo")


def belongs(side: str, method: str) -> bool:
    """Whether a side has something of its own to show in a method. A policy that learns from its own responses is never
    trained in bf16 weights here, and never compiled."""
    if method in ("sft", "dpo"):
        return side != "ours, sampling in float32"
    return side not in ("ours, bf16 weights", "ours, autocast, compiled")


def run(options: dict[str, Any]) -> dict[str, float]:
    """One side, in this process."""
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    if options["side"] == "limit":
        return {"operations": gpu_train.limit(device, 8192 if device.type == "cuda" else 256)}
    if options["side"].startswith("ours"):
        import gpu_rlhf_ours as side
    else:
        import gpu_rlhf_theirs as side  # type: ignore[no-redef]
    found: dict[str, float] = side.run(options, device)
    peak = torch.cuda.max_memory_allocated() if device.type == "cuda" else 0
    return found | {"peak_gigabytes": peak / 1e9}


def line_of(found: dict[str, float], limit: float | None) -> str:
    """A side's figures in one line."""
    figures = [f"{found['tokens_per_second']:,.0f} tokens/s"]
    figures += [f"{name.removesuffix('_seconds')} {value:.3f} s" for name, value in found.items()
                if name.endswith("_seconds")]
    if limit:
        figures.append(f"MFU {100 * found['operations_per_second'] / limit:.1f} %")
    return "  ".join([*figures, f"{found['peak_gigabytes']:.1f} GB"] + (
        [f"loss {found['loss']:.5f}"] if "loss" in found else []))


def compared(found: dict[str, dict[str, Any]], sizes: list[str], methods: list[str]) -> list[common.Result]:
    """Each of our sides against each of theirs, and the shares of the limit."""
    limit, results = found.get("limit", {}).get("operations"), []
    for size in sizes:
        for method in methods:
            here = {side: found[f"{size} {method} {side}"] for side in SIDES if f"{size} {method} {side}" in found}
            for mine in (side for side in here if side.startswith("ours")):
                results += [
                    common.Result(f"{size} {method}, {mine} against {other}", here[mine]["tokens_per_second"],
                                  here[other]["tokens_per_second"], "tokens/s")
                    for other in here if not other.startswith("ours")
                ]
            if limit:
                results += [
                    common.Result(f"{size} {method}, MFU, {side}", 100 * values["operations_per_second"] / limit, 100.0,
                                  "%") for side, values in here.items()
                ]
    return results


def main() -> None:
    """All sides in turn."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tiny", action="store_true", help="a tiny decoder on whatever there is")
    parser.add_argument("--sizes", nargs="+", default=["0.5B", "1.5B"], choices=["0.5B", "1.5B"])
    parser.add_argument("--methods", nargs="+", default=list(METHODS), choices=METHODS)
    parser.add_argument("--sides", nargs="+", default=USUAL, choices=list(SIDES), help="the first four unless given")
    parser.add_argument("--seconds", type=float, default=float("inf"), help="no new side begins after so many")
    parser.add_argument("--times", type=int, default=1, help="theirs takes so many times TRL's 8 rows at a time")
    parser.add_argument("--worker", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.worker:
        print(json.dumps(run(json.loads(options.worker))))
        return
    if not options.tiny and not torch.cuda.is_available():
        raise SystemExit("this benchmark needs a CUDA device; --tiny tries it without")
    peer = importlib.util.find_spec("transformers") is not None
    if not peer:
        print("transformers is not installed: its sides are left out", flush=True)
    sizes = ["tiny"] if options.tiny else options.sizes
    cases = {"limit": {"side": "limit"}} | {
        f"{size} {method} {side}": {"side": side, "size": size, "method": method, "times": options.times,
                                    **SIDES[side]}
        for size in sizes for method in options.methods for side in options.sides
        if belongs(side, method) and (peer or side.startswith("ours"))
    }
    begun, found = time.monotonic(), dict[str, dict[str, Any]]()
    for name, given in cases.items():
        if time.monotonic() - begun > options.seconds:
            print(f"{name}: left out, as {options.seconds:.0f} seconds are over", flush=True)
            continue
        at = time.monotonic()
        try:
            found[name] = common.call(__file__, given)
        except SystemExit as error:  # one side that fails, by want of memory say, does not take the others along
            print(f"{name}: failed: {str(error).strip().splitlines()[-1]}", flush=True)
            continue
        told = f"{found[name]['operations'] / 1e12:.1f} Tflop/s" if name == "limit" else line_of(
            found[name], found.get("limit", {}).get("operations"))
        print(f"{name}: {told}  ({time.monotonic() - at:.0f} s in all)", flush=True)
    results = compared(found, sizes, options.methods)
    if not results:
        raise SystemExit("nothing can be compared")
    gpu = {"gpu": torch.cuda.get_device_name(), "torch": torch.__version__} if torch.cuda.is_available() else {}
    common.report("gpu_rlhf", results, sides=found, **gpu)


if __name__ == "__main__":
    main()
