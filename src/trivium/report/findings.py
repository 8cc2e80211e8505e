"""What a reader of a report should not miss: above all where winning and being right part."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

from trivium.report import texts
from trivium.report.examined import baseline_of, evaluations, own_stage
from trivium.report.formats import is_known_rate, is_rate, number, percent, signed
from trivium.report.gather import Gathered
from trivium.report.learning import remembered
from trivium.report.texts import Mood, Pair, filled, words

LOST = 0.05
"""A model that is right so much less often at a task has lost there."""
BROKEN = 0.01
"""A model so much more of whose answers hold words that exist nowhere has lost some of its language."""
GAP = 0.06
"""A reward model that is so far below its ceiling misses something."""


@dataclass(frozen=True)
class Finding:
    """One thing that was found of a stage; its sentences stand in :data:`~trivium.report.texts.FINDINGS`."""

    kind: str
    stage: str
    values: dict[str, str | Pair] = field(default_factory=dict)
    """What fills the gaps of the sentences."""

    @property
    def mood(self) -> Mood:
        """Whether it is good, bad, or only to be noted."""
        return texts.FINDINGS[self.kind][0]

    @property
    def sentences(self) -> Pair:
        """The same in both languages."""
        _, english, chinese = texts.FINDINGS[self.kind]
        return filled((english, chinese), {"stage": self.stage, **self.values})


def findings(found: Gathered) -> list[Finding]:
    """All that was found: first of the examinations, then stage by stage."""
    said = [finding for _, manifest in evaluations(found) for model in manifest["summary"]["models"]
            for finding in compared(found, manifest, model)]
    for stage in found.manifests:
        for look in (past_the_peak, learned_by_heart, forgot, below_the_ceiling, edited):
            said += look(found, stage)
    return said


def compared(found: Gathered, manifest: dict[str, Any], model: str) -> Iterator[Finding]:
    """How a model that an examination judged compares with the baseline, in winning and in being right."""
    base, models = baseline_of(manifest), manifest["summary"]["models"]
    figures, start = models[model], models.get(base, {})
    win = figures.get(f"win_rate_vs_{base}")
    if model == base or not own_stage(found, manifest, model):
        return
    yield from loses_its_words(figures, start, base, model)
    if not is_known_rate(win):
        return
    right, before = figures.get("right_answers"), start.get("right_answers")
    if win["low"] > 0.5 and is_rate(right) and is_rate(before):
        change = right["value"] - before["value"]
        losses = lost_tasks(figures.get("right_by_task", {}), start.get("right_by_task", {}))
        paired = figures.get(f"right_difference_vs_{base}")
        kind = "liked_but_less_right" if change < 0 else "liked_but_worse_at_tasks" if losses else "liked_and_right"
        yield Finding(kind, model, {
            "base": base, "win": percent(win["value"], 0), "points": f"{abs(change) * 100:.1f}",
            "change": signed(change * 100), "right": percent(right["value"]), "before": percent(before["value"]),
            "paired": words("paired", low=signed(paired["low"] * 100), high=signed(paired["high"] * 100))
            if is_rate(paired) else "", "lost": words("lost_most", tasks=listed(losses)) if losses else ""
        })
    if win["low"] <= 0.5 <= win["high"]:
        yield Finding("no_difference", model, {"base": base})


def loses_its_words(figures: dict[str, Any], start: dict[str, Any], base: str, model: str) -> Iterator[Finding]:
    """A model more of whose sampled answers hold broken words: by a point, or beyond the paired interval."""
    after, before = figures.get("broken_words"), start.get("broken_words")
    if after is None or before is None or not (is_rate(after) and is_rate(before)):
        return
    paired = figures.get(f"broken_words_difference_vs_{base}")
    if after["value"] - before["value"] > BROKEN or (paired is not None and is_rate(paired) and paired["low"] > 0):
        yield Finding("loses_its_words", model, {
            "base": base, "after": percent(after["value"]), "before": percent(before["value"]),
            "kl": number(figures["kl"]) if "kl" in figures else "?"
        })


def lost_tasks(after: dict[str, Any], before: dict[str, Any], most: int = 2) -> list[tuple[str, float]]:
    """The tasks at which a model lost most, the worst first, each with the change of its share of right answers."""
    changes = sorted((after[task]["value"] - before[task]["value"], task) for task in after if task in before)
    return [(task, change) for change, task in changes[:most] if change < -LOST]


def listed(losses: list[tuple[str, float]]) -> Pair:
    """Tasks and the points that were lost at them, as a list in both languages."""
    items = [words("lost_task", task=(task, texts.TASKS.get(task, task)), points=signed(change * 100, 0))
             for task, change in losses]
    english, chinese = texts.WORDS["comma"]
    return english.join(item[0] for item in items), chinese.join(item[1] for item in items)


def past_the_peak(found: Gathered, stage: str) -> Iterator[Finding]:
    """A stage that was ended as it only learned to please its reward."""
    looks = found.points(stage, "step", "watched_gold")
    if looks and found.manifests[stage]["summary"].get("ended") == "past the peak":
        best = max(looks, key=lambda look: look[1])
        yield Finding("past_the_peak", stage, {
            "best_step": f"{best[0]:.0f}", "best": number(best[1]), "last_step": f"{looks[-1][0]:.0f}",
            "last": number(looks[-1][1])
        })


def learned_by_heart(found: Gathered, stage: str) -> Iterator[Finding]:
    """A stage whose loss on rows held out rose again."""
    summary, heldout = found.manifests[stage]["summary"], found.points(stage, "step", "validation_loss")
    if "best_step" not in summary or len(heldout) < 2:
        return
    lowest, (last_step, last) = min(loss for _, loss in heldout), heldout[-1]
    if last > 1.01 * lowest:
        yield Finding("learned_by_heart", stage, {
            "lowest": number(lowest), "best_step": str(summary["best_step"]), "last": number(last),
            "last_step": f"{last_step + 1:.0f}"
        })


def forgot(found: Gathered, stage: str) -> Iterator[Finding]:
    """A stage after which fewer answers to an earlier task are right, and the intervals do not touch."""
    for row in remembered(found):
        if row.stage == stage and row.after["high"] < row.before["low"]:
            kind = "forgot" if row.rehearsed else "forgot_without_rehearsal"
            yield Finding(kind, stage, {"way": row.way, "task": row.task, "before": percent(row.before["value"]),
                                        "after": percent(row.after["value"])})


def below_the_ceiling(found: Gathered, stage: str) -> Iterator[Finding]:
    """How far a reward model is from a judge without noise."""
    figures = found.metrics["stages"][stage]
    accuracy, ceiling = figures.get("accuracy"), figures.get("ceiling")
    if found.manifests[stage]["kind"] == "reward" and is_known_rate(accuracy) and is_known_rate(ceiling):
        gap = ceiling["value"] - accuracy["value"]
        kind = "reward_model_below_its_ceiling" if gap > GAP else "reward_model_near_its_ceiling"
        yield Finding(kind, stage, {"gap": f"{gap * 100:.1f}"})


def edited(found: Gathered, stage: str) -> Iterator[Finding]:
    """A stage that was killed, and that went on with other code than it had begun with."""
    files = found.manifests[stage]["summary"].get("edited")
    if isinstance(files, list) and files:
        yield Finding("edited", stage, {"files": ", ".join(map(str, files))})
