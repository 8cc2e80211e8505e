"""The report page: one HTML file that needs no network, in two languages and two lights."""

from __future__ import annotations

import platform
from collections.abc import Sequence
from importlib.resources import files
from pathlib import Path
from typing import Any

import yaml
from jinja2 import Environment
from markupsafe import Markup

from trivium.artifacts import covered, span_of
from trivium.files import write_text
from trivium.report import draw, texts
from trivium.report.draw import Series, number, thinned
from trivium.report.gather import Gathered, Row
from trivium.report.texts import both, figure_words, stage_words

CURVES = ("loss", "validation_loss", "accuracy", "margin", "score", "gold", "watched_gold", "kl", "entropy", "length",
          "finished", "clip_fraction", "explained_variance", "pretraining_loss", "liked_reward", "disliked_reward",
          "tokens_per_second")
"""Which logged quantities are drawn for a stage that logs them."""
SHOWN_PROMPTS = 4
"""Prompts of each task whose answers are shown."""
SHOWN_SAMPLES = 5
"""Samples of a stage's way that are shown, the first and the last among them."""
ROW_LIMIT = 2000
"""Most characters of an answer that are shown."""


def write_page(path: Path, found: Gathered) -> None:
    """Write the page, whole or not at all."""
    write_text(path, render(found))


def render(found: Gathered) -> str:
    """The page as HTML. Everything that models or documents wrote is escaped."""
    environment = Environment(autoescape=True, trim_blocks=True, lstrip_blocks=True)
    environment.filters |= {
        "number": number, "percent": percent, "interval": interval, "seconds": seconds, "signed": signed
    }
    environment.globals |= {
        "t": both, "figure": lambda key: both(*figure_words(key)),
        "stage": lambda name: both(*stage_words(name, found.manifests[name]["kind"])), "task": task_words,
        "step": step_words, "part": part_words, "track": draw.track, "scale": draw.scale, "bar": draw.bar,
        "is_rate": is_rate
    }
    folder = files("trivium.report")
    stages = found.metrics["stages"]
    models = model_order(found)
    return environment.from_string(folder.joinpath("page.html").read_text(encoding="utf-8")).render(
        run=found, metrics=found.metrics, stages=stages, manifests=found.manifests, models=models, colours=dict(
            models.items()), style=Markup(folder.joinpath("page.css").read_text(encoding="utf-8")), script=Markup(
                folder.joinpath("page.js").read_text(encoding="utf-8")), whole=whole(found), cards=cards(found),
        findings=findings(found), schools=schools(found), funnels=funnels(found), curves=curves(found),
        samples=samples(found), rewards=rewards(found), wins=wins(found), drift=drift(found), by_task=by_task(found),
        sources=sources(found), remembered=remembered(found), examinations=examinations(found), prompts=prompts(found),
        lineage=lineage(found), recipe=recipe(found), changed=changed(found), made=max(
            m["created"] for m in found.manifests.values()), versions=versions(found),
        machine=f"{platform.system()} {platform.machine()}")


def whole(found: Gathered) -> bool:
    """Whether the run goes from raw documents to a model that learned from preferences."""
    kinds = {manifest["kind"] for manifest in found.manifests.values()}
    return "corpus" in kinds and bool(kinds & {"ppo", "dpo", "kto", "grpo", "select"})


def is_rate(value: Any) -> bool:
    """Whether a figure comes with its interval."""
    return isinstance(value, dict) and {"value", "low", "high"} <= value.keys()


def percent(value: float | None, places: int = 1) -> str:
    """A share as text."""
    return "–" if value is None else f"{value * 100:.{places}f} %"


def interval(rate: dict[str, Any]) -> str:
    """A rate's interval as text."""
    return "" if rate["value"] is None else f"{rate['low'] * 100:.1f} – {rate['high'] * 100:.1f} %"


def seconds(value: float) -> str:
    """A time for people."""
    if value < 90:
        return f"{value:.1f} s"
    return f"{value / 60:.1f} min" if value < 5400 else f"{value / 3600:.1f} h"


def task_words(name: str) -> Markup:
    """A family of tasks."""
    return both(name.replace("_", " "), texts.TASKS.get(name, name))


def step_words(name: str) -> Markup:
    """A step of cleaning, or a kind of dirt."""
    return both(name.replace("_", " "), texts.STEPS.get(name, name))


def part_words(name: str) -> Markup:
    """One of the parts that a reward model's accuracy is split into."""
    return both(*texts.PARTS.get(name, (name.replace("_", " "),) * 2))


def evaluations(found: Gathered) -> list[tuple[str, dict[str, Any]]]:
    """The examinations: the name of each and its summary."""
    return [(name, manifest) for name, manifest in found.manifests.items() if manifest["kind"] == "evaluate"]


