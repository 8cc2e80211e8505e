"""Lesson 1: a line that learns. Fit ``y = a·x + b`` to points by gradient descent, and see what the step does."""

from __future__ import annotations

from typing import Any, ClassVar

import numpy as np
import torch
from pydantic import Field
from torch import Tensor, nn

from trivium import randomness
from trivium.errors import TriviumError, extra
from trivium.lessons.lesson import Epochs, Examples, curve, learn
from trivium.lessons.page import Heading, Piece, Table, Text, lines, titled, write_numbers, write_page
from trivium.stage import Context, Stage
from trivium.training.machine import prepare
from trivium.training.objective import Objective, Total
from trivium.training.optimizers import Optimization

with extra("lessons"):
    import plotly.graph_objects as go


class Line(Stage):
    """Fit a line by gradient descent."""

    kind: ClassVar[str] = "line"
    slope: float = 1.7
    """The slope of the line that the points scatter around."""
    intercept: float = 0.6
    """Its value at 0."""
    noise: float = Field(0.4, ge=0)
    """Standard deviation of the points' distance from it."""
    points: int = Field(60, ge=2)
    """How many points there are."""
    steps: int = Field(120, ge=2)
    """Steps of each attempt."""
    learning_rates: list[float] = [0.01, 0.1, 0.3]
    """Step lengths that converge, if slowly."""
    too_long: float = 0.4
    """A step length that is too long for these points."""

    def run(self, context: Context) -> dict[str, Any]:
        """The lesson, top to bottom."""
        prepare(context.threads)
        # 1. Points: a line that we know, and noise, which we do not.
        rng = randomness.numpy(context.seed, "points")
        x = rng.uniform(-1, 3, self.points)
        y = self.slope * x + self.intercept + self.noise * rng.normal(size=self.points)
        if np.ptp(x) == 0:
            raise TriviumError("line: all points have one x; no line can be told from another")
        table = Examples(torch.tensor(x, dtype=torch.float32), torch.tensor(y, dtype=torch.float32))
        # 2. The answer that mathematics has ready: the least-squares line. Gradient descent must come to the same.
        (best_a, best_b), *_ = np.linalg.lstsq(np.stack([x, np.ones_like(x)], axis=1), y, rcond=None)
        # 3. How long a step may be: the error is a bowl, and a step longer than 2 / its strongest curvature leaps out
        # of it.
        curvature = float(np.linalg.eigvalsh(2 * np.cov(np.stack([x, np.ones_like(x)]), bias=True) + 2 * np.outer(
            [x.mean(), 1.0], [x.mean(), 1.0]))[-1])
        # 4. Descend, with one step length after another, then with one that is too long but is halved when progress
        # stops.
        attempts = {
            f"step {rate:g}": Optimization("sgd", rate, schedule="constant", warmup=0, clip=0)
            for rate in self.learning_rates
        }
        attempts[f"step {self.too_long:g} (too long)"] = Optimization("sgd", self.too_long, schedule="constant",
                                                                      warmup=0, clip=0)
        attempts[f"step {self.too_long:g}, halved when progress stops"] = Optimization(
            "sgd", self.too_long, schedule="plateau", patience=1, warmup=0, clip=0)
        outcomes: dict[str, dict[str, float]] = {}
        errors: dict[str, tuple[list[int], list[float]]] = {}
        paths: dict[str, tuple[list[float], list[float]]] = {}
        for name, optimization in attempts.items():
            folder = name.replace(" ", "-").replace(",", "").replace("(", "").replace(")", "")
            steps = self.steps if "(too long)" not in name else min(self.steps, 25)  # it would leave the numbers' range
            net = learn(Net(), SquaredError(), Epochs(table, self.points, context.seed), steps, optimization, context,
                        folder).model
            errors[name] = curve(context, folder, "loss")
            paths[name] = (curve(context, folder, "a")[1], curve(context, folder, "b")[1])
            outcomes[name] = {"a": net.a.item(), "b": net.b.item(), "error": errors[name][1][-1],
                              "distance": float(np.hypot(net.a.item() - best_a, net.b.item() - best_b)),
                              "last_step": curve(context, folder, "learning_rate")[1][-1]}
        by_hand, by_machine = gradient(x, y, 0.0, 0.0), first_gradient(table)
        least = float(((best_a * x + best_b - y) ** 2).mean())
        numbers = {
            "least_squares": {"a": float(best_a), "b": float(best_b), "error": least}, "longest_step": 2 / curvature,
            "attempts": outcomes, "gradient_at_zero": {"by_hand": by_hand, "by_backpropagation": by_machine}
        }
        write_page(context, ("A line that learns", "会学习的直线"), page(x, y, numbers, errors, paths))
        return write_numbers(context, numbers)


class Net(nn.Module):
    """Two parameters: all that a line has to learn."""

    def __init__(self) -> None:
        super().__init__()
        self.a = nn.Parameter(torch.zeros(1))
        self.b = nn.Parameter(torch.zeros(1))

    def forward(self, x: Tensor) -> Tensor:
        """``a·x + b`` for ``x [N]``."""
        return self.a * x + self.b


class SquaredError(Objective):
    """The error: for each point, the square of how far the line is from it; the loop divides the total by the number of
    points, so that a good step does not depend on how many there are."""

    weights = {"loss": 1.0}

    def __call__(self, model: Any, batch: Examples) -> dict[str, Total]:
        """The total, and the line itself, to be followed on its way."""
        error = ((model(batch.inputs) - batch.targets) ** 2).sum()
        n = float(len(batch.targets))
        return {
            "loss": Total(error, "examples"), "a": Total(model.a.sum() * n, "examples"),
            "b": Total(model.b.sum() * n, "examples")
        }


