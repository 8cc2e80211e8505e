"""A study's tables, of runs whose artifacts the tests write: their numbers are held against plain formulas."""

from __future__ import annotations

import csv
import io
import itertools
import json
import math
import random
import re
from html.parser import HTMLParser
from pathlib import Path
from statistics import fmean

import pytest
from scipy import stats

from trivium.artifacts import open_artifact, seal
from trivium.errors import TriviumError
from trivium.files import write_rows
from trivium.recipe.load import Recipe
from trivium.study import table
from trivium.study.driver import Outcome
from trivium.study.page import render
from trivium.study.results import measure
from trivium.study.settings import Plan, Run, Study
from trivium.study.table import findings, interpolated
from trivium.study.writing import as_csv, as_latex, as_text

PROMPTS = 12
TRUE = {"sft": 0.0, "ppo": 0.6, "dpo": 0.4}


@pytest.fixture(autouse=True)
def few_draws(monkeypatch):
    monkeypatch.setattr(table, "DRAWS", 4)


def made(folder, kind, summary, settings=None, inputs=None, log=()):
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "weights").write_text(repr((kind, summary)))
    if log:
        write_rows(folder / "log.jsonl", log)
    seal(folder, kind=kind, name=folder.name, key="k", seed=0, settings=settings or {}, inputs=inputs or {},
         summary=summary, seconds=1.0, peak_memory_mb=1.0)
    return open_artifact(folder)


def a_run(folder, setting, seed, models, own_prompts=False):
    """A run whose examination gave each model points around its own mean, at prompts that differ."""
    rng = random.Random(f"{setting} {seed}")
    points = {name: [prompt / 6 + rng.gauss(mean, 0.2) for prompt in range(PROMPTS)] for name, mean in models.items()}
    trained = {name: made(folder / name, "dpo" if name != "sft" else "sft", {"loss": mean + seed / 10},
                          {"beta": mean}, log=[{"step": n, "loss": 3 - n + mean} for n in range(3)])
               for name, mean in models.items() if name != "sft"}
    figures = {name: {"mean_length": 10.0 + seed, "mean_points": fmean(values),
                      "right_answers": {"value": 0.5, "low": 0.2, "high": 0.8, "n": 12, "method": "Wilson"},
                      **({"kl": 1 + 4 * models[name] + seed / 100} if name != "sft" else {})}
               for name, values in points.items()}
    place = folder / "evaluate"
    place.mkdir(parents=True)
    write_rows(place / "answers.jsonl", [
        {"id": f"{seed if own_prompts else ''}q{n}", "task": "t", "prompt": [{"role": "user", "content": f"ask {n}"}],
         "answers": {name: f"{name} {n}" for name in points}, "samples": {name: f"{name} says {n}" for name in points},
         "points": {name: values[n] for name, values in points.items()}} for n in range(PROMPTS)])
    inputs = {f"models.{name}": {"path": f"../{name}", "digest": one.digest} for name, one in trained.items()}
    exam = made(place, "evaluate", {"models": figures, "baseline": "sft", "judge": "rubric"}, inputs=inputs)
    return {**trained, "evaluate": exam}, points


def a_study(tmp_path, settings, seeds=(0, 1, 2), missing=(), tests=(), **more):
    study = Study(name="made", recipe="recipe.yaml", seeds=list(seeds), out=str(tmp_path), tests=list(tests))
    outcomes, points = [], {}
    for setting, seed in itertools.product(settings, seeds):
        recipe = Recipe.model_construct(name=f"seed-{seed}", out=str(tmp_path / "made" / setting), stages={})
        run = Run(setting, seed, Path("recipe.yaml"), [], recipe)
        if (setting, seed) in missing:
            outcomes.append(Outcome(run, {}, ["evaluate"], "the disk is full"))
            continue
        artifacts, points[setting, seed] = a_run(recipe.folder, setting, seed, settings[setting], **more)
        outcomes.append(Outcome(run, artifacts, []))
    plan = Plan(study, {name: {"dpo.beta": 1} for name in settings}, [one.run for one in outcomes], {})
    measured = measure(outcomes)
    return plan, measured, findings(plan, outcomes, measured), points