def baseline_of(manifest: dict[str, Any]) -> str:
    """The model that an examination compares with."""
    return str(manifest["settings"].get("baseline", "sft"))


def own_stage(found: Gathered, manifest: dict[str, Any], model: str) -> bool:
    """Whether a model is what the stage of its name made; others are there for comparison."""
    return model in found.manifests and Path(manifest["settings"].get("models", {}).get(model, "")).name == model


def signed(value: float, places: int = 1) -> str:
    """A difference, with its sign."""
    text = f"{value:+.{places}f}"
    return "±0" if not text.strip("+-0.") else text.replace("-", "−")


def model_order(found: Gathered) -> dict[str, int]:
    """Every model that was examined and its colour: the baseline first, then as in the run, what is only there for
    comparison last."""
    order: dict[str, int] = {}
    for _, manifest in evaluations(found):
        baseline, places = baseline_of(manifest), list(found.manifests)
        own = [name for name in manifest["summary"]["models"] if name == baseline or own_stage(found, manifest, name)]
        own.sort(key=lambda name: (name != baseline, places.index(name) if name in places else 0))
        for place, name in enumerate(own):
            order.setdefault(name, place % 7)
        for name in sorted(manifest["summary"]["models"], key=lambda name:
                           (manifest["summary"]["models"][name].get("best_of", 0), name)):
            order.setdefault(name, 7)
    return order


def cards(found: Gathered) -> list[dict[str, Any]]:
    """The headline: what each school gave, the good news and the bad in one card."""
    made: list[dict[str, Any]] = []
    stages = found.metrics["stages"]
    for name, manifest in found.manifests.items():
        figures, kind = stages[name], manifest["kind"]
        if kind == "pretrain" and figures.get("validation_bits_per_byte") is not None and figures.get("steps"):
            made.append({
                "stage": name, "big": f"{figures['validation_bits_per_byte']:.3f}",
                "words": figure_words("validation_bits_per_byte"),
                "more": [(figure_words("unigram_bits_per_byte"),
                          number(figures["unigram_bits_per_byte"]))] if "unigram_bits_per_byte" in figures else []
            })
        elif kind == "reward" and is_rate(figures.get("accuracy")) and figures["accuracy"]["value"] is not None:
            more = [(figure_words(key), percent(figures[key]["value"]))
                    for key in ("agreement", "ceiling", "length_accuracy") if is_rate(figures.get(key))]
            made.append({
                "stage": name, "big": percent(figures["accuracy"]["value"], 0), "range": interval(figures["accuracy"]),
                "words": figure_words("accuracy"), "more": more
            })
        elif any(name in one["summary"]["models"] and own_stage(found, one, name) for _, one in evaluations(found)):
            win = next((key for key in figures if key.startswith("win_rate_vs_")), None)
            right = figures.get("right_answers")
            if win and figures[win]["value"] is not None:
                more = [(figure_words("right_answers"),
                         f"{percent(right['value'])}{against(found, name)}")] if is_rate(right) else []
                more += [(figure_words("kl"), number(figures["kl"]))] if "kl" in figures else []
                made.append({
                    "stage": name, "big": percent(figures[win]["value"], 0), "range": interval(figures[win]),
                    "words": figure_words(win), "more": more, "colour": model_order(found)[name]
                })
            elif is_rate(right) and right["value"] is not None:
                more = [(figure_words(key), percent(figures[key]["value"]))
                        for key in ("base_right_answers", "untrained_right_answers") if is_rate(figures.get(key))]
                made.append({
                    "stage": name, "big": percent(right["value"], 0), "range": interval(right),
                    "words": figure_words("right_answers"), "more": more, "colour": model_order(found)[name]
                })
    return made


def against(found: Gathered, name: str) -> str:
    """How much more or less right than the baseline, in points."""
    for _, manifest in evaluations(found):
        figures, base = manifest["summary"]["models"], baseline_of(manifest)
        if name in figures and name != base and is_rate(figures.get(base, {}).get("right_answers")):
            return f" ({(figures[name]['right_answers']['value'] - figures[base]['right_answers']['value']) * 100:+.1f})".replace(
                "-", "−")
    return ""


