"""The Transformer, its heads, and its Hugging Face folders."""

from trivium.model.config import ModelConfig, RopeScaling
from trivium.model.transformer import LanguageModel, RewardModel, Transformer

__all__ = ["LanguageModel", "ModelConfig", "RewardModel", "RopeScaling", "Transformer"]
