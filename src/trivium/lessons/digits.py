"""Lesson 3: reading digits. 784 numbers in, one of ten digits out: the first network that does something useful."""

from __future__ import annotations

import html
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import torch
import torch.nn.functional as F
from pydantic import Field
from torch import Tensor, nn

from trivium import randomness
from trivium.data.digits import read_mnist, small_digits
from trivium.lessons.lesson import Classification, Epochs, Examples, curve, initialise, learn, save_weights
from trivium.lessons.page import Heading, Piece, Raw, Table, Text, lines, write_numbers, write_page
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
        train, test = images(folder, context.seed)
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
        for name, change in (("few", lambda batch, step: batch),
                             ("few-bent", lambda batch, step: bend(batch, context.seed, step))):
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
        save_weights(model, context.folder / "model.safetensors")
        write_page(context, ("Reading digits", "识别数字"), page(numbers, context, test, wrong[:40], probabilities))
        return write_numbers(context, numbers)


# 1. The images: numbers from 0 to 1, and which digit each shows.

def images(folder: Path | None, seed: int) -> tuple[Examples, Examples]:
    """The digits to learn from, and to be tested on: MNIST's, or scikit-learn's small ones where no folder is given."""
    parts = (read_mnist(folder, "train"), read_mnist(folder, "t10k")) if folder else small_digits(seed)
    train, test = (Examples(torch.from_numpy(pixels), torch.from_numpy(labels)) for pixels, labels in parts)
    return train, test


# 2. The network: three layers. Each unit adds up all its inputs, weighted, and passes on what is above zero.

def network(seed: int) -> nn.Module:
    """784 → 784 → 28 → 10."""
    model = nn.Sequential(nn.Linear(784, 784), nn.ReLU(), nn.Linear(784, 28), nn.ReLU(), nn.Linear(28, 10))
    assert sum(p.numel() for p in model.parameters()) == PARAMETERS
    return initialise(model, seed)


# 3. Augmentation: the same digit, shifted, turned and resized a little, is a new example for free.

def bend(batch: Examples, seed: int, step: int) -> Examples:
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
    return Examples(images.flatten(1), batch.targets)


def as_svg(image: Tensor, caption: str) -> str:
    """An image ``[784]`` as SVG, a square a dark pixel."""
    dots = "".join(f'<rect x="{i % 28}" y="{i // 28}" width="1.02" height="1.02" opacity="{value:.2f}"/>'
                   for i, value in enumerate(image.tolist()) if value > 0.1)
    return (
        '<figure style="display:inline-block;margin:.3rem;text-align:center;font-size:.75rem"><svg width="56" '
        'height="56" viewBox="0 0 28 28" '
        f'style="background:#fff" fill="#000">{dots}</svg><figcaption>{html.escape(caption)}</figcaption></figure>')


STEP, LOSS = ("step", "步"), ("loss (nats)", "损失（nat）")
CHINESE = {"training, images bent": "训练，图像弯曲", "unseen digits": "未见过的数字",
           "few images: training": "少量图像：训练", "few images: unseen": "少量图像：未见过",
           "few, bent: training": "少量、弯曲：训练", "few, bent: unseen": "少量、弯曲：未见过"}


def page(numbers: dict[str, Any], context: Context, test: Examples, wrong: Tensor,
         probabilities: Tensor) -> list[Piece]:
    """What the lesson shows."""
    some = "".join(as_svg(test.inputs[i], str(int(test.targets[i]))) for i in range(min(16, len(test.targets))))
    mistakes = "".join(
        as_svg(
            test.inputs[i],
            f"{int(test.targets[i])} → {int(probabilities[i].argmax())} ({float(probabilities[i].max()):.0%})")
        for i in wrong.tolist())
    few, bent = numbers["overfitting"]["few"], numbers["overfitting"]["few-bent"]
    return [
        Text((
            "An image is numbers too: 28 × 28 = 784 of them, one for each pixel's darkness. Nobody can write down what "
            "makes a 7; a network can learn it from examples, with the same loss and the same steps as before.",
            "图像也是数字：28 × 28 = 784 个，每个像素的深浅一个。没有人能写下什么样的才是 7；"
            "网络却能从例子中学会，损失和步骤与之前相同。")),
        Raw(some),
        Heading(("The network", "网络")),
        Text((
            f"784 numbers go to 784 units, those to 28, those to 10 scores: {numbers['parameters']:,} parameters. Each "
            "unit adds up its inputs, weighted, and passes on what is above zero.",
            f"784 个数送到 784 个单元，再到 28 个，再到 10 个得分：共 {numbers['parameters']:,} 个参数。"
            "每个单元把输入加权求和，把大于零的部分传下去。")),
        lines(
            {
                "training, images bent": curve(context, "all", "loss"), "unseen digits": curve(
                    context, "all", "validation_loss")
            }, STEP, LOSS, log=True, chinese=CHINESE),
        lines({"unseen digits": curve(context, "all", "validation_accuracy")}, STEP,
              ("share read right", "读对的比例"), chinese=CHINESE),
        Text((
            f"{numbers['train_images']:,} images to learn from; {numbers['test_accuracy']:.2%} of "
            f"{numbers['test_images']:,} unseen digits are read right.",
            f"用来学习的图像有 {numbers['train_images']:,} 张；{numbers['test_images']:,} 个未见过的数字中读对了 "
            f"{numbers['test_accuracy']:.2%}。")),
        Heading(("The mistakes", "错误")),
        Text((
            f"{numbers['mistakes']} digits are misread; here those of which the network was surest. Some would puzzle "
            "a person, others would not.",
            f"有 {numbers['mistakes']} 个数字读错了；这里是网络最有把握的那些。有的连人也难辨认，有的则不然。")),
        Raw(mistakes),
        Table((("confusion", "混淆"), ("times", "次数")), list(numbers["most_confused"].items())),
        Heading(("Learning by heart", "死记硬背")),
        Text((
            f"With {few['images']:,} images only, the network soon knows every one of them, and on unseen digits its "
            "loss first falls and then rises: it learns by heart. Bending each image a little, anew each time, helps "
            "as more images would.",
            f"只有 {few['images']:,} 张图像时，网络很快就记住了每一张，在未见过的数字上损失先降后升：它在死记硬背。"
            "每次都把图像重新弯曲一点，效果就像有了更多图像。")),
        lines(
            {
                "few images: training": curve(context, "few", "loss"), "few images: unseen": curve(
                    context, "few", "validation_loss"), "few, bent: training": curve(context, "few-bent", "loss"),
                "few, bent: unseen": curve(context, "few-bent", "validation_loss")
            }, STEP, LOSS, log=True, chinese=CHINESE),
        Table((("images", "图像"), ("right on them", "在其上正确"), ("right on unseen ones", "在未见者上正确"),
               ("loss on unseen ones", "在未见者上的损失"), ("its lowest", "其最低值")),
             [((f"{e['images']:,}{', bent' if name else ''}", f"{e['images']:,}{'，弯曲' if name else ''}"),
               f"{e['train_accuracy']:.1%}", f"{e['test_accuracy']:.1%}",
               f"{e['test_loss']:.3f}", f"{e['lowest_test_loss']:.3f}") for name, e in enumerate((few, bent))]),
    ]
