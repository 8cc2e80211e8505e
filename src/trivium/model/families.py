"""The families whose models are computed by our own Transformer: how their Hugging Face folders are read and
written."""

from __future__ import annotations

import functools
from pathlib import Path
from typing import Any

import safetensors
import torch
from torch import Tensor

from trivium.errors import TriviumError
from trivium.files import read_json, write_json
from trivium.model.check import check_depth, naming, read_values
from trivium.model.config import ModelConfig, RopeScaling
from trivium.model.transformer import LanguageModel, RewardModel, WithoutContents
from trivium.model.weights import name_of_dtype, save_weights, shards

NAMES = {  # ours -> Hugging Face's
    "vocab_size": "vocab_size", "hidden_size": "hidden_size", "intermediate_size": "intermediate_size",
    "num_layers": "num_hidden_layers", "num_heads": "num_attention_heads", "num_kv_heads": "num_key_value_heads",
    "head_dim": "head_dim", "max_positions": "max_position_embeddings", "norm_epsilon": "rms_norm_eps",
    "tie_embeddings": "tie_word_embeddings",
}


EMBEDDING, HEAD = "model.embed_tokens.weight", "lm_head.weight"

FAMILIES = ("llama", "mistral", "qwen2", "qwen3")

DEFAULTS: dict[str, dict[str, Any]] = {
    "llama": {"max_position_embeddings": 2048, "rms_norm_eps": 1e-6, "num_key_value_heads": None, "head_dim": None},
    "mistral": {"max_position_embeddings": 131072, "rms_norm_eps": 1e-6, "num_key_value_heads": 8, "head_dim": None,
                "sliding_window": 4096},
    "qwen2": {"max_position_embeddings": 32768, "rms_norm_eps": 1e-6, "num_key_value_heads": 32, "head_dim": None},
    "qwen3": {"max_position_embeddings": 32768, "rms_norm_eps": 1e-6, "num_key_value_heads": 32, "head_dim": 128},
}
"""What a family's setting is where its ``config.json`` does not say."""

PLAIN: dict[str, tuple[Any, ...]] = {
    "attention_bias": (False, None), "mlp_bias": (False, None), "hidden_act": ("silu", "swish"),
    "use_sliding_window": (False, None), "is_causal": (True, None), "partial_rotary_factor": (1, None),
    "original_max_position_embeddings": (None,), "per_layer_config": (None,), "chunk_size_feed_forward": (0, None),
}
"""The values of settings for which our Transformer computes what the family does. With another the library's model
does it, where there is that library."""

COMPUTED = {*NAMES.values(), "rope_parameters", "rope_scaling", "rope_theta", "sliding_window", "layer_types"}
"""The settings that decide what is computed, beside those of :data:`PLAIN`."""

WITHOUT_EFFECT = {
    "initializer_range", "use_cache", "pad_token_id", "bos_token_id", "eos_token_id", "pretraining_tp",
    "attention_dropout", "max_window_layers", "transformers_version", "architectures", "output_hidden_states",
    "return_dict", "dtype", "torch_dtype", "is_encoder_decoder", "id2label", "label2id", "num_labels", "problem_type",
    "output_attentions", "model_type", "_name_or_path"
}
"""The settings of these families that change no logits here: dropout is never applied, and windows are not used."""

IGNORED = (".rotary_emb.inv_freq",)
"""Ends of tensors that older writers stored, and that ``transformers`` passes over: they follow from the config."""


ROPE = {
    "llama3": {"low_frequency": "low_freq_factor", "high_frequency": "high_freq_factor"},
    "yarn": {"beta_fast": "beta_fast", "beta_slow": "beta_slow", "attention_factor": "attention_factor"}, "linear": {}
}
"""Ours and Hugging Face's names of what each stretching of rotary positions has of its own."""


