"""Small drawings as SVG: they print sharply, follow the page's colours and need no script.

Each drawing has a title and a description for those who hear the page, and its numbers stand in a table below it.
Colours are classes (``s0`` to ``s7``) that the page defines for light and dark.
"""

from __future__ import annotations

import itertools
import math
import re
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from markupsafe import Markup, escape

from trivium.report.formats import number
from trivium.report.texts import Pair, both, both_svg

LEFT, RIGHT, TOP, BOTTOM = 50, 368, 14, 186
"""The frame of a line chart, in units of its drawing."""


@dataclass(frozen=True)
class Series:
    """A line: its name, its points in order, and the class of its colour."""

    name: str | Pair
    """What it is called; a stage's or a model's name is the same in both languages."""
    points: list[tuple[float, float]]
    colour: int = 0
    marks: bool = False
    """Draw each point, with its value when pointed at."""

    @property
    def words(self) -> Pair:
        """Its name in both languages."""
        return (self.name, self.name) if isinstance(self.name, str) else self.name


def ticks(low: float, high: float, about: int = 4) -> list[float]:
    """Round numbers that cover a range, ``about`` so many."""
    if not math.isfinite(low + high) or high <= low:
        return [low]
    raw = (high - low) / about
    unit = 10 ** math.floor(math.log10(raw))
    step = next(unit * m for m in (1, 2, 2.5, 5, 10) if unit * m >= raw * 0.999)
    first = math.ceil(low / step - 1e-9)
    return [round(step * k, 12) for k in range(first, math.floor(high / step + 1e-9) + 1)]


def thinned(points: Sequence[tuple[float, float]], most: int = 240) -> list[tuple[float, float]]:
    """At most so many points: of each stretch the mean, so that noise does not look like a trend."""
    if len(points) <= most:
        return list(points)
    edges = [round(i * len(points) / most) for i in range(most + 1)]
    parts = [points[a:b] for a, b in itertools.pairwise(edges) if b > a]
    return [(math.fsum(x for x, _ in part) / len(part), math.fsum(y for _, y in part) / len(part)) for part in parts]


@dataclass(frozen=True)
class Frame:
    """Where the numbers of a line chart lie in its drawing."""

    x: tuple[float, float]
    y: tuple[float, float]

    def at(self, x: float, y: float) -> tuple[float, float]:
        """The place of a point."""
        (x0, x1), (y0, y1) = self.x, self.y
        return (round(LEFT + (x - x0) / (x1 - x0) * (RIGHT - LEFT), 1),
                round(BOTTOM - (y - y0) / (y1 - y0) * (BOTTOM - TOP), 1))

    def axes(self, x_words: Pair) -> str:
        """Grid, numbers and axis."""
        parts = []
        for y in ticks(*self.y):
            _, v = self.at(0.0, y)
            parts.append(f'<line class="grid" x1="{LEFT}" x2="{RIGHT}" y1="{v}" y2="{v}"/><text class="tick" '
                         f'x="{LEFT - 6}" y="{v + 4}" text-anchor="end">{number(y)}</text>')
        for x in ticks(*self.x, 5):
            u, _ = self.at(x, 0.0)
            parts.append(f'<text class="tick" x="{u}" y="{BOTTOM + 16}" text-anchor="middle">{number(x)}</text>')
        parts.append(f'<line class="axis" x1="{LEFT}" x2="{RIGHT}" y1="{BOTTOM}" y2="{BOTTOM}"/><text class="label" '
                     f'x="{(LEFT + RIGHT) / 2}" y="{BOTTOM + 34}" text-anchor="middle">{both_svg(*x_words)}</text>')
        return "".join(parts)

    def line(self, series: Series) -> str:
        """A line, and its points where they are to be seen."""
        places = [self.at(x, y) for x, y in series.points]
        drawn = f'<path class="line s{series.colour}" d="M{" L".join(f"{u} {v}" for u, v in places)}"/>'
        if series.marks or len(places) == 1:
            size = 3.4 if len(places) > 1 else 5.5
            drawn += "".join(
                f'<circle class="dot s{series.colour}" cx="{u}" cy="{v}" r="{size}">'
                f'<title>{escape(series.words[0])}: {number(x)}, {number(y)}</title></circle>'
                for (u, v), (x, y) in zip(places, series.points, strict=True))
        return drawn

    def label(self, point: tuple[float, float], text: str) -> str:
        """A text beside a point, inside the frame."""
        u, v = self.at(*point)
        side, anchor = (-6, "end") if u > RIGHT - 40 else (6, "start")
        return f'<text class="tick strong" x="{u + side}" y="{v - 6}" text-anchor="{anchor}">{escape(text)}</text>'


