"""How loss falls with compute: a ladder of small models on the embedded world, a power law through them, and how sure
it is.

Every rung is a pretraining of its own, an artifact of the pipeline; so a ladder that was interrupted goes on, and one
more rung costs only itself. Each model gets the same number of tokens for a parameter, as Hoffmann et al. (2022) found
best.
"""

from __future__ import annotations

import math
from collections import ChainMap
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import Field

from trivium import randomness
from trivium.artifacts import Artifact
from trivium.errors import TriviumError, extra
from trivium.lessons.page import Heading, Piece, Table, Text, write_numbers, write_page
from trivium.model.config import ModelConfig
from trivium.objectives.language_modeling import token_log_probs
from trivium.pipeline.run import run
from trivium.planning.flops import parameters, training_flops
from trivium.recipe.load import Recipe, parse_stage
from trivium.stage import Context, Input, Stage
from trivium.stages.models import load_language_model
from trivium.stages.pretraining.pretrain import pieces
from trivium.stages.registry import Stages
from trivium.tokenizer.tokens import Tokens
from trivium.training.batch import Batch, hidden_states, map_trees
from trivium.training.machine import prepare

with extra("lessons"):
    import plotly.graph_objects as go

RUNGS = ((16, 1), (24, 2), (32, 2), (48, 2), (64, 2), (80, 3), (112, 3), (144, 4))
"""Width and depth of each rung's model."""

LENGTH, ROWS = 128, 8
"""Tokens in a row, and rows in a batch."""

VOCABULARY = 512

Vector = NDArray[np.float64]

Law = tuple[float, float, float]
"""``(E, A, alpha)`` of ``loss = E + A · (compute / compute[0])^-alpha``."""


class Scaling(Stage):
    """Fit loss against compute."""

    kind: ClassVar[str] = "scaling"
    version: ClassVar[int] = 2
    models: dict[str, Input]
    """The rungs, smallest first."""
    tokens: Input = "tokens"
    """The text, of which the held-out part is measured."""
    compute: dict[str, float]
    """FLOPs that each rung was trained with."""
    read: dict[str, int]
    """Tokens that each rung was trained on, places of padding among them."""
    resamples: int = Field(400, ge=20)
    """Bootstrap samples."""

    def run(self, context: Context) -> dict[str, Any]:
        """Measure every rung on the held-out text, fit, bootstrap, draw."""
        compute = np.array([self.compute[name] for name in self.models])
        rungs, nats, tokens = self.measure(context)
        loss = np.array([rung["loss"] for rung in rungs])
        law, laws = fit(compute, loss), bootstrap(compute, nats, tokens, self.resamples, context.seed)
        # The test of a law is what it foretells: the largest rung, from the others alone.
        before = fit(compute[:-1], loss[:-1])
        foretold = [float(at(one, compute[-1], compute[0]))
                    for one in bootstrap(compute[:-1], nats[:-1], tokens, self.resamples, context.seed)]
        numbers: dict[str, Any] = {
            "rungs": rungs,
            "heldout_tokens": int(tokens.sum()),
            "law": {
                "irreducible": law[0], "scale": law[1], "exponent": law[2],
                "irreducible_interval": interval([one[0] for one in laws]),
                "exponent_interval": interval([one[2] for one in laws]), "compute_unit": float(compute[0])
            },
            "foretold": {
                "rung": rungs[-1]["rung"], "loss": float(at(before, compute[-1], compute[0])),
                "interval": interval(foretold), "measured": float(loss[-1])
            },
            "ten_times": {
                "compute": float(10 * compute[-1]), "loss": float(at(law, 10 * compute[-1], compute[0])),
                "interval": interval([at(one, 10 * compute[-1], compute[0]) for one in laws])
            },
        }
        write_page(context, "Loss against compute", page(numbers, drawing(numbers, compute, law, laws)))
        return write_numbers(context, numbers)

    def measure(self, context: Context) -> tuple[list[dict[str, Any]], Vector, Vector]:
        """What is said of each rung, its negative log-likelihood of every held-out piece of text in nats
        ``[rungs, pieces]``, and the tokens of each piece ``[pieces]``."""
        device = prepare(context.threads)
        rungs, measured, tokens, size = [], [], np.zeros(0), 0
        there = Tokens.open(context.inputs["tokens"] / "train").header["tokens"]
        for name, folder in context.inputs["models"].items():
            model, tokenizer = load_language_model(folder)
            model.to(device).eval()
            heldout = Tokens.open(context.inputs["tokens"] / "validation", tokenizer.digest)
            trees = pieces(heldout, tokenizer, LENGTH)

            def log_probs(batch: Batch, model: Any = model) -> torch.Tensor:
                hidden = hidden_states(model.model, batch)[batch.sources]
                return token_log_probs(hidden, model.lm_head.weight, batch.targets)

            found = map_trees(log_probs, trees, LENGTH, 64, device, per_token=True)
            measured.append(np.array([-values.sum() for values in found], np.float64))
            tokens = np.array([len(tree.responses[0]) for tree in trees], np.float64)
            size = size or sum(len(tokenizer.decode(document[:-1].tolist()).encode()) for document in heldout)
            rungs.append({
                "rung": name, "parameters": sum(p.numel() for p in model.parameters()), "compute": self.compute[name],
                "loss": float(measured[-1].sum() / tokens.sum()),
                "bits_per_byte": float(measured[-1].sum() / math.log(2) / size), "passes": self.read[name] / there
            })
            context.progress.update(len(rungs), len(self.models), name)
        return rungs, np.stack(measured), tokens


