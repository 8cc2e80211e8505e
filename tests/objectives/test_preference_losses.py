"""Preference losses by name, from files, plugins and packages; and those that misbehave."""

from __future__ import annotations

import math
import subprocess
import sys

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from trivium.errors import TriviumError
from trivium.extensions import load_module
from trivium.objectives import preference
from trivium.objectives.functions import pair_losses
from trivium.objectives.preference import PREFERENCE_LOSSES, find_preference_loss, implicit_margins, preference_loss
from trivium.objectives.ranking import find_pairwise_loss

OWN = """
import torch
from trivium.objectives.preference import preference_loss

def squared(policy_chosen, policy_rejected, reference_chosen, reference_rejected, beta, *, target=1.0):
    return (beta * ((policy_chosen - reference_chosen) - (policy_rejected - reference_rejected)) - target) ** 2

@preference_loss("own_simple", reference=False)
def simple(policy_chosen, policy_rejected, beta, gamma=0.5):
    return -torch.nn.functional.logsigmoid(beta * (policy_chosen - policy_rejected) - gamma)

def two(chosen, rejected): return chosen
def raises(a, b, c, d, beta): raise RuntimeError("no such thing")
def mean(a, b, c, d, beta): return (a - b).mean()
def number(a, b, c, d, beta): return 1.0
def undefined(a, b, c, d, beta): return (a - a) / (a - a)
def detached(a, b, c, d, beta): return (a - b).detach()
constant = 3
"""


@pytest.fixture
def own(tmp_path, monkeypatch):
    monkeypatch.setattr(preference, "PREFERENCE_LOSSES", dict(PREFERENCE_LOSSES))
    (tmp_path / "own.py").write_text(OWN)
    return tmp_path / "own.py"


def log_probs(*values):
    return [torch.tensor([value, value - 1], dtype=torch.float64, requires_grad=True) for value in values]


FOUR = (-3.0, -5.0, -3.5, -4.0)


def test_a_function_in_a_file_is_a_loss_with_its_options(own):
    loss = find_preference_loss(f"{own}:squared")
    assert loss.reference and loss.options == ["target"] and loss.file == own
    four = log_probs(*FOUR)
    torch.testing.assert_close(loss(*four, 0.5, target=2.0), (implicit_margins(*four, 0.5) - 2) ** 2)


def test_a_loss_may_declare_that_it_takes_no_reference(own):
    """By its file and, once a plugin's file has been run, by the name that it is registered under."""
    for name in (f"{own}:simple", "own_simple"):
        loss = find_preference_loss(name)
        assert not loss.reference and loss.options == ["gamma"] and loss.arguments == ("policy_chosen",
                                                                                       "policy_rejected", "beta")
        chosen, rejected = log_probs(-3.0, -5.0)
        expected = -torch.nn.functional.logsigmoid(0.5 * (chosen - rejected) - 1)
        torch.testing.assert_close(loss(chosen, rejected, None, None, 0.5, gamma=1.0), expected)


def test_simpo_is_its_paper():
    """Meng et al. 2024, equation 6, with the lengths divided out by the caller."""
    loss = find_preference_loss("simpo")
    assert (loss.reference, loss.mean, loss.beta, loss.options) == (False, True, 2.0, ["target_margin"])
    chosen, rejected = (torch.tensor([value], dtype=torch.float64) for value in (-1.25, -0.5))
    expected = math.log1p(math.exp(-(2.5 * (-1.25 + 0.5) - 1.2)))
    assert loss(chosen, rejected, None, None, 2.5, target_margin=1.2).item() == pytest.approx(expected, rel=1e-12)


BUILT_IN = [name for name, loss in PREFERENCE_LOSSES.items() if loss.file is None]


def log_sigmoid(x):
    return -math.log1p(math.exp(-x)) if x > 0 else x - math.log1p(math.exp(x))


def sigmoid(x):
    return 1 / (1 + math.exp(-x))


def odds(p):
    return p / (1 - p)


