"""The one training loop. Pretraining, fine-tuning, reward modeling and DPO differ in their objective and in their
batches; PPO is a rollout around :meth:`~trivium.training.trainer.Trainer.step`."""

from __future__ import annotations

import math
import os
import shutil
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from torch import nn

from trivium.errors import TriviumError
from trivium.training.checkpoint import check_room, forget_after, load_checkpoint, save_checkpoint
from trivium.training.log import Log
from trivium.training.objective import Batches, Microbatch, Objective
from trivium.training.optimizers import Plateau
from trivium.training.parallel import join
from trivium.training.precision import halve, settle
from trivium.training.settings import NumberFormat, Optimization, Parallel
from trivium.training.trainer import Trainer

RETURN_AFTER = 3
"""Updates in a row without a finite gradient after which the run goes back to a checkpoint."""

ANCHOR = 100
"""It goes back to the last step that this divides: so where it goes depends on the step alone, not on a clock."""

RETURNS = 3
"""How often it does so before it gives up."""


@dataclass
class Best:
    """The best evaluation so far."""

    loss: float = math.inf
    """Held-out loss."""
    step: int = 0
    """Updates before it."""
    since: int = 0
    """Evaluations after it."""


@dataclass
class RunState:
    """All that a run carries from update to update, besides weights and the optimizers' state."""

    step: int = 0
    """Updates that were made."""
    seconds: float = 0.0
    """Spent in attempts before this one."""
    metrics: dict[str, float] = field(default_factory=dict)
    """Those of the last update."""
    plateau: dict[str, float] | None = None
    """State of the schedule that waits for plateaus."""
    returns: int = 0
    """How often the run has gone back to a checkpoint."""
    skipped: int = 0
    """Updates in a row that were left out, as their gradients were not finite."""
    best: Best = field(default_factory=Best)

    def to_json(self) -> dict[str, Any]:
        """What a checkpoint's note holds. Numbers that are not finite have no JSON and are left out."""
        best = asdict(self.best) if math.isfinite(self.best.loss) else None
        return asdict(self) | {
            "metrics": {name: value for name, value in self.metrics.items() if math.isfinite(value)}, "best": best}

    @classmethod
    def from_json(cls, values: dict[str, Any]) -> RunState:
        """What :meth:`to_json` gave."""
        return cls(**{**values, "best": Best(**values["best"]) if values["best"] else Best()})


@dataclass(frozen=True)
class Evaluation:
    """What is measured while training goes on: every ``every`` updates, and after the last one."""

    every: int = 0
    """Updates between two evaluations; 0 for none."""
    batches: Callable[[int, int], Sequence[Microbatch]] | None = None
    """``batches(part, parts)`` gives a process's slice of the held-out batches."""
    sample: Callable[[Any], str] | None = None
    """``sample(model)`` gives a text to be logged."""
    keep_best: bool = False
    """End with the weights of the lowest held-out loss."""
    patience: int = 0
    """Evaluations without a lower held-out loss after which training stops; 0 for never."""


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
    best: Best
    """The best evaluation, where the best weights were kept."""
    steps: int
    """Updates that were made: fewer than planned where the run was stopped early."""
    precision: NumberFormat
    """What the products were made in."""


class Checkpoints:
    """The checkpoints of a run: saved now and then, gone back to when the run is killed or has lost its way."""

    def __init__(self, folder: Path, fingerprint: str, trainer: Trainer, keep_best: bool) -> None:
        self.folder, self.fingerprint, self.trainer, self.world = folder, fingerprint, trainer, trainer.world
        (folder / "best" if keep_best else folder).mkdir(parents=True, exist_ok=True)
        self.begun = self.saved = time.monotonic()

    def resume(self, latest: int | None = None) -> RunState | None:
        """The state of the newest checkpoint of a step up to ``latest``, its weights restored; None where there is
        none."""
        found = load_checkpoint(self.folder, self.trainer.model, self.trainer.optimizers, self.fingerprint, self.world,
                                latest)
        return RunState.from_json(found[1]["state"]) if found else None

    def save(self, state: RunState) -> None:
        """Write a checkpoint of all that there is."""
        self.saved = time.monotonic()
        values = state.to_json() | {"seconds": self.seconds(state)}
        save_checkpoint(self.folder, state.step, self.trainer.model, self.trainer.optimizers,
                        {"fingerprint": self.fingerprint, "state": values}, world=self.world, anchor=ANCHOR)

    def seconds(self, state: RunState) -> float:
        """Spent in all attempts."""
        return state.seconds + time.monotonic() - self.begun

    def due(self, after: float) -> bool:
        """Whether so many seconds have passed since the last one, as all processes agree."""
        now = time.monotonic() - self.saved > after or "TRIVIUM_SAVE_EVERY_STEP" in os.environ
        return self.world.agree(now, self.trainer.device)

    def keep_best(self, step: int) -> None:
        """Keep the weights as the best so far."""
        save_checkpoint(self.folder / "best", step, self.trainer.model, [], {"fingerprint": self.fingerprint},
                        world=self.world)

    def restore_best(self, best: Best) -> None:
        """Put the best weights in the place of the last."""
        load_checkpoint(self.folder / "best", self.trainer.model, [], self.fingerprint, self.world, best.step)


