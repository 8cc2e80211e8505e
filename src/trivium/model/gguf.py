"""GGUF files, which llama.cpp and what is built on it read: weights, shape, tokenizer and chat template in one file."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import safetensors
import torch
from torch import Tensor

from trivium.errors import TriviumError
from trivium.files import read_json, read_text, written_aside
from trivium.model.config import ModelConfig
from trivium.model.families import ours
from trivium.model.folder import read_config
from trivium.model.weights import shards

ARCHITECTURES = {"Llama": "llama", "Mistral": "llama", "Qwen2": "qwen2", "Qwen3": "qwen3"}

PARTS = {
    "input_layernorm": "attn_norm",
    "self_attn.q_proj": "attn_q",
    "self_attn.k_proj": "attn_k",
    "self_attn.v_proj": "attn_v",
    "self_attn.o_proj": "attn_output",
    "self_attn.q_norm": "attn_q_norm",
    "self_attn.k_norm": "attn_k_norm",
    "post_attention_layernorm": "ffn_norm",
    "mlp.gate_proj": "ffn_gate",
    "mlp.up_proj": "ffn_up",
    "mlp.down_proj": "ffn_down",
}
"""Hugging Face's names inside a block, and GGUF's."""


def write_gguf(folder: Path, path: Path, kind: str = "f16") -> int:
    """Write a language model's folder as one GGUF file, with matrices as ``f32``, ``f16`` or ``bf16`` and vectors in
    float32; returns its size in bytes. Raises :class:`TriviumError` for a sliding window, which the format's Llama does
    not have, and for reward models."""
    try:
        import gguf
    except ImportError as error:
        raise TriviumError('GGUF needs the library gguf: pip install "trivium[export]"') from error
    kinds = {"f32": (torch.float32, gguf.LlamaFileType.ALL_F32), "f16": (torch.float16, gguf.LlamaFileType.MOSTLY_F16),
             "bf16": (torch.bfloat16, gguf.LlamaFileType.MOSTLY_BF16)}
    if kind not in kinds:
        raise TriviumError(f"--type {kind}: known are {', '.join(kinds)}")
    config, values = read_config(folder)
    if "ForCausalLM" not in (values.get("architectures") or ["ForCausalLM"])[0]:
        raise TriviumError(f"{folder}: a reward model has no place in GGUF; export a language model")
    if config.sliding_window is not None and config.sliding_window < config.max_positions:
        raise TriviumError(f"{folder}: GGUF's Llama has no sliding window, so this model cannot be written as one")
    if not ours(values):
        raise TriviumError(f"{folder}: only models of our own Transformer can be written as GGUF; convert this one "
                           "with llama.cpp's convert_hf_to_gguf.py")
    scaling = config.rope_scaling
    if scaling is not None and ((scaling.kind == "llama3" and ARCHITECTURES[config.family] != "llama") or
                                (scaling.beta_fast, scaling.beta_slow, scaling.attention_factor) != (32, 1, None)):
        raise TriviumError(f"{folder}: llama.cpp does not stretch rotary positions so in a {config.family} "
                           f"({scaling.kind}); this model cannot be written as GGUF")
    dtype, file_type = kinds[kind]
    with written_aside(path) as aside:
        writer = gguf.GGUFWriter(aside, ARCHITECTURES[config.family])
        describe(writer, config, folder.name, file_type)
        add_tokenizer(writer, gguf, folder, config.vocab_size)
        for name, place in sorted(shards(folder).items()):
            with safetensors.safe_open(place, framework="pt") as file:
                tensor = file.get_tensor(name)
            if name == "lm_head.weight" and config.tie_embeddings:
                continue
            tensor = turned(name, tensor, config)
            tensor = tensor.to(torch.float32 if tensor.ndim < 2 else dtype).contiguous()
            if tensor.dtype == torch.bfloat16:
                raw = tensor.view(torch.uint8).numpy()
                writer.add_tensor(theirs(name), raw, raw_dtype=gguf.GGMLQuantizationType.BF16)
            else:
                writer.add_tensor(theirs(name), tensor.numpy())
        writer.write_header_to_file()
        writer.write_kv_data_to_file()
        writer.write_tensors_to_file()
        writer.close()
    return path.stat().st_size


def theirs(name: str) -> str:
    """GGUF's name of a tensor."""
    whole = {"model.embed_tokens.weight": "token_embd.weight", "model.norm.weight": "output_norm.weight",
             "lm_head.weight": "output.weight"}
    if name in whole:
        return whole[name]
    block, _, rest = name.removeprefix("model.layers.").partition(".")
    part, _, last = rest.rpartition(".")
    return f"blk.{block}.{PARTS[part]}.{last}"


