"""What predictions are made of: a sample of the data, timed updates, and models of random weights in the place of those
that are not there yet."""

from __future__ import annotations

import math
import statistics
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, cast

import torch

from trivium.errors import TriviumError
from trivium.files import write_bytes
from trivium.model import LanguageModel
from trivium.model.encoder import MaskedModel
from trivium.model.encoder_decoder import EncoderDecoder
from trivium.model.vision import VisionEncoder, save_eyes
from trivium.pipeline.one_stage import need, nested
from trivium.planning.inspection import config_of
from trivium.progress import Progress
from trivium.recipe.load import Recipe
from trivium.stage import Context, Stage
from trivium.stages.finetuning.see import See, seeing_model
from trivium.stages.finetuning.translate import Translate
from trivium.stages.models import save_model
from trivium.stages.pretraining import encode, spans
from trivium.stages.pretraining.encode import Encode
from trivium.stages.pretraining.pretrain import Pretrain
from trivium.stages.pretraining.spans import Spans
from trivium.stages.pretraining.vision import Vision
from trivium.stages.training import Training
from trivium.tokenizer.chat import ChatTokenizer
from trivium.training.epochs import PackedEpochs
from trivium.training.loop import ANCHOR
from trivium.training.machine import resolve_precision
from trivium.training.trainer import Trainer


@dataclass
class Sample:
    """What the sampled data stages left."""

    root: Path
    """A folder for what is made beside them."""
    folders: dict[str, Path]
    """The artifact of each of them."""
    seconds: dict[str, float]
    """How long each took."""
    factor: dict[str, float]
    """How many times more there is in the whole of it."""
    threads: int
    device: torch.device
    cache: dict[Any, float] = field(default_factory=dict)
    """Measured times, by what was measured."""

    def place(self, reference: str) -> Path:
        """An input: a sampled stage's artifact, or a path."""
        return self.folders.get(reference, Path(reference))

    def once(self, key: Any, measure: Callable[[], float]) -> float:
        """A measured time with as many threads as torch has now, measured when it is first asked for."""
        key = (torch.get_num_threads(), key)
        if key not in self.cache:
            self.cache[key] = measure()
        return self.cache[key]


def updates(key: Any, model: Callable[[], Any], objective: Any, batches: Any, optimization: Any,
            sample: Sample) -> float:
    """Seconds of one update, in the mean of a few."""

    def measure() -> float:
        trainer = Trainer(model().to(sample.device), optimization, 1000, resolve_precision("auto", sample.device))
        begun, times = time.monotonic(), list[float]()
        for step in range(14):
            at = time.monotonic()
            trainer.step(step, batches(step % batches.steps_per_epoch), objective)
            times.append(time.monotonic() - at)
            if len(times) > 4 and time.monotonic() - begun > 0.8:
                break
        return statistics.mean(times[1:])

    return sample.once(key, measure)


def saving(size: int, sample: Sample) -> float:
    """Seconds to write a checkpoint of ``size`` parameters: weights and two means of AdamW in float32, on the disk of
    temporary files."""

    def measure() -> float:
        with tempfile.TemporaryDirectory() as folder:
            begun = time.monotonic()
            write_bytes(Path(folder) / "checkpoint", bytes(12 * size))
            return time.monotonic() - begun

    return sample.once(("saving", size), measure)


def with_saves(seconds: float, steps: int, size: int, sample: Sample) -> float:
    """The time of a training of ``size`` parameters with its checkpoints: one every 100 updates, and one every 20
    seconds."""
    return seconds + (1 + steps / ANCHOR + seconds / 20) * saving(size, sample) if steps else seconds


def steps_of(epochs: float, batches: PackedEpochs, factor: float = 1.0) -> int:
    """The updates of so many passes over ``factor`` times the sampled rows."""
    return round(epochs * math.ceil(batches.rows_per_epoch * factor / batches.rows))


def size_of(model: torch.nn.Module) -> int:
    """Its parameters."""
    return sum(p.numel() for p in model.parameters())


def any_tokenizer(sample: Sample, folder: str | None = None) -> ChatTokenizer:
    """The sampled tokenizer, or that of a folder that the recipe starts from."""
    for place in [*sample.folders.values(), *([Path(folder)] if folder else [])]:
        if (place / "tokenizer.json").is_file():
            return ChatTokenizer.load(place)
    raise TriviumError("estimate: the recipe trains no tokenizer and starts from no model's folder")


def given(recipe: Recipe, name: str, stage: Stage, sample: Sample) -> Context:
    """What a stage would be given, with samples of data and random models for inputs."""
    places = {where: left_by(recipe, reference, sample) for where, reference in stage.references()}
    work = sample.root / "left" / name
    return Context(recipe.name, name, recipe.seed, nested(stage, places), work, work, Progress(quiet=True),
                   need(recipe, stage))


def left_by(recipe: Recipe, reference: str, sample: Sample) -> Path:
    """What a stage leaves, or a path: the sampled artifact of a stage that makes data, and of one that trains a model a
    folder of the same shape with random weights."""
    stage = recipe.stages.get(reference)
    if stage is None or reference in sample.folders:
        return sample.place(reference)
    if isinstance(stage, Translate):
        return left_by(recipe, stage.model, sample)
    folder = sample.root / "left" / reference
    folder.mkdir(parents=True)
    if isinstance(stage, (Encode, Spans)):
        context = given(recipe, reference, stage, sample)
        tokenizer = ChatTokenizer.load(context.inputs["tokenizer"])
        if isinstance(stage, Encode):
            encode.save_folder(MaskedModel(encode.shape_of(stage, tokenizer)).initialise(0), tokenizer, context)
        else:
            made = EncoderDecoder(spans.shape_of(stage, tokenizer)).initialise(0)
            spans.save_folder(made, spans.with_sentinels(tokenizer, stage.sentinels), context)
    elif isinstance(stage, Vision):
        save_eyes(folder, VisionEncoder(stage.model).initialise(0))
    elif isinstance(stage, See):
        save_model(*seeing_model(stage, given(recipe, reference, stage, sample)), folder)
    elif isinstance(stage, Training):
        save_model(
            LanguageModel(config_of(recipe, stage)).initialise(0),
            any_tokenizer(sample, stage.tokenizer if isinstance(stage, Pretrain) else str(cast(Any, stage).model)),
            folder)
    else:
        raise TriviumError(
            f"estimate: what stage {reference!r} would leave cannot be foreseen; run it first, and name its folder "
            "instead"
        )
    sample.folders[reference] = folder
    return folder