def train(model: nn.Module, objective: Objective, batches: Batches, steps: int, settings: Optimization, *,
          scratch: Path, log: Path, fingerprint: str, precision: NumberFormat = "float32",
          parallel: Parallel | None = None, evaluation: Evaluation = Evaluation(), track: Path | None = None,
          save_seconds: float = 20.0, progress: Callable[[int, int, str], None] = lambda done, total, text: None,
          say: Callable[[str], None] = lambda text: None,
          watch: Callable[[int, Mapping[str, float]], None] | None = None) -> Outcome:
    """Train ``model`` in place for ``steps`` updates, going on from a checkpoint in ``scratch`` when there is one.
    Under ``torchrun`` every process calls it and learns from its slice of each batch.

    ``fingerprint`` names data and settings; a checkpoint of another, or of another ``precision``, is refused.
    ``track`` is a folder for TensorBoard. ``watch`` is told each update's number and metrics. A batch whose gradient is
    not finite is left out; after :data:`RETURN_AFTER` in a row the run goes back to the checkpoint of the last multiple
    of :data:`ANCHOR` and on at half the learning rate. Raises :class:`TriviumError` after :data:`RETURNS` returns.
    """
    parallel = parallel or Parallel()
    world = join(next(model.parameters()).device, parallel.tensor_parallel)
    part, parts = world.slice
    first_batch = batches(0, part, parts, parallel.rows) if steps else []
    unit = first_batch[0].unit if first_batch else ""
    compiled = worth_compiling(parallel, model, steps, sum(batch.size for batch in first_batch) * parts, precision)
    if steps and world.leader:
        say(f"{world.size} process{'es' if world.size > 1 else ''}, {'compiled' if compiled else 'eager'}, {precision}")
    if steps:
        settle(model, precision, say if world.leader else lambda text: None)
    trainer = Trainer(model, settings, steps, precision, parallel, world, compiled)
    checkpoints = Checkpoints(scratch, f"{fingerprint} in {precision}", trainer, evaluation.keep_best)
    plateau = Plateau(settings)

    # ---------------------------------------------------------------- go on from where an earlier attempt was killed
    resumed = checkpoints.resume()
    state = resumed or RunState()
    plateau.restore(state.plateau)
    write_line = Log(log, state.step, track) if world.leader else None
    untrained: dict[str, float] = {}
    if steps and not resumed:
        check_room(scratch, model, settings.optimizer, world)
        checkpoints.save(state)
        untrained = before(trainer, objective, evaluation, say if world.leader else lambda text: None)
    elif state.step and world.leader:
        say(f"goes on from its last checkpoint, after {state.step} of {steps} updates")

    heldout: float | None = None
    while state.step < steps and not (evaluation.patience and state.best.since >= evaluation.patience):

        # ------------------------------------------------------------------------------------------------ one update
        step = state.step
        trainer.share = plateau.share * 0.5**state.returns
        speed = update(trainer, objective, batches(step, part, parts, parallel.rows), unit, state, say)
        if not state.skipped:
            plateau(state.metrics.get("loss", 0.0))
        state.plateau = plateau.state

        # ------------------------------------------------------------------------------ once in a while: measure, log
        if evaluation.every and (state.step % evaluation.every == 0 or state.step == steps):
            evaluate(trainer, objective, evaluation, state, checkpoints, write_line)
            heldout = state.metrics.get("validation_loss", heldout)
        if write_line:
            write_line(step, (untrained if step == 0 else {}) | state.metrics)
            if watch:
                watch(step, state.metrics)
            progress(state.step, steps, told(state.metrics, heldout, speed, unit))

        # ------------------------------------------------------------ when it has lost its way: back, at half the rate
        if state.skipped >= RETURN_AFTER:
            state = go_back(checkpoints, state, say)
            plateau.restore(state.plateau)
            if write_line:
                write_line = Log(log, state.step, track)
                forget_after(scratch, state.step)
            world.wait()
            checkpoints.save(state)

        # ------------------------------------------------------------------------------------ once in a while: save
        elif (checkpoints.due(save_seconds) and not state.skipped) or state.step % ANCHOR == 0:
            checkpoints.save(state)

    if evaluation.keep_best and state.best.step:
        checkpoints.restore_best(state.best)
    return Outcome(trainer.gathered(), state.metrics, checkpoints.seconds(state), world.leader, state.best, state.step,
                   precision)


