"""Sampling against transformers: one Llama of 6.8M parameters, 64 prompts of about 80 tokens, 96 new tokens, greedy.

    python benchmarks/generate.py [--quick] [--rounds 3]

New tokens a second, prompts included in the time. "Mixed lengths": prompts of 20 to 140 tokens that want 8 to 160 new
ones; transformers runs a batch until its longest answer ends. "One": a batch of one. Theirs is the better of float32
and bf16 where the processor multiplies bf16, else float32, which is faster there; both are printed. Also prints what
the memory of this machine allows.
"""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path
from typing import Any

import common

SHAPE = {"vocab_size": 4096, "hidden_size": 256, "intermediate_size": 688}
LAYERS, HEADS = 6, 4


def work(case: str) -> list[tuple[list[int], int]]:
    """Prompts of random tokens and how many new ones each wants."""
    import numpy as np
    rng = np.random.default_rng(0)
    if case == "one":
        return [(rng.integers(3, SHAPE["vocab_size"], 80).tolist(), 96)]
    mixed = case == "mixed"
    return [(rng.integers(3, SHAPE["vocab_size"], rng.integers(20, 141) if mixed else rng.integers(72, 89)).tolist(),
             int(rng.integers(8, 161)) if mixed else 96) for _ in range(64)]


def model_of_theirs() -> Any:
    """The model, with the same random weights on both sides."""
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM
    torch.manual_seed(0)
    return LlamaForCausalLM(
        LlamaConfig(**SHAPE, num_hidden_layers=LAYERS, num_attention_heads=HEADS, num_key_value_heads=HEADS,
                    max_position_embeddings=1024, tie_word_embeddings=False, pad_token_id=0, bos_token_id=1,
                    eos_token_id=2)).eval()


def ours(options: dict[str, Any]) -> dict[str, float]:
    """The engine."""
    from trivium.generation.engine import Sampling, generate
    from trivium.model import LanguageModel, ModelConfig
    from trivium.training.machine import prepare
    prepare()
    model = LanguageModel(
        ModelConfig(**SHAPE, num_layers=LAYERS, num_heads=HEADS, num_kv_heads=HEADS,
                    head_dim=SHAPE["hidden_size"] // HEADS, max_positions=1024, qk_norm=False,
                    tie_embeddings=False)).initialise(0)
    asked = work(options["case"])
    rules = [Sampling(temperature=options.get("temperature", 0.0), max_new_tokens=new) for _, new in asked]
    best = 0.0
    for _ in range(1 + options["times"]):  # the first warms up
        begun = time.perf_counter()
        found = generate(model, [prompt for prompt, _ in asked], rules, [])
        best = max(best, sum(len(group[0].tokens) for group in found) / (time.perf_counter() - begun))
    return {"tokens_per_second": best}


def theirs(options: dict[str, Any]) -> dict[str, float]:
    """transformers.generate, padded on the left."""
    import torch
    model = model_of_theirs()
    if options["bf16"]:
        model.bfloat16()
    asked = work(options["case"])
    width, new = max(len(prompt) for prompt, _ in asked), max(new for _, new in asked)
    tokens = torch.tensor([[0] * (width - len(prompt)) + prompt for prompt, _ in asked])
    mask = torch.tensor([[0] * (width - len(prompt)) + [1] * len(prompt) for prompt, _ in asked])
    best = 0.0
    model.generate(tokens, attention_mask=mask, do_sample=False, min_new_tokens=4, max_new_tokens=4)
    for _ in range(options["times"]):
        begun = time.perf_counter()
        model.generate(tokens, attention_mask=mask, do_sample=False, min_new_tokens=new, max_new_tokens=new)
        best = max(best, sum(new for _, new in asked) / (time.perf_counter() - begun))  # what was wanted counts
    return {"tokens_per_second": best}


def limit(options: dict[str, Any]) -> dict[str, float]:
    """What this machine allows in the uniform case: the time to compute the products (measured alone, weights in cache)
    and to read weights and cache once a step (at the measured bandwidth)."""
    import torch

    def fastest(run: Any) -> float:
        seen = []
        for _ in range(30):
            begun = time.perf_counter()
            run()
            seen.append(time.perf_counter() - begun)
        return min(seen)

    width, inner = SHAPE["hidden_size"], SHAPE["intermediate_size"]
    large = torch.randn(64 << 20)
    bandwidth = large.nbytes / fastest(lambda: large.sum())
    shapes = [(width, 3 * width), (width, width), (width, 2 * inner),
              (inner, width)] * LAYERS + [(width, SHAPE["vocab_size"])]
    weights = sum(a * b for a, b in shapes) * 4
    seconds = {}
    for rows in (64, 512):
        seconds[rows] = 0.0
        for a, b in shapes[:4]:
            x, w = torch.randn(rows, a), torch.randn(a, b)
            seconds[rows] += LAYERS * fastest(lambda x=x, w=w: x @ w)
    x, w = torch.randn(64, width), torch.randn(width, SHAPE["vocab_size"])
    cache = 64 * 128 * 2 * width * LAYERS * 4
    step = seconds[64] + fastest(lambda: x @ w) + (weights + cache) / bandwidth
    return {
        "tokens_per_second": 64 * 96 / (96 * step + seconds[512] * 64 * 80 / 512),
        "gigabytes_per_second": bandwidth / 1e9, "products_ms": (step - (weights + cache) / bandwidth) * 1e3,
        "reading_ms": (weights + cache) / bandwidth * 1e3
    }


def main() -> None:
    """Both sides in turn."""
    options = common.arguments(__doc__ or "")
    if options.worker:
        asked = json.loads(options.worker)
        print(json.dumps({"ours": ours, "theirs": theirs, "limit": limit}[asked["side"]](asked)))
        return
    python = sys.executable  # transformers is a development dependency: both sides share the environment
    script, times = Path(__file__).resolve(), 1 if options.quick else 2

    def run(**asked: Any) -> float:
        return common.call(script, {"times": times, **asked}, python)["tokens_per_second"]

    results = []
    for case, goal in (("uniform", 5), ("mixed", 8), ("one", 3)):
        sides = {
            f"ours {case}": lambda case=case: run(side="ours", case=case),
            f"theirs {case}": lambda case=case: run(side="theirs", case=case, bf16=False)
        }
        if case == "uniform" and not options.quick:
            sides["theirs uniform bf16"] = lambda: run(side="theirs", case="uniform", bf16=True)
        seen = common.in_turn(sides, 1 if options.quick else options.rounds)
        best = max(value for name, value in seen.items() if name.startswith("theirs"))
        results.append(common.Result(case, seen[f"ours {case}"], best, "tokens/s", goal))
    common.report("generate", results, limit=common.call(script, {"side": "limit"}))


if __name__ == "__main__":
    main()
