from __future__ import annotations

import itertools
import random
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from trivium.errors import TriviumError
from trivium.world.answers import STYLES, respond
from trivium.world.panel import Panel, agreement, judge, preferences, ranking, rating

Row = dict[str, Any]
Judged = list[tuple[Row, list[str]]]


@pytest.fixture(scope="module")
def judged(preference: list[Row]) -> Judged:
    """Four answers to each of 300 prompts in the shares of the styles, about 65 % of them right."""
    rng = random.Random(0)

    def answer(row: Row) -> str:
        return respond(row, rng.choices(list(STYLES), list(STYLES.values()))[0], rng, rng.random() < 0.65)

    return [(row, [answer(row) for _ in range(4)]) for row in preference[:300]]


def rankings(panel: Panel, judged: Judged, annotator: str) -> list[list[list[int]]]:
    return [panel.rank(row, responses, annotator)["ranking"] for row, responses in judged]


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_two_annotators_agree_as_people_do(judged: Judged, seed: int) -> None:
    panel = Panel(seed)
    seen = [rankings(panel, judged, name) for name in panel.names]
    shares = [agreement(zip(a, b, strict=True)) for a, b in itertools.combinations(seen, 2)]
    assert 0.70 <= sum(shares) / len(shares) <= 0.76


def test_annotators_see_the_truth_through_noise(judged: Judged) -> None:
    truth = [judge(row, responses) for row, responses in judged]
    noisy, sharp = Panel(0), Panel(0, noise=0.0)
    for name in noisy.names:
        through_noise = agreement(zip(rankings(noisy, judged, name), truth, strict=True))
        through_taste = agreement(zip(rankings(sharp, judged, name), truth, strict=True))
        assert 0.75 < through_noise < through_taste <= 1.0
    assert len({tuple(weights.values()) for weights in noisy.weights.values()}) == 5


def test_a_judgement_is_a_pure_function(judged: Judged) -> None:
    row, responses = judged[0]
    first = Panel(0).rank(row, responses, 2)
    panel = Panel(0)
    panel.rank(row, responses, 0)
    assert panel.rank(row, responses, "annotator-2") == first
    assert Panel(1).impression(row, responses[0], "annotator-2") != panel.impression(row, responses[0], "annotator-2")


def test_order_of_the_responses_does_not_matter(judged: Judged) -> None:
    panel = Panel(0)
    for row, responses in judged[:50]:
        forward = panel.rank(row, responses, 0)
        backward = panel.rank(row, responses[::-1], 0)
        assert forward["ratings"] == backward["ratings"][::-1]
        assert preferences(forward["ranking"]) == {(3 - a, 3 - b) for a, b in preferences(backward["ranking"])}


def test_shape_of_a_judgement(judged: Judged) -> None:
    panel = Panel(0)
    for row, responses in judged[:50]:
        result = panel.rank(row, responses, 1)
        assert set(result) == {"ranking", "ratings", "annotator", "seconds"}
        assert sorted(itertools.chain(*result["ranking"])) == [0, 1, 2, 3]
        assert all(1 <= given_ <= 7 for given_ in result["ratings"])
        assert result["annotator"] == "annotator-1"
        assert 1 < result["seconds"] < 600


@given(st.lists(st.floats(-5, 10), max_size=8), st.floats(0, 1))
def test_ranking_orders_and_ties(points: list[float], margin: float) -> None:
    groups = ranking(points, margin)
    assert sorted(itertools.chain(*groups)) == list(range(len(points)))
    for above, below in itertools.pairwise(groups):
        assert min(points[i] for i in above) >= max(points[i] for i in below)
    for group in groups:
        assert max(points[i] for i in group) - min(points[i] for i in group) <= margin


def test_same_responses_tie_and_ratings_span_the_scale(judged: Judged) -> None:
    row, responses = judged[0]
    assert Panel(0).rank(row, [responses[0]] * 3, 0)["ranking"] == [[0, 1, 2]]
    assert [rating(points) for points in (-3.0, 0.0, 4.0, 8.0, 11.0)] == [1, 1, 4, 7, 7]


def test_agreement_counts_strict_pairs_only() -> None:
    assert agreement([([[0], [1]], [[0], [1]]), ([[0], [1]], [[1], [0]])]) == 0.5
    assert agreement([([[0], [1], [2]], [[0, 1], [2]])]) == 1.0
    assert agreement([([[0, 1]], [[0], [1]])]) is None  # a manifest has no place for a number that is none


def test_unknown_annotators_are_named(judged: Judged) -> None:
    with pytest.raises(TriviumError, match="annotator-0"):
        Panel(0, annotators=1).rank(*judged[0], "me")
    with pytest.raises(TriviumError, match="at least one"):
        Panel(0, annotators=0)
