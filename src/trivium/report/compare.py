"""``trivium compare``: how two runs differ, in settings, in inputs and in results."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from trivium.report.again import flat
from trivium.report.formats import has_interval, is_number, is_rate
from trivium.report.gather import Gathered, gather

TIMES = {"seconds", "tokens_per_second"}
"""Results that differ from run to run of the same thing."""


def differences(first: Path, second: Path) -> dict[str, Any]:
    """``{"runs", "stages": {stage: {"only_in"?, "same"?, "settings", "inputs", "results", "names"}}}``.

    Settings are ``[before, after]``, null for one that is not there. Inputs are the digests ``[before, after]`` of
    those that differ; the files of the user's code are among them, such as ``loss.mine.py``. Results are
    ``[before, after, apart]``, where ``apart`` says that two intervals do not touch (null where there are none). Names
    are what a stage that is not built in calls its figures. Raises :class:`TriviumError` for a folder that is no run.
    """
    runs = gather(first, {}), gather(second, {})
    stages: dict[str, Any] = {}
    for name in dict.fromkeys([*runs[0].manifests, *runs[1].manifests]):
        if all(name in run.manifests for run in runs):
            stages[name] = changes(*runs, name)
        else:
            place = first if name in runs[0].manifests else second
            stages[name] = {"only_in": str(place), "settings": {}, "inputs": {}, "results": {}, "names": {}}
    return {"runs": [str(first), str(second)], "wall_seconds": [run.metrics["wall_seconds"] for run in runs],
            "peak_memory_mb": [run.metrics["peak_memory_mb"] for run in runs], "stages": stages}


def changes(first: Gathered, second: Gathered, stage: str) -> dict[str, Any]:
    """How a stage differs that both runs have."""
    runs = first, second
    old, new = (run.manifests[stage] for run in runs)
    before, after = dict(flat(old["settings"])), dict(flat(new["settings"]))
    if old["seed"] != new["seed"]:
        before["seed"], after["seed"] = str(old["seed"]), str(new["seed"])
    used = ({name: made["digest"] for name, made in manifest["inputs"].items()} for manifest in (old, new))
    results = {key: [*pair, intervals_apart(*pair)]
               for key, pair in changed(*(dict(numbers(run, stage)) for run in runs)).items()}
    names = {key: english for run in runs for key, (english, _) in run.displays[stage].figures.items()
             if key in results}
    return {"same": old["digest"] == new["digest"], "settings": changed(before, after), "inputs": changed(*used),
            "results": results, "names": names}


def changed(before: dict[str, Any], after: dict[str, Any]) -> dict[str, list[Any]]:
    """The values ``[before, after]`` that differ by key, None for one that is not there."""
    return {key: [before.get(key), after.get(key)] for key in {**before, **after} if before.get(key) != after.get(key)}


def numbers(run: Gathered, stage: str) -> list[tuple[str, Any]]:
    """A stage's numbers and rates by dotted name; an examination's stand beside the stages that it examined."""
    def walk(value: Any, prefix: str) -> list[tuple[str, Any]]:
        if is_rate(value) or is_number(value):
            return [(prefix, value)]
        if isinstance(value, dict):
            return [one for key, part in value.items() for one in walk(part, f"{prefix}.{key}" if prefix else str(key))]
        return []

    return walk(run.metrics["stages"][stage], "")


def intervals_apart(first: Any, second: Any) -> bool | None:
    """Whether two rates' intervals do not touch."""
    if not all(is_rate(one) and one["value"] is not None and has_interval(one) for one in (first, second)):
        return None
    return bool(first["high"] < second["low"] or second["high"] < first["low"])


def as_text(found: dict[str, Any]) -> str:
    """The differences as lines for people."""
    one, other = found["runs"]
    lines = [
        f"{one}  →  {other}",
        f"  wall seconds {found['wall_seconds'][0]:.1f} → {found['wall_seconds'][1]:.1f}; peak MB "
        f"{found['peak_memory_mb'][0]:,.0f} → {found['peak_memory_mb'][1]:,.0f}"
    ]
    for name, stage in found["stages"].items():
        if "only_in" in stage:
            lines.append(f"{name}: only in {stage['only_in']}")
            continue
        if stage["same"] and not (stage["settings"] or stage["inputs"] or stage["results"].keys() - TIMES):
            lines.append(f"{name}: the same")
            continue
        lines.append(f"{name}:" + (" the same artifact" if stage["same"] else ""))
        lines += [
            f"    {key}: {before if before is not None else '–'} → {after if after is not None else '–'}"
            for key, (before, after) in stage["settings"].items()
        ]
        lines += [
            f"    input {name}: {before[:12] if before else '–'} → {after[:12] if after else '–'}"
            for name, (before, after) in stage["inputs"].items()
        ]
        for key, (before, after, far) in stage["results"].items():
            figure = stage["names"].get(key, key.replace("_", " "))
            lines.append(f"    {figure:44} {figure_text(before)} → {figure_text(after)}"
                         f"{'   intervals apart' if far else ''}")
    return "\n".join(lines)


def figure_text(figure: Any) -> str:
    """A figure in words; a rate with its interval."""
    if figure is None:
        return "–"
    if is_rate(figure):
        if figure["value"] is None or not has_interval(figure):
            return "–" if figure["value"] is None else f"{figure['value']:.3f}"
        return f"{figure['value']:.3f} [{figure['low']:.3f}, {figure['high']:.3f}]"
    return f"{figure:,.4g}" if isinstance(figure, float) else str(figure)
