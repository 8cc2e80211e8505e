"""Learning from preferences without a reward model: DPO and its kin, and KTO.

A *preference loss* is a pure function of what two responses' log-probabilities are, in nats:
``(policy_chosen, policy_rejected, reference_chosen, reference_rejected, beta)``, all but ``beta`` tensors ``[P]``, one
entry a pair. It returns a loss for each pair ``[P]``. A log-probability is of a whole response: summed over its tokens
or, in the length-normalised form, their mean.

:func:`preference_loss` gives such a function a name for recipes, and says what else it takes and begins with. Further
arguments after ``beta`` are its options. What a loss returns for a pair depends on that pair alone, so that neither
microbatches nor processes can change it.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, TypeVar

import torch
import torch.nn.functional as F
from torch import Tensor

from trivium.errors import TriviumError, nearest
from trivium.extensions import file_of, installed, load_object
from trivium.objectives.functions import check_signature, file_of_function, option_names, pair_losses

Function = TypeVar("Function", bound=Callable[..., Tensor])

GROUP = "trivium.preference_losses"
"""The entry points of installed packages that offer preference losses."""

PREFERENCE_LOSSES: dict[str, PreferenceLoss] = {}
"""The preference losses that have been registered, by name."""


@dataclass(frozen=True)
class PreferenceLoss:
    """A preference loss with what is declared of it."""

    name: str
    """What recipes call it."""
    function: Callable[..., Tensor]
    reference: bool = True
    """Whether it takes the reference's log-probabilities. Without, it is called with ``(policy_chosen, policy_rejected,
    beta)``."""
    mean: bool = False
    """Whether log-probabilities are means over a response's tokens, whatever else is asked."""
    beta: float | None = None
    """The ``beta`` that its paper begins with; None where DPO's fits."""
    lengths: bool = False
    """Whether it takes how many tokens the responses have, ``chosen_tokens`` and ``rejected_tokens [P]``, before
    ``beta``. Sums divided by them are means."""
    tail_weight: float = 1.0
    """What a response's tokens weigh that are beyond the length of the other one of the pair."""
    nll_coefficient: float = 0.0
    """How many times the chosen response's negative log-likelihood, the mean over its tokens, is added."""
    rate: float = 1.0
    """How many times DPO's learning rate it begins with."""

    @property
    def file(self) -> Path | None:
        """The file of a user's loss; None for one of Trivium's own."""
        return file_of_function(self.function)

    @property
    def place(self) -> str:
        """What errors call it: its name, after its file where it is a user's."""
        return self.name if self.file is None or file_of(self.name) else f"{self.file}: preference loss {self.name!r}"

    @property
    def arguments(self) -> tuple[str, ...]:
        """What it is called with, besides its options."""
        reference = ("reference_chosen", "reference_rejected") if self.reference else ()
        lengths = ("chosen_tokens", "rejected_tokens") if self.lengths else ()
        return "policy_chosen", "policy_rejected", *reference, *lengths, "beta"

    @property
    def options(self) -> list[str]:
        """The names of its options."""
        return option_names(self.function, len(self.arguments))

    def check(self, options: Mapping[str, object]) -> None:
        """Raise :class:`TriviumError` where it cannot be called with these options. One of Trivium's own is tried, as
        its options may be out of range."""
        check_signature(self.place, self.function, self.arguments, options)
        if self.function.__module__ == __name__:
            pair_losses(self.place, self.function, [-torch.ones(1)] * (len(self.arguments) - 1), 1.0, **options)

    def __call__(self, policy_chosen: Tensor, policy_rejected: Tensor, reference_chosen: Tensor | None,
                 reference_rejected: Tensor | None, beta: float, lengths: Sequence[Tensor] = (), /,
                 **options: Any) -> Tensor:
        """The losses ``[P]``; the reference's log-probabilities may be None for a loss that needs none, and the
        ``lengths`` of chosen and rejected responses may be left out for one that takes none. Raises
        :class:`TriviumError` for what it needs and is not given, and for a function of the user's own that returns
        anything else."""
        scores = [policy_chosen, policy_rejected]
        if self.reference:
            if reference_chosen is None or reference_rejected is None:
                raise TriviumError(f"{self.place}: it takes the log-probabilities of a reference, and is given none; "
                                   "measure them, or take a loss that needs none, such as simpo, cpo or orpo")
            scores += [reference_chosen, reference_rejected]
        if self.lengths:
            if not lengths:
                raise TriviumError(f"{self.place}: it takes the numbers of tokens of both responses, and is given none")
            scores += lengths
        return pair_losses(self.place, self.function, scores, beta, **options)


