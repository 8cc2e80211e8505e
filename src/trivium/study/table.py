"""What a study found: means over seeds, every pair of models tested, and models compared at equal KL and equal
length."""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping, Sequence
from statistics import fmean
from typing import Any

from trivium.errors import TriviumError, nearest
from trivium.evaluation.seeds import holm, of_figures, over_seeds
from trivium.evaluation.win_rates import win_rates, wins_by_points
from trivium.report.formats import is_number, is_share
from trivium.study.driver import Outcome, lacking, left_over
from trivium.study.results import Item, Measured, Method
from trivium.study.settings import Plan, Study

DRAWS = 100
"""Fits to prompts drawn anew, for the interval of a win rate at equal length."""

Scores = dict[int, dict[Item, float]]


def check_names(study: Study, measured: Measured) -> None:
    """Raise :class:`TriviumError` for a model, a test or a figure that a study names and no run has."""
    figures = {key for method in measured.methods for by in method.figures.values() for key in by}
    figures |= {key for settings in measured.stages.values() for by in settings.values() for made in by.values()
                for key in made}
    tests = {test for method in measured.methods for test in method.scores}
    for place, wanted, known in (("models", study.models, measured.known), ("tests", study.tests, tests | figures),
                                 ("figures", study.figures, figures)):
        for name in wanted:
            if known and name not in known:
                raise TriviumError(f"{place}: no run of the study has {name!r}{nearest(name, known)}")


def findings(plan: Plan, outcomes: Sequence[Outcome], measured: Measured) -> dict[str, Any]:
    """``{"study", "recipe", "seeds", "settings", "lacking", "notes", "models", "stages", "pairs", "equal_kl",
    "names"}``: all that the study's tables, files and page hold.

    Every figure and score is ``{"value", "low", "high", "seeds", "n", "method", "by_seed"}``; a pair's ``difference``
    is the first's score minus the second's, with ``p`` and ``p_holm``, which holds for all pairs of that test
    together."""
    tests = tests_of(measured, plan.study.tests)
    return {
        "study": plan.study.name, "recipe": plan.study.recipe, "seeds": list(plan.study.seeds),
        "settings": plan.settings, "lacking": lacking(outcomes), "notes": notes(plan, outcomes, measured),
        "models": [of_model(method, tests, measured) for method in measured.methods],
        "stages": {stage: {setting: figures_over(by_seed) for setting, by_seed in settings.items()}
                   for stage, settings in measured.stages.items()},
        "pairs": [pair for test in tests for pair in pairs_of(test, measured)],
        "equal_kl": [one for test in tests for one in at_equal_kl(test, measured)],
        "names": {key: measured.figure_name(key) for key in
                  dict.fromkeys(key for method in measured.methods for by in method.figures.values() for key in by)},
    }


def tests_of(measured: Measured, wanted: Sequence[str]) -> list[str]:
    """What can be tested between models: scores that some have, or figures that are ``wanted``, as one score a seed."""
    for method, test in itertools.product(measured.methods, wanted):
        if not any(test in one.scores for one in measured.methods) or ("figure", test) in measured.clusters:
            for seed, figures in method.figures.items():
                if test in figures:
                    measured.clusters["figure", test] = test
                    one = figures[test]
                    method.scores.setdefault(test, {})[seed] = {
                        ("figure", test): float(one if is_number(one) else one["value"])}
    found = dict.fromkeys(test for method in measured.methods for test in method.scores)
    return [test for test in found if not wanted or test in wanted]


def notes(plan: Plan, outcomes: Sequence[Outcome], measured: Measured) -> list[str]:
    """What a reader of the tables must know."""
    said = [f"{other} gives the same recipe as {first}, and is run and shown as that" for other, first in
            plan.same.items()]
    if len(plan.study.seeds) == 1:
        said.append("one seed: the intervals and p-values count prompts alone, and say nothing of other seeds")
    said += [f"{label}: the same model in several settings, shown once" for label in measured.merged]
    for test in tests_of(measured, plan.study.tests):
        if any(not same_prompts(method.scores.get(test, {})) for method in measured.methods):
            said.append(f"{test}: each seed has prompts of its own, so that the seeds' means alone say how sure it is; "
                        "`shared` with the stage that makes the prompts gives all seeds the same ones")
        families = {method.family for method in measured.methods if method.means("kl") and test in method.scores}
        if len(families) > 1 and not at_equal_kl(test, measured):
            said.append(f"{test}: nothing is compared at equal KL, as one of {', '.join(sorted(families))} has none "
                        "above 0 in some seed")
    if left := left_over(plan):
        said.append(f"not shown, as the study does not name them any more: {', '.join(left)}")
    return said


