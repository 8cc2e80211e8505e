"""The families whose models are computed by our own Transformer: how their Hugging Face folders are read and
written."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import safetensors
import torch
from torch import Tensor

from trivium.errors import TriviumError
from trivium.files import read_json, write_json
from trivium.model.config import ModelConfig, RopeScaling
from trivium.model.transformer import LanguageModel, RewardModel, WithoutContents
from trivium.model.weights import save_weights, shards

NAMES = {  # ours -> Hugging Face's
    "vocab_size": "vocab_size", "hidden_size": "hidden_size", "intermediate_size": "intermediate_size",
    "num_layers": "num_hidden_layers", "num_heads": "num_attention_heads", "num_kv_heads": "num_key_value_heads",
    "head_dim": "head_dim", "max_positions": "max_position_embeddings", "norm_epsilon": "rms_norm_eps",
    "tie_embeddings": "tie_word_embeddings",
}


FAMILIES = ("llama", "mistral", "qwen2", "qwen3")


def write_config(config: ModelConfig, ids: dict[str, Any], reward_shift: float | None = None) -> dict[str, Any]:
    """The ``config.json`` of a language model, or of a reward model when ``reward_shift`` is given. ``ids`` holds
    ``eos`` and ``pad``."""
    family, scaling = config.family, config.rope_scaling
    values: dict[str, Any] = {theirs: getattr(config, ours) for ours, theirs in NAMES.items()}
    rope: dict[str, Any] = {"rope_type": "default", "rope_theta": config.rope_theta}
    if scaling is not None:
        rope |= {
            "rope_type": "llama3", "factor": scaling.factor, "low_freq_factor": scaling.low_frequency,
            "high_freq_factor": scaling.high_frequency, "original_max_position_embeddings": scaling.original_positions
        }
    values |= {
        "model_type": family.lower(), "architectures": [f"{family}ForCausalLM"], "hidden_act": "silu",
        "attention_dropout": 0.0, "rope_theta": config.rope_theta, "rope_parameters": rope, "initializer_range": 0.02,
        "use_cache": True, "dtype": "float32", "eos_token_id": ids["eos"], "pad_token_id": ids["pad"],
        "bos_token_id": ids.get("bos"),
    }
    extras: dict[str, dict[str, Any]] = {
        "Qwen3": {"attention_bias": False, "use_sliding_window": False, "sliding_window": None},
        "Qwen2": {"use_sliding_window": False, "sliding_window": None},
        "Mistral": {"sliding_window": config.sliding_window},
        "Llama": {"attention_bias": False, "mlp_bias": False},
    }
    values |= extras[family]
    if scaling is not None:
        values["rope_scaling"] = {key: value for key, value in rope.items() if key != "rope_theta"}
    if reward_shift is not None:
        values |= {"architectures": [f"{family}ForSequenceClassification"], "num_labels": 1, "id2label": {"0": "score"},
                   "label2id": {"score": 0}, "trivium_score_shift": reward_shift}
    return values


def config_of(folder: Path, values: dict[str, Any]) -> ModelConfig:
    """The shape that the ``config.json`` of one of :data:`FAMILIES` describes. Raises :class:`TriviumError` for a
    setting that is not supported and for one that is missing."""
    path = folder / "config.json"
    family = values["model_type"]
    refused = {"attention_bias": False, "mlp_bias": False, "use_sliding_window": False, "hidden_act": "silu"}
    for name, wanted in refused.items():
        if values.get(name, wanted) not in (wanted, None):
            raise TriviumError(f"{path}: {name} is {values[name]!r}; only {wanted!r} is supported")
    missing = [theirs for ours, theirs in NAMES.items() if theirs not in values
               and ours not in ("head_dim", "num_kv_heads", "tie_embeddings")]
    if missing:
        raise TriviumError(f"{path}: the field {missing[0]!r} is missing")
    if values.get("num_key_value_heads") is None:
        values["num_key_value_heads"] = values["num_attention_heads"]
    if values.get("head_dim") is None:
        values["head_dim"] = values["hidden_size"] // values["num_attention_heads"]
    values.setdefault("tie_word_embeddings", False)
    sizes = {ours: values[theirs] for ours, theirs in NAMES.items()}
    rope = values.get("rope_parameters") or values.get("rope_scaling") or {}
    return ModelConfig(
        **sizes, rope_theta=float(rope.get("rope_theta", values.get("rope_theta", 10000.0))), qk_norm=family == "qwen3",
        attention_bias=family == "qwen2", sliding_window=values.get("sliding_window") if family == "mistral" else None,
        rope_scaling=read_rope_scaling(path, rope))


def read_rope_scaling(path: Path, rope: dict[str, Any]) -> RopeScaling | None:
    """Llama 3's scaling where the config has it; raises for any other kind."""
    kind = rope.get("rope_type", rope.get("type", "default"))
    if kind == "default":
        return None
    if kind != "llama3":
        raise TriviumError(f"{path}: rope scaling {kind!r} is not supported; known are default and llama3")
    try:
        return RopeScaling(float(rope["factor"]), int(rope["original_max_position_embeddings"]),
                           float(rope["low_freq_factor"]), float(rope["high_freq_factor"]))
    except KeyError as error:
        raise TriviumError(f"{path}: the rope scaling lacks {error}") from error


