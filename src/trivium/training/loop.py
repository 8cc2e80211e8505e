"""The one training loop. Pretraining, fine-tuning, reward modeling and DPO differ in their objective and in their
batches; PPO is a rollout around :meth:`~trivium.training.trainer.Trainer.step`."""

from __future__ import annotations

import math
import shutil
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from torch import nn

from trivium.errors import TriviumError, counted
from trivium.training.checkpoint import Found, check_room, load_checkpoint
from trivium.training.log import Log
from trivium.training.objective import Batches, Microbatch, Objective
from trivium.training.optimizers import Plateau
from trivium.training.parallel import join
from trivium.training.precision import halve, settle
from trivium.training.saving import Saver
from trivium.training.settings import NumberFormat, Optimization, Parallel, Saving
from trivium.training.trackers import Tracking
from trivium.training.trainer import Trainer

RETURN_AFTER = 3
"""Updates in a row without a finite gradient after which the run goes back."""

ANCHOR = 100
"""It goes back to the last step that this divides: so where it goes depends on the step alone, not on a clock. From the
checkpoint before it the updates up to there are made again."""

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
    turns: list[int] = field(default_factory=list)
    """The steps that the run has gone back to: from each on, the learning rate is halved once more."""
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
        """What :meth:`to_json` gave, in earlier versions too: they counted the ``returns``."""
        values = {"turns": [0] * values.get("returns", 0), **values}
        values.pop("returns", None)
        return cls(**{**values, "best": Best(**values["best"]) if values["best"] else Best()})

    @property
    def share(self) -> float:
        """What is left of the learning rate."""
        return 0.5**sum(turn <= self.step for turn in self.turns)


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

    def __init__(self, saver: Saver, fingerprint: str, trainer: Trainer, say: Callable[[str], None]) -> None:
        self.saver, self.fingerprint, self.trainer, self.say = saver, fingerprint, trainer, say
        self.begun = time.monotonic()

    def resume(self, latest: float = math.inf) -> RunState | None:
        """The state of the newest checkpoint of a step up to ``latest``, its weights restored; None where there is
        none."""
        found = self._load(self.saver.folder, self.trainer.optimizers, lambda step: step <= latest)
        return RunState.from_json(found[1]["state"]) if found else None

    def _load(self, folder: Path, optimizers: list[Any], steps: Callable[[int], bool]) -> Found | None:
        return load_checkpoint(folder, self.trainer.model, optimizers, self.fingerprint, self.trainer.world, steps,
                               self.say)

    def save(self, state: RunState) -> None:
        """Have a checkpoint written of all that there is."""
        values = state.to_json() | {"seconds": self.seconds(state)}
        self.saver.save(state.step, self.trainer.model, self.trainer.optimizers,
                        {"fingerprint": self.fingerprint, "state": values})

    def settle(self) -> None:
        """Until all checkpoints of all processes are written."""
        self.saver.wait()
        self.trainer.world.wait()

    def seconds(self, state: RunState) -> float:
        """Spent in all attempts."""
        return state.seconds + time.monotonic() - self.begun

    def keep_best(self, step: int) -> None:
        """Keep the weights as the best so far."""
        self.saver.save(step, self.trainer.model, [], {"fingerprint": self.fingerprint}, best=True)

    def restore_best(self, best: Best) -> None:
        """Put the best weights in the place of the last. Raises :class:`TriviumError` where they are not there."""
        self.settle()
        if not self._load(self.saver.folder / "best", [], lambda step: step == best.step):
            raise TriviumError(f"{self.saver.folder / 'best'}: the best weights, of step {best.step}, are damaged or "
                               f"gone; move {self.saver.folder} away to train anew")


