"""The page that shows a lesson: text, tables and drawings in one file."""

from __future__ import annotations

import html
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

from trivium.errors import extra
from trivium.files import write_json, write_text
from trivium.stage import Context

with extra("lessons"):
    import plotly.graph_objects as go
    from plotly.offline import get_plotlyjs


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
class Table:
    """A table of a lesson's page."""

    head: Sequence[str]
    rows: Sequence[Sequence[Any]]


@dataclass(frozen=True)
class Raw:
    """A drawing of our own (SVG), whose text is already escaped."""

    html: str


Piece: TypeAlias = Any
"""A part of a page: :class:`Text`, :class:`Heading`, :class:`Table`, :class:`Raw`, or a figure of plotly."""

STYLE = """:root{color-scheme:light dark}
body{font:17px/1.6 system-ui,sans-serif;max-width:54rem;margin:2rem auto;padding:0 1rem}
table{border-collapse:collapse;margin:1rem 0}td,th{text-align:left;padding:.25rem .8rem;border-bottom:1px solid #8884}
pre{background:#8881;padding:.8rem 1rem;border-radius:.4rem;overflow:auto}h1{margin-bottom:0}h2{margin-top:2.2rem}"""


def write_page(context: Context, title: str, pieces: Iterable[Piece]) -> None:
    """Write ``index.html``: one file that needs no network. All text is escaped."""
    body = []
    for piece in pieces:
        if isinstance(piece, Heading):
            body.append(f"<h2>{html.escape(piece.text)}</h2>")
        elif isinstance(piece, Text):
            tag = "pre" if piece.code else "p"
            body.append(f"<{tag}>{html.escape(piece.text)}</{tag}>")
        elif isinstance(piece, Table):
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
          log_x: bool = False) -> go.Figure:
    """Curves in one drawing."""
    return go.Figure([go.Scatter(x=list(xs), y=list(ys), name=name, mode="lines") for name, (xs, ys) in named.items()],
                     {"xaxis": {"title": {"text": x}, "type": "log" if log_x else "linear"},
                      "yaxis": {"title": {"text": y}, "type": "log" if log else "linear"}})
