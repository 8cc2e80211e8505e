"""The report page: one HTML file that needs no network, in two languages and two lights."""

from __future__ import annotations

from importlib.resources import files
from pathlib import Path

from jinja2 import Environment
from markupsafe import Markup

from trivium.files import write_text
from trivium.report import draw, texts
from trivium.report.again import changed, recipe, versions
from trivium.report.cards import cards
from trivium.report.curriculum import lineage, schools, whole
from trivium.report.curves import curves, samples
from trivium.report.drift import drift
from trivium.report.examined import by_task, further_tasks, measured, model_order, prompts, wins
from trivium.report.findings import findings
from trivium.report.formats import has_interval, interval, is_rate, is_share, number, percent, seconds, signed
from trivium.report.funnels import funnels
from trivium.report.gather import Gathered
from trivium.report.learning import remembered, sources
from trivium.report.rewards import rewards
from trivium.report.texts import both


def write_page(path: Path, found: Gathered) -> None:
    """Write the page, whole or not at all."""
    write_text(path, render(found))


def render(found: Gathered) -> str:
    """The page as HTML. Everything that models or documents wrote is escaped."""
    folder = files("trivium.report")
    style, script, page = (folder.joinpath(name).read_text(encoding="utf-8")
                           for name in ("page.css", "page.js", "page.html"))
    return environment(found).from_string(page).render(
        run=found, metrics=found.metrics, stages=found.metrics["stages"], manifests=found.manifests,
        colours=model_order(found), style=Markup(style), script=Markup(script), whole=whole(found), cards=cards(found),
        findings=findings(found), schools=schools(found), funnels=funnels(found), curves=curves(found),
        samples=samples(found), rewards=rewards(found), wins=wins(found), measured=measured(found),
        drift=drift(found), by_task=by_task(found),
        sources=sources(found), remembered=remembered(found), further_tasks=further_tasks(found),
        prompts=prompts(found), lineage=lineage(found), recipe=recipe(found), changed=changed(found),
        made=max(manifest["created"] for manifest in found.manifests.values()), versions=versions(found))


def environment(found: Gathered) -> Environment:
    """What the page's template may use."""
    made = Environment(autoescape=True, trim_blocks=True, lstrip_blocks=True)
    made.filters |= {"number": number, "percent": percent, "interval": interval, "seconds": seconds, "signed": signed}
    made.globals |= {
        "t": both, "figure": lambda key, stage: both(*found.figure(key, stage)),
        "stage": lambda name: both(*found.title(name)), "task": lambda name: both(*texts.task_words(name)),
        "step": lambda name: both(*texts.step_words(name)), "part": lambda name: both(*texts.part_words(name)),
        "track": draw.track, "scale": draw.scale, "bar": draw.bar, "is_rate": is_rate,
        "is_share": is_share, "has_interval": has_interval
    }
    return made
