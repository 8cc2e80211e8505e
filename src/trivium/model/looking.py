"""What a model makes of a text, token by token: for people who look into it, not for training.

All are exact: computed from the model's own weights for the one text, in float32, or in float64 where the weights are.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from trivium.errors import TriviumError
from trivium.model.attention import Attend, attention_by, causal_attention
from trivium.model.transformer import LanguageModel, RewardModel

ROWS = 64
"""Places whose distributions over the vocabulary are held at once."""


@dataclass(frozen=True)
class Following:
    """What a model expects after each of T tokens."""

    likeliest: Tensor
    """Ids ``[T, count]``, the likeliest first."""
    log_probs: Tensor
    """Their log-probabilities in nats ``[T, count]``."""
    entropies: Tensor
    """Of the whole distribution after each token, in nats ``[T]``."""
    standing: Tensor
    """Log-probability in nats of the token that stands there ``[T - 1]``: of token i + 1 after token i."""
    ranks: Tensor
    """How many tokens are likelier than that one, plus one ``[T - 1]``."""


@torch.no_grad()
def following(model: LanguageModel, tokens: Tensor, count: int = 10) -> Following:
    """The ``count`` likeliest tokens after each of ``tokens [T]``, and how likely those that follow were."""
    found: list[tuple[Tensor, ...]] = []
    for start, (log_p,) in distributions(tokens, model):
        best = log_p.topk(min(count, log_p.shape[1]))
        after = tokens[start + 1:start + 1 + len(log_p)]
        standing = log_p[:len(after)].gather(1, after[:, None])
        ranks = 1 + (log_p[:len(after)] > standing).sum(1)
        found.append((best.indices, best.values, -(log_p.exp() * log_p).sum(1), standing[:, 0], ranks))
    return Following(*(torch.cat(parts) for parts in zip(*found, strict=True)))


@torch.no_grad()
def divergences(policy: LanguageModel, reference: LanguageModel, tokens: Tensor) -> tuple[Tensor, Tensor]:
    """How far a policy is from its reference at each token but the first, in nats, each ``[T - 1]``: ``log p - log r``
    of the token that stands there, and the divergence of the distributions it was drawn from, ``KL(p || r) =
    sum p (log p - log r)``, which is the mean of the former over what the policy might have said."""
    ratios, whole = [], []
    for start, (p, r) in distributions(tokens, policy, reference):
        after = tokens[start + 1:start + 1 + len(p), None]
        ratios.append((p - r)[:len(after)].gather(1, after)[:, 0])
        whole.append((p.exp() * (p - r)).sum(1)[:len(after)])
    return torch.cat(ratios), torch.cat(whole)


def distributions(tokens: Tensor, *models: LanguageModel) -> Iterator[tuple[int, list[Tensor]]]:
    """The models' log-probabilities ``[n, V]`` of the next token, in float64, for so many places at a time, and the
    first of those places. Raises :class:`TriviumError` for a model whose logits are not finite."""
    hidden = [model.model(tokens[None])[0] for model in models]
    for start in range(0, len(tokens), ROWS):
        logits = [model.lm_head(one[start:start + ROWS]).double()
                  for model, one in zip(models, hidden, strict=True)]
        if not all(bool(one.isfinite().all()) for one in logits):
            raise TriviumError("the model's logits are not finite numbers: its weights are broken")
        yield start, [torch.log_softmax(one, -1) for one in logits]


@torch.no_grad()
def attention_weights(model: LanguageModel | RewardModel, tokens: Tensor, layer: int) -> tuple[Tensor, Tensor]:
    """What each head of a layer (from 0) looks at in a text ``tokens [T]``: ``softmax(q k^T / sqrt(d))`` over the
    tokens that each one sees (Vaswani et al. 2017, equation 1), ``[heads, T, T]``, rows for those that look; and the
    share ``[heads, T]`` that goes to places before the text, where an adapter put a prefix. Raises
    :class:`TriviumError` for a layer that is not there, and for a model whose attention is its library's own."""
    trunk, layers = model.model, model.config.num_layers
    if not 0 <= layer < layers:
        raise TriviumError(f"layer {layer}: the model's layers go from 0 to {layers - 1}")
    given_attention(trunk, len(tokens))
    window, found = model.config.sliding_window, list[Tensor]()
    usual = causal_attention(window)

    def attend(which: int, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        if which == layer:
            before, kind = k.shape[2] - q.shape[2], torch.promote_types(q.dtype, torch.float32)
            keys = k[0].to(kind).repeat_interleave(q.shape[1] // k.shape[1], 0)
            scores = q[0].to(kind) @ keys.transpose(1, 2) * q.shape[3]**-0.5
            hidden = ~seen(len(tokens), window, q.device)
            scores[:, :, before:].masked_fill_(hidden, float("-inf"))
            found.append(scores.softmax(-1))
        return usual(which, q, k, v)

    trunk(tokens[None], None, attend)
    if not found:
        raise TriviumError(f"layer {layer} of this model has no attention")
    before = found[0].shape[2] - len(tokens)
    return found[0][:, :, before:], found[0][:, :, :before].sum(-1)


@torch.no_grad()
def scores_if_ended(model: RewardModel, tokens: Tensor, end: int, first: int = 0) -> Tensor:
    """The score ``[T - first]``, without the shift, that a text ``tokens [T]`` would get if it ended after each token
    from place ``first`` on: read, as in training, at the token ``end``, which is put after that token, unless it is
    that token. One pass: all the ends are branches of the text that see no other (:mod:`trivium.model.segments`)."""
    length, device = len(tokens), tokens.device
    places = torch.arange(first, length, device=device)
    places = places[tokens[first:] != end]
    if length + bool(len(places)) > model.config.max_positions:
        raise TriviumError(f"{length} tokens and one that ends them are more than the reward model's "
                           f"{model.config.max_positions} positions")
    found: Tensor = model(tokens[None])[0, first:]
    if not len(places):
        return found
    ends = torch.full((len(places),), end, device=device)
    if packs(model.model, length + 1):
        found[places - first] = model(torch.cat([tokens, ends])[None], torch.cat([
            torch.arange(length, device=device), places + 1])[None], branching(length, places, model.config.
                                                                               sliding_window))[0, length:]
    else:
        found[places - first] = torch.stack([
            model(torch.cat([tokens[:place + 1], ends[:1]])[None])[0, -1] for place in places.tolist()])
    return found


def branching(length: int, places: Tensor, window: int | None) -> Attend:
    """Attention for a text of ``length`` tokens with, behind it, one token for each of ``places``, which sees the text
    up to there and itself."""
    size = length + len(places)
    mask = torch.zeros(size, size, dtype=torch.bool, device=places.device)
    mask[:length, :length] = seen(length, window, places.device)
    text = torch.arange(length, device=places.device)
    mask[length:, :length] = text <= places[:, None]
    if window is not None:
        mask[length:, :length] &= places[:, None] + 1 - text < window
    mask[length:, length:].fill_diagonal_(True)
    return attention_by(mask[None, None])


def seen(length: int, window: int | None, device: torch.device) -> Tensor:
    """Which tokens (columns) each token of a text (rows) sees."""
    mask = torch.ones(length, length, dtype=torch.bool, device=device).tril()
    return mask if window is None else mask.triu(1 - window)


def packs(trunk: nn.Module, length: int) -> bool:
    """Whether a trunk can be given another attention over so many positions; those of other families not always."""
    ask = getattr(trunk, "packs", None)
    return ask is None or bool(ask(length))


def given_attention(trunk: nn.Module, length: int) -> None:
    """Raise :class:`TriviumError` for a trunk that cannot be given another attention."""
    if not packs(trunk, length):
        raise TriviumError(f"what this model's heads look at cannot be told: {getattr(trunk, 'why', '')}")
