"""The shape of a decoder-only Transformer."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from trivium.errors import TriviumError


@dataclass(frozen=True)
class ModelConfig:
    """The sizes that define a model. With ``qk_norm`` its folders are Qwen3's, without it Llama's."""

    __pydantic_config__: ClassVar[dict[str, object]] = {"extra": "forbid", "use_attribute_docstrings": True}

    vocab_size: int = 2048
    """Rows of the embedding; a recipe leaves it out and takes the tokenizer's."""
    hidden_size: int = 192
    """Width of the residual stream."""
    intermediate_size: int = 512
    """Width inside each SwiGLU."""
    num_layers: int = 4
    """Number of blocks."""
    num_heads: int = 6
    """Query heads of each attention."""
    num_kv_heads: int = 2
    """Key and value heads, shared by groups of query heads (grouped-query attention); divides num_heads."""
    head_dim: int = 32
    """Width of one head."""
    max_positions: int = 512
    """Longest sequence the model is made for, in tokens."""
    rope_theta: float = 10000.0
    """Base of the rotary positions' wavelengths."""
    norm_epsilon: float = 1e-6
    """Added to the mean square inside each RMSNorm."""
    qk_norm: bool = True
    """RMSNorm on queries and keys, which keeps attention's logits bounded (Henry et al. 2020; Qwen3)."""
    tie_embeddings: bool = True
    """Use the embedding as the output matrix too."""

    def __post_init__(self) -> None:
        for name in ("vocab_size", "hidden_size", "intermediate_size", "num_layers", "num_heads", "num_kv_heads",
                     "head_dim", "max_positions"):
            if getattr(self, name) < 1:
                raise TriviumError(f"model: {name} is {getattr(self, name)}; it must be at least 1")
        if self.num_heads % self.num_kv_heads:
            raise TriviumError(f"model: num_heads ({self.num_heads}) is no multiple of num_kv_heads ({self.num_kv_heads})")
        if self.head_dim % 2:
            raise TriviumError(f"model: head_dim is {self.head_dim}; rotary positions need an even number")
