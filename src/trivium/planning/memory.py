"""Memory of a GPU, for every stage and several layouts, by formula. ``trivium estimate memory RECIPE`` counts it
exactly for a recipe; these formulas reach models that are too large to be tried."""

from __future__ import annotations

from dataclasses import dataclass

from trivium.model.config import ModelConfig
from trivium.planning.flops import matrices_of_a_block, parameters
from trivium.training.at_once import activations


@dataclass(frozen=True)
class Layout:
    """How a model is spread over GPUs: ``shards`` processes share its states (FSDP), ``tensor`` of them each matrix."""

    name: str
    shards: int
    tensor: int = 1


@dataclass(frozen=True)
class Kind:
    """What a stage keeps for each parameter, in bytes."""

    trained: float
    """Times the model: states of what is trained."""
    frozen: float
    """Bytes of models that are only run."""


TRAINED = 16.0
"""Bytes a parameter: weight, gradient and AdamW's two means in float32."""

STAGES: dict[str, Kind] = {
    "pretrain": Kind(TRAINED, 0), "sft": Kind(TRAINED, 0), "reward": Kind(TRAINED, 0),
    "dpo": Kind(TRAINED, 0),  # the reference's log-probabilities are computed first, and kept
    "kto": Kind(TRAINED, 0),
    "grpo": Kind(TRAINED, 4.0),  # its reference is run
    "ppo": Kind(2 * TRAINED, 2 * 4.0),  # policy and value model are trained; reference and reward model are run
    "generate": Kind(0, 2.0),
}


def layouts(count: int) -> list[Layout]:
    """Layouts worth a look on ``count`` GPUs."""
    found = [Layout("one GPU", 1)]
    if count >= 8:
        found.append(Layout("8 shards", 8))
    if count > 1 and count != 8:
        found.append(Layout(f"{count} shards", count))
    if count >= 16 and count % 8 == 0:
        found.append(Layout(f"{count} shards, 8 of them share each matrix", count, 8))
    return found


def memory_per_gpu(config: ModelConfig, stage: str, layout: Layout, tokens: int,
                   checkpointed: bool = True) -> dict[str, float]:
    """Bytes in each GPU: ``states``, ``gathered`` (blocks that are put together for use: two, the one in use and the
    next, and the larger of embedding and output matrix), ``activations`` of one row of ``tokens``, and their
    ``total``."""
    kind = STAGES[stage]
    n = parameters(config)
    states = n * (kind.trained + kind.frozen) / layout.shards
    gathered = 0.0
    if layout.shards > 1:
        gathered = 2.0 * (2 * matrices_of_a_block(config) / layout.tensor + config.vocab_size * config.hidden_size)
    kept = activations(config, tokens, layout.tensor,
                       checkpointed) if kind.trained else tokens * config.num_layers * 4.0 * (
                           config.num_kv_heads * config.head_dim)  # keys and values, when nothing is trained
    return {"states": states, "gathered": gathered, "activations": kept, "total": states + gathered + kept}