def preference_loss(name: str, **declared: Any) -> Callable[[Function], Function]:
    """A decorator that registers a preference loss under a name, with what is ``declared`` of it: the fields of
    :class:`PreferenceLoss`. ``reference=False``: it takes no log-probabilities of a reference; then none are measured.
    ``mean=True``: log-probabilities are means over a response's tokens. ``lengths=True``: it takes numbers of tokens
    too. ``beta``, ``tail_weight``, ``nll_coefficient`` and ``rate`` are what it takes where the user gives none.

    Raises :class:`TriviumError` for a name that a loss of another file has."""
    def register(function: Function) -> Function:
        known = PREFERENCE_LOSSES.get(name)
        if known is not None and known.file != file_of_function(function):
            raise TriviumError(f"there is a preference loss {name!r} already, "
                               f"in {known.file or 'Trivium itself'}; choose another name")
        PREFERENCE_LOSSES[name] = PreferenceLoss(name, function, **declared)
        return function
    return register


def find_preference_loss(reference: str) -> PreferenceLoss:
    """The loss of that name, registered or offered by an installed package; or what ``FILE.py:NAME`` names.

    Raises :class:`TriviumError` where there is none, and where its file cannot be run."""
    if reference in PREFERENCE_LOSSES:
        return PREFERENCE_LOSSES[reference]
    packaged = installed(GROUP)
    if file_of(reference) is not None:
        function = load_object(reference)
    elif reference in packaged:
        try:
            function = packaged[reference].load()
        except Exception as error:
            raise TriviumError(f"the installed preference loss {reference!r} cannot be loaded: "
                               f"{type(error).__name__}: {error}") from error
    else:
        raise TriviumError(f"there is no preference loss {reference!r} (one of your own is FILE.py:NAME)"
                           f"{nearest(reference, {*PREFERENCE_LOSSES, *packaged})}")
    declared = next((loss for loss in PREFERENCE_LOSSES.values() if loss.function is function), None)
    return replace(declared, name=reference) if declared else PreferenceLoss(reference, function)


def implicit_margins(policy_chosen: Tensor, policy_rejected: Tensor, reference_chosen: Tensor | None,
                     reference_rejected: Tensor | None, beta: float) -> Tensor:
    """By how much the implicit reward of the chosen response is above that of the rejected one, for each pair ``[P]``:
    ``beta * ((policy_chosen - reference_chosen) - (policy_rejected - reference_rejected))`` (Rafailov et al. 2023,
    section 5). Without a reference: ``beta * (policy_chosen - policy_rejected)`` (as in SimPO, Meng et al. 2024)."""
    if reference_chosen is None or reference_rejected is None:
        return beta * (policy_chosen - policy_rejected)
    return beta * ((policy_chosen - reference_chosen) - (policy_rejected - reference_rejected))


def implicit_rewards(policy_chosen: Tensor, policy_rejected: Tensor, reference_chosen: Tensor,
                     reference_rejected: Tensor, beta: float) -> tuple[Tensor, Tensor]:
    """The implicit rewards of the chosen and of the rejected responses, ``[P]`` each: ``beta`` times how much likelier
    the policy makes them than the reference does."""
    return beta * (policy_chosen - reference_chosen), beta * (policy_rejected - reference_rejected)


@preference_loss("ld_dpo", tail_weight=0.5)
@preference_loss("dpo_nll", nll_coefficient=0.2)
@preference_loss("sigmoid")
def dpo_losses(policy_chosen: Tensor, policy_rejected: Tensor, reference_chosen: Tensor, reference_rejected: Tensor,
               beta: float, label_smoothing: float = 0.0) -> Tensor:
    """Direct preference optimisation (Rafailov et al. 2023, eq. 7): ``-log sigmoid(m)`` with m the implicit margin.

    With ``label_smoothing`` e a pair is taken to be labelled the wrong way round with that probability (Mitchell 2023,
    'conservative DPO'): ``-(1 - e) log sigmoid(m) - e log sigmoid(-m)``.

    ``dpo_nll`` adds 0.2 times the chosen response's negative log-likelihood, which keeps that from getting unlikelier
    (Llama 3, section 4.1.4; Pang et al. 2024, eq. 2). In ``ld_dpo`` tokens of the longer response beyond the length of
    the shorter one weigh half, against a taste for length (Liu et al. 2024, length-desensitised DPO).
    """
    margins = implicit_margins(policy_chosen, policy_rejected, reference_chosen, reference_rejected, beta)
    return -(1 - label_smoothing) * F.logsigmoid(margins) - label_smoothing * F.logsigmoid(-margins)


