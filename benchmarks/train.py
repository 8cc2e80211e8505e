"""Pretraining against a plain PyTorch loop over transformers' Llama, and the share of the machine's own limit.

    python benchmarks/train.py [--quick] [--rounds 2] [--only 7M]

About five minutes on two cores. 7M and 50M parameters (the latter in half as many rounds); the peer is eager float32
and compiled bf16 autocast with SDPA and fused AdamW, padded to nothing (all rows are full), so that only the loop and
the model are compared: the same tokens, the same targets, gradients clipped at 1 on both sides. It keeps no keys and
values for sampling, and compiled it is run once more with glibc told to keep large buffers, as ours does by itself: the
case (tuned). Of ours the fastest way is what is compared. Where the processor multiplies bf16, ours is run under
autocast and with bf16 weights. The limit is a product of 2048-square matrices in the format that is used.
"""

from __future__ import annotations

import json
import sys
import time
from typing import Any

import common

SHAPES = {  # parameters: layers, width, inner width, heads, vocabulary, rows of 256
    "7M": (6, 256, 688, 4, 4096, 16),
    "50M": (12, 512, 1376, 8, 8192, 8),
}


STEPS = {"7M": (6, 3), "50M": (3, 2)}  # updates that are timed: as it is, and with --quick


def floating_point_operations(shape: tuple[int, ...], length: int) -> float:
    """Those of the matrix products and of attention for one token, forward and backward (Kaplan et al. 2020; attention
    counted causal)."""
    layers, width, inner, _, vocabulary, _ = shape
    matrices = layers * (4 * width * width + 3 * width * inner) + width * vocabulary
    return 6.0 * matrices + 6.0 * layers * length * width


def run(options: dict[str, Any]) -> dict[str, float]:
    """One side, in this process."""
    import torch
    layers, width, inner, heads, vocabulary, rows = SHAPES[options["size"]]
    length = 256
    if options["side"] == "limit":
        return {"flops": limit(options["bf16"])}
    tokens = torch.randint(0, vocabulary, (rows, length), generator=torch.Generator().manual_seed(0))
    if options["side"] == "ours":
        import numpy as np

        from trivium.model import LanguageModel, ModelConfig
        from trivium.stages.pretraining.pretrain import LanguageModeling
        from trivium.training.batch import Tree, make_batch
        from trivium.training.machine import prepare, resolve_precision
        from trivium.training.optimizers import Optimization
        from trivium.training.trainer import Trainer
        device = prepare()
        model = LanguageModel(
            ModelConfig(vocab_size=vocabulary, hidden_size=width, intermediate_size=inner, num_layers=layers,
                        num_heads=heads, num_kv_heads=heads, head_dim=width // heads, qk_norm=False,
                        tie_embeddings=False)).initialise(0)
        trainer = Trainer(model, Optimization(learning_rate=1e-4), 10**6,
                          resolve_precision(options.get("precision", "auto"), device), compiled=options["compile"])
        batch = make_batch([[Tree(np.array(row[:1]), (np.array(row[1:]),))] for row in tokens.numpy()], length)

        def step(number: int) -> None:
            trainer.step(number, [batch], LanguageModeling())
    else:
        from transformers import LlamaConfig, LlamaForCausalLM
        plain: Any = LlamaForCausalLM(
            LlamaConfig(vocab_size=vocabulary, hidden_size=width, intermediate_size=inner, num_hidden_layers=layers,
                        num_attention_heads=heads, num_key_value_heads=heads, max_position_embeddings=512,
                        tie_word_embeddings=False, use_cache=False))
        optimizer = torch.optim.AdamW(plain.parameters(), lr=1e-4, fused=True)
        forward = torch.compile(plain) if options["compile"] else plain

        def step(number: int) -> None:
            with torch.autocast("cpu", torch.bfloat16, enabled=options["bf16"]):
                loss = forward(input_ids=tokens, labels=tokens).loss
            loss.backward()
            torch.nn.utils.clip_grad_norm_(plain.parameters(), 1.0)
            optimizer.step()
            optimizer.zero_grad()

    begun = time.perf_counter()
    for number in range(2):
        step(number)
    warm = time.perf_counter()
    for number in range(options["steps"]):
        step(number)
    return {
        "tokens_per_second": rows * length * options["steps"] / (time.perf_counter() - warm), "warm_up": warm - begun
    }


def limit(bf16: bool) -> float:
    """Floating-point operations a second of a product of 2048-square matrices, the best of twenty."""
    import torch
    kind = torch.bfloat16 if bf16 else torch.float32
    a, b = torch.randn(2048, 2048, dtype=kind), torch.randn(2048, 2048, dtype=kind)
    best = 0.0
    for _ in range(20):
        begun = time.perf_counter()
        a @ b
        best = max(best, 2 * 2048.0**3 / (time.perf_counter() - begun))
    return best


def main() -> None:
    """All sides in turn."""
    options = common.arguments(__doc__ or "", only=tuple(SHAPES), rounds=2)
    if options.worker:
        print(json.dumps(run(json.loads(options.worker))))
        return
    import torch

    from trivium.training.machine import resolve_precision
    bf16 = resolve_precision("auto", torch.device("cpu")) == "bf16"
    results, shares, warm = [], {}, {}
    for size, goal in (("7M", 0.65), ("50M", 0.75)):
        if options.only not in (None, size):
            continue
        rounds = 1 if options.quick else max(1, options.rounds if size == "7M" else options.rounds // 2)

        def side(name: str, size: str = size, **more: Any) -> Any:
            def once() -> float:
                tuned = common.ALLOCATOR if name.endswith("(tuned)") else None
                found = common.call(
                    __file__,
                    {"size": size, "steps": STEPS[size][options.quick], "bf16": False, "compile": False, **more},
                    sys.executable, tuned)
                warm[f"{size}, {name}"] = found.get("warm_up", 0.0)
                return float(found.get("tokens_per_second") or found["flops"])
            return once
        sides = {
            "limit": side("limit", side="limit", bf16=bf16), "ours": side("ours", side="ours"),
            "ours, compiled": side("ours, compiled", side="ours",
                                   compile=True), "eager float32": side("eager float32", side="plain")
        }
        if bf16:
            sides["ours, bf16 weights"] = side("ours, bf16 weights", side="ours", compile=True,
                                               precision="bf16-weights")
        if not options.quick:
            sides["compiled"] = side("compiled", side="plain", compile=True)
            fastest = "compiled bf16 (tuned)" if bf16 else "compiled (tuned)"
            if bf16:
                sides["compiled bf16"] = side("compiled bf16", side="plain", compile=True, bf16=True)
            sides[fastest] = side(fastest, side="plain", compile=True, bf16=bf16)
        found = common.in_turn(sides, rounds)
        best = max(value for name, value in found.items() if name.startswith("ours"))
        results += [
            common.Result(f"{size}, plain loop, {name}", best, value, "tokens/s", 1.6 if "compiled" in name else None)
            for name, value in found.items() if name != "limit" and not name.startswith("ours")
        ]
        share = best * floating_point_operations(SHAPES[size], 256) / found["limit"]
        shares[size] = share
        results.append(common.Result(f"{size}, share of the matrix products' speed", 100 * share, 100.0, "%", goal))
    common.report("train", results, precision="bf16" if bf16 else "float32", share_of_limit=shares,
                  warm_up_seconds=warm)


if __name__ == "__main__":
    main()
