"""The one training loop. Pretraining, fine-tuning, reward modelling and DPO differ in their objective and in their
batches; PPO is a rollout around :meth:`Trainer.step`."""

from __future__ import annotations

import contextlib
import json
import math
import os
import shutil
import time
from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, NamedTuple, Protocol

import torch
from torch import Tensor, nn

from trivium.errors import TriviumError
from trivium.training.checkpoint import check_room, forget_after, load_checkpoint, save_checkpoint
from trivium.training.machine import autocast, give_back_freed_memory
from trivium.training.optimizers import Optimization, Plateau, factor, make_optimizers
from trivium.training.parallel import (
    Parallel,
    World,
    by_mesh,
    join,
    prepare_model,
    reshard,
    total_norm,
    whole,
)
from trivium.training.precision import follow_masters, masters, restore_masters
from trivium.training.settings import NumberFormat


class Total(NamedTuple):
    """A sum over a batch, and the name of the count (:attr:`Batch.counts`) that makes it a mean."""

    value: Tensor
    per: str


class Microbatch(Protocol):
    """What a model learns from at once: packed rows of tokens (:class:`~trivium.training.batch.Batch`), or anything else
    that its objective understands."""

    counts: dict[str, float]
    """What the objective's sums are divided by, once they are added over all microbatches and processes."""
    unit: ClassVar[str]
    """What ``real`` counts."""

    @property
    def size(self) -> int:
        """Places, padding included: the work there is."""

    @property
    def real(self) -> int:
        """Places that are not padding."""

    def to(self, device: torch.device) -> Any:
        """The same on another device."""


class Objective(Protocol):
    """A loss. ``weights`` names the totals whose weighted means are minimised, those of them that a batch has; all others are
    only reported."""

    weights: dict[str, float]
    # An objective that needs to know something of the whole batch has a method ``before(trainer, batches)`` too, which is called
    # before each update and puts it into every microbatch's ``extra``.

    def __call__(self, model: Any, batch: Any) -> dict[str, Total]:
        """Sums over one microbatch. They are divided once, by counts over all microbatches and processes: so gradient
        accumulation and data parallelism cannot change the loss."""


class Batches(Protocol):
    """The microbatches of the global batch at a step: a pure function of the step."""

    def __call__(self, step: int, part: int = 0, parts: int = 1, rows: int | None = None) -> Sequence[Microbatch]:
        """The slice ``part`` of ``parts`` of the global batch, in microbatches of at most ``rows`` rows; as many for every
        slice."""


