"""Dynamic sampling: groups that teach nothing are drawn again."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from trivium.errors import TriviumError
from trivium.stages.reinforcement.rollout import Rollouts, Sums
from trivium.stages.rewards import Answers, Reward


@dataclass
class Drawn:
    """The responses of an iteration and their scores."""

    answers: Answers
    scores: list[np.ndarray]
    again: int
    """Groups that were drawn again, in all processes."""
    sums: Sums
    """What is logged of dynamic sampling; nothing without it."""


def draw(rollouts: Rollouts, reward: Reward, iteration: int, tries: int) -> Drawn:
    """The responses to an iteration's prompts. Groups whose responses all score alike are drawn again, up to ``tries``
    times, each from a prompt that this iteration has not asked (Yu et al. 2025, sec. 3.2): after the last try, or when
    there are no more prompts, the rest stays as it is. Which prompts are asked depends on the seed, the iteration and
    the scores alone, however many processes there are."""
    answers = rollouts.answer(rollouts.prompts_of(iteration), rollouts.samples, "rollout", iteration)
    scores, again = reward(answers), 0
    seen = [float(given.sum()) for given in scores]
    part, parts = rollouts.world.slice
    further = rollouts.further_prompts(iteration) if tries else []
    for _ in range(tries):
        alike = [0.0] * rollouts.settings.episodes
        alike[part::parts] = [float(given.std() == 0) for given in scores]
        places = [place for place, is_so in enumerate(rollouts.world.add(alike, rollouts.device)) if is_so]
        chosen = list(zip(places, further, strict=False))
        if not chosen:
            break
        further, again = further[len(chosen):], again + len(chosen)
        mine = {place // parts: row for place, row in chosen if place % parts == part}
        if mine:
            fresh = rollouts.answer(list(mine.values()), rollouts.samples, "rollout", iteration)
            found = reward(fresh)
            seen += [float(given.sum()) for given in found]
            for here, (place, given) in enumerate(zip(mine, found, strict=True)):
                scores[place] = given
                put(answers, place, fresh, here)
    if not tries:
        return Drawn(answers, scores, 0, {})
    return Drawn(answers, scores, again, {
        "groups_drawn_again": (float(again), 1.0),
        "score_of_all_drawn": (sum(seen), float(len(seen) * rollouts.samples))})


def check_further(rollouts: Rollouts, tries: int) -> None:
    """Raise :class:`TriviumError` where dynamic sampling would find no further prompts."""
    episodes = rollouts.settings.episodes
    if tries and len(rollouts.prompts) <= episodes:
        raise TriviumError(f"{rollouts.context.name}: dynamic_sampling draws further prompts, but a rollout asks all "
                           f"{episodes} that there are; lower `episodes`, or set `dynamic_sampling: 0`")


def put(answers: Answers, place: int, others: Answers, here: int) -> None:
    """Put one group of ``others`` into the place of one of ``answers``."""
    for name in ("rows", "trees", "texts", "finished", "log_probs"):
        if getattr(answers, name):
            getattr(answers, name)[place] = getattr(others, name)[here]
    for name, part in answers.parts.items():
        part[place] = others.parts[name][here]
