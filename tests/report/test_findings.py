"""What the report says that a reader should not miss."""

from __future__ import annotations

import re
import string

import pytest

from trivium.report import texts
from trivium.report.cards import cards
from trivium.report.findings import Finding, findings
from trivium.report.gather import Gathered
from trivium.stages.registry import Stages


def rate(value, spread=0.04):
    return {"value": value, "low": value - spread, "high": value + spread, "n": 100}


def manifest(kind, summary, **settings):
    return {"kind": kind, "summary": summary, "settings": settings}


def examined(**ppo):
    """A run whose examination compares PPO with fine-tuning."""
    models = {"sft": {"right_answers": rate(0.6), "right_by_task": {"code": rate(0.5), "entity": rate(0.7)}},
              "ppo": {"right_answers": rate(0.6), "right_by_task": {"code": rate(0.5), "entity": rate(0.7)},
                      "win_rate_vs_sft": rate(0.7), **ppo}}
    stages = {"sft": manifest("sft", {}), "ppo": manifest("ppo", {}),
              "evaluate": manifest("evaluate", {"models": models}, baseline="sft", models={"sft": "sft", "ppo": "ppo"})}
    return Gathered("run", Stages(), {"stages": {name: one["summary"] for name, one in stages.items()}}, stages)


def one(kind, summary, log=(), **settings):
    """A run of one stage."""
    return Gathered("run", Stages(), {"stages": {"stage": summary}}, {"stage": manifest(kind, summary, **settings)},
                    {"stage": list(log)})


@pytest.mark.parametrize(("ppo", "kind", "english", "chinese"), [
    ({"right_answers": rate(0.5)}, "liked_but_less_right", "10.0 points less often (50.0 % against 60.0 %).",
     "答对率低 10.0 个百分点（50.0 % 对 60.0 %）。"),
    ({"right_answers": rate(0.65), "right_by_task": {"code": rate(0.3), "entity": rate(0.9)}},
     "liked_but_worse_at_tasks",
     "5.0 points more often (65.0 % against 60.0 %); it lost most, in points, in code (−20).",
     "答对率高 5.0 个百分点（65.0 % 对 60.0 %）；下降最多：小程序（−20）。"),
    ({"right_answers": rate(0.65)}, "liked_and_right", "is right no less often (+5.0 points)",
     "答对率也没有下降（+5.0 个百分点）"),
    ({"win_rate_vs_sft": rate(0.52)}, "no_difference", "cannot be told from sft", "不分高下"),
    ({"right_answers": rate(0.5), "right_difference_vs_sft": {"value": -0.1, "low": -0.15, "high": -0.05}},
     "liked_but_less_right", "; the same prompts, paired: −15.0 to −5.0)", "；同题配对区间 −15.0 至 −5.0）"),
])
def test_winning_and_being_right_are_told_apart(ppo, kind, english, chinese):
    [finding] = findings(examined(**ppo))
    assert (finding.kind, finding.stage) == (kind, "ppo")
    assert english in finding.sentences[0] and chinese in finding.sentences[1]
    assert finding.mood == {"liked_and_right": "good", "no_difference": "note"}.get(kind, "bad")


@pytest.mark.parametrize(("before", "after", "difference", "told"), [
    (0.01, 0.05, None, True), (0.01, 0.015, None, False), (0.02, 0.01, None, False),
    (0.01, 0.018, {"value": 0.008, "low": 0.002, "high": 0.014}, True),
    (0.01, 0.018, {"value": 0.008, "low": -0.002, "high": 0.018}, False),
])
def test_a_model_that_loses_its_words_is_told_of(before, after, difference, told):
    found = examined(broken_words=rate(after), kl=3.25, **({"broken_words_difference_vs_sft": difference}
                                                           if difference else {}))
    found.manifests["evaluate"]["summary"]["models"]["sft"]["broken_words"] = rate(before)
    told_of = [finding for finding in findings(found) if finding.kind == "loses_its_words"]
    assert bool(told_of) == told
    for english, chinese in (finding.sentences for finding in told_of):
        assert all(f"{100 * share:.1f}" in text for share in (before, after) for text in (english, chinese))
        assert "3.25" in english and "3.25" in chinese