def described(folder: Path) -> tuple[LanguageModel | RewardModel, dict[str, Path]]:
    """A folder of one of :data:`FAMILIES` as a model without contents, and the file of each of its tensors. Only
    headers are read. Raises :class:`TriviumError` for a missing or broken file and for weights that do not fit the
    config."""
    values = read_json(folder / "config.json")
    config = config_of(folder, values)
    architecture = (values.get("architectures") or [""])[0]
    with WithoutContents():
        model: LanguageModel | RewardModel
        if architecture.endswith("ForSequenceClassification"):
            if values.get("num_labels", len(values.get("id2label", [0]))) != 1:
                raise TriviumError(f"{folder}: a reward model has one label")
            model = RewardModel(config, float(values.get("trivium_score_shift", 0.0)))
        else:
            model = LanguageModel(config)
    wanted = model.state_dict()
    places = shards(folder)
    if isinstance(model, LanguageModel) and config.tie_embeddings:
        wanted.pop("lm_head.weight")
        places.pop("lm_head.weight", None)  # some writers store the embedding twice
    for name in sorted(wanted.keys() | places.keys()):
        if name not in places:
            raise TriviumError(f"{folder}: the weights lack {name}, which config.json asks for")
        if name not in wanted:
            raise TriviumError(f"{folder}: the weights hold {name}, which config.json does not describe")
    for path in sorted(set(places.values())):
        with safetensors.safe_open(path, framework="pt") as file:
            for name in (name for name, place in places.items() if place == path):
                shape = tuple(file.get_slice(name).get_shape())
                if shape != tuple(wanted[name].shape):
                    raise TriviumError(
                        f"{folder}: {name} has shape {shape}, but config.json asks for {tuple(wanted[name].shape)}")
    return model, places


def load_own(folder: Path, dtype: torch.dtype | None, device: torch.device | str) -> LanguageModel | RewardModel:
    """A model of one of :data:`FAMILIES`, in ``dtype`` (None: as stored). Tensors are read one by one, so memory holds
    the model once."""
    model, places = described(folder)
    config = model.config
    weights: dict[str, Tensor] = {}
    for path in sorted(set(places.values())):
        with safetensors.safe_open(path, framework="pt") as file:
            for name in (name for name, place in places.items() if place == path):
                # A copy lies at an aligned address, as computed tensors do: matrix products may round by it.
                tensor = file.get_tensor(name)
                weights[name] = tensor.to(device, dtype or tensor.dtype, copy=True)
    if isinstance(model, LanguageModel) and config.tie_embeddings:
        weights["lm_head.weight"] = weights["model.embed_tokens.weight"]
    model.load_state_dict(weights, assign=True)
    for parameter in model.parameters():
        parameter.requires_grad_(True)
    if isinstance(model, LanguageModel):
        model.tie()
    return model


def save_own(model: LanguageModel | RewardModel, folder: Path, ids: dict[str, Any], shard_bytes: int = 5 << 30) -> None:
    """Write the folder of a model of one of :data:`FAMILIES`; ``ids`` holds the token ids ``eos`` and ``pad``."""
    weights = model.state_dict()
    if isinstance(model, LanguageModel) and model.config.tie_embeddings:
        del weights["lm_head.weight"]
    save_weights(folder, weights, shard_bytes)
    save_own_config(model, folder, ids)


def save_own_config(model: LanguageModel | RewardModel, folder: Path, ids: dict[str, Any]) -> None:
    """Write ``config.json`` and, of a language model, ``generation_config.json``."""
    shift = model.shift if isinstance(model, RewardModel) else None
    kind = str(next(model.parameters()).dtype).removeprefix("torch.")
    write_json(folder / "config.json", write_config(model.config, ids, shift) | {"dtype": kind})
    if shift is None:
        save_generation(folder, ids)


def save_generation(folder: Path, ids: dict[str, Any]) -> None:
    """Write ``generation_config.json``: the tokens that end an answer, and padding."""
    write_json(folder / "generation_config.json",
               {"do_sample": True, "eos_token_id": ids["eos"], "pad_token_id": ids["pad"]})


def keep_generation(folder: Path, base: dict[str, Any]) -> None:
    """Add to a folder's ``generation_config.json`` what that of its base holds: how to sample stays as it was, and
    every token that ended an answer still does, in ``config.json`` too."""
    path = folder / "generation_config.json"
    if not base or not path.exists():
        return
    ours = read_json(path)
    ends = joined_ids(ours.get("eos_token_id"), base.get("eos_token_id"))
    pad = ours["pad_token_id"] if base.get("pad_token_id") is None else base["pad_token_id"]
    write_json(path, ours | base | {"eos_token_id": ends, "pad_token_id": pad})
    config = folder / "config.json"
    if config.exists() and (values := read_json(config)).get("eos_token_id") != ends:
        write_json(config, values | {"eos_token_id": ends})


def joined_ids(*some: int | list[int] | None) -> int | list[int] | None:
    """Token ids of several settings, each once: a number where there is one alone."""
    each = dict.fromkeys(id for ids in some if ids is not None for id in (ids if isinstance(ids, list) else [ids]))
    return next(iter(each), None) if len(each) < 2 else list(each)
