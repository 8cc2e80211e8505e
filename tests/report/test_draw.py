"""Drawings: what is drawn is what was given."""

from __future__ import annotations

import re
import xml.etree.ElementTree as ET

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from trivium.report import draw
from trivium.report.draw import Series

WORDS = ("loss", "损失")
FINITE = st.floats(-1e9, 1e9, allow_nan=False)


@settings(max_examples=60, deadline=None)
@given(st.lists(st.tuples(FINITE, FINITE), min_size=1, max_size=400))
def test_any_line_is_well_formed_and_stays_in_its_frame(points):
    chart = str(draw.line_chart(WORDS, WORDS, WORDS, [Series("a", sorted(points))], key="k"))
    svg = ET.fromstring(re.search(r"<svg.*</svg>", chart, re.DOTALL)[0])
    for path in svg.iter("path"):
        for x, y in re.findall(r"(-?[\d.]+) (-?[\d.]+)", path.get("d")):
            assert 49.9 <= float(x) <= 368.1 and 13.9 <= float(y) <= 186.1
    assert "nan" not in chart


def test_numbers_stand_in_the_table_and_in_the_description():
    chart = str(draw.line_chart(WORDS, ("step", "步"), WORDS, [Series("run", [(0, 4.0), (1, 2.5)])], key="k"))
    assert "<td>4</td>" in chart and "<td>2.5</td>" in chart and "run: 4 → 2.5" in chart and 'role="img"' in chart
    assert draw.line_chart(WORDS, WORDS, WORDS, [Series("empty", [])], key="k") == ""


def test_long_lines_are_means_of_stretches():
    points = [(float(i), float(i % 2)) for i in range(1000)]
    thin = draw.thinned(points, 100)
    assert len(thin) == 100 and all(abs(y - 0.5) < 0.11 for _, y in thin)


@given(FINITE, st.floats(1e-6, 1e6))
def test_ticks_are_round_and_inside(low, wide):
    marks = draw.ticks(low, low + wide)
    assert len(marks) <= 12
    assert all(low - wide * 1e-3 - 1e-6 <= mark <= low + wide * 1.001 + 1e-6 for mark in marks) or len(marks) == 1


@pytest.mark.parametrize(("value", "text"), [(0, "0"), (0.2451, "0.245"), (1234, "1,234"), (672128, "672k"),
                                             (1.72e6, "1.72M"), (-3.0, "-3")])
def test_numbers_for_people(value, text):
    assert draw.number(value) == text


def test_a_graph_puts_everything_right_of_what_it_is_made_from():
    nodes = {name: ((name, name), "0123", 0) for name in ("c", "a", "b<x>")}
    drawn = str(draw.graph(nodes, [("a", "b<x>"), ("b<x>", "c"), ("a", "c")], WORDS))
    at = {name: float(re.search(rf'x="([\d.]+)"[^>]*>{name}<', drawn)[1]) for name in ("a", "b&lt;x&gt;", "c")}
    assert at["a"] < at["b&lt;x&gt;"] < at["c"] and "b<x>" not in drawn