def _name(key: str) -> str:
    """A name for an element: a stage's name may hold spaces, quotes and markup, which no ``id`` may."""
    plain = re.sub(r"[^\w-]", "-", key)
    return plain if plain == key else f"{plain}-{zlib.crc32(key.encode('utf-8', 'surrogatepass')):08x}"


def line_chart(title: Pair, x_words: Pair, y_words: Pair, series: Sequence[Series], *, key: str, smooth: bool = True,
               labels: Mapping[tuple[float, float], str] | None = None) -> Markup:
    """Lines over a common pair of axes, 380 by 230, with its table of numbers; empty without any point. ``labels``
    stand at points."""
    drawn = [replace(one, points=thinned(one.points)) if smooth else one for one in series if one.points]
    if not drawn:
        return Markup("")
    frame = Frame(_range([x for one in drawn for x, _ in one.points], 0.0),
                  _range([y for one in drawn for _, y in one.points], 0.06))
    key = _name(key)
    parts = [frame.axes(x_words), *map(frame.line, drawn),
             *(frame.label(point, text) for point, text in (labels or {}).items())]
    legend = _legend(drawn) if len(drawn) > 1 and not labels else Markup("")
    said = "; ".join(f"{one.words[0]}: {number(one.points[0][1])} → {number(one.points[-1][1])}" for one in drawn)
    svg = Markup(
        f'<svg viewBox="0 0 380 226" role="img" aria-labelledby="{key}-t {key}-d"><title '
        f'id="{key}-t">{escape(title[0])}</title><desc id="{key}-d">'
        f'{escape(y_words[0])} by {escape(x_words[0])}. {escape(said)}</desc>{"".join(parts)}</svg>')
    table = _table([x_words, *(one.words for one in drawn)], _joined(drawn))
    return Markup('<figure class="chart"><figcaption>{}</figcaption>{}{}{}</figure>').format(
        both(*title), svg, legend, table)


def _legend(series: Sequence[Series]) -> Markup:
    names = (Markup('<span><i class="s{}"></i>{}</span>').format(one.colour, both(*one.words)) for one in series)
    return Markup('<p class="legend">{}</p>').format(Markup(" ").join(names))


def _range(values: Sequence[float], margin: float) -> tuple[float, float]:
    low, high = min(values), max(values)
    if high - low < 1e-12:
        wide = abs(low) * 0.1 or 1.0
        return low - wide, high + wide
    wide = (high - low) * margin
    return low - wide, high + wide


def _joined(series: Sequence[Series]) -> list[list[str]]:
    """The lines' numbers as rows by x, some two dozen."""
    rows = {x: [number(x)] + [""] * len(series) for one in series for x, _ in _some(one.points)}
    for place, one in enumerate(series, 1):
        for x, y in _some(one.points):
            rows[x][place] = number(y)
    return [rows[x] for x in sorted(rows)]


def _some(points: Sequence[tuple[float, float]], most: int = 24) -> list[tuple[float, float]]:
    return list(points) if len(points) <= most else [
        points[round(i * (len(points) - 1) / (most - 1))] for i in range(most)
    ]


def _table(head: Sequence[Pair], rows: Sequence[Sequence[str]]) -> Markup:
    """The numbers behind a drawing."""
    top = Markup("").join(Markup("<th scope=col>{}</th>").format(both(*words)) for words in head)
    body = Markup("").join(
        Markup("<tr>{}</tr>").format(Markup("").join(Markup("<td>{}</td>").format(cell) for cell in row))
        for row in rows)
    return Markup(
        '<details class="data"><summary>{}</summary><div '
        'class="scroll"><table><thead><tr>{}</tr></thead><tbody>{}</tbody></table></div></details>'
    ).format(both("numbers", "数据"), top, body)


def track(value: float, low: float, high: float, colour: int = 0, *, start: float = 0.0, end: float = 1.0,
          reference: float | None = None, diamond: float | None = None) -> Markup:
    """A value and its interval on a line from ``start`` to ``end``; ``reference`` is a tick across it. The numbers are
    said beside it."""
    def at(x: float) -> float:
        return round(min(1.0, max(0.0, (x - start) / (end - start))) * 100, 2)

    across = (f'<line class="reference" x1="{at(reference)}%" x2="{at(reference)}%" y1="0" y2="22"/>'
              if reference is not None else "")
    extra = (f'<rect class="dot hollow s{colour}" x="{at(diamond)}%" y="7" width="8" height="8" '
             'transform="translate(-4 0)"/>' if diamond is not None else "")
    return Markup(
        '<svg class="track" aria-hidden="true" height="22" width="100%"><line class="grid" x1="0" x2="100%" y1="11" '
        f'y2="11"/>{across}'
        f'<line class="whisker s{colour}" x1="{at(low)}%" x2="{at(high)}%" y1="11" y2="11"/>{extra}<circle class="dot '
        f's{colour}" cx="{at(value)}%" cy="11" r="5"/></svg>'
    )