def beyond(values: dict[str, Any]) -> str | None:
    """What in the ``config.json`` of one of :data:`FAMILIES` our own Transformer does not compute, or None."""
    for name, plain in PLAIN.items():
        if values.get(name, plain[0]) not in plain:
            return f"{name} is {values[name]!r}"
    if any(kind != "full_attention" for kind in values.get("layer_types") or ()):
        return f"layer_types are {sorted(set(values['layer_types']))}"
    rope = values.get("rope_scaling") or values.get("rope_parameters") or {}
    kind = rope.get("rope_type", rope.get("type", "default"))
    if kind not in ("default", "llama3", "yarn", "linear") or any(isinstance(one, dict) for one in rope.values()):
        return f"rotary positions are of the kind {kind!r}"
    known = {"rope_type", "type", "rope_theta", "factor", "original_max_position_embeddings", "low_freq_factor",
             "high_freq_factor", "beta_fast", "beta_slow", "attention_factor", "partial_rotary_factor", "truncate",
             "mscale", "mscale_all_dim", "finetuned"}
    for name in rope:
        plain = {"partial_rotary_factor": (1, None), "truncate": (True, None), "mscale": (None,),
                 "mscale_all_dim": (None,)}.get(name, (rope[name],) if name in known else (None,))
        if rope[name] not in plain:
            return f"the rotary positions' {name} is {rope[name]!r}"
    return None


def ours(values: dict[str, Any]) -> bool:
    """Whether a folder with this ``config.json`` is computed by our own Transformer."""
    return values.get("model_type") in FAMILIES and beyond(values) is None


def write_config(config: ModelConfig, ids: dict[str, Any], reward_shift: float | None = None) -> dict[str, Any]:
    """The ``config.json`` of a language model, or of a reward model when ``reward_shift`` is given. ``ids`` holds
    ``eos`` and ``pad``."""
    family, scaling = config.family, config.rope_scaling
    values: dict[str, Any] = {theirs: getattr(config, ours) for ours, theirs in NAMES.items()}
    rope: dict[str, Any] = {"rope_type": "default", "rope_theta": config.rope_theta}
    if scaling is not None:
        rope |= {"rope_type": scaling.kind, "factor": scaling.factor}
        if scaling.kind != "linear":
            rope["original_max_position_embeddings"] = scaling.original_positions
        rope |= {theirs: getattr(scaling, ours) for ours, theirs in ROPE[scaling.kind].items()
                 if getattr(scaling, ours) is not None}
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
    """The shape that the ``config.json`` of one of :data:`FAMILIES` describes, as ``transformers`` understands it.
    Raises :class:`TriviumError` for a setting that our Transformer does not compute and for one that is missing."""
    path = folder / "config.json"
    family = values["model_type"]
    if (reason := beyond(values)) is not None:
        raise TriviumError(f"{path}: {reason}, which is not supported for our own {family}")
    if values.get("quantization_config"):
        kind = values["quantization_config"].get("quant_method", "of some kind")
        raise TriviumError(f"{path}: its weights are quantised ({kind}), which cannot be trained; take the model in "
                           "bf16, f16 or float32")
    values = DEFAULTS[family] | values
    missing = [theirs for ours, theirs in NAMES.items() if values.get(theirs) is None
               and ours not in ("head_dim", "num_kv_heads", "tie_embeddings")]
    if missing:
        raise TriviumError(f"{path}: the field {missing[0]!r} is missing")
    if values["num_key_value_heads"] is None:
        values["num_key_value_heads"] = values["num_attention_heads"]
    if values["head_dim"] is None:
        values["head_dim"] = values["hidden_size"] // values["num_attention_heads"]
    values["tie_word_embeddings"] = bool(values.get("tie_word_embeddings")) and not two_matrices(folder)
    sizes = {ours: values[theirs] for ours, theirs in NAMES.items()}
    # transformers takes the older name where both are there: people add it to a folder that has the newer
    rope = values.get("rope_scaling") or values.get("rope_parameters") or {}
    scaling = read_rope_scaling(path, rope, int(values["max_position_embeddings"]))
    with naming(path):
        return ModelConfig(
            **sizes, rope_theta=float(rope.get("rope_theta") or values.get("rope_theta") or 10000.0),
            qk_norm=family == "qwen3", attention_bias=family == "qwen2",
            sliding_window=values["sliding_window"] if family == "mistral" else None, rope_scaling=scaling)