def findings(found: Gathered) -> list[tuple[str, str, str]]:
    """What a reader should not miss, ``(good | bad | note, English, Chinese)``: above all where winning and being right
    part."""
    said: list[tuple[str, str, str]] = []
    for _, manifest in evaluations(found):
        base, models = baseline_of(manifest), manifest["summary"]["models"]
        start = models.get(base, {})
        for name, figures in models.items():
            win = figures.get(f"win_rate_vs_{base}")
            if not own_stage(found, manifest, name) or name == base or not is_rate(win) or win["value"] is None:
                continue
            if is_rate(figures.get("right_answers")) and is_rate(start.get("right_answers")):
                change = (figures["right_answers"]["value"] - start["right_answers"]["value"]) * 100
                worst = sorted(
                    ((figures["right_by_task"][task]["value"] - start["right_by_task"][task]["value"]) * 100, task)
                    for task in figures.get("right_by_task", {}) if task in start.get("right_by_task", {}))[:2]
                losses = [(task, points) for points, task in worst if points < -5]
                paired = figures.get(f"right_difference_vs_{base}")
                sure = f"; the same prompts, paired: {signed(paired['low'] * 100)} to {signed(paired['high'] * 100)}" if is_rate(
                    paired) else ""
                sure_zh = f"；同题配对区间 {signed(paired['low'] * 100)} 至 {signed(paired['high'] * 100)}" if is_rate(
                    paired) else ""
                lost = ", ".join(f"{task} ({signed(points, 0)})" for task, points in losses)
                lost_zh = "、".join(f"{texts.TASKS.get(task, task)}（{signed(points, 0)}）" for task, points in losses)
                if win["low"] > 0.5 and (change < 0 or losses):
                    said.append((
                        "bad",
                        f"{name} is preferred to {base} in {percent(win['value'], 0)} of comparisons, yet its answers "
                        f"are right {abs(change):.1f} points "
                        f"{'less' if change < 0 else 'more'} often ({percent(figures['right_answers']['value'])} "
                        f"against {percent(start['right_answers']['value'])}{sure})"
                        + (f"; it lost most, in points, in {lost}." if lost else "."),
                        f"{name} 在 {percent(win['value'], 0)} 的比较中胜过 {base}，但答对率{'低' if change < 0 else '高'} "
                        f"{abs(change):.1f} 个百分点"
                        f"（{percent(figures['right_answers']['value'])} 对 "
                        f"{percent(start['right_answers']['value'])}{sure_zh}）"
                        + (f"；下降最多：{lost_zh}。" if lost else "。")))
                elif win["low"] > 0.5:
                    said.append((
                        "good",
                        f"{name} is preferred to {base} in {percent(win['value'], 0)} of comparisons and is right no "
                        f"less often ({signed(change)} points).",
                        f"{name} 在 {percent(win['value'], 0)} 的比较中胜过 {base}，答对率也没有下降（{signed(change)} 个百分点）。"))
            if win["low"] <= 0.5 <= win["high"]:
                said.append(
                    ("note",
                     f"{name} cannot be told from {base} by this judge: the interval of its win rate holds 50 %.",
                     f"按此裁判，{name} 与 {base} 不分高下：胜率区间包含 50 %。"))
    for name, manifest in found.manifests.items():
        looks = points_of(found.logs.get(name, []), "step", "watched_gold")
        if manifest["summary"].get("ended") == "past the peak" and looks:
            best = max(looks, key=lambda one: one[1])
            said.append((
                "bad",
                f"{name} was ended past its peak: after {best[0]:.0f} rollouts a judge that it does not learn from "
                f"gave {number(best[1])} points, after "
                f"{looks[-1][0]:.0f} only {number(looks[-1][1])}, while it was still learning from its reward. The "
                "best policy was kept.",
                f"{name} 已越过峰值而停止：第 {best[0]:.0f} 次采样后旁观裁判评分为 {number(best[1])}，第 {looks[-1][0]:.0f} 次后降至 "
                f"{number(looks[-1][1])}；保留了最好的策略。"
            ))
        heldout = points_of(found.logs.get(name, []), "step", "validation_loss")
        if "best_step" in manifest["summary"] and len(heldout) > 1 and heldout[-1][1] > 1.01 * (lowest := min(
                loss for _, loss in heldout)):
            best_step = manifest["summary"]["best_step"]
            said.append((
                "note",
                f"{name} began to learn its rows by heart: the loss on rows held out was lowest ({number(lowest)}) "
                f"after update {best_step} and {number(heldout[-1][1])} "
                f"after update {heldout[-1][0] + 1:.0f}. The weights of update {best_step} were kept.",
                f"{name} 开始过拟合：留出数据的损失在第 {best_step} 次更新后最低（{number(lowest)}），到第 {heldout[-1][0] + 1:.0f} 次更新时为 "
                f"{number(heldout[-1][1])}；"
                f"保留了第 {best_step} 次更新的权重。"))
        for row in remembered(found):
            if row["stage"] == name and row["after"]["high"] < row["before"]["low"]:
                said.append((
                    "bad",
                    f"{name} ({row['way'][0]}{' rehearsal' if row['way'][0] == 'without' else ''}) forgot: right "
                    f"answers to the earlier task {row['task']} "
                    f"fell from {percent(row['before']['value'])} to {percent(row['after']['value'])}.",
                    f"{name}（{row['way'][1]}）发生遗忘：旧任务 {row['task']} 的答对率由 {percent(row['before']['value'])} 降至 "
                    f"{percent(row['after']['value'])}。"
                ))
        figures = found.metrics["stages"][name]
        if manifest["kind"] == "reward" and is_rate(figures.get("accuracy")) and is_rate(
                figures.get("ceiling")) and figures["ceiling"]["value"] is not None:
            gap = (figures["ceiling"]["value"] - figures["accuracy"]["value"]) * 100
            said.append((
                "note" if gap > 6 else "good",
                f"The reward model orders pairs {gap:.1f} points less often as the annotators did than a judge without "
                "noise would; what it does not see, "
                "optimisation cannot respect.", f"奖励模型与标注者的一致率比无噪声裁判低 {gap:.1f} 个百分点；它看不到的，优化也顾不到。"))
    return said


