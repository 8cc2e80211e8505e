"""Pictures and what is asked about them: handwritten digits, and drawn shapes to count."""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
from pydantic import Field

from trivium import randomness
from trivium.data.digits import SMALL_DIGITS, read_mnist, small_digits
from trivium.files import write_rows
from trivium.model.images import data_url
from trivium.stage import Context, Input, Stage, Title
from trivium.stages.outlook import Cost, Small

if TYPE_CHECKING:
    from trivium.stages.cost import Estimate


class Pictures(Stage):
    """Handwritten digits and drawn shapes, with questions about them."""

    kind: ClassVar[str] = "pictures"
    version: ClassVar[int] = 1
    title: ClassVar[Title] = Title("pictures with questions", "带问题的图片", "read")
    mnist: Input | None = None
    """A folder with MNIST's four files in IDX form, gzipped or not; null takes the 1,797 small digits of
    scikit-learn."""
    digits: int = Field(12_000, ge=1)
    """Digits to learn from, chosen by the seed; at most as many as there are."""
    shapes: int = Field(12_000, ge=1)
    """Pictures of shapes to learn from."""
    most: int = Field(5, ge=1, le=9)
    """Most shapes of the kind that is counted."""
    inverted: float = Field(0.5, ge=0, le=1)
    """Share of the pictures whose ink is dark on white; MNIST's is white on black."""
    heldout: int = Field(500, ge=1)
    """Digits, and pictures of shapes, that are kept for the examination."""

    def run(self, context: Context) -> dict[str, object]:
        """Write ``captions.jsonl`` (what a picture shows, for the first step of seeing), ``train.jsonl`` (questions
        about the same pictures, for the second) and ``heldout.jsonl`` (questions about others). A picture is a part of
        a message, as in OpenAI's API."""
        folder: Path | None = context.inputs.get("mnist")
        counts = {}
        for part, digits, shapes in (("train", self.digits, self.shapes), ("heldout", self.heldout, self.heldout)):
            pictures = [
                *drawn_digits(folder, part, digits, context.seed), *drawn_shapes(part, shapes, self.most, context.seed)
            ]
            captions, questions = [], []
            for number, (kind, pixels, caption, answers) in enumerate(pictures):
                rng = randomness.python(context.seed, "asked", part, number)
                url = data_url(255 - pixels if rng.random() < self.inverted else pixels)
                captions.append(row(kind, url, [(rng.choice(SHOW), caption)]))
                asked = [((rng.choice(COUNT) if shape else rng.choice(DIGIT)).format(shape), answer)
                         for shape, answer in answers]
                questions.append(row(kind, url, rng.sample(asked, len(asked)) if part == "train" else asked[:1]))
            if part == "train":
                counts["captions"] = write_rows(context.folder / "captions.jsonl", captions)
            counts[part] = write_rows(context.folder / f"{part}.jsonl", questions)
        return {**counts, "digits": "mnist" if folder else "scikit-learn's small digits"}


    def sample(self, estimate: Estimate) -> Small:
        """Few of the pictures."""
        digits = self.digits if self.mnist else min(self.digits, SMALL_DIGITS[0])
        factor = max(1.0, (digits + self.shapes) / SAMPLE)
        counts = {"digits": digits, "shapes": self.shapes, "heldout": self.heldout}
        return Small(self.model_copy(update={name: max(1, round(count / factor)) for name, count in counts.items()}),
                     factor)

    def cost(self, estimate: Estimate) -> Cost:
        """The sample, for which all of MNIST is read too, and the drawing of all other pictures."""

        def draw_one() -> float:
            begun = time.monotonic()
            for _, pixels, *_ in drawn_shapes("train", 50, self.most, 0):
                data_url(pixels)
            return (time.monotonic() - begun) / 50

        cost, factor = estimate.sampled(self, 0), estimate.factor(estimate.name_of(self))
        rest = (1 - 1 / factor) * (self.digits + self.shapes + 2 * self.heldout)
        return replace(cost, seconds=cost.seconds + rest * estimate.once(("drawing", self.most), draw_one))


SAMPLE = 320
"""Pictures that are sampled to predict the time."""

SIDE = 28
"""Pixels, as MNIST has them."""

