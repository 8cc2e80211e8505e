"""Losses against their formulas, written out in float64."""

from __future__ import annotations

import math
import os
import subprocess
import sys

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from trivium.objectives import language_modeling
from trivium.objectives.policy import (
    adapt_kl_coefficient,
    combined_scores,
    generalised_advantages,
    group_advantages,
    kl_penalties,
    leave_one_out_advantages,
    policy_losses,
    value_losses,
    whiten,
)
from trivium.objectives.preference import (
    balanced_weights,
    dpo_losses,
    hinge_losses,
    implicit_margins,
    ipo_losses,
    kto_losses,
)
from trivium.objectives.ranking import ranking_losses
from trivium.stages.preferences.rankings import ordered_right, pairs_of


def test_ranking_loss_is_instructgpts():
    scores = torch.tensor([0.3, -1.2, 2.0], dtype=torch.float64)
    pairs = pairs_of([[2], [0], [1]])
    losses = ranking_losses(scores[[w for w, _ in pairs]], scores[[l for _, l in pairs]], torch.tensor([0.0, 0.5, 1.0]))
    expected = [
        math.log(1 + math.exp(-(scores[w] - scores[l]).item() + margin))
        for (w, l), margin in zip(pairs, (0.0, 0.5, 1.0), strict=True)
    ]
    assert losses.tolist() == pytest.approx(expected, abs=1e-7)


def test_ranking_loss_does_not_overflow():
    losses = ranking_losses(torch.tensor([-1000.0]), torch.tensor([1000.0]), torch.zeros(1))
    assert losses.item() == 2000.0


@given(st.lists(st.lists(st.integers(0, 3), min_size=1, max_size=3), min_size=1, max_size=4))
def test_pairs_leave_ties_out(sizes):
    groups, n = [], 0
    for group in sizes:
        groups.append(list(range(n, n + len(group))))
        n += len(group)
    place = {i: g for g, group in enumerate(groups) for i in group}
    assert set(pairs_of(groups)) == {(a, b) for a in range(n) for b in range(n) if place[a] < place[b]}


def test_dpo_is_equation_seven():
    c, r, rc, rr = (torch.tensor([v], dtype=torch.float64) for v in (-10.0, -12.0, -11.0, -11.5))
    losses, margins = dpo_losses(c, r, rc, rr, 0.1), implicit_margins(c, r, rc, rr, 0.1)
    margin = 0.1 * ((-10 + 11) - (-12 + 11.5))
    assert margins.item() == pytest.approx(margin) and losses.item() == pytest.approx(
        -math.log(1 / (1 + math.exp(-margin))))


def sigmoid(x):
    return 1 / (1 + math.exp(-x))


numbers = st.floats(-30, 0)


@given(numbers, numbers, numbers, numbers, st.floats(0.01, 1), st.floats(0, 0.4))
def test_smoothed_dpo_ipo_and_hinge_are_their_papers(c, r, rc, rr, beta, smoothing):
    four = [torch.tensor([v], dtype=torch.float64) for v in (c, r, rc, rr)]
    h = (c - rc) - (r - rr)  # = log (pi(y_w) ref(y_l) / (pi(y_l) ref(y_w)))
    losses = dpo_losses(*four, beta, smoothing)
    expected = -(1 - smoothing) * math.log(sigmoid(beta * h)) - smoothing * math.log(sigmoid(-beta * h))
    assert losses.item() == pytest.approx(expected, rel=1e-9)
    assert ipo_losses(*four, beta).item() == pytest.approx((h - 1 / (2 * beta)) ** 2, rel=1e-9)
    assert hinge_losses(*four, beta).item() == pytest.approx(max(0.0, 1 - beta * h), rel=1e-9, abs=1e-12)
    assert implicit_margins(*four, beta).item() == pytest.approx(beta * h, abs=1e-9)
    assert implicit_margins(four[0], four[1], None, None, beta).item() == pytest.approx(beta * (c - r), abs=1e-9)


@given(st.lists(st.tuples(st.floats(-9, 9), st.booleans()), min_size=1, max_size=6), st.floats(-2, 5),
       st.floats(0.05, 1))
def test_kto_is_equation_eight(responses, baseline, beta):
    ratios, liked = (torch.tensor(column, dtype=kind)
                     for column, kind in zip(zip(*responses, strict=True), (torch.float64, torch.bool)))
    estimate = torch.tensor(baseline, dtype=torch.float64, requires_grad=True)
    ratios.requires_grad_()
    losses = kto_losses(ratios, liked, estimate, beta, 1.5, 0.5)
    kl = max(baseline, 0.0)
    expected = [
        1.5 * (1 - sigmoid(beta * (r - kl))) if good else 0.5 * (1 - sigmoid(beta * (kl - r))) for r, good in responses
    ]
    assert losses.tolist() == pytest.approx(expected, rel=1e-9)
    losses.sum().backward()
    assert estimate.grad is None  # the baseline is not learned through
    assert all((g <= 0) == good or g == 0 for g, good in zip(ratios.grad.tolist(), liked.tolist(), strict=True))