def drawing(numbers: dict[str, Any], compute: Vector, law: Law, laws: list[Law]) -> go.Figure:
    """Loss against compute: the rungs, the law with its band, and the largest rung as the others foretell it."""
    grid = np.geomspace(compute[0] / 2, compute[-1] * 20, 60)
    band = np.array([at(one, grid, compute[0]) for one in laws])
    low, high = np.percentile(band, 2.5, axis=0), np.percentile(band, 97.5, axis=0)
    foretold = numbers["foretold"]
    spread = {"type": "data", "symmetric": False, "array": [foretold["interval"][1] - foretold["loss"]],
              "arrayminus": [foretold["loss"] - foretold["interval"][0]]}
    return go.Figure(
        [
            go.Scatter(x=[*grid, *grid[::-1]], y=[*high, *low[::-1]], fill="toself", mode="none",
                       name="95 % of the bootstrap", opacity=0.3),
            go.Scatter(x=grid.tolist(), y=at(law, grid, compute[0]).tolist(), mode="lines", name="E + A · C^-α"),
            go.Scatter(x=compute.tolist(), y=[rung["loss"] for rung in numbers["rungs"]], mode="markers+text",
                       name="measured", marker={"size": 9}, textposition="top center",
                       text=[f"{rung['parameters'] / 1000:,.0f}k" for rung in numbers["rungs"]]),
            go.Scatter(x=[float(compute[-1])], y=[foretold["loss"]], mode="markers", error_y=spread,
                       name="the largest, foretold by the others", marker={"symbol": "x", "size": 10})
        ], {"xaxis": {"type": "log", "title": {"text": "compute (FLOPs)"}},
            "yaxis": {"type": "log", "title": {"text": "loss on unseen text (nats a token)"}}})


def page(numbers: dict[str, Any], figure: go.Figure) -> list[Piece]:
    """What the fit shows."""
    law, foretold, ten_times = numbers["law"], numbers["foretold"], numbers["ten_times"]
    alpha, floor, large, told = (f"[{low:.3f}, {high:.3f}]" for low, high in (
        law["exponent_interval"], law["irreducible_interval"], ten_times["interval"], foretold["interval"]))
    return [
        Text("Each point is a model of its own, trained on the same number of tokens a parameter. The line is a power "
             "law with a floor, loss = E + A · C^-α; the band holds 95 % of the laws that other held-out documents and "
             "other rungs might have given."),
        figure,
        Text(f"α = {law['exponent']:.3f} {alpha}; E = {law['irreducible']:.3f} {floor} nats a token. With ten times "
             f"the compute of the largest model: {ten_times['loss']:.3f} {large}."),
        Heading("Does it foretell?"),
        Text(f"From the others alone, the largest model's loss is {foretold['loss']:.3f} {told}; measured: "
             f"{foretold['measured']:.3f}."),
        Table(("rung", "parameters", "FLOPs", "passes over the text", "loss", "bits a byte"),
             [(rung["rung"], f"{rung['parameters']:,}", f"{rung['compute']:.3g}", f"{rung['passes']:.2f}",
               f"{rung['loss']:.4f}", f"{rung['bits_per_byte']:.4f}") for rung in numbers["rungs"]]),
        Text("A law of this kind holds for text that is new. Up to four passes over the same text are nearly as good "
             "(Muennighoff et al. 2023); beyond them a rung should get more text (--documents-bytes).")
    ]


