"""The over-optimisation watch."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import load_file, save_file

from trivium.errors import TriviumError
from trivium.evaluation.checkers import Checker
from trivium.files import written_aside
from trivium.model import LanguageModel
from trivium.stages.reinforcement.reference import trained
from trivium.stages.reinforcement.rollout import Rollouts, true_points
from trivium.stages.reinforcement.scoring import TrainingReward
from trivium.stages.rewards import FunctionReward, Reward


@dataclass
class WatchState:
    """What the watch remembers."""

    best: list[float] = field(default_factory=list)
    """The scores of the best policy's answers; empty before the first measurement."""
    worse: int = 0
    """Measurements in a row that found the policy worse than that."""


class Watch:
    """The over-optimisation watch: now and then the policy answers prompts that it never trains on, and a judge that it
    does not learn from says how good the answers are: ``gold``; or else the hidden rubric where the truth is known, or
    whether they are right in all and sound where every prompt has its own ``check``.

    Past some point a policy that is optimised against a reward model gets worse by any other measure (Stiennon et al.
    2020, fig. 5; Gao et al. 2023). The best policy so far is kept. One that is worse than it by two standard errors of
    the paired differences is warned of; after ``watch_patience`` such measurements in a row training ends, with the
    best policy. The ``reward`` that the policy learns from judges the same answers, to be drawn beside it."""

    def __init__(self, rollouts: Rollouts, gold: Reward | None, reward: Reward, state: WatchState) -> None:
        self.rollouts, self.gold, self.reward, self.state = rollouts, gold, reward, state
        self.place: Path = rollouts.context.scratch / "best.safetensors"
        if not rollouts.settings.watch_every:
            return
        if gold is None and not rollouts.truth_is_known:
            if not all("check" in row for row in rollouts.watched):
                raise TriviumError(
                    f"{rollouts.context.name}: watch_every needs a judge: prompts whose truth or `check` is known, or "
                    "a reward that the policy does not learn from (`gold:`)")
            self.gold = TrainingReward(FunctionReward(Checker("right_and_sound", where="watch")),
                                       rollouts.settings.unfinished_score)
        if self.gold is not None:
            self.gold.check_rows(rollouts.watched)

    def close(self) -> None:
        """Close the judge."""
        if self.gold is not None:
            self.gold.close()

    def measure(self, done: int) -> dict[str, float]:
        """Measure after ``done`` iterations."""
        answers = self.rollouts.answer(self.rollouts.watched, 1, "watch")
        points = true_points(answers) if self.gold is None else self.gold(answers)
        gold = [float(value[0]) for value in points]
        self._compare(gold, done)
        scores = {"watched_gold": gold, "watched_score": [float(value[0]) for value in self.reward(answers)]}
        return {name: float(measure(values)) for key, values in scores.items()
                for name, measure in ((key, np.mean), (f"{key}_spread", np.std))}

    def _compare(self, gold: list[float], done: int) -> None:
        """Keep the policy if it is the best one, and say so if it is worse than that."""
        state, mean = self.state, float(np.mean(gold))
        if not state.best or mean > np.mean(state.best):
            state.best, state.worse = gold, 0
            if self.rollouts.world.leader:
                self._keep()
            return
        lost = np.array(state.best) - gold
        if lost.mean() > 2 * lost.std(ddof=1) / np.sqrt(len(lost)):
            state.worse += 1
            self.rollouts.context.progress.say(
                f"after {done} iterations the answers are worse than the best policy's: {mean:.2f} against "
                f"{np.mean(state.best):.2f} by a judge it does not learn from; it may be fooling its reward")
        else:
            state.worse = 0

    def _keep(self) -> None:
        with written_aside(self.place) as aside:
            save_file({name: weight.detach().contiguous() for name, weight in trained(self.rollouts.policy)}, aside)

    @property
    def past_the_peak(self) -> bool:
        """Whether training should end."""
        return self.state.worse >= self.rollouts.settings.watch_patience

    def restore_best(self, policy: LanguageModel) -> None:
        """Give a policy the best one's weights."""
        best = load_file(self.place)
        with torch.no_grad():
            for name, weight in trained(policy):
                weight.copy_(best[name])
