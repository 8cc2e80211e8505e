"""The objectives of reinforcement learning without a value model, each as the few choices that its paper made."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

ObjectiveName = Literal["grpo", "rloo", "reinforce++", "dr_grpo", "dapo", "gspo", "cispo"]
Advantages = Literal["group", "centred", "leave_one_out", "batch", "centred_batch"]
Ratio = Literal["token", "sequence"]
Aggregation = Literal["tokens", "responses", "constant"]
KlPlace = Literal["loss", "reward"]


@dataclass(frozen=True)
class PolicyObjective:
    """What a policy is improved by. The defaults are the choices that most papers agree in."""

    paper: str
    advantages: Advantages
    """Of a response: its reward minus the mean of its group, over the group's deviation (``group``), or not
    (``centred``), or minus the mean of the others (``leave_one_out``); or its reward, whitened over all tokens of a
    rollout (``batch``), after the group's mean was taken off (``centred_batch``)."""
    ratio: Ratio = "token"
    """How much likelier a response became: each token by itself, or the geometric mean of its tokens."""
    aggregation: Aggregation = "tokens"
    """The mean over all tokens (``tokens``), over responses of their means (``responses``), or over responses of their
    sums, divided by the longest length there may be (``constant``)."""
    clip: float = 0.2
    """How far a ratio may fall below 1 before nothing more is learned; 1 sets no bound."""
    clip_high: float | None = None
    """How far it may rise above 1; None: as far as it may fall."""
    detached: bool = False
    """Whether clipped ratios weigh the log-probabilities, and no gradient goes through them."""
    kl_coefficient: float = 0.0
    """Weight of the KL penalty."""
    kl_place: KlPlace = "loss"
    """Where that stands."""
    tries: int = 0
    """How often groups that teach nothing are drawn again."""
    overlong: float = 0.0
    """The last share of the longest length, in which responses are punished for being long."""

    @property
    def bounds(self) -> tuple[float, float]:
        """How far a ratio may fall, and rise."""
        return self.clip, self.clip if self.clip_high is None else self.clip_high


OBJECTIVES: dict[ObjectiveName, PolicyObjective] = {
    "grpo": PolicyObjective("Shao et al. 2024, eq. 3, its losses as a mean over all tokens (Yu et al. 2025, eq. 8)",
                            "group", kl_coefficient=0.04),
    "rloo": PolicyObjective("Ahmadian et al. 2024, eq. 9", "leave_one_out", aggregation="constant",
                            kl_coefficient=0.05, kl_place="reward"),
    "reinforce++": PolicyObjective("Hu 2025", "batch", kl_coefficient=0.01, kl_place="reward"),
    "dr_grpo": PolicyObjective("Liu et al. 2025", "centred", aggregation="constant"),
    "dapo": PolicyObjective("Yu et al. 2025, eqs. 8 to 13", "group", clip_high=0.28, tries=10, overlong=0.2),
    "gspo": PolicyObjective("Zheng et al. 2025, eqs. 5 to 7", "group", ratio="sequence", aggregation="responses",
                            clip=3e-4, clip_high=4e-4),
    "cispo": PolicyObjective("MiniMax-M1 2025, eqs. 4 and 5; bound by Khatri et al. 2025", "group", clip=1.0,
                             clip_high=4.0, detached=True),
}
"""By name. RLOO's KL coefficient is TRL's, REINFORCE++'s OpenRLHF's; the other numbers are the papers'."""