def config_of_rung(width: int, layers: int) -> ModelConfig:
    """A rung's shape: heads of 16, an inner width of 8/3."""
    return ModelConfig(vocab_size=VOCABULARY, hidden_size=width, intermediate_size=max(8,
                                                                                       round(width * 8 / 3 / 8) * 8),
                       num_layers=layers, num_heads=max(1, width // 16), num_kv_heads=max(1, width // 16), head_dim=16,
                       max_positions=LENGTH)


def ladder(rungs: int, tokens_a_parameter: float, out: Path, seed: int, documents_bytes: int) -> Recipe:
    """The recipe: world, corpus, tokenizer, tokens, a pretraining a rung, and the fit."""
    if not 4 <= rungs <= len(RUNGS):
        raise TriviumError(
            f"--rungs {rungs}: the fit has three unknowns, so at least 4 are needed, and the ladder has {len(RUNGS)}")
    if not 0.5 <= tokens_a_parameter <= 200:
        raise TriviumError(
            f"--ratio {tokens_a_parameter:g}: tokens a parameter; it must lie between 0.5 and 200 (about 20 is best)")
    kinds = ChainMap({"scaling": Scaling}, Stages())  # type: ignore[arg-type]
    # The filters as in the quickstart: the world's pages are short, and its sums and snippets of code are short of
    # letters.
    thresholds = {"min_stop_words": 1, "min_sentences": 4, "max_top_ngrams": [0.25, 0.24, 0.22]}
    written: dict[str, dict[str, Any]] = {
        "world": {
            "size": {
                "animals": 16, "foods": 16, "people": 16, "places": 12, "documents_bytes": documents_bytes,
                "evaluation_prompts": 560
            }
        },
        "corpus": {
            "settings": {
                "thresholds": thresholds, "without": ["gopher_quality.word_length", "gopher_quality.letter_words"]
            }
        },
        "tokenizer": {"vocab_size": VOCABULARY},
        "tokens": {},
    }
    compute, read = {}, {}
    for number, (width, layers) in enumerate(RUNGS[:rungs], 1):
        config = config_of_rung(width, layers)
        steps = max(20, round(tokens_a_parameter * parameters(config) / (LENGTH * ROWS)))
        written[f"rung-{number}"] = {
            "kind": "pretrain", "steps": steps, "length": LENGTH, "rows": ROWS, "model": {
                name: getattr(config, name)
                for name in ("hidden_size", "intermediate_size", "num_layers", "num_heads", "num_kv_heads", "head_dim",
                             "max_positions")
            }, "optimization": {
                "optimizer": "muon", "learning_rate": 0.01, "matrix_learning_rate": 0.02, "newton_schulz": 3,
                "schedule": "linear"
            }
        }
        read[f"rung-{number}"] = steps * LENGTH * ROWS
        compute[f"rung-{number}"] = training_flops(config, steps * LENGTH * ROWS, LENGTH)
    written["scaling"] = {"models": {name: name for name in compute}, "compute": compute, "read": read}
    stages = {name: parse_stage(name, settings, kinds) for name, settings in written.items()}
    return Recipe.model_construct(name="scaling", seed=seed, threads=None, out=str(out), stages=stages)


def run_ladder(recipe: Recipe, quiet: bool) -> Artifact:
    """Train what is missing, fit, and return the fit's artifact."""
    return run(recipe, quiet=quiet)["scaling"]


def fit(compute: Vector, loss: Vector) -> Law:
    """The law through some losses: for each alpha of a fine grid the best E
    and A at once, by least squares of the relative error, with E and A not below zero; the best alpha wins."""
    best = (math.inf, 0.0, 0.0, 0.0)
    for alpha in np.geomspace(0.02, 2.0, 150):
        x = (compute / compute[0]) ** -alpha
        design = np.stack([np.ones_like(x), x], axis=1) / loss[:, None]
        (e, a), *_ = np.linalg.lstsq(design, np.ones_like(loss), rcond=None)
        if e < 0:
            e, a = 0.0, float((x / loss).sum() / ((x / loss) ** 2).sum())
        if a < 0:
            continue
        error = float((((e + a * x) / loss - 1) ** 2).sum())
        if error < best[0]:
            best = (error, float(e), float(a), float(alpha))
    return best[1:]


def at(law: Law, compute: Any, first: float) -> Any:
    """The loss that a law gives for a compute."""
    e, a, alpha = law
    return e + a * (np.asarray(compute) / first) ** -alpha


def bootstrap(compute: Vector, nats: Vector, tokens: Vector, resamples: int, seed: int) -> list[Law]:
    """Laws that might as well have come out: the held-out documents are drawn anew (``nats [rungs, documents]``,
    ``tokens [documents]``), the same ones for all rungs, and each rung is shifted by a residual of the fit, drawn anew
    too, widened for the three fitted numbers."""
    loss = nats.sum(1) / tokens.sum()
    residuals = loss / at(fit(compute, loss), compute, compute[0]) - 1
    residuals = residuals * math.sqrt(len(loss) / max(1, len(loss) - 3))
    rng = randomness.numpy(seed, "bootstrap")
    laws = []
    for _ in range(resamples):
        chosen = rng.integers(0, len(tokens), len(tokens))
        drawn = nats[:, chosen].sum(1) / tokens[chosen].sum()
        laws.append(fit(compute, drawn * (1 + rng.choice(residuals, len(loss)) * rng.choice([-1, 1], len(loss)))))
    return laws


def interval(values: Any) -> list[float]:
    """The middle 95 %."""
    return [float(value) for value in np.percentile(np.asarray(values), [2.5, 97.5])]
