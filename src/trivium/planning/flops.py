"""How much arithmetic a model needs, counted from its shape."""

from __future__ import annotations

from trivium.model.config import ModelConfig


def parameters(config: ModelConfig) -> int:
    """All weights of a language model."""
    per_layer = matrices_of_a_block(config) + 2 * config.hidden_size
    if config.qk_norm:
        per_layer += 2 * config.head_dim
    if config.attention_bias:
        per_layer += (config.num_heads + 2 * config.num_kv_heads) * config.head_dim
    embedding = config.vocab_size * config.hidden_size
    return config.num_layers * per_layer + config.hidden_size + embedding * (1 if config.tie_embeddings else 2)


def matrices_of_a_block(config: ModelConfig) -> int:
    """Weights of one block that take part in matrix products."""
    attention = config.hidden_size * config.head_dim * (2 * config.num_heads + 2 * config.num_kv_heads)
    return attention + 3 * config.hidden_size * config.intermediate_size


def forward_flops(config: ModelConfig, length: int, causal: bool = True) -> float:
    """Floating-point operations of the matrix products for one token in the mean over a row of ``length`` tokens; a
    multiplication and an addition count as two.

    Each weight of a matrix is used once for each token; the embedding is looked up, not multiplied, the output matrix
    is. Attention multiplies each query with every key that it may see, and each weight with a value: 4 · heads ·
    head_dim for each pair. ``causal`` counts the pairs that are needed, otherwise all ``length²`` are, as a kernel
    without a mask computes them.
    """
    seen: float = length
    if causal:
        window = min(config.sliding_window or length, length)
        seen = (window * (window + 1) / 2 + (length - window) * window) / length
    weights = config.num_layers * matrices_of_a_block(config) + config.vocab_size * config.hidden_size
    return 2.0 * weights + config.num_layers * 4.0 * config.num_heads * config.head_dim * seen


def training_flops(config: ModelConfig, tokens: float, length: int) -> float:
    """Floating-point operations to train on ``tokens``: a forward pass, and twice as much backward (Kaplan et al. 2020,
    section 2.1)."""
    return 3.0 * forward_flops(config, length) * tokens


def six_n_d(parameters: float, tokens: float) -> float:
    """The usual rule: 6 · N · D (Kaplan et al. 2020, eq. 2.2 and table 1)."""
    return 6.0 * parameters * tokens


def shape_for(parameters_wanted: float) -> ModelConfig:
    """A shape of about so many parameters, in the manner of Llama 3: heads of 128, eight heads of keys and values, an
    inner width of 3.5 times the outer one, and a width that is near 115 times the depth. Small models get smaller heads
    and vocabularies."""
    vocab, tied = (128256, False) if parameters_wanted >= 3e9 else (32768, True) if parameters_wanted >= 3e7 else (2048,
                                                                                                                   True)
    head = 128 if parameters_wanted >= 3e8 else 64 if parameters_wanted >= 3e7 else 32
    best: tuple[float, ModelConfig] | None = None
    for width in range(head, 65536, head):
        heads = width // head
        shape = {
            "vocab_size": vocab, "hidden_size": width, "intermediate_size": max(32,
                                                                                round(3.5 * width / 32) * 32),
            "num_heads": heads, "num_kv_heads": max(n for n in range(1,
                                                                     min(8, heads) + 1) if heads % n == 0),
            "head_dim": head, "max_positions": 8192, "tie_embeddings": tied, "qk_norm": False
        }
        bare = parameters(ModelConfig(**shape, num_layers=1))  # type: ignore[arg-type]
        block = parameters(ModelConfig(**shape, num_layers=2)) - bare  # type: ignore[arg-type]
        layers = round((parameters_wanted - bare) / block) + 1
        if layers < 1:
            break
        config = ModelConfig(**shape, num_layers=layers)  # type: ignore[arg-type]
        off = abs(parameters(config) / parameters_wanted - 1)
        slim = width / layers / 115
        score = max(slim, 1 / slim) + 20 * off
        if best is None or score < best[0]:
            best = (score, config)
    if best is None:
        return ModelConfig(vocab_size=256, hidden_size=32, intermediate_size=64, num_layers=1, num_heads=1,
                           num_kv_heads=1, max_positions=8192)
    return best[1]
