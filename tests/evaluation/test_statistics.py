"""Statistics against simulated truths and against scikit-learn."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import f1_score, precision_recall_fscore_support

from trivium.evaluation.statistics import (
    bootstrap,
    classification,
    difficulty,
    fit_logistic,
    length_controlled,
    logistic,
    mcnemar,
    paired_test,
)


def test_bootstrap_over_clusters_covers_the_truth_where_one_over_rows_does_not():
    covered = {True: 0, False: 0}
    for trial in range(120):
        rng = np.random.default_rng(trial)
        easy = rng.beta(0.6, 0.6, 40)  # prompts differ: their samples stand and fall together
        rows = (rng.random((40, 8)) < easy[:, None]).astype(float)
        prompts = np.repeat(np.arange(40), 8).tolist()
        for clusters in (True, False):
            found = bootstrap(rows.ravel().tolist(), prompts if clusters else None, seed=trial, draws=400)
            covered[clusters] += found["low"] <= 0.5 <= found["high"]
    assert covered[True] >= 0.88 * 120
    assert covered[False] <= 0.75 * 120


def test_bootstrap_of_nothing_and_of_one():
    assert bootstrap([])["value"] is None
    found = bootstrap([0.25], ["a"])
    assert found["value"] == 0.25 and found["n"] == 1 and found["low"] < 0.1 and found["high"] > 0.8
    assert bootstrap([7.0, 7.0]) == {"value": 7.0, "low": None, "high": None, "n": 2, "method": "none"}
    with pytest.raises(ValueError, match="2 values, but 1 clusters"):
        bootstrap([1.0, 0.0], ["a"])


def test_paired_test_is_level_without_a_difference_and_sees_one():
    p_values = []
    for trial in range(100):
        rng = np.random.default_rng(trial)
        first, second = rng.random(40), rng.random(40)
        p_values.append(paired_test(first.tolist(), second.tolist(), seed=trial, draws=500))
    assert sum(p < 0.05 for p in p_values) <= 11
    assert 0.3 < float(np.mean(p_values)) < 0.7
    rng = np.random.default_rng(0)
    base = rng.random(60)
    assert paired_test((base + 0.1 + 0.05 * rng.random(60)).tolist(), base.tolist()) < 0.001
    assert paired_test([1.0] * 5, [1.0] * 5) == 1.0


def test_mcnemar_is_the_exact_binomial_test():
    from scipy.stats import binomtest
    first = [True] * 9 + [False] * 2 + [True] * 20
    second = [False] * 9 + [True] * 2 + [True] * 20
    assert mcnemar(first, second) == pytest.approx(binomtest(2, 11).pvalue)
    assert mcnemar([True], [True]) == 1.0


def test_logistic_regression_is_scikit_learns():
    rng = np.random.default_rng(3)
    features = np.column_stack([np.ones(200), rng.normal(size=(200, 2))])
    wins = (rng.random(200) < logistic(features @ np.array([0.3, 1.0, -0.7]))).astype(float)
    theirs = LogisticRegression(C=1 / 0.5, fit_intercept=False, tol=1e-10, max_iter=1000).fit(features, wins)
    assert np.allclose(fit_logistic(features, wins, np.ones(200), np.full(3, 0.5)), theirs.coef_[0], atol=1e-5)


def simulated(seed, theta, phi, longer, n=1500):
    """Verdicts of a judge who likes length: the truth of eq. 2 in Dubois et al. 2024."""
    rng = np.random.default_rng(seed)
    differences = rng.normal(longer, 60, n)
    chance = logistic(theta + phi * np.tanh(differences / differences.std()))
    return (rng.random(n) < chance).astype(float), differences


def test_length_controlled_rate_finds_the_known_truth():
    truth = float(logistic(0.2))
    wins, differences = simulated(0, theta=0.2, phi=1.5, longer=80)
    assert wins.mean() > truth + 0.15  # the raw rate is fooled
    found = length_controlled(wins.tolist(), differences.tolist(), draws=100)
    assert found["low"] < truth < found["high"]
    assert found["value"] == pytest.approx(truth, abs=0.05)
    assert found["phi"] == pytest.approx(1.5, abs=0.35)


def test_length_controlled_rate_of_a_judge_who_does_not_care_is_the_raw_one():
    wins, differences = simulated(1, theta=0.4, phi=0.0, longer=80)
    assert length_controlled(wins.tolist(), differences.tolist(),
                             draws=20)["value"] == pytest.approx(wins.mean(), abs=0.05)


def test_length_control_is_symmetric():
    wins, differences = simulated(2, theta=0.3, phi=1.0, longer=40, n=400)
    one = length_controlled(wins.tolist(), differences.tolist(), draws=20)["value"]
    other = length_controlled((1 - wins).tolist(), (-differences).tolist(), draws=20)["value"]
    assert one + other == pytest.approx(1.0, abs=1e-6)


def test_length_control_of_a_model_that_always_wins_stays_finite():
    found = length_controlled([1.0] * 30, list(range(30)), draws=20)
    assert 0.9 < found["value"] <= 1.0 and found["high"] <= 1.0
    assert length_controlled([], [])["value"] is None


def test_difficulty_orders_prompts_as_the_truth_does():
    rng = np.random.default_rng(4)
    gamma = rng.normal(0, 1.5, 300)
    wins = {
        str(model): (rng.random(300) < logistic(theta + gamma)).astype(float).tolist()
        for model, theta in enumerate((-0.5, 0.0, 0.3, 0.8, 1.0))
    }
    lengths = {name: rng.normal(0, 30, 300).tolist() for name in wins}
    assert np.corrcoef(difficulty(wins, lengths), gamma)[0, 1] > 0.75


def test_classification_is_scikit_learns():
    rng = np.random.default_rng(5)
    labels = ["no", "yes", "maybe"]
    truths = [labels[i] for i in rng.integers(0, 3, 100)]
    guesses = [labels[i] if i < 3 else None for i in rng.integers(0, 4, 100)]
    found = classification(truths, guesses)
    theirs = precision_recall_fscore_support(truths, [guess or "(none)" for guess in guesses], labels=labels,
                                             zero_division=0)
    for place, label in enumerate(labels):
        row = found["classes"][label]
        assert (row["precision"], row["recall"], row["f1"], row["n"]) == pytest.approx([part[place] for part in theirs])
    assert found["macro_f1"] == pytest.approx(
        f1_score(truths, [guess or "(none)" for guess in guesses], labels=labels, average="macro"))
    assert sum(found["confusion"]["no"].values()) == truths.count("no")