def test_means_and_pairs_are_those_of_the_formulas(tmp_path):
    _plan, _measured, found, points = a_study(tmp_path, {"a": TRUE})
    assert [one["label"] for one in found["models"]] == ["sft", "dpo", "ppo"]
    for one in found["models"]:
        values = [points["a", seed][one["model"]] for seed in range(3)]
        score = one["scores"]["points"]
        assert score["value"] == pytest.approx(fmean(map(fmean, values))) and score["low"] < score["value"]
        assert score["by_seed"] == pytest.approx({seed: fmean(values[seed]) for seed in range(3)})
        assert (score["seeds"], score["n"]) == (3, PROMPTS)
        low, high = stats.t.interval(0.95, 2, 11, stats.sem([10, 11, 12]))
        assert (one["figures"]["mean_length"]["low"], one["figures"]["mean_length"]["high"]) == pytest.approx(
            (low, high), rel=1e-3)
        assert one["figures"]["right_answers"]["high"] <= 1
    assert [(pair["first"], pair["second"]) for pair in found["pairs"]] == list(
        itertools.combinations(["sft", "dpo", "ppo"], 2))
    ps = [pair["p"] for pair in found["pairs"]]
    order = sorted(range(3), key=ps.__getitem__)
    expected, most = [0.0] * 3, 0.0
    for rank, place in enumerate(order):
        most = expected[place] = max(most, min(1.0, ps[place] * (3 - rank)))
    assert [pair["p_holm"] for pair in found["pairs"]] == pytest.approx(expected)
    first = found["pairs"][0]
    won = [a > b for seed in range(3) for a, b in zip(points["a", seed]["sft"], points["a", seed]["dpo"])]
    assert first["win_rate"]["value"] == pytest.approx(fmean(won)) and first["longer_by"] == 0
    assert first["p_holm"] < 0.05 and first["difference"]["high"] < 0
    assert not found["lacking"] and not any("prompts of its own" in note for note in found["notes"])


def test_a_figure_is_paired_by_seeds(tmp_path):
    _, _, found, points = a_study(tmp_path, {"a": TRUE}, tests=["mean_points"])
    assert {pair["test"] for pair in found["pairs"]} == {"mean_points"} and len(found["pairs"]) == 3
    by_seed = [[fmean(points["a", seed][name]) for seed in range(3)] for name in ("sft", "dpo")]
    expected = stats.ttest_rel(*by_seed)
    pair = found["pairs"][0]
    assert pair["p"] == pytest.approx(expected.pvalue, rel=1e-3)
    assert pair["difference"]["value"] == pytest.approx(fmean(by_seed[0]) - fmean(by_seed[1]))


@pytest.mark.parametrize("wrong, said", [({"models": ["ppoo"]}, "models: .*'ppoo'; did you mean 'ppo'"),
                                         ({"tests": ["point"]}, "tests: .*'point'; did you mean 'points'"),
                                         ({"figures": ["los"]}, "figures: .*'los'; did you mean 'loss'")])
def test_names_that_nothing_has_are_refused(tmp_path, wrong, said):
    plan, measured, *_ = a_study(tmp_path, {"a": TRUE}, seeds=[0])
    table.check_names(plan.study, measured)
    with pytest.raises(TriviumError, match=said):
        table.check_names(plan.study.model_copy(update=wrong), measured)


def test_models_at_equal_kl(tmp_path):
    _plan, _measured, found, points = a_study(
        tmp_path, {"weak": {"sft": 0, "ppo": 0.2, "dpo": 0.1}, "strong": {"sft": 0, "ppo": 0.9, "dpo": 0.5}})
    (at,) = found["equal_kl"]
    assert at["kl"] == pytest.approx(1 + 4 * 0.5)  # the most that dpo reaches in the first seed
    by_hand = []
    for seed in range(3):
        weak, strong = points["weak", seed], points["strong", seed]
        low, high = (math.sqrt(1 + 4 * mean + seed / 100) for mean in (0.2, 0.9))
        share = (math.sqrt(at["kl"]) - low) / (high - low)
        by_hand.append(fmean((1 - share) * a + share * b for a, b in zip(weak["ppo"], strong["ppo"])))
    assert at["families"]["ppo"]["value"] == pytest.approx(fmean(by_hand))
    assert at["pairs"][0]["p_holm"] == at["pairs"][0]["p"]
    assert interpolated([(0.0, {1: 2.0}), (4.0, {1: 4.0})], 1.0) == {1: pytest.approx(3.0)}


