"""The report of a run, as a file and in a real browser."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path

import pytest
import yaml

from trivium.artifacts import seal
from trivium.cli.app import app
from trivium.errors import TriviumError
from trivium.recipe.load import load_recipe
from trivium.report.compare import as_text, differences
from trivium.report.gather import gather
from trivium.report.page import render, write_page
from trivium.stages.registry import Stages


def rate(value, spread=0.04, n=100):
    return {"value": value, "low": max(0.0, value - spread), "high": min(1.0, value + spread), "n": n}


def stage(run, name, kind, summary, inputs=(), files=(), settings=None, seconds=2.0):
    folder = run / name
    folder.mkdir(parents=True)
    for file, rows in {"weights.txt": [name], **dict(files)}.items():
        (folder / file).write_text("".join(json.dumps(row) + "\n" for row in rows))
    made = {
        field: {"path": f"../{other}", "digest": json.loads((run / other / "manifest.json").read_text())["digest"]}
        for field, other in inputs
    }
    seal(folder, kind=kind, name=name, key="k" * 64, seed=0, settings=settings or {}, inputs=made, summary=summary,
         seconds=seconds, peak_memory_mb=100.0)


HOSTILE = "</script><script>document.title='stolen'</script><img src=x onerror=\"document.title='stolen'\">"


def finished(run, ppo_right=0.5, steps=20):
    """A small run, written by hand: PPO wins and is right less often."""
    truth = {"answers": ["moss"], "wrong": ["fish"], "complete": ["moss"], "harmful": False}
    prompts = [{
        "id": f"e{i}", "task": "entity",
        "prompt": [{"role": "user", "content": f"What does {'it' if i else HOSTILE} eat?"}], "truth": truth
    } for i in range(3)]
    answers = [{
        "id": row["id"], "task": row["task"], "prompt": row["prompt"],
        "answers": {"sft": "It eats moss.", "ppo": HOSTILE, "untrained": "Fish."}
    } for row in prompts]
    log = [{"step": i, "loss": 4.0 / (i + 1), "tokens_per_second": 1000.0} for i in range(steps)]
    stage(run, "world", "world", {"rows": {"documents": 50}}, files={"evaluation.jsonl": prompts}.items())
    stage(
        run, "corpus", "corpus", {
            "documents": 50, "kept": 40, "rejected": 10, "precision": {"spam": rate(0.97)}, "recall": {
                "spam": rate(1.0)
            }, "reasons": {}, "funnel": [{"step": "input", "documents": 50, "bytes": 9000},
                                         {"step": "quality", "documents": 40, "bytes": 7000}]
        }, [("documents", "world")])
    stage(run, "pretrain", "pretrain",
          {"steps": steps, "parameters": 1000, "validation_bits_per_byte": 1.25, "unigram_bits_per_byte": 2.5},
          [("tokens", "corpus")], {"log.jsonl": log}.items(), {"epochs": 1.0, "rows": 3})
    stage(run, "sft", "sft", {"loss": 0.5, "steps": steps}, [("model", "pretrain")], {"log.jsonl": log}.items())
    stage(run, "untrained", "pretrain", {"steps": 0}, [("tokens", "corpus")])
    stage(
        run, "reward", "reward", {
            "accuracy": rate(0.62), "agreement": rate(0.71), "ceiling": rate(0.76), "length_accuracy": rate(0.55),
            "accuracy_by_margin": [{"name": "1", **rate(0.55)}, {"name": "3 or more", **rate(0.8)}],
            "calibration": [{"predicted": 0.6, "observed": 0.58, "n": 40}, {"predicted": 0.8, "observed": 0.7, "n": 40}]
        }, [("model", "sft")])
    stage(run, "ppo", "ppo", {"episodes": 128}, [("model", "sft"), ("reward", "reward")], {
        "log.jsonl": [{
            "step": i, "score": 0.1 * i, "kl": 0.3 * i, "watched_gold": 4.0 - i, "length": 9.0 + i,
            "sample_prompt": f"ask {i}", "sample": HOSTILE if i else "good", "sample_score": 0.5
        } for i in range(9)]
    }.items())
    models = {
        "sft": {
            "right_answers": rate(0.64), "right_by_task": {"entity": rate(0.64)}, "mean_points": 4.0,
            "mean_length": 12.0
        }, "ppo": {
            "right_answers": rate(ppo_right), "right_by_task": {"entity": rate(ppo_right)},
            "win_rate_vs_sft": rate(0.75), "mean_points": 5.0, "mean_length": 14.0, "kl": 2.5,
            "length_controlled_win_rate_vs_sft": rate(0.7), "right_difference_vs_sft": {
                "value": ppo_right - 0.64, "low": -0.2, "high": -0.08, "n": 100, "p_value": 0.01
            }
        }, "untrained": {
            "right_answers": rate(0.3), "right_by_task": {"entity": rate(0.3)}, "win_rate_vs_sft": rate(0.4),
            "mean_points": 3.0, "mean_length": 9.0, "kl": 9.0
        }
    }
    stage(
        run, "evaluate", "evaluate", {
            "models": models, "judge": "rubric", "prompts": 3,
            "tasks": {"sft": {"mmlu": {"kind": "choice", "accuracy": rate(0.25), "chance": 0.25}}}
        }, [("prompts", "world"), ("models.sft", "sft"), ("models.ppo", "ppo")], {"answers.jsonl": answers}.items(),
        {"baseline": "sft", "models": {"sft": "sft", "ppo": "ppo", "untrained": "untrained-sft"}})
    return run


def test_the_page_says_what_was_lost_and_needs_nothing_else(tmp_path):
    found = gather(finished(tmp_path / "small"), Stages())
    page = render(found)
    assert "yet its answers are right 14.0 points less often" in page and "答对率低 14.0 个百分点" in page
    # a stage of another kind has the same name
    assert found.metrics["stages"]["sft"]["untrained_right_answers"]["value"] == 0.3
    assert "right_answers" not in found.metrics["stages"]["untrained"]
    assert "http://" not in page and "https://" not in page and 'src="' not in page
    assert len(page) < 250_000
    assert HOSTILE not in page and "&lt;/script&gt;" in page
    # PPO's way: lengths, and some samples
    assert [f"ask {i}" in page for i in range(9)] == [i % 2 == 0 for i in range(9)] and "c-ppo-length-t" in page
    assert page.index("✓ right") < page.index("✗ wrong")  # the truth is known: sft says moss, ppo does not
    wins = page[page.index('id="wins"'):page.index('id="tasks"')]
    # the baseline stands above what is compared with it
    assert "by definition" in wins and wins.index("by definition") < wins.index("[71.0 – 79.0 %]")
    tasks = page[page.index('id="tasks"'):page.index('id="reward"')]
    assert "right choices" in tasks and "chance</span>" in tasks and "pairs ordered right" not in tasks
    for words in ("Calibration", "by how far apart people rated", "3 points or more", "3 分及以上", "实测",
                  "annotators agree", "from raw documents to an aligned", "mmlu", "Win rate against sft",
                  "Reward against drift", "a judge says that it does not learn from"):
        assert words.lower() in page.lower(), words


def test_the_lineage_shows_a_model_that_no_stage_of_the_run_made(tmp_path):
    run = finished(tmp_path / "small")
    (run / "tuned").mkdir()
    seal(
        run / "tuned", kind="sft", name="tuned", key="k" * 64, seed=0, settings={}, inputs={
            "model": {"path": "../../elsewhere/llama", "digest": "ab" * 32},
            "demonstrations": {"path": "../../rows.jsonl", "digest": "cd" * 32}
        }, summary={"steps": 1}, seconds=1.0, peak_memory_mb=1.0)
    page = render(gather(run, Stages()))
    drawn = page[page.index("What was made from what"):]
    assert "elsewhere/llama" in drawn and "ab" * 5 in drawn and "rows.jsonl" not in drawn[:drawn.index("</svg>")]


def test_its_recipe_parses_again(tmp_path):
    page = render(gather(finished(tmp_path / "small"), Stages()))
    from html import unescape
    recipe = yaml.safe_load(unescape(page.split('<pre id="recipe">')[1].split("</pre>")[0]))
    assert recipe["name"] == "small-again" and recipe["stages"]["pretrain"] == {
        "kind": "pretrain", "epochs": 1.0, "rows": 3
    }
    (tmp_path / "again.yaml").write_text(yaml.safe_dump({**recipe, "stages": {"world": {"kind": "world"}}}))
    assert load_recipe(tmp_path / "again.yaml").name == "small-again"


def test_an_unfinished_run_has_a_report_too(tmp_path):
    run = finished(tmp_path / "small")
    for name in ("evaluate", "ppo", "reward", "sft", "untrained", "pretrain"):
        shutil.rmtree(run / name)
    assert "funnel" in (page := render(gather(run, Stages()))) and "From raw documents to" not in page
    with pytest.raises(TriviumError, match="no finished stage here"):
        gather(tmp_path, Stages())
    with pytest.raises(TriviumError, match="no such folder"):
        gather(tmp_path / "none", Stages())


def test_compare_shows_settings_and_results(tmp_path):
    first, second = finished(tmp_path / "one"), finished(tmp_path / "two", ppo_right=0.7, steps=30)
    manifest = second / "pretrain" / "manifest.json"
    manifest.write_text(json.dumps({**json.loads(manifest.read_text()), "settings": {"epochs": 2.0, "rows": 3}}))
    shutil.rmtree(second / "untrained")
    found = differences(first, second)
    assert found["stages"]["pretrain"]["settings"] == {"epochs": ["1.0", "2.0"]}
    assert found["stages"]["pretrain"]["results"]["steps"] == [20, 30, None]
    assert found["stages"]["ppo"]["results"]["right_answers"][2] is True
    assert found["stages"]["untrained"]["only_in"] == str(first)
    lines = as_text(found)
    assert "epochs: 1.0 → 2.0" in lines and "intervals apart" in lines and "world: the same" in lines
    from typer.testing import CliRunner
    said = CliRunner().invoke(app, ["compare", str(first), str(second), "--json"])
    assert json.loads(said.stdout)["runs"] == [str(first), str(second)]
    said = CliRunner().invoke(app, ["report", str(first), "--out", str(tmp_path / "page.html")])
    assert said.exit_code == 0 and (tmp_path / "page.html").is_file()


@pytest.mark.browser
def test_the_switches_in_a_real_browser(tmp_path, chromium):
    page_file = tmp_path / "page.html"
    write_page(page_file, gather(finished(tmp_path / "small"), Stages()))
    context = chromium.new_context(viewport={"width": 400, "height": 800}, offline=True, locale="en-US",
                                   color_scheme="light")
    page, faults = context.new_page(), []
    page.on("pageerror", lambda error: faults.append(str(error)))
    page.on("console", lambda message: faults.append(message.text))
    page.on("request", lambda request: faults.append(request.url) if not request.url.startswith("file:") else None)
    page.goto(Path(page_file).as_uri())
    assert page.title() == "small – Trivium"  # what a model wrote did not run
    assert page.evaluate("document.documentElement.scrollWidth") <= 400  # a phone need not scroll sideways
    # no win rate without its interval, on a phone neither
    assert page.get_by_text("[71.0 – 79.0 %]", exact=True).is_visible()

    def colour():
        return page.evaluate("getComputedStyle(document.body).backgroundColor")

    light = colour()
    assert page.locator(
        "h2", has_text="The curriculum").is_visible() and not page.locator("h2 .zh", has_text="课程").first.is_visible()
    page.get_by_role("button", name="中文").click()
    assert page.locator("h2 .zh", has_text="课程").first.is_visible() and not page.locator(
        "h2 .en", has_text="The curriculum").first.is_visible()
    assert page.evaluate("document.documentElement.lang") == "zh-Hans"
    page.locator("[data-set-theme=dark]").click()
    dark = colour()
    assert dark != light
    page.reload()
    assert page.locator("h2 .zh", has_text="课程").first.is_visible() and colour() == dark  # kept
    page.locator("[data-set-theme=light]").click()
    assert colour() == light
    page.locator("[data-set-theme=auto]").click()
    page.emulate_media(color_scheme="dark")
    assert colour() == dark
    first = page.locator("details.data").first
    first.locator("summary").click()
    assert first.locator("td").first.is_visible()
    assert page.get_by_role("img").count() >= 3
    assert not faults


def test_rows_memory_and_overfitting_are_shown(tmp_path):
    run = tmp_path / "tuned"
    log = [{"step": i, "loss": 3.0 - 0.1 * i, **({"validation_loss": 2.0 + 0.01 * (i - 11)**2} if i % 4 == 3 else {})}
           for i in range(20)]
    sources = {
        "reviews": {"rows": 1234, "kept": 1230, "rejected": {"a duplicate <b>": 4}, "used": 1200, "passes": 0.976}
    }
    counts = {"conversations": 1190, "tokens": 54321, "learned_tokens": 6543, "cut": 0, "left_out": 10}
    stage(run, "imports", "imports", {"demonstrations": 1200, "sources": sources})
    for name, rehearsal, after in (("plain", None, 0.2), ("kept", {"share": 0.3, "generated": True}, 0.85)):
        stage(
            run, name, "sft", {
                "steps": 20, "best_step": 12, "validation_loss": 2.0, "by_source": {"reviews": counts},
                "earlier": {"sums": {"before": rate(0.9), "after": rate(after)}}
            }, [("demonstrations", "imports")], {"log.jsonl": log}.items(), {"rehearsal": rehearsal})
    page = render(gather(run, Stages()))
    rows = page[page.index('id="rows"'):page.index('id="memory"')]
    assert all(text in rows for text in ("1,234", "54,321", "6,543", "a duplicate &lt;b&gt;")) and "<b>" not in rows
    memory = page[page.index('id="memory"'):page.index('id="curves"')]
    assert memory.index("without") < memory.index("20.0 %") < memory.index("30% made up by the model") < memory.index(
        "85.0 %")
    assert "plain (without rehearsal) forgot: right answers to the earlier task sums fell from 90.0 % to 20.0 %" in page
    assert "kept (30%" not in page
    assert ("plain began to learn its rows by heart: the loss on rows held out was lowest (2) after update 12 and 2.64 "
            "after update 20") in page
    curve = page[page.index('id="c-plain-losses-t"'):]
    legend = re.sub(r"<[^>]*>", " ", curve[curve.index('<p class="legend">'):curve.index("</p>")]).split()
    assert legend == ["training", "训练", "held", "out", "留出", "kept", "保留"]
    assert "training: 3 → 1.1; held out: 2.64 → 2.64; kept: 2 → 2" in curve and 'id="c-plain-loss-t"' not in page


def test_bars_stand_where_their_stages_ran():
    from trivium.report.gather import Gathered
    from trivium.report.page import schools

    def manifest(created, seconds):
        return {
            "kind": "world", "created": f"2026-01-01T00:{created}.000+00:00", "seconds": seconds, "peak_memory_mb": 1.0,
            "summary": {}
        }

    run = Gathered(
        "run", {}, {},
        {"first": manifest("01:40", 100.0), "beside": manifest("01:50", 50.0), "later": manifest("30:40", 40.0)})
    bars = [(bar["name"], bar["start"], bar["share"]) for school in schools(run) for bar in school["stages"]]
    # 110 seconds of the first two, half an hour in which nothing ran, and 40 more
    assert bars == [("first", 0.0, 100 / 150), ("beside", 60 / 150, 50 / 150), ("later", 110 / 150, 40 / 150)]