def gradient(x: np.ndarray, y: np.ndarray, a: float, b: float) -> tuple[float, float]:
    """The error's slope in each direction, worked out by hand: with r = a·x + b - y, it is (2·mean(r·x), 2·mean(r))."""
    r = a * x + b - y
    return float(2 * (r * x).mean()), float(2 * r.mean())


def first_gradient(table: Examples) -> tuple[float, float]:
    """The gradient at a = b = 0 as the machine finds it, by backpropagation."""
    net = Net()
    (SquaredError()(net, table)["loss"].value / len(table.targets)).backward()  # type: ignore[no-untyped-call]
    assert net.a.grad is not None and net.b.grad is not None
    return net.a.grad.item(), net.b.grad.item()


def page(x: np.ndarray, y: np.ndarray, numbers: dict[str, Any], errors: dict[str, Any],
         paths: dict[str, Any]) -> list[Piece]:
    """What the lesson shows."""
    best = numbers["least_squares"]
    ends = [float(x.min()), float(x.max())]
    drawn = [go.Scatter(x=x.tolist(), y=y.tolist(), mode="markers", name="points")]
    drawn += [go.Scatter(x=ends, y=[o["a"] * e + o["b"] for e in ends], mode="lines", name=name)
              for name, o in numbers["attempts"].items() if "(too long)" not in name]
    drawn.append(
        go.Scatter(x=ends, y=[best["a"] * e + best["b"] for e in ends], mode="lines", name="least squares",
                   line={"dash": "dot"}))
    near = {name: path for name, path in paths.items() if "(too long)" not in name}
    way = go.Figure(
        [go.Scatter(x=a, y=b, mode="lines+markers", name=name, marker={"size": 4})
         for name, (a, b) in near.items()])
    chinese = {name: in_chinese(name) for name in numbers["attempts"]} | {"points": "点", "least squares": "最小二乘"}
    hand, machine = numbers["gradient_at_zero"]["by_hand"], numbers["gradient_at_zero"]["by_backpropagation"]
    return [
        Text((
            "A model is a formula with numbers that can be turned: its parameters. A line, a·x + b, has two. To learn "
            "is to turn them until the total error is as small as it gets.",
            "模型就是带有可调数字的公式，这些数字叫参数。直线 a·x + b 有两个参数。"
            "学习就是调节它们，直到总误差小到不能再小。")),
        titled(go.Figure(drawn), "x", "y", chinese),
        Heading(("The error, its slope, and a step", "误差、误差的斜率和一步")),
        Text((
            "The error of a line is the square of its distance from each point, summed and divided by the number of "
            "points. Its slope in the direction of a, and of b, tells how the error changes when that number grows a "
            "little: the gradient. A step goes the opposite way.",
            "直线的误差是它到各点距离的平方之和，再除以点数。"
            "误差在 a、b 两个方向上的斜率，说明该数稍稍变大时误差如何变化，"
            "这就是梯度。一步就是逆着梯度走。")),
        Text(("a ← a - step · ∂error/∂a\nb ← b - step · ∂error/∂b", "a ← a - 步长 · ∂误差/∂a\nb ← b - 步长 · ∂误差/∂b"),
             code=True),
        Text((
            f"At a = b = 0 the gradient is ({hand[0]:.4f}, {hand[1]:.4f}) by the formula 2·mean(r·x), 2·mean(r); "
            f"backpropagation, which works for any formula, finds ({machine[0]:.4f}, {machine[1]:.4f}).",
            f"在 a = b = 0 处，按公式 2·mean(r·x)、2·mean(r)，梯度为 ({hand[0]:.4f}, {hand[1]:.4f})；"
            f"对任何公式都适用的反向传播得到 ({machine[0]:.4f}, {machine[1]:.4f})。")),
        Heading(("How long may a step be?", "一步可以多长？")),
        Text((
            "Too short, and it takes for ever; too long, and each step leaps over the valley and lands higher on the "
            f"other side. For these points the limit is {numbers['longest_step']:.3f}: 2 divided by the strongest "
            "curvature of the error.",
            "太短，永远走不到；太长，每一步都跃过谷底，落在对面更高的地方。"
            f"对这些点来说，界限是 {numbers['longest_step']:.3f}，即 2 除以误差的最大曲率。")),
        lines(errors, ("step", "步"), ("error", "误差"), log=True, chinese=chinese),
        titled(way, "a", "b", chinese),
        Text((
            "A remedy that needs no mathematics: begin long, and halve the step whenever the error is not below the "
            "smallest one so far.",
            "有一个不用数学的办法：从长步开始，只要误差没有低于历来的最小值，就把步长减半。")),
        Table((("attempt", "尝试"), "a", "b", ("error", "误差"), ("distance to least squares", "与最小二乘的距离"),
               ("last step", "最后的步长")),
             [((name, in_chinese(name)), *(f"{o[k]:.4g}" for k in ("a", "b", "error", "distance", "last_step")))
              for name, o in numbers["attempts"].items()] +
             [(("least squares", "最小二乘"), f"{best['a']:.4g}", f"{best['b']:.4g}", f"{best['error']:.4g}", "0",
               "–")]),
        Text((
            "For a line the best answer can be worked out at once (least squares). For a language model it cannot, and "
            "these steps are all there is.",
            "直线的最佳答案可以直接算出（最小二乘法）；语言模型却不能，只有这样一步一步地走。")),
    ]


def in_chinese(attempt: str) -> str:
    """What an attempt is called in Chinese."""
    return attempt.replace("step", "步长").replace(" (too long)", "（太长）").replace(
        ", halved when progress stops", "，停滞时减半")
