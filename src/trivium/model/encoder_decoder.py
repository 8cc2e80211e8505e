"""Encoder-decoders: one stack of blocks reads a text both ways, another writes a text and looks at what was read
(Vaswani et al. 2017; Raffel et al. 2020). Their folders are T5Gemma's, so ``transformers`` loads them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import safetensors
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from trivium.errors import TriviumError
from trivium.files import write_json
from trivium.model.attention import Cross, masked_attention
from trivium.model.check import check_depth, naming, read_values
from trivium.model.config import EncoderDecoderConfig
from trivium.model.encoder import encode
from trivium.model.transformer import Transformer
from trivium.model.weights import check_size, name_of_dtype, save_weights, shards


class Halves(nn.Module):
    """The two stacks, which share one embedding."""

    def __init__(self, config: EncoderDecoderConfig) -> None:
        super().__init__()
        self.config = config
        self.encoder, self.decoder = Transformer(config), Transformer(config, crossed=True)
        self.decoder.embed_tokens = self.encoder.embed_tokens


class EncoderDecoder(nn.Module):
    """Writes a target for a source. The embedding is also the output matrix."""

    def __init__(self, config: EncoderDecoderConfig) -> None:
        super().__init__()
        self.config = config
        self.model = Halves(config)
        self.lm_head = nn.Linear(config.hidden_size, config.vocab_size, bias=False)
        self.tie()

    def tie(self) -> None:
        """Make the embedding the output matrix: again whenever its weight was put in."""
        self.lm_head.weight = self.model.encoder.embed_tokens.weight

    def read(self, tokens: Tensor, documents: Tensor | None = None, positions: Tensor | None = None) -> Tensor:
        """The states of sources ``tokens [B, S]``, ``[B, S, hidden_size]``; a token sees those of its own ``documents
        [B, S]``, or the whole row."""
        return encode(self.model.encoder, tokens, documents, positions)

    def forward(self, sources: Tensor, targets: Tensor, documents: Tensor | None = None) -> Tensor:
        """Logits ``[B, T, vocab_size]`` of the next token after each of ``targets [B, T]``; of the sources ``[B, S]``
        those places are padding where ``documents [B, S]`` is negative."""
        seen = None if documents is None else (documents >= 0)[:, None].expand(-1, targets.shape[1], -1)
        return self.lm_head(self.model.decoder(targets, cross=look_at(self.read(sources, documents), seen)))

    def initialise(self, seed: int) -> EncoderDecoder:
        """Random weights that depend on the seed alone. Returns the model."""
        generator = torch.Generator(self.lm_head.weight.device).manual_seed(seed % 2**63)
        self.model.encoder.initialise(generator)
        self.model.decoder.initialise(generator)
        return self

    def save_folder(self, folder: Path, ids: dict[str, Any]) -> None:
        """Write the weights and what :meth:`save_config` writes, T5Gemma's."""
        save_weights(folder, to_t5gemma(self), 5 << 30)
        self.save_config(folder, ids)

    def save_config(self, folder: Path, ids: dict[str, Any]) -> None:
        """Write ``config.json`` and ``generation_config.json``; ``ids`` holds the token ids ``pad`` and ``eos``. The
        token that ends a target also begins it."""
        config = self.config
        half = {theirs: getattr(config, ours)
                for ours, theirs in SIZES.items()} | FIXED | {
                    "model_type": "t5_gemma_module", "layer_types": ["full_attention"] * config.num_layers,
                    "query_pre_attn_scalar": config.head_dim, "rope_parameters": {
                        "rope_type": "default", "rope_theta": config.rope_theta
                    }, "sliding_window": config.max_positions, "pad_token_id": ids["pad"], "bos_token_id": ids["eos"],
                    "eos_token_id": ids["eos"], "attention_dropout": 0.0
                }
        write_json(
            folder / "config.json", {
                "model_type": "t5gemma", "architectures": ["T5GemmaForConditionalGeneration"
                                                           ], "is_encoder_decoder": True, "encoder": half,
                "decoder": half | {"is_decoder": True, "cross_attention_hidden_size": config.hidden_size},
                "vocab_size": config.vocab_size, "dropout_rate": 0.0, "attention_dropout": 0.0,
                "tie_word_embeddings": True, "dtype": name_of_dtype(self), "pad_token_id": ids["pad"],
                "bos_token_id": ids["eos"], "eos_token_id": ids["eos"]
            })
        write_json(
            folder / "generation_config.json", {
                "do_sample": False, "decoder_start_token_id": ids["eos"], "eos_token_id": ids["eos"],
                "pad_token_id": ids["pad"]
            })


def look_at(memory: Tensor, seen: Tensor | None = None) -> Cross:
    """A decoder's look at ``memory [B, S, hidden_size]``, of which each target sees the places that ``seen [B, T, S]``
    names, or all. Keys and values are computed at the first look of each layer and kept, for as long as no gradient is
    wanted."""
    kept: dict[int, tuple[Tensor, Tensor]] = {}

    def cross(layer: int, q: Tensor, keys_values: Any) -> Tensor:
        k, v = kept[layer] if layer in kept else keys_values(memory)
        if not torch.is_grad_enabled():
            kept[layer] = k, v
        if seen is not None:
            return masked_attention(q, k, v, seen[:, None])
        return F.scaled_dot_product_attention(q, k, v, enable_gqa=q.shape[1] != k.shape[1])

    return cross


