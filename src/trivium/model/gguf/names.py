"""Hugging Face's names and GGUF's, of architectures and tensors."""

from __future__ import annotations

from typing import Any

from torch import Tensor

from trivium.errors import TriviumError

ARCHITECTURES = {"llama": "llama", "mistral": "llama", "qwen2": "qwen2", "qwen3": "qwen3"}
"""GGUF's architecture of a ``model_type``."""

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

WHOLE = {"model.embed_tokens.weight": "token_embd.weight", "model.norm.weight": "output_norm.weight",
         "lm_head.weight": "output.weight"}
"""The same outside the blocks."""


def theirs(name: str) -> str:
    """GGUF's name of a tensor. Raises :class:`TriviumError` for one that it does not have."""
    if name in WHOLE:
        return WHOLE[name]
    block, _, rest = name.removeprefix("model.layers.").partition(".")
    part, _, last = rest.rpartition(".")
    if part not in PARTS or not block.isdecimal() or last not in ("weight", "bias"):
        raise TriviumError(f"{name} has no name in GGUF")
    return f"blk.{block}.{PARTS[part]}.{last}"


def ours(name: str) -> str:
    """Hugging Face's name of a tensor. Raises :class:`TriviumError` for one that is not known."""
    found = {value: key for key, value in WHOLE.items()}.get(name)
    if found is not None:
        return found
    parts = {value: key for key, value in PARTS.items()}
    _, block, part, last = (*name.split("."), "", "", "", "")[:4]
    if not name.startswith("blk.") or part not in parts or not block.isdecimal() or last not in ("weight", "bias"):
        raise TriviumError(f"a tensor {name!r} is not known")
    return f"model.layers.{block}.{parts[part]}.{last}"


def heads_of(name: str, values: dict[str, Any]) -> int:
    """The heads whose rows GGUF's Llama orders otherwise: it has the two halves of each rotated pair side by side.
    ``name`` is Hugging Face's; 0 for a tensor that is the same in both."""
    if ARCHITECTURES[values["model_type"]] != "llama":
        return 0
    part = name.split(".")[-2]
    return int({"q_proj": values["num_attention_heads"], "k_proj": values["num_key_value_heads"]}.get(part, 0))


def paired(tensor: Tensor, heads: int) -> Tensor:
    """Rows in GGUF's order."""
    halves = tensor.view(heads, 2, len(tensor) // heads // 2, *tensor.shape[1:])
    return halves.transpose(1, 2).reshape(tensor.shape)


def unpaired(tensor: Tensor, heads: int) -> Tensor:
    """Rows in Hugging Face's order, from GGUF's."""
    pairs = tensor.view(heads, len(tensor) // heads // 2, 2, *tensor.shape[1:])
    return pairs.transpose(1, 2).reshape(tensor.shape)
