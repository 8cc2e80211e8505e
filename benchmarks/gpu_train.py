"""Training on a GPU: tokens a second, the share of the matrix products' speed (MFU), and the ratio to transformers.

    PYTHONPATH=src python benchmarks/gpu_train.py [--rows 4] [--steps 15] [--sides limit ours ...]
    PYTHONPATH=src python benchmarks/gpu_train.py --tiny          # the same on a CPU in about a minute, to see that it
    works

Needs torch, safetensors, tokenizers and numpy; the peer also needs transformers, and is left out without it. A decoder
of 1.3 billion parameters, sequences of 4,096 tokens, one document in each, fused AdamW, the gradient clipped. Ours:
autocast, bf16 weights with float32 masters, the latter with activation checkpointing, and without deterministic
kernels, which the package asks for as it is. Theirs: LlamaForCausalLM with SDPA, compiled, under bf16 autocast; and
with bf16 weights alone (no float32 copy: less exact, less work). Every side runs in a process of its own.

MFU counts the products of the model, forward and backward (6 a parameter and token, the embedding left out), and half
of attention's square, as it is causal; nothing for what checkpointing computes twice. It is given against a product of
8192-square bf16 matrices measured in the same run.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import statistics
import sys
import time
from collections.abc import Callable
from typing import Any

import common
import torch

SHAPES = {  # layers, width, inner width, heads, vocabulary, tokens in a sequence
    "1.3B": (24, 2048, 5504, 16, 32000, 4096),
    "tiny": (2, 64, 128, 2, 256, 64),
}
OURS: dict[str, dict[str, Any]] = {
    "ours, bf16 weights": {"precision": "bf16-weights"},
    "ours, autocast": {"precision": "bf16"},
    "ours, bf16 weights, checkpointing": {"precision": "bf16-weights", "checkpoint": True},
    "ours, bf16 weights, not deterministic": {"precision": "bf16-weights", "deterministic": False},
}
THEIRS: dict[str, dict[str, Any]] = {
    "transformers, autocast": {"weights": "float32"},
    "transformers, bf16 weights alone": {"weights": "bfloat16"},
}


def operations(shape: tuple[int, ...]) -> float:
    """Floating-point operations for one token, forward and backward."""
    layers, width, inner, _, vocabulary, length = shape
    return 6.0 * (layers * (4 * width * width + 3 * width * inner) + width * vocabulary) + 6.0 * layers * length * width


def wait(device: torch.device) -> None:
    """Until the GPU has done what it was told."""
    if device.type == "cuda":
        torch.cuda.synchronize()


def limit(device: torch.device, size: int) -> float:
    """Floating-point operations a second of a product of square bf16 matrices with random contents: the median of
    ten."""
    a, b = (torch.randn(size, size, device=device, dtype=torch.bfloat16) for _ in range(2))
    seen = []
    for _ in range(13):
        wait(device)
        begun = time.perf_counter()
        a @ b
        wait(device)
        seen.append(time.perf_counter() - begun)
    return 2.0 * size**3 / statistics.median(seen[3:])


def ours(options: dict[str, Any], tokens: torch.Tensor, device: torch.device) -> Callable[[int], Any]:
    """An update by this package's loop."""
    import numpy as np

    from trivium.model import LanguageModel, ModelConfig
    from trivium.training.batch import Tree, make_batch
    from trivium.training.machine import prepare
    from trivium.training.next_token import LanguageModeling
    from trivium.training.settings import Optimization, Parallel
    from trivium.training.trainer import Trainer
    prepare()
    if not options.get("deterministic", True):
        torch.use_deterministic_algorithms(False)
    layers, width, inner, heads, vocabulary, length = SHAPES[options["size"]]
    with device:
        model = LanguageModel(
            ModelConfig(vocab_size=vocabulary, hidden_size=width, intermediate_size=inner, num_layers=layers,
                        num_heads=heads, num_kv_heads=heads, head_dim=width // heads, max_positions=length,
                        qk_norm=False, tie_embeddings=False)).initialise(0)
    trainer = Trainer(model, Optimization(learning_rate=1e-4), 10**6, options["precision"],
                      Parallel(checkpoint_activations=options.get("checkpoint", False)), compiled=options["compile"])
    batch = make_batch([[Tree(np.array(row[:1]), (np.array(row[1:]),))] for row in tokens.numpy()], length)
    return lambda number: trainer.step(number, [batch], LanguageModeling())["loss"]


