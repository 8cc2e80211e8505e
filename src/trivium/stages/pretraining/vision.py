"""Masked-patch pretraining: an encoder of pictures learns to paint patches that it does not see (Xie et al. 2022,
'SimMIM')."""

from __future__ import annotations

import math
import os
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import torch
from pydantic import Field
from torch import Tensor

from trivium import randomness
from trivium.errors import TriviumError, counted
from trivium.model.config import VisionConfig
from trivium.model.images import look
from trivium.model.vision import VisionEncoder, save_vision
from trivium.stage import Context, Figure, Input, Panel, Title
from trivium.stages.cost import Estimate, size_of
from trivium.stages.outlook import Cost
from trivium.stages.rows import rows_of
from trivium.stages.training import Looped, run_training
from trivium.tokenizer.chat import check_messages
from trivium.training.machine import prepare
from trivium.training.objective import Objective, Total


class Vision(Looped):
    """Train an encoder of pictures from random weights to paint patches that it does not see."""

    kind: ClassVar[str] = "vision"
    version: ClassVar[int] = 1
    title: ClassVar[Title] = Title("pretraining, hidden patches", "预训练（遮盖图块）", "read")
    figures: ClassVar[tuple[Figure, ...]] = (
        Figure("loss", "squared error of hidden patches", "遮盖图块的平方误差"),
        Figure("validation_loss", "squared error of hidden patches, held out", "遮盖图块的平方误差（留出图片）"),
        Figure("variance", "… of guessing the mean picture", "……猜平均图片"),
        Figure("pictures", "pictures", "图片数"),
    )
    panel: ClassVar[Panel] = Panel(headline="validation_loss", beside=("variance",))
    alone: ClassVar[bool] = True
    length: int = Field(256, ge=2)
    """Nothing of it depends on this."""
    rows: int = Field(16, ge=1)
    """Pictures in a batch."""
    pictures: Input = "pictures"
    """A stage or a folder with `train.jsonl` and `heldout.jsonl`, whose messages hold pictures."""
    model: VisionConfig = VisionConfig()
    """The encoder's shape, and that of a picture."""
    mask: float = Field(0.6, gt=0, lt=1)
    """Share of the patches that are hidden (SimMIM: 0.6)."""
    epochs: float = Field(1.0, ge=0)
    """Passes over the pictures; 0 leaves the encoder random."""

    def run(self, context: Context) -> dict[str, object]:
        """Train an encoder of pictures from random weights, without knowing what they show."""
        if int(os.environ.get("WORLD_SIZE", "1")) > 1:
            raise TriviumError(f"{context.name}: models that see are trained in one process; start it without torchrun")
        device = prepare(context.threads)
        pixels, unseen = (pictures_of(self, context, name) for name in ("train.jsonl", "heldout.jsonl"))
        model = VisionEncoder(self.model).initialise(randomness.derive(context.seed, "initialise")).to(device)
        batches, heldout = (PictureEpochs(part, self.model.vocab_size, self.rows, context.seed, self.mask)
                            for part in (pixels, unseen))
        steps = round(self.epochs * batches.steps_per_epoch)
        context.progress.say(
            f"{sum(p.numel() for p in model.parameters()) / 1e6:.2f}M parameters, "
            f"{counted(len(pixels), 'picture')}, {counted(steps, 'step')}"
        )
        outcome = run_training(model, Painting(), batches, steps, self, context, len(pixels), heldout=heldout,
                               evaluate_every=max(1, steps))
        save_vision(context.folder, outcome.model)
        shown = pixels.astype(np.float32) / 127.5 - 1
        return {
            "parameters": sum(p.numel() for p in model.parameters()), "pictures": len(pixels), "steps": steps,
            "precision": outcome.precision, "validation_loss": outcome.metrics.get("validation_loss"),
            "variance": float(np.var(shown - shown.mean(0)))
        }

    def cost(self, estimate: Estimate) -> Cost:
        """The updates, after all pictures are opened, and a pass over the held-out ones."""
        context, factor = estimate.context(self), estimate.factor(self.pictures)
        begun = time.monotonic()
        pixels, unseen = (pictures_of(self, context, f"{part}.jsonl") for part in ("train", "heldout"))
        opening = time.monotonic() - begun
        batches = PictureEpochs(pixels, self.model.vocab_size, self.rows, context.seed, self.mask)
        steps = round(self.epochs * len(pixels) * factor / self.rows)
        model = VisionEncoder(self.model).initialise(0)
        each = estimate.updates(("vision", self.model, self.rows), lambda: model, Painting(), batches,
                                self.optimization, self.number_format())
        others = factor * (opening + len(unseen) / self.rows * each / 3)
        return Cost.of_updates(estimate.training(steps, each, size_of(model)) + others + 1.0, steps, each)

    def stand_in(self, estimate: Estimate) -> Path:
        """An encoder of pictures with random weights."""
        folder = estimate.context(self).folder
        save_vision(folder, VisionEncoder(self.model).initialise(0))
        return folder


