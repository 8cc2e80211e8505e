"""What the lessons share: examples in a table, batches of them, the loss of a classifier, and the page that shows a
lesson.

All of it plugs into the loop that trains language models (:func:`trivium.training.loop.train`): a lesson brings a
network, an objective that returns sums, and batches that are a pure function of the step.
"""

from __future__ import annotations

import html
import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar, TypeAlias

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from trivium import randomness
from trivium.errors import missing
from trivium.files import read_rows, write_json, write_text
from trivium.stage import Context
from trivium.training.loop import Evaluation, Outcome, train
from trivium.training.objective import Total
from trivium.training.optimizers import Optimization


@dataclass
class Table:
    """Examples: a row of numbers each, and what should come out."""

    inputs: Tensor
    """``[N, ...]``"""
    targets: Tensor
    """``[N]`` the right class (int64), or ``[N]`` the right number (float32)."""
    unit: ClassVar[str] = "examples"
    counts: dict[str, float] = field(default_factory=dict)
    """The number of examples."""

    def __post_init__(self) -> None:
        self.counts = self.counts or {"examples": float(len(self.targets))}

    @property
    def size(self) -> int:
        """Examples."""
        return len(self.targets)

    @property
    def real(self) -> int:
        """Examples: there is no padding."""
        return len(self.targets)

    def to(self, device: torch.device) -> Table:
        """The same table on another device."""
        return Table(self.inputs.to(device), self.targets.to(device), counts=self.counts)

    def rows(self, chosen: Any) -> Table:
        """Some of the rows."""
        return Table(self.inputs[chosen], self.targets[chosen])


class Epochs:
    """Batches of ``size`` examples, a pure function of the step: each epoch goes through all examples once, in an order
    of its own. ``change`` may alter a batch, given the step as well (augmentation)."""

    def __init__(self, table: Table, size: int, seed: int, change: Callable[[Table, int],
                                                                            Table] = lambda batch, step: batch) -> None:
        self.table, self.batch, self.seed, self.change = table, min(size, len(table.targets)), seed, change
        self.steps_per_epoch = math.ceil(len(table.targets) / self.batch)

    def __call__(self, step: int, part: int = 0, parts: int = 1, rows: int | None = None) -> list[Table]:
        """The slice ``part`` of ``parts`` of the batch at a step."""
        epoch, within = divmod(step, self.steps_per_epoch)
        order = torch.from_numpy(randomness.numpy(self.seed, "order", epoch).permutation(len(self.table.targets)))
        chosen = order[within * self.batch:(within + 1) * self.batch][part::parts]
        return [self.change(self.table.rows(chosen), step)]


class Classification:
    """Softmax and cross-entropy: the mean over examples of ``-log p(right class)``, in nats, and how often the
    likeliest class is the right one."""

    weights = {"loss": 1.0}

    def __call__(self, model: Any, batch: Table) -> dict[str, Total]:
        """Sums over the examples."""
        logits = model(batch.inputs)
        loss = F.cross_entropy(logits, batch.targets, reduction="sum")
        return {"loss": Total(loss, "examples"),
                "accuracy": Total((logits.argmax(-1) == batch.targets).float().sum(), "examples")}


def learn(model: nn.Module, objective: Any, batches: Any, steps: int, settings: Optimization, context: Context,
          name: str, heldout: Sequence[Any] = (), evaluate_every: int = 0) -> Outcome:
    """Train ``model`` with the one loop, under ``name``: its curve goes to ``NAME/log.jsonl`` of the lesson's folder,
    its checkpoints to a folder of their own, so that a killed lesson goes on where it was."""
    context.progress.say(f"{name}: {sum(p.numel() for p in model.parameters()):,} parameters, {steps} steps")
    (context.folder / name).mkdir(parents=True, exist_ok=True)
    return train(model, objective, batches, steps, settings, scratch=context.scratch / name,
                 log=context.folder / name / "log.jsonl", fingerprint=str(
                     randomness.derive(context.seed, name, repr(settings), steps)), precision="float32",
                 evaluation=Evaluation(evaluate_every, (lambda part, parts: heldout) if heldout else None),
                 progress=lambda done, total, text: context.progress.update(done, total, f"{name}  {text}"))


def curve(context: Context, name: str, key: str) -> tuple[list[int], list[float]]:
    """A logged quantity of a training: steps done, and values."""
    points = [(row["step"] + 1, row[key]) for _, row in read_rows(context.folder / name / "log.jsonl")
              if isinstance(row.get(key), (int, float))]
    return [x for x, _ in points], [y for _, y in points]


def initialise(model: nn.Module, seed: int) -> nn.Module:
    """Random weights of deviation ``sqrt(2 / inputs)`` (He et al. 2015), zero biases, that depend on the seed alone."""
    generator = torch.Generator().manual_seed(seed % 2**63)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.ndim > 1:
                parameter.normal_(0.0, math.sqrt(2 / parameter.shape[1]), generator=generator)
            else:
                parameter.zero_()
    return model