def scale(start: float = 0.0, end: float = 1.0, steps: int = 4) -> Markup:
    """The numbers along a column of tracks, in per cent."""
    parts = []
    for k in range(steps + 1):
        optional, anchor = (" optional", "middle") if 0 < k < steps else ("", "end" if k else "start")
        text = f"{(start + (end - start) * k / steps) * 100:.0f}{' %' if k == steps else ''}"
        parts.append(f'<text class="tick{optional}" x="{100 * k / steps}%" y="11" text-anchor="{anchor}">{text}</text>')
    return Markup(f'<svg class="track" aria-hidden="true" height="14" width="100%">{"".join(parts)}</svg>')


def bar(share: float, colour: int = 0, start: float = 0.0) -> Markup:
    """A bar over ``share`` of a line, from ``start``."""
    return Markup(
        '<svg class="track" aria-hidden="true" height="16" width="100%"><rect class="groove" width="100%" height="16" '
        'rx="3"/>'
        f'<rect class="bar s{colour}" x="{round(start * 100, 2)}%" width="{max(0.35, round(share * 100, 2))}%" '
        'height="16" rx="2"/></svg>'
    )


def graph(nodes: Mapping[str, tuple[Pair, str, int]], edges: Sequence[tuple[str, str]], title: Pair) -> Markup:
    """A graph in layers, each node to the right of all that it is made from. ``nodes``: name → (words, small print,
    colour)."""
    above: dict[str, list[str]] = {name: [a for a, b in edges if b == name and a in nodes] for name in nodes}
    layer: dict[str, int] = {}

    def depth(name: str, path: tuple[str, ...] = ()) -> int:
        if name not in layer:
            layer[name] = max((depth(parent, (*path, name)) + 1 for parent in above[name] if parent not in path),
                              default=0)
        return layer[name]

    for name in nodes:
        depth(name)
    columns: list[list[str]] = [[name for name in nodes if layer[name] == column]
                                for column in range(max(layer.values(), default=0) + 1)]
    place: dict[str, float] = {}
    tallest = max(map(len, columns))
    for column in columns:  # each node as near as can be to the middle of what it is made from
        column.sort(key=lambda name: (sum(place[parent] for parent in above[name]) / len(above[name])
                                      if above[name] else 0.0, name))
        for row, name in enumerate(column):
            place[name] = row + (tallest - len(column)) / 2
    wide, high, gap, lead = max(88, 20 + 7.6 * max(map(len, nodes), default=0)), 44, 30, 18
    width, height = round(len(columns) * (wide + gap) - gap + 2), tallest * (high + lead) - lead + 4

    def corner(name: str) -> tuple[float, float]:
        return round(1 + layer[name] * (wide + gap), 1), round(1 + place[name] * (high + lead), 1)

    parts = []
    for a, b in dict.fromkeys(edges):
        if a in nodes and b in nodes:
            (x, y), (u, v) = corner(a), corner(b)
            x, y, v = x + wide, y + high / 2, v + high / 2
            bend = max(gap * 0.6, (u - x) * 0.5)
            parts.append(
                f'<path class="edge" d="M{x} {y} C{x + bend} {y} {u - bend} {v} {u} {v}"><title>{escape(a)} → '
                f'{escape(b)}</title></path>'
            )
    for name, (words, small, colour) in nodes.items():
        x, y = corner(name)
        parts.append(
            f'<g><rect class="node s{colour}" x="{x}" y="{y}" width="{wide}" height="{high}" rx="7"/><text '
            f'class="name" x="{x + 9}" y="{y + 18}">{escape(name)}</text>'
            f'<text class="tick mono" x="{x + 9}" y="{y + 34}">{escape(small)}</text><title>{escape(words[0])} / '
            f'{escape(words[1])}</title></g>'
        )
    said = "; ".join(f"{name} is made from {', '.join(above[name])}" for name in nodes if above[name])
    return Markup(
        f'<div class="scroll" tabindex="0"><svg class="graph" style="--width:{width}px" viewBox="0 0 {width} {height}" '
        f'role="img" aria-label="{escape(title[0])}: {escape(said)}">'
        f'{"".join(parts)}</svg></div>')
