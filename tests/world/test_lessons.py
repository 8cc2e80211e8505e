from __future__ import annotations

import random
import re
from collections import Counter

from hypothesis import given
from hypothesis import strategies as st

from trivium.world.exercises import (
    ASKED,
    PURPOSES,
    TOLD,
    draw_for,
    draw_pair,
    draw_review,
    draw_snippet,
    draw_sum,
    purpose_of,
)
from trivium.world.town import Town

seeds = st.integers(0, 10**9)


@given(seeds)
def test_sums_and_their_steps_are_right(seed: int) -> None:
    drawn = draw_sum(random.Random(seed))
    assert 0 < drawn.result < 200
    for step in drawn.steps:
        left, right = step.split(" = ")
        assert eval(left) == int(right)
    assert drawn.steps[-1].endswith(f"= {drawn.result}")
    assert eval(drawn.text) == drawn.result


@given(seeds)
def test_snippets_evaluate_to_their_value(seed: int) -> None:
    snippet = draw_snippet(random.Random(seed))
    value = eval(snippet.expression)
    assert snippet.value == (f'"{value}"' if isinstance(value, str) else repr(value))
    assert snippet.expression in snippet.spellings
    assert all(eval(spelling) == value for spelling in snippet.spellings)


@given(seeds)
def test_pairs_differ_in_wording_and_turn_exactly_one_word(seed: int) -> None:
    pair = draw_pair(Town(1, 8, 8, 8, 8), random.Random(seed))
    assert pair.first != pair.second
    old, new = re.findall(r'"([^"]+)"', pair.reason)
    assert old in pair.first.lower()
    assert new in pair.second.lower()
    assert any(words in pair.reason for words in ("another way", "as much as", "stand for")) == pair.same
    assert max(len(pair.first.split()), len(pair.second.split())) <= 9


def test_nothing_on_the_surface_tells_pairs_apart() -> None:
    town, rng = Town(1, 8, 8, 8, 8), random.Random(0)
    shared: dict[bool, list[int]] = {True: [], False: []}
    for _ in range(3000):
        pair = draw_pair(town, rng)
        a, b = (set(re.findall(r"\w+", text.lower())) for text in (pair.first, pair.second))
        shared[pair.same].append(len(a & b))
    same, different = (sum(counts) / len(counts) for counts in (shared[True], shared[False]))
    assert abs(same - different) < 0.9
    assert abs(len(shared[True]) / 3000 - 0.5) < 0.04


@given(seeds, st.sampled_from([ASKED, TOLD]))
def test_reviews_do_not_say_their_verdict(seed: int, forms: tuple[str, ...]) -> None:
    review = draw_review(random.Random(seed), forms)
    assert "positive" not in review.text
    assert "negative" not in review.text
    assert review.text[0].isupper()
    assert review.text.endswith(".")
    assert len(review.text.split()) <= 18


def test_each_key_has_one_purpose_in_known_shares() -> None:
    owners = Counter(purpose_of(3, f"key {i}") for i in range(5000))
    assert set(owners) == set(PURPOSES)
    assert abs(owners["evaluation"] / 5000 - 0.17) < 0.02
    assert purpose_of(3, "a") == purpose_of(3, "a")


def test_draw_for_keeps_to_its_purposes() -> None:
    rng = random.Random(0)
    for _ in range(200):
        drawn = draw_for(3, ("evaluation",), lambda: draw_sum(rng), lambda sum_: sum_.key)
        assert purpose_of(3, drawn.key) == "evaluation"
