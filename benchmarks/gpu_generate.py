"""Sampling on a GPU against transformers, in bf16, and the share of the memory bandwidth that is used.

    python benchmarks/gpu_generate.py [--quick] [--parameters 0.1]
    python benchmarks/gpu_generate.py --tiny          # the same on a CPU in a few seconds, to see that it works

Needs torch, numpy, safetensors, tokenizers, jinja2 and transformers, and this package's source on PYTHONPATH. A Llama
of about ``--parameters`` billion with random weights; 64 prompts of 80 tokens, 96 new ones, greedy; and a batch of one.
The share: bytes of weights and cache that a step must read, by the time it takes, over the bandwidth that a copy of 1
GiB reaches.
"""

from __future__ import annotations

import argparse
import json
import time
from typing import Any

import common
import torch
from gpu_train import wait


def timed(run: Any, device: torch.device) -> float:
    """Seconds of the best of three, after one that warms up."""
    seen = []
    for _ in range(4):
        wait(device)
        begun = time.perf_counter()
        run()
        wait(device)
        seen.append(time.perf_counter() - begun)
    return min(seen[1:])


def main() -> None:
    """Both sides in this process, one after the other."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--tiny", action="store_true", help="a tiny decoder on whatever there is")
    parser.add_argument("--parameters", type=float, default=0.1, help="billions")
    options = parser.parse_args()
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    if not options.tiny and device.type != "cuda":
        raise SystemExit("this benchmark needs a CUDA device; --tiny tries it without")
    from transformers import LlamaConfig, LlamaForCausalLM

    from trivium.generation.engine import Engines, Sampling, generate
    from trivium.model import LanguageModel, ModelConfig
    layers = 2 if options.tiny else 12 if options.parameters < 0.5 else 24
    width = 128 if options.tiny else max(256, round((options.parameters * 1e9 / layers / 12)**0.5 / 128) * 128)
    shape: dict[str, Any] = {
        "vocab_size": 32000, "hidden_size": width, "intermediate_size": round(width * 8 / 3 / 128) * 128
    }
    with device:
        theirs: Any = LlamaForCausalLM(
            LlamaConfig(**shape, num_hidden_layers=layers, num_attention_heads=width // 64,
                        num_key_value_heads=width // 64, max_position_embeddings=1024, tie_word_embeddings=False,
                        pad_token_id=0))
        theirs.to(torch.bfloat16).eval()
        ours = LanguageModel(
            ModelConfig(**shape, num_layers=layers, num_heads=width // 64, num_kv_heads=width // 64, head_dim=64,
                        max_positions=1024, qk_norm=False, tie_embeddings=False)).initialise(0).to(torch.bfloat16)
    big = torch.empty(1 << (20 if options.tiny else 30), dtype=torch.uint8, device=device)
    bandwidth = 2 * big.nbytes / timed(lambda: big.clone(), device)
    weights = sum(p.numel() for n, p in ours.named_parameters() if "embed" not in n) * 2
    results = []
    for case, count in (("uniform", 4 if options.tiny else 64), ("one", 1)):
        new = 8 if options.tiny else 32 if options.quick else 96
        engines = Engines(keep=True)  # as rollouts do; one that is made anew captures its steps anew
        tokens = torch.randint(3, 32000, (count, 80), device=device)
        asked = tokens.tolist()
        sides = {
            "ours": lambda asked=asked, new=new, engines=engines: generate(
                ours, asked, Sampling(temperature=0.0, max_new_tokens=new), [], engines=engines),
            "ours, drawn": lambda asked=asked, new=new, engines=engines: generate(
                ours, asked, Sampling(max_new_tokens=new), [], engines=engines),
            "ours, engine made anew": lambda asked=asked, new=new: generate(
                ours, asked, Sampling(temperature=0.0, max_new_tokens=new), []),
            "theirs": lambda tokens=tokens, new=new: theirs.generate(
                tokens, attention_mask=torch.ones_like(tokens), do_sample=False, min_new_tokens=new,
                max_new_tokens=new)
        }
        seconds: dict[str, float] = {}
        for side, run in sides.items():
            try:
                seconds[side] = timed(run, device)
            except Exception as error:  # one side that fails does not take the other along
                print(f"{case}, {side}: failed: {type(error).__name__}: {error}", flush=True)
                continue
            print(f"{case}, {side}: {count * new / seconds[side]:,.0f} tokens/s", flush=True)
        read = new * (weights + count * (80 + new / 2) * 2 * width * layers * 2)
        found: dict[str, Any] = {"case": case, "unit": "tokens/s"}
        found |= {side: count * new / value for side, value in seconds.items()}
        if {"ours", "theirs"} <= set(seconds):
            found["ratio"] = seconds["theirs"] / seconds["ours"]
        if "ours" in seconds:
            found["bandwidth_share"] = read / seconds["ours"] / bandwidth
        results.append(found)
        print(found, flush=True)
    gpu = {"gpu": torch.cuda.get_device_name(), "torch": torch.__version__} if device.type == "cuda" else {}
    print(json.dumps({"benchmark": "gpu_generate", "results": results, "machine": common.machine() | gpu}))


if __name__ == "__main__":
    main()