def same_prompts(scores: Scores) -> bool:
    """Whether all seeds have the same prompts."""
    return len({frozenset(items) for items in scores.values()}) <= 1


def of_model(method: Method, tests: Sequence[str], measured: Measured) -> dict[str, Any]:
    """What is said of one model."""
    return {
        "label": method.label, "setting": method.setting, "exam": method.exam, "model": method.model,
        "seeds": sorted(method.figures), "figures": figures_over(method.figures),
        "scores": {test: mean_score(method.scores[test], measured) for test in tests if test in method.scores}
    }


def figures_over(by_seed: Mapping[int, Mapping[str, Any]]) -> dict[str, Any]:
    """Every figure over the seeds that have it."""
    made = {}
    for key in dict.fromkeys(key for figures in by_seed.values() for key in figures):
        having = {seed: figures[key] for seed, figures in sorted(by_seed.items()) if key in figures}
        shares = "difference" not in key and all(not is_number(one) and is_share(one) for one in having.values())
        made[key] = of_figures(list(having.values()), (0.0, 1.0) if shares else None) | {
            "by_seed": {seed: one if is_number(one) else one["value"] for seed, one in having.items()}}
    return made


def mean_score(scores: Scores, measured: Measured) -> dict[str, Any]:
    """A test's mean over seeds and prompts."""
    return over_seeds(list(scores.values()), measured.clusters, bounds([scores])) | {
        "by_seed": {seed: fmean(items.values()) for seed, items in sorted(scores.items())}}


def bounds(several: Sequence[Scores], difference: bool = False) -> tuple[float, float] | None:
    """The bounds of scores that are all shares, or of their differences."""
    if all(0 <= value <= 1 for scores in several for items in scores.values() for value in items.values()):
        return (-1.0, 1.0) if difference else (0.0, 1.0)
    return None


def minus(first: Scores, second: Scores) -> Scores:
    """Differences at the prompts, in the seeds, that both have."""
    made = {seed: {item: value - second[seed][item] for item, value in items.items() if item in second[seed]}
            for seed, items in first.items() if seed in second}
    return {seed: items for seed, items in made.items() if items}


def pairs_of(test: str, measured: Measured) -> list[dict[str, Any]]:
    """All pairs of models of one examination by one test, their p-values corrected together."""
    made = []
    for first, second in itertools.combinations(measured.methods, 2):
        if test not in first.scores or test not in second.scores:
            continue
        apart = minus(first.scores[test], second.scores[test])
        if not apart:
            continue
        found = over_seeds(list(apart.values()), measured.clusters,
                           bounds([first.scores[test], second.scores[test]], difference=True))
        made.append({"test": test, "first": first.label, "second": second.label, "difference": found,
                     **(wins(first, second, measured) if test == "points" else {})})
    for pair, corrected in zip(made, holm([pair["difference"]["p"] for pair in made]), strict=True):
        pair["p"], pair["p_holm"] = pair["difference"].pop("p"), corrected
    return made


def wins(first: Method, second: Method, measured: Measured) -> dict[str, Any]:
    """How often the first model's sampled answer has more points than the second's, and how often it would have if
    both were as long."""
    won: Scores = {}
    controlled = []
    for seed, mine in first.samples.items():
        theirs, points, others = (second.samples.get(seed, {}), first.scores["points"].get(seed, {}),
                                  second.scores["points"].get(seed, {}))
        items = [item for item in mine if item in theirs and item in points and item in others]
        if not items:
            continue
        answers, other_answers = [mine[item] for item in items], [theirs[item] for item in items]
        found = wins_by_points([points[item] for item in items], [others[item] for item in items], answers,
                               other_answers)
        won[seed] = dict(zip(items, found, strict=True))
        controlled.append(win_rates(found, answers, other_answers, [measured.clusters[item] for item in items], seed,
                                    DRAWS)["length_controlled"])
    if not won:
        return {}
    return {"win_rate": over_seeds(list(won.values()), measured.clusters, (0.0, 1.0)),
            "length_controlled": of_figures(controlled, (0.0, 1.0)),
            "longer_by": fmean(len(first.samples[seed][item]) - len(second.samples[seed][item])
                               for seed, items in won.items() for item in items)}