@dataclass
class PictureBatch:
    """Pictures and which of their patches are hidden."""

    pixels: Tensor
    """``[N, channels, size, size]`` bytes."""
    hidden: Tensor
    """``[N, patches]``"""
    counts: dict[str, float] = field(default_factory=dict)
    unit: ClassVar[str] = "patches"

    @property
    def size(self) -> int:
        """Patches."""
        return self.hidden.numel()

    real = size

    def to(self, device: torch.device) -> PictureBatch:
        """The same batch on another device."""
        return PictureBatch(self.pixels.to(device), self.hidden.to(device), self.counts)


class PictureEpochs:
    """Batches of pictures, a pure function of the step: each epoch has an order of its own, and hides other patches."""

    def __init__(self, pixels: np.ndarray, patches: int, rows: int, seed: int, mask: float) -> None:
        self.pixels, self.patches, self.rows, self.seed, self.mask = pixels, patches, rows, seed, mask
        self.steps_per_epoch = math.ceil(len(pixels) / rows)

    def __call__(self, step: int, part: int = 0, parts: int = 1, rows: int | None = None) -> list[PictureBatch]:
        """The batch of a step, in microbatches of at most ``rows`` pictures."""
        epoch, within = divmod(step, self.steps_per_epoch)
        chosen = randomness.numpy(self.seed, "order",
                                  epoch).permutation(len(self.pixels))[within * self.rows:(within + 1) * self.rows]
        batches = []
        for some in np.array_split(chosen, -(-len(chosen) // (rows or self.rows))):
            order = np.stack(
                [randomness.numpy(self.seed, "hidden", epoch, int(i)).permutation(self.patches) for i in some])
            hidden = torch.from_numpy(order < max(1, round(self.mask * self.patches)))
            batches.append(
                PictureBatch(torch.from_numpy(self.pixels[some]), hidden,
                             {"patches": float(hidden.sum()), "seen": float((~hidden).sum())}))
        return batches


class Painting(Objective):
    """The squared error of painted patches, a mean over their pixels, which lie between -1 and 1: of those that were
    hidden and, at a tenth of the weight, of those that were seen, so that their vectors keep what they show for a
    reader who cannot change them."""

    weights = {"loss": 1.0, "seen": 0.1}

    def __call__(self, model: Any, batch: PictureBatch) -> dict[str, Total]:
        """Two means over patches."""
        errors = ((model.paint(model(batch.pixels, batch.hidden)) - model.cut(batch.pixels))**2).mean(-1)
        return {
            "loss": Total(errors[batch.hidden].sum(), "patches"), "seen": Total(errors[~batch.hidden].sum(), "seen")
        }




def pictures_of(settings: Vision, context: Context, name: str) -> np.ndarray:
    """The pictures of a file's rows, ``[N, channels, size, size]`` bytes."""
    found: list[np.ndarray] = []

    def keep(row: dict[str, Any]) -> None:
        found.append(
            look(check_messages(row["messages"], True), settings.model.size, settings.model.channels,
                 context.inputs["pictures"]))

    rows_of(context.inputs["pictures"], name, [], context, keep)
    return np.concatenate(found)
