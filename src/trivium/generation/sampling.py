"""How tokens are drawn from logits: for a whole batch at once, each row by its own rules and its own random numbers."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor

from trivium.errors import TriviumError

SMALLEST = 1e-4
"""Temperatures, penalties and top-p between 0 and this one count as this one: by less, numbers would leave float32."""


SMALL = 500_000_000
"""Parameters below which a model's rarer tokens are mostly mistakes."""


def usual_temperature(parameters: int) -> float:
    """The temperature at which a model of so many parameters is talked with where nobody names another: 0.3 for small
    ones, 0.7 for others."""
    return 0.3 if parameters < SMALL else 0.7


def usual_sampling(folder: Path, parameters: int) -> dict[str, float]:
    """``temperature``, ``top_p`` and ``top_k`` with which a model is talked with where nobody names others: those of
    its ``generation_config.json``, and the usual temperature where that says none."""
    try:
        given = json.loads((folder / "generation_config.json").read_bytes())
    except (OSError, ValueError):
        given = {}
    given = given if isinstance(given, dict) else {}
    found: dict[str, float] = {"temperature": usual_temperature(parameters)}
    for name, most in (("temperature", 2.0), ("top_p", 1.0), ("top_k", 1e9)):
        value = given.get(name)
        if isinstance(value, (int, float)) and not isinstance(value, bool) and 0 <= value <= most and (
                name != "top_p" or value > 0):
            found[name] = int(value) if name == "top_k" else float(value)
    return found


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
    min_p: float = 0.0
    """Draw from tokens at least this share as likely as the likeliest one (Nguyen et al. 2024)."""
    repetition_penalty: float = 1.0
    """Logits of tokens that occurred, in the prompt too, are divided by it where positive and multiplied where negative
    (Keskar et al. 2019)."""
    stop: tuple[str, ...] = ()
    """Generation ends when the text holds one of these."""

    def __post_init__(self) -> None:
        if not 0 <= self.temperature < float("inf"):
            raise TriviumError(f"temperature is {self.temperature}; it must be 0 or more")
        if self.top_k < 0:
            raise TriviumError(f"top_k is {self.top_k}; it must be 0 (all tokens) or more")
        if not 0 < self.top_p <= 1:
            raise TriviumError(f"top_p is {self.top_p}; it must lie in (0, 1]")
        if not 0 <= self.min_p <= 1:
            raise TriviumError(f"min_p is {self.min_p}; it must lie in [0, 1]")
        if not 0 < self.repetition_penalty < float("inf"):
            raise TriviumError(f"repetition_penalty is {self.repetition_penalty}; it must be above 0 (1 is none)")
        if self.max_new_tokens < 1:
            raise TriviumError(f"max_new_tokens is {self.max_new_tokens}; it must be at least 1")
        if not all(self.stop):
            raise TriviumError("stop holds an empty text; leave it out")


class Controls:
    """The sampling rules of a batch's rows, as columns ``[B, 1]``. A column that no row needs is None."""

    def __init__(self, rows: Sequence[Sampling], device: torch.device) -> None:
        def column(values: Sequence[float], neutral: float, dtype: torch.dtype = torch.float32) -> Tensor | None:
            if all(value == neutral for value in values):
                return None
            return torch.tensor(values, dtype=dtype, device=device)[:, None]

        self.greedy = column([row.temperature == 0 for row in rows], False, torch.bool)
        self.all_greedy = all(row.temperature == 0 for row in rows)
        self.temperature = column([max(row.temperature, SMALLEST) if row.temperature else 1.0 for row in rows], 1.0)
        self.penalty = column([min(max(row.repetition_penalty, SMALLEST), 1 / SMALLEST) for row in rows], 1.0)
        self.min_p = column([row.min_p for row in rows], 0.0)
        cut = [i for i, row in enumerate(rows) if row.temperature and (row.top_k or row.top_p < 1)]
        self.cut = torch.tensor(cut, device=device) if cut else None
        self.top_k = torch.tensor([rows[i].top_k or 2**62 for i in cut], device=device)[:, None]
        # the likeliest token is always left
        self.top_p = torch.tensor([max(rows[i].top_p, SMALLEST) for i in cut], device=device)[:, None]


def draw(logits: Tensor, controls: Controls, uniforms: Tensor, seen: Tensor | None = None,
         allowed: Tensor | None = None) -> tuple[Tensor, Tensor]:
    """A token for each row of ``logits [B, V]``, by inverting the cumulative distribution at ``uniforms [B]``, and its
    log-probability under the full distribution at the row's temperature (1 where greedy), both ``[B]``. ``seen [B, V]``
    marks the tokens that a repetition penalty is about, ``allowed [B, V]`` those that may be drawn, one a row at least;
    both change what is drawn, not what is reported."""
    scaled = logits.float()
    if controls.temperature is not None:
        scaled = scaled / controls.temperature
    peak = scaled.amax(-1, keepdim=True)
    best = scaled
    weights = (scaled - peak).exp_()  # the likeliest token's is 1
    log_total = weights.sum(-1, keepdim=True).log_()
    if controls.penalty is not None and seen is not None:
        raw = logits.float()
        raw = torch.where(seen, torch.where(raw > 0, raw / controls.penalty, raw * controls.penalty), raw)
        best = raw if controls.temperature is None else raw / controls.temperature
    if allowed is not None:
        best = best.masked_fill(~allowed, float("-inf"))
    if best is not scaled:
        weights = (best - best.amax(-1, keepdim=True)).exp_()
    if controls.all_greedy:
        tokens = best.argmax(-1, keepdim=True)
    else:
        tokens = _invert(_cut(weights, controls), uniforms)
        if controls.greedy is not None:
            tokens = torch.where(controls.greedy, best.argmax(-1, keepdim=True), tokens)
    return tokens[:, 0], (scaled.gather(1, tokens) - peak - log_total)[:, 0]


def _cut(weights: Tensor, controls: Controls) -> Tensor:
    """``weights [B, V]`` with zeros where top-k, top-p or min-p forbid."""
    if controls.cut is not None:
        ordered, order = weights[controls.cut].sort(descending=True, stable=True)
        ordered = ordered.masked_fill(torch.arange(ordered.shape[1], device=ordered.device) >= controls.top_k, 0)
        reached = ordered.cumsum(-1)
        ordered = ordered.masked_fill(reached - ordered >= controls.top_p * reached[:, -1:], 0)
        weights = weights.index_copy(0, controls.cut, torch.zeros_like(ordered).scatter_(1, order, ordered))
    return weights if controls.min_p is None else weights.masked_fill(weights < controls.min_p, 0)


def _invert(weights: Tensor, uniforms: Tensor, block: int = 64) -> Tensor:
    """The tokens ``[B, 1]`` at which the sums of ``weights [B, V]`` pass ``uniforms [B]`` of their totals: first the
    block, then the token in it, so that only one block a row is summed step by step."""
    rows = F.pad(weights, (0, -weights.shape[1] % block)).view(len(weights), -1, block)
    sums = rows.sum(-1, dtype=torch.float64)
    reached = sums.cumsum(-1)
    aim = uniforms[:, None].to(reached) * reached[:, -1:]
    place = torch.searchsorted(reached, aim, right=True).clamp_(max=rows.shape[1] - 1)
    inside = rows.gather(1, place[:, :, None].expand(-1, 1, block))[:, 0].double().cumsum(-1)
    inside += (reached - sums).gather(1, place)
    token = place * block + torch.searchsorted(inside, aim, right=True).clamp_(max=block - 1)
    return token.clamp_(max=weights.shape[1] - 1)