def schools(found: Gathered) -> list[dict[str, Any]]:
    """The curriculum: schools, their stages, and when and how long each ran. The time between runs is left out."""
    spans = {name: span_of(manifest) for name, manifest in found.manifests.items()}
    total = covered(spans.values()) or 1.0
    made: dict[str, dict[str, Any]] = {}
    for name, manifest in found.manifests.items():
        school = texts.STAGES.get(manifest["kind"], ("", "", "judge"))[2]
        group = made.setdefault(
            school,
            {"words": texts.SCHOOLS[school], "stages": [], "seconds": 0.0, "colour": list(texts.SCHOOLS).index(school)})
        begun = spans[name][0]
        before = covered((start, min(end, begun)) for start, end in spans.values() if start < begun)
        group["stages"].append({
            "name": name, "seconds": manifest["seconds"], "start": before / total, "share": manifest["seconds"] / total,
            "memory": manifest["peak_memory_mb"], "costs": costs(manifest)
        })
        group["seconds"] += manifest["seconds"]
    return [made[school] for school in texts.SCHOOLS if school in made]


def costs(manifest: dict[str, Any]) -> list[tuple[tuple[str, str], str]]:
    """How much a stage worked through."""
    figures = manifest["summary"] | manifest["summary"].get("rows", {})
    keys = ("documents", "kept", "parameters", "steps", "demonstrations", "prompts", "responses", "rankings",
            "episodes", "vocab_size")
    found = [(figure_words(key), number(figures[key])) for key in keys
             if isinstance(figures.get(key), (int, float)) and not isinstance(figures.get(key), bool)]
    if isinstance(figures.get("train"), dict) and "tokens" in figures["train"]:
        found.append((("tokens", "词元"), number(figures["train"]["tokens"])))
    return found[:3]


def funnels(found: Gathered) -> list[dict[str, Any]]:
    """For each stage that cleaned: its funnel, and its precision and recall where the truth is known."""
    made = []
    for name, figures in found.metrics["stages"].items():
        rows = figures.get("funnel")
        if isinstance(rows, list) and rows:
            most, before = max(1, *(row["documents"] for row in rows)), rows[0]
            per_token = bytes_per_token(found.metrics["stages"])
            steps = []
            for row in rows:
                steps.append({
                    "step": row["step"], "documents": row["documents"], "bytes": row["bytes"],
                    "share": row["documents"] / most, "lost": before["documents"] - row["documents"],
                    "lost_bytes": before["bytes"] - row["bytes"], "tokens": about_tokens(row, per_token)
                })
                before = row
            dirt = [(kind, figures["precision"][kind], figures.get("recall", {}).get(kind))
                    for kind in figures["precision"]] if isinstance(figures.get("precision"), dict) else []
            parts = {group: names for group in ("sources", "languages") if len(names := largest(rows, group)) > 1}
            made.append({
                "name": name, "steps": steps, "dirt": dirt, "reasons": {
                    row["step"]: reasons
                    for row in rows if (reasons := figures.get("reasons", {}).get(row["step"]))
                }, "parts": parts, "rows": rows, "notes": notes(figures, per_token), "tokens": per_token
            })
    return made


RAW_STEPS = ("input", "read", "address")
"""The steps after which pages still are what was crawled: their bytes say nothing about tokens."""


def about_tokens(row: dict[str, Any], per_token: dict[str, float]) -> float | None:
    """About how many tokens a step left; ``None`` for raw pages, and where there is no tokenizer."""
    if not per_token or row["step"] in RAW_STEPS:
        return None
    whole = per_token.get("all", 4.0)
    languages: dict[str, Any] = row.get("languages") or {}
    told = sum(entry["bytes"] for entry in languages.values())
    return sum(entry["bytes"] / per_token.get(name, whole)
               for name, entry in languages.items()) + (row["bytes"] - told) / whole


