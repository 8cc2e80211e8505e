"""Attention of packed rows on a processor: each segment by itself against one mask for all, forward and backward.

    python benchmarks/attention.py [--rounds 7]

Two minutes on two cores. 8,192 places with 4 heads of 64, filled as training fills them; both ways get the same
queries, keys and values and give the same results, which is checked first. They take turns. Beside them stands which
share of the scores is seen, and which of the places is padding: a mask computes the rest too. Last, what the kernel's
gradient takes in bf16 and in float32 by the size of a segment: what ROUNDED_FROM goes by.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable

import common
import numpy as np
import torch

from trivium.model import segments
from trivium.model.attention import Attend, attention_by, tree_mask
from trivium.model.segments import segment_attention, tree_parts
from trivium.training.batch import Batch, Tree, make_batch, pack

PLACES, HEADS, WIDTH = 8192, 4, 64


def documents(low: int, high: int, length: int) -> tuple[list[Tree], int]:
    """So many documents as fill the places."""
    rng, trees = np.random.default_rng(0), list[Tree]()
    while sum(map(len, trees)) < PLACES - length:
        size = int(rng.integers(low, high + 1))
        trees.append(Tree(np.zeros(1, np.int64), (np.zeros(size - 1, np.int64), )))
    return trees, length


def rankings(responses: int, length: int) -> tuple[list[Tree], int]:
    """Prompts of 40 to 120 tokens, with so many responses of 20 to 60 to each."""
    rng, trees = np.random.default_rng(0), list[Tree]()
    while sum(map(len, trees)) < PLACES - length:
        sizes = rng.integers(20, 61, responses)
        trees.append(Tree(np.zeros(rng.integers(40, 121), np.int64), tuple(np.zeros(size, np.int64) for size in sizes)))
    return trees, length


CASES = {
    "documents of 60 to 280 in rows of 512": documents(60, 280, 512),
    "documents of 100 to 300 in rows of 2,048": documents(100, 300, 2048),
    "rows of 512, each full": documents(512, 512, 512),
    "nine responses to a prompt, rows of 1,024": rankings(9, 1024),
    "pairs of responses, rows of 512": rankings(2, 512),
}


def made(trees: list[Tree], length: int) -> Batch:
    """Their batch."""
    return make_batch([[trees[i] for i in row] for row in pack([len(tree) for tree in trees], length)], length)


def both_ways(batch: Batch, kind: torch.dtype) -> dict[str, Callable[[], list[torch.Tensor]]]:
    """The two ways, each a forward and a backward pass."""
    real = (batch.documents.flatten() >= 0).nonzero()[:, 0]
    line = [one.flatten()[real][None] for one in (batch.documents, batch.parents)]
    generator = torch.Generator().manual_seed(0)
    given = [torch.randn(*batch.tokens.shape, HEADS, WIDTH, generator=generator).to(kind) for _ in range(4)]

    def run(attend: Attend, values: list[torch.Tensor]) -> list[torch.Tensor]:
        q, k, v, gradient = (one.transpose(1, 2) for one in values)
        leaves = [one.detach().requires_grad_() for one in (q, k, v)]
        out = attend(0, *leaves)
        return [out.detach(), *torch.autograd.grad(out, leaves, gradient)]

    flat = [one.flatten(0, 1)[real][None] for one in given]
    given[3] *= (batch.documents >= 0)[:, :, None, None].to(kind)
    parts = tree_parts(line[0].numpy(), line[1].numpy())
    assert parts is not None
    mask = tree_mask(batch.documents, batch.parents, batch.positions)
    ways = {"mask": lambda: run(attention_by(mask), given), "segments": lambda: run(segment_attention(parts), flat)}
    for one, other in zip(ways["mask"](), ways["segments"](), strict=True):
        masked = one.transpose(1, 2).flatten(0, 1)[real]
        off = float((masked.float() - other.transpose(1, 2)[0].float()).abs().max() / masked.float().abs().max())
        assert off < (1e-4 if kind == torch.float32 else 5e-2), off
    return ways


def of_gradients(size: int, rounds: int) -> tuple[float, float]:
    """Milliseconds of the gradient of one causal segment in bf16, and in float32 with the conversions there and back;
    medians."""
    q, k, v, gradient = (torch.randn(1, size, HEADS, WIDTH).bfloat16().transpose(1, 2) for _ in range(4))
    out, sums = segments._flash(q, k, v, 0.0, True)
    given = [gradient, q, k, v, out]
    times: tuple[list[float], list[float]] = ([], [])
    for _ in range(10 * rounds):
        for found, kind in zip(times, (torch.bfloat16, torch.float32), strict=True):
            begun = time.perf_counter()
            for share in segments._flash_back(*(one.to(kind) for one in given), sums, 0.0, True):
                share.to(torch.bfloat16)
            found.append((time.perf_counter() - begun) * 1e3)
    return statistics.median(times[0]), statistics.median(times[1])


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=7)
    rounds = parser.parse_args().rounds
    print(f"{common.machine()['cpu']}, {torch.get_num_threads()} threads, PyTorch {torch.__version__}")
    for name, (trees, length) in CASES.items():
        batch = made(trees, length)
        seen = float(tree_mask(batch.documents, batch.parents, batch.positions).double().mean())
        print(f"{name}: {1 - batch.real / batch.size:.0%} padding, {seen:.1%} of the scores are seen")
        for kind in (torch.float32, torch.bfloat16):
            ways = both_ways(batch, kind)
            times: dict[str, list[float]] = {way: [] for way in ways}
            for _ in range(rounds):
                for way, run in ways.items():
                    begun = time.perf_counter()
                    run()
                    times[way].append((time.perf_counter() - begun) * 1e3)
            mask, alone = (statistics.median(times[way]) for way in ways)
            print(f"  {str(kind)[6:]}: mask {mask:.1f} ms, segments {alone:.1f} ms, {mask / alone:.2f} times")
    for size in (64, 128, 256, 512, 1024):
        rounded, exact = of_gradients(size, rounds)
        print(f"gradient of a segment of {size}: bf16 {rounded:.2f} ms, float32 {exact:.2f} ms")


if __name__ == "__main__":
    main()
