"""Lesson 3: reading digits. 784 numbers in, one of ten digits out: the first network that does something useful."""

from __future__ import annotations

import gzip
import html
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import torch
import torch.nn.functional as F
from pydantic import Field
from torch import Tensor, nn

from trivium import randomness
from trivium.errors import TriviumError
from trivium.lessons.lesson import (
    Classification,
    Epochs,
    Heading,
    Piece,
    Raw,
    Rows,
    Table,
    Text,
    curve,
    initialise,
    learn,
    lines,
    saved,
    write_numbers,
    write_page,
)
from trivium.stage import Context, Input, Stage
from trivium.training.machine import prepare
from trivium.training.optimizers import Optimization

PARAMETERS = 637_710
"""784·784 + 784, 784·28 + 28, 28·10 + 10: the weights and biases of 784 → 784 → 28 → 10."""


class Digits(Stage):
    """Read handwritten digits."""

    kind: ClassVar[str] = "digits"
    data: Input | None = None
    """A folder with MNIST's four files in IDX form, gzipped or not; null takes the 1,797 small digits of
    scikit-learn."""
    epochs: int = Field(6, ge=1)
    """Passes over the training images."""
    rows: int = Field(128, ge=1)
    """Images in a batch."""
    few: int = Field(1000, ge=10)
    """Images of the experiment on overfitting."""
    few_epochs: int = Field(60, ge=1)
    """Passes over them."""

    def run(self, context: Context) -> dict[str, Any]:
        """The lesson, top to bottom."""
        prepare(context.threads)
        folder: Path | None = context.inputs.get("data")
        train, test = (read_mnist(folder, "train"),
                       read_mnist(folder, "t10k")) if folder else small_digits(context.seed)
        # 4. Learn from all images, bent a little. What counts is the digits that the network never saw.
        batches = Epochs(train, self.rows, context.seed, lambda batch, step: bend(batch, context.seed, step))
        optimization = Optimization("adamw", 1.5e-3, schedule="cosine", warmup=0.02, weight_decay=0.01, clip=1.0)
        steps = self.epochs * batches.steps_per_epoch
        outcome = learn(network(context.seed), Classification(), batches, steps, optimization, context, "all", [test],
                        max(1, steps // 12))
        model = outcome.model.eval()
        # 5. The experiment: only a few images, plain and bent. The loss on them falls to nothing; on unseen digits it
        # does not.
        some = train.rows(
            torch.from_numpy(randomness.numpy(context.seed, "few").permutation(len(train.targets))[:self.few]))
        experiment = {}
        for name, change in (("few", lambda batch, step: batch), ("few-bent",
                                                                  lambda batch, step: bend(batch, context.seed, step))):
            few = Epochs(some, min(self.rows, self.few), context.seed, change)
            steps = self.few_epochs * few.steps_per_epoch
            tried = learn(network(context.seed), Classification(), few, steps,
                          Optimization("adamw", 1e-3, schedule="constant", clip=1.0), context, name, [test],
                          max(1, steps // 15))
            with torch.no_grad():
                right = (tried.model(some.inputs).argmax(1) == some.targets).float().mean().item()
            losses = curve(context, name, "validation_loss")[1]
            experiment[name] = {
                "images": len(some.targets), "train_accuracy": right,
                "test_accuracy": tried.metrics["validation_accuracy"], "test_loss": losses[-1],
                "lowest_test_loss": min(losses)
            }
        # 6. The mistakes: look at them before believing a percentage.
        with torch.no_grad():
            probabilities = torch.cat([
                model(part).softmax(1) for part in (test.inputs[i:i + 2000] for i in range(0, len(test.inputs), 2000))
            ])
        wrong = (probabilities.argmax(1) != test.targets).nonzero()[:, 0]
        wrong = wrong[probabilities[wrong].max(1).values.argsort(descending=True)]
        confused = {
            f"{a} read as {b}": int(((test.targets == a) & (probabilities.argmax(1) == b)).sum())
            for a in range(10)
            for b in range(10) if a != b
        }
        numbers = {
            "data": "mnist" if folder else "scikit-learn's small digits", "train_images": len(train.targets),
            "test_images": len(test.targets), "parameters": sum(p.numel() for p in model.parameters()),
            "test_accuracy": outcome.metrics["validation_accuracy"], "test_loss": outcome.metrics["validation_loss"],
            "mistakes": len(wrong), "overfitting": experiment, "most_confused": dict(
                sorted(confused.items(), key=lambda item: -item[1])[:5])
        }
        saved(model, context.folder / "model.safetensors")
        write_page(context, "Reading digits", page(numbers, context, test, wrong[:40], probabilities))
        return write_numbers(context, numbers)


# 1. The images. An IDX file is a number that says what follows, the sizes, and then one byte after another.

def read_idx(path: Path, dimensions: int) -> np.ndarray:
    """The bytes of an IDX file of ``dimensions`` dimensions (LeCun's format: two zero bytes, 8 for unsigned bytes, the
    number of dimensions; then each size as four bytes, the highest first; then the data). Raises :class:`TriviumError`
    that names the file and what is wrong with it; nothing is allocated before the sizes are known to fit the file."""
    try:
        raw = path.read_bytes()
        if raw[:2] == b"\x1f\x8b":
            with gzip.open(path) as file:
                raw = file.read(LARGEST + 1)
    except FileNotFoundError as error:
        raise TriviumError(f"{path}: no such file") from error
    except (OSError, EOFError) as error:
        raise TriviumError(f"{path}: cannot be read ({error})") from error
    if len(raw) > LARGEST:
        raise TriviumError(f"{path}: more than {LARGEST:,} bytes; MNIST's largest file has 47,040,016")
    head = 4 + 4 * dimensions
    if len(raw) < head or raw[:2] != b"\0\0" or raw[2] != 8 or raw[3] != dimensions:
        raise TriviumError(
            f"{path}: not an IDX file of bytes in {dimensions} dimension{'s' if dimensions > 1 else ''} (it begins "
            "with "
            f"{raw[:4].hex(' ') or 'nothing'}; 00 00 08 {dimensions:02x} was expected)")
    sizes = [int.from_bytes(raw[4 + 4 * i:8 + 4 * i], "big") for i in range(dimensions)]
    expected = 1
    for size in sizes:
        expected *= size
    if expected != len(raw) - head:
        raise TriviumError(
            f"{path}: its head announces {' × '.join(map(str, sizes))} = {expected:,} bytes, but {len(raw) - head:,} "
            "follow; "
            "the file is cut short or damaged, fetch it again")
    return np.frombuffer(raw, np.uint8, offset=head).reshape(sizes)


LARGEST = 200_000_000
"""Bytes of the largest IDX file that is read."""


def find(folder: Path, name: str) -> Path:
    """A file of MNIST in a folder, under either of the names in use, gzipped or not."""
    names = [form + suffix for form in (name, name.replace("-idx", ".idx")) for suffix in ("", ".gz")]
    found = next((folder / form for form in names if (folder / form).is_file()), None)
    if found is None:
        raise TriviumError(f"{folder}: {name} (or {name}.gz) is missing; MNIST has four files, train-* and t10k-*")
    return found


def read_mnist(folder: Path, part: str) -> Table:
    """The images ``[N, 784]`` from 0 to 1 and labels of ``part``, ``train`` or ``t10k``."""
    places = find(folder, f"{part}-images-idx3-ubyte"), find(folder, f"{part}-labels-idx1-ubyte")
    images, labels = read_idx(places[0], 3), read_idx(places[1], 1)
    if len(images) != len(labels) or not len(images):
        raise TriviumError(
            f"{places[1]}: {len(labels):,} labels for {len(images):,} images; they must be as many, and at least one")
    if images.shape[1:] != (28, 28):
        raise TriviumError(f"{places[0]}: images of {images.shape[1]} × {images.shape[2]}; 28 × 28 was expected")
    wrong = np.flatnonzero(labels > 9)
    if len(wrong):
        raise TriviumError(f"{places[1]}: label {wrong[0] + 1} is {labels[wrong[0]]}; the labels are 0 to 9")
    return Table(torch.from_numpy(images.reshape(len(images), -1).astype(np.float32) / 255),
                 torch.from_numpy(labels.astype(np.int64)))


SMALL_DIGITS = 1347, 450
"""scikit-learn's small digits to learn from, and to be tested on."""


def small_digits(seed: int) -> tuple[Table, Table]:
    """scikit-learn's 8 × 8 digits drawn as 28 × 28 (training, test): for when MNIST is not at hand."""
    try:
        from sklearn.datasets import load_digits
    except ImportError as error:
        raise TriviumError(
            'lesson digits: name a folder with MNIST\'s files (--data FOLDER), or install the small digits: '
            'pip install "trivium[lessons]"') from error
    images, labels = load_digits(return_X_y=True)
    large = F.interpolate(torch.tensor(images.reshape(-1, 1, 8, 8) / 16, dtype=torch.float32), size=(20, 20),
                          mode="bilinear")
    table = Table(F.pad(large, (4, 4, 4, 4)).flatten(1), torch.tensor(labels))
    order = torch.from_numpy(randomness.numpy(seed, "heldout").permutation(len(labels)))
    return table.rows(order[:SMALL_DIGITS[0]]), table.rows(order[SMALL_DIGITS[0]:])


# 2. The network: three layers. Each unit adds up all its inputs, weighted, and passes on what is above zero.

def network(seed: int) -> nn.Module:
    """784 → 784 → 28 → 10."""
    model = nn.Sequential(nn.Linear(784, 784), nn.ReLU(), nn.Linear(784, 28), nn.ReLU(), nn.Linear(28, 10))
    assert sum(p.numel() for p in model.parameters()) == PARAMETERS
    return initialise(model, seed)


# 3. Augmentation: the same digit, shifted, turned and resized a little, is a new example for free.

def bend(batch: Table, seed: int, step: int) -> Table:
    """Each image shifted by up to 2 pixels, turned by up to 12 degrees and resized by up to 10 %, as (seed, step)
    decides."""
    n = len(batch.targets)
    rng = randomness.numpy(seed, "bend", step)
    angle, zoom = np.deg2rad(rng.uniform(-12, 12, n)), rng.uniform(0.9, 1.1, n)
    shift = rng.uniform(-2 / 14, 2 / 14, (n, 2))
    turn = np.stack([np.stack([np.cos(angle) / zoom, -np.sin(angle) / zoom, shift[:, 0]], 1),
                     np.stack([np.sin(angle) / zoom, np.cos(angle) / zoom, shift[:, 1]], 1)], 1)
    grid = F.affine_grid(torch.tensor(turn, dtype=torch.float32), [n, 1, 28, 28], align_corners=False)
    images = F.grid_sample(batch.inputs.view(n, 1, 28, 28), grid, align_corners=False)
    return Table(images.flatten(1), batch.targets)


def drawn(image: Tensor, caption: str) -> str:
    """An image ``[784]`` as SVG, a square a dark pixel."""
    dots = "".join(f'<rect x="{i % 28}" y="{i // 28}" width="1.02" height="1.02" opacity="{value:.2f}"/>'
                   for i, value in enumerate(image.tolist()) if value > 0.1)
    return (
        '<figure style="display:inline-block;margin:.3rem;text-align:center;font-size:.75rem"><svg width="56" '
        'height="56" viewBox="0 0 28 28" '
        f'style="background:#fff" fill="#000">{dots}</svg><figcaption>{html.escape(caption)}</figcaption></figure>')


def page(numbers: dict[str, Any], context: Context, test: Table, wrong: Tensor, probabilities: Tensor) -> list[Piece]:
    """What the lesson shows."""
    some = "".join(drawn(test.inputs[i], str(int(test.targets[i]))) for i in range(min(16, len(test.targets))))
    mistakes = "".join(
        drawn(
            test.inputs[i],
            f"{int(test.targets[i])}, read as {int(probabilities[i].argmax())} ({float(probabilities[i].max()):.0%})")
        for i in wrong.tolist())
    few, bent = numbers["overfitting"]["few"], numbers["overfitting"]["few-bent"]
    return [
        Text(
            "An image is numbers too: 28 × 28 = 784 of them, one for each pixel's darkness. Nobody can write down what "
            "makes a 7; a network can "
            "learn it from examples, with the same loss and the same steps as before."),
        Raw(some),
        Heading("The network"),
        Text(
            f"784 numbers go to 784 units, those to 28, those to 10 scores: {numbers['parameters']:,} parameters. Each "
            "unit adds up its inputs, "
            "weighted, and passes on what is above zero."),
        lines(
            {
                "training, images bent": curve(context, "all", "loss"), "unseen digits": curve(
                    context, "all", "validation_loss")
            }, "step", "loss (nats)", log=True),
        lines({"unseen digits": curve(context, "all", "validation_accuracy")}, "step", "share read right"),
        Text(
            f"{numbers['train_images']:,} images to learn from; {numbers['test_accuracy']:.2%} of "
            f"{numbers['test_images']:,} unseen digits are read right."
        ),
        Heading("The mistakes"),
        Text(
            f"{numbers['mistakes']} digits are misread; here those of which the network was surest. Some would puzzle "
            "a person, others would not."
        ),
        Raw(mistakes),
        Rows(("confusion", "times"), list(numbers["most_confused"].items())),
        Heading("Learning by heart"),
        Text(
            f"With {few['images']:,} images only, the network soon knows every one of them, and on unseen digits its "
            "loss first falls and then rises: "
            "it learns by heart. Bending each image a little, anew each time, helps as more images would."),
        lines(
            {
                "few images: training": curve(context, "few", "loss"), "few images: unseen": curve(
                    context, "few", "validation_loss"), "few, bent: training": curve(context, "few-bent", "loss"),
                "few, bent: unseen": curve(context, "few-bent", "validation_loss")
            }, "step", "loss (nats)", log=True),
        Rows(("images", "right on them", "right on unseen ones", "loss on unseen ones", "its lowest"),
             [(f"{e['images']:,}{', bent' if name else ''}", f"{e['train_accuracy']:.1%}", f"{e['test_accuracy']:.1%}",
               f"{e['test_loss']:.3f}", f"{e['lowest_test_loss']:.3f}") for name, e in enumerate((few, bent))]),
    ]
