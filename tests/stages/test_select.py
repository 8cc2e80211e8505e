"""Rejection sampling."""

from __future__ import annotations

import json

from tiny import context

from trivium.stages.preferences.select import Select


def test_the_best_of_many_is_selected(school, tmp_path):
    place, _ = context(school, tmp_path)
    summary = Select(samples=4, count=20, skip=10, max_new_tokens=12, length=64).run(place)
    rows = [json.loads(line) for line in (tmp_path / "demonstrations.jsonl").read_text().splitlines()]
    assert summary["kept"] == len(rows) and summary["mean_gain"] >= 0
    ids = [row["id"] for row in rows]
    assert set(ids) <= {f"p{(10 + n) % 24}" for n in range(20)} and len(set(ids)) == len(ids)
    for row in map(json.loads, (tmp_path / "comparisons.jsonl").read_text().splitlines()):
        assert row["responses"][0] != row["responses"][1] and row["ranking"] == [[0], [1]]
