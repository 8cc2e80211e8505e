"""The shape of a decoder-only Transformer."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Literal

from trivium.errors import TriviumError


@dataclass(frozen=True)
class RopeScaling:
    """A stretching of the rotary positions, for texts longer than those that the model was made with. ``llama3``:
    wavelengths longer than ``original_positions / low_frequency`` tokens become ``factor`` times longer, those shorter
    than ``original_positions / high_frequency`` stay, those between move smoothly (Grattafiori et al. 2024, section
    3.4.2; the formula is that of the published code). ``yarn``: the same between ``beta_slow`` and ``beta_fast`` turns
    within the original positions, and attention is sharpened (Peng et al. 2023, 'YaRN', sections 3.2 and 3.4).
    ``linear``: all become ``factor`` times longer (Chen et al. 2023)."""

    __pydantic_config__: ClassVar[dict[str, object]] = {"extra": "forbid", "use_attribute_docstrings": True}

    factor: float
    """How many times longer the longest wavelengths become."""
    original_positions: int = 0
    """Positions of the model before it was stretched; linear needs none."""
    low_frequency: float = 1.0
    """llama3: below so many turns within the original positions a wavelength is stretched in full."""
    high_frequency: float = 4.0
    """llama3: above so many turns it stays as it was."""
    kind: Literal["llama3", "yarn", "linear"] = "llama3"
    """Which wavelengths are stretched: llama3, yarn or linear."""
    beta_fast: float = 32.0
    """yarn: above so many turns within the original positions a wavelength stays as it was."""
    beta_slow: float = 1.0
    """yarn: below so many turns it is stretched in full."""
    attention_factor: float | None = None
    """yarn: what queries and keys are multiplied by; null for 0.1 ln(factor) + 1."""

    def __post_init__(self) -> None:
        if self.factor < 1:
            raise TriviumError(f"model: rope_scaling's factor is {self.factor}; it must be at least 1")
        if self.kind != "linear" and self.original_positions < 1:
            raise TriviumError(f"model: rope_scaling's original_positions is {self.original_positions}; {self.kind} "
                               "needs the positions of the model before it was stretched")
        for low, high in (("low_frequency", "high_frequency"), ("beta_slow", "beta_fast")):
            if not 0 < getattr(self, low) < getattr(self, high):
                raise TriviumError(f"model: rope_scaling's {low} ({getattr(self, low)}) must be above 0 and below "
                                   f"{high} ({getattr(self, high)})")


@dataclass(frozen=True)
class ModelConfig:
    """The sizes that define a model. Its folders are Qwen3's with ``qk_norm``, Qwen2's with ``attention_bias``,
    Mistral's with a ``sliding_window`` and Llama's otherwise."""

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
    attention_bias: bool = False
    """Biases on queries, keys and values, as Qwen2 has them."""
    sliding_window: int | None = None
    """How many tokens back attention reaches, the own one included (Mistral); null for all."""
    rope_scaling: RopeScaling | None = None
    """A stretching of the rotary positions for longer texts: llama3, yarn or linear; null for none."""

    def __post_init__(self) -> None:
        for name in ("vocab_size", "hidden_size", "intermediate_size", "num_layers", "num_heads", "num_kv_heads",
                     "head_dim", "max_positions"):
            if not isinstance(getattr(self, name), int) or getattr(self, name) < 1:
                raise TriviumError(f"model: {name} is {getattr(self, name)}; it must be at least 1")
        if self.num_heads % self.num_kv_heads:
            raise TriviumError(
                f"model: num_heads ({self.num_heads}) is no multiple of num_kv_heads ({self.num_kv_heads})")
        if self.head_dim % 2:
            raise TriviumError(f"model: head_dim is {self.head_dim}; rotary positions need an even number")
        if self.sliding_window is not None and self.sliding_window < 1:
            raise TriviumError(f"model: sliding_window is {self.sliding_window}; it must be at least 1, or null")
        extras = {"qk_norm": self.qk_norm, "attention_bias": self.attention_bias,
                  "sliding_window": self.sliding_window is not None}
        if sum(extras.values()) > 1:
            both = " and ".join(name for name, chosen in extras.items() if chosen)
            raise TriviumError(f"model: {both} are together in no family of models; choose one of them")

    @property
    def family(self) -> str:
        """The family whose folders it is written as: Qwen3, Qwen2, Mistral or Llama."""
        if self.qk_norm:
            return "Qwen3"
        if self.attention_bias:
            return "Qwen2"
        return "Mistral" if self.sliding_window is not None else "Llama"


@dataclass(frozen=True)
class EncoderConfig(ModelConfig):
    """The shape of an encoder: the same blocks, but every token sees all of its text. Its folders are ModernBERT's
    (Warner et al. 2024), with attention over the whole text in every layer and SwiGLU: norms are LayerNorms without
    bias, the embedding is normalised, and the first block's attention takes it as it is."""

    qk_norm: bool = False
    """ModernBERT has none."""
    num_kv_heads: int = 6
    """As many as num_heads: ModernBERT shares no keys and values."""
    norm_epsilon: float = 1e-5
    """Added to the variance inside each LayerNorm."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.num_kv_heads != self.num_heads or self.head_dim * self.num_heads != self.hidden_size:
            raise TriviumError(
                f"model: an encoder's {self.num_heads} heads of {self.head_dim} must have as many "
                f"kv_heads (it has {self.num_kv_heads}) and make up its hidden_size ({self.hidden_size})")
        if (self.qk_norm or self.attention_bias or self.sliding_window is not None or self.rope_scaling is not None
                or not self.tie_embeddings):
            raise TriviumError(
                "model: an encoder has no qk_norm, attention_bias, "
                "sliding_window or rope_scaling, and ties its embeddings"
            )

    @property
    def family(self) -> str:
        """ModernBert."""
        return "ModernBert"


@dataclass(frozen=True)
class EncoderDecoderConfig(ModelConfig):
    """The shape of an encoder-decoder: ``num_layers`` blocks read the source, as many write the target and look at what
    was read. Its folders are T5Gemma's (Zhang et al. 2025): a block's halves are normalised after they are computed as
    well as before, and embeddings are multiplied by ``sqrt(hidden_size)``."""

    qk_norm: bool = False
    """T5Gemma has none."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.hidden_size % self.num_heads:
            raise TriviumError(
                f"model: an encoder-decoder's hidden_size ({self.hidden_size}) "
                f"must be a multiple of its num_heads ({self.num_heads})"
            )
        if (self.qk_norm or self.attention_bias or self.sliding_window is not None or self.rope_scaling is not None
                or not self.tie_embeddings):
            raise TriviumError(
                "model: an encoder-decoder has no qk_norm, attention_bias, "
                "sliding_window or rope_scaling, and ties its embeddings"
            )

    @property
    def family(self) -> str:
        """T5Gemma."""
        return "T5Gemma"


@dataclass(frozen=True)
class VisionConfig(EncoderConfig):
    """The shape of an encoder of pictures: a square is cut into square patches, each of which is a token."""

    size: int = 28
    """Side of a picture, in pixels; others are scaled to it."""
    patch: int = 7
    """Side of a patch, in pixels; divides size."""
    channels: int = 1
    """1 for grey, 3 for colours."""

    def __post_init__(self) -> None:
        if min(self.size, self.patch) < 1 or self.size % self.patch:
            raise TriviumError(f"model: size is {self.size} pixels, which is no multiple of patch ({self.patch})")
        if self.channels not in (1, 3):
            raise TriviumError(f"model: channels is {self.channels}; it must be 1 (grey) or 3 (colours)")
        object.__setattr__(self, "vocab_size", (self.size // self.patch)**2)  # the places of patches
        super().__post_init__()
