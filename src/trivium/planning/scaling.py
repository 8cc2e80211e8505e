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
from trivium.errors import TriviumError
from trivium.lessons.lesson import Heading, Rows, Text, plotly, write_numbers, write_page
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

RUNGS = ((16, 1), (24, 2), (32, 2), (48, 2), (64, 2), (80, 3), (112, 3), (144, 4))
"""Width and depth of each rung's model."""

LENGTH, ROWS = 128, 8
"""Tokens in a row, and rows in a batch."""

VOCABULARY = 512


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
        device = prepare(context.threads)
        compute = np.array([self.compute[name] for name in self.models])
        rows, measured, tokens, size = [], [], np.zeros(0), 0
        there = Tokens.open(context.inputs["tokens"] / "train").header["tokens"]
        for name, folder in context.inputs["models"].items():
            model, tokenizer = load_language_model(folder)
            model.to(device).eval()
            heldout = Tokens.open(context.inputs["tokens"] / "validation", tokenizer.digest)
            trees = pieces(heldout, tokenizer, LENGTH)

            def log_probs(batch: Batch, model: Any = model) -> torch.Tensor:
                return token_log_probs(
                    hidden_states(model.model, batch)[batch.sources], model.lm_head.weight, batch.targets)

            measured.append(
                np.array([-values.sum() for values in map_trees(log_probs, trees, LENGTH, 64, device, per_token=True)],
                         np.float64))
            tokens = np.array([len(tree.responses[0]) for tree in trees], np.float64)
            size = size or sum(len(tokenizer.decode(document[:-1].tolist()).encode()) for document in heldout)
            rows.append({
                "rung": name, "parameters": sum(p.numel() for p in model.parameters()), "compute": self.compute[name],
                "loss": float(measured[-1].sum() / tokens.sum()),
                "bits_per_byte": float(measured[-1].sum() / math.log(2) / size), "passes": self.read[name] / there
            })
            context.progress.update(len(rows), len(self.models), name)
        nats, loss = np.stack(measured), np.array([row["loss"] for row in rows])
        law, laws = fit(compute, loss), bootstrap(compute, nats, tokens, self.resamples, context.seed)
        # The test of a law is what it foretells: the largest rung, from the others alone.
        before = fit(compute[:-1], loss[:-1])
        foretold = [
            float(at(one, compute[-1], compute[0]))
            for one in bootstrap(compute[:-1], nats[:-1], tokens, self.resamples, context.seed)
        ]
        numbers: dict[str, Any] = {
            "rungs": rows,
            "heldout_tokens": int(tokens.sum()),
            "law": {
                "irreducible": law[0], "scale": law[1], "exponent": law[2],
                "irreducible_interval": interval([one[0] for one in laws]),
                "exponent_interval": interval([one[2] for one in laws]), "compute_unit": float(compute[0])
            },
            "foretold": {
                "rung": rows[-1]["rung"], "loss": float(at(before, compute[-1], compute[0])),
                "interval": interval(foretold), "measured": float(loss[-1])
            },
            "ten_times": {
                "compute": float(10 * compute[-1]), "loss": float(at(law, 10 * compute[-1], compute[0])),
                "interval": interval([at(one, 10 * compute[-1], compute[0]) for one in laws])
            },
        }
        grid = np.geomspace(compute[0] / 2, compute[-1] * 20, 60)
        band = np.array([at(one, grid, compute[0]) for one in laws])
        low, high = np.percentile(band, 2.5, axis=0), np.percentile(band, 97.5, axis=0)
        go = plotly()
        figure = go.Figure(
            [
                go.Scatter(x=[*grid, *grid[::-1]], y=[*high, *low[::-1]], fill="toself", mode="none",
                           name="95 % of the bootstrap", opacity=0.3),
                go.Scatter(x=grid.tolist(), y=at(law, grid, compute[0]).tolist(), mode="lines", name="E + A · C^-α"),
                go.Scatter(x=compute.tolist(), y=loss.tolist(), mode="markers+text", name="measured",
                           marker={"size": 9}, text=[f"{row['parameters'] / 1000:,.0f}k"
                                                     for row in rows], textposition="top center"),
                go.Scatter(
                    x=[float(compute[-1])], y=[numbers["foretold"]["loss"]], mode="markers",
                    name="the largest, foretold by the others", marker={"symbol": "x", "size": 10}, error_y={
                        "type": "data", "symmetric": False, "array": [
                            numbers["foretold"]["interval"][1] - numbers["foretold"]["loss"]
                        ], "arrayminus": [numbers["foretold"]["loss"] - numbers["foretold"]["interval"][0]]
                    })
            ], {
                "xaxis": {"type": "log", "title": {"text": "compute (FLOPs)"}},
                "yaxis": {"type": "log", "title": {"text": "loss on unseen text (nats a token)"}}
            })
        write_page(context, "Loss against compute", [
            Text(
                "Each point is a model of its own, trained on the same number of tokens a parameter. The line is a "
                "power law with a floor, "
                "loss = E + A · C^-α; the band holds 95 % of the laws that other held-out documents and other rungs "
                "might have given."
            ), figure,
            Text(
                f"α = {law[2]:.3f} [{numbers['law']['exponent_interval'][0]:.3f}, "
                f"{numbers['law']['exponent_interval'][1]:.3f}]; "
                f"E = {law[0]:.3f} [{numbers['law']['irreducible_interval'][0]:.3f}, "
                f"{numbers['law']['irreducible_interval'][1]:.3f}] nats a token. "
                f"With ten times the compute of the largest model: {numbers['ten_times']['loss']:.3f} "
                f"[{numbers['ten_times']['interval'][0]:.3f}, {numbers['ten_times']['interval'][1]:.3f}]."),
            Heading("Does it foretell?"),
            Text(
                f"From the others alone, the largest model's loss is {numbers['foretold']['loss']:.3f} "
                f"[{numbers['foretold']['interval'][0]:.3f}, {numbers['foretold']['interval'][1]:.3f}]; measured: "
                f"{numbers['foretold']['measured']:.3f}."
            ),
            Rows(("rung", "parameters", "FLOPs", "passes over the text", "loss", "bits a byte"),
                 [(row["rung"], f"{row['parameters']:,}", f"{row['compute']:.3g}", f"{row['passes']:.2f}",
                   f"{row['loss']:.4f}", f"{row['bits_per_byte']:.4f}") for row in rows]),
            Text(
                "A law of this kind holds for text that is new. Up to four passes over the same text are nearly as "
                "good (Muennighoff et al. 2023); beyond them "
                "a rung should get more text (--documents-bytes).")
        ])
        return write_numbers(context, numbers)


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
    plotly()  # not only when the page is to be written
    return run(recipe, quiet=quiet)["scaling"]


Vector = NDArray[np.float64]


def fit(compute: Vector, loss: Vector) -> tuple[float, float, float]:
    """``(E, A, alpha)`` of ``loss = E + A · (compute / compute[0])^-alpha``: for each alpha of a fine grid the best E
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


def at(law: tuple[float, float, float], compute: Any, first: float) -> Any:
    """The loss that a law gives for a compute."""
    e, a, alpha = law
    return e + a * (np.asarray(compute) / first) ** -alpha


def bootstrap(compute: Vector, nats: Vector, tokens: Vector, resamples: int,
              seed: int) -> list[tuple[float, float, float]]:
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
