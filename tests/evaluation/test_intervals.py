"""Intervals against scipy, and how often they hold the truth."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from trivium.evaluation.statistics import (
    bootstrap,
    length_controlled,
    logistic,
    mean_difference,
    mean_with_interval,
    rate,
    ratio_bootstrap,
)
from trivium.evaluation.win_rates import win_rates
from trivium.intervals import effective_number, mean_interval, student_t, wilson

SHARES = st.lists(st.floats(0, 1), min_size=1, max_size=12)


def width(found):
    return found["high"] - found["low"]


@given(st.integers(0, 40), st.integers(0, 40))
def test_yes_and_no_have_wilsons_interval(right, wrong):
    found = mean_interval([1.0] * right + [0.0] * wrong)
    if right + wrong:
        theirs = stats.binomtest(right, right + wrong).proportion_ci(method="wilson")
        assert (found["low"], found["high"]) == pytest.approx((theirs.low, theirs.high), abs=1e-9)
        assert found["method"] == "Wilson"


@pytest.mark.parametrize("freedom", [1, 2, 3, 4, 7, 20, 300])
def test_quantiles_of_t(freedom):
    assert student_t(freedom) == pytest.approx(stats.t.ppf(0.975, freedom), rel=1.5e-3)


@settings(deadline=None, max_examples=40)
@given(SHARES, st.data())
def test_no_interval_is_empty_and_each_holds_its_value(values, data):
    clusters = data.draw(st.lists(st.integers(0, 3), min_size=len(values), max_size=len(values)))
    others = data.draw(st.lists(st.floats(0, 1), min_size=len(values), max_size=len(values)))
    texts = ["a" * one for one in clusters]
    for found in (rate(values), rate(values, clusters), mean_with_interval(values, 0, clusters),
                  mean_difference(values, others, 0, clusters), mean_difference(values, values),
                  *win_rates(values, texts, ["aa"] * len(values), clusters, draws=20).values(),
                  *win_rates(values, texts, ["aa"] * len(values), draws=20).values()):
        assert found["low"] - 1e-9 <= found["value"] <= found["high"] + 1e-9 and found["method"]
        spread = np.ptp(values) if len(values) > 1 else 0.0
        assert width(found) > (0.05 if spread in (0.0, 1.0) else 0)


def test_constant_samples_say_how_few_they_are():
    for value in (0.0, 0.3, 0.5, 1.0):
        found = [rate([value] * n) for n in (1, 4, 20, 400)]
        assert [width(one) for one in found] == sorted((width(one) for one in found), reverse=True)
        assert width(found[0]) > 0.7 and 0.1 < width(found[2]) < 0.2 and width(found[3]) < 0.011
    assert rate([1.0] * 6, "aabbcc")["low"] == wilson(3, 3)[0]  # three prompts, not six answers
    assert mean_difference([1.0] * 9, [1.0] * 9)["high"] == pytest.approx(wilson(0, 9)[1])


def test_wins_of_one_prompt_and_of_constant_ones_have_width():
    for wins, clusters in (([1.0], None), ([1.0] * 6, [0] * 6), ([1.0, 1.0], None), ([0.5] * 3, None)):
        for found in win_rates(wins, ["abc"] * len(wins), ["ab"] * len(wins), clusters, draws=20).values():
            assert width(found) > 0.4 and found["n"] == len(set(clusters or range(len(wins))))


def test_answers_to_one_prompt_count_as_one_everywhere():
    rng = np.random.default_rng(0)
    wins = np.repeat((rng.random(30) < 0.6).astype(float), 8).tolist()
    prompts = np.repeat(np.arange(30), 8).tolist()
    lengths = rng.integers(1, 40, 240)
    texts, others = ["x" * int(n) for n in lengths], ["x" * 20] * 240
    together, apart = (win_rates(wins, texts, others, clusters, draws=60) for clusters in (prompts, None))
    for key in ("win_rate", "length_controlled"):
        assert together[key]["n"] == 30 and apart[key]["n"] == 240
        assert width(together[key]) > 2 * width(apart[key])
    alone = win_rates(wins[::8], texts[::8], others[::8], draws=60)["win_rate"]
    assert width(together["win_rate"]) == pytest.approx(width(alone), rel=0.06)


def test_the_bootstrap_is_scipys_bca():
    values = np.random.default_rng(1).exponential(3.0, 60)
    ours = bootstrap(values.tolist(), draws=20_000)
    theirs = stats.bootstrap((values,), np.mean, n_resamples=20_000, method="BCa",
                             random_state=2).confidence_interval
    assert (ours["low"], ours["high"]) == pytest.approx((theirs.low, theirs.high), abs=0.04)
    assert ours["method"] == "BCa"
    weights = np.random.default_rng(2).integers(1, 9, 60).astype(float)
    ratio = ratio_bootstrap(values * weights, weights, draws=20_000)
    theirs = stats.bootstrap((values * weights, weights), lambda a, b, axis: a.sum(axis) / b.sum(axis), paired=True,
                             n_resamples=20_000, method="BCa", random_state=3).confidence_interval
    assert (ratio["low"], ratio["high"]) == pytest.approx((theirs.low, theirs.high), abs=0.05)


def test_the_effective_number_is_that_of_independent_answers():
    rng = np.random.default_rng(3)
    answers = (rng.random(4000) < 0.3).astype(float)
    assert effective_number(answers.tolist(), [1.0] * 4000) == pytest.approx(4000, rel=0.01)
    assert effective_number((answers * 5).tolist(), [5.0] * 4000) == pytest.approx(4000, rel=0.01)


def drawn(rng, prompts, samples, kind):
    """Wins of clusters of answers, by the mean that all of them have."""
    easy = rng.beta(0.6, 0.4, prompts)
    if kind == "shares":
        return easy
    return (rng.random((prompts, samples)) < easy[:, None]).astype(float).ravel()


@pytest.mark.long
@pytest.mark.parametrize("kind", ["answers", "shares"])
@pytest.mark.parametrize("prompts", [3, 5, 12, 40, 150])
def test_intervals_hold_the_truth_nineteen_times_of_twenty(prompts, kind):
    samples, held, widths = 4, 0, 0.0
    for trial in range(1500):
        values = drawn(np.random.default_rng(trial), prompts, samples, kind).tolist()
        clusters = np.repeat(np.arange(prompts), samples).tolist() if kind == "answers" else None
        found = rate(values, clusters)
        held += found["low"] <= 0.6 <= found["high"]
        widths += width(found)
    assert held / 1500 >= 0.91, (held / 1500, widths / 1500)


@pytest.mark.long
@pytest.mark.parametrize("prompts", [8, 40])
def test_length_controlled_intervals_hold_the_truth(prompts):
    held, trials = 0, 200
    for trial in range(trials):
        rng = np.random.default_rng(trial)
        theta = 0.4 + rng.normal(0, 1.0, prompts).repeat(4)
        differences = rng.normal(20, 60, prompts * 4)
        chance = logistic(theta + 1.2 * np.tanh(differences / 60))
        wins = (rng.random(prompts * 4) < chance).astype(float).tolist()
        found = length_controlled(wins, differences.tolist(), draws=100,
                                  clusters=np.arange(prompts).repeat(4).tolist())
        truth = float(logistic(0.4 + np.random.default_rng(0).normal(0, 1.0, 100_000)).mean())
        held += found["low"] <= truth <= found["high"]
    assert held / trials >= 0.9, held / trials
