"""A decoder-only Transformer: RMSNorm, rotary positions, grouped-query attention, SwiGLU, optional QK-norm.

The parameters carry the names of Hugging Face's Llama and Qwen3, so a state dict *is* the contents of a
``model.safetensors``. The file knows nothing of caches, packing, compilation or parallelism: whoever calls the model
passes ``attend``, which takes a layer's queries, keys and values and mixes them as the occasion demands. Training packs
many documents into a row and attends within them (:func:`trivium.model.attention.packed_attention`); sampling keeps
keys and values of the past.
"""

from __future__ import annotations

import copy
import math
from typing import Any, TypeVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from trivium.model.attention import Attend, Cross, causal_attention
from trivium.model.config import EncoderConfig, EncoderDecoderConfig, ModelConfig, RopeScaling


class WithoutContents(TorchFunctionMode):
    """Within it modules are made on the meta device, and left as they are: what initialises them would do nothing
    there, but importing how PyTorch does nothing takes two seconds."""

    def __enter__(self) -> WithoutContents:
        self.meta = torch.device("meta")
        self.meta.__enter__()
        return super().__enter__()  # type: ignore[no-untyped-call]

    def __exit__(self, *stop: Any) -> None:
        super().__exit__(*stop)  # type: ignore[no-untyped-call]
        self.meta.__exit__(*stop)

    def __torch_function__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if function.__name__.endswith("_") and not function.__name__.endswith("__"):
            return args[0] if args else kwargs["tensor"]
        return function(*args, **(kwargs or {}))


def frequencies(config: ModelConfig, device: torch.device) -> Tensor:
    """The rotary positions' angles a token, in radians, ``[head_dim / 2]``."""
    plain = config.rope_theta**(-torch.arange(0, config.head_dim, 2, dtype=torch.float32, device=device) /
                                config.head_dim)
    scaling = config.rope_scaling
    if scaling is None:
        return plain
    if scaling.kind == "linear":
        return plain / scaling.factor
    if scaling.kind == "yarn":
        kept = 1 - yarn_stretched(config, scaling, device)
    else:
        turns = scaling.original_positions * plain / (2 * math.pi)
        kept = ((turns - scaling.low_frequency) / (scaling.high_frequency - scaling.low_frequency)).clamp(0, 1)
    return plain * (kept + (1 - kept) / scaling.factor)


def yarn_stretched(config: ModelConfig, scaling: RopeScaling, device: torch.device) -> Tensor:
    """How far YaRN stretches each wavelength, 0 to 1, ``[head_dim / 2]``: a ramp over the pairs of dimensions, from the
    one that makes ``beta_fast`` turns within the original positions to the one that makes ``beta_slow`` (Peng et al.
    2023, equations 17 to 23, with the ends rounded outwards as in the published code)."""
    pairs = config.head_dim // 2
    low, high = (config.head_dim * math.log(scaling.original_positions / (turns * 2 * math.pi)) /
                 (2 * math.log(config.rope_theta)) for turns in (scaling.beta_fast, scaling.beta_slow))
    first, last = max(math.floor(low), 0), min(math.ceil(high), config.head_dim - 1)
    ramp = torch.arange(pairs, dtype=torch.float32, device=device) - first
    return (ramp / (last - first or 0.001)).clamp(0, 1)


def rotary_length(config: ModelConfig) -> float:
    """What queries and keys are multiplied by as they are turned: more than 1 with YaRN."""
    scaling = config.rope_scaling
    if scaling is None or scaling.kind != "yarn":
        return 1.0
    return 0.1 * math.log(scaling.factor) + 1 if scaling.attention_factor is None else scaling.attention_factor


def rotary(config: ModelConfig, positions: Tensor) -> tuple[Tensor, Tensor]:
    """Cosines and sines of the rotary angles (Su et al. 2021), each ``[B, 1, T, head_dim]`` for positions ``[B, T]``;
    the first half of the sines is negated, as :func:`rotate` wants it."""
    angles = positions[:, None, :, None].float() * frequencies(config, positions.device)
    cos, sin = angles.cos(), angles.sin()
    if (length := rotary_length(config)) != 1:
        cos, sin = cos * length, sin * length
    return torch.cat([cos, cos], dim=-1), torch.cat([-sin, sin], dim=-1)


