"""Encoders: the blocks of the language model with attention both ways, and what stands on top of them. Their folders
are ModernBERT's, so ``transformers`` loads them."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import safetensors
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from trivium.artifacts import check_made
from trivium.errors import TriviumError
from trivium.files import write_json
from trivium.model.attention import both_ways_attention
from trivium.model.check import check_depth, naming, read_values
from trivium.model.config import EncoderConfig
from trivium.model.transformer import Transformer, norm_of
from trivium.model.weights import check_size, name_of_dtype, save_weights, shards


class Head(nn.Module):
    """A dense layer, GELU and a norm, between the last hidden states and what is predicted."""

    def __init__(self, config: EncoderConfig) -> None:
        super().__init__()
        self.dense = nn.Linear(config.hidden_size, config.hidden_size, bias=False)
        self.norm = norm_of(config)

    def forward(self, x: Tensor) -> Tensor:
        """``[..., hidden_size]`` to the same shape."""
        return self.norm(F.gelu(self.dense(x)))


class MaskedModel(nn.Module):
    """Guesses the tokens that were hidden: the embedding is also the output matrix."""

    def __init__(self, config: EncoderConfig) -> None:
        super().__init__()
        self.config = config
        self.model = Transformer(config)
        self.head = Head(config)

    def forward(self, tokens: Tensor, documents: Tensor | None = None) -> Tensor:
        """Logits ``[B, T, vocab_size]`` at every place; a token sees those of its own ``documents [B, T]``, or the
        whole row."""
        return F.linear(self.head(encode(self.model, tokens, documents)), self.model.embed_tokens.weight)

    def initialise(self, seed: int) -> MaskedModel:
        """Random weights that depend on the seed alone. Returns the model."""
        generator = torch.Generator(self.head.dense.weight.device).manual_seed(seed % 2**63)
        self.model.initialise(generator)
        nn.init.normal_(self.head.dense.weight, 0.0, self.config.hidden_size**-0.5, generator=generator)
        nn.init.ones_(self.head.norm.weight)  # type: ignore[arg-type]
        return self


class Classifier(nn.Module):
    """Tells which of several labels a text has, from the mean of its hidden states."""

    def __init__(self, config: EncoderConfig, labels: list[str]) -> None:
        super().__init__()
        self.config, self.labels = config, labels
        self.model = Transformer(config)
        self.head = Head(config)
        self.classifier = nn.Linear(config.hidden_size, len(labels))

    def forward(self, tokens: Tensor, documents: Tensor | None = None) -> Tensor:
        """Logits of the labels: ``[B, labels]`` for whole rows, or ``[texts, labels]`` for rows that hold several
        texts, numbered from 0 in ``documents [B, T]`` (padding is -1)."""
        return self.classifier(self.head(pooled(encode(self.model, tokens, documents), documents)))

    @classmethod
    def from_encoder(cls, source: MaskedModel, labels: list[str], seed: int) -> Classifier:
        """The trunk and head of ``source`` (copied) under a new last layer."""
        made = cls(source.config, labels)
        made.model.load_state_dict(source.model.state_dict())
        made.head.load_state_dict(source.head.state_dict())
        nn.init.normal_(made.classifier.weight, 0.0, 0.02, generator=torch.Generator().manual_seed(seed % 2**63))
        nn.init.zeros_(made.classifier.bias)
        return made


def encode(trunk: Transformer, tokens: Tensor, documents: Tensor | None = None,
           positions: Tensor | None = None) -> Tensor:
    """Hidden states ``[B, T, hidden_size]``; positions begin anew in each text."""
    if documents is None:
        documents = torch.zeros_like(tokens)
    elif positions is None:
        place = torch.arange(tokens.shape[1], device=tokens.device).expand_as(tokens)
        begins = torch.ones_like(documents, dtype=torch.bool)
        begins[:, 1:] = documents[:, 1:] != documents[:, :-1]
        positions = place - torch.where(begins, place, 0).cummax(1).values
    return trunk(tokens, positions, both_ways_attention(documents))


def joined(first: Sequence[int], second: Sequence[int], between: int, length: int) -> list[int]:
    """Two texts as one, with the token ``between`` them, at most ``length`` tokens: the longer one is cut first (Devlin
    et al. 2019)."""
    room = length - 1
    kept = first[:max(room - len(second), room - room // 2)]
    return [*kept, between, *second[:room - len(kept)]]


def pooled(hidden: Tensor, documents: Tensor | None) -> Tensor:
    """The mean of each text's hidden states, ``[texts, hidden_size]``."""
    if documents is None:
        return hidden.mean(1)
    real = documents >= 0
    count = int(documents.max()) + 1
    sums = hidden.new_zeros(count, hidden.shape[-1]).index_add(0, documents[real], hidden[real])
    sizes = torch.bincount(documents[real], minlength=count).clamp(min=1)
    return sums / sizes[:, None]


