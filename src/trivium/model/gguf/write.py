"""A model's folder as one GGUF file."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import safetensors
import torch

from trivium.artifacts import check_made
from trivium.errors import TriviumError, nearest
from trivium.files import read_json, written_aside
from trivium.model.config import ModelConfig, RopeScaling
from trivium.model.gguf.names import ARCHITECTURES, heads_of, paired, theirs
from trivium.model.gguf.tokenizer import add_tokenizer
from trivium.model.transformer import frequencies
from trivium.model.weights import shards

KINDS = {"f32": "ALL_F32", "f16": "MOSTLY_F16", "bf16": "MOSTLY_BF16", "q8_0": "MOSTLY_Q8_0", "q5_1": "MOSTLY_Q5_1",
         "q5_0": "MOSTLY_Q5_0", "q4_1": "MOSTLY_Q4_1", "q4_0": "MOSTLY_Q4_0"}
"""Number formats of matrices, and llama.cpp's names of files in which most are so."""

BLOCK = 32
"""Weights that share a scale in the quantised formats."""


@dataclass(frozen=True)
class Written:
    """What became of an export."""

    bytes: int
    """The file's size."""
    error: float
    """Root of the mean square by which matrices were changed, as a share of that of their weights."""
    plain: int
    """Matrices whose rows are no multiple of :data:`BLOCK`, which are in float16 instead."""


def library() -> Any:
    """The package ``gguf``, or a :class:`TriviumError` that says how to get it."""
    try:
        import gguf
    except ImportError as error:
        raise TriviumError('GGUF needs the library gguf: pip install "trivium[export]"') from error
    return gguf


