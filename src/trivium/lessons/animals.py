"""Lesson 2: which animal is it? Two numbers in, one of 200 species out: probabilities, cross-entropy, and why a hidden
layer."""

from __future__ import annotations

from typing import Any, ClassVar

import numpy as np
import torch
from pydantic import Field
from torch import nn

from trivium import randomness
from trivium.errors import extra
from trivium.lessons.lesson import Classification, Epochs, Examples, curve, initialise, learn
from trivium.lessons.page import Heading, Piece, Table, Text, lines, titled, write_numbers, write_page
from trivium.stage import Context, Stage
from trivium.training.machine import prepare
from trivium.training.optimizers import Optimization

with extra("lessons"):
    import plotly.graph_objects as go


class Animals(Stage):
    """Tell species apart by body length and weight."""

    kind: ClassVar[str] = "animals"
    species: int = Field(200, ge=2)
    """Species, each with a typical length and weight."""
    examples: int = Field(100, ge=2)
    """Measured animals of each species to learn from; half as many again are kept to be tested on."""
    hidden: int = Field(128, ge=1)
    """Units of the hidden layers."""
    steps: int = Field(3000, ge=1)
    """Updates of each model."""
    rows: int = Field(512, ge=1)
    """Animals in a batch."""

    def run(self, context: Context) -> dict[str, Any]:
        """The lesson, top to bottom."""
        prepare(context.threads)
        # 1. Animals: logarithms, as a mouse and a whale fit on no common ruler; centred and scaled, so that both
        # numbers weigh alike.
        train_points, train_species, _ = herd(self, context.seed, "train", self.examples)
        test_points, test_species, _ = herd(self, context.seed, "test", max(1, self.examples // 2))
        middle, scale = train_points.mean(0), train_points.std(0)

        def table(points: np.ndarray, species: np.ndarray) -> Examples:
            z = (points - middle) / scale
            # Length and weight go together; their sum and difference say more apart: overall size, and build.
            z = np.stack([z.sum(1) / 2, (z[:, 1] - z[:, 0]) * 8], axis=1)
            return Examples(torch.tensor(z, dtype=torch.float32), torch.tensor(species))

        train_table, test_table = table(train_points, train_species), table(test_points, test_species)
        # 2. Two models. The linear one gives each species a plane over (length, weight), and the highest plane wins.
        # The other
        #    bends space first: a hidden layer whose units switch on and off.
        models = {
            "linear": nn.Linear(2, self.species),
            "hidden": nn.Sequential(nn.Linear(2, self.hidden), nn.ReLU(), nn.Linear(self.hidden, self.hidden),
                                    nn.ReLU(), nn.Linear(self.hidden, self.species)),
        }
        # 3. Train both alike, on the mean of -log p(right species).
        optimization = Optimization("adamw", 0.01, schedule="cosine", warmup=0.02, clip=0)
        batches = Epochs(train_table, self.rows, context.seed)
        numbers: dict[str, Any] = {
            "species": self.species, "chance": {"loss": float(np.log(self.species)), "accuracy": 1 / self.species},
            "models": {}
        }
        curves = {}
        for name, model in models.items():
            initialise(model, randomness.derive(context.seed, name))
            trained = learn(model, Classification(), batches, self.steps, optimization, context, name, [test_table],
                            max(1, self.steps // 30))
            curves[name] = (curve(context, name, "validation_loss"), curve(context, name, "validation_accuracy"))
            numbers["models"][name] = {
                "parameters": sum(p.numel() for p in model.parameters()), "loss": trained.metrics["loss"],
                "test_loss": trained.metrics["validation_loss"], "test_accuracy": trained.metrics["validation_accuracy"]
            }
        # 4. What is the best that anybody could do? Here the densities that the animals were drawn from are known.
        truth = best_possible(test_points, self, context.seed)
        log_p = torch.from_numpy(truth).log_softmax(1).numpy()
        numbers["best"] = {"loss": float(-log_p[np.arange(len(test_species)), test_species].mean()),
                           "accuracy": float((truth.argmax(1) == test_species).mean())}
        # 5. One animal, step by step: scores, softmax, cross-entropy.
        with torch.no_grad():
            one = len(test_points) // 2
            logits = models["hidden"].eval()(test_table.inputs[one:one + 1])[0]
        likely = logits.topk(min(5, self.species))
        numbers["example"] = {
            "length_cm": float(np.exp(test_points[one, 0])), "weight_g": float(np.exp(test_points[one, 1])),
            "species": int(test_species[one]), "likeliest": likely.indices.tolist(), "scores": likely.values.tolist(),
            "probabilities": logits.softmax(0)[likely.indices].tolist(),
            "cross_entropy": float(-logits.log_softmax(0)[int(test_species[one])])
        }
        write_page(context, ("Which animal is it?", "是哪种动物？"), page(numbers, curves, train_points, train_species))
        return write_numbers(context, numbers)


def herd(settings: Animals, seed: int, purpose: str, each: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """``each`` animals of every species: logarithms of length in cm and weight in g ``[N, 2]``, species ``[N]``, and
    the typical values ``[species, 2]``.

    Lengths are spread from a mouse's to a whale's; weight grows with the cube of length, as bodies do, and each species
    is built more lightly or more heavily than that. Within a species sizes vary by some percent."""
    rng = randomness.numpy(seed, "species")
    length = np.sort(rng.uniform(np.log(5), np.log(2500), settings.species))
    build = rng.normal(0, 0.9, settings.species)
    typical = np.stack([length, 3 * length + build - 4.2], axis=1)
    spread = rng.uniform(0.02, 0.06, settings.species)
    rng = randomness.numpy(seed, "animals", purpose)
    species = np.repeat(np.arange(settings.species), each)
    size = rng.normal(0, 1, len(species)) * spread[species]
    own = rng.normal(0, 1, len(species)) * spread[species]
    return np.stack([typical[species, 0] + size, typical[species, 1] + 3 * size + own], axis=1), species, typical


def best_possible(points: np.ndarray, settings: Animals, seed: int) -> np.ndarray:
    """Log-likelihood of every species for each animal ``[N, species]``, by the true densities that the animals are
    drawn from: what no model can beat."""
    rng = randomness.numpy(seed, "species")
    length = np.sort(rng.uniform(np.log(5), np.log(2500), settings.species))
    build = rng.normal(0, 0.9, settings.species)
    typical = np.stack([length, 3 * length + build - 4.2], axis=1)
    spread = rng.uniform(0.02, 0.06, settings.species)
    difference = points[:, None] - typical[None]
    size, own = difference[..., 0] / spread, (difference[..., 1] - 3 * difference[..., 0]) / spread
    return -0.5 * (size**2 + own**2) - 2 * np.log(spread)


CHINESE = {"linear": "线性", "hidden": "有隐藏层"}


def page(numbers: dict[str, Any], curves: dict[str, Any], points: np.ndarray, species: np.ndarray) -> list[Piece]:
    """What the lesson shows."""
    shown = slice(None, None, max(1, len(points) // 4000))
    cloud = titled(go.Figure(
        go.Scattergl(x=np.exp(points[shown, 0]).tolist(), y=(np.exp(points[shown, 1]) / 1000).tolist(), mode="markers",
                     marker={"size": 3, "color": (species[shown] * 37 % 100).tolist(), "colorscale": "Turbo"}), {
                         "xaxis": {"type": "log"}, "yaxis": {"type": "log"}
                     }), ("body length (cm)", "体长（厘米）"), ("weight (kg)", "体重（千克）"))
    one = numbers["example"]
    return [
        Text((
            f"A measured animal is two numbers; the answer is one of {numbers['species']} species. A model gives each "
            "species a score, and softmax turns scores into probabilities: raise e to each score, divide by the sum.",
            f"量过的动物就是两个数，答案是 {numbers['species']} 个物种之一。模型给每个物种一个得分，"
            "softmax 把得分变成概率：以 e 为底取幂，再除以总和。")),
        cloud,
        Heading(("One animal, step by step", "一只动物，一步一步来")),
        Text((f"{one['length_cm']:.0f} cm, {one['weight_g'] / 1000:.3g} kg; it is of species {one['species']}.",
              f"{one['length_cm']:.0f} 厘米，{one['weight_g'] / 1000:.3g} 千克；它属于物种 {one['species']}。")),
        Table((("species", "物种"), ("score", "得分"), ("probability", "概率")),
             [(s, f"{v:.2f}", f"{p:.1%}")
              for s, v, p in zip(one["likeliest"], one["scores"], one["probabilities"], strict=True)]),
        Text((
            f"The loss of this guess is -log p(species {one['species']}) = {one['cross_entropy']:.3f} nats: "
            f"0 for certainty, {numbers['chance']['loss']:.2f} for a shrug over all species. That is cross-entropy; "
            "its gradient on the scores is simply the probabilities minus 1 at the right species.",
            f"这次猜测的损失是 -log p(物种 {one['species']}) = {one['cross_entropy']:.3f} nat：完全确定时为 0，"
            f"对所有物种一视同仁时为 {numbers['chance']['loss']:.2f}。这就是交叉熵；"
            "它对得分的梯度就是各概率，只在正确的物种处再减 1。")),
        Heading(("A plane for each species, or bent space", "每个物种一个平面，还是弯曲的空间")),
        Text((
            "A linear model can only lay planes over the map. With a hidden layer the map is folded first, and species "
            "that lie between others get a region of their own. Both are measured on animals that they never saw.",
            "线性模型只能在地图上铺平面。有了隐藏层，地图先被折叠，夹在其他物种之间的物种也能有自己的区域。"
            "两者都用从未见过的动物来检验。")),
        lines({name: both[0] for name, both in curves.items()}, ("step", "步"),
              ("loss on unseen animals (nats)", "未见动物上的损失（nat）"), chinese=CHINESE),
        lines({name: both[1] for name, both in curves.items()}, ("step", "步"),
              ("share of unseen animals told right", "未见动物中认对的比例"), chinese=CHINESE),
        Table((("model", "模型"), ("parameters", "参数"), ("loss (unseen)", "损失（未见）"),
               ("right (unseen)", "正确率（未见）")),
             [(("a shrug", "一视同仁"), "–", f"{numbers['chance']['loss']:.3f}",
               f"{numbers['chance']['accuracy']:.1%}")] +
             [((name, CHINESE[name]), f"{m['parameters']:,}", f"{m['test_loss']:.3f}", f"{m['test_accuracy']:.1%}")
              for name, m in numbers["models"].items()] +
             [(("the true densities: nobody can do better", "真实的密度：没有谁能做得更好"), "–",
               f"{numbers['best']['loss']:.3f}",
               f"{numbers['best']['accuracy']:.1%}")]),
        Text(("What is left is not the model's fault: species whose sizes overlap cannot be told apart by two numbers.",
              "剩下的错误不怪模型：体形重叠的物种，只凭两个数无法区分。")),
    ]