PAPERS = {
    "sigmoid": lambda c, r, m, b, n: -log_sigmoid(b * (c - r)),
    "dpo_nll": lambda c, r, m, b, n: -log_sigmoid(b * (c - r)),
    "ld_dpo": lambda c, r, m, b, n: -log_sigmoid(b * (c - r)),
    "ipo": lambda c, r, m, b, n: (c - r - 1 / (2 * b)) ** 2,
    "hinge": lambda c, r, m, b, n: max(0.0, 1 - b * (c - r)),
    "simpo": lambda c, r, m, b, n: -math.log(sigmoid(b * m[0] - b * m[1] - 1.0)),
    "robust": lambda c, r, m, b, n: (-0.9 * log_sigmoid(b * (c - r)) + 0.1 * log_sigmoid(-b * (c - r))) / 0.8,
    "dpop": lambda c, r, m, b, n: -log_sigmoid(b * (c - r - 50 * max(0.0, -c))),
    "r_dpo": lambda c, r, m, b, n: -log_sigmoid(b * c - b * r + (0.01 * n[0] - 0.01 * n[1])),
    "apo_zero": lambda c, r, m, b, n: 1 - sigmoid(b * c) + sigmoid(b * r),
    "apo_down": lambda c, r, m, b, n: sigmoid(b * c) + 1 - sigmoid(b * c - b * r),
    "bco": lambda c, r, m, b, n: -math.log(sigmoid(b * c)) - math.log(1 - sigmoid(b * r)),
    "nca": lambda c, r, m, b, n: -(math.log(sigmoid(b * c)) + 0.5 * math.log(sigmoid(-b * c))
                                   + 0.5 * math.log(sigmoid(-b * r))),
    "sppo": lambda c, r, m, b, n: (c - 0.5 / b) ** 2 + (r + 0.5 / b) ** 2,
    "exo": lambda c, r, m, b, n: sum(q * math.log(q / p) for q, p in zip(
        [math.exp(b * one) / (math.exp(b * c) + math.exp(b * r)) for one in (c, r)], (0.999, 0.001), strict=True)),
    "cpo": lambda c, r, m, b, n: -log_sigmoid(b * (m[0] - m[1])),
    "orpo": lambda c, r, m, b, n: -b * log_sigmoid(math.log(odds(math.exp(m[0])) / odds(math.exp(m[1])))),
}
"""Each loss of one pair as its paper writes it: of the log-ratios of chosen and rejected (c, r), the policy's
log-probabilities (m), beta (b) and the numbers of tokens (n)."""


@pytest.mark.parametrize("policy, reference", [((-1.5, -2.25), (-2.0, -1.5)), ((-2.5, -3.0), (-2.25, -0.5)),
                                               ((-0.75, -0.5), (-0.75, -0.25))])
@pytest.mark.parametrize("name", BUILT_IN)
def test_a_loss_is_the_equation_of_its_paper(name, policy, reference):
    loss, beta, tokens = find_preference_loss(name), 0.7, (7.0, 12.0)
    four = [torch.tensor([value], dtype=torch.float64) for value in (*policy, *reference)]
    found = loss(*(four if loss.reference else (*four[:2], None, None)), beta,
                 [torch.tensor([each], dtype=torch.float64) for each in tokens])
    expected = PAPERS[name](policy[0] - reference[0], policy[1] - reference[1], policy, beta, tokens)
    assert found.dtype == torch.float64 and found.item() == pytest.approx(expected, rel=1e-12)


def test_what_losses_declare():
    """What a recipe gets that says nothing but the loss."""
    found = {name: (loss.beta, loss.nll_coefficient, loss.tail_weight, loss.rate, loss.mean, loss.reference)
             for name in BUILT_IN if (loss := find_preference_loss(name)) and name not in ("simpo",)}
    plain = (None, 0.0, 1.0, 1.0, False, True)
    assert {name: each for name, each in found.items() if each != plain} == {
        "dpo_nll": (None, 0.2, 1.0, 1.0, False, True), "ld_dpo": (None, 0.0, 0.5, 1.0, False, True),
        "cpo": (0.1, 1.0, 1.0, 1.0, False, False), "orpo": (0.1, 1.0, 1.0, 10.0, True, False)}


LOG_PROB = st.floats(-3000, 0, width=32)


