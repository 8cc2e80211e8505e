"""Sampling on a GPU against transformers, in bf16, and the share of the memory bandwidth that is used.

    python benchmarks/gpu_generate.py [--quick] [--parameters 0.1]

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

import torch


def timed(run: Any) -> float:
    """Seconds of the best of three, after one that warms up."""
    seen = []
    for _ in range(4):
        torch.cuda.synchronize()
        begun = time.perf_counter()
        run()
        torch.cuda.synchronize()
        seen.append(time.perf_counter() - begun)
    return min(seen[1:])


def main() -> None:
    """Both sides in this process, one after the other."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--parameters", type=float, default=0.1, help="billions")
    options = parser.parse_args()
    if not torch.cuda.is_available():
        raise SystemExit("this benchmark needs a CUDA device")
    from transformers import LlamaConfig, LlamaForCausalLM

    from trivium.generation.engine import Sampling, generate
    from trivium.model import LanguageModel, ModelConfig
    layers = 12 if options.parameters < 0.5 else 24
    width = max(256, round((options.parameters * 1e9 / layers / 12) ** 0.5 / 128) * 128)
    shape = {"vocab_size": 32000, "hidden_size": width, "intermediate_size": round(width * 8 / 3 / 128) * 128}
    theirs = LlamaForCausalLM(
        LlamaConfig(**shape, num_hidden_layers=layers, num_attention_heads=width // 64, num_key_value_heads=width // 64,
                    max_position_embeddings=1024, tie_word_embeddings=False,
                    pad_token_id=0)).eval().to("cuda", torch.bfloat16)
    ours = LanguageModel(
        ModelConfig(**shape, num_layers=layers, num_heads=width // 64, num_kv_heads=width // 64, head_dim=64,
                    max_positions=1024, qk_norm=False, tie_embeddings=False)).initialise(0).to("cuda", torch.bfloat16)
    big = torch.empty(1 << 30, dtype=torch.uint8, device="cuda")
    bandwidth = 2 * big.nbytes / timed(lambda: big.clone())
    weights = sum(p.numel() for n, p in ours.named_parameters() if "embed" not in n) * 2
    results = []
    for case, count in (("uniform", 64), ("one", 1)):
        new = 32 if options.quick else 96
        tokens = torch.randint(3, 32000, (count, 80), device="cuda")
        asked = tokens.tolist()
        mine = timed(
            lambda asked=asked, new=new: generate(ours, asked, Sampling(temperature=0.0, max_new_tokens=new), []))
        other = timed(lambda tokens=tokens, new=new: theirs.generate(tokens, attention_mask=torch.ones_like(
            tokens), do_sample=False, min_new_tokens=new, max_new_tokens=new))
        read = new * (weights + count * (80 + new / 2) * 2 * width * layers * 2)
        results.append({
            "case": case, "ours": count * new / mine, "theirs": count * new / other, "unit": "tokens/s",
            "ratio": other / mine, "bandwidth_share": read / mine / bandwidth
        })
        print(results[-1])
    print(
        json.dumps({"benchmark": "gpu_generate", "results": results, "machine": {"gpu": torch.cuda.get_device_name()}}))


if __name__ == "__main__":
    main()