DIGIT = ("Which digit is this?", "What digit do you see?", "Read the digit in the picture.",
         "Which number was written here?")
COUNT = ("How many {} are there?", "How many {} do you see?", "Count the {}.", "How many {} are in the picture?")
SHOW = ("What does the picture show?", "Describe the picture.", "What do you see?")
NUMBERS = ("no", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")
SHAPES = ("circle", "square", "triangle")




def row(kind: str, url: str, asked: list[tuple[str, str]]) -> dict[str, Any]:
    """A picture, and a conversation of questions about it and their answers."""
    messages: list[dict[str, Any]] = [{"role": role, "content": text} for pair in asked
                                      for role, text in zip(("user", "assistant"), pair, strict=True)]
    messages[0]["content"] = [{"type": "image_url", "image_url": {"url": url}},
                              {"type": "text", "text": messages[0]["content"]}]
    return {"messages": messages, "kind": kind}


Drawn = tuple[str, np.ndarray, str, list[tuple[str, str]]]
"""Its kind, bytes ``[28, 28]`` with 255 for ink, a caption, and of each question what is to be counted (empty: the
digit is to be read) and the answer."""


def drawn_digits(folder: Path | None, part: str, count: int, seed: int) -> Iterator[Drawn]:
    """``count`` handwritten digits of MNIST, or of scikit-learn's small ones, chosen by the seed; at most as many as
    there are."""
    images, labels = read_mnist(folder, "train" if part == "train" else "t10k") if folder else small_digits(
        seed)[part != "train"]
    for i in randomness.numpy(seed, "digits", part).permutation(len(labels))[:count]:
        pixels = (images[i] * 255).round().astype(np.uint8).reshape(SIDE, SIDE)
        yield "digit", pixels, f"a handwritten {labels[i]}", [("", str(labels[i]))]


def drawn_shapes(part: str, count: int, most: int, seed: int) -> Iterator[Drawn]:
    """``count`` pictures of circles, squares and triangles that do not touch. Of the kind that is asked for first there
    are 0 to ``most``, one number as likely as another; of the others 0 to 2 together."""
    for number in range(count):
        rng = randomness.python(seed, "shapes", part, number)
        asked = rng.choice(SHAPES)
        others = rng.choices([shape for shape in SHAPES if shape != asked], k=rng.randint(0, 2))
        wanted = [asked] * rng.randint(0, most) + others
        placed: list[tuple[str, float, float, float]] = []
        for shape in wanted:
            for _ in range(200):
                radius = rng.uniform(2.8, 4.0)
                x, y = (rng.uniform(radius + 0.5, SIDE - radius - 0.5) for _ in "xy")
                if all((x - a)**2 + (y - b)**2 > (radius + r + 1.2)**2 for _, a, b, r in placed):
                    placed.append((shape, x, y, radius))
                    break
        there = {shape: sum(shape == name for name, *_ in placed) for shape in SHAPES}
        caption = " and ".join(f"{NUMBERS[n]} {shape}{'s' if n > 1 else ''}"
                               for shape, n in there.items() if n) or "nothing"
        yield "shapes", draw(placed), caption, [(f"{shape}s", str(there[shape]))
                                                for shape in sorted(SHAPES, key=lambda shape: shape != asked)]


def draw(placed: list[tuple[str, float, float, float]], fine: int = 4) -> np.ndarray:
    """Shapes ``(name, x, y, radius)`` in pixels as bytes ``[28, 28]``: the share of each pixel that they cover."""
    y, x = (np.mgrid[:SIDE * fine, :SIDE * fine] + 0.5) / fine
    ink = np.zeros_like(x, bool)
    for shape, a, b, radius in placed:
        dx, dy = x - a, y - b
        if shape == "circle":
            ink |= dx**2 + dy**2 < radius**2
        elif shape == "square":
            ink |= np.maximum(abs(dx), abs(dy)) < radius * 0.71
        else:
            ink |= (dy < radius * 0.5) & (abs(dx) * 3**0.5 < dy + radius)
    return (ink.reshape(SIDE, fine, SIDE, fine).mean((1, 3)) * 255).round().astype(np.uint8)
