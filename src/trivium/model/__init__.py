"""The Transformer, its heads, and its Hugging Face folders. What needs torch is loaded when it is first used: so that a
recipe is read, and a fault in it told, at once."""

from typing import TYPE_CHECKING, Any

from trivium.model.config import ModelConfig, RopeScaling

if TYPE_CHECKING:
    from trivium.model.transformer import LanguageModel, RewardModel, Transformer

__all__ = ["LanguageModel", "ModelConfig", "RewardModel", "RopeScaling", "Transformer"]


def __getattr__(name: str) -> Any:
    if name in ("LanguageModel", "RewardModel", "Transformer"):
        from trivium.model import transformer
        return getattr(transformer, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
