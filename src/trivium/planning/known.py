"""Runs whose size and cost were published: what estimates are held to."""

from __future__ import annotations

from dataclasses import dataclass

from trivium.model.config import ModelConfig


@dataclass(frozen=True)
class Run:
    """A published pretraining run."""

    name: str
    parameters: float
    """All of them."""
    active: float
    """Those that a token meets: fewer in a mixture of experts."""
    tokens: float
    gpu: str
    count: int
    """GPUs; of some runs only the order of magnitude is published."""
    gpu_hours: float | None
    source: str
    shape: ModelConfig | None = None
    """The shape, where it is one that this system has, or costs the same."""
    length: int = 8192
    """Tokens in a row."""


def _shape(layers: int, width: int, inner: int, heads: int, kv: int, vocab: int, length: int) -> ModelConfig:
    return ModelConfig(vocab_size=vocab, hidden_size=width, intermediate_size=inner, num_layers=layers, num_heads=heads,
                       num_kv_heads=kv, head_dim=128, max_positions=length, tie_embeddings=False, qk_norm=False)


LLAMA_3 = "model card of Meta Llama 3; shapes in Grattafiori et al. 2024, table 3"

RUNS: dict[str, Run] = {
    run.name: run
    for run in (
        # GPT-3's MLP has two matrices of width 49,152: as much arithmetic as three of 32,768.
        Run(
            "gpt-3", 174.6e9, 174.6e9, 300e9, "v100", 10_000, 3.552e6,
            "Brown et al. 2020, tables 2.1 and D.1 (3,640 PFLOP/s-days); "
            "Patterson et al. 2021, table 4 (10,000 V100s for 14.8 days)",
            ModelConfig(vocab_size=50257, hidden_size=12288, intermediate_size=32768, num_layers=96, num_heads=96,
                        num_kv_heads=96, head_dim=128, max_positions=2048, tie_embeddings=True, qk_norm=False), 2048),
        Run("llama-3-8b", 8.03e9, 8.03e9, 15e12, "h100", 16_384, 1.3e6, LLAMA_3,
            _shape(32, 4096, 14336, 32, 8, 128256, 8192)),
        Run("llama-3-70b", 70.6e9, 70.6e9, 15e12, "h100", 16_384, 6.4e6, LLAMA_3,
            _shape(80, 8192, 28672, 64, 8, 128256, 8192)),
        Run("llama-3-405b", 405.9e9, 405.9e9, 15.6e12, "h100", 16_384, 30.84e6,
            "model card of Llama 3.1 (30.84M hours); Grattafiori et al. 2024 (15.6T tokens)",
            _shape(126, 16384, 53248, 128, 8, 128256, 8192)),
        Run("llama-4-scout", 109e9, 17e9, 40e12, "h100", 16_384, 5.0e6, "model card of Llama 4"),
        Run("llama-4-maverick", 400e9, 17e9, 22e12, "h100", 16_384, 2.38e6, "model card of Llama 4"),
        # nanochat's MLP has two matrices of width 5,120: as much arithmetic as three of 3,413.
        Run(
            "nanochat-d20", 561e6, 561e6, 11.22e9, "h100", 8, 24.0,
            "github.com/karpathy/nanochat, its speedrun: about 3 of its 3 h 51 min on 8 H100s are pretraining, "
            "on 20 tokens a parameter",
            _shape(20, 1280, 3413, 10, 10, 65536, 2048), 2048),
    )
}
"""Known runs by name."""


@dataclass(frozen=True)
class Alignment:
    """How much is learned from people after pretraining. The defaults are InstructGPT's (Ouyang et al. 2022, section
    3.5 and appendix C): 12,725 demonstrations 16 times in rows of 2,000 tokens; 33,207 ranked prompts; a reward model
    of 6B parameters; 256,000 episodes; eight pretraining rows to each episode (PPO-ptx)."""

    demonstrations: int = 12_725
    epochs: int = 16
    length: int = 2000
    ranked: int = 33_207
    responses: float = 6.5
    reward_parameters: float = 6e9
    episodes: int = 256_000
    mixed: int = 8


INSTRUCTGPT_PETAFLOP_DAYS = {"pretraining": 3640.0, "sft": 4.9, "ppo": 60.0}
"""What Ouyang et al. 2022 give for the 175B models."""

INSTRUCTGPT_SOURCE = "Ouyang et al. 2022, section 5.1"

PETAFLOP_DAY = 1e15 * 86400
"""Operations in a petaflop/s-day."""