@pytest.mark.parametrize("name", BUILT_IN)
@settings(deadline=None, max_examples=60)
@given(values=st.tuples(LOG_PROB, LOG_PROB, LOG_PROB, LOG_PROB), beta=st.floats(1e-3, 10))
def test_losses_and_their_gradients_are_finite(name, values, beta):
    loss = find_preference_loss(name)
    four = [torch.tensor([value], requires_grad=True) for value in values]
    losses = loss(*(four if loss.reference else (*four[:2], None, None)), beta,
                  [torch.tensor([3.0]), torch.tensor([900.0])])
    losses.sum().backward()
    assert torch.isfinite(losses).all() and all(torch.isfinite(each.grad).all() for each in four[:2])


@pytest.mark.parametrize("name", BUILT_IN)
@settings(deadline=None, max_examples=60)
@given(chosen=st.floats(-20, -0.05), rejected=st.floats(-20, -0.05), beta=st.floats(0.01, 3))
def test_a_loss_falls_as_the_chosen_response_gets_ahead_of_the_rejected_one(name, chosen, rejected, beta):
    """From the reference, where training begins: some losses have a margin to aim at, and are content beyond it."""
    loss = find_preference_loss(name)
    policy = [torch.tensor([value], dtype=torch.float64, requires_grad=True) for value in (chosen, rejected)]
    reference = [each.detach().clone() for each in policy] if loss.reference else [None, None]
    loss(*policy, *reference, beta, [torch.tensor([5.0]), torch.tensor([5.0])]).sum().backward()
    assert policy[0].grad.item() - policy[1].grad.item() < 0
    assert policy[1].grad.item() >= 0 or name == "apo_down"


@pytest.mark.parametrize("name, options, message", [
    ("robust", {"label_smoothing": 0.5}, "robust: `label_smoothing` is 0.5; it is at least 0 and below 0.5"),
    ("exo", {"label_smoothing": 0.0}, "exo: `label_smoothing` is 0; it is above 0 and below 0.5"),
    ("dpop", {"penalty": "much"}, "dpop: TypeError: "),
    ("nca", {"label_smoothing": 0.1}, "nca: it has no option 'label_smoothing'; it takes .* alone")])
def test_options_out_of_range_are_said_before_training(name, options, message):
    with pytest.raises(TriviumError, match=message):
        find_preference_loss(name).check(options)


def test_what_a_loss_needs_and_is_not_given_is_said():
    chosen, rejected = log_probs(-3.0, -5.0)
    with pytest.raises(TriviumError, match="^dpop: it takes the log-probabilities of a reference, and is given none;"):
        find_preference_loss("dpop")(chosen, rejected, None, None, 0.1)
    with pytest.raises(TriviumError, match="^r_dpo: it takes the numbers of tokens of both responses"):
        find_preference_loss("r_dpo")(*log_probs(*FOUR), 0.1)


def test_a_loss_of_ones_own_may_take_numbers_of_tokens(own):
    @preference_loss("own_lengths", reference=False, lengths=True)
    def by_token(policy_chosen, policy_rejected, chosen_tokens, rejected_tokens, beta, gap=0.0):
        return -beta * (policy_chosen / chosen_tokens - policy_rejected / rejected_tokens) + gap

    loss = find_preference_loss("own_lengths")
    assert loss.options == ["gap"]
    chosen, rejected = log_probs(-3.0, -5.0)
    found = loss(chosen, rejected, None, None, 2.0, [torch.tensor([2.0, 4.0]), torch.tensor([5.0, 8.0])])
    assert found.tolist() == pytest.approx([1.0, 0.5])


def test_a_name_belongs_to_one_file(own, tmp_path):
    load_module(own)
    (tmp_path / "other.py").write_text(OWN)
    with pytest.raises(TriviumError,
                       match=r"other.py:8: .*there is a preference loss 'own_simple' already, in .*own.py"):
        load_module(tmp_path / "other.py")
    own.write_text(OWN + "\n# edited\n")
    load_module(own)  # the same file may be run again
    with pytest.raises(TriviumError, match="'hinge' already, in Trivium itself"):
        preference_loss("hinge")(lambda *_: None)


