"""The page that shows a lesson: text, tables and drawings in one file, in English and Chinese."""

from __future__ import annotations

import html
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

from trivium.errors import extra
from trivium.files import write_json, write_text
from trivium.stage import Context

with extra("lessons"):
    import plotly.graph_objects as go
    from plotly.offline import get_plotlyjs


Words: TypeAlias = str | tuple[str, str]
"""What a page says: in English and in Chinese, or the same in both."""


@dataclass(frozen=True)
class Text:
    """A paragraph of a lesson's page; ``code`` is shown as it is."""

    text: Words
    code: bool = False


@dataclass(frozen=True)
class Heading:
    """A heading of a lesson's page."""

    text: Words


@dataclass(frozen=True)
class Table:
    """A table of a lesson's page."""

    head: Sequence[Words]
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
pre{background:#8881;padding:.8rem 1rem;border-radius:.4rem;overflow:auto}h1{margin-bottom:0}h2{margin-top:2.2rem}
#language{float:right;font:inherit;color:inherit;background:none;border:1px solid #8888;border-radius:.4rem}
#language{padding:.2rem .7rem;cursor:pointer}
:root:not([data-chinese]) span[lang="zh-Hans"],[data-chinese] span[lang="en"]{display:none}"""

SWITCH = """
const root = document.documentElement, button = document.getElementById("language");
function speak(chinese) {
  root.toggleAttribute("data-chinese", chinese);
  root.lang = chinese ? "zh-Hans" : "en";
  document.title = TITLE[Number(chinese)] + " – Trivium";
  button.textContent = chinese ? "English" : "中文";
  button.lang = chinese ? "en" : "zh-Hans";
  for (const drawing of document.querySelectorAll(".js-plotly-plot")) {
    const words = drawing.layout.meta, named = words?.names;
    if (!words) continue;
    Plotly.update(drawing, named ? { name: named.map((pair) => pair[Number(chinese)]) } : {}, {
      "xaxis.title.text": words.x[Number(chinese)], "yaxis.title.text": words.y[Number(chinese)] });
  }
}
button.hidden = false;
button.addEventListener("click", () => speak(!root.hasAttribute("data-chinese")));
if ((navigator.language || "").startsWith("zh")) speak(true);
"""
"""What the button for the other language does; drawings keep their words in both in ``layout.meta``."""


def spoken(words: Any) -> str:
    """Words in both languages, escaped; anything else as it is written."""
    if isinstance(words, tuple):
        return f'<span lang="en">{html.escape(words[0])}</span><span lang="zh-Hans">{html.escape(words[1])}</span>'
    return html.escape(str(words))


def write_page(context: Context, title: Words, pieces: Iterable[Piece]) -> None:
    """Write ``index.html``: one file that needs no network. All text is escaped. A button changes the language, where
    the title is in two."""
    body = []
    for piece in pieces:
        if isinstance(piece, Heading):
            body.append(f"<h2>{spoken(piece.text)}</h2>")
        elif isinstance(piece, Text):
            tag = "pre" if piece.code else "p"
            body.append(f"<{tag}>{spoken(piece.text)}</{tag}>")
        elif isinstance(piece, Table):
            head = "".join(f"<th>{spoken(cell)}</th>" for cell in piece.head)
            rows = "".join("<tr>" + "".join(f"<td>{spoken(cell)}</td>" for cell in row) + "</tr>"
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
    button = script = ""
    if isinstance(title, tuple):
        button = '<button id="language" type="button" lang="zh-Hans" hidden>中文</button>'
        script = f"<script>const TITLE = {json.dumps(title, ensure_ascii=False)};{SWITCH}</script>"
    english = title if isinstance(title, str) else title[0]
    write_text(
        context.folder / "index.html", f'<!doctype html><html lang="en"><meta charset="utf-8">'
        f'<meta name="viewport" content="width=device-width"><title>{html.escape(english)} – '
        f'Trivium</title><style>{STYLE}</style>'
        f"<script>{get_plotlyjs()}</script>{button}<h1>{spoken(title)}</h1>{''.join(body)}{script}</html>")


def write_numbers(context: Context, numbers: dict[str, Any]) -> dict[str, Any]:
    """Write ``numbers.json`` and hand the numbers back."""
    write_json(context.folder / "numbers.json", numbers)
    return numbers


def lines(named: dict[str, tuple[Sequence[float], Sequence[float]]], x: Words, y: Words, log: bool = False,
          log_x: bool = False, chinese: Mapping[str, str] | None = None) -> go.Figure:
    """Curves in one drawing; ``chinese`` are their names in Chinese, where they are others."""
    figure = go.Figure([go.Scatter(x=list(xs), y=list(ys), name=name, mode="lines")
                        for name, (xs, ys) in named.items()],
                       {"xaxis": {"type": "log" if log_x else "linear"}, "yaxis": {"type": "log" if log else "linear"}})
    return titled(figure, x, y, chinese)


def titled(figure: go.Figure, x: Words, y: Words, chinese: Mapping[str, str] | None = None) -> go.Figure:
    """A drawing with its axes' titles, and its curves' names in Chinese. It keeps the words in both languages."""
    (x, x_chinese), (y, y_chinese) = ((one, one) if isinstance(one, str) else one for one in (x, y))
    meta: dict[str, Any] = {"x": [x, x_chinese], "y": [y, y_chinese]}
    names = [curve.name for curve in figure.data]
    if any(names):
        meta["names"] = [[name, (chinese or {}).get(name, name)] for name in names]
    return figure.update_layout(xaxis_title_text=x, yaxis_title_text=y, meta=meta)
