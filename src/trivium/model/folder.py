"""Reading and writing Hugging Face model folders: ``config.json`` and ``model.safetensors`` (or its shards)."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import safetensors
import torch
from safetensors.torch import save as safetensors_bytes
from torch import Tensor

from trivium.errors import TriviumError
from trivium.files import read_json, write_bytes, write_json
from trivium.model.config import ModelConfig
from trivium.model.transformer import LanguageModel, RewardModel

NAMES = {  # ours -> Hugging Face's
    "vocab_size": "vocab_size", "hidden_size": "hidden_size", "intermediate_size": "intermediate_size",
    "num_layers": "num_hidden_layers", "num_heads": "num_attention_heads", "num_kv_heads": "num_key_value_heads",
    "head_dim": "head_dim", "max_positions": "max_position_embeddings", "norm_epsilon": "rms_norm_eps",
    "tie_embeddings": "tie_word_embeddings",
}


def write_config(config: ModelConfig, ids: dict[str, int], reward_shift: float | None = None) -> dict[str, Any]:
    """The ``config.json`` of a language model, or of a reward model when ``reward_shift`` is given. ``ids`` holds
    ``eos`` and ``pad``."""
    family = "Qwen3" if config.qk_norm else "Llama"
    values: dict[str, Any] = {theirs: getattr(config, ours) for ours, theirs in NAMES.items()}
    values |= {
        "model_type": family.lower(), "architectures": [f"{family}ForCausalLM"], "hidden_act": "silu",
        "attention_bias": False, "attention_dropout": 0.0, "rope_theta": config.rope_theta,
        "rope_parameters": {"rope_type": "default", "rope_theta": config.rope_theta},
        "initializer_range": 0.02, "use_cache": True, "dtype": "float32",
        "eos_token_id": ids["eos"], "pad_token_id": ids["pad"], "bos_token_id": None,
    }
    if config.qk_norm:
        values |= {"use_sliding_window": False, "sliding_window": None}
    else:
        values |= {"mlp_bias": False}
    if reward_shift is not None:
        values |= {"architectures": [f"{family}ForSequenceClassification"], "num_labels": 1, "id2label": {"0": "score"},
                   "label2id": {"score": 0}, "trivium_score_shift": reward_shift}
    return values


def read_config(folder: Path) -> tuple[ModelConfig, dict[str, Any]]:
    """The shape described by a folder's ``config.json``, and the file itself. Raises for a family that is not ours."""
    values = read_json(folder / "config.json")
    family = values.get("model_type")
    if family not in ("qwen3", "llama"):
        raise TriviumError(f"{folder / 'config.json'}: model_type is {family!r}; known are qwen3 and llama")
    refused = {"attention_bias": False, "mlp_bias": False, "use_sliding_window": False, "hidden_act": "silu"}
    for name, wanted in refused.items():
        if values.get(name, wanted) not in (wanted, None):
            raise TriviumError(f"{folder / 'config.json'}: {name} is {values[name]!r}; only {wanted!r} is supported")
    rope = values.get("rope_parameters") or values.get("rope_scaling") or {}
    if rope.get("rope_type", rope.get("type", "default")) != "default":
        raise TriviumError(f"{folder / 'config.json'}: rope scaling {rope.get('rope_type')!r} is not supported")
    missing = [theirs for ours, theirs in NAMES.items() if theirs not in values
               and ours not in ("head_dim", "num_kv_heads", "tie_embeddings")]
    if missing:
        raise TriviumError(f"{folder / 'config.json'}: the field {missing[0]!r} is missing")
    values.setdefault("num_key_value_heads", values["num_attention_heads"])
    if values.get("head_dim") is None:
        values["head_dim"] = values["hidden_size"] // values["num_attention_heads"]
    values.setdefault("tie_word_embeddings", False)
    sizes = {ours: values[theirs] for ours, theirs in NAMES.items()}
    theta = rope.get("rope_theta", values.get("rope_theta", 10000.0))
    return ModelConfig(**sizes, rope_theta=float(theta), qk_norm=family == "qwen3"), values


