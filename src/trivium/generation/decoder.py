"""A model's forward pass laid out for sampling: fused matrices, rotary positions by one complex product, a static
cache.

It computes what :class:`trivium.model.LanguageModel` does, from copies of its matrices: transposed, as the CPU's
products of a few rows by a transposed matrix are up to five times as fast; queries, keys and values side by side, and
gate and up likewise; the norms' weights and the attention's scale multiplied in.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, fields
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from trivium.model.attention import masked_attention
from trivium.model.transformer import Block, LanguageModel, frequencies, rotary_length

Mix = Callable[[int, Tensor, Tensor, Tensor], Tensor]
"""``mix(layer, q [N, heads, d], k [N, kv_heads, d], v [N, kv_heads, d]) -> [N, heads * d]``"""


@dataclass
class Layer:
    """One block's matrices, each ``[in, out]``."""

    qkv: Tensor
    bias: Tensor | None
    qk_norm: Tensor | None
    out: Tensor
    gate_up: Tensor
    down: Tensor


def _weight(norm: nn.Module) -> Tensor:
    assert isinstance(norm.weight, Tensor)
    return norm.weight


class Decoder:
    """Forward passes with a cache of ``rows`` sequences of up to ``capacity`` tokens: keys and values are
    ``[layers, rows, kv_heads, capacity, head_dim]``. Products are computed in ``dtype``, the residual stream and
    normalisation in float32."""

    def __init__(self, model: LanguageModel, rows: int, capacity: int, dtype: torch.dtype) -> None:
        config = self.config = model.config
        self.rows, self.capacity, self.dtype = rows, capacity, dtype
        self.device = model.lm_head.weight.device
        d, kv = config.head_dim, config.num_kv_heads
        self.embedding, self.head, self.layers = self._laid_out(model)
        angles = torch.arange(capacity, device=self.device)[:, None] * frequencies(config, self.device)
        lengths = torch.full_like(angles, rotary_length(config))
        self.turns = torch.polar(lengths, angles)[:, None]  # [capacity, 1, d / 2]
        shape = (config.num_layers, rows, kv, capacity, d)
        self.keys = torch.zeros(shape, dtype=dtype, device=self.device)
        self.values = torch.zeros(shape, dtype=dtype, device=self.device)
        self.graphs: dict[tuple[int, int], Callable[[Tensor, Tensor], Tensor]] = {}
        self.pool: Any = None
        """The memory that all captured steps share."""

    @torch.no_grad()
    def _laid_out(self, model: LanguageModel) -> tuple[Tensor, Tensor, list[Layer]]:
        """The embeddings ``[V, hidden_size]``, which are the model's own, the output matrix ``[hidden_size, V]``, and
        the blocks' matrices."""
        config, dtype = self.config, self.dtype
        d, heads, kv = config.head_dim, config.num_heads, config.num_kv_heads
        scale = d ** -0.5
        pairs = torch.arange(d, device=self.device).view(2, d // 2).t().flatten()  # (i, i + d/2) become neighbours

        def paired(weight: Tensor) -> Tensor:
            return weight.view(-1, d, *weight.shape[1:])[:, pairs].flatten(0, 1)

        def laid_out(weight: Tensor) -> Tensor:
            return weight.t().contiguous().to(dtype)

        layers: list[Layer] = []
        for block in model.model.layers:
            assert isinstance(block, Block)
            attention, mlp = block.self_attn, block.mlp
            q, k, v = attention.q_proj, attention.k_proj, attention.v_proj
            before, after = _weight(block.input_layernorm), _weight(block.post_attention_layernorm)
            bias = torch.cat([paired(q.bias) * scale, paired(k.bias), v.bias]
                             ).to(dtype) if config.attention_bias else None
            norms = None
            if config.qk_norm:
                norms = torch.cat([(_weight(attention.q_norm)[pairs] * scale).expand(heads, d),
                                   _weight(attention.k_norm)[pairs].expand(kv, d)]).float()
            scale_q = 1.0 if config.qk_norm else scale
            layers.append(
                Layer(laid_out(torch.cat([paired(q.weight) * scale_q, paired(k.weight), v.weight]) * before), bias,
                      norms, laid_out(attention.o_proj.weight),
                      laid_out(torch.cat([mlp.gate_proj.weight, mlp.up_proj.weight]) * after),
                      laid_out(mlp.down_proj.weight)))
        return (model.model.embed_tokens.weight.detach(),
                laid_out(model.lm_head.weight * _weight(model.model.norm)), layers)

    @torch.no_grad()
    def renew(self, model: LanguageModel) -> None:
        """Go on with the weights of a model of the same shape, in the places of those before, so that captured steps
        stay true."""
        embedding, head, layers = self._laid_out(model)
        if embedding.data_ptr() != self.embedding.data_ptr():
            self.embedding = embedding
            self.graphs.clear()  # they read the embeddings where those before are
        self.head.copy_(head)
        for mine, new in zip(self.layers, layers, strict=True):
            for field in fields(Layer):
                kept, given = getattr(mine, field.name), getattr(new, field.name)
                if kept is not None:
                    kept.copy_(given)

    def _normed(self, x: Tensor) -> Tensor:
        """``x [N, hidden_size]`` at a mean square of 1. By one dot product a row: on the CPU torch's own takes eight
        kernels."""
        squares = torch.bmm(x[:, None], x[:, :, None]).mul_(1 / x.shape[1]).add_(self.config.norm_epsilon)
        return (x * squares.rsqrt_()[:, :, 0]).to(self.dtype)

    def _plus(self, x: Tensor, y: Tensor, weight: Tensor) -> Tensor:
        """``x + y @ weight``."""
        return torch.addmm(x, y, weight) if self.dtype == torch.float32 else x + (y @ weight).float()

    def hidden(self, tokens: Tensor, positions: Tensor, mix: Mix, skip_last: bool = False) -> Tensor:
        """The residual stream ``[N, hidden_size]`` after ``tokens [N]`` (or vectors ``[N, hidden_size]``) at
        ``positions [N]``, before the last norm. ``skip_last`` ends when the last layer has its keys and values."""
        config = self.config
        heads, turned = config.num_heads, config.num_heads + config.num_kv_heads
        x = (self.embedding[tokens] if tokens.ndim == 1 else tokens).float()
        turns = self.turns[positions]
        for layer, weights in enumerate(self.layers):
            normed = self._normed(x)
            qkv = normed @ weights.qkv if weights.bias is None else torch.addmm(weights.bias, normed, weights.qkv)
            qkv = qkv.view(len(x), -1, config.head_dim)
            qk = qkv[:, :turned].float()
            if weights.qk_norm is not None:
                qk = F.rms_norm(qk, (config.head_dim,), eps=config.norm_epsilon) * weights.qk_norm
            torch.view_as_complex(qk.view(*qk.shape[:-1], -1, 2)).mul_(turns)
            qk = qk.to(self.dtype)
            mixed = mix(layer, qk[:, :heads], qk[:, heads:], qkv[:, turned:])
            if skip_last and layer == len(self.layers) - 1:
                break
            x = self._plus(x, mixed, weights.out)
            gate, up = (self._normed(x) @ weights.gate_up).chunk(2, dim=-1)
            x = self._plus(x, F.silu(gate).mul_(up), weights.down)
        return x

    def prefill(self, tokens: Tensor, first: int, lengths: Sequence[int] = ()) -> None:
        """Leave the keys and values of ``tokens [n, T]``, or of vectors ``[n, T, hidden_size]``, in the rows from
        ``first`` on. Their ``lengths`` do not matter: what padding leaves is written over before it is seen."""
        count, length = tokens.shape[:2]
        window = self.config.sliding_window
        mask = None
        if window is not None and window < length:
            mask = torch.ones(length, length, dtype=torch.bool, device=self.device).tril().triu(1 - window)

        def mix(layer: int, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
            q, k, v = (x.view(count, length, *x.shape[1:]).transpose(1, 2) for x in (q, k, v))
            self.keys[layer, first:first + count, :, :length] = k
            self.values[layer, first:first + count, :, :length] = v
            mixed = masked_attention(q, k, v, mask, 1.0) if mask is not None else F.scaled_dot_product_attention(
                q, k, v, is_causal=True, scale=1.0, enable_gqa=q.shape[1] != k.shape[1])
            return mixed.transpose(1, 2).reshape(count * length, -1)

        positions = torch.arange(length, device=self.device).repeat(count)
        self.hidden(tokens.flatten(0, 1), positions, mix, skip_last=True)

    def step(self, tokens: Tensor, places: Tensor, longest: int, even: bool) -> Tensor:
        """Logits ``[B, V]`` after one more token for each of the first ``B`` rows: ``tokens [B]`` at ``places [B]``,
        all below ``longest``. ``even`` says that all places are ``longest - 1``."""
        if self.device.type != "cuda":
            return self._step(tokens, places, longest, even)
        rows, reach = buckets(len(tokens), longest, self.rows, self.capacity)
        more = rows - len(tokens)  # rows that no sequence lives in
        return self._captured(rows, reach)(F.pad(tokens, (0, more)), F.pad(places, (0, more)))[:len(tokens)]

    def _step(self, tokens: Tensor, places: Tensor, longest: int, even: bool) -> Tensor:
        count, kv, d = len(tokens), self.config.num_kv_heads, self.config.head_dim
        lanes = torch.arange(count * kv, device=self.device)
        index = lanes * self.capacity + places.repeat_interleave(kv)
        bias = None
        if not even or self.config.sliding_window is not None:
            every = torch.arange(longest, device=self.device)
            hidden = every > places[:, None]
            if self.config.sliding_window is not None:
                hidden |= every <= places[:, None] - self.config.sliding_window
            bias = torch.zeros(hidden.shape, dtype=self.dtype, device=self.device).masked_fill_(hidden, float("-inf"))
            bias = bias.repeat_interleave(kv, 0)[:, None]

        def mix(layer: int, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
            self.keys[layer].view(-1, d).index_put_((index,), k.reshape(-1, d))
            self.values[layer].view(-1, d).index_put_((index,), v.reshape(-1, d))
            keys = self.keys[layer].view(-1, self.capacity, d)[:count * kv, :longest]
            values = self.values[layer].view(-1, self.capacity, d)[:count * kv, :longest]
            q = q.reshape(count * kv, -1, d)
            scores = torch.bmm(q, keys.transpose(1, 2))
            if bias is not None:
                scores += bias
            return torch.bmm(scores.softmax(-1, dtype=torch.float32).to(self.dtype), values).view(count, -1)

        return (self._normed(self.hidden(tokens, places, mix)) @ self.head).float()

    def _captured(self, rows: int, longest: int) -> Callable[[Tensor, Tensor], Tensor]:
        """The step for ``rows`` rows as a CUDA graph, captured at its first use."""
        if (rows, longest) not in self.graphs:
            tokens = torch.zeros(rows, dtype=torch.int64, device=self.device)
            places = torch.zeros(rows, dtype=torch.int64, device=self.device)
            kept_keys, kept_values = self.keys[:, :rows, :, 0].clone(), self.values[:, :rows, :, 0].clone()
            side = torch.cuda.Stream()  # type: ignore[no-untyped-call]
            side.wait_stream(torch.cuda.current_stream())
            graph = torch.cuda.CUDAGraph()
            with places_apart():
                with torch.cuda.stream(side):
                    for _ in range(1 if self.graphs else 2):
                        self._step(tokens, places, longest, False)
                torch.cuda.current_stream().wait_stream(side)
                with torch.cuda.graph(graph, pool=self.pool):
                    logits = self._step(tokens, places, longest, False)
            self.pool = graph.pool()
            self.keys[:, :rows, :, 0], self.values[:, :rows, :, 0] = kept_keys, kept_values

            def replay(new_tokens: Tensor, new_places: Tensor) -> Tensor:
                tokens.copy_(new_tokens)
                places.copy_(new_places)
                graph.replay()
                return logits

            self.graphs[rows, longest] = replay
        return self.graphs[rows, longest]

    def move(self, source: list[int], target: list[int], length: int) -> None:
        """Copy the first ``length`` tokens of rows to other rows."""
        self.keys[:, target, :, :length] = self.keys[:, source, :, :length]
        self.values[:, target, :, :length] = self.values[:, source, :, :length]


@contextmanager
def places_apart() -> Iterator[None]:
    """Let rows be written to the cache without sorting their places first, as PyTorch does for places that may be the
    same where it is asked to be deterministic. Here no two are."""
    was, warns = torch.are_deterministic_algorithms_enabled(), torch.is_deterministic_algorithms_warn_only_enabled()
    torch.use_deterministic_algorithms(False)
    try:
        yield
    finally:
        torch.use_deterministic_algorithms(was, warn_only=warns)


def buckets(count: int, longest: int, rows: int, capacity: int) -> tuple[int, int]:
    """The shapes that steps are captured for: rows up to a power of two, tokens up to a multiple of 128."""
    return min(rows, 1 << (count - 1).bit_length()), min(capacity, -(-longest // 128) * 128)