@preference_loss("ipo")
def ipo_losses(policy_chosen: Tensor, policy_rejected: Tensor, reference_chosen: Tensor, reference_rejected: Tensor,
               beta: float) -> Tensor:
    """Identity preference optimisation (Azar et al. 2023, eq. 17): ``(h - 1 / (2 * beta))^2``, with h the difference of
    log-ratios.

    The paper's log-probabilities are of whole responses, summed over tokens. Means instead, as its authors came to
    advise, are a matter of what the caller hands in.
    """
    differences = (policy_chosen - reference_chosen) - (policy_rejected - reference_rejected)
    return (differences - 1 / (2 * beta)) ** 2


@preference_loss("hinge")
def hinge_losses(policy_chosen: Tensor, policy_rejected: Tensor, reference_chosen: Tensor, reference_rejected: Tensor,
                 beta: float) -> Tensor:
    """The hinge loss of SLiC (Zhao et al. 2023) on the implicit margin m, the form that Liu et al. 2023 (RSO) call
    hinge-norm: ``max(0, 1 - m)``. A pair whose margin is above 1 teaches no more.
    """
    return F.relu(1 - implicit_margins(policy_chosen, policy_rejected, reference_chosen, reference_rejected, beta))


@preference_loss("simpo", reference=False, mean=True, beta=2.0)
def simpo_losses(policy_chosen: Tensor, policy_rejected: Tensor, beta: float, target_margin: float = 1.0) -> Tensor:
    """Simple preference optimisation (Meng et al. 2024, eq. 6): ``-log sigmoid(m - target_margin)``, m being beta times
    the difference of the mean log-probabilities of a token. ``target_margin`` is the paper's gamma; there gamma / beta
    lies between 0.3 and 1.6."""
    return -F.logsigmoid(implicit_margins(policy_chosen, policy_rejected, None, None, beta) - target_margin)


@preference_loss("robust")
def robust_losses(policy_chosen: Tensor, policy_rejected: Tensor, reference_chosen: Tensor, reference_rejected: Tensor,
                  beta: float, label_smoothing: float = 0.1) -> Tensor:
    """Provably robust DPO (Chowdhury et al. 2024, eq. 13), for pairs that are labelled the wrong way round with the
    probability ``label_smoothing`` e (0.1 in the paper's experiments): ``(-(1 - e) log sigmoid(m) + e log sigmoid(-m))
    / (1 - 2 e)``, whose mean over wrong labels is DPO's loss of the right ones."""
    if not 0 <= label_smoothing < 0.5:
        raise TriviumError(f"robust: `label_smoothing` is {label_smoothing:g}; it is at least 0 and below 0.5")
    margins = implicit_margins(policy_chosen, policy_rejected, reference_chosen, reference_rejected, beta)
    wrong = label_smoothing * F.logsigmoid(-margins)
    return (wrong - (1 - label_smoothing) * F.logsigmoid(margins)) / (1 - 2 * label_smoothing)


@preference_loss("dpop")
def dpop_losses(policy_chosen: Tensor, policy_rejected: Tensor, reference_chosen: Tensor, reference_rejected: Tensor,
                beta: float, penalty: float = 50.0) -> Tensor:
    """DPO-positive, of Smaug (Pal et al. 2024): ``-log sigmoid(m - beta * penalty * max(0, reference_chosen -
    policy_chosen))``. A chosen response that gets unlikelier than under the reference costs dearly, where DPO is
    content as long as the rejected one loses more. ``penalty`` is the paper's lambda, 50."""
    margins = implicit_margins(policy_chosen, policy_rejected, reference_chosen, reference_rejected, beta)
    return -F.logsigmoid(margins - beta * penalty * F.relu(reference_chosen - policy_chosen))