def write_gguf(folder: Path, path: Path, kind: str = "f16", say: Callable[[str], None] = print) -> Written:
    """Write a language model's folder as one GGUF file, with matrices in one of :data:`KINDS` and vectors in float32.
    Tensors are read and written one by one.

    Raises :class:`TriviumError` for whatever llama.cpp would compute or read otherwise: families and settings that it
    does not have, tokenizers that it cannot imitate, and reward models. What it can imitate but in part is said."""
    gguf = library()
    if kind not in KINDS:
        raise TriviumError(f"--type {kind}: there is no such number format{nearest(kind, KINDS)}")
    check_made(folder)
    values = settings_of(folder)
    names = tensors_of(folder, values)
    with written_aside(path) as aside:
        writer = gguf.GGUFWriter(None, ARCHITECTURES[values["model_type"]])
        describe(writer, gguf, values, folder.resolve().name, getattr(gguf.LlamaFileType, KINDS[kind]))
        add_tokenizer(writer, folder, values["vocab_size"], say)
        writer.add_quantization_version(gguf.GGML_QUANT_VERSION)
        divisors = rope_divisors(values)
        if divisors is not None:
            writer.add_tensor_info("rope_freqs.weight", divisors.shape, divisors.dtype, divisors.nbytes)
        plain = 0
        for name, place in names.items():
            with safetensors.safe_open(place, framework="pt") as file:
                shape = tuple(file.get_slice(name).get_shape())
            format = format_of(gguf, name, shape, kind)
            plain += kind.startswith("q") and len(shape) > 1 and format == gguf.GGMLQuantizationType.F16
            block, size = gguf.GGML_QUANT_SIZES[format]
            held = (*shape[:-1], shape[-1] // block * size)
            writer.add_tensor_info(theirs(name), held, np.dtype(np.uint8), math.prod(held), raw_dtype=format)
        writer.write_header_to_file(aside)
        writer.write_kv_data_to_file()
        writer.write_ti_data_to_file()
        if divisors is not None:
            writer.write_tensor_data(divisors)
        error = write_tensors(writer, gguf, names, values, kind)
        writer.close()
    return Written(path.stat().st_size, error, plain)


def write_tensors(writer: Any, gguf: Any, names: dict[str, Path], values: dict[str, Any], kind: str) -> float:
    """Write the weights in the order of ``names``; :attr:`Written.error`."""
    lost = total = 0.0
    for name, place in names.items():
        with safetensors.safe_open(place, framework="pt") as file:
            tensor = file.get_tensor(name)
        heads = heads_of(name, values)
        array = (paired(tensor, heads) if heads else tensor).float().contiguous().numpy()
        format = format_of(gguf, name, array.shape, kind)
        with np.errstate(over="ignore"):
            quantised = gguf.quantize(array, format)
        if array.ndim > 1 and format != gguf.GGMLQuantizationType.F32:
            back = gguf.dequantize(quantised, format).reshape(array.shape)
            if not np.isfinite(back).all():
                raise TriviumError(f"{place}: {name} holds a weight that {format.name.lower()} cannot hold; write "
                                   "--type bf16")
            lost += float(np.square(back - array, dtype=np.float64).sum())
            total += float(np.square(array, dtype=np.float64).sum())
        writer.write_tensor_data(quantised.view(np.uint8))
    return math.sqrt(lost / total) if total else 0.0


def format_of(gguf: Any, name: str, shape: tuple[int, ...], kind: str) -> Any:
    """The format of one tensor. Embeddings and output matrix stay in 8 bits where others have fewer, as they matter
    most; rows that do not fill blocks are in float16."""
    types = gguf.GGMLQuantizationType
    if len(shape) < 2:
        return types.F32
    if not kind.startswith("q"):
        return types[kind.upper()]
    if shape[-1] % BLOCK:
        return types.F16
    return types.Q8_0 if name in ("lm_head.weight", "model.embed_tokens.weight") else types[kind.upper()]


def settings_of(folder: Path) -> dict[str, Any]:
    """A folder's ``config.json``, with what may be left out filled in. Raises :class:`TriviumError` for a model that
    GGUF cannot describe."""
    path = folder / "config.json"
    values = dict(read_json(path))
    family = values.get("model_type")
    if "ForCausalLM" not in (values.get("architectures") or ["ForCausalLM"])[0]:
        raise TriviumError(f"{folder}: no language model ({values['architectures'][0]}); reward models and encoders "
                           "have no place in GGUF")
    if family not in ARCHITECTURES:
        raise TriviumError(f"{path}: the family {family!r} cannot be written as GGUF; {', '.join(ARCHITECTURES)} can")
    if (folder / "vision.json").exists():
        raise TriviumError(f"{folder}: it sees pictures, and what sees has no place in GGUF; export the model that it "
                           "was made from")
    needed = ("vocab_size", "hidden_size", "intermediate_size", "num_hidden_layers", "num_attention_heads",
              "max_position_embeddings", "rms_norm_eps")
    missing = next((name for name in needed if not values.get(name)), None)
    if missing:
        raise TriviumError(f"{path}: the field {missing!r} is missing")
    values["num_key_value_heads"] = values.get("num_key_value_heads") or values["num_attention_heads"]
    values["head_dim"] = values.get("head_dim") or values["hidden_size"] // values["num_attention_heads"]
    if values.get("hidden_act", "silu") not in ("silu", "swish"):
        raise TriviumError(f"{path}: hidden_act is {values['hidden_act']!r}; GGUF's models of this family have 'silu'")
    window = values.get("sliding_window")
    if family != "mistral" and not values.get("use_sliding_window"):
        window = None
    if window and window < values["max_position_embeddings"]:
        raise TriviumError(f"{path}: GGUF's {ARCHITECTURES[family]} has no sliding window, so this model cannot be "
                           f"written as one; with max_position_embeddings at {window} the window hides nothing")
    if family != "llama" and values.get("attention_bias") and family != "qwen2":
        raise TriviumError(f"{path}: attention_bias is true, which GGUF's {ARCHITECTURES[family]} does not have")
    values["rope"] = rope_of(path, values)
    return values


def rope_of(path: Path, values: dict[str, Any]) -> dict[str, Any]:
    """How positions are stretched, with ``theta`` and ``kind``. Raises :class:`TriviumError` for kinds that llama.cpp
    computes otherwise."""
    found = dict(values.get("rope_scaling") or values.get("rope_parameters") or {})
    other = values.get("rope_parameters") or {}
    found["theta"] = float(found.get("rope_theta") or values.get("rope_theta") or other.get("rope_theta") or 10000.0)
    found["kind"] = found.get("rope_type", found.get("type", "default"))
    if found["kind"] not in ("default", "linear", "llama3", "yarn"):
        raise TriviumError(f"{path}: rope scaling {found['kind']!r} is none that llama.cpp computes alike; it has "
                           "default, linear, llama3 and yarn")
    if float(found.get("partial_rotary_factor", values.get("partial_rotary_factor", 1.0)) or 1.0) != 1.0:
        raise TriviumError(f"{path}: partial_rotary_factor is not 1, which GGUF's models of this family do not have")
    named = {"default": (), "linear": ("factor",), "yarn": ("factor",), "llama3": (
        "factor", "low_freq_factor", "high_freq_factor", "original_max_position_embeddings")}[found["kind"]]
    missing = next((name for name in named if not found.get(name)), None)
    if missing:
        raise TriviumError(f"{path}: the rope scaling lacks {missing!r}")
    usual = {"mscale": None, "mscale_all_dim": None, "truncate": True, "beta_fast": 32, "beta_slow": 1}
    refused = next((name for name, value in usual.items() if (found.get(name) or value) != value
                    or found.get(name) is False), None)
    if found["kind"] == "yarn" and refused:
        raise TriviumError(f"{path}: yarn with {refused}: {found[refused]} is computed otherwise by llama.cpp")
    return found


def rope_divisors(values: dict[str, Any]) -> np.ndarray | None:
    """What llama.cpp divides each frequency by, ``[head_dim / 2]``, for Llama 3's stretching; None for others."""
    rope = values["rope"]
    if rope["kind"] != "llama3":
        return None
    scaling = RopeScaling(float(rope["factor"]), int(rope["original_max_position_embeddings"]),
                          float(rope["low_freq_factor"]), float(rope["high_freq_factor"]))
    config = ModelConfig(head_dim=values["head_dim"], rope_theta=rope["theta"], rope_scaling=scaling, qk_norm=False)
    device = torch.device("cpu")
    divided = frequencies(replace(config, rope_scaling=None), device) / frequencies(config, device)
    return divided.numpy().astype(np.float32)


def tensors_of(folder: Path, values: dict[str, Any]) -> dict[str, Path]:
    """The tensors to write, each with its file. Raises :class:`TriviumError` for one that is missing, or has no place
    in GGUF."""
    places = {name: place for name, place in sorted(shards(folder).items()) if not name.endswith("rotary_emb.inv_freq")}
    for name in places:
        try:
            theirs(name)
        except TriviumError as error:
            raise TriviumError(f"{folder}: {error}; the model cannot be written as it is") from error
        biased = {"llama": True, "qwen2": name.split(".")[-2] in ("q_proj", "k_proj", "v_proj")}
        if name.endswith(".bias") and not biased.get(values["model_type"], False):
            raise TriviumError(f"{folder}: GGUF's {ARCHITECTURES[values['model_type']]} has no place for {name}")
    output, embedding = "lm_head.weight", "model.embed_tokens.weight"
    if values.get("tie_word_embeddings") and output in places and same(places, output, embedding):
        del places[output]
    needed = {embedding, "model.norm.weight", *([] if values.get("tie_word_embeddings") else [output]),
              *(f"model.layers.{layer}.{part}.weight" for layer in range(values["num_hidden_layers"])
                for part in ("self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj", "self_attn.o_proj",
                             "mlp.gate_proj", "mlp.up_proj", "mlp.down_proj", "input_layernorm",
                             "post_attention_layernorm"))}
    missing = next(iter(sorted(needed - set(places))), None)
    if missing:
        raise TriviumError(f"{folder}: the weights lack {missing}, which config.json asks for")
    return places


def same(places: dict[str, Path], one: str, other: str) -> bool:
    """Whether two tensors are equal."""
    both = []
    for name in (one, other):
        with safetensors.safe_open(places[name], framework="pt") as file:
            both.append(file.get_tensor(name))
    return torch.equal(*both)


def describe(writer: Any, gguf: Any, values: dict[str, Any], name: str, file_type: int) -> None:
    """The shape."""
    rope = values["rope"]
    writer.add_name(name)
    writer.add_file_type(file_type)
    writer.add_vocab_size(values["vocab_size"])
    writer.add_context_length(values["max_position_embeddings"])
    writer.add_embedding_length(values["hidden_size"])
    writer.add_block_count(values["num_hidden_layers"])
    writer.add_feed_forward_length(values["intermediate_size"])
    writer.add_head_count(values["num_attention_heads"])
    writer.add_head_count_kv(values["num_key_value_heads"])
    writer.add_key_length(values["head_dim"])
    writer.add_value_length(values["head_dim"])
    writer.add_rope_dimension_count(values["head_dim"])
    writer.add_layer_norm_rms_eps(values["rms_norm_eps"])
    writer.add_rope_freq_base(rope["theta"])
    if rope["kind"] not in ("linear", "yarn"):
        return
    factor = float(rope["factor"])
    writer.add_rope_scaling_type(getattr(gguf.RopeScalingType, rope["kind"].upper()))
    writer.add_rope_scaling_factor(factor)
    if rope["kind"] == "yarn":
        writer.add_rope_scaling_orig_ctx_len(int(rope.get("original_max_position_embeddings")
                                                 or values["max_position_embeddings"]))
        usual = 0.1 * math.log(factor) + 1.0  # by which llama.cpp multiplies queries and keys by itself
        writer.add_rope_scaling_attn_factors(float(rope.get("attention_factor") or usual) / usual)
