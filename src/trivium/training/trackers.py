"""Where the curves of a training go besides its log: TensorBoard, Weights & Biases, MLflow, SwanLab.

Each takes the same: its hyperparameters and what it was made from once, and then the numbers and texts of a step. A
tracker that fails, such as one whose server is away, ends no training: that is said, and it gets no more.
"""

from __future__ import annotations

import contextlib
import functools
import hashlib
import html
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, Protocol

from trivium.errors import TriviumError

Name = Literal["tensorboard", "wandb", "mlflow", "swanlab"]
Values = Mapping[str, float | int | str]


class Tracker(Protocol):
    """What takes the curves."""

    def __call__(self, step: int, values: Values) -> None:
        """The numbers and texts of a step."""

    def back(self, step: int) -> None:
        """The training went back to ``step``: what was told of it and of later steps is told again."""

    def close(self) -> None:
        """There is no more."""


@dataclass(frozen=True)
class Tracking:
    """Which trackers a stage tells, and what they are to know of it."""

    names: Sequence[Name] = ()
    run: str = ""
    """The run's name: their project."""
    stage: str = ""
    settings: Mapping[str, Any] = field(default_factory=dict)
    """The hyperparameters, and under ``inputs`` what the stage was made from."""
    folder: Path = Path()
    """Where TensorBoard's files go."""
    scratch: Path = Path()
    """Names the work: an attempt that goes on tells the same run."""

    @property
    def identity(self) -> str:
        """The same for every attempt at the same work, and for no other."""
        return hashlib.sha256(str(self.scratch.absolute()).encode("utf-8", "surrogateescape")).hexdigest()[:16]

    def begin(self, step: int, say: Callable[[str], None]) -> list[Tracker]:
        """The trackers, from ``step`` on. Raises :class:`TriviumError` where one's package is not installed."""
        return [Careful(name, functools.partial(KNOWN[name], self, step), say) for name in dict.fromkeys(self.names)]


class Careful:
    """A tracker whose faults are said once, and are no faults of the training."""

    def __init__(self, name: str, begin: Callable[[], Tracker], say: Callable[[str], None]) -> None:
        self.name, self.say = name, say
        self.tracker: Tracker | None = None
        with self._careful():
            self.tracker = begin()

    def __call__(self, step: int, values: Values) -> None:
        with self._careful():
            if self.tracker:
                self.tracker(step, values)

    def back(self, step: int) -> None:
        """Pass it on."""
        with self._careful():
            if self.tracker:
                self.tracker.back(step)

    def close(self) -> None:
        """Pass it on."""
        with self._careful():
            if self.tracker:
                self.tracker.close()

    @contextlib.contextmanager
    def _careful(self) -> Iterator[None]:
        """Within it, what fails ends the tracker alone; one that is not installed is the user's to mend."""
        try:
            yield
        except TriviumError:
            raise
        except Exception as error:
            self.tracker = None
            fault = f"{type(error).__name__}: {str(error)[:300]}"
            self.say(f"WARNING: {self.name} takes no more ({fault}); the log has all")


class TensorBoard:
    """Files of events beside the log."""

    def __init__(self, tracking: Tracking, step: int) -> None:
        try:
            from torch.utils import tensorboard
        except ImportError as error:
            raise _missing("TensorBoard", "track") from error
        self.open: Callable[[int], Any] = functools.partial(_writer, tensorboard, tracking.folder)
        self.writer = self.open(step)

    def __call__(self, step: int, values: Values) -> None:
        for name, value in values.items():
            if isinstance(value, str):
                self.writer.add_text(name, value, step)
            else:
                self.writer.add_scalar(name, value, step)
        self.writer.flush()

    def back(self, step: int) -> None:
        """Void what was told of later steps."""
        self.writer.close()
        self.writer = self.open(step)

    def close(self) -> None:
        """Close the file."""
        self.writer.close()


def _writer(tensorboard: Any, folder: Path, step: int) -> Any:
    return tensorboard.SummaryWriter(str(folder), purge_step=step)


