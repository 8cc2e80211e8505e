"""Win rates: ties, prompts that stand together, and length."""

from __future__ import annotations

import pytest

from trivium.evaluation.win_rates import win_rates, wins_by_points


def test_more_points_win_and_as_many_are_a_tie():
    assert wins_by_points([2.0, 1.0, 0.5], [1.0, 1.0, 0.75], ["a", "b", "c"], ["d", "e", "f"]) == [1.0, 0.5, 0.0]


def test_the_same_text_is_a_tie_whatever_rounding_says():
    assert wins_by_points([1.0, 1.0], [1.0 + 1e-7, 1.0 + 1e-7], ["yes", "yes"], ["yes", "no"]) == [0.5, 0.0]


def test_samples_of_one_prompt_say_less_than_as_many_prompts():
    wins, answers, others = [1.0] * 8 + [0.0] * 8, ["abc"] * 16, ["abc"] * 16
    apart = win_rates(wins, answers, others, draws=20)["win_rate"]
    together = win_rates(wins, answers, others, [number // 8 for number in range(16)], draws=20)["win_rate"]
    assert apart["value"] == together["value"] == 0.5 and (apart["n"], together["n"]) == (16, 2)
    assert together["high"] - together["low"] > apart["high"] - apart["low"]


def test_the_length_controlled_rate_takes_away_what_length_alone_won():
    answers, others = ["long answer"] * 30 + ["short"] * 10, ["short"] * 30 + ["long answer"] * 10
    rates = win_rates([1.0] * 30 + [0.0] * 10, answers, others, draws=20)
    assert rates["win_rate"]["value"] == 0.75
    assert rates["length_controlled"]["value"] == pytest.approx(0.5, abs=0.15) and rates["length_controlled"]["phi"] > 1