class Trainer:
    """A model with its optimizers; one call of :meth:`step` is one update."""

    def __init__(self, model: nn.Module, settings: Optimization, steps: int, precision: NumberFormat = "float32",
                 parallel: Parallel | None = None, world: World | None = None, compiled: bool = False) -> None:
        self.settings, self.steps = settings, steps
        self.world = world or World()
        self.device = next(model.parameters()).device
        self.precision = precision
        self.learner = prepare_model(model, parallel or Parallel(), self.world, self.precision, compiled)
        self.model = model
        self.optimizers = make_optimizers(model, settings)
        self.frozen = self.device.type == "cpu" and any(not weight.requires_grad for weight in model.parameters())
        """Whether an adapter is trained: then activations are most of the memory, and :func:`give_back_freed_memory` saves some of it."""
        self.share = 1.0
        """What the schedule's learning rate is multiplied by: halved by a plateau and after a return to a checkpoint."""

    def in_precision(self) -> contextlib.AbstractContextManager[object]:
        """The context of a forward pass: bf16 weights need no autocast."""
        return contextlib.nullcontext() if self.precision == "bf16-weights" else autocast(self.precision, self.device)

    def step(self, number: int, batches: Sequence[Microbatch], objective: Objective) -> dict[str, float]:
        """Update ``number`` (from 0). Returns the means of all totals, the gradient's norm and the learning rate. A
        gradient that is not finite changes nothing and is reported as ``skipped``."""
        counts = self.count(batches)
        sums: dict[str, float] = defaultdict(float)
        self.model.train()
        if hasattr(objective, "before"):
            objective.before(self, batches)
        for place, batch in enumerate(batches):
            last = last_of_its_kind(batches, place)
            self.learner.share_gradients(last)
            with self.in_precision():
                totals = self.learner(objective, batch.to(self.device))
            terms = [weight * totals[name].value / max(counts[totals[name].per], 1.0)
                     for name, weight in objective.weights.items() if name in totals]
            # FSDP takes the mean over the slices of the batch; the counts are those of all of them.
            (torch.stack(terms).sum() * self.world.slice[1]).backward()  # type: ignore[no-untyped-call]
            for name, (value, per) in totals.items():
                sums[name] += value.item() / max(counts[per], 1.0)
            if self.frozen and last and place + 1 < len(batches):  # what follows needs other activations
                give_back_freed_memory()
        metrics = dict(zip(sums, self.world.add(list(sums.values()), self.device), strict=True))
        parameters = [p for _, p in masters(self.model) if p.grad is not None]
        norm = total_norm(p.grad for p in parameters if p.grad is not None)
        metrics["gradient_norm"] = norm.item()
        share = self.share * factor(self.settings, number, self.steps)
        metrics["learning_rate"] = share * self.settings.learning_rate
        if math.isfinite(metrics["gradient_norm"]):
            if self.settings.clip:
                for group in by_mesh(parameters):
                    torch.nn.utils.clip_grads_with_norm_(group, self.settings.clip, norm)
            for optimizer in self.optimizers:
                for settings in optimizer.param_groups:
                    settings["lr"] = share * settings["highest"]
                optimizer.step()
            follow_masters(self.model)
        else:
            metrics["skipped"] = 1.0
        for parameter in parameters:
            parameter.grad = None
        return metrics

    def count(self, batches: Sequence[Microbatch]) -> dict[str, float]:
        """The counts of all microbatches of all processes."""
        counts: dict[str, float] = defaultdict(float)
        for batch in batches:
            for name, count in batch.counts.items():
                counts[name] += count
        return defaultdict(float, zip(counts, self.world.add(list(counts.values()), self.device), strict=True))

    @torch.no_grad()
    def evaluate(self, batches: Sequence[Microbatch], objective: Objective) -> dict[str, float]:
        """The means of the objective's totals over the slices that the processes were given."""
        counts, sums = self.count(batches), defaultdict[str, float](float)
        self.model.eval()
        for batch in batches:
            with self.in_precision():
                for name, (value, per) in self.learner(objective, batch.to(self.device)).items():
                    sums[name] += value.item() / max(counts[per], 1.0)
        reshard(self.learner)
        return dict(zip(sums, self.world.add(list(sums.values()), self.device), strict=True))

    def gathered(self) -> nn.Module:
        """The model in one piece and in float32, when training is over: the one that was given or, when it is spread over processes, a new one in the first
        process and one without memory in the others. All processes must call it."""
        if self.world.mesh is None:
            restore_masters(self.model)
            return self.model
        with torch.device("meta"):
            model = type(self.model)(self.model.config)
        weights: dict[str, Tensor] = {}
        for name, parameter in self.model.named_parameters():
            full = whole(parameter.detach())
            if self.world.leader:
                weights[name] = full.clone()
        if self.world.leader:
            model.load_state_dict(weights, assign=True, strict=False)
            tie: Any = getattr(model, "tie", None)
            if tie is not None:
                tie()
        return model


def last_of_its_kind(batches: Sequence[Microbatch], place: int) -> bool:
    """Whether gradients travel after a microbatch: after the last of those that are divided by the same counts, as others may train other weights."""
    return all(later.counts.keys() != batches[place].counts.keys() for later in batches[place + 1:])


class Log:
    """Metrics as JSON lines, and for TensorBoard in the folder ``track``. A line after the step that a run resumes from is
    taken back, so no step is logged twice."""

    def __init__(self, path: Path, resume: int, track: Path | None = None) -> None:
        self.path = path
        self.writer: Any = None
        if track is not None:
            try:
                from torch.utils import tensorboard
            except ImportError as error:
                raise TriviumError('`track` needs TensorBoard: pip install "trivium[track]"') from error
            self.writer = tensorboard.SummaryWriter(str(track), purge_step=resume)
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
            file.write(json.dumps({"step": step, **finite}, ensure_ascii=False) + "\n")
        if self.writer is not None:
            for name, value in values.items():
                if isinstance(value, str):
                    self.writer.add_text(name, value, step)
                else:
                    self.writer.add_scalar(name, value, step)
            self.writer.flush()