def train(model: nn.Module, objective: Objective, batches: Batches, steps: int, settings: Optimization, *,
          scratch: Path, log: Path, fingerprint: str, precision: NumberFormat = "float32",
          parallel: Parallel | None = None, evaluation: Evaluation = Evaluation(), track: Tracking | None = None,
          saving: Saving | None = None, kept: Path | None = None,
          progress: Callable[[int, int, str], None] = lambda done, total, text: None,
          say: Callable[[str], None] = lambda text: None,
          watch: Callable[[int, Mapping[str, float]], None] | None = None) -> Outcome:
    """Train ``model`` in place for ``steps`` updates, going on from a checkpoint in ``scratch`` when there is one.
    Under ``torchrun`` every process calls it and learns from its slice of each batch.

    ``fingerprint`` names data and settings; a checkpoint of another, or of another ``precision``, is refused.
    ``track`` says who else is told what is logged, ``kept`` is a folder for checkpoints that stay
    (``saving.keep_every``). ``watch`` is told each update's number and metrics. A batch whose gradient is not finite is
    left out; after :data:`RETURN_AFTER`
    in a row the run goes back to the last multiple of :data:`ANCHOR` and on at half the learning rate. Raises
    :class:`TriviumError` after :data:`RETURNS` returns.
    """
    parallel, saving = parallel or Parallel(), saving or Saving()
    world = join(next(model.parameters()).device, parallel.tensor_parallel)
    part, parts = world.slice
    first_batch = batches(0, part, parts, parallel.rows) if steps else []
    unit = first_batch[0].unit if first_batch else ""
    compiled = worth_compiling(parallel, model, steps, sum(batch.size for batch in first_batch) * parts, precision)
    aloud = say if world.leader else lambda text: None
    if steps:
        aloud(f"{counted(world.size, 'process')}, {'compiled' if compiled else 'eager'}, "
              f"{precision}")
        settle(model, precision, aloud)
    trainer = Trainer(model, settings, steps, precision, parallel, world, compiled)
    plateau = Plateau(settings)
    saver = Saver(scratch, world, trainer.device, saving, anchor=ANCHOR, kept=kept, say=aloud)
    checkpoints = Checkpoints(saver, f"{fingerprint} in {precision}", trainer, aloud)

    # ---------------------------------------------------------------- go on from where an earlier attempt was killed
    resumed = checkpoints.resume()
    state = resumed or RunState()
    plateau.restore(state.plateau)
    write_line = Log(log, state.step, track, aloud) if world.leader else None
    untrained: dict[str, float] = {}
    heldout: float | None = None
    with saver:
        if steps and not resumed:
            check_room(scratch, model, settings.optimizer, world, steps // (saving.keep_every or steps + 1))
            checkpoints.save(state)
        elif state.step:
            aloud(f"goes on from its last checkpoint, after {state.step} of {steps} updates")
        if steps and not state.step:  # nor is it in the log, where an earlier attempt was killed before its first line
            untrained = before(trainer, objective, evaluation, aloud)

        while not ended(state, steps, evaluation):

            # -------------------------------------------------------------------------------------------- one update
            step = state.step
            if step in state.turns:
                state.skipped = 0
            trainer.share = plateau.share * state.share
            speed = update(trainer, objective, batches(step, part, parts, parallel.rows), unit, state, aloud)
            if not state.skipped:
                plateau(state.metrics.get("loss", 0.0))
            state.plateau = plateau.state

            # -------------------------------------------------------------------------- once in a while: measure, log
            if evaluation.every and (state.step % evaluation.every == 0 or state.step == steps):
                evaluate(trainer, objective, evaluation, state, checkpoints, write_line)
                heldout = state.metrics.get("validation_loss", heldout)
            if write_line:
                write_line(step, (untrained if step == 0 else {}) | state.metrics)
                if watch:
                    watch(step, state.metrics)
                progress(state.step, steps, told(state.metrics, heldout, speed, unit))

            # -------------------------------------------------------- when it has lost its way: back, at half the rate
            if state.skipped >= RETURN_AFTER:
                state = go_back(checkpoints, state, aloud)
                plateau.restore(state.plateau)
                if write_line:
                    write_line.back(state.step)
                checkpoints.save(state)

            # ---------------------------------------------- once in a while, and at the end: what follows may be killed
            elif not state.skipped and (ended(state, steps, evaluation) or saver.due(state.step)):
                checkpoints.save(state)

        if evaluation.keep_best and state.best.step:
            checkpoints.restore_best(state.best)
    if write_line:
        write_line.close()
    return Outcome(trainer.gathered(), state.metrics, checkpoints.seconds(state), world.leader, state.best, state.step,
                   precision)


def ended(state: RunState, steps: int, evaluation: Evaluation) -> bool:
    """Whether all updates are made, or the held-out loss has not become better for too long."""
    return state.step >= steps or 0 < evaluation.patience <= state.best.since


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
    """The state to go on from after too many gradients that were not finite. What counts is the last multiple of
    :data:`ANCHOR`: from there on the learning rate is halved, and from the checkpoint before it the updates up to there
    are made again. Raises :class:`TriviumError` when that was done too often."""
    if len(state.turns) >= RETURNS:
        raise TriviumError(
            f"the gradients of steps {state.step - state.skipped} to {state.step - 1} are not finite, even at a "
            f"learning rate of {state.share:g} times the one set; lower it (the last good checkpoint is kept)")
    turn = (state.step - 1) // ANCHOR * ANCHOR
    checkpoints.settle()
    earlier = checkpoints.resume(turn)
    if earlier is None:
        raise TriviumError(f"the gradients of steps {state.step - state.skipped} to {state.step - 1} are not finite, "
                           f"and no checkpoint of step {turn} or before is whole; lower the learning rate and start "
                           "anew")
    again = f" (the updates from {earlier.step} on are made again)" if earlier.step < turn else ""
    say(f"going back to step {turn}, and on at {0.5**(len(state.turns) + 1):g} of the learning rate{again}")
    earlier.turns, earlier.seconds = [*state.turns, turn], state.seconds
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