# T5Gemma counts its norms' weights from 1, keeps an embedding for each half, and names norms by what stands before and
# after them.

NORMS = {
    "input_layernorm": "pre_self_attn_layernorm", "after_attention": "post_self_attn_layernorm",
    "cross_layernorm": "pre_cross_attn_layernorm", "after_cross": "post_cross_attn_layernorm",
    "post_attention_layernorm": "pre_feedforward_layernorm", "after_mlp": "post_feedforward_layernorm"
}


def to_t5gemma(model: EncoderDecoder) -> dict[str, Tensor]:
    """The weights under T5Gemma's names."""
    weights: dict[str, Tensor] = {}
    for name, tensor in model.state_dict().items():
        *place, part, end = name.split(".")
        if name == "lm_head.weight":
            continue
        norm = part in NORMS or part == "norm"
        weights[".".join([*place, NORMS.get(part, part), end])] = tensor - 1 if norm else tensor.clone()
    return weights


def from_t5gemma(weights: dict[str, Tensor]) -> dict[str, Tensor]:
    """:func:`to_t5gemma`, the other way."""
    ours = {theirs: own for own, theirs in NORMS.items()}
    own: dict[str, Tensor] = {}
    for name, tensor in weights.items():
        *place, part, end = name.split(".")
        own[".".join([*place, ours.get(part, part), end])] = tensor + 1 if part in ours or part == "norm" else tensor
    own.pop("lm_head.out_proj.weight", None)
    return own | {"lm_head.weight": own["model.encoder.embed_tokens.weight"]}


SIZES = {
    "vocab_size": "vocab_size", "hidden_size": "hidden_size", "intermediate_size": "intermediate_size",
    "num_layers": "num_hidden_layers", "num_heads": "num_attention_heads", "num_kv_heads": "num_key_value_heads",
    "head_dim": "head_dim", "max_positions": "max_position_embeddings", "norm_epsilon": "rms_norm_eps"
}
FIXED = {
    "hidden_activation": "silu", "attention_bias": False, "final_logit_softcapping": None,
    "attn_logit_softcapping": None, "tie_word_embeddings": True
}


def load_encoder_decoder(folder: Path, dtype: torch.dtype | None = torch.float32,
                         device: torch.device | str = "cpu") -> EncoderDecoder:
    """An encoder-decoder's folder. Raises :class:`TriviumError` for another family, a shape that is not ours, and
    weights that do not fit."""
    path = folder / "config.json"
    values = read_values(folder)
    if values.get("model_type") != "t5gemma":
        raise TriviumError(f"{path}: model_type is {values.get('model_type')!r}; an encoder-decoder's is 't5gemma'")
    halves = [values.get(name) or {} for name in ("encoder", "decoder")]
    for half in halves:
        for name, wanted in FIXED.items():
            if half.get(name, "missing") != wanted:
                raise TriviumError(f"{path}: {name} is {half.get(name, 'missing')!r}; only {wanted!r} is supported")
        missing = next((theirs for theirs in SIZES.values() if half.get(theirs) is None), None)
        if missing:
            raise TriviumError(f"{path}: the field {missing!r} is missing")
        if set(half.get("layer_types") or ["unknown"]) != {"full_attention"
                                                           } or half.get("query_pre_attn_scalar") != half["head_dim"]:
            raise TriviumError(
                f"{path}: only attention over the whole text, scaled by its heads' width, "
                "is supported (layer_types, query_pre_attn_scalar)"
            )
    sizes, others = ({ours: half[theirs] for ours, theirs in SIZES.items()} for half in halves)
    if sizes != others:
        raise TriviumError(f"{path}: encoder and decoder differ in size; only equal ones are supported")
    rope = halves[0].get("rope_parameters") or {}
    with naming(path):
        config = EncoderDecoderConfig(**sizes, rope_theta=float(rope.get("rope_theta") or 10000.0))
    check_depth(folder, config.num_layers, len(shards(folder)))
    check_size(folder, lambda: EncoderDecoder(config))
    model = EncoderDecoder(config)
    weights: dict[str, Tensor] = {}
    for place in sorted(set(shards(folder).values())):
        with safetensors.safe_open(place, framework="pt") as file:
            weights |= {name: file.get_tensor(name) for name in file.keys()}
    embeddings = [weights.get(f"model.{half}.embed_tokens.weight") for half in ("encoder", "decoder")]
    if embeddings[0] is None or embeddings[1] is None or not torch.equal(*embeddings):  # type: ignore[arg-type]
        raise TriviumError(
            f"{folder}: encoder and decoder have embeddings of their own; only models that share one are supported")
    try:
        model.load_state_dict(from_t5gemma(weights))
    except (KeyError, RuntimeError) as error:
        raise TriviumError(
            f"{folder}: the weights do not fit config.json ({' '.join(str(error).split())[:200]})") from error
    return model.to(device=device, dtype=dtype)