RETURN_AFTER = 3
"""Updates in a row without a finite gradient after which the run goes back to a checkpoint."""

ANCHOR = 100
"""It goes back to the last step that this divides: so where it goes depends on the step alone, not on a clock."""

RETURNS = 3
"""How often it does so before it gives up."""


@dataclass
class Outcome:
    """What training leaves."""

    model: Any
    """The trained model, in one piece; of use in the first process only."""
    metrics: dict[str, float]
    """Those of the last update."""
    seconds: float
    """Spent in all attempts."""
    leader: bool
    """Whether this is the first process: the others are done."""
    best: dict[str, float]
    """Of the best checkpoint, where one was kept: its ``loss`` on held-out data, and after how many updates (``step``) it was; and
    ``since``, the evaluations after it."""
    steps: int
    """Updates that were made: fewer than planned where the run was stopped early."""
    precision: NumberFormat
    """What the products were made in."""


def train(model: nn.Module, objective: Objective, batches: Batches, steps: int, settings: Optimization, *, scratch: Path,
          log: Path, fingerprint: str, precision: NumberFormat = "float32", parallel: Parallel | None = None,
          validation: Callable[[int, int], Sequence[Microbatch]] | None = None, evaluate_every: int = 0,
          sample: Callable[[Any], str] | None = None, track: Path | None = None, save_seconds: float = 20.0, keep_best: bool = False, patience: int = 0,
          progress: Callable[[int, int, str], None] = lambda done, total, text: None,
          say: Callable[[str], None] = lambda text: None) -> Outcome:
    """Train ``model`` in place for ``steps`` updates, going on from a checkpoint in ``scratch`` when there is one. Under
    ``torchrun`` every process calls it and learns from its slice of each batch.

    ``fingerprint`` names data and settings; a checkpoint of another, or of another ``precision``, is refused. Every ``evaluate_every`` updates, and after
    the last one, ``validation(part, parts)`` gives held-out batches and ``sample(model)`` a text. With ``keep_best`` the weights of the
    lowest held-out loss are those that it ends with, and after ``patience`` evaluations without a lower one (0: never) it stops. ``track`` is a folder for
    TensorBoard. A batch whose gradient is not finite is left out; after :data:`RETURN_AFTER` in a row the run goes back to
    the checkpoint of the last multiple of :data:`ANCHOR` and on at half the learning rate; raises after :data:`RETURNS` returns.
    """
    parallel = parallel or Parallel()
    device = next(model.parameters()).device
    world = join(device, parallel.tensor_parallel)
    fingerprint = f"{fingerprint} in {precision}"
    part, parts = world.slice
    first_batch = batches(0, part, parts, parallel.rows) if steps else []
    unit = first_batch[0].unit if first_batch else ""
    compiled = worth_compiling(parallel, model, steps, sum(batch.size for batch in first_batch) * parts, precision)
    if steps and world.leader:
        say(f"{world.size} process{'es' if world.size > 1 else ''}, {'compiled' if compiled else 'eager'}, {precision}")
    trainer = Trainer(model, settings, steps, precision, parallel, world, compiled)
    (scratch / "best" if keep_best else scratch).mkdir(parents=True, exist_ok=True)
    plateau = Plateau(settings)
    returns = skipped = 0
    metrics: dict[str, float] = {}
    best = {"loss": math.inf, "step": 0.0, "since": 0.0}

    def resume(latest: int | None = None) -> int | None:
        nonlocal metrics, returns, skipped
        found = load_checkpoint(scratch, model, trainer.optimizers, fingerprint, world, latest)
        if found is None:
            return None
        metrics = found[1]["metrics"]
        plateau.state = found[1]["plateau"]
        returns, skipped = found[1]["returns"], found[1]["skipped"]
        best.update(found[1].get("best", {"loss": math.inf, "step": 0.0, "since": 0.0}))
        extra.update(found[1])
        return found[0]

    def save(step: int) -> None:
        save_checkpoint(scratch, step, model, trainer.optimizers, {
            "fingerprint": fingerprint, "seconds": seconds + time.monotonic() - started,
            "metrics": {name: value for name, value in metrics.items() if math.isfinite(value)},
            "plateau": plateau.state, "returns": returns, "skipped": skipped,
            **({"best": best} if math.isfinite(best["loss"]) else {})}, world=world, anchor=ANCHOR)

    extra: dict[str, Any] = {"seconds": 0.0}
    begin = resume()
    seconds, step = float(extra["seconds"]), begin or 0
    write_line = Log(log, step, track) if world.leader else None
    started = saved = time.monotonic()
    if begin is None and steps:
        check_room(scratch, model, settings.optimizer, world)
        save(0)
    elif begin and world.leader:
        say(f"goes on from its last checkpoint, after {begin} of {steps} updates")
    while step < steps and not (patience and best["since"] >= patience):
        micro = batches(step, part, parts, parallel.rows)
        trainer.share = plateau.share * 0.5**returns
        begun = time.monotonic()
        metrics = trainer.step(step, micro, objective)
        real = world.add([float(sum(batch.real for batch in micro))], trainer.device)[0]
        speed = real / (time.monotonic() - begun)
        metrics[f"{unit}_per_second"] = speed
        if "skipped" in metrics:
            skipped += 1
            say(f"step {step}: the gradient is not finite, so its batch was left out; `trivium inspect batch` shows it "
                f"(--step {step})")
        else:
            skipped = 0
            plateau(metrics.get("loss", 0.0))
        if evaluate_every and ((step + 1) % evaluate_every == 0 or step + 1 == steps):
            if validation:
                metrics |= {f"validation_{k}": v for k, v in trainer.evaluate(validation(part, parts), objective).items()}
                if keep_best:
                    if metrics["validation_loss"] < best["loss"]:
                        best |= {"loss": metrics["validation_loss"], "step": step + 1.0, "since": 0.0}
                        save_checkpoint(scratch / "best", step + 1, model, [], {"fingerprint": fingerprint}, world=world)
                    else:
                        best["since"] += 1
            if sample:
                speaker = trainer.gathered() if world.size > 1 else model
                if write_line:
                    write_line(step, {"sample": sample(speaker)})
                del speaker
        if write_line:
            write_line(step, metrics)
            progress(step + 1, steps, f"loss {metrics.get('loss', 0.0):.3f}  {speed:,.0f} {unit}/s")
        step += 1
        if skipped >= RETURN_AFTER:
            if returns >= RETURNS:
                raise TriviumError(f"the gradients of steps {step - skipped} to {step - 1} are not finite, even at a learning rate "
                                   f"of {0.5**returns:g} times the one set; lower it (the last good checkpoint is kept)")
            before = returns
            step = resume((step - 1) // ANCHOR * ANCHOR) or 0
            returns, skipped = before + 1, 0
            say(f"going back to step {step}, and on at {0.5**returns:g} of the learning rate")
            if write_line:
                write_line = Log(log, step, track)
                forget_after(scratch, step)
            world.wait()
            save(step)
            continue
        due = world.agree(time.monotonic() - saved > save_seconds or "TRIVIUM_SAVE_EVERY_STEP" in os.environ, trainer.device)
        if (due and not skipped) or step % ANCHOR == 0:
            saved = time.monotonic()
            save(step)
    if keep_best and best["step"]:
        load_checkpoint(scratch / "best", model, [], fingerprint, world, int(best["step"]))
    return Outcome(trainer.gathered(), metrics, seconds + time.monotonic() - started, world.leader, best, step, precision)


def worth_compiling(parallel: Parallel, model: nn.Module, steps: int, tokens: int, precision: str) -> bool:
    """Whether compiling the blocks repays the time it takes. It depends on the amount of work alone, never on a clock, so
    that a resumed run decides alike."""
    if parallel.compile != "auto":
        return parallel.compile == "always"
    device = next(model.parameters()).device
    if device.type == "cpu" and shutil.which("g++") is None:
        return False
    work = 6.0 * sum(p.numel() for p in model.parameters()) * tokens * steps
    return work > (1e16 if device.type == "cuda" else 6e13 if precision == "float32" else 3e13)
