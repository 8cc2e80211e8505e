"""Attention on a device: is every path right, and what does a layer's call cost at 8,192 tokens?

    PYTHONPATH=src python benchmarks/gpu_attention.py            # about a minute on a GPU; on a CPU without the costs
    PYTHONPATH=src python benchmarks/gpu_attention.py --tiny     # short rows, and the costs at 512 tokens

Needs torch, numpy, safetensors and tokenizers. Each path is held against attention written out in float64, with a mask
that is made by walking the trees token by token: the outputs, and the gradients of queries, keys and values. The error
is ``|found - right| / |right|`` over all real places; float32 (TF32 off) may be 1e-5 off, bf16 1e-2. Cached decoding is
held against the whole model in float64, two layers with all their roundings: so it may also be 1.5 times as far off as
the same model's forward pass without a cache in the same format, but never more than twice the bound. A bound that is
broken, or a path that fails, makes the exit status 1.

The costs are those of one layer's attention in bf16, forward and backward: milliseconds, the most memory above what
queries, keys and values take, and which of PyTorch's kernels ran.
"""

from __future__ import annotations

import argparse
import functools
import json
import statistics
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import common
import numpy as np
import torch
import torch.nn.functional as F
from gpu_train import wait
from torch import Tensor

from trivium import randomness
from trivium.generation.decoder import Decoder
from trivium.model import LanguageModel, ModelConfig
from trivium.model.adapters.prefix import Prefix
from trivium.model.attention import Attend, both_ways_attention, causal_attention, masked_attention, packed_attention
from trivium.model.plain_decoder import PlainDecoder
from trivium.training.batch import Batch, Tree, make_batch

BOUNDS = {"float32": 1e-5, "bfloat16": 1e-2}
HEADS = {"shared heads": (14, 2, 64), "shared wide heads": (12, 2, 128), "heads of their own": (4, 4, 64)}
WINDOW, BEFORE = 24, 8
"""Places that a window reaches back, and those of a prefix."""


@dataclass
class Case:
    """A way of attending, and who sees whom by it."""

    name: str
    attend: Attend
    seen: Tensor
    """``[B, T, BEFORE or 0 + T]``, made token by token."""
    real: Tensor
    """``[B, T]``, where there is more than padding."""