def read_rope_scaling(path: Path, rope: dict[str, Any], positions: int) -> RopeScaling | None:
    """The stretching of rotary positions that the config has, or None; of a model of so many ``positions``."""
    kind = rope.get("rope_type", rope.get("type", "default"))
    if kind == "default":
        return None
    original = int(rope.get("original_max_position_embeddings") or positions)
    try:
        factor = rope["factor"] if kind != "yarn" or rope["factor"] is not None else positions / original
        more = {ours: rope.get(theirs) if kind == "yarn" else rope[theirs] for ours, theirs in ROPE[kind].items()}
        return RopeScaling(float(factor), 0 if kind == "linear" else original, kind=kind,
                           **{name: float(value) for name, value in more.items() if value})
    except KeyError as error:
        raise TriviumError(f"{path}: the rope scaling lacks {error}") from error
    except (TypeError, ValueError) as error:
        raise TriviumError(f"{path}: the rope scaling {rope} holds what is no number") from error


@functools.lru_cache(64)
def _differ(first: Path, one: str, second: Path, other: str, stamps: tuple[int, ...]) -> bool:
    with (safetensors.safe_open(first, framework="pt") as left, safetensors.safe_open(second, framework="pt") as right):
        a, b = left.get_slice(one), right.get_slice(other)
        if a.get_shape() != b.get_shape():
            return True
        return not all(torch.equal(a[i:i + 4096], b[i:i + 4096]) for i in range(0, a.get_shape()[0], 4096))


def two_matrices(folder: Path) -> bool:
    """Whether a folder whose config ties the output matrix to the embedding stores two that differ: then they are not
    tied, as ``transformers`` sees it too. So is what PEFT merges where the output matrix alone was trained."""
    try:
        places = shards(folder)
    except TriviumError:
        return False  # said where the weights are read
    names = [name for name in (EMBEDDING, HEAD) if name in places]
    if len(names) < 2:
        return False
    stamps = tuple(places[name].stat().st_mtime_ns for name in names)
    return _differ(places[EMBEDDING], EMBEDDING, places[HEAD], HEAD, stamps)


def described(folder: Path) -> tuple[LanguageModel | RewardModel, dict[str, Path]]:
    """A folder of one of :data:`FAMILIES` as a model without contents, and the file of each of its tensors. Only
    headers are read. Raises :class:`TriviumError` for a missing or broken file and for weights that do not fit the
    config."""
    values = read_values(folder)
    config = config_of(folder, values)
    architecture = (values.get("architectures") or [""])[0]
    check_depth(folder, config.num_layers, len(shards(folder)))
    with WithoutContents():
        model: LanguageModel | RewardModel
        if architecture.endswith("ForSequenceClassification"):
            if (values.get("num_labels") or len(values.get("id2label") or [0])) != 1:
                raise TriviumError(f"{folder}: a reward model has one label")
            model = RewardModel(config, float(values.get("trivium_score_shift") or 0.0))
        else:
            model = LanguageModel(config)
    wanted = model.state_dict()
    places = {name: place for name, place in shards(folder).items() if not name.endswith(IGNORED)}
    if isinstance(model, LanguageModel) and config.tie_embeddings:
        # some writers store the embedding twice, or under the other name alone
        wanted.pop(EMBEDDING if EMBEDDING not in places and HEAD in places else HEAD)
        if EMBEDDING in places:
            places.pop(HEAD, None)
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
        weights[EMBEDDING] = weights[HEAD] = weights[EMBEDDING if EMBEDDING in weights else HEAD]
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
    write_json(folder / "config.json", write_config(model.config, ids, shift) | {"dtype": name_of_dtype(model)})
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