def at_equal_kl(test: str, measured: Measured) -> list[dict[str, Any]]:
    """Families of models compared at the largest KL that all of them reach in every seed.

    A family's scores at that KL lie between those of its two nearest settings, the start at a KL of 0 among them, on a
    straight line over the root of the KL: reward grows about so (Bai et al. 2022, sec. 4.3). Nothing is carried on
    beyond what a family has reached."""
    curves: dict[tuple[str, str], dict[int, list[tuple[float, dict[Item, float]]]]] = {}
    for method in measured.methods:
        for seed, kl in method.means("kl").items():
            start = start_of(method, measured)
            if start is None or seed not in method.scores.get(test, {}) or seed not in start.scores.get(test, {}):
                continue
            curve = curves.setdefault((method.exam, method.family), {}).setdefault(
                seed, [(0.0, start.scores[test][seed])])
            curve.append((max(0.0, kl), method.scores[test][seed]))
    made = []
    for exam in dict.fromkeys(exam for exam, _ in curves):
        families = {family: by_seed for (place, family), by_seed in curves.items() if place == exam}
        if len(families) < 2:
            continue
        kl = min(max(reached for reached, _ in curve) for by_seed in families.values() for curve in by_seed.values())
        if kl <= 0:
            continue
        at = {family: {seed: interpolated(curve, kl) for seed, curve in by_seed.items()}
              for family, by_seed in families.items()}
        made.append(compared_at(test, exam, kl, at, measured))
    return made


def compared_at(test: str, exam: str, kl: float, at: dict[str, Scores], measured: Measured) -> dict[str, Any]:
    """Every family at one KL, and all pairs of them."""
    pairs = []
    for first, second in itertools.combinations(at, 2):
        if apart := minus(at[first], at[second]):
            found = over_seeds(list(apart.values()), measured.clusters, bounds([at[first], at[second]], True))
            pairs.append({"first": first, "second": second, "p": found.pop("p"), "difference": found})
    for pair, corrected in zip(pairs, holm([pair["p"] for pair in pairs]), strict=True):
        pair["p_holm"] = corrected
    return {"test": test, "exam": exam, "kl": kl, "pairs": pairs,
            "families": {family: mean_score(scores, measured) for family, scores in at.items()}}


def start_of(method: Method, measured: Measured) -> Method | None:
    """The model that a method's KL is measured from: the one of the same setting and examination that has none. What
    several settings share stands in the first of them."""
    there = [one for one in measured.methods if one.exam == method.exam and not one.means("kl")
             and one.model != "base"]
    compared = {baseline(run, method.exam) for (setting, _), run in measured.runs.items() if setting == method.setting}
    named = [one for one in there if one.model in compared]
    return next((one for one in named if one.setting == method.setting), named[0] if named else None)


def baseline(run: Any, exam: str) -> str:
    """The model that an examination compares others with."""
    return str(run.manifests.get(exam, {}).get("summary", {}).get("baseline", ""))


def interpolated(curve: Sequence[tuple[float, dict[Item, float]]], kl: float) -> dict[Item, float]:
    """Scores at a KL between two points of a curve."""
    points = sorted(curve, key=lambda point: point[0])
    after = next(place for place, (reached, _) in enumerate(points) if reached >= kl)
    (low, before), (high, behind) = points[max(0, after - 1)], points[after]
    share = 1.0 if high == low else (math.sqrt(kl) - math.sqrt(low)) / (math.sqrt(high) - math.sqrt(low))
    return {item: (1 - share) * value + share * behind[item] for item, value in before.items() if item in behind}