def rotate(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """Turn each pair ``(x[i], x[i + d/2])`` of ``x [B, heads, T, d]`` by its position's angle."""
    return torch.addcmul(x * cos, x.roll(x.shape[-1] // 2, dims=-1), sin).to(x.dtype)


class RMSNorm(nn.RMSNorm):
    """PyTorch's, for which inputs under autocast have another number format than the weights: those are brought to it,
    so that one kernel does it all."""

    def forward(self, x: Tensor) -> Tensor:
        assert self.weight is not None
        return F.rms_norm(x, self.normalized_shape, self.weight.to(x.dtype), self.eps)


def norm_of(config: ModelConfig) -> nn.Module:
    """The norm between a model's parts: RMSNorm or, in an encoder, LayerNorm without bias."""
    if isinstance(config, EncoderConfig):
        return nn.LayerNorm(config.hidden_size, eps=config.norm_epsilon, bias=False)
    return RMSNorm(config.hidden_size, eps=config.norm_epsilon)


class Attention(nn.Module):
    """Multi-head attention whose mixing step is the caller's."""

    def __init__(self, config: ModelConfig, layer: int) -> None:
        super().__init__()
        self.layer, self.head_dim = layer, config.head_dim
        width, inner, kv = config.hidden_size, config.num_heads * config.head_dim, config.num_kv_heads * config.head_dim
        self.q_proj = nn.Linear(width, inner, bias=config.attention_bias)
        self.k_proj = nn.Linear(width, kv, bias=config.attention_bias)
        self.v_proj = nn.Linear(width, kv, bias=config.attention_bias)
        self.o_proj = nn.Linear(inner, width, bias=False)
        if config.qk_norm:
            self.q_norm = RMSNorm(config.head_dim, eps=config.norm_epsilon)
            self.k_norm = RMSNorm(config.head_dim, eps=config.norm_epsilon)
        self.qk_norm = config.qk_norm

    def forward(self, x: Tensor, cos: Tensor, sin: Tensor, attend: Attend) -> Tensor:
        batch, length, _ = x.shape
        split = (batch, length, -1, self.head_dim)
        q, k, v = self.q_proj(x).view(split), self.k_proj(x).view(split), self.v_proj(x).view(split).transpose(1, 2)
        if self.qk_norm:
            q, k = self.q_norm(q), self.k_norm(k)
        q, k = rotate(q.transpose(1, 2), cos, sin), rotate(k.transpose(1, 2), cos, sin)
        return self.o_proj(attend(self.layer, q, k, v).transpose(1, 2).reshape(batch, length, -1))


class CrossAttention(Attention):
    """Attention whose keys and values come from another text, without positions (Vaswani et al. 2017, section
    3.2.3)."""

    def keys_values(self, memory: Tensor) -> tuple[Tensor, Tensor]:
        """``[B, S, hidden_size]`` to keys and values ``[B, kv_heads, S, d]``."""
        split = (*memory.shape[:2], -1, self.head_dim)
        return self.k_proj(memory).view(split).transpose(1, 2), self.v_proj(memory).view(split).transpose(1, 2)

    def forward(self, x: Tensor, cross: Cross) -> Tensor:  # type: ignore[override]
        batch, length, _ = x.shape
        q = self.q_proj(x).view(batch, length, -1, self.head_dim).transpose(1, 2)
        return self.o_proj(cross(self.layer, q, self.keys_values).transpose(1, 2).reshape(batch, length, -1))


class SwiGLU(nn.Module):
    """``down(silu(gate(x)) * up(x))`` (Shazeer 2020)."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.gate_proj = nn.Linear(config.hidden_size, config.intermediate_size, bias=False)
        self.up_proj = nn.Linear(config.hidden_size, config.intermediate_size, bias=False)
        self.down_proj = nn.Linear(config.intermediate_size, config.hidden_size, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        return self.down_proj(F.silu(self.gate_proj(x)) * self.up_proj(x))


class Block(nn.Module):
    """One layer: attention and SwiGLU, each normalised before and added after; in an encoder-decoder also normalised in
    between, and in its decoder (``crossed``) with a look at the source."""

    def __init__(self, config: ModelConfig, layer: int, crossed: bool = False) -> None:
        super().__init__()
        sandwich = isinstance(config, EncoderDecoderConfig)
        first = layer == 0 and isinstance(config, EncoderConfig)  # there the embedding is normalised already
        self.input_layernorm = nn.Identity() if first else norm_of(config)
        self.self_attn = Attention(config, layer)
        self.after_attention = norm_of(config) if sandwich else nn.Identity()
        if crossed:
            self.cross_layernorm, self.cross_attn, self.after_cross = norm_of(config), CrossAttention(
                config, layer), norm_of(config)
        self.post_attention_layernorm = norm_of(config)
        self.mlp = SwiGLU(config)
        self.after_mlp = norm_of(config) if sandwich else nn.Identity()

    def forward(self, x: Tensor, cos: Tensor, sin: Tensor, attend: Attend, cross: Cross | None = None) -> Tensor:
        x = x + self.after_attention(self.self_attn(self.input_layernorm(x), cos, sin, attend))
        if cross is not None:
            x = x + self.after_cross(self.cross_attn(self.cross_layernorm(x), cross))
        return x + self.after_mlp(self.mlp(self.post_attention_layernorm(x)))


class Transformer(nn.Module):
    """Embedding, blocks and the last norm: token ids in, hidden states out."""

    def __init__(self, config: ModelConfig, crossed: bool = False) -> None:
        super().__init__()
        self.config = config
        self.embed_tokens = nn.Embedding(config.vocab_size, config.hidden_size)
        if isinstance(config, EncoderConfig):
            self.embed_norm = norm_of(config)
        self.layers = nn.ModuleList(Block(config, layer, crossed) for layer in range(config.num_layers))
        self.norm = norm_of(config)

    def forward(self, tokens: Tensor, positions: Tensor | None = None, attend: Attend | None = None,
                cross: Cross | None = None) -> Tensor:
        """Hidden states ``[B, T, hidden_size]`` for ``tokens [B, T]``, or for vectors ``[B, T, hidden_size]`` that
        stand where their embeddings would; positions count from 0 unless given, and attention is causal unless given. A
        decoder looks at the source by ``cross``."""
        if positions is None:
            positions = torch.arange(tokens.shape[1], device=tokens.device)[None]
        attend = attend or causal_attention(self.config.sliding_window)
        cos, sin = rotary(self.config, positions)
        x = self.embed_tokens(tokens) if tokens.ndim == 2 else tokens
        if isinstance(self.config, EncoderConfig):
            x = self.embed_norm(x)
        if isinstance(self.config, EncoderDecoderConfig):
            x = x * self.config.hidden_size**0.5
        for block in self.layers:
            x = block(x, cos, sin, attend) if cross is None else block(x, cos, sin, attend, cross)
        return self.norm(x)

    @torch.no_grad()
    def initialise(self, generator: torch.Generator) -> None:
        """Normal weights of deviation ``1 / sqrt(fan_in)``, those that write to the residual stream divided by
        ``sqrt(2 * layers)`` (GPT-2), embeddings of deviation 0.02; norms start at one, biases at zero."""
        for name, parameter in self.named_parameters():
            if parameter.ndim < 2:
                parameter.fill_(0.0 if name.endswith("bias") else 1.0)
                continue
            deviation = 0.02 if "embed_tokens" in name else parameter.shape[1] ** -0.5
            if name.endswith(("o_proj.weight", "down_proj.weight")):
                deviation /= math.sqrt(2 * self.config.num_layers)
            parameter.normal_(0.0, deviation, generator=generator)


M = TypeVar("M", bound=nn.Module)


def sharing(model: M) -> M:
    """Another model of the very same weights, in modules of its own: so each of several models can have adapters of its
    own on one trunk."""
    # of another family: parts of the whole are the model's
    holders: list[nn.Module] = [model, *getattr(model, "whole", [])]
    return copy.deepcopy(model, {id(weight): weight for one in holders for weight in one.parameters()})


class LanguageModel(nn.Module):
    """A Transformer with an output matrix: the policy of every stage."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.config = config
        self.model = Transformer(config)
        self.lm_head = nn.Linear(config.hidden_size, config.vocab_size, bias=False)
        self.tie()

    def tie(self) -> None:
        """Make the embedding the output matrix, where the model has but one: again whenever its weight was put in."""
        if self.config.tie_embeddings:
            self.lm_head.weight = self.model.embed_tokens.weight

    def forward(self, tokens: Tensor, positions: Tensor | None = None, attend: Attend | None = None) -> Tensor:
        """Logits ``[B, T, vocab_size]`` of the next token."""
        return self.lm_head(self.model(tokens, positions, attend))

    def rewarding(self, seed: int, share: bool = True) -> RewardModel:
        """A reward model on this trunk; see :meth:`RewardModel.from_language_model`."""
        return RewardModel.from_language_model(self, seed, share)

    def initialise(self, seed: int) -> LanguageModel:
        """Random weights that depend on the seed alone. Returns the model."""
        generator = torch.Generator(self.lm_head.weight.device).manual_seed(seed % 2**63)
        self.model.initialise(generator)
        if not self.config.tie_embeddings:
            nn.init.normal_(self.lm_head.weight, 0.0, 0.02, generator=generator)
        return self


class RewardModel(nn.Module):
    """A Transformer with one scalar output, read at a response's last token: the reward model, and PPO's value
    model."""

    def __init__(self, config: ModelConfig, shift: float = 0.0) -> None:
        super().__init__()
        self.config = config
        self.model = Transformer(config)
        self.score = nn.Linear(config.hidden_size, 1, bias=False)
        self.shift = shift
        """Added to every score, so that demonstrations average 0. A folder stores it in its config; as the head has no
        bias (Hugging Face's has none), the scores that ``transformers`` gives are those before the shift."""

    def forward(self, tokens: Tensor, positions: Tensor | None = None, attend: Attend | None = None) -> Tensor:
        """A score for every token ``[B, T]``, without the shift."""
        return self.score(self.model(tokens, positions, attend)).squeeze(-1)

    def twin(self) -> RewardModel:
        """Another model of the same trunk's weights (see :func:`sharing`), with a head of its own."""
        other = sharing(self)
        other.score = copy.deepcopy(self.score)
        return other

    @classmethod
    def from_language_model(cls, source: LanguageModel, seed: int, share: bool = False) -> RewardModel:
        """The trunk of ``source`` (copied, unless they are to ``share`` it) under a new head, N(0, 1 / (hidden_size +
        1)) (Stiennon et al. 2020)."""
        with WithoutContents():
            reward = cls(source.config)
        reward.model = source.model if share else copy.deepcopy(source.model)
        reward.score = nn.Linear(source.config.hidden_size, 1, bias=False)
        generator = torch.Generator().manual_seed(seed % 2**63)
        nn.init.normal_(reward.score.weight, 0.0, (source.config.hidden_size + 1) ** -0.5, generator=generator)
        return reward
