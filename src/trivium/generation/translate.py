"""Sampling from encoder-decoders: sources are read once, and targets are written token by token, with a cache of what
was written."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from types import SimpleNamespace
from typing import Any

import numpy as np
import torch

from trivium import randomness
from trivium.errors import TriviumError
from trivium.generation.sampling import Controls, Sampling, draw
from trivium.model.encoder_decoder import EncoderDecoder, look_at
from trivium.model.plain_decoder import PlainDecoder


@torch.inference_mode()
def translate(model: EncoderDecoder, sources: Sequence[Sequence[int]], sampling: Sampling, end: int, rows: int = 64,
              progress: Callable[[int, int], None] | None = None) -> list[list[int]]:
    """A target for each source, without the token ``end``, which begins and ends it: the likeliest tokens at
    ``sampling.temperature`` 0, otherwise drawn, each target from a stream of its own named by its place in the list.
    ``rows`` sources, alike in length, are read and answered at a time. Raises :class:`TriviumError` for a source that
    is empty, too long, or holds unknown tokens."""
    for number, source in enumerate(sources, 1):
        if not source or len(source) > model.config.max_positions:
            raise TriviumError(
                f"source {number} has {len(source)} tokens; "
                f"a model of {model.config.max_positions} positions reads 1 to as many"
            )
        if min(source) < 0 or max(source) >= model.config.vocab_size:
            raise TriviumError(f"source {number} holds a token outside the model's {model.config.vocab_size}")
    found: list[list[int]] = [[] for _ in sources]
    order = sorted(range(len(sources)), key=lambda i: len(sources[i]))
    for start in range(0, len(order), rows):
        chosen = order[start:start + rows]
        for place, target in zip(chosen, _together(model, [sources[i] for i in chosen], sampling, end, chosen),
                                 strict=True):
            found[place] = target
        if progress:
            progress(min(start + rows, len(order)), len(order))
    return found


def _together(model: EncoderDecoder, sources: Sequence[Sequence[int]], sampling: Sampling, end: int,
              places: Sequence[int]) -> list[list[int]]:
    device, count = model.lm_head.weight.device, len(sources)
    tokens = torch.zeros(count, max(map(len, sources)), dtype=torch.int64)
    documents = torch.full_like(tokens, -1)
    for row, source in enumerate(sources):
        tokens[row, :len(source)] = torch.tensor(source)
        documents[row, :len(source)] = 0
    tokens, documents = tokens.to(device), documents.to(device)
    cross = look_at(model.read(tokens, documents), (documents >= 0)[:, None])
    capacity = min(sampling.max_new_tokens + 1, model.config.max_positions)
    conditioned: Any = SimpleNamespace(config=model.config, lm_head=model.lm_head,
                                       model=partial(model.model.decoder, cross=cross))
    decoder = PlainDecoder(conditioned, count, capacity)
    seeds = np.array([randomness.derive(sampling.seed, place) for place in places], np.uint64)
    controls = Controls([sampling] * count, device)
    seen = torch.zeros(count, model.config.vocab_size, dtype=torch.bool,
                       device=device) if sampling.repetition_penalty != 1 else None
    written, done = [], torch.zeros(count, dtype=torch.bool, device=device)
    last = torch.full((count,), end, device=device)
    for place in range(capacity - 1):
        logits = decoder.step(last, torch.full((count,), place, device=device), place + 1, True)
        uniforms = torch.from_numpy(randomness.uniforms(seeds, np.full(count, place))).to(device)
        last, _ = draw(logits, controls, uniforms, seen)
        if seen is not None:
            seen[torch.arange(count, device=device), last] = True
        written.append(last)
        done |= last == end
        if bool(done.all()):
            break
    rows = torch.stack(written, 1).tolist() if written else [[] for _ in sources]
    return [row[:row.index(end)] if end in row else row for row in rows]