def theirs(options: dict[str, Any], tokens: torch.Tensor, device: torch.device) -> Callable[[int], Any]:
    """An update by a plain loop over transformers' Llama."""
    from transformers import LlamaConfig, LlamaForCausalLM
    layers, width, inner, heads, vocabulary, length = SHAPES[options["size"]]
    with device:
        model: Any = LlamaForCausalLM(
            LlamaConfig(vocab_size=vocabulary, hidden_size=width, intermediate_size=inner, num_hidden_layers=layers,
                        num_attention_heads=heads, num_key_value_heads=heads, max_position_embeddings=length,
                        tie_word_embeddings=False, use_cache=False, attn_implementation="sdpa"))
    model.to(getattr(torch, options["weights"])).train()
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-4, fused=True)
    forward = torch.compile(model) if options["compile"] else model
    there = tokens.to(device)

    def step(number: int) -> float:
        with torch.autocast(device.type, torch.bfloat16, enabled=options["weights"] == "float32"):
            loss = forward(input_ids=there, labels=there).loss
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad()
        return float(loss)

    return step


def run(options: dict[str, Any]) -> dict[str, float]:
    """One side, in this process."""
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    if options["side"] == "limit":
        return {"operations": limit(device, 8192 if device.type == "cuda" else 256)}
    shape = SHAPES[options["size"]]
    tokens = torch.randint(0, shape[4], (options["rows"], shape[5]), generator=torch.Generator().manual_seed(0))
    begun = time.perf_counter()
    step = (ours if options["side"] in OURS else theirs)(options, tokens, device)
    for number in range(3):
        step(number)
    wait(device)
    warm = time.perf_counter()
    times, loss = [], 0.0
    for number in range(options["steps"]):
        at = time.perf_counter()
        loss = step(3 + number)
        wait(device)
        times.append(time.perf_counter() - at)
    return {
        "tokens_per_second": tokens.numel() / statistics.median(times), "warm_up_seconds": warm - begun, "loss": loss,
        "peak_bytes": float(torch.cuda.max_memory_allocated()) if device.type == "cuda" else 0.0
    }


def main() -> None:
    """All sides in turn."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tiny", action="store_true", help="a tiny decoder, eager, on whatever there is")
    parser.add_argument("--rows", type=int, default=4, help="sequences in a batch")
    parser.add_argument("--steps", type=int, default=15, help="updates that are timed, after three that warm up")
    parser.add_argument("--sides", nargs="+", choices=["limit", *OURS, *THEIRS], help="only these")
    parser.add_argument("--worker", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.worker:
        print(json.dumps(run(json.loads(options.worker))))
        return
    if not options.tiny and not torch.cuda.is_available():
        raise SystemExit("this benchmark needs a CUDA device; --tiny tries it without")
    peer = importlib.util.find_spec("transformers") is not None
    if not peer:
        print("transformers is not installed: its sides are left out")
    sides = options.sides or ["limit", *OURS, *(THEIRS if peer else {})]
    size = "tiny" if options.tiny else "1.3B"
    found: dict[str, dict[str, Any]] = {}
    for side in sides:
        given = {
            "side": side, "size": size, "rows": options.rows, "steps": options.steps, "compile": not options.tiny,
            **(OURS | THEIRS).get(side, {})
        }
        try:
            found[side] = common.call(__file__, given)
        except SystemExit as error:  # one side that fails, by want of memory say, does not take the others along
            print(f"{side}: failed\n{error}", file=sys.stderr)
            continue
        print(f"{side}: {json.dumps(found[side])}", flush=True)
    mine = {side: found[side] for side in OURS if side in found}
    if not mine:
        raise SystemExit("none of our own sides ran")
    best = max(mine, key=lambda side: mine[side]["tokens_per_second"])
    speed = mine[best]["tokens_per_second"]
    results = []
    if "limit" in found:
        for side in [*mine, *(side for side in THEIRS if side in found)]:
            share = 100 * found[side]["tokens_per_second"] * operations(SHAPES[size]) / found["limit"]["operations"]
            results.append(
                common.Result(f"{size}, MFU, {side}", share, 100.0, "%", 55.0 / 100 if side in OURS else None))
    results += [
        common.Result(f"{size}, {best} against {side}", speed, found[side]["tokens_per_second"], "tokens/s")
        for side in THEIRS if side in found
    ]
    if not results:
        results = [
            common.Result(f"{size}, {best} against {side}", speed, values["tokens_per_second"], "tokens/s")
            for side, values in mine.items()
        ]
    gpu = {"gpu": torch.cuda.get_device_name(), "torch": torch.__version__} if torch.cuda.is_available() else {}
    common.report("gpu_train", results, sides=found, operations_per_token=operations(SHAPES[size]), **gpu)


if __name__ == "__main__":
    main()
