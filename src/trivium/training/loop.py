"""The one training loop. Pretraining, fine-tuning, reward modelling, DPO and KTO differ in their objective and in their
batches; PPO is a rollout around :meth:`Trainer.step`."""

from __future__ import annotations

import json
import math
import os
import time
from collections import defaultdict
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple, Protocol

import torch
from torch import Tensor, nn

from trivium.errors import TriviumError
from trivium.training.batch import Batch
from trivium.training.checkpoint import load_checkpoint, save_checkpoint
from trivium.training.machine import Precision, autocast, choose_precision
from trivium.training.optimizers import Optimization, factor, make_optimizers


class Total(NamedTuple):
    """A sum over a batch, and the name of the count (:attr:`Batch.counts`) that makes it a mean."""

    value: Tensor
    per: str


class Objective(Protocol):
    """A loss. ``weights`` names the totals whose weighted means are minimised; all others are only reported."""

    weights: dict[str, float]

    def __call__(self, model: Any, batch: Batch) -> dict[str, Total]:
        """Sums over one microbatch. They are divided once, by counts over all microbatches and processes: so gradient
        accumulation and data parallelism cannot change the loss."""


Batches = Callable[[int], Sequence[Batch]]
"""The microbatches of the global batch at a step: a pure function of the step."""


class Trainer:
    """A model with its optimizers; one call of :meth:`step` is one update."""

    def __init__(self, model: nn.Module, settings: Optimization, steps: int, precision: Precision = "auto") -> None:
        self.model, self.settings, self.steps = model, settings, steps
        self.optimizers = make_optimizers(model, settings)
        self.device = next(model.parameters()).device
        self.precision = choose_precision(precision, self.device)

    def step(self, number: int, batches: Sequence[Batch], objective: Objective) -> dict[str, float]:
        """Update ``number`` (from 0). Returns the means of all totals, the gradient's norm and the learning rate. A
        gradient that is not finite changes nothing and is reported as ``skipped``."""
        counts: dict[str, float] = defaultdict(float)
        for batch in batches:
            for name, count in batch.counts.items():
                counts[name] += count
        sums: dict[str, float] = defaultdict(float)
        self.model.train()
        for batch in batches:
            with autocast(self.precision, self.device):
                totals = objective(self.model, batch.to(self.device))
            terms = [weight * totals[name].value / max(counts[totals[name].per], 1.0)
                     for name, weight in objective.weights.items()]
            torch.stack(terms).sum().backward()  # type: ignore[no-untyped-call]
            for name, (value, per) in totals.items():
                sums[name] += value.item() / max(counts[per], 1.0)
        metrics = dict(sums)
        parameters = [p for p in self.model.parameters() if p.grad is not None]
        norm = torch.nn.utils.get_total_norm([p.grad for p in parameters if p.grad is not None])
        metrics["gradient_norm"] = norm.item()
        share = factor(self.settings, number, self.steps)
        metrics["learning_rate"] = share * self.settings.learning_rate
        if math.isfinite(metrics["gradient_norm"]):
            if self.settings.clip:
                torch.nn.utils.clip_grads_with_norm_(parameters, self.settings.clip, norm)
            for optimizer in self.optimizers:
                for group in optimizer.param_groups:
                    group["lr"] = share * group["highest"]
                optimizer.step()
        else:
            metrics["skipped"] = 1.0
        for parameter in parameters:
            parameter.grad = None
        return metrics


class Log:
    """Metrics as JSON lines. A line after the step that a run resumes from is taken back, so no step is logged twice."""

    def __init__(self, path: Path, resume: int) -> None:
        self.path = path
        kept = []
        if path.exists():
            for line in path.read_text(encoding="utf-8").splitlines():
                try:
                    if json.loads(line)["step"] < resume:
                        kept.append(line)
                except (ValueError, KeyError):
                    break  # a line torn by a crash; nothing good follows it
        path.write_text("".join(line + "\n" for line in kept), encoding="utf-8")

    def __call__(self, step: int, values: dict[str, Any]) -> None:
        with open(self.path, "a", encoding="utf-8") as file:
            finite = {k: v if not isinstance(v, float) or math.isfinite(v) else str(v) for k, v in values.items()}
            file.write(json.dumps({"step": step, **finite}) + "\n")


def train(model: nn.Module, objective: Objective, batches: Batches, steps: int, settings: Optimization, *, scratch: Path,
          log: Path, fingerprint: str, precision: Precision = "auto", tokens: str = "tokens",
          evaluate: Callable[[], dict[str, float]] | None = None, evaluate_every: int = 0, save_seconds: float = 20.0,
          progress: Callable[[int, int, str], None] = lambda done, total, text: None) -> dict[str, float]:
    """Train ``model`` in place for ``steps`` updates, going on from a checkpoint in ``scratch`` when there is one.

    ``fingerprint`` names data and settings; a checkpoint of another is refused. Returns the last metrics, with the
    ``seconds`` spent in all attempts. Raises after ten updates in a row whose gradient was not finite.
    """
    trainer = Trainer(model, settings, steps, precision)
    scratch.mkdir(parents=True, exist_ok=True)
    found = load_checkpoint(scratch, model, trainer.optimizers, fingerprint)
    first, spent, metrics = (found[0], found[1]["seconds"], found[1]["metrics"]) if found else (0, 0.0, {})
    write_line = Log(log, first)
    started = saved = time.monotonic()
    skipped = 0
    for step in range(first, steps):
        micro = batches(step)
        begun = time.monotonic()
        metrics = trainer.step(step, micro, objective)
        seconds = time.monotonic() - begun
        real = sum(int((batch.documents >= 0).sum()) for batch in micro)
        metrics["tokens_per_second"] = real / seconds
        skipped = skipped + 1 if "skipped" in metrics else 0
        if skipped >= 10:
            raise TriviumError(f"the gradient of step {step} is not finite, and those of nine steps before it; "
                               "lower the learning rate (the checkpoint before is kept)")
        if evaluate and evaluate_every and ((step + 1) % evaluate_every == 0 or step + 1 == steps):
            metrics |= evaluate()
        write_line(step, metrics)
        progress(step + 1, steps, f"loss {metrics.get('loss', 0.0):.3f}  {metrics['tokens_per_second']:,.0f} tokens/s")
        if time.monotonic() - saved > save_seconds or "TRIVIUM_SAVE_EVERY_STEP" in os.environ:
            saved = time.monotonic()
            save_checkpoint(scratch, step + 1, model, trainer.optimizers,
                            {"fingerprint": fingerprint, "seconds": spent + saved - started, "metrics": metrics})
    return metrics | {"seconds": spent + time.monotonic() - started}