@dataclass(frozen=True)
class Text:
    """A paragraph of a lesson's page; ``code`` is shown as it is."""

    text: str
    code: bool = False


@dataclass(frozen=True)
class Heading:
    """A heading of a lesson's page."""

    text: str


@dataclass(frozen=True)
class Rows:
    """A table of a lesson's page."""

    head: Sequence[str]
    rows: Sequence[Sequence[Any]]


@dataclass(frozen=True)
class Raw:
    """A drawing of our own (SVG), whose text is already escaped."""

    html: str


Piece: TypeAlias = Any
"""A part of a page: :class:`Text`, :class:`Heading`, :class:`Rows`, :class:`Raw`, or a figure of plotly."""

STYLE = """:root{color-scheme:light dark}body{font:17px/1.6 system-ui,sans-serif;max-width:54rem;margin:2rem auto;padding:0 1rem}
table{border-collapse:collapse;margin:1rem 0}td,th{text-align:left;padding:.25rem .8rem;border-bottom:1px solid #8884}
pre{background:#8881;padding:.8rem 1rem;border-radius:.4rem;overflow:auto}h1{margin-bottom:0}h2{margin-top:2.2rem}"""


def plotly() -> Any:
    """The library's module ``graph_objects``. Raises :class:`TriviumError` where it is not installed."""
    try:
        import plotly.graph_objects
    except ImportError as error:
        raise missing("lessons", error) from error
    return plotly.graph_objects


def write_page(context: Context, title: str, pieces: Iterable[Piece]) -> None:
    """Write ``index.html``: one file that needs no network. All text is escaped."""
    plotly()
    from plotly.offline import get_plotlyjs
    body = []
    for piece in pieces:
        if isinstance(piece, Heading):
            body.append(f"<h2>{html.escape(piece.text)}</h2>")
        elif isinstance(piece, Text):
            tag = "pre" if piece.code else "p"
            body.append(f"<{tag}>{html.escape(piece.text)}</{tag}>")
        elif isinstance(piece, Rows):
            head = "".join(f"<th>{html.escape(str(cell))}</th>" for cell in piece.head)
            rows = "".join("<tr>" + "".join(f"<td>{html.escape(str(cell))}</td>" for cell in row) + "</tr>"
                           for row in piece.rows)
            body.append(f"<table><tr>{head}</tr>{rows}</table>")
        elif isinstance(piece, Raw):
            body.append(piece.html)
        else:
            piece.update_layout(template="plotly_white", height=380, margin={"l": 70, "r": 20, "t": 30, "b": 50},
                                paper_bgcolor="rgba(0,0,0,0)", plot_bgcolor="rgba(0,0,0,0)", font={"color": "#888"},
                                legend={"orientation": "h", "y": 1.12})
            body.append(
                piece.to_html(full_html=False, include_plotlyjs=False,
                              config={"displaylogo": False, "displayModeBar": False, "responsive": True}))
    write_text(
        context.folder / "index.html", f'<!doctype html><html lang="en"><meta charset="utf-8">'
        f'<meta name="viewport" content="width=device-width"><title>{html.escape(title)} – '
        f'Trivium</title><style>{STYLE}</style>'
        f"<script>{get_plotlyjs()}</script><h1>{html.escape(title)}</h1>{''.join(body)}</html>")


def write_numbers(context: Context, numbers: dict[str, Any]) -> dict[str, Any]:
    """Write ``numbers.json`` and hand the numbers back."""
    write_json(context.folder / "numbers.json", numbers)
    return numbers


def lines(named: dict[str, tuple[Sequence[float], Sequence[float]]], x: str, y: str, log: bool = False,
          log_x: bool = False) -> Any:
    """Curves in one drawing."""
    go = plotly()
    return go.Figure([go.Scatter(x=list(xs), y=list(ys), name=name, mode="lines") for name, (xs, ys) in named.items()],
                     {"xaxis": {"title": {"text": x}, "type": "log" if log_x else "linear"},
                      "yaxis": {"title": {"text": y}, "type": "log" if log else "linear"}})


def split(count: int, share: float, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Places of the training and of the held-out examples, by a permutation that the seed decides."""
    order = randomness.numpy(seed, "heldout").permutation(count)
    cut = round(count * (1 - share))
    return order[:cut], order[cut:]


def saved(model: nn.Module, path: Path) -> None:
    """Write a network's weights as safetensors."""
    from safetensors.torch import save_file

    from trivium.files import written_aside
    with written_aside(path) as aside:
        save_file({name: value.contiguous() for name, value in model.state_dict().items()}, str(aside))