class WandB:
    """A run of Weights & Biases: offline where nobody is signed in, or where ``WANDB_MODE`` says so."""

    def __init__(self, tracking: Tracking, step: int) -> None:
        try:
            import wandb
        except ImportError as error:
            raise _missing("Weights & Biases", "wandb") from error
        self.html = wandb.Html
        mode: Any = os.environ.get("WANDB_MODE") or ("online" if wandb.api.api_key else "offline")
        self.run = wandb.init(project=tracking.run, name=tracking.stage, id=tracking.identity, mode=mode,
                              resume=None if mode == "offline" else "allow", config=dict(tracking.settings),
                              settings=wandb.Settings(silent=True, console="off"), reinit="create_new")

    def __call__(self, step: int, values: Values) -> None:
        self.run.log({name: self.html(f"<pre>{html.escape(value)}</pre>") if isinstance(value, str) else value
                      for name, value in values.items()}, step=step)

    def back(self, step: int) -> None:
        """Nothing can be taken back there: it passes over steps that it has."""

    def close(self) -> None:
        """Send what is left."""
        self.run.finish()


class MLflow:
    """A run of MLflow, in the store that ``MLFLOW_TRACKING_URI`` names."""

    def __init__(self, tracking: Tracking, step: int) -> None:
        try:
            from mlflow.entities import Metric, Param
            from mlflow.tracking import MlflowClient
        except ImportError as error:
            raise _missing("MLflow", "mlflow") from error
        self.metric, self.client = Metric, MlflowClient()
        experiment = self.client.get_experiment_by_name(tracking.run)
        number = experiment.experiment_id if experiment else self.client.create_experiment(tracking.run)
        same = f"tags.`trivium.work` = '{tracking.identity}'"
        known = self.client.search_runs([number], same, max_results=1)
        if known:
            self.run = known[0].info.run_id
            return
        tags = {"mlflow.runName": tracking.stage, "trivium.work": tracking.identity}
        self.run = self.client.create_run(number, tags=tags).info.run_id
        self.client.log_batch(self.run, params=[Param(name, str(value)[:6000])
                                                for name, value in flat(tracking.settings)[:100]])

    def __call__(self, step: int, values: Values) -> None:
        numbers = {name: value for name, value in values.items() if not isinstance(value, str)}
        self.client.log_batch(self.run, [self.metric(name, float(value), 0, step) for name, value in numbers.items()])
        for name, value in values.items():
            if isinstance(value, str):
                self.client.log_text(self.run, value, f"texts/{name}-{step:08}.txt")

    def back(self, step: int) -> None:
        """Nothing can be taken back there: a step may have two values."""

    def close(self) -> None:
        """The run is finished."""
        self.client.set_terminated(self.run)


class SwanLab:
    """An experiment of SwanLab: offline, to be sent with ``swanlab sync``, unless ``SWANLAB_MODE`` says otherwise."""

    def __init__(self, tracking: Tracking, step: int) -> None:
        try:
            import swanlab
        except ImportError as error:
            raise _missing("SwanLab", "swanlab") from error
        self.lab = swanlab
        mode: Any = os.environ.get("SWANLAB_MODE") or "offline"
        self.lab.init(project=tracking.run, experiment_name=tracking.stage, config=dict(tracking.settings), mode=mode)

    def __call__(self, step: int, values: Values) -> None:
        self.lab.log({name: self.lab.Text(value) if isinstance(value, str) else float(value)
                      for name, value in values.items()}, step=step)

    def back(self, step: int) -> None:
        """Nothing can be taken back there."""

    def close(self) -> None:
        """The experiment is finished."""
        self.lab.finish()


KNOWN: dict[Name, Callable[[Tracking, int], Tracker]] = {
    "tensorboard": TensorBoard, "wandb": WandB, "mlflow": MLflow, "swanlab": SwanLab}
"""Every tracker by its name."""


def flat(settings: Mapping[str, Any], within: str = "") -> list[tuple[str, Any]]:
    """Nested settings as dotted names and values."""
    return [one for name, value in settings.items()
            for one in (flat(value, f"{within}{name}.") if isinstance(value, Mapping) and value else
                        [(f"{within}{name}", value)])]


def _missing(what: str, extra: str) -> TriviumError:
    """What is said where a tracker's package is not installed."""
    return TriviumError(f'`track` needs {what}: pip install "trivium[{extra}]"')
