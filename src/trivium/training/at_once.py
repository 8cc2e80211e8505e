"""How many tokens go through a model at a time.

A batch goes through in microbatches whose sums are added up, so their size says how long an update takes and how much
memory it needs, and nothing else. On a processor, larger ones save no time. A GPU waits for its orders, some thousand a
microbatch, unless each has enough to do.
"""

from __future__ import annotations

import torch

from trivium.model.config import ModelConfig
from trivium.training.machine import choose_device

LEAST, MOST = 4_096, 16_384
"""Tokens at a time: on a processor, and at most on a GPU."""

SHARE = 1 / 3
"""Of a GPU's memory, for activations: weights, gradients and optimizer need the rest."""


def activations(config: ModelConfig, tokens: int, tensor: int = 1, checkpointed: bool = True) -> float:
    """Bytes kept for the backward pass in bf16 with fused attention: for each token and layer the inputs of the norms
    and of the matrix products (as Korthikanti et al. 2023, section 4, for this block); with checkpointing the blocks'
    inputs, and one block in full. What lies inside a block is shared by ``tensor`` processes. Logits are made in pieces
    and not counted."""
    width, q, kv = config.hidden_size, config.num_heads * config.head_dim, config.num_kv_heads * config.head_dim
    inside = (3 * q + 4 * kv + 4 * config.intermediate_size) / tensor
    block = 2.0 * (4 * width + inside)
    return tokens * (config.num_layers * 2.0 * width + block if checkpointed else config.num_layers * block)


def tokens_at_once(config: object, checkpointed: bool = False, memory: float | None = None) -> int:
    """Tokens that go through a model of that shape at a time: :data:`LEAST`, doubled up to :data:`MOST` while the
    activations take no more than :data:`SHARE` of a GPU's ``memory`` in bytes (this machine's unless given; 0: there is
    none). :data:`LEAST` for models of other families, whose activations are not known."""
    if memory is None:
        device = choose_device()
        memory = 0.0 if device.type == "cpu" else torch.cuda.get_device_properties(device).total_memory
    tokens = LEAST
    while isinstance(config, ModelConfig) and tokens < MOST and \
            activations(config, 2 * tokens, checkpointed=checkpointed) <= SHARE * memory:
        tokens *= 2
    return tokens