@preference_loss("r_dpo", lengths=True)
def length_regularised_losses(policy_chosen: Tensor, policy_rejected: Tensor, reference_chosen: Tensor,
                              reference_rejected: Tensor, chosen_tokens: Tensor, rejected_tokens: Tensor, beta: float,
                              length_penalty: float = 0.01) -> Tensor:
    """Length-regularised DPO (Park et al. 2024, R-DPO): ``-log sigmoid(m + length_penalty * (chosen_tokens -
    rejected_tokens))``. Less is learned from a pair whose chosen response is the longer one, more where it is shorter.
    ``length_penalty`` is the paper's alpha, in nats a token."""
    margins = implicit_margins(policy_chosen, policy_rejected, reference_chosen, reference_rejected, beta)
    return -F.logsigmoid(margins + length_penalty * (chosen_tokens - rejected_tokens))


@preference_loss("apo_zero")
def apo_zero_losses(policy_chosen: Tensor, policy_rejected: Tensor, reference_chosen: Tensor,
                    reference_rejected: Tensor, beta: float) -> Tensor:
    """Anchored preference optimisation, zero (D'Oosterlinck et al. 2024, eq. 7): ``1 - sigmoid(r_chosen) +
    sigmoid(r_rejected)``, with r the implicit rewards: chosen responses get likelier, rejected ones unlikelier. For
    chosen responses that are better than the model's own."""
    chosen, rejected = implicit_rewards(policy_chosen, policy_rejected, reference_chosen, reference_rejected, beta)
    return torch.sigmoid(-chosen) + torch.sigmoid(rejected)


@preference_loss("apo_down")
def apo_down_losses(policy_chosen: Tensor, policy_rejected: Tensor, reference_chosen: Tensor,
                    reference_rejected: Tensor, beta: float) -> Tensor:
    """Anchored preference optimisation, down (D'Oosterlinck et al. 2024, eq. 8): ``sigmoid(r_chosen) + 1 -
    sigmoid(r_chosen - r_rejected)``: both get unlikelier, rejected ones more. For chosen responses that are worse than
    the model's own."""
    chosen, rejected = implicit_rewards(policy_chosen, policy_rejected, reference_chosen, reference_rejected, beta)
    return torch.sigmoid(chosen) + torch.sigmoid(rejected - chosen)


@preference_loss("bco")
def bco_losses(policy_chosen: Tensor, policy_rejected: Tensor, reference_chosen: Tensor, reference_rejected: Tensor,
               beta: float, shift: float = 0.0) -> Tensor:
    """Binary classifier optimisation (Jung et al. 2024): ``-log sigmoid(r_chosen - shift) - log sigmoid(shift -
    r_rejected)``: the implicit reward tells good responses from bad ones. It is TRL's ``bco_pair``, where the shift is
    0; the paper's is a running mean of the rewards, which would depend on what was learned before."""
    chosen, rejected = implicit_rewards(policy_chosen, policy_rejected, reference_chosen, reference_rejected, beta)
    return -F.logsigmoid(chosen - shift) - F.logsigmoid(shift - rejected)


@preference_loss("nca")
def nca_losses(policy_chosen: Tensor, policy_rejected: Tensor, reference_chosen: Tensor, reference_rejected: Tensor,
               beta: float) -> Tensor:
    """Noise contrastive alignment of pairs (Chen et al. 2024, section 4.1): ``-log sigmoid(r_chosen) - (log
    sigmoid(-r_chosen) + log sigmoid(-r_rejected)) / 2``. It bounds how likely each response is for itself, so that
    chosen ones do not get unlikelier, as they may under DPO."""
    chosen, rejected = implicit_rewards(policy_chosen, policy_rejected, reference_chosen, reference_rejected, beta)
    return -F.logsigmoid(chosen) - (F.logsigmoid(-chosen) + F.logsigmoid(-rejected)) / 2


@preference_loss("sppo")
def sppo_losses(policy_chosen: Tensor, policy_rejected: Tensor, reference_chosen: Tensor, reference_rejected: Tensor,
                beta: float) -> Tensor:
    """Self-play preference optimisation (Wu et al. 2024, eq. 4.7) with winning probabilities of 1 and 0: ``(l_chosen -
    1 / (2 * beta))^2 + (l_rejected + 1 / (2 * beta))^2``, with l the log-ratios: one is to rise and the other to fall
    by so many nats. For rounds, in which the policy's own samples are judged."""
    chosen, rejected = policy_chosen - reference_chosen, policy_rejected - reference_rejected
    return (chosen - 1 / (2 * beta)) ** 2 + (rejected + 1 / (2 * beta)) ** 2