def trees(rng: np.random.Generator, responses: int, room: int) -> list[Tree]:
    """Trees of as many responses each, or chains where there is one, that fit ``room`` tokens."""
    found: list[Tree] = []
    while room >= 12:
        sizes = [int(size) for size in rng.integers(3, max(4, min(room, 90) // (responses + 1)), responses + 1)]
        found.append(Tree(np.ones(sizes[0], np.int64), tuple(np.ones(size, np.int64) for size in sizes[1:])))
        room -= sum(sizes)
    return found


def walked(rows: Sequence[Sequence[Tree]], length: int, window: int | None) -> Tensor:
    """Who sees whom, ``[B, T, T]``, by walking each token's branch."""
    seen = torch.zeros(len(rows), length, length, dtype=torch.bool)
    for r, row in enumerate(rows):
        at = 0
        for tree in row:
            prompt = list(range(at, at + len(tree.prompt)))
            at += len(prompt)
            branches = [prompt]
            for response in tree.responses:
                branches.append(prompt + list(range(at, at + len(response))))
                at += len(response)
            for branch in branches:
                for place, token in enumerate(branch):
                    first = 0 if window is None else max(0, place + 1 - window)
                    seen[r, token, branch[first:place + 1]] = True
    return seen


def with_prefix(seen: Tensor) -> Tensor:
    """The same behind a prefix that every token sees."""
    return F.pad(seen, (BEFORE, 0), value=True)


def cases(length: int, device: torch.device, kind: torch.dtype) -> Iterator[Case]:
    """Every way in which the package attends, but for cached decoding."""
    rng = randomness.numpy(0, "trees")
    everything = torch.ones(2, length, dtype=torch.bool)
    whole = everything[:, None].expand(2, length, length)
    for window in (None, WINDOW):
        name = "" if window is None else ", window"
        right = whole.tril() if window is None else whole.tril().triu(1 - window)
        yield Case(f"causal{name}", causal_attention(window), right, everything)
        yield Case(f"causal, prefix{name}", causal_attention(window), with_prefix(right), everything)
        for what, responses in (("chains", 1), ("trees", 4)):
            rows = [trees(rng, responses, length - 9 * row) for row in range(2)]
            batch: Batch = make_batch(rows, length).to(device)
            attend = packed_attention(batch.documents, batch.parents, batch.positions, window, kind)
            seen, real = walked(rows, length, window), (batch.documents >= 0).cpu()
            yield Case(f"{what}{name}", attend, seen, real)
            yield Case(f"{what}, prefix{name}", attend, with_prefix(seen), real)
    documents = torch.arange(length).div(length // 3, rounding_mode="floor")[None].expand(2, length)
    yield Case("both ways", both_ways_attention(documents.to(device)), torch.stack(
        [one[:, None] == one[None] for one in documents]), everything)
    sources = torch.stack([torch.arange(length) < length - 5, torch.arange(length) < length // 2])
    mask = sources.to(device)[:, None, None]
    yield Case("another text", lambda layer, q, k, v: masked_attention(q, k, v, mask),
               sources[:, None].expand(2, length, length), everything)


def written_out(q: Tensor, k: Tensor, v: Tensor, seen: Tensor) -> Tensor:
    """Attention by its formula, head by head, ``[B, heads, T, d]``."""
    shared, heads = q.shape[1] // k.shape[1], []
    for head in range(q.shape[1]):
        scores = q[:, head] @ k[:, head // shared].mT / q.shape[-1]**0.5
        weights = scores.masked_fill(~seen, float("-inf")).softmax(-1)
        heads.append(torch.nan_to_num(weights) @ v[:, head // shared])  # padding may see nothing
    return torch.stack(heads, 1)


def distance(found: Tensor, right: Tensor) -> float:
    """``|found - right| / |right|``."""
    right = right.double()
    return float((found.to(right) - right).norm() / right.norm())


def errors(case: Case, heads: tuple[int, int, int], kind: torch.dtype, device: torch.device) -> dict[str, float]:
    """Those of the output and of the three gradients."""
    generator = torch.Generator().manual_seed(0)
    (many, few, width), (rows, length, places) = heads, case.seen.shape
    shapes = [(rows, many, length, width), (rows, few, places, width), (rows, few, places, width)]
    given = [torch.randn(shape, generator=generator).to(kind) for shape in shapes]
    weight = torch.randn(shapes[0], generator=generator).to(kind) * case.real[:, None, :, None]
    found, right = ([tensor.to(device, of, copy=True).requires_grad_() for tensor in given]
                    for of in (kind, torch.float64))
    out = case.attend(0, *found)
    (out * weight.to(device)).sum().backward()  # type: ignore[no-untyped-call]
    # padding's outputs do not count, and what it sees has no gradient as its weight is 0
    exact = written_out(right[0], right[1], right[2], case.seen.to(device))
    (exact * weight.to(device, torch.float64)).sum().backward()  # type: ignore[no-untyped-call]
    real = case.real.to(device)[:, None, :, None]
    gradients = {}
    for name, mine, other in zip("qkv", found, right, strict=True):
        assert mine.grad is not None and other.grad is not None
        gradients[f"d{name}"] = distance(mine.grad, other.grad)
    return {"output": distance(out.detach() * real, exact.detach() * real), **gradients}


def model_of(device: torch.device, window: int | None, heads: tuple[int, int, int]) -> LanguageModel:
    """A decoder of two layers whose weights bf16 has."""
    with device:
        model = LanguageModel(ModelConfig(
            vocab_size=512, hidden_size=256, intermediate_size=512, num_layers=2, num_heads=heads[0],
            num_kv_heads=heads[1], head_dim=heads[2], max_positions=512, sliding_window=window, qk_norm=False,
            tie_embeddings=False)).initialise(0)
    return model.to(torch.bfloat16).float().requires_grad_(False)


def decoding_error(plain: bool, window: int | None, heads: tuple[int, int, int], kind: torch.dtype,
                   device: torch.device) -> dict[str, float]:
    """The largest error of a step's logits, and that of a forward pass without a cache: texts of different lengths, one
    of which moves on the way. ``plain`` decodes through the model's own forward pass, behind a learned prefix."""
    model = model_of(device, window, heads)
    lengths = [5, 70, 33, 122]
    texts = torch.randint(0, 512, (len(lengths), 140), generator=torch.Generator().manual_seed(0)).to(device)
    if plain:
        prefix = Prefix(model.model, BEFORE, torch.Generator().manual_seed(0))
        prefix.on = True
    exact = model_of(device, window, heads).double()

    def attend(layer: int, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        seen = torch.ones(q.shape[2], q.shape[2], dtype=torch.bool, device=device).tril()
        seen = seen if window is None else seen.triu(1 - window)
        if plain:
            k, v = (torch.cat([kept[layer][None].expand(len(k), -1, -1, -1).to(kind).double(), now], 2)
                    for kept, now in ((prefix.keys, k), (prefix.values, v)))
            seen = with_prefix(seen)
        return written_out(q, k, v, seen.expand(len(q), -1, -1))

    if plain:
        model = model.to(kind)
        prefix.to(kind)
    decoder: Any = PlainDecoder(model, 5, 256) if plain else Decoder(model, 5, 256, kind)
    worst, rows = 0.0, list(range(4))
    with torch.no_grad():
        right = exact(texts, None, attend)
        uncached = distance(model.to(kind)(texts), right)
        for row, length in enumerate(lengths):
            decoder.prefill(texts[row:row + 1, :length], row, [length])
        for step in range(12):
            if step == 6:  # the first text moves behind the others, as if it had made room
                decoder.move([0, 1, 2, 3], [4, 0, 1, 2], 140)
                decoder.move([4], [3], 140)
                rows = [1, 2, 3, 0]
            places = torch.tensor([lengths[row] + step for row in rows], device=device)
            order = torch.tensor(rows, device=device)
            logits = decoder.step(texts[order, places], places, int(places.max()) + 1, False)
            worst = max(worst, distance(logits, right[order, places]))
    return {"logits": worst, "uncached": uncached}


KERNELS = {"flash_attention": "flash", "efficient_attention": "efficient", "cudnn_attention": "cudnn",
           "attention_math": "math", "flex_attention": "flex"}


def cost(attend: Attend, heads: tuple[int, int, int], length: int, device: torch.device) -> dict[str, Any]:
    """Of one layer's call, forward and backward."""
    many, few, width = heads
    q, k, v = (torch.randn(1, count, length, width, device=device, dtype=torch.bfloat16, requires_grad=True)
               for count in (many, few, few))
    slope = torch.randn_like(q)

    def call() -> None:
        attend(0, q, k, v).backward(slope)  # type: ignore[no-untyped-call]
        q.grad = k.grad = v.grad = None

    call()
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU]) as profile:
        call()
    names = {event.key for event in profile.key_averages()}
    kernels = sorted({kernel for part, kernel in KERNELS.items() if any(part in name for name in names)})
    seconds, cuda = [], device.type == "cuda"
    before = torch.cuda.memory_allocated() if cuda else 0
    if cuda:
        torch.cuda.reset_peak_memory_stats()
    for _ in range(8 if cuda else 2):
        wait(device)
        at = time.perf_counter()
        call()
        wait(device)
        seconds.append(time.perf_counter() - at)
    peak = torch.cuda.max_memory_allocated() - before if cuda else 0
    return {"milliseconds": 1000 * statistics.median(seconds), "peak_megabytes": peak / 1e6, "kernels": kernels}


def costly(length: int, device: torch.device) -> Iterator[tuple[str, Callable[[], Attend]]]:
    """What is timed: rows of ``length`` tokens."""
    part = length // 16
    chain = Tree(np.ones(1, np.int64), (np.ones(part - 1, np.int64),))
    tree = Tree(np.ones(part, np.int64), tuple(np.ones(part * 15 // 8, np.int64) for _ in range(8)))

    def packed(row: list[Tree], window: int | None = None) -> Attend:
        batch = make_batch([row], length).to(device)
        return packed_attention(batch.documents, batch.parents, batch.positions, window, torch.bfloat16)

    def bare() -> Attend:
        mask = torch.ones(length, length, dtype=torch.bool, device=device).tril()
        return lambda layer, q, k, v: F.scaled_dot_product_attention(q, k, v, attn_mask=mask, enable_gqa=True)

    yield "causal", causal_attention
    yield "causal, window", lambda: causal_attention(part)
    yield "16 chains", lambda: packed([chain] * 16)
    yield "a tree of 8 responses", lambda: packed([tree])
    yield "a tree, window", lambda: packed([tree], part)
    yield "a mask and shared heads, which the package avoids", bare


def checked(length: int, device: torch.device) -> Iterator[tuple[str, float, Callable[[], dict[str, float]]]]:
    """Each check's name, its bound, and what makes it."""
    for kind in (torch.float32, torch.bfloat16):
        format_name = str(kind).removeprefix("torch.")
        for heads_name, heads in HEADS.items():
            for case in cases(length, device, kind):
                yield (f"{format_name}, {heads_name}, {case.name}", BOUNDS[format_name],
                       functools.partial(errors, case, heads, kind, device))
        for plain in (False, True):
            for window in (None, WINDOW):
                name = ("decoding behind a prefix" if plain else "decoding") + (", window" if window else "")
                yield (f"{format_name}, {name}", BOUNDS[format_name],
                       functools.partial(decoding_error, plain, window, (8, 2, 64), kind, device))


def main() -> None:
    """The checks, then the costs."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tiny", action="store_true", help="short rows")
    options = parser.parse_args()
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    torch.backends.cuda.matmul.allow_tf32 = False
    found: dict[str, dict[str, Any]] = {}
    broken: list[str] = []
    for name, bound, check in checked(91 if options.tiny else 203, device):
        try:
            found[name] = check()
        except Exception as error:  # the other paths are still to be seen
            broken.append(name)
            print(f"FAILED  {name}: {type(error).__name__}: {str(error).strip().splitlines()[-1:]}", flush=True)
            continue
        if "uncached" in found[name]:
            bound = min(2 * bound, max(bound, 1.5 * found[name]["uncached"]))
        good = all(value <= bound for value in found[name].values())  # what is not a number is not good
        broken += [] if good else [name]
        told = "  ".join(f"{part} {value:.1e}" for part, value in found[name].items())
        print(f"{'ok' if good else 'BROKEN':7} {name}: {told}", flush=True)
    costs: dict[str, Any] = {}
    if options.tiny or device.type == "cuda":
        length = 512 if options.tiny else 8192
        for name, make in costly(length, device):
            for heads in (HEADS["shared heads"], HEADS["shared wide heads"]):
                case = f"{length} tokens, {heads[0]} heads of {heads[2]} on {heads[1]}, {name}"
                try:
                    costs[case] = cost(make(), heads, length, device)
                except Exception as error:
                    print(f"FAILED  {case}: {type(error).__name__}: {str(error).strip().splitlines()[-1:]}", flush=True)
                    continue
                told = costs[case]
                print(f"{case}: {told['milliseconds']:.2f} ms  {told['peak_megabytes']:,.0f} MB  "
                      f"{', '.join(told['kernels']) or 'unknown'}", flush=True)
    worst = {kind: max((value for name, each in found.items() if name.startswith(kind) for value in each.values()),
                       default=0.0) for kind in BOUNDS}
    print(f"{len(found)} checks; the largest errors: {worst}; broken or failed: {broken or 'none'}")
    gpu = {"gpu": torch.cuda.get_device_name(), "torch": torch.__version__} if device.type == "cuda" else {}
    print(json.dumps({"benchmark": "gpu_attention", "errors": found, "costs": costs, "broken": broken,
                      "machine": common.machine(), **gpu}))
    raise SystemExit(bool(broken))


if __name__ == "__main__":
    main()
