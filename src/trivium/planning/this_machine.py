"""How long a recipe will take on this machine, from a measurement of about ten seconds.

A small sample of the raw documents goes through the recipe's own stages up to the token ids. Then every stage is asked
what it will cost. For each shape and batch that the recipe trains, a few true updates of a random model are timed, and
some answers are sampled. The rest is counting: how many updates, how many answers, how many tokens.
"""

from __future__ import annotations

import contextlib
import math
import tempfile
import time
from pathlib import Path
from typing import Any

import torch

from trivium.pipeline.one_stage import cores, need
from trivium.pipeline.projects import laid_out
from trivium.recipe.load import Recipe
from trivium.stage import Stage
from trivium.stages.cost import Cost, Estimate, Unforeseen
from trivium.training.machine import prepare


def predict(recipe: Recipe) -> dict[str, Any]:
    """``{"seconds", "not_predicted", "measured_seconds", "stages": [{"stage", "kind", "seconds", "from"}]}``: the time
    of every stage from the beginning, finished artifacts not counted. Raises :class:`TriviumError` for a recipe whose
    data cannot be sampled."""
    begun = time.monotonic()
    prepare(cores(recipe))
    rows: list[dict[str, Any]] = []
    with tempfile.TemporaryDirectory() as folder:
        recipe = laid_out(recipe, Path(folder))
        estimate = Estimate(recipe.stages, recipe.name, recipe.seed, cores(recipe), Path(folder))
        take_sample(estimate)
        for name, stage in recipe.stages.items():
            torch.set_num_threads(need(recipe, stage))
            cost, reason = cost_of(stage, estimate)
            rows.append({"stage": name, "kind": stage.kind, "seconds": cost and cost.seconds,
                         "from": cost.basis if cost else reason})
    torch.set_num_threads(cores(recipe))
    return {"seconds": elapsed(recipe, {row["stage"]: row["seconds"] or 0.0 for row in rows}),
            "not_predicted": [row["stage"] for row in rows if row["seconds"] is None],
            "measured_seconds": time.monotonic() - begun, "stages": rows}


def take_sample(estimate: Estimate) -> None:
    """Run the stages that make data on a sample of it. One is left out where what it needs cannot be foreseen."""
    for name, stage in estimate.stages.items():
        with contextlib.suppress(Unforeseen):
            small = stage.sample(estimate)
            if small is None:
                continue
            context = estimate.context(small.stage, name)
            begun = time.monotonic()
            small.stage.run(context)
            estimate.seconds[name] = time.monotonic() - begun
            estimate.folders[name] = context.folder
            if small.factor is not None:
                estimate.factors[name] = small.factor


def cost_of(stage: Stage, estimate: Estimate) -> tuple[Cost | None, str]:
    """The cost of a stage; where it is not predicted, None and the reason."""
    try:
        return stage.cost(estimate), f"a stage of kind {stage.kind!r} is not predicted"
    except Unforeseen as error:
        return None, str(error)


def elapsed(recipe: Recipe, seconds: dict[str, float]) -> float:
    """How long the stages take together, those that leave cores free side by side, each begun as
    :func:`trivium.pipeline.workers.run_beside` would."""
    now, waiting, ends = 0.0, list(seconds), dict[str, float]()
    while waiting:
        for name in list(waiting):
            stage = recipe.stages[name]
            free = cores(recipe) - sum(need(recipe, recipe.stages[other]) for other, end in ends.items() if end > now)
            if need(recipe, stage) <= free and all(
                    ends.get(made, math.inf) <= now for _, made in stage.references() if made in seconds):
                waiting.remove(name)
                ends[name] = now + seconds[name]
        now = min((end for end in ends.values() if end > now), default=now)
    return max(ends.values(), default=0.0)