def notes(figures: dict[str, Any], per_token: dict[str, float]) -> list[tuple[tuple[str, str], list[tuple[str, str]]]]:
    """What else a corpus counted, as lines of names and values."""
    said: list[tuple[tuple[str, str], list[tuple[str, str]]]] = []
    for key, title in (("extraction", ("how main texts were found", "正文由谁提取")),
                       ("private", ("private data replaced", "替换的隐私信息")), ("spans", ("repeated passages", "重复段落"))):
        if figures.get(key):
            said.append((title, [(str(name), f"{count:,}")
                                 for name, count in sorted(figures[key].items(), key=lambda item: -item[1])]))
    hit = figures.get("contamination")
    if isinstance(hit, dict) and hit.get("texts"):
        said.append((("evaluation texts", "评测题"), [("searched for", f"{hit['texts']:,}"),
                                                   ("found", f"{hit['texts_hit']:,}"),
                                                   ("documents rejected", f"{hit['documents']:,}")]))
    if figures.get("epochs"):
        said.append((("how often each source is read", "各来源读取遍数"), [(name, f"× {count:.2f}")
                                                                    for name, count in figures["epochs"].items()]))
    if per_token:
        said.append((("bytes a token of this tokenizer", "每词元字节数"), [(name, f"{size:.2f}")
                                                                     for name, size in per_token.items()]))
    return said


def largest(funnel: list[dict[str, Any]], group: str, most: int = 10) -> list[str]:
    """The sources or languages of a corpus that began with the most documents."""
    entries: dict[str, Any] = next((row[group] for row in funnel if row.get(group)), {})
    return sorted(entries, key=lambda name: -entries[name]["documents"])[:most]


def bytes_per_token(stages: dict[str, Any]) -> dict[str, float]:
    """By language and for ``all``, as the tokenizer and the tokenised corpus say; empty where there are none."""
    found: dict[str, float] = {}
    for figures in stages.values():
        if isinstance(figures.get("bytes_per_token"), dict):
            found |= figures["bytes_per_token"]
    for figures in stages.values():
        if isinstance(figures.get("train"), dict) and "bytes_per_token" in figures["train"]:
            found["all"] = figures["train"]["bytes_per_token"]
    return found


def curves(found: Gathered) -> dict[str, list[Markup]]:
    """The drawings of every stage that logged."""
    drawn: dict[str, list[Markup]] = {}
    for name, rows in found.logs.items():
        charts = []
        seen, heldout = points_of(rows, "step", "loss"), points_of(rows, "step", "validation_loss")
        together = len(seen) > 1 and len(heldout) > 1
        if together:  # where the lines part, it learns its rows by heart
            lines = [Series("training", thinned(seen)), Series("held out", heldout, 1, True)]
            if "best_step" in found.manifests[name]["summary"]:
                lines.append(Series("kept", [min(heldout, key=lambda point: point[1])], 2))
            charts.append(
                draw.line_chart(("training and held-out loss", "训练损失与留出损失"), ("step", "步"), figure_words("loss"), lines,
                                key=f"c-{name}-losses", smooth=False))
        for key in CURVES:
            points = points_of(rows, "step", key)
            if len(points) > 1 and not (together and key in ("loss", "validation_loss")):
                charts.append(
                    draw.line_chart(figure_words(key), ("step", "步"), figure_words(key), [Series(name, points)],
                                    key=f"c-{name}-{key}"))
        if charts:
            drawn[name] = charts
    return drawn


def samples(found: Gathered) -> dict[str, list[Row]]:
    """For every stage that practised, what the policy said along the way: some logged samples, evenly apart."""
    chosen: dict[str, list[Row]] = {}
    for name, rows in found.logs.items():
        said = [row for row in rows if isinstance(row.get("sample"), str) and isinstance(row.get("sample_prompt"), str)]
        places = sorted({round(i * (len(said) - 1) / (SHOWN_SAMPLES - 1))
                         for i in range(SHOWN_SAMPLES)}) if said else []
        if places:
            chosen[name] = [
                said[i] | {key: said[i][key][:ROW_LIMIT]
                           for key in ("sample", "sample_prompt")} for i in places
            ]
    return chosen


def sources(found: Gathered) -> list[tuple[str, list[dict[str, Any]]]]:
    """For each stage that brought demonstrations in, by source: rows read, rejected with the reasons, and used; and
    what a stage that learned from them made of it in tokens."""
    made = []
    for name, manifest in found.manifests.items():
        learned: dict[str, Any] = next(
            (one["summary"]["by_source"] for one in found.manifests.values() if "by_source" in one["summary"]
             and one["inputs"].get("demonstrations", {}).get("digest") == manifest["digest"]), {})
        if manifest["kind"] == "imports" and manifest["summary"].get("sources"):
            made.append(
                (name,
                 [{"source": source, "refused": sum(counts["rejected"].values()), **counts, **learned.get(source, {})}
                  for source, counts in manifest["summary"]["sources"].items()]))
    return made


