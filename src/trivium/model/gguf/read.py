"""A GGUF file as a model's folder: its weights without quantisation, its shape, its tokenizer and its chat template.

The folder lies in the user's cache, named by the file's digest, so that all that reads folders reads the file too.
"""

from __future__ import annotations

import os
import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import save_file
from torch import Tensor

from trivium.errors import TriviumError, counted
from trivium.files import digest_file, made_aside, usual_rights, write_json
from trivium.model.gguf.names import heads_of, ours, unpaired
from trivium.model.gguf.parse import Header, TensorInfo, read_header
from trivium.model.gguf.rebuild import write_tokenizer
from trivium.model.gguf.write import library, rope_divisors

FAMILIES = {"llama": "Llama", "qwen2": "Qwen2", "qwen3": "Qwen3"}
SHARD = 1 << 30
"""Most bytes of one file of weights."""


def opened(path: Path) -> Path:
    """The folder of a model: that of a GGUF file, which is unpacked where it has not been, or the path itself."""
    if path.suffix.lower() != ".gguf" or not path.is_file():
        return path
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "trivium" / "gguf"
    place = cache / digest_file(path)[:32]
    if (place / "config.json").exists():
        return place
    try:
        with made_aside(place) as aside:
            unpack(path, aside)
            usual_rights(aside)
    except OSError as error:  # another process was faster
        if not (place / "config.json").exists():
            raise TriviumError(f"{place}: the unpacked model cannot be put there; remove what stands in its place"
                               ) from error
    print(f"{path}: unpacked to {place}", file=sys.stderr)
    return place


def check_gguf(path: Path) -> None:
    """Raise :class:`TriviumError` for a GGUF file that cannot be read, before any weight is read."""
    gguf = library()
    header = read_header(path, gguf)
    check_tensors(header, config_of(header), gguf)
    with tempfile.TemporaryDirectory() as folder:
        write_tokenizer(header, Path(folder))


def unpack(path: Path, folder: Path) -> None:
    """Write a GGUF file as a model's folder. Weights that are quantised become float32, others stay as they are;
    tensors are read one by one.

    Raises :class:`TriviumError` for a broken file, and for an architecture, number format or tokenizer that is not
    known, before any weight is read."""
    gguf = library()
    header = read_header(path, gguf)
    values = config_of(header)
    check_tensors(header, values, gguf)
    ids = write_tokenizer(header, folder)
    dtype = dtype_of(header, gguf)
    write_weights(header, values, folder, dtype, gguf)
    ends = list(dict.fromkeys(ids[name] for name in ("eot", "eos", "eom") if name in ids))
    end = ends[0] if len(ends) == 1 else ends
    tokens = {"bos_token_id": ids.get("bos"), "eos_token_id": end, "pad_token_id": ids.get("pad")}
    write_json(folder / "generation_config.json", tokens | {"do_sample": True})
    write_json(folder / "config.json", values | tokens | {"dtype": str(dtype).removeprefix("torch.")})