def test_a_run_that_failed_is_named_and_the_others_stand(tmp_path):
    _plan, _measured, found, _points = a_study(tmp_path, {"a": TRUE, "b": TRUE}, missing=[("b", 1)])
    assert found["lacking"] == [{"setting": "b", "seed": 1, "stages": ["evaluate"], "why": "the disk is full"}]
    ours = next(one for one in found["models"] if one["label"] == "b: ppo")
    assert ours["seeds"] == [0, 2] and ours["scores"]["points"]["seeds"] == 2
    pair = next(pair for pair in found["pairs"] if (pair["first"], pair["second"]) == ("a: ppo", "b: ppo"))
    assert pair["difference"]["seeds"] == 2
    assert "lacks b seed 1: evaluate (the disk is full)" in as_text(found)
    assert "% lacks b seed 1: the disk is full" in as_latex(found)


def test_one_seed_is_said_to_be_one(tmp_path):
    _plan, _measured, found, _ = a_study(tmp_path, {"a": TRUE}, seeds=[4])
    assert any("one seed" in note for note in found["notes"])
    score = found["models"][1]["scores"]["points"]
    assert score["method"] == "prompts of one seed" and score["low"] is not None
    assert found["models"][1]["figures"]["mean_length"]["low"] is None


def test_prompts_of_each_seeds_own_are_said_to_be_so(tmp_path):
    _plan, _measured, found, points = a_study(tmp_path, {"a": TRUE}, own_prompts=True)
    assert any("each seed has prompts of its own" in note for note in found["notes"])
    means = [fmean(points["a", seed]["ppo"]) for seed in range(3)]
    low, high = stats.t.interval(0.95, 2, fmean(means), stats.sem(means))
    score = found["models"][1]["scores"]["points"]
    assert score["low"] <= low + 1e-3 and score["high"] >= high - 1e-3


def test_a_model_that_is_the_same_in_all_settings_is_shown_once(tmp_path):
    _plan, measured, _found, _ = a_study(tmp_path, {"a": TRUE})
    twin = dict(measured.runs)
    artifacts, _ = a_run(tmp_path / "again", "a", 0, TRUE)
    outcomes = [Outcome(Run(setting, 0, Path("r"), [], Recipe.model_construct(name="n", out="o", stages={})),
                        artifacts, []) for setting in ("a", "b")]
    assert [one.label for one in measure(outcomes).methods] == ["a: sft", "dpo", "ppo", "b: sft"]  # sft: of no digest
    assert [one.label for one in measure(outcomes, ["dpo"]).methods] == ["dpo"] and twin


def test_csv_latex_and_json_hold_the_same(tmp_path):
    _plan, _measured, found, _ = a_study(tmp_path, {"a_b & c": TRUE, "d": TRUE | {"dpo": 0.7}})
    rows = list(csv.DictReader(io.StringIO(as_csv(found))))
    ours = next(row for row in rows if row["table"] == "models' scores" and row["setting"] == "d"
                and row["name"] == "ppo")
    score = next(one for one in found["models"] if one["label"] == "d: ppo")["scores"]["points"]
    assert float(ours["value"]) == score["value"] and float(ours["high"]) == score["high"]
    assert sum(row["table"] == "pairs' difference" for row in rows) == len(found["pairs"]) == 15
    latex = as_latex(found)
    assert r"a\_b \& c: ppo" in latex and latex.count(r"\begin{tabular}") == latex.count(r"\end{tabular}") == 3
    for columns, body in re.findall(r"\\begin\{tabular\}\{(l+)\}\n(.*?)\\end\{tabular\}", latex, re.S):
        for line in body.splitlines():
            assert not line.endswith(r"\\") or len(re.findall(r"(?<!\\)&", line)) == len(columns) - 1
    assert json.loads(json.dumps(found))["seeds"] == [0, 1, 2]
    assert "dpo: mean over seeds" in as_text(found) and "a_b & c: ppo" in as_text(found)


def test_the_page_lays_curves_over_one_another(tmp_path):
    plan, measured, found, _ = a_study(tmp_path, {"a": TRUE, "<b>": TRUE | {"dpo": 0.7}})
    page = render(plan, found, measured)
    charts = re.findall(r"<svg viewBox.*?</svg>", page, re.S)
    of_dpo = next(chart for chart in charts if 'id="c-dpo-loss-t"' in chart)
    assert of_dpo.count('class="line s') == 2
    assert next(chart for chart in charts if 'id="c-ppo-loss-t"' in chart).count('class="line s') == 1  # the same
    assert "<b>: dpo" not in page and "&lt;b&gt;: dpo" in page
    assert "<script src" not in page and "<link" not in page
    HTMLParser().feed(page)
