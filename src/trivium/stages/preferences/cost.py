"""What learning from rankings costs: the same for a reward model, for DPO and for KTO, but for their passes."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch

from trivium.model import LanguageModel
from trivium.stages.cost import Estimate
from trivium.stages.outlook import Cost, Rankings
from trivium.stages.training import Looped
from trivium.training.batch import Batch
from trivium.training.epochs import PackedEpochs

DISTINCT = 0.83
"""Share of the responses sampled for a ranking that differ from the others, as in the quickstart."""


def cost_of_rankings(stage: Looped, start: str, rankings: Rankings, epochs: float, estimate: Estimate,
                     model: Callable[[LanguageModel], Any], objective: Any, add_pairs: Callable[[Batch], None],
                     passes: float, passes_an_update: int = 0) -> Cost:
    """Updates on ``rankings`` of what ``model`` makes of a random model like that of ``start``. ``passes`` counts the
    passes without gradients over as many rankings as there are, and ``passes_an_update`` those over each batch."""
    config = estimate.config(start)
    (length, rows), learned = stage.usual_layout(config), 1 - rankings.heldout
    prompt, response = estimate.mean_lengths()
    tokens = rankings.count * learned * (prompt + response * rankings.responses)
    steps = max(1, round(epochs * tokens / (length * rows * 0.95)))

    def finish(batch: Batch) -> None:
        add_pairs(batch)
        batch.extra |= {"reference": torch.zeros(len(batch.ends)),
                        "reference_tokens": torch.zeros(len(batch.targets))}
        batch.counts["read"] = float(len(batch.ends))

    batches = PackedEpochs(estimate.dialogues(200, max(2, round(rankings.responses)), length), length, rows, 0,
                           finish)
    each = estimate.updates((stage.kind, config, length, rows),
                            lambda: model(LanguageModel(config).initialise(0)), objective, batches, stage.optimization,
                            stage.number_format())
    seconds = steps * each * (1 + (passes / learned / epochs + passes_an_update) / 3) + 1.0
    return Cost.of_updates(seconds, steps, each, ", and passes without gradients")