@given(st.lists(st.sampled_from([-1.5, -1e-6, 0.0, 1e-6, 2.0])))
def test_pairs_that_are_tied_count_half(margins):
    expected = sum(1.0 if margin > 0 else 0.5 if margin == 0 else 0.0 for margin in margins)
    assert float(ordered_right(torch.tensor(margins))) == expected


@given(st.integers(0, 50), st.integers(0, 50))
def test_balanced_weights_make_both_sides_weigh_alike(liked, disliked):
    one, other = balanced_weights(liked, disliked)
    assert min(one, other) == 1.0
    if liked and disliked:
        assert one * liked == pytest.approx(other * disliked)


@given(st.lists(st.floats(-5, 5), min_size=2, max_size=9))
def test_groups_are_compared_with_themselves(rewards):
    given_rewards = np.array(rewards)
    loo = leave_one_out_advantages(given_rewards)
    expected = [r - (sum(rewards) - r) / (len(rewards) - 1) for r in rewards]
    assert loo.tolist() == pytest.approx(expected, abs=1e-9)
    group = torch.tensor(rewards, dtype=torch.float64)
    trl = (group - group.mean()) / (group.std() + 1e-4)  # TRL's line, whose std is a sample's
    assert group_advantages(given_rewards).tolist() == pytest.approx(trl.tolist(), abs=1e-9)
    assert group_advantages(given_rewards, scaled=False).tolist() == pytest.approx((group - group.mean()).tolist())


def test_small_groups_and_rewards_that_hardly_differ_teach_little():
    assert group_advantages(np.full(4, 3.0)).tolist() == [0.0] * 4 and group_advantages(np.array([2.0])).tolist() == [0]
    assert np.abs(group_advantages(np.array([0.7, 0.7 + 1e-7]))).max() < 1e-3  # rounding of a reward model's scores
    assert np.abs(group_advantages(np.array([0.0, 1.0]))).max() == pytest.approx(0.5**0.5, rel=1e-3)


def test_values_are_bound_by_a_clip_of_their_own_or_not_at_all():
    values, old, returns = torch.tensor([1.0, -1.0]), torch.zeros(2), torch.tensor([2.0, -2.0])
    assert value_losses(values, old, returns, 0.5).tolist() == [0.5 * 1.5**2] * 2
    assert value_losses(values, old, returns, None).tolist() == [0.5] * 2


def test_a_higher_clip_lets_ratios_rise_further():
    losses, _ = policy_losses(torch.tensor([0.25, -0.5]), torch.zeros(2), torch.tensor([1.0, -1.0]), 0.2, 0.28)
    assert losses.tolist() == pytest.approx([-1.28, 0.8], rel=1e-3)


def test_the_kl_penalty_in_the_loss_is_k3():
    new, old = np.array([-1.0, -2.0, -0.5]), np.array([-1.5, -1.0, -0.5])
    found = kl_penalties(torch.tensor(new), torch.tensor(old)).numpy()
    np.testing.assert_allclose(found, np.exp(old - new) - 1 - (old - new))


@given(st.lists(st.tuples(st.floats(-2, 2), st.floats(-2, 2)), min_size=1, max_size=12), st.floats(0, 1),
       st.floats(0, 1))
def test_advantages_are_the_sum_of_discounted_errors(steps, gamma, lam):
    rewards, values = (np.array(column) for column in zip(*steps, strict=True))
    following = np.append(values[1:], 0.0)
    errors = rewards + gamma * following - values
    expected = [sum((gamma * lam) ** (l - t) * errors[l] for l in range(t, len(errors))) for t in range(len(errors))]
    np.testing.assert_allclose(generalised_advantages(rewards, values, gamma, lam), expected, atol=1e-9)


def test_whitening():
    values = np.array([1.0, 2.0, 4.0])
    assert whiten(values).mean() == pytest.approx(0) and whiten(values).std() == pytest.approx(1)
    assert whiten(values, shift_mean=False).mean() == pytest.approx(values.mean())


def test_two_reward_models_are_combined_as_in_llama_2():
    def sigmoid(x):
        return 1 / (1 + math.exp(-x))

    rng = np.random.default_rng(0)
    helpful, safe, about = rng.normal(size=50) * 3, rng.normal(size=50) * 3, rng.random(50) < 0.3
    expected = [math.log(p / (1 - p)) for h, s, a in zip(helpful, safe, about, strict=True)
                # the paper's probabilities, and its logit
                for p in [sigmoid(s) if a or sigmoid(s) < 0.15 else sigmoid(h)]]
    np.testing.assert_allclose(combined_scores(helpful, safe, about), expected, atol=1e-9)
    assert combined_scores(helpful, safe, about, 0.0).tolist() == np.where(about, safe, helpful).tolist()
    assert combined_scores(helpful, safe, np.zeros(50, bool), 1.0).tolist() == safe.tolist()
    assert np.isfinite(combined_scores(np.array([1e4]), np.array([-1e4]), np.array([False]))).all()


