"""Agreement statistics against tables in print, definitions computed slowly, and what must hold of them."""

from __future__ import annotations

import itertools
import math
import random

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from trivium.feedback.agreement import (
    LEVELS,
    agreement_with_others,
    agreement_within,
    disagreement,
    kendall_w,
    krippendorff_alpha,
    length_counts,
    mean,
    pair_agreement,
    position_counts,
    preferences,
    share,
    signs,
)

N = None
# Four observers, twelve units: Krippendorff (2011), "Computing Krippendorff's Alpha-Reliability", example C.
PRINTED = [[1, 2, 3, 3, 2, 1, 4, 1, 2, N, N, N], [1, 2, 3, 3, 2, 2, 4, 1, 2, 5, N, 3],
           [N, 3, 3, 3, 2, 3, 4, 2, 2, 5, 1, N], [1, 2, 3, 3, 2, 4, 4, 1, 2, 5, 1, N]]
UNITS = [[value for value in unit if value is not None] for unit in zip(*PRINTED)]


@pytest.mark.parametrize(("level", "printed"), [("nominal", 0.743), ("ordinal", 0.815), ("interval", 0.849)])
def test_alpha_of_the_printed_table(level: str, printed: float) -> None:
    assert krippendorff_alpha([[unit] for unit in UNITS], level).value == pytest.approx(printed, abs=5e-4)


def test_alpha_of_the_printed_binary_table() -> None:
    # Two observers, ten units: example A of the same paper, alpha = 0.095.
    one, other = [0, 1, 0, 0, 0, 0, 0, 0, 1, 0], [1, 1, 1, 0, 0, 1, 0, 0, 0, 0]
    assert krippendorff_alpha([[[a, b]] for a, b in zip(one, other)], "nominal").value == pytest.approx(0.095, abs=5e-4)


def slow_alpha(units: list[list[int]], level: str) -> float:
    """By the definition: mean disagreement within units over that of all values paired with all others."""
    units = [unit for unit in units if len(unit) > 1]
    values = [value for unit in units for value in unit]
    often = {value: values.count(value) for value in set(values)}

    def distance(a: int, b: int) -> float:
        if level == "nominal":
            return float(a != b)
        if level == "interval":
            return float(a - b)**2
        low, high = min(a, b), max(a, b)
        return (sum(count for value, count in often.items() if low <= value <= high) - (often[a] + often[b]) / 2)**2

    within = sum(distance(a, b) / (len(unit) - 1)
                 for unit in units
                 for a, b in itertools.permutations(unit, 2)) / len(values)
    between = sum(distance(a, b) for a, b in itertools.permutations(values, 2)) / (len(values) * (len(values) - 1))
    return 1 - within / between if between else math.nan


unit_lists = st.lists(st.lists(st.integers(1, 7), min_size=1, max_size=5), min_size=1, max_size=12)


@settings(max_examples=60, deadline=None)
@given(unit_lists, st.sampled_from(LEVELS))
def test_alpha_is_its_definition(units: list[list[int]], level: str) -> None:
    if not any(len(unit) > 1 for unit in units):
        return
    fast, slow = krippendorff_alpha([units], level, resamples=1).value, slow_alpha(units, level)
    assert fast == pytest.approx(slow, abs=1e-9) if math.isfinite(slow) else math.isnan(fast)


@settings(max_examples=40, deadline=None)
@given(unit_lists, st.permutations(range(12)))
def test_alpha_knows_no_order_and_perfect_agreement_is_one(units: list[list[int]], order: list[int]) -> None:
    shuffled = [units[at][::-1] for at in order if at < len(units)]
    first, second = krippendorff_alpha([units], resamples=1).value, krippendorff_alpha([shuffled], resamples=1).value
    assert first == pytest.approx(second, abs=1e-12) or (math.isnan(first) and math.isnan(second))
    agreed = [[unit[0]] * 3 for unit in units]
    if len({unit[0] for unit in units}) > 1:
        assert krippendorff_alpha([agreed], resamples=1).value == pytest.approx(1.0)


def test_alpha_of_noise_is_about_zero_and_its_interval_holds_it() -> None:
    rng = random.Random(3)
    found = krippendorff_alpha([[[rng.randint(1, 7), rng.randint(1, 7)] for _ in range(3)] for _ in range(150)])
    assert abs(found.value) < 0.12 and found.low < 0.0 < found.high and found.n == 150


def test_alpha_of_nothing() -> None:
    assert math.isnan(krippendorff_alpha([]).value) and math.isnan(krippendorff_alpha([[[3]], [[2]]]).value)
    assert math.isnan(krippendorff_alpha([[[3, 3]], [[3, 3]]]).value)  # nothing varies


rankings = st.permutations(range(5)).flatmap(lambda order: st.lists(st.booleans(), min_size=4, max_size=4).map(
    lambda cuts: [list(group) for group in _grouped(order, cuts)]))


def _grouped(order: list[int], cuts: list[bool]) -> list[list[int]]:
    groups = [[order[0]]]
    for index, cut in zip(order[1:], cuts):
        if cut:
            groups.append([index])
        else:
            groups[-1].append(index)
    return groups


def _ranks(ranking: list[list[int]]) -> np.ndarray:
    ranks, place = np.zeros(sum(map(len, ranking))), 0
    for group in ranking:
        ranks[group] = place + (len(group) + 1) / 2
        place += len(group)
    return ranks