def turned(name: str, tensor: Tensor, config: ModelConfig) -> Tensor:
    """Queries and keys of GGUF's Llama have the two halves of each rotated pair side by side; all other tensors
    stay."""
    heads = {"q_proj": config.num_heads, "k_proj": config.num_kv_heads}.get(name.split(".")[-2], 0)
    if not heads or ARCHITECTURES[config.family] != "llama":
        return tensor
    return tensor.view(heads, 2, config.head_dim // 2, *tensor.shape[1:]).transpose(1, 2).reshape(tensor.shape)


def describe(writer: Any, config: ModelConfig, name: str, file_type: int) -> None:
    """The shape."""
    import gguf
    writer.add_name(name)
    writer.add_file_type(file_type)
    writer.add_vocab_size(config.vocab_size)
    writer.add_context_length(config.max_positions)
    writer.add_embedding_length(config.hidden_size)
    writer.add_block_count(config.num_layers)
    writer.add_feed_forward_length(config.intermediate_size)
    writer.add_head_count(config.num_heads)
    writer.add_head_count_kv(config.num_kv_heads)
    writer.add_key_length(config.head_dim)
    writer.add_value_length(config.head_dim)
    writer.add_rope_dimension_count(config.head_dim)
    writer.add_layer_norm_rms_eps(config.norm_epsilon)
    writer.add_rope_freq_base(config.rope_theta)
    scaling = config.rope_scaling
    if scaling is not None and scaling.kind != "llama3":
        writer.add_rope_scaling_type(gguf.RopeScalingType(scaling.kind))
        writer.add_rope_scaling_factor(scaling.factor)
        if scaling.kind == "yarn":
            writer.add_rope_scaling_orig_ctx_len(scaling.original_positions)
    elif scaling is not None:  # llama.cpp wants each frequency's divisor
        from dataclasses import replace

        from trivium.model.transformer import frequencies
        device = torch.device("cpu")
        divisors = frequencies(replace(config, rope_scaling=None), device) / frequencies(config, device)
        writer.add_tensor("rope_freqs.weight", divisors.numpy())


def add_tokenizer(writer: Any, gguf: Any, folder: Path, vocab_size: int) -> None:
    """The byte-level BPE of ``tokenizer.json``, its special tokens and the chat template."""
    path = folder / "tokenizer.json"
    described = json.loads(read_text(path))
    model = described.get("model", {})
    if model.get("type") != "BPE":
        raise TriviumError(f"{path}: only byte-level BPE tokenizers can be exported, not {model.get('type')!r}")
    special = {token["id"]: token["content"] for token in described.get("added_tokens", []) if token.get("special")}
    tokens = {id: token
              for token, id in model["vocab"].items()
              } | {token["id"]: token["content"]
                   for token in described["added_tokens"]}
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre("qwen2")  # it cuts text where ours does, combining marks after letters apart
    writer.add_token_list([tokens.get(id, f"[PAD{id}]") for id in range(vocab_size)])
    writer.add_token_types([
        gguf.TokenType.CONTROL if id in special else gguf.TokenType.NORMAL if id in tokens else gguf.TokenType.UNUSED
        for id in range(vocab_size)
    ])
    writer.add_token_merges([merge if isinstance(merge, str) else " ".join(merge) for merge in model["merges"]])
    ids = read_json(folder / "config.json")
    for add, key in ((writer.add_eos_token_id, "eos_token_id"), (writer.add_pad_token_id, "pad_token_id"),
                     (writer.add_bos_token_id, "bos_token_id")):
        if isinstance(ids.get(key), int):
            add(ids[key])
    writer.add_add_bos_token(False)
    template = folder / "chat_template.jinja"
    if template.exists():
        writer.add_chat_template(read_text(template))