@torch.inference_mode()
def embeddings(model: MaskedModel | Classifier, texts: Sequence[Sequence[int]], pad: int,
               rows: int = 32) -> np.ndarray:
    """Vectors ``[N, hidden_size]`` of length 1, each the mean of a text's last hidden states. Texts are tokens, one at
    least; ``rows`` of them are read at a time, filled up with ``pad``."""
    found = [np.zeros((0, model.config.hidden_size), np.float32)]
    for start in range(0, len(texts), rows):
        tokens, documents = padded(texts[start:start + rows], pad)
        vectors = pooled(encode(model.model, tokens, documents), documents)
        found.append(F.normalize(vectors.float(), dim=-1).numpy())
    return np.concatenate(found)


def padded(texts: Sequence[Sequence[int]], pad: int) -> tuple[Tensor, Tensor]:
    """Texts as rows ``[N, T]``, and which text each token belongs to, -1 for padding."""
    tokens = torch.full((len(texts), max(map(len, texts))), pad)
    documents = torch.full_like(tokens, -1)
    for row, text in enumerate(texts):
        tokens[row, :len(text)], documents[row, :len(text)] = torch.tensor(text), row
    return tokens, documents


# ModernBERT fuses queries, keys and values, and gate and up, into one matrix each.

def to_modernbert(model: MaskedModel | Classifier) -> dict[str, Tensor]:
    """The weights under ModernBERT's names."""
    own = model.state_dict()
    weights = {
        "model.embeddings.tok_embeddings.weight": own.pop("model.embed_tokens.weight"),
        "model.embeddings.norm.weight": own.pop("model.embed_norm.weight"),
        "model.final_norm.weight": own.pop("model.norm.weight")
    }
    for layer in range(model.config.num_layers):
        ours, theirs = f"model.layers.{layer}.", f"model.layers.{layer}."
        weights[theirs + "attn.Wqkv.weight"] = torch.cat(
            [own.pop(f"{ours}self_attn.{name}_proj.weight") for name in "qkv"])
        weights[theirs + "attn.Wo.weight"] = own.pop(ours + "self_attn.o_proj.weight")
        weights[theirs + "mlp.Wi.weight"] = torch.cat(
            [own.pop(f"{ours}mlp.{name}_proj.weight") for name in ("gate", "up")])
        weights[theirs + "mlp.Wo.weight"] = own.pop(ours + "mlp.down_proj.weight")
        weights[theirs + "mlp_norm.weight"] = own.pop(ours + "post_attention_layernorm.weight")
        if layer:
            weights[theirs + "attn_norm.weight"] = own.pop(ours + "input_layernorm.weight")
    return weights | own  # the head and the classifier have the same names


def from_modernbert(weights: dict[str, Tensor], layers: int) -> dict[str, Tensor]:
    """:func:`to_modernbert`, the other way."""
    own = dict(weights)
    own.pop("decoder.weight", None)
    renamed = {
        "model.embed_tokens.weight": own.pop("model.embeddings.tok_embeddings.weight"),
        "model.embed_norm.weight": own.pop("model.embeddings.norm.weight"),
        "model.norm.weight": own.pop("model.final_norm.weight")
    }
    for layer in range(layers):
        name = f"model.layers.{layer}."
        for part, value in zip("qkv", own.pop(name + "attn.Wqkv.weight").chunk(3), strict=True):
            renamed[f"{name}self_attn.{part}_proj.weight"] = value
        for part, value in zip(("gate", "up"), own.pop(name + "mlp.Wi.weight").chunk(2), strict=True):
            renamed[f"{name}mlp.{part}_proj.weight"] = value
        renamed[name + "self_attn.o_proj.weight"] = own.pop(name + "attn.Wo.weight")
        renamed[name + "mlp.down_proj.weight"] = own.pop(name + "mlp.Wo.weight")
        renamed[name + "post_attention_layernorm.weight"] = own.pop(name + "mlp_norm.weight")
        if layer:
            renamed[name + "input_layernorm.weight"] = own.pop(name + "attn_norm.weight")
    return renamed | own


SIZES = {
    "vocab_size": "vocab_size", "hidden_size": "hidden_size", "intermediate_size": "intermediate_size",
    "num_layers": "num_hidden_layers", "num_heads": "num_attention_heads", "max_positions": "max_position_embeddings",
    "norm_epsilon": "norm_eps"
}
FIXED = {
    "hidden_activation": "silu", "norm_bias": False, "attention_bias": False, "mlp_bias": False, "decoder_bias": False,
    "classifier_bias": False, "classifier_activation": "gelu", "classifier_pooling": "mean", "tie_word_embeddings": True
}