def test_an_installed_package_offers_losses_by_name(own, tmp_path, monkeypatch):
    (tmp_path / "lossy.py").write_text(OWN.replace("own_simple", "lossy_simple"))
    info = tmp_path / "lossy-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: lossy\nVersion: 1.0\n")
    (info /
     "entry_points.txt").write_text("[trivium.preference_losses]\nsquares = lossy:squared\nbroken = lossy:absent\n")
    monkeypatch.syspath_prepend(tmp_path)
    assert find_preference_loss("squares").options == ["target"]
    with pytest.raises(TriviumError, match="the installed preference loss 'broken' cannot be loaded: AttributeError"):
        find_preference_loss("broken")
    with pytest.raises(TriviumError, match="'squars' .*; did you mean 'squares'"):
        find_preference_loss("squars")


@pytest.mark.parametrize("name, message", [
    ("sigmoyd", r"there is no preference loss 'sigmoyd' \(one of your own is FILE.py:NAME\); did you mean 'sigmoid'"),
    ("absent.py:f", "absent.py: no such file"), ("{own}:sqared", "there is no 'sqared' in it; did you mean 'squared'")])
def test_unknown_losses_are_refused(own, name, message):
    with pytest.raises(TriviumError, match=message):
        find_preference_loss(name.format(own=own))


@pytest.mark.parametrize("function, options, message", [(
    "two", {},
    "too many positional arguments; it is called with \\(policy_chosen, policy_rejected, reference_chosen, "
    "reference_rejected, beta\\)"
), ("squared", {"targt": 1}, "it has no option 'targt'; did you mean 'target'"),
                                                        ("mean", {"beta": 1}, "no option 'beta'"),
                                                        ("constant", {}, "it is no function of .*, but 3")])
def test_a_wrong_signature_is_said_before_training(own, function, options, message):
    with pytest.raises(TriviumError, match=f"^{own}:{function}: .*{message}"):
        find_preference_loss(f"{own}:{function}").check(options)


@pytest.mark.parametrize("function, message",
                         [("raises", "RuntimeError: no such thing"),
                          ("mean", r"each of the 2 pairs was expected, shape \[2\], not shape \[\]"),
                          ("number", "not 'float'"),
                          ("undefined", "a loss is not finite, though all that it was computed from is"),
                          ("detached", "no gradient flows through its losses")])
def test_a_loss_that_misbehaves_is_named(own, function, message):
    with pytest.raises(TriviumError, match=f"^{own}:{function}: .*{message}") as caught:
        find_preference_loss(f"{own}:{function}")(*log_probs(*FOUR), 0.1)
    assert "\n" not in str(caught.value)


def test_a_registered_loss_that_misbehaves_is_named_with_its_file(own):
    load_module(own)
    with pytest.raises(
            TriviumError,
            match=f"^{own}: preference loss 'own_simple': it has no option 'delta'; did you mean 'gamma'|known: gamma"):
        find_preference_loss("own_simple").check({"delta": 1})


def test_scores_that_are_not_finite_are_not_the_losses_fault(own):
    four = log_probs(float("nan"), *FOUR[1:])
    assert torch.isnan(find_preference_loss("sigmoid")(*four, 0.1)).all()


def test_a_pairwise_loss_for_reward_models_is_checked_too(own):
    own.write_text(
        "def hinge(chosen, rejected, margins): return (1 + margins - chosen + rejected).clamp(min=0)\ndef bad(chosen): "
        "return chosen\n"
    )
    losses = pair_losses("hinge", find_pairwise_loss(f"{own}:hinge"), log_probs(1.0, 0.5), torch.zeros(2))
    assert losses.tolist() == [0.5, 0.5]
    with pytest.raises(
            TriviumError,
            match=f"^{own}:bad: too many positional arguments; it is called with \\(chosen, rejected, margins\\)"):
        find_pairwise_loss(f"{own}:bad")


def test_objectives_import_without_pydantic():
    script = (
        "import sys; sys.modules['pydantic'] = None; import trivium.objectives.preference, "
        "trivium.objectives.ranking, trivium.training.batch"
    )
    subprocess.run([sys.executable, "-c", script], check=True)