@preference_loss("exo")
def exo_losses(policy_chosen: Tensor, policy_rejected: Tensor, reference_chosen: Tensor, reference_rejected: Tensor,
               beta: float, label_smoothing: float = 1e-3) -> Tensor:
    """Efficient exact optimisation of pairs (Ji et al. 2024, eq. 16): the KL divergence of ``(sigmoid(m),
    sigmoid(-m))`` from ``(1 - e, e)``, with e the ``label_smoothing``, 0.001 in the paper. DPO's is the same divergence
    the other way round; this one seeks one mode rather than cover all."""
    if not 0 < label_smoothing < 0.5:
        raise TriviumError(f"exo: `label_smoothing` is {label_smoothing:g}; it is above 0 and below 0.5")
    margins = implicit_margins(policy_chosen, policy_rejected, reference_chosen, reference_rejected, beta)
    right, wrong = F.logsigmoid(margins), F.logsigmoid(-margins)
    return (right.exp() * (right - math.log1p(-label_smoothing)) + wrong.exp() * (wrong - math.log(label_smoothing)))


@preference_loss("cpo", reference=False, beta=0.1, nll_coefficient=1.0)
def cpo_losses(policy_chosen: Tensor, policy_rejected: Tensor, beta: float) -> Tensor:
    """Contrastive preference optimisation (Xu et al. 2024, eq. 3): ``-log sigmoid(beta * (policy_chosen -
    policy_rejected))``, DPO under a uniform reference, to which the chosen response's negative log-likelihood is added,
    as in the authors' code the mean over its tokens."""
    return -F.logsigmoid(implicit_margins(policy_chosen, policy_rejected, None, None, beta))


@preference_loss("orpo", reference=False, mean=True, beta=0.1, nll_coefficient=1.0, rate=10.0)
def orpo_losses(policy_chosen: Tensor, policy_rejected: Tensor, beta: float) -> Tensor:
    """Odds ratio preference optimisation (Hong et al. 2024, eq. 6 and 7): ``-beta * log sigmoid(log odds(p_chosen) -
    log odds(p_rejected))``, added to the chosen response's negative log-likelihood; p is the exponential of the mean
    log-probability of a token, and ``odds(p) = p / (1 - p)``. ``beta`` is the paper's lambda. It is fine-tuning and
    preference in one, for a model that has not been fine-tuned, at a rate nearer to fine-tuning's."""
    def log_odds(log_probs: Tensor) -> Tensor:
        below = log_probs.clamp(max=-torch.finfo(log_probs.dtype).eps)  # a certain response has no finite odds
        return below - torch.log(-torch.expm1(below))
    return -beta * F.logsigmoid(log_odds(policy_chosen) - log_odds(policy_rejected))


def kto_losses(log_ratios: Tensor, desirable: Tensor, baseline: Tensor, beta: float, desirable_weight: float = 1.0,
               undesirable_weight: float = 1.0) -> Tensor:
    """Kahneman-Tversky optimisation (Ethayarajh et al. 2024, eq. 8) for each response ``[S]``.

    ``log_ratios [S]`` are log-probabilities of responses under the policy minus those under the reference, ``desirable
    [S]`` says which were liked. ``baseline`` estimates KL(policy || reference), is not learned through and not below 0:
    ``weight * (1 - sigmoid(beta * (r - baseline)))`` for what was liked, with the sign turned for what was not.
    """
    gains = beta * (log_ratios - baseline.detach().clamp(min=0.0))
    return torch.where(desirable, desirable_weight * (1 - torch.sigmoid(gains)),
                       undesirable_weight * (1 - torch.sigmoid(-gains)))


def balanced_weights(liked: int, disliked: int) -> tuple[float, float]:
    """Weights of desirable and undesirable responses with which both sides weigh alike, however many of each there are
    (Ethayarajh et al. 2024, eq. 9, where the ratio of the weighted numbers may lie between 1 and 4/3)."""
    if not liked or not disliked:
        return 1.0, 1.0
    return (disliked / liked, 1.0) if liked < disliked else (1.0, liked / disliked)