def test_a_model_that_loses_is_no_finding():
    assert findings(examined(win_rate_vs_sft=rate(0.3))) == []


@pytest.mark.parametrize(("found", "kind", "values"), [
    (one("ppo", {"ended": "past the peak"}, [{"step": step, "watched_gold": gold}
                                             for step, gold in enumerate((3.0, 5.0, 4.0))]), "past_the_peak",
     ("1", "5", "2", "4")),
    (one("sft", {"best_step": 8}, [{"step": step, "validation_loss": loss}
                                   for step, loss in ((7, 2.0), (15, 2.5))]), "learned_by_heart",
     ("8", "2", "16", "2.5")),
    (one("sft", {"earlier": {"sums": {"before": rate(0.9), "after": rate(0.2)}}}), "forgot_without_rehearsal",
     ("sums", "90.0 %", "20.0 %")),
    (one("sft", {"earlier": {"sums": {"before": rate(0.9), "after": rate(0.2)}}},
         rehearsal={"share": 0.1, "generated": False}), "forgot", ("10% earlier rows",)),
    (one("reward", {"accuracy": rate(0.6), "ceiling": rate(0.75)}), "reward_model_below_its_ceiling", ("15.0",)),
    (one("reward", {"accuracy": rate(0.72), "ceiling": rate(0.75)}), "reward_model_near_its_ceiling", ("3.0",)),
    (one("sft", {"edited": ["stage.mine.py", "objective.loss.py"]}), "edited", ("stage.mine.py, objective.loss.py",)),
])
def test_what_happened_to_a_stage_is_said(found, kind, values):
    [finding] = findings(found)
    assert finding.kind == kind
    assert all(value in finding.sentences[0] for value in values)


@pytest.mark.parametrize("found", [
    one("ppo", {"ended": "all iterations"}, [{"step": 0, "watched_gold": 3.0}]),
    one("sft", {"best_step": 8}, [{"step": 7, "validation_loss": 2.0}, {"step": 15, "validation_loss": 2.01}]),
    one("sft", {"earlier": {"sums": {"before": rate(0.9), "after": rate(0.85)}}}),
    one("reward", {"accuracy": rate(0.6)}),
    one("sft", {"edited": []}),
])
def test_what_did_not_happen_is_not_said(found):
    assert findings(found) == []


def gaps(text):
    return {name for _, name, _, _ in string.Formatter().parse(text) if name}


def test_both_languages_say_the_same():
    for kind, (mood, english, chinese) in texts.FINDINGS.items():
        assert mood in ("good", "bad", "note") and gaps(english) == gaps(chinese), kind
    for english, chinese in texts.WORDS.values():
        assert gaps(english) == gaps(chinese)
    for table in (texts.WORDS, texts.FIGURES, texts.TASK_FIGURES, texts.PARTS, texts.SCHOOLS):
        for key, (_, chinese) in table.items():
            assert key in ("comma", "lost_task") or re.search("[\u4e00-\u9fff]", chinese), key


def test_a_sentence_leaves_what_stages_are_called_as_it_is():
    assert "{base}" in Finding("no_difference", "{base}", {"base": "sft"}).sentences[0]


@pytest.mark.parametrize(("kind", "figures", "big", "range_", "more"), [
    ("pretrain", {"steps": 9, "validation_bits_per_byte": 1.25, "unigram_bits_per_byte": 2.5}, "1.250", "", ["2.5"]),
    ("reward", {"accuracy": rate(0.62), "ceiling": rate(0.75)}, "62 %", "58.0 – 66.0 %", ["75.0 %"]),
    ("translate", {"chrf": {"value": 54.3, "low": 50.0, "high": 58.0}, "right": rate(0.2)
                   }, "54.3", "50 – 58", ["20.0 %"]),
])
def test_a_stages_panel_says_what_stands_on_its_card(kind, figures, big, range_, more):
    [card] = cards(one(kind, figures))
    assert (card.big, card.range, [value for _, value in card.more]) == (big, range_, more)


def test_a_stage_that_took_no_step_has_no_card():
    assert cards(one("pretrain", {"steps": 0, "validation_bits_per_byte": 8.0})) == []