def test_clipping_stops_gains_but_not_losses():
    old = torch.zeros(4)
    new = torch.tensor([0.5, 0.5, -0.5, -0.5])
    advantages = torch.tensor([1.0, -1.0, 1.0, -1.0])
    losses, ratios = policy_losses(new, old, advantages, 0.2)
    up, down = math.exp(0.5), math.exp(-0.5)
    assert ratios.tolist() == pytest.approx([up, up, down, down])
    assert losses.tolist() == pytest.approx([-1.2, up, -down, 0.8])


def test_value_loss_takes_the_worse_of_two():
    losses = value_losses(torch.tensor([1.0, 0.1]), torch.tensor([0.0, 0.0]), torch.tensor([1.0, 1.0]), 0.2)
    assert losses.tolist() == pytest.approx([0.5 * 0.8**2, 0.5 * 0.9**2])


def test_k3_is_unbiased_and_never_negative():
    rng = np.random.default_rng(0)
    p, q = rng.dirichlet(np.ones(6)), rng.dirichlet(np.ones(6))
    samples = rng.choice(6, 200_000, p=p)
    estimates = kl_penalties(torch.tensor(np.log(p)[samples]), torch.tensor(np.log(q)[samples])).numpy()
    assert estimates.min() >= 0
    assert estimates.mean() == pytest.approx(float((p * np.log(p / q)).sum()), rel=0.03)


def test_the_kl_coefficient_follows_its_target():
    assert adapt_kl_coefficient(0.1, 12.0, 6.0, 1000, 100) == pytest.approx(0.1 * (1 + 0.2 * 0.1))
    assert adapt_kl_coefficient(0.1, 5.7, 6.0, 1000, 100) == pytest.approx(0.1 * (1 - 0.05 * 0.1))


@pytest.mark.parametrize("temperature", [1.0, 0.7])
def test_log_probs_in_pieces_equal_those_at_once(monkeypatch, temperature):
    generator = torch.Generator().manual_seed(0)
    found = []
    for largest in (10**9, 4000):
        monkeypatch.setattr(language_modeling, "LARGEST", largest)
        hidden = torch.randn(53, 16, generator=generator.manual_seed(0), dtype=torch.float64).requires_grad_()
        weight = torch.randn(97, 16, generator=generator, dtype=torch.float64).requires_grad_()
        targets = torch.randint(0, 97, (53,), generator=generator)
        log_probs = language_modeling.token_log_probs(hidden, weight, targets, temperature)
        (log_probs * torch.randn(53, generator=generator)).sum().backward()
        found.append((log_probs, hidden.grad, weight.grad))
    for whole, pieces in zip(*found, strict=True):
        torch.testing.assert_close(pieces.double(), whole.double(), atol=1e-5, rtol=1e-5)


@pytest.mark.bf16
@pytest.mark.parametrize("kind", [torch.float32, torch.bfloat16])
def test_pieces_in_bf16_equal_those_at_once_but_for_rounding(monkeypatch, kind):
    """Under autocast of float32 weights, and with bf16 ones."""
    found = []
    for largest in (10**9, 4000):
        monkeypatch.setattr(language_modeling, "LARGEST", largest)
        generator = torch.Generator().manual_seed(0)
        hidden, weight = (torch.randn(n, 16, generator=generator).to(kind).requires_grad_() for n in (53, 97))
        with torch.autocast("cpu", torch.bfloat16, enabled=kind == torch.float32):
            log_probs = language_modeling.token_log_probs(hidden, weight,
                                                          torch.randint(0, 97, (53,), generator=generator), 0.7)
        (log_probs * torch.randn(53, generator=generator)).sum().backward()
        assert log_probs.dtype == torch.float32 and hidden.grad.dtype == weight.grad.dtype == kind
        found.append((log_probs, hidden.grad, weight.grad))
    for whole, pieces in zip(*found, strict=True):
        assert (pieces.float() - whole.float()).norm() < 0.01 * whole.float().norm()


def test_pieces_need_no_room_for_all_logits():
    script = """
import sys, torch
from pathlib import Path
from trivium.objectives import language_modeling
def peak():  # of this program alone: getrusage counts what the one that started it had
    return int(Path("/proc/self/status").read_text().partition("VmHWM:")[2].split()[0])
language_modeling.LARGEST = int(sys.argv[1])
hidden = torch.randn(2048, 32, requires_grad=True)
weight = torch.randn(50_000, 32, requires_grad=True)
before = peak()
language_modeling.token_log_probs(hidden, weight, torch.zeros(2048, dtype=torch.int64)).sum().backward()
print((peak() - before) / 1024)
"""
    # glibc moves this threshold as it likes, and then keeps what was freed, unless it is set
    fixed = os.environ | {"MALLOC_MMAP_THRESHOLD_": "65536", "OMP_NUM_THREADS": "1"}
    needed = [
        float(
            subprocess.run([sys.executable, "-c", script, str(n)], check=True, capture_output=True, text=True,
                           env=fixed).stdout) for n in (10**12, 1 << 22)
    ]
    assert needed[1] < needed[0] / 8