def remembered(found: Gathered) -> list[dict[str, Any]]:
    """Right answers to earlier tasks before and after each stage that counted them, task by task, so that the same one
    with and without rehearsal stand side by side."""
    rows = []
    for name, manifest in found.manifests.items():
        rehearsal = manifest["settings"].get("rehearsal")
        way = ("without", "无复习") if not rehearsal else (f"{rehearsal['share']:.0%} made up by the "
                                                        "model", f"{rehearsal['share']:.0%} 由模型自拟") \
            if rehearsal["generated"] else (f"{rehearsal['share']:.0%} earlier rows", f"{rehearsal['share']:.0%} 旧数据")
        rows += [{"task": task, "stage": name, "way": way, **scores}
                 for task, scores in (manifest["summary"].get("earlier") or {}).items() if all(
                     is_rate(scores.get(when)) and scores[when]["value"] is not None for when in ("before", "after"))]
    return sorted(rows, key=lambda row: row["task"])


def points_of(rows: Sequence[Row], x: str, y: str) -> list[tuple[float, float]]:
    """The rows that have both numbers."""
    return [(float(row[x]), float(row[y])) for row in rows
            if isinstance(row.get(x), (int, float)) and isinstance(row.get(y), (int, float))]


def rewards(found: Gathered) -> list[dict[str, Any]]:
    """For each reward model: how well it orders held-out pairs beside its ceiling and length alone, its calibration,
    and its accuracy by whatever its summary splits it by (length difference, margin, ...)."""
    made = []
    for name, manifest in found.manifests.items():
        if manifest["kind"] != "reward":
            continue
        figures = manifest["summary"]
        rates = [(key, figures[key]) for key in ("accuracy", "agreement", "ceiling", "length_accuracy")
                 if is_rate(figures.get(key)) and figures[key]["value"] is not None]
        rates += [(key, figure) for key, figure in figures.items()
                  if is_rate(figure) and figure["value"] is not None and key not in dict(rates)]
        splits = {key: rows for key, rows in ((key, split(value)) for key, value in figures.items()) if rows}
        calibration = None
        if points := calibration_points(figures.get("calibration")):
            calibration = draw.line_chart(
                ("Calibration", "校准"), ("chance the model gives", "模型给出的概率"), ("share that was preferred", "实际被偏好的比例"),
                [Series("measured", points, 0, True),
                 Series("perfect", [(0.0, 0.0), (1.0, 1.0)], 7)], key=f"cal-{name}", smooth=False)
        made.append({
            "name": name, "rates": rates, "splits": splits, "calibration": calibration,
            "agreement": [(other, one["summary"]["agreement"]) for other, one in found.manifests.items()
                          if isinstance(one["summary"].get("agreement"), (int, float))]
        })
    return made


def split(value: Any) -> list[tuple[str, dict[str, Any]]]:
    """A figure that is a rate for each of some parts: a mapping, or a list of rates with a name or bounds."""
    if isinstance(value, dict) and value and all(is_rate(part) for part in value.values()):
        return [(str(key), part) for key, part in value.items() if part["value"] is not None]
    if isinstance(value, list) and value and all(is_rate(part) for part in value):
        return [(str(next((part[key]
                           for key in ("name", "label", "bin", "range", "from") if key in part), place)), part)
                for place, part in enumerate(value, 1)
                if part["value"] is not None and not {"predicted", "mean_predicted"} & part.keys()]
    return []


def calibration_points(value: Any) -> list[tuple[float, float]]:
    """(predicted, observed) of each bin, whatever the artifact calls them."""
    rows = value.get("bins", []) if isinstance(value, dict) else value
    points = []
    for row in rows if isinstance(rows, list) else []:
        if isinstance(row, dict):
            x = next(
                (row[key]
                 for key in ("predicted", "mean_predicted", "confidence") if isinstance(row.get(key), (int, float))),
                None)
            y = next((row[key]
                      for key in ("observed", "right", "accuracy", "value") if isinstance(row.get(key), (int, float))),
                     None)
            if x is not None and y is not None:
                points.append((float(x), float(y)))
    return sorted(points)


def wins(found: Gathered) -> list[dict[str, Any]]:
    """The figure of InstructGPT: win rates against the baseline, with intervals; the baseline itself has half by
    definition."""
    made = []
    for name, manifest in evaluations(found):
        base, models = baseline_of(manifest), manifest["summary"]["models"]
        rows = []
        for model in model_order(found):
            figures = models.get(model, {})
            rate = figures.get(f"win_rate_vs_{base}")
            if model == base and figures:
                rows.append({
                    "model": model, "rate": None, "controlled": None, "length": figures.get("mean_length"), "kl": None
                })
            elif is_rate(rate) and rate["value"] is not None:
                rows.append({
                    "model": model, "rate": rate, "controlled": figures.get(f"length_controlled_win_rate_vs_{base}"),
                    "length": figures.get("mean_length"), "kl": figures.get("kl")
                })
        if any(row["rate"] for row in rows):
            made.append({"stage": name, "base": base, "rows": rows, "judge": manifest["summary"].get("judge", "")})
    return made


