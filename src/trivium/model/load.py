"""Reading and writing Hugging Face model folders: ``config.json`` and ``model.safetensors`` (or its shards)."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import safetensors
import torch
from safetensors.torch import save_file
from torch import Tensor

from trivium.errors import TriviumError
from trivium.files import read_json, write_json, written_aside
from trivium.model.config import ModelConfig, RopeScaling
from trivium.model.transformer import LanguageModel, RewardModel, WithoutContents

if TYPE_CHECKING:
    from trivium.model.encoder_decoder import EncoderDecoder

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


def read_config(folder: Path) -> tuple[ModelConfig, dict[str, Any]]:
    """The shape described by a folder's ``config.json``, and the file itself. Raises for a family that is not ours."""
    path = folder / "config.json"
    if not path.exists() and (folder / "adapter_config.json").exists():
        from trivium.model.adapters.folder import base_of
        config, values = read_config(base_of(folder))
        told = read_json(folder / "generation_config.json") if (folder / "generation_config.json").exists() else {}
        return config, values | {name: told[name] for name in ("eos_token_id", "pad_token_id") if name in told}
    values = read_json(path)
    family = values.get("model_type")
    if family == "modernbert":
        raise TriviumError(
            f"{folder}: an encoder reads and labels, but writes nothing; a language model is needed here")
    if family not in FAMILIES:
        from trivium.model.foreign import shape_of
        return shape_of(folder)
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
        rope_scaling=read_rope_scaling(path, rope)), values


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


def shards(folder: Path) -> dict[str, Path]:
    """The file that holds each tensor of a model's folder: ``model.safetensors``, or the shards that its index names.
    Raises for shards that are missing, truncated or outside the folder, and for pickles."""
    index = folder / "model.safetensors.index.json"
    names = sorted(set(read_json(index)["weight_map"].values())) if index.exists() else ["model.safetensors"]
    found: dict[str, Path] = {}
    for name in names:
        path = folder / name
        if Path(name).name != name:
            raise TriviumError(f"{index}: the shard {name!r} lies outside the folder")
        try:
            with safetensors.safe_open(path, framework="pt") as file:
                found |= dict.fromkeys(file.keys(), path)
        except FileNotFoundError as error:
            pickled = next(iter(sorted(folder.glob("*.bin")) + sorted(folder.glob("*.pt"))), None)
            hint = f"; {pickled.name} is a pickle, which is never read: convert it to safetensors" if pickled else "; copy it again" if index.exists(
            ) else ""
            raise TriviumError(f"{path}: no such file{hint}") from error
        except Exception as error:  # safetensors has one exception type, which its stubs do not export
            raise TriviumError(f"{path}: not a readable safetensors file ({error}); copy it again") from error
    return found


def save_weights(folder: Path, weights: dict[str, Tensor], shard_bytes: int) -> None:
    """Write tensors as ``model.safetensors``, or as shards of at most ``shard_bytes`` with their index. Each file is
    written aside and renamed, so a crash leaves no file half written; the index comes last."""
    groups: list[dict[str, Tensor]] = [{}]
    filled = 0
    for name, tensor in weights.items():
        if groups[-1] and filled + tensor.nbytes > shard_bytes:
            groups.append({})
            filled = 0
        groups[-1][name] = tensor
        filled += tensor.nbytes
    names = ["model.safetensors"] if len(groups) == 1 else [f"model-{i + 1:05d}-of-{len(groups):05d}.safetensors"
                                                            for i in range(len(groups))]
    for name, group in zip(names, groups, strict=True):
        with written_aside(folder / name) as aside:
            save_file({k: v.detach().cpu().contiguous() for k, v in group.items()}, aside, {"format": "pt"})
    index = folder / "model.safetensors.index.json"
    if len(groups) > 1:
        write_json(
            index, {
                "metadata": {"total_size": sum(tensor.nbytes for tensor in weights.values())},
                "weight_map": {key: name
                               for name, group in zip(names, groups, strict=True)
                               for key in group}
            })
    else:
        index.unlink(missing_ok=True)


def save(model: LanguageModel | RewardModel, folder: Path, ids: dict[str, Any], shard_bytes: int = 5 << 30) -> None:
    """Write ``config.json`` and the weights as they are; ``ids`` holds the token ids ``eos`` and ``pad``."""
    foreign = getattr(model, "save_folder", None)
    if foreign is not None:  # of another family, or one that sees
        foreign(folder, ids)
        return
    weights = model.state_dict()
    if isinstance(model, LanguageModel) and model.config.tie_embeddings:
        del weights["lm_head.weight"]
    save_weights(folder, weights, shard_bytes)
    save_config(model, folder, ids)


def save_config(model: LanguageModel | RewardModel, folder: Path, ids: dict[str, Any]) -> None:
    """Write ``config.json`` and, of a language model, ``generation_config.json``."""
    whole: Any = getattr(model, "whole", None)
    if whole:  # of another family
        whole[0].config.save_pretrained(folder)
        return
    shift = model.shift if isinstance(model, RewardModel) else None
    kind = str(next(model.parameters()).dtype).removeprefix("torch.")
    write_json(folder / "config.json", write_config(model.config, ids, shift) | {"dtype": kind})
    if shift is None:
        save_generation(folder, ids)


def save_generation(folder: Path, ids: dict[str, Any]) -> None:
    """Write ``generation_config.json``: the tokens that end an answer, and padding."""
    write_json(folder / "generation_config.json",
               {"do_sample": True, "eos_token_id": ids["eos"], "pad_token_id": ids["pad"]})


def what_is(model: object) -> str:
    """A model's family, as an error names it."""
    return {
        "RewardModel": "a reward model", "EncoderDecoder": "an encoder-decoder", "MaskedModel": "an encoder",
        "Classifier": "an encoder"
    }.get(type(model).__name__, "a language model")


def described(folder: Path) -> tuple[LanguageModel | RewardModel, dict[str, Path]]:
    """A folder of one of :data:`FAMILIES` as a model without contents, and the file of each of its tensors. Only
    headers are read. Raises :class:`TriviumError` for a missing or broken file and for weights that do not fit the
    config."""
    config, values = read_config(folder)
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


def load(folder: Path, dtype: torch.dtype | None = torch.float32,
         device: torch.device | str = "cpu") -> LanguageModel | RewardModel | EncoderDecoder:
    """A language model or, when the folder's architecture says so, a reward model or an encoder-decoder, in ``dtype``
    (None: as stored).

    Tensors are read one by one, so memory holds the model once. Raises :class:`TriviumError`, before any weight is
    read, for a missing or broken file, an unknown family, and weights that do not fit the config.
    """
    if (folder / "adapter_config.json").exists() and not (folder / "model.safetensors").exists():
        from trivium.model.adapters.folder import load as load_adapter
        return load_adapter(folder, None, dtype, device)
    if (folder / "config.json").exists() and read_json(folder / "config.json").get("model_type") == "t5gemma":
        from trivium.model.encoder_decoder import load_encoder_decoder
        return load_encoder_decoder(folder, dtype, device)
    if read_config(folder)[1].get("model_type") not in FAMILIES:
        from trivium.model.foreign import load as load_foreign
        return load_foreign(folder, dtype, device)
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
    if isinstance(model, LanguageModel) and (folder / "vision.json").exists():
        from trivium.model.vision import open_eyes
        return open_eyes(model, folder, dtype, device)
    return model