def config_of(header: Header) -> dict[str, Any]:
    """The ``config.json`` of the model."""
    path, given = header.path, header.values
    family = given.get("general.architecture")
    if family not in FAMILIES:
        raise TriviumError(f"{path}: the architecture {family!r} is not read; {', '.join(FAMILIES)} are: take the "
                           "model's Hugging Face folder instead")
    if int(given.get("split.count", 1)) > 1:
        raise TriviumError(f"{path}: one of {given['split.count']} parts; join them by llama-gguf-split --merge")

    def number(name: str, default: Any = None) -> Any:
        value = given.get(f"{family}.{name}", default)
        if isinstance(value, bool) or not isinstance(value, (int, float)):
            raise TriviumError(f"{path}: {family}.{name} is {'missing' if value is None else 'no single number'}")
        return value

    heads, width = number("attention.head_count"), number("embedding_length")
    if number("expert_count", 0):
        raise TriviumError(f"{path}: a mixture of experts, which is not read from GGUF; take its Hugging Face folder")
    if min(heads, width, number("context_length"), number("block_count"), number("feed_forward_length")) < 1:
        raise TriviumError(f"{path}: a size of the model is below 1, so the file is broken: make it again")
    values = {
        "model_type": family, "architectures": [f"{FAMILIES[family]}ForCausalLM"], "hidden_act": "silu",
        "vocab_size": len(given.get("tokenizer.ggml.tokens", [])), "hidden_size": width,
        "intermediate_size": number("feed_forward_length"), "num_hidden_layers": number("block_count"),
        "num_attention_heads": heads, "num_key_value_heads": number("attention.head_count_kv", heads),
        "head_dim": number("attention.key_length", width // heads),
        "max_position_embeddings": number("context_length"),
        "rms_norm_eps": number("attention.layer_norm_rms_epsilon"), "attention_dropout": 0.0, "use_cache": True,
        "tie_word_embeddings": "output.weight" not in header.tensors, "use_sliding_window": False,
    }
    rotated = number("rope.dimension_count", values["head_dim"])
    window = given.get(f"{family}.attention.sliding_window")
    if rotated != values["head_dim"] or number("attention.value_length", values["head_dim"]) != values["head_dim"]:
        raise TriviumError(f"{path}: heads of {values['head_dim']} of which {rotated} are rotated are not read")
    if window and int(window) < values["max_position_embeddings"]:
        raise TriviumError(f"{path}: a sliding window of {window} tokens, which is not read from GGUF; take the "
                           "model's Hugging Face folder")
    biases = {ours(name) for name in header.tensors if name.endswith(".bias")} if known_names(header) else set()
    if family == "llama":
        values |= {"attention_bias": any("self_attn" in name for name in biases),
                   "mlp_bias": any("mlp" in name for name in biases)}
    theta = float(number("rope.freq_base", 10000.0))
    return values | {"rope_theta": theta, "rope_parameters": {"rope_theta": theta} | rope_of(header, values, theta)}


def rope_of(header: Header, values: dict[str, Any], theta: float) -> dict[str, Any]:
    """How positions are stretched, as ``rope_parameters`` says it."""
    given, family = header.values, values["model_type"]
    kind = given.get(f"{family}.rope.scaling.type", "none")
    factor = given.get(f"{family}.rope.scaling.factor", given.get(f"{family}.rope.scale_linear", 1.0))
    if "rope_freqs.weight" in header.tensors:
        return llama3_of(header, values, theta)
    if kind == "none" or (kind == "linear" and factor == 1.0):
        return {"rope_type": "default"}
    if kind not in ("linear", "yarn"):
        raise TriviumError(f"{header.path}: rope scaling {kind!r} is not read from GGUF; take the model's Hugging Face "
                           "folder")
    rope = {"rope_type": kind, "factor": float(factor)}
    if kind == "yarn":
        rope["original_max_position_embeddings"] = int(
            given.get(f"{family}.rope.scaling.original_context_length", values["max_position_embeddings"]))
        more = given.get(f"{family}.rope.scaling.attn_factor")
        if more not in (None, 1.0):
            rope["attention_factor"] = float(more) * (0.1 * float(np.log(factor)) + 1.0)
    return rope


def llama3_of(header: Header, values: dict[str, Any], theta: float) -> dict[str, Any]:
    """Llama 3's stretching, of which GGUF holds what it does to each frequency. Raises :class:`TriviumError` where it
    is another one."""
    divisors = dequantised(header.path, header.tensors["rope_freqs.weight"], library()).numpy()
    if np.allclose(divisors, 1.0):
        return {"rope_type": "default"}
    turns = theta**(-2.0 * np.arange(len(divisors)) / values["head_dim"]) / (2 * np.pi)  # in one token
    factor, low, high = float(divisors.max()), 1.0, 4.0
    between = (divisors > 1.0 + 1e-6) & (divisors < factor * (1 - 1e-6))
    smooth = (1 / divisors[between] - 1 / factor) / (1 - 1 / factor)
    guesses = np.round((smooth * (high - low) + low) / turns[between]).astype(int).tolist()
    for original in dict.fromkeys([*guesses, *(1 << power for power in range(4, 21))]):
        rope = {"rope_type": "llama3", "factor": factor, "low_freq_factor": low, "high_freq_factor": high,
                "original_max_position_embeddings": int(original)}
        tried = rope_divisors({"head_dim": values["head_dim"], "rope": rope | {"kind": "llama3", "theta": theta}})
        if tried is not None and np.allclose(tried, divisors, rtol=1e-4):
            return rope
    raise TriviumError(f"{header.path}: its rope_freqs are not Llama 3's, so positions cannot be read; take the "
                       "model's Hugging Face folder")


def known_names(header: Header) -> bool:
    """Whether all tensors have a name that is known; raises :class:`TriviumError` for one that has none."""
    for name in header.tensors:
        if name != "rope_freqs.weight":
            try:
                ours(name)
            except TriviumError as error:
                raise TriviumError(f"{header.path}: {error}; take the model's Hugging Face folder instead") from error
    return True


def check_tensors(header: Header, values: dict[str, Any], gguf: Any) -> None:
    """Raise :class:`TriviumError` for number formats that cannot be read, and an embedding that does not fit the
    vocabulary."""
    for name, info in header.tensors.items():
        try:
            gguf.dequantize(np.zeros((1, gguf.GGML_QUANT_SIZES[info.format][1]), np.uint8), info.format)
        except NotImplementedError as error:
            raise TriviumError(f"{header.path}: {name} is in {info.format.name}, which is not read; take the file in "
                               "another format, such as Q8_0 or F16") from error
    embedding = header.tensors.get("token_embd.weight")
    wanted = (values["vocab_size"], values["hidden_size"])
    if embedding is None or embedding.shape != wanted:
        found = "is missing" if embedding is None else f"has the shape {embedding.shape}"
        raise TriviumError(f"{header.path}: token_embd.weight {found}, where the vocabulary and width ask for {wanted}")


def dtype_of(header: Header, gguf: Any) -> torch.dtype:
    """The number format of the folder: that of the matrices where all have the same plain one and it holds the vectors
    too, which GGUF has in float32; otherwise float32."""
    formats = {info.format.name for info in header.tensors.values() if len(info.shape) > 1}
    dtype = {"F16": torch.float16, "BF16": torch.bfloat16}.get(min(formats), torch.float32)
    if len(formats) > 1:
        return torch.float32
    vectors = (dequantised(header.path, info, gguf) for name, info in header.tensors.items()
               if len(info.shape) == 1 and name != "rope_freqs.weight")
    return dtype if all(torch.equal(vector, vector.to(dtype).float()) for vector in vectors) else torch.float32


def dequantised(path: Path, info: TensorInfo, gguf: Any) -> Tensor:
    """A tensor's values in float32."""
    block, size = gguf.GGML_QUANT_SIZES[info.format]
    raw = np.fromfile(path, np.uint8, info.bytes, offset=info.start)
    rows = raw.reshape(*info.shape[:-1], info.shape[-1] // block * size)
    return torch.from_numpy(np.array(gguf.dequantize(rows, info.format), np.float32).reshape(info.shape))


def write_weights(header: Header, values: dict[str, Any], folder: Path, dtype: torch.dtype, gguf: Any) -> None:
    """Write the tensors under Hugging Face's names, in files of at most :data:`SHARD` bytes."""
    groups: list[list[str]] = [[]]
    filled = 0
    for name, info in header.tensors.items():
        if name == "rope_freqs.weight":
            continue
        needed = int(np.prod(info.shape)) * dtype.itemsize
        if groups[-1] and filled + needed > SHARD:
            groups.append([])
            filled = 0
        groups[-1].append(name)
        filled += needed
    files = ["model.safetensors"] if len(groups) == 1 else [
        f"model-{number + 1:05d}-of-{len(groups):05d}.safetensors" for number in range(len(groups))]
    for file, names in zip(files, groups, strict=True):
        weights: dict[str, Tensor] = {}
        for name in names:
            tensor = dequantised(header.path, header.tensors[name], gguf)
            heads = heads_of(ours(name), values)
            if heads and len(tensor) % (2 * heads):
                raise TriviumError(f"{header.path}: {name} has {counted(len(tensor), 'row')}, not those of "
                                   f"{heads} heads")
            weights[ours(name)] = (unpaired(tensor, heads) if heads else tensor).to(dtype).contiguous()
        save_file(weights, folder / file, {"format": "pt"})
    if len(groups) > 1:
        write_json(folder / "model.safetensors.index.json", {"metadata": {}, "weight_map": {
            ours(name): file for file, names in zip(files, groups, strict=True) for name in names}})