def drift(found: Gathered) -> list[Markup]:
    """Reward against KL, for every stage whose log has both, and points by the judge against KL, for all models that
    were examined."""
    drawn = []
    logged = [
        Series(name, points,
               model_order(found).get(name, place), True) for place, (name, rows) in enumerate(found.logs.items(), 1)
        if (points := points_of(rows, "kl", "score"))
    ]
    if logged:
        drawn.append(
            draw.line_chart(("What the reward model says, by drift", "奖励模型分数随漂移的变化"), figure_words("kl"),
                            figure_words("score"), logged, key="drift-log", smooth=False))
    watched = [
        Series(name, points,
               model_order(found).get(name, place), True) for place, (name, rows) in enumerate(found.logs.items(), 1)
        if (points := points_of(rows, "kl", "watched_gold"))
    ]
    if watched:
        drawn.append(
            draw.line_chart(("What a judge says that it does not learn from, by drift", "旁观裁判的评分随漂移的变化"),
                            figure_words("kl"), figure_words("watched_gold"), watched, key="drift-watch", smooth=False))
    for name, rows in found.logs.items():
        looks = [
            Series(figure_words(key)[0], gains, place, True)
            for place, key in enumerate(("watched_score", "watched_gold"), 1) if len(gains := gained(rows, key)) > 1
        ]
        if len(looks) == 2:
            drawn.append(
                draw.line_chart((f"{name}: what it is rewarded for, and what a judge says that it does not learn from",
                                 f"{name}：所优化的奖励与旁观裁判的评分"), figure_words("kl"),
                                ("gain, in deviations of the first look's answers", "增益（以首次观察的标准差为单位）"), looks,
                                key=f"drift-watch-{name}", smooth=False))
    for name, manifest in evaluations(found):
        models = manifest["summary"]["models"]
        for key, title in (("mean_points", ("What the judge says, by drift", "裁判评分随漂移的变化")),
                           ("right_answers", ("Right answers, by drift", "答对率随漂移的变化"))):
            places: dict[str, tuple[float, float]] = {}
            for model, figures in models.items():
                value = figures.get(key)
                value = value["value"] if is_rate(value) else value
                kl = 0.0 if model == baseline_of(manifest) else figures.get("kl")
                if (model == baseline_of(manifest) or "best_of" in figures or own_stage(
                        found, manifest, model)) and isinstance(value, (int, float)) and isinstance(kl, (int, float)):
                    places[model] = (float(kl), float(value))
            if len(places) > 1:
                series = [
                    Series(model, [point],
                           model_order(found)[model], True)
                    for model, point in sorted(places.items(), key=lambda one: model_order(found)[one[0]])
                ]
                drawn.append(
                    draw.line_chart(title, figure_words("kl"), figure_words(key), series, key=f"drift-{name}-{key}",
                                    smooth=False, labels={point: model
                                                          for model, point in places.items()}))
    return drawn


def gained(rows: Sequence[Row], key: str) -> list[tuple[float, float]]:
    """(KL, gain since the first look of the watch in deviations of its answers) of a quantity that the watch logs with
    its spread."""
    points = points_of(rows, "kl", key)
    spread = next((row[f"{key}_spread"] for row in rows if row.get(f"{key}_spread")), None)
    return [(kl, (value - points[0][1]) / spread) for kl, value in points] if spread else []


def by_task(found: Gathered) -> list[dict[str, Any]]:
    """Right answers of every model in every family of tasks, beside the baseline's."""
    made = []
    for name, manifest in evaluations(found):
        models = {
            model: manifest["summary"]["models"][model]
            for model in model_order(found) if "right_by_task" in manifest["summary"]["models"].get(model, {})
        }
        if models:
            base = baseline_of(manifest)
            tasks = list(dict.fromkeys(task for figures in models.values() for task in figures["right_by_task"]))
            rows = [(task, {model: figures["right_by_task"].get(task)
                            for model, figures in models.items()}) for task in tasks]
            rows.append(("", {model: figures["right_answers"] for model, figures in models.items()}))
            differences = {
                model: figures[f"right_difference_vs_{base}"]
                for model, figures in models.items() if is_rate(figures.get(f"right_difference_vs_{base}"))
            }
            made.append({
                "stage": name, "base": base if base in models else "", "models": list(models), "rows": rows,
                "differences": differences
            })
    return made


