"""The Transformer, its heads, and its Hugging Face folders."""

from trivium.model.config import ModelConfig
from trivium.model.transformer import LanguageModel, RewardModel, Transformer

__all__ = ["LanguageModel", "ModelConfig", "RewardModel", "Transformer"]
