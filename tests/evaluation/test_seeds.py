"""Means over seeds and prompts, held against SciPy, closed forms and made data whose mean is known."""

from __future__ import annotations

import math
import random

import numpy as np
import pytest
from scipy import stats

from trivium.errors import TriviumError
from trivium.evaluation.overoptimisation import fit
from trivium.evaluation.seeds import holm, of_figures, over_seeds, t_quantile, t_tail


def test_students_t_is_scipys():
    for freedom in (1, 1.3, 2, 3.7, 12, 80, 999, 5e5):
        for t in (0.0, 0.4, 1.96, 4.3, 25.0):
            assert t_tail(t, freedom) == pytest.approx(2 * stats.t.sf(t, freedom), rel=2e-4, abs=1e-12)
        assert t_quantile(freedom) == pytest.approx(stats.t.ppf(0.975, freedom), rel=2e-4)


def test_one_seed_counts_prompts_and_several_count_both():
    values = {n: float(n % 3) for n in range(20)}
    one = over_seeds([values])
    low, high = stats.t.interval(0.95, 19, np.mean(list(values.values())), stats.sem(list(values.values())))
    assert one["method"] == "prompts of one seed" and one["seeds"] == 1 and one["n"] == 20
    assert (one["low"], one["high"]) == pytest.approx((low, high), rel=1e-4)
    assert one["p"] == pytest.approx(stats.ttest_1samp(list(values.values()), 0).pvalue, rel=1e-3)
    three = over_seeds([values, {n: v + 5 for n, v in values.items()}, {n: v - 5 for n, v in values.items()}])
    assert three["high"] - three["low"] > 15 and three["method"] == "seeds and prompts"  # t of 2 degrees over 5 / √3
    same = over_seeds([values] * 3)  # seeds say nothing new: as wide as one, not √3 times less
    assert (same["low"], same["high"]) == pytest.approx((low, high), rel=1e-4)


def test_prompts_of_its_own_for_each_seed():
    runs = [{(seed, n): float(seed) for n in range(9)} for seed in (1, 2, 6)]
    found = over_seeds(runs)
    low, high = stats.t.interval(0.95, 2, 3, stats.sem([1, 2, 6]))
    assert (found["low"], found["high"]) == pytest.approx((low, high), rel=1e-3)


def test_clusters_count_once():
    rng = random.Random(5)
    facts = {n: rng.gauss(0, 1) for n in range(12)}
    alone = over_seeds([dict(facts)])
    tripled = over_seeds([{(n, k): value for n, value in facts.items() for k in range(3)}],
                         {(n, k): n for n in facts for k in range(3)})
    assert tripled["n"] == 12
    assert [tripled[key] for key in ("value", "low", "high")] == pytest.approx(
        [alone[key] for key in ("value", "low", "high")])


@pytest.mark.parametrize("sizes", [(1.0, 0.2, 0.5), (0.2, 1.0, 0.5), (0.0, 0.0, 1.0), (0.4, 0.4, 0.4)])
def test_the_interval_holds_the_mean_as_often_as_it_says(sizes):
    of_seed, of_prompt, rest = sizes
    rng = np.random.default_rng(3)
    hit, draws = 0, 300
    for _ in range(draws):
        table = (rng.normal(0, of_seed, (3, 1)) + rng.normal(0, of_prompt, (1, 25)) + rng.normal(0, rest, (3, 25)))
        found = over_seeds([dict(enumerate(row.tolist())) for row in table])
        hit += found["low"] <= 0 <= found["high"]
    assert hit / draws >= 0.93


def test_shares_stay_shares():
    runs = [{n: float(n != seed) for n in range(30)} for seed in range(3)]
    found = over_seeds(runs, within=(0.0, 1.0))
    assert found["value"] == pytest.approx(29 / 30) and 0.8 < found["low"] < 29 / 30 < found["high"] <= 1
    always = over_seeds([dict.fromkeys(range(30), 1.0)] * 3, within=(0.0, 1.0))
    assert always["high"] == 1 and 0.85 < always["low"] < 1
    apart = over_seeds([dict.fromkeys(range(5), 1.0)], within=(-1.0, 1.0))
    assert apart["p"] == pytest.approx(2 / 2**5)
    assert over_seeds([{}])["value"] is None


def test_one_figure_a_seed():
    values = [2.0, 2.5, 3.5]
    found = of_figures(values)
    low, high = stats.t.interval(0.95, 2, np.mean(values), stats.sem(values))
    assert (found["value"], found["low"], found["high"]) == pytest.approx((np.mean(values), low, high), rel=1e-3)
    rate = {"value": 0.5, "low": 0.4, "high": 0.6, "n": 90}
    assert of_figures([rate]) | {"p": None} == {"value": 0.5, "low": 0.4, "high": 0.6, "p": None, "seeds": 1,
                                                "method": "rows of one seed"}
    same = of_figures([rate] * 3)
    assert (same["low"], same["high"]) == pytest.approx((0.4, 0.6), abs=1e-4)
    assert of_figures([7.0])["low"] is None and of_figures([])["value"] is None


def test_holms_correction_by_its_definition():
    rng = random.Random(1)
    for size in (1, 2, 7):
        ps = [rng.random()**3 for _ in range(size)]
        adjusted = holm(ps)
        for level in (0.01, 0.05, 0.3, 0.7):  # step down: reject the smallest while it is below level / (m - k)
            rejected = set[int]()
            for k, place in enumerate(sorted(range(size), key=ps.__getitem__)):
                if ps[place] > level / (size - k):
                    break
                rejected.add(place)
            assert {place for place in range(size) if adjusted[place] <= level} == rejected


@pytest.mark.parametrize("form", ["best-of-n", "reinforcement"])
def test_the_law_of_overoptimisation_is_found_again(form):
    kls = [0.0, 0.3, 1.0, 2.0, 5.0, 9.0, 20.0]
    alpha, beta = 1.3, 0.5
    gained = [0.0] + [math.sqrt(kl) * (alpha - beta * (math.sqrt(kl) if form == "best-of-n" else 0.5 * math.log(kl)))
                      for kl in kls[1:]]
    law = fit(kls, gained, form)
    assert (law.alpha, law.beta) == pytest.approx((alpha, beta)) and law.error < 1e-12
    grid = np.linspace(0.01, 40, 4000)
    assert law.best_kl == pytest.approx(grid[np.argmax([law.gained(kl) for kl in grid])], abs=0.02)
    assert [law.gained(kl) for kl in kls] == pytest.approx(gained)
    with pytest.raises(TriviumError, match="two KLs"):
        fit([0.0, 1.0, 1.0], [0.0, 1.0, 1.1], form)