def read_weights(folder: Path) -> dict[str, Tensor]:
    """All tensors of ``model.safetensors``, or of the shards its index names."""
    index = folder / "model.safetensors.index.json"
    names = sorted(set(read_json(index)["weight_map"].values())) if index.exists() else ["model.safetensors"]
    weights: dict[str, Tensor] = {}
    for name in names:
        path = folder / name
        if Path(name).name != name:
            raise TriviumError(f"{index}: the shard {name!r} lies outside the folder")
        try:
            with safetensors.safe_open(path, framework="pt") as file:
                # A copy lies at an aligned address, as computed tensors do: matrix products may round by it.
                weights |= {key: file.get_tensor(key).clone() for key in file.keys()}
        except FileNotFoundError as error:
            pickled = next(iter(sorted(folder.glob("*.bin")) + sorted(folder.glob("*.pt"))), None)
            hint = f"; {pickled.name} is a pickle, which is never read: convert it to safetensors" if pickled else ""
            raise TriviumError(f"{path}: no such file{hint}") from error
        except Exception as error:  # safetensors has one exception type, which its stubs do not export
            raise TriviumError(f"{path}: not a readable safetensors file ({error}); copy it again") from error
    return weights


def save_weights(path: Path, weights: dict[str, Tensor]) -> None:
    """Write tensors as one safetensors file, aside and then renamed."""
    write_bytes(path, safetensors_bytes({k: v.detach().cpu().contiguous() for k, v in weights.items()}, {"format": "pt"}))


def save(model: LanguageModel | RewardModel, folder: Path, ids: dict[str, int]) -> None:
    """Write ``config.json`` and ``model.safetensors``; ``ids`` holds the token ids ``eos`` and ``pad``."""
    weights = model.state_dict()
    if isinstance(model, LanguageModel) and model.config.tie_embeddings:
        del weights["lm_head.weight"]
    save_weights(folder / "model.safetensors", weights)
    shift = model.shift if isinstance(model, RewardModel) else None
    write_json(folder / "config.json", write_config(model.config, ids, shift))
    if shift is None:
        write_json(folder / "generation_config.json", {"do_sample": True, "eos_token_id": ids["eos"], "pad_token_id": ids["pad"]})


def load(folder: Path) -> LanguageModel | RewardModel:
    """A language model or, when the folder's architecture says so, a reward model, in float32 on the CPU.

    Raises :class:`TriviumError` for a missing or broken file, an unknown family, and weights that do not fit the config.
    """
    config, values = read_config(folder)
    architecture = (values.get("architectures") or [""])[0]
    weights = {name: tensor.float() for name, tensor in read_weights(folder).items()}
    with torch.device("meta"):
        model: LanguageModel | RewardModel
        if architecture.endswith("ForSequenceClassification"):
            if values.get("num_labels", len(values.get("id2label", [0]))) != 1:
                raise TriviumError(f"{folder}: a reward model has one label")
            model = RewardModel(config, float(values.get("trivium_score_shift", 0.0)))
        else:
            model = LanguageModel(config)
            if config.tie_embeddings and "model.embed_tokens.weight" in weights:
                weights["lm_head.weight"] = weights["model.embed_tokens.weight"]
    wanted = {name: tensor.shape for name, tensor in model.state_dict().items()}
    for name in sorted(wanted.keys() | weights.keys()):
        if name not in weights:
            raise TriviumError(f"{folder}: the weights lack {name}, which config.json asks for")
        if name not in wanted:
            raise TriviumError(f"{folder}: the weights hold {name}, which config.json does not describe")
        if wanted[name] != weights[name].shape:
            raise TriviumError(f"{folder}: {name} has shape {tuple(weights[name].shape)}, but config.json asks for "
                               f"{tuple(wanted[name])}")
    model.load_state_dict(weights, assign=True)
    for parameter in model.parameters():
        parameter.requires_grad_(True)
    if isinstance(model, LanguageModel) and config.tie_embeddings:
        model.lm_head.weight = model.model.embed_tokens.weight
    return model