def told(metrics: dict[str, float], heldout: float | None, speed: float, unit: str) -> str:
    """What is said of an update: its loss, the last held-out loss, the learning rate and the speed."""
    unseen = "" if heldout is None else f"  held-out loss {heldout:.3f}"
    rate = f"  lr {metrics['learning_rate']:.2g}" if "learning_rate" in metrics else ""
    return f"loss {metrics.get('loss', 0.0):.3f}{unseen}{rate}  {speed:,.0f} {unit}/s"


def update(trainer: Trainer, objective: Objective, microbatches: Sequence[Microbatch], unit: str, state: RunState,
           say: Callable[[str], None]) -> float:
    """Make one update and note its metrics; what all processes learned from, in units a second."""
    begun = time.monotonic()
    state.metrics = trainer.step(state.step, microbatches, objective)
    real = trainer.world.add([float(sum(batch.real for batch in microbatches))], trainer.device)[0]
    speed = state.metrics[f"{unit}_per_second"] = real / (time.monotonic() - begun)
    if "skipped" in state.metrics:
        state.skipped += 1
        say(f"step {state.step}: the gradient is not finite, so its batch was left out; `trivium inspect batch` shows "
            f"it (--step {state.step})")
    else:
        state.skipped = 0
    state.step += 1
    return speed


def before(trainer: Trainer, objective: Objective, evaluation: Evaluation,
           say: Callable[[str], None]) -> dict[str, float]:
    """Measure the held-out loss before the first update, so that what training changes can be told."""
    if not (evaluation.every and evaluation.batches):
        return {}
    loss = trainer.evaluate(evaluation.batches(*trainer.world.slice), objective)["loss"]
    say(f"held-out loss {loss:.3f} before the first update")
    return {"validation_loss_before": loss}


def evaluate(trainer: Trainer, objective: Objective, evaluation: Evaluation, state: RunState, checkpoints: Checkpoints,
             write_line: Log | None) -> None:
    """Add the held-out means to the metrics, keep the best weights, and log a sample."""
    if evaluation.batches:
        means = trainer.evaluate(evaluation.batches(*trainer.world.slice), objective)
        state.metrics |= {f"validation_{name}": value for name, value in means.items()}
        if evaluation.keep_best and means["loss"] < state.best.loss:
            state.best = Best(means["loss"], state.step)
            checkpoints.keep_best(state.step)
        elif evaluation.keep_best:
            state.best.since += 1
    if evaluation.sample:
        speaker = trainer.gathered() if trainer.world.size > 1 else trainer.model
        if trainer.precision == "bf16-weights":
            halve(speaker)  # in one process it is already: both speak as they are trained
        if write_line:
            write_line(state.step - 1, {"sample": evaluation.sample(speaker)})


def go_back(checkpoints: Checkpoints, state: RunState, say: Callable[[str], None]) -> RunState:
    """The state to go on from after too many gradients that were not finite: that of the last anchor, at half the
    learning rate. Raises :class:`TriviumError` when that was done too often."""
    if state.returns >= RETURNS:
        raise TriviumError(
            f"the gradients of steps {state.step - state.skipped} to {state.step - 1} are not finite, even at a "
            f"learning rate of {0.5**state.returns:g} times the one set; lower it (the last good checkpoint is kept)")
    earlier = checkpoints.resume((state.step - 1) // ANCHOR * ANCHOR) or RunState()
    earlier.returns, earlier.skipped, earlier.seconds = state.returns + 1, 0, state.seconds
    say(f"going back to step {earlier.step}, and on at {0.5**earlier.returns:g} of the learning rate")
    return earlier


def worth_compiling(parallel: Parallel, model: nn.Module, steps: int, tokens: int, precision: str) -> bool:
    """Whether compiling the blocks repays the time it takes. It depends on the amount of work alone, never on a clock,
    so that a resumed run decides alike."""
    if parallel.compile != "auto":
        return parallel.compile == "always"
    device = next(model.parameters()).device
    if device.type == "cpu" and shutil.which("g++") is None:
        return False
    work = 6.0 * sum(p.numel() for p in model.parameters()) * tokens * steps
    return work > (1e16 if device.type == "cuda" else 6e13 if precision == "float32" else 3e13)
