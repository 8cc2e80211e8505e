"""Divergences from a teacher: by brute force in float64, against TRL, in pieces, and what always holds."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from trivium.objectives import distillation
from trivium.objectives.distillation import divergences, kl

KINDS = ["forward_kl", "reverse_kl", "jensen_shannon"]


def given_states(count=13, width=8, wider=12, vocab=31, seed=0, dtype=torch.float32):
    generator = torch.Generator().manual_seed(seed)
    shapes = [(count, width), (vocab, width), (count, wider), (vocab, wider)]
    return [torch.randn(shape, generator=generator).to(dtype) for shape in shapes]


def by_hand(hidden, weight, seen, theirs, kind, beta, temperature):
    q = torch.softmax(hidden.double() @ weight.double().T / temperature, -1)
    p = torch.softmax(seen.double() @ theirs.double().T / temperature, -1)
    m = beta * p + (1 - beta) * q
    found = {"forward_kl": (p * (p / q).log()).sum(-1), "reverse_kl": (q * (q / p).log()).sum(-1),
             "jensen_shannon": beta * (p * (p / m).log()).sum(-1) + (1 - beta) * (q * (q / m).log()).sum(-1)}
    return found[kind] * temperature**2


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(("beta", "temperature"), [(0.5, 1.0), (0.1, 2.0), (0.9, 0.7)])
def test_each_is_its_equation(kind, beta, temperature):
    states = given_states()
    found = divergences(*states, kind, beta, temperature)
    torch.testing.assert_close(found.double(), by_hand(*states, kind, beta, temperature), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("dtype", [torch.float32, pytest.param(torch.bfloat16, marks=pytest.mark.bf16)])
def test_pieces_give_what_the_whole_gives(kind, dtype, monkeypatch):
    gradients = []
    for largest in (1 << 25, 31 * 4 * 4):
        monkeypatch.setattr(distillation, "LARGEST", largest)
        hidden, weight, *teacher = given_states(dtype=dtype)
        hidden.requires_grad_(), weight.requires_grad_()
        loss = divergences(hidden, weight, *teacher, kind).sum()
        loss.backward()
        gradients.append((loss.detach(), hidden.grad, weight.grad))
    for one, other in zip(*gradients, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-5 if dtype == torch.float32 else 2e-2, atol=1e-5 if dtype
                                   == torch.float32 else 2e-2)


@given(st.integers(0, 2**31), st.sampled_from(KINDS), st.floats(0.05, 0.95))
def test_they_are_no_less_than_zero_and_zero_of_the_same(seed, kind, beta):
    hidden, weight, seen, theirs = given_states(seed=seed)
    assert float(divergences(hidden, weight, seen, theirs, kind, beta).min()) > -1e-6
    same = divergences(hidden, weight, hidden.clone(), weight.clone(), kind, beta)
    assert float(same.abs().max()) < 1e-5


def test_the_teacher_gets_no_gradient():
    states = [state.requires_grad_() for state in given_states()]
    divergences(*states, "jensen_shannon").sum().backward()
    assert states[0].grad is not None and states[2].grad is None and states[3].grad is None


def test_kl_is_that_of_pytorch():
    p, q = (torch.log_softmax(torch.randn(5, 9), -1) for _ in range(2))
    wanted = torch.distributions.kl_divergence(torch.distributions.Categorical(logits=p),
                                               torch.distributions.Categorical(logits=q))
    torch.testing.assert_close(kl(p, q), wanted, rtol=1e-5, atol=1e-6)


@pytest.mark.long
@pytest.mark.parametrize(("kind", "beta"), [("forward_kl", 0.0), ("reverse_kl", 1.0), ("jensen_shannon", 0.3)])
@pytest.mark.parametrize("temperature", [1.0, 1.7])
def test_they_are_those_of_trl(kind, beta, temperature):
    """TRL leaves the square of the temperature out."""
    from trl.experimental.gkd.gkd_trainer import GKDTrainer
    hidden, weight, seen, theirs = given_states()
    found = GKDTrainer.generalized_jsd_loss((hidden @ weight.T)[None], (seen @ theirs.T)[None], None, beta, temperature)
    ours = divergences(hidden, weight, seen, theirs, kind, beta, temperature).sum() / temperature**2
    torch.testing.assert_close(ours, found, rtol=1e-4, atol=1e-5)
