"""``trivium compare`` of many runs: a table for each stage, a row a run, and means over runs that differ in their seed
alone."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from statistics import mean, stdev
from typing import Any

from trivium.report.again import flat
from trivium.report.compare import TIMES, figure_text
from trivium.report.formats import is_known_rate, is_number
from trivium.report.gather import Gathered, gather

MOST = 6
"""Results that a table shows of a stage."""


def over_runs(folders: Sequence[Path]) -> dict[str, Any]:
    """``{"runs", "stages": {stage: {"in", "settings", "results", "names", "groups"}}}``.

    In says which runs have the stage. Settings are those that differ, results all numbers and rates of the stage, each
    a list with a value a run, null where there is none. Names are what people call the results. Groups are runs (their
    places in ``runs``) that differ in their seed alone, with mean, standard deviation and count of each result. Raises
    :class:`TriviumError` for a folder that is no run."""
    runs = [gather(folder, {}) for folder in folders]
    stages = dict.fromkeys(name for run in runs for name in run.manifests)
    return {"runs": list(map(str, folders)), "stages": {name: of_stage(runs, name) for name in stages}}


def of_stage(runs: Sequence[Gathered], stage: str) -> dict[str, Any]:
    """One stage of all runs."""
    given = [settings_of(run, stage) for run in runs]
    keys = dict.fromkeys(key for one in given if one for key in one)
    settings = {key: [one.get(key) if one else None for one in given] for key in keys}
    has = [place for place, one in enumerate(given) if one is not None]
    made = [run.metrics["stages"].get(stage, {}) for run in runs]
    results = {key: [one.get(key) for one in made]
               for key in dict.fromkeys(key for one in made for key in one)
               if any(is_number(one.get(key)) or is_known_rate(one.get(key)) for one in made)}
    known = next(run for run in runs if stage in run.manifests)
    return {
        "in": [one is not None for one in given],
        "settings": {key: values for key, values in settings.items() if len({values[place] for place in has}) > 1},
        "results": results, "names": {key: known.figure(key, stage)[0] for key in results},
        "groups": groups([way_to(run, stage) for run in runs], given, results)
    }


def settings_of(run: Gathered, stage: str) -> dict[str, str] | None:
    """A stage's settings by dotted name, the run's seed among them."""
    manifest = run.manifests.get(stage)
    return dict(flat(manifest["settings"])) | {"seed": str(manifest["seed"])} if manifest else None


def way_to(run: Gathered, stage: str) -> tuple[tuple[str, ...], ...]:
    """The settings of a stage and of all stages that it was made from, the seed left out, and the digests of what no
    stage of the run made: a file that was edited, code, or a stage that has been run anew since; nothing for a stage
    that the run does not have."""
    makers: dict[str, list[str]] = {}
    for name, manifest in run.manifests.items():  # two stages may have made the same
        makers.setdefault(manifest["digest"], []).append(name)
    found, todo = set[tuple[str, ...]](), [stage] if stage in run.manifests else []
    seen = set[str]()
    while todo:
        name = todo.pop()
        if name in seen:
            continue
        seen.add(name)
        found |= {(name, key, value) for key, value in flat(run.manifests[name]["settings"])}
        for where, made in run.manifests[name]["inputs"].items():
            if made["digest"] in makers:
                todo += makers[made["digest"]]
            else:
                found.add((name, f"input {where}", made["digest"]))
    return tuple(sorted(found))


def groups(ways: Sequence[tuple[tuple[str, ...], ...]], given: Sequence[dict[str, str] | None],
           results: dict[str, list[Any]]) -> list[dict[str, Any]]:
    """Runs that differ in their seed alone on the way to a stage, one a seed, and their results together."""
    alike: dict[tuple[tuple[str, ...], ...], dict[str, int]] = {}
    for place, one in enumerate(given):
        if one is not None:
            alike.setdefault(ways[place], {}).setdefault(one["seed"], place)
    found = []
    for places in (list(seeds.values()) for seeds in alike.values() if len(seeds) > 1):
        together = {key: [number for place in places if (number := number_of(values[place])) is not None]
                    for key, values in results.items()}
        found.append({"runs": places, "results": {
            key: {"mean": mean(values), "deviation": stdev(values), "n": len(values)}
            for key, values in together.items() if len(values) > 1}})
    return found


def number_of(value: Any) -> float | None:
    """A number, or a rate's value."""
    if is_known_rate(value):
        return float(value["value"])
    return float(value) if is_number(value) else None


def as_table(found: dict[str, Any]) -> str:
    """The tables as text. What is the same in all runs is left out."""
    lines: list[str] = []
    for name, stage in found["stages"].items():
        moved = [key for key, values in stage["results"].items()
                 if key not in TIMES and any(value != values[0] for value in values)]
        has = [place for place, there in enumerate(stage["in"]) if there]
        moved = [key for key in moved if len({str(stage["results"][key][place]) for place in has}) > 1]
        if not moved and stage["settings"].keys() <= {"seed"}:
            all_of_them = len(has) == len(found["runs"])
            where = "" if all_of_them else f"only in {', '.join(found['runs'][one] for one in has)}; "
            lines += [f"{name}: {where}{'only the seed differs' if stage['settings'] else 'the same'}", ""]
            continue
        shown = moved[:MOST]
        rows = [["run", *stage["settings"], *(stage["names"][key] for key in shown)]]
        rows += [[run, *(values[place] or "–" for values in stage["settings"].values()),
                  *(figure_text(stage["results"][key][place]) for key in shown)]
                 for place, run in enumerate(found["runs"]) if place in has]
        for group in stage["groups"]:
            rows.append([f"mean ± deviation of {len(group['runs'])} seeds", *("" for _ in stage["settings"]), *(
                f"{one['mean']:.4g} ± {one['deviation']:.2g}" if (one := group["results"].get(key)) else "–"
                for key in shown)])
        lines += [name, *aligned(rows)]
        if len(moved) > len(shown):
            lines.append(f"  ({len(moved) - len(shown)} more figures differ: --json has all)")
        lines.append("")
    return "\n".join(lines).rstrip()


def aligned(rows: Sequence[Sequence[str]]) -> list[str]:
    """Rows of cells as lines whose columns stand below one another."""
    widths = [max(map(len, column)) for column in zip(*rows)]
    return ["  " + "  ".join(f"{cell:{width}}" for cell, width in zip(row, widths)).rstrip() for row in rows]
