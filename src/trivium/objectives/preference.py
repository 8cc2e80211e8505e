"""Learning from preferences without a reward model: DPO, IPO, hinge, SimPO and KTO.

A *preference loss* is a pure function of what two responses' log-probabilities are, in nats:
``(policy_chosen, policy_rejected, reference_chosen, reference_rejected, beta)``, all but ``beta`` tensors ``[P]``, one
entry a pair. It returns a loss for each pair ``[P]``. A log-probability is of a whole response: summed over its tokens
or, in the length-normalised form, their mean.

:func:`preference_loss` gives such a function a name for recipes. Further arguments after ``beta`` are its options.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
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
        return "policy_chosen", "policy_rejected", *reference, "beta"

    @property
    def options(self) -> list[str]:
        """The names of its options."""
        return option_names(self.function, len(self.arguments))

    def check(self, options: Mapping[str, object]) -> None:
        """Raise :class:`TriviumError` where it cannot be called with these options."""
        check_signature(self.place, self.function, self.arguments, options)

    def __call__(self, policy_chosen: Tensor, policy_rejected: Tensor, reference_chosen: Tensor | None,
                 reference_rejected: Tensor | None, beta: float, **options: Any) -> Tensor:
        """The losses ``[P]``; the reference's log-probabilities may be None for a loss that needs none. Raises
        :class:`TriviumError` for a function of the user's own that returns anything else."""
        scores = [policy_chosen, policy_rejected]
        if self.reference:
            assert reference_chosen is not None and reference_rejected is not None
            scores += [reference_chosen, reference_rejected]
        return pair_losses(self.place, self.function, scores, beta, **options)


def preference_loss(name: str, *, reference: bool = True, mean: bool = False,
                    beta: float | None = None) -> Callable[[Function], Function]:
    """A decorator that registers a preference loss under a name. ``reference=False`` declares that it takes no
    log-probabilities of a reference; then none are measured. With ``mean`` log-probabilities are means over a
    response's tokens. ``beta`` is what it takes where the user gives none.

    Raises :class:`TriviumError` for a name that a loss of another file has."""
    def register(function: Function) -> Function:
        known = PREFERENCE_LOSSES.get(name)
        if known is not None and known.file != file_of_function(function):
            raise TriviumError(f"there is a preference loss {name!r} already, "
                               f"in {known.file or 'Trivium itself'}; choose another name")
        PREFERENCE_LOSSES[name] = PreferenceLoss(name, function, reference, mean, beta)
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


@preference_loss("sigmoid")
def dpo_losses(policy_chosen: Tensor, policy_rejected: Tensor, reference_chosen: Tensor, reference_rejected: Tensor,
               beta: float, label_smoothing: float = 0.0) -> Tensor:
    """Direct preference optimisation (Rafailov et al. 2023, eq. 7): ``-log sigmoid(m)`` with m the implicit margin.

    With ``label_smoothing`` e a pair is taken to be labelled the wrong way round with that probability (Mitchell 2023,
    'conservative DPO'): ``-(1 - e) log sigmoid(m) - e log sigmoid(-m)``.
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