@settings(max_examples=60, deadline=None)
@given(st.lists(rankings, min_size=2, max_size=5))
def test_w_is_the_variance_of_the_rank_sums_over_its_maximum(found: list[list[list[int]]]) -> None:
    ranks = np.stack([_ranks(ranking) for ranking in found])
    m, n = ranks.shape
    ties = sum(len(group)**3 - len(group) for ranking in found for group in ranking)
    most = m * m * (n**3 - n) / 12 - m * ties / 12
    got = kendall_w(found)
    if most:
        assert got == pytest.approx(np.square(ranks.sum(0) - ranks.sum(0).mean()).sum() / most,
                                    abs=1e-9) and -1e-9 <= got <= 1 + 1e-9
    else:
        assert math.isnan(got)


def test_w_of_two_untied_judges_is_spearmans_rho_moved() -> None:
    rng = random.Random(1)
    for _ in range(20):
        one, other = rng.sample(range(6), 6), rng.sample(range(6), 6)
        rho = np.corrcoef(_ranks([[i] for i in one]), _ranks([[i] for i in other]))[0, 1]
        assert kendall_w([[[i] for i in one], [[i] for i in other]]) == pytest.approx((rho + 1) / 2)
    assert kendall_w([[[0], [1], [2]]] * 4) == pytest.approx(1.0)
    assert math.isnan(kendall_w([[[0], [1]]])) and math.isnan(kendall_w([]))


@settings(max_examples=60, deadline=None)
@given(rankings, rankings)
def test_pairs_by_brute_force(one: list[list[int]], other: list[list[int]]) -> None:
    a, b = _ranks(one), _ranks(other)
    both = [(i, j) for i, j in itertools.combinations(range(5), 2) if a[i] != a[j] and b[i] != b[j]]
    same = [(i, j) for i, j in both if (a[i] < a[j]) == (b[i] < b[j])]
    assert pair_agreement(one, other) == pair_agreement(other, one) == (len(same), len(both))
    assert preferences(one) == {(i, j) for i, j in itertools.permutations(range(5), 2) if a[i] < a[j]}


@settings(max_examples=60, deadline=None)
@given(st.lists(rankings, min_size=2, max_size=5))
def test_many_judges_at_once_are_every_two_of_them(found: list[list[list[int]]]) -> None:
    matrix = np.stack([signs(ranking) for ranking in found])
    two_by_two = [pair_agreement(one, other) for one, other in itertools.combinations(found, 2)]
    (same, both), alike = agreement_within(matrix)
    assert (same, both) == (sum(hits for hits, _ in two_by_two), sum(of for _, of in two_by_two))
    for at, counted in enumerate(agreement_with_others(matrix)):
        others = [pair_agreement(found[at], other) for place, other in enumerate(found) if place != at]
        assert counted == (sum(hits for hits, _ in others), sum(of for _, of in others))
    said = [(a, b) for one, other in itertools.combinations(matrix.tolist(), 2) for a, b in zip(one, other) if a or b]
    slow = [1.0 if a == b else 0.5 if not (a and b) else 0.0 for a, b in said]
    assert alike == pytest.approx(np.mean(slow)) if slow else math.isnan(alike)


def test_biases() -> None:
    assert position_counts([[2], [0, 1]], [2, 1, 0]) == (2, 2) and position_counts([[2], [0, 1]], [0, 1, 2]) == (0, 2)
    assert length_counts([[0], [1], [2]], [9, 5, 5]) == (2, 2) and length_counts([[1], [0]], [9, 5]) == (0, 1)


def test_intervals_of_shares_cover() -> None:
    """Clusters of pairs that stand and fall together: 95 % intervals hold the truth about as often as they say."""
    rng = np.random.default_rng(5)
    held = 0
    for _ in range(400):
        chance = rng.beta(7, 3, size=40)  # 0.7 on average, another one in each cluster
        held += (found := share([(rng.binomial(6, p), 6) for p in chance])).low <= 0.7 <= found.high
    assert 0.91 <= held / 400 <= 0.985


def test_shares_at_the_edges() -> None:
    assert math.isnan(share([]).value) and math.isnan(share([(0, 0)]).value)
    sure = share([(3, 3)] * 4)
    assert sure.value == 1.0 and sure.high == 1.0 and 0.4 < sure.low < 0.6
    assert sure.n == 4  # four clusters, not twelve pairs
    assert share([(0, 5)]).low == 0.0
    assert share([(1, 2)] * 10).low < 0.5 < share([(1, 2)] * 10).high
    assert mean([0.5, math.nan, 0.7]).value == pytest.approx(0.6) and mean([math.nan]).n == 0


def test_disagreement_of_an_ensemble() -> None:
    assert disagreement([[1.0, 2.0, 3.0]] * 4) == 0.0
    assert disagreement([[1.0, 2.0], [11.0, 12.0]]) == pytest.approx(0.0)  # a model's offset says nothing
    assert disagreement([[50.0, -50.0], [-50.0, 50.0]]) == pytest.approx(0.5)
    assert 0 < disagreement([[0.0, 1.0], [0.0, 2.0]]) < disagreement([[0.0, 1.0], [0.0, -1.0]])
    assert disagreement([[1.0, 2.0]]) == 0.0
