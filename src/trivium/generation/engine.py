"""The sampling engine: batched prefill, a static cache of keys and values, continuous batching.

Every sample has its own stream of uniform numbers, named by its seed alone, so it is the same whatever shares the batch
(up to the rounding of sums). A prompt is computed once for all its samples. Finished rows leave and waiting ones enter.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from trivium import randomness
from trivium.errors import TriviumError
from trivium.model.config import ModelConfig
from trivium.model.transformer import LanguageModel, causal_attention


@dataclass(frozen=True)
class Sampling:
    """How tokens are drawn."""

    temperature: float = 1.0
    """Logits are divided by it; 0 always takes the likeliest token."""
    top_k: int = 0
    """Draw from so many of the likeliest tokens; 0 from all."""
    top_p: float = 1.0
    """Draw from the fewest likeliest tokens that hold this much probability (Holtzman et al. 2020)."""
    max_new_tokens: int = 128
    """Longest completion."""
    seed: int = 0
    """Seed of all samples."""

    def __post_init__(self) -> None:
        if not 0 <= self.temperature < float("inf"):
            raise TriviumError(f"temperature is {self.temperature}; it must be 0 or more")
        if self.top_k < 0:
            raise TriviumError(f"top_k is {self.top_k}; it must be 0 (all tokens) or more")
        if not 0 < self.top_p <= 1:
            raise TriviumError(f"top_p is {self.top_p}; it must lie in (0, 1]")
        if self.max_new_tokens < 1:
            raise TriviumError(f"max_new_tokens is {self.max_new_tokens}; it must be at least 1")


@dataclass
class Completion:
    """One sample."""

    tokens: list[int]
    """The sampled tokens, the stop token included."""
    log_probs: np.ndarray
    """The log-probability of each under the full distribution at the sampling temperature (at 1 when greedy), in nats."""
    finished: bool
    """Ended with a stop token, not for want of room."""


@dataclass
class _Waiting:
    """A sample that has its prompt's keys and values but no row yet."""

    prompt: int
    sample: int
    seed: int


