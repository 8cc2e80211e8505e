"""What samples a policy's responses: this process, or a server."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Protocol

from trivium.errors import TriviumError
from trivium.generation.engine import Completion, Engines, Sampling, generate
from trivium.generation.vllm import VllmEngine
from trivium.model import LanguageModel
from trivium.model.adapters import folded
from trivium.model.plain_decoder import must_be_plain
from trivium.stage import Context
from trivium.stages.reinforcement.settings import ReinforcementSettings
from trivium.training.machine import autocast


class Engine(Protocol):
    """What samples responses: this process, or a server that is sent the weights."""

    def send(self, model: LanguageModel) -> None:
        """Sample from these weights from now on. Called by the first process, whenever the policy has changed."""

    def __call__(self, model: LanguageModel, prompts: Sequence[Sequence[int]], sampling: Sampling, stop: Sequence[int],
                 samples: int, keys: Sequence[object], progress: Callable[[int, int], None]) -> list[list[Completion]]:
        """``samples`` completions of each prompt; ``keys`` name their random streams. ``progress`` is told how many of
        how many are done."""


class LocalEngine:
    """The engine of this process: it samples from the model itself, with products in ``precision``."""

    def __init__(self, precision: str = "float32") -> None:
        self.precision = precision
        self.kept = Engines()

    def send(self, model: LanguageModel) -> None:
        """Nothing needs to be sent."""

    def __call__(self, model: LanguageModel, prompts: Sequence[Sequence[int]], sampling: Sampling, stop: Sequence[int],
                 samples: int, keys: Sequence[object], progress: Callable[[int, int], None]) -> list[list[Completion]]:
        """``samples`` completions of each prompt."""
        if self.precision != "float32":
            model = folded(model)
            if must_be_plain(model):
                raise TriviumError("sampling_precision is bf16, but models of other families, and with adapters that "
                                   "cannot be folded in, are sampled from in float32")
        with autocast(self.precision, model.lm_head.weight.device):
            return generate(model, prompts, sampling, stop, samples, keys=keys, progress=progress,
                            engines=self.kept)


def engine_of(settings: ReinforcementSettings, context: Context) -> Engine:
    """The engine that the settings name. Raises :class:`TriviumError` for a server and an adapter together."""
    if settings.engine is None:
        return LocalEngine(settings.sampling_precision)
    if settings.adapter:
        raise TriviumError(
            f"{context.name}: a server is sent whole models only; "
            "train without `adapter`, or sample here, without `engine`"
        )
    given = settings.engine.model_dump()
    return VllmEngine(weights=Path(given.pop("weights")) / context.name, **given)
