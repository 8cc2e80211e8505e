"""How well reward models judge."""

from __future__ import annotations

from typing import Any

from trivium.report import draw
from trivium.report.draw import Series
from trivium.report.formats import is_known_rate, is_number, is_rate
from trivium.report.gather import Gathered
from trivium.report.texts import words


def rewards(found: Gathered) -> list[dict[str, Any]]:
    """For each reward model: how well it orders held-out pairs beside its ceiling and length alone, its calibration,
    and its accuracy by whatever its summary splits it by (length difference, margin, ...)."""
    made = []
    agreement = [(name, manifest["summary"]["agreement"]) for name, manifest in found.manifests.items()
                 if is_number(manifest["summary"].get("agreement"))]
    for name, manifest in found.manifests.items():
        if manifest["kind"] != "reward":
            continue
        figures = manifest["summary"]
        first = [key for key in ("accuracy", "agreement", "ceiling", "length_accuracy") if key in figures]
        rates = [(key, figures[key]) for key in dict.fromkeys([*first, *figures]) if is_known_rate(figures[key])]
        splits = {key: rows for key, value in figures.items() if (rows := split(value))}
        calibration = None
        if points := calibration_points(figures.get("calibration")):
            calibration = draw.line_chart(
                words("calibration"), words("predicted"), words("preferred"),
                [Series(words("measured"), points, 0, True), Series(words("perfect"), [(0.0, 0.0), (1.0, 1.0)], 7)],
                key=f"cal-{name}", smooth=False)
        made.append({"name": name, "rates": rates, "splits": splits, "calibration": calibration,
                     "agreement": agreement})
    return made


def split(value: Any) -> list[tuple[str, dict[str, Any]]]:
    """A figure that is a rate for each of some parts: a mapping, or a list of rates with a name or bounds."""
    if isinstance(value, dict) and value and all(is_rate(part) for part in value.values()):
        return [(str(key), part) for key, part in value.items() if part["value"] is not None]
    if isinstance(value, list) and value and all(is_rate(part) for part in value):
        names = ("name", "label", "bin", "range", "from")
        return [(str(next((part[key] for key in names if key in part), place)), part)
                for place, part in enumerate(value, 1)
                if part["value"] is not None and not {"predicted", "mean_predicted"} & part.keys()]
    return []


def calibration_points(value: Any) -> list[tuple[float, float]]:
    """(predicted, observed) of each bin, whatever the artifact calls them."""
    rows = value.get("bins", []) if isinstance(value, dict) else value
    points = []
    for row in rows if isinstance(rows, list) else []:
        if isinstance(row, dict):
            x = first_number(row, "predicted", "mean_predicted", "confidence")
            y = first_number(row, "observed", "right", "accuracy", "value")
            if x is not None and y is not None:
                points.append((x, y))
    return sorted(points)


def first_number(row: dict[str, Any], *keys: str) -> float | None:
    """The first of some fields that holds a number."""
    return next((float(row[key]) for key in keys if is_number(row.get(key))), None)