class _Cache:
    """Keys and values of ``rows`` sequences: for each layer ``[rows, kv_heads, capacity, head_dim]``."""

    def __init__(self, config: ModelConfig, rows: int, capacity: int, like: Tensor) -> None:
        shape = (config.num_layers, rows, config.num_kv_heads, capacity, config.head_dim)
        self.keys = like.new_zeros(shape)
        self.values = like.new_zeros(shape)
        self.window = config.sliding_window

    def prefill(self, rows: Sequence[int]) -> Callable[[int, Tensor, Tensor, Tensor], Tensor]:
        """Attention over whole prompts, which leaves their keys and values in ``rows``."""
        causal = causal_attention(self.window)

        def attend(layer: int, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
            length = q.shape[2]  # keys and values may have a prefix in front, which is the same for all and not kept
            self.keys[layer, rows, :, :length] = k[:, :, -length:]
            self.values[layer, rows, :, :length] = v[:, :, -length:]
            return causal(layer, q, k, v)
        return attend

    def step(self, places: Tensor, longest: int) -> Callable[[int, Tensor, Tensor, Tensor], Tensor]:
        """Attention of one new token a row, at ``places [rows]``, over the past of its row."""
        count = len(places)
        rows = torch.arange(count, device=places.device)
        every = torch.arange(longest, device=places.device)
        mask = every <= places[:, None]
        if self.window is not None:
            mask &= every > places[:, None] - self.window
        mask = mask[:, None, None]

        def attend(layer: int, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
            self.keys[layer, rows, :, places] = k[:, :, -1]
            self.values[layer, rows, :, places] = v[:, :, -1]
            keys, values, seen, before = self.keys[layer, :count, :, :longest], self.values[layer, :count, :, :longest], mask, k.shape[2] - 1
            if before:
                keys, values = torch.cat([k[:, :, :before], keys], 2), torch.cat([v[:, :, :before], values], 2)
                seen = F.pad(mask, (before, 0), value=True)
            return F.scaled_dot_product_attention(q, keys, values, attn_mask=seen, enable_gqa=q.shape[1] != k.shape[1])
        return attend

    def move(self, source: Sequence[int], target: Sequence[int]) -> None:
        """Copy rows within the cache."""
        self.keys[:, target] = self.keys[:, source]
        self.values[:, target] = self.values[:, source]


def choose(logits: Tensor, sampling: Sampling, uniforms: Tensor) -> tuple[Tensor, Tensor]:
    """Draw a token for each row of ``logits [B, V]`` by inverting the cumulative distribution at ``uniforms [B]``; returns
    tokens and their log-probabilities under the full distribution, both ``[B]``."""
    scaled = logits.float() / (sampling.temperature or 1.0)
    log_probs = torch.log_softmax(scaled, dim=-1)
    if sampling.temperature == 0:
        tokens = logits.argmax(-1)
    else:
        probs = log_probs.exp()
        if sampling.top_k and sampling.top_k < probs.shape[1]:
            least = probs.topk(sampling.top_k).values[:, -1:]
            probs = probs.where(probs >= least, 0)
        if sampling.top_p < 1:
            ordered, order = (probs / probs.sum(-1, keepdim=True)).sort(descending=True)
            beyond = ordered.cumsum(-1) - ordered >= sampling.top_p
            probs = probs.scatter(1, order, ordered.masked_fill(beyond, 0))
        cumulative = probs.double().cumsum(-1)
        aim = uniforms[:, None].to(cumulative) * cumulative[:, -1:]
        tokens = torch.searchsorted(cumulative, aim, right=True)[:, 0].clamp(max=logits.shape[1] - 1)
    return tokens, log_probs.gather(1, tokens[:, None])[:, 0]


@torch.inference_mode()
def generate(model: LanguageModel, prompts: Sequence[Sequence[int]], sampling: Sampling, stop: Collection[int],
             samples: int | Sequence[int] = 1, batch_rows: int = 128, keys: Sequence[object] | None = None,
             progress: Callable[[int, int], None] | None = None) -> list[list[Completion]]:
    """Complete each prompt ``samples`` times (a number for all, or one for each). ``keys`` name the prompts' random
    streams; by default their indices do. Generation ends at a token of ``stop``, after ``max_new_tokens``, or at the
    model's last position. Raises :class:`TriviumError` for a prompt that is empty or leaves no room."""
    config = model.config
    for index, prompt in enumerate(prompts):
        if not prompt:
            raise TriviumError(f"prompt {index} is empty")
        if len(prompt) >= config.max_positions:
            raise TriviumError(f"prompt {index} has {len(prompt)} tokens; with an answer it does not fit the model's "
                               f"{config.max_positions} positions")
    wanted = [samples] * len(prompts) if isinstance(samples, int) else list(samples)
    results: list[list[Completion | None]] = [[None] * n for n in wanted]
    device, training = model.lm_head.weight.device, model.training
    model.eval()
    stopping = torch.zeros(config.vocab_size, dtype=torch.bool, device=device)
    stopping[list(stop)] = True
    # Prompts of like length go together, the longest first, so that a batch is full of work to its end.
    order = sorted((p for p in range(len(prompts)) if wanted[p]), key=lambda p: (-len(prompts[p]), p))
    waiting = [_Waiting(p, s, randomness.derive(sampling.seed, keys[p] if keys else p, s)) for p in order for s in range(wanted[p])]
    total, done = len(waiting), 0
    rows = min(batch_rows, total)
    capacity = min(config.max_positions, max((len(prompts[p]) for p in order), default=0) + sampling.max_new_tokens)
    cache = _Cache(config, rows, capacity, model.lm_head.weight)
    live: list[_Waiting] = []
    seeds = np.zeros(0, np.uint64)
    lengths, drawn = torch.zeros(0, dtype=torch.int64), torch.zeros(0, dtype=torch.int64)
    tokens = torch.zeros((rows, sampling.max_new_tokens), dtype=torch.int64, device=device)
    log_probs = torch.zeros((rows, sampling.max_new_tokens), device=device)
    logits = torch.zeros((0, config.vocab_size), device=device)

    while waiting or live:
        if waiting and (len(live) <= rows * 3 // 4):
            entering, waiting = waiting[:rows - len(live)], waiting[rows - len(live):]
            logits = torch.cat([logits, _prefill(model, cache, prompts, entering, len(live))])
            live += entering
            seeds = np.array([w.seed for w in live], np.uint64)
            lengths = torch.cat([lengths, torch.tensor([len(prompts[w.prompt]) for w in entering])])
            drawn = torch.cat([drawn, torch.zeros(len(entering), dtype=torch.int64)])
        count = len(live)
        uniforms = torch.from_numpy(randomness.uniforms(seeds, drawn.numpy())).to(device)
        chosen, chosen_log_probs = choose(logits, sampling, uniforms)
        every = torch.arange(count, device=device)
        tokens[every, drawn.to(device)] = chosen
        log_probs[every, drawn.to(device)] = chosen_log_probs
        drawn = drawn + 1
        stopped = stopping[chosen].cpu()
        full = (drawn >= sampling.max_new_tokens) | (lengths >= config.max_positions - 1)
        ended = stopped | full
        if ended.any():
            for row in ended.nonzero()[:, 0].tolist():
                n = int(drawn[row])
                results[live[row].prompt][live[row].sample] = Completion(tokens[row, :n].tolist(), log_probs[row, :n].cpu().numpy().copy(), bool(stopped[row]))
            done += int(ended.sum())
            if progress:
                progress(done, total)
            keep = (~ended).nonzero()[:, 0]
            holes = [row for row in ended.nonzero()[:, 0].tolist() if row < len(keep)]
            movers = [row for row in keep.tolist() if row >= len(keep)]
            layout = list(range(len(keep)))
            for hole, mover in zip(holes, movers, strict=True):
                layout[hole] = mover
            if holes:
                cache.move(movers, holes)
                tokens[holes], log_probs[holes] = tokens[movers], log_probs[movers]
            live = [live[row] for row in layout]
            seeds, lengths, drawn, chosen = seeds[layout], lengths[layout], drawn[layout], chosen[torch.tensor(layout, dtype=torch.int64)]
        if live:
            longest = int(lengths.max()) + 1
            places = lengths.to(device)
            hidden = model.model(chosen[:, None], places[:, None], cache.step(places, longest))
            logits = model.lm_head(hidden[:, -1])
            lengths = lengths + 1
        else:
            logits = logits[:0]
    model.train(training)
    return [[completion for completion in group if completion is not None] for group in results]


def _prefill(model: LanguageModel, cache: _Cache, prompts: Sequence[Sequence[int]], entering: Sequence[_Waiting], first: int) -> Tensor:
    """Compute the prompts of samples that take rows from ``first`` on; returns the logits after each, ``[n, V]``.
    Samples of one prompt are neighbours: the first computes, the others copy."""
    leaders: list[int] = []
    leader_of: list[int] = []
    for i, sample in enumerate(entering):
        if not leaders or entering[leaders[-1]].prompt != sample.prompt:
            leaders.append(i)
        leader_of.append(len(leaders) - 1)
    device = model.lm_head.weight.device
    parts = []
    for start in range(0, len(leaders), 32):
        chunk = leaders[start:start + 32]
        texts = [prompts[entering[i].prompt] for i in chunk]
        padded = torch.zeros((len(chunk), max(map(len, texts))), dtype=torch.int64)
        for row, text in enumerate(texts):
            padded[row, :len(text)] = torch.tensor(text)
        hidden = model.model(padded.to(device), None, cache.prefill([first + i for i in chunk]))
        last = torch.tensor([len(text) - 1 for text in texts], device=device)
        parts.append(model.lm_head(hidden[torch.arange(len(chunk), device=device), last]))
    followers = [i for i in range(len(entering)) if leaders[leader_of[i]] != i]
    if followers:
        cache.move([first + leaders[leader_of[i]] for i in followers], [first + i for i in followers])
    return torch.cat(parts)[torch.tensor(leader_of, device=device)]