def examinations(
        found: Gathered) -> list[tuple[str, list[tuple[texts.Pair, float | None, list[tuple[str, dict[str, Any]]]]]]]:
    """Further tasks of the examinations: of each ``(task, [(figure, chance, [(model, rate)])])``."""
    made: dict[str, dict[str, list[tuple[str, dict[str, Any]]]]] = {}
    chances: dict[str, float] = {}
    for _, manifest in evaluations(found):
        examined = manifest["summary"].get("tasks", {})
        for model in sorted(examined, key=lambda model: model_order(found).get(model, len(examined))):
            for task, figures in examined[model].items():
                if isinstance(figures.get("chance"), float):
                    chances[task] = figures["chance"]
                for key, figure in figures.items():
                    if is_rate(figure) and figure["value"] is not None:
                        made.setdefault(task, {}).setdefault(key, []).append((model, figure))
    return [(task, [(texts.task_figure_words(key), chances.get(task) if key.startswith("accuracy") else None,
                     figures[key]) for key in sorted(
                         figures, key=lambda key: list(texts.TASK_FIGURES).index(key)
                         if key in texts.TASK_FIGURES else len(texts.TASK_FIGURES))]) for task, figures in made.items()]


def prompts(found: Gathered) -> list[tuple[str, list[Row]]]:
    """The first prompts of each task with all answers: chosen by their order alone, not by how they turned out."""
    order = list(model_order(found))
    made: dict[str, list[Row]] = {}
    for row in found.answers:
        rows = made.setdefault(str(row.get("task") or ""), [])
        if len(rows) < SHOWN_PROMPTS * (1 if row.get("task") else 6):
            answers = [(model, row["answers"][model][:ROW_LIMIT], row.get("right", {}).get(model)) for model in order
                       if model in row["answers"]]
            truth = row.get("truth", {})
            rows.append({"prompt": row["prompt"], "answers": answers, "truth": ", ".join(truth.get("answers", [])[:1])})
    return sorted(made.items())


def lineage(found: Gathered) -> Markup:
    """What was made from what."""
    by_digest = {manifest["digest"]: name for name, manifest in found.manifests.items()}
    edges = [(by_digest[made["digest"]], name) for name, manifest in found.manifests.items()
             for made in manifest["inputs"].values() if by_digest.get(made["digest"], name) != name]
    nodes: dict[str, tuple[draw.Words, str, int]] = {}
    for name, manifest in found.manifests.items():
        nodes[name] = (stage_words(name, manifest["kind"]), manifest["digest"][:10],
                       list(texts.SCHOOLS).index(texts.STAGES.get(manifest["kind"], ("", "", "judge"))[2]))
    for name, manifest in found.manifests.items():
        for field, made in manifest["inputs"].items():
            # a model of another run, or somebody else's
            if field in ("model", "reward", "adapter", "safety") and made["digest"] not in by_digest:
                place = "/".join([part for part in Path(made["path"]).parts if part != ".."][-2:])
                nodes.setdefault(place, ((place, place), made["digest"][:10], 0))
                edges.append((place, name))
    return draw.graph(nodes, edges, ("What was made from what", "产物来源图"))


def recipe(found: Gathered) -> str:
    """The recipe that makes this run again, every setting written out."""
    seed = next(iter(found.manifests.values()))["seed"]
    stages = {name: {"kind": manifest["kind"], **manifest["settings"]} for name, manifest in found.manifests.items()}
    stages["report"] = {"kind": "report", "stages": list(found.manifests)}
    return yaml.safe_dump({"name": f"{found.name}-again", "seed": seed, "stages": stages}, sort_keys=False,
                          allow_unicode=True, width=100)


def changed(found: Gathered) -> dict[str, list[tuple[str, str]]]:
    """Every stage's settings that are not the defaults, as ``(dotted name, value)``."""
    made = {}
    for name, manifest in found.manifests.items():
        defaults = found.stages[manifest["kind"]].model_construct().model_dump(
            mode="json", warnings=False) if manifest["kind"] in found.stages else {}
        made[name] = [(key, value) for key, value in flat(manifest["settings"])
                      if dict(flat(defaults)).get(key) != value]
    return made


def flat(settings: Any, prefix: str = "") -> list[tuple[str, str]]:
    """Nested settings as dotted names and values in YAML's short form."""
    if isinstance(settings, dict) and settings:
        return [
            one for key, value in settings.items() for one in flat(value, f"{prefix}.{key}" if prefix else str(key))
        ]
    return [(prefix, yaml.safe_dump(settings, default_flow_style=True, allow_unicode=True,
                                    width=10**6).removesuffix("\n").removesuffix("\n..."))]


def versions(found: Gathered) -> str:
    """What made it."""
    newest = {key: value for manifest in found.manifests.values() for key, value in manifest["versions"].items()}
    return ", ".join(f"{key} {value}" for key, value in newest.items())