def save_encoder(model: MaskedModel | Classifier, folder: Path, ids: dict[str, int]) -> None:
    """Write ``config.json`` and the weights; ``ids`` holds the token ids ``pad`` and ``document``, which ends a
    text."""
    config = model.config
    save_weights(folder, to_modernbert(model), 5 << 30)
    rope = {"rope_type": "default", "rope_theta": config.rope_theta}
    values: dict[str, Any] = {
        theirs: getattr(config, ours)
        for ours, theirs in SIZES.items()
    } | FIXED | {
        "model_type": "modernbert", "architectures": ["ModernBertForMaskedLM"], "layer_types": ["full_attention"] *
        config.num_layers, "global_attn_every_n_layers": 1, "local_attention": 2 * config.max_positions,
        "global_rope_theta": config.rope_theta, "local_rope_theta": config.rope_theta, "rope_parameters": {
            "full_attention": rope, "sliding_attention": rope
        }, "pad_token_id": ids["pad"], "bos_token_id": None, "eos_token_id": ids["document"],
        "cls_token_id": ids["document"], "sep_token_id": ids["document"], "dtype": name_of_dtype(model),
        "attention_dropout": 0.0, "embedding_dropout": 0.0, "mlp_dropout": 0.0, "classifier_dropout": 0.0
    }
    if isinstance(model, Classifier):
        values |= {
            "architectures": ["ModernBertForSequenceClassification"],
            "id2label": {str(i): label
                         for i, label in enumerate(model.labels)},
            "label2id": {label: i
                         for i, label in enumerate(model.labels)}
        }
    write_json(folder / "config.json", values)


def read_encoder_config(folder: Path) -> EncoderConfig:
    """The shape that an encoder's ``config.json`` describes. Raises :class:`TriviumError` for another family, and a
    shape that is not ours."""
    path = folder / "config.json"
    values = read_values(folder)
    if values.get("model_type") != "modernbert":
        raise TriviumError(f"{path}: model_type is {values.get('model_type')!r}; an encoder's is 'modernbert'")
    for name, wanted in FIXED.items():
        if values.get(name) != wanted:
            raise TriviumError(f"{path}: {name} is {values.get(name)!r}; only {wanted!r} is supported")
    if set(values.get("layer_types") or ["unknown"]) != {"full_attention"}:
        raise TriviumError(f"{path}: only attention over the whole text is supported (layer_types)")
    missing = next((theirs for theirs in SIZES.values() if values.get(theirs) is None), None)
    if missing:
        raise TriviumError(f"{path}: the field {missing!r} is missing")
    heads = int(values["num_attention_heads"])
    rope = (values.get("rope_parameters") or {}).get("full_attention") or {}
    with naming(path):
        return EncoderConfig(**{ours: values[theirs] for ours, theirs in SIZES.items()}, num_kv_heads=heads,
                             head_dim=int(values["hidden_size"]) // heads,
                             rope_theta=float(rope.get("rope_theta") or values.get("global_rope_theta") or 160000.0))


def is_encoder(folder: Path) -> bool:
    """Whether a folder is an encoder's."""
    return (folder / "config.json").exists() and read_values(folder).get("model_type") == "modernbert"


def load_encoder(folder: Path) -> MaskedModel | Classifier:
    """An encoder's folder. Raises :class:`TriviumError` for another family, a shape that is not ours, and weights that
    do not fit."""
    check_made(folder)
    config, values = read_encoder_config(folder), read_values(folder)
    check_depth(folder, config.num_layers, len(shards(folder)))
    check_size(folder, lambda: MaskedModel(config))
    model: MaskedModel | Classifier
    if (values.get("architectures") or [""])[0].endswith("ForSequenceClassification"):
        model = Classifier(config, [str(values["id2label"][key]) for key in sorted(values["id2label"], key=int)])
    else:
        model = MaskedModel(config)
    weights: dict[str, Tensor] = {}
    for place in sorted(set(shards(folder).values())):
        with safetensors.safe_open(place, framework="pt") as file:
            weights |= {name: file.get_tensor(name).float() for name in file.keys()}
    try:
        model.load_state_dict(from_modernbert(weights, config.num_layers))
    except (KeyError, RuntimeError) as error:
        raise TriviumError(
            f"{folder}: the weights do not fit config.json ({' '.join(str(error).split())[:200]})") from error
    return model
