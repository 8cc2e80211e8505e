"""What came of ``trivium evaluate``, as text."""

from __future__ import annotations

from typing import Any


def describe(results: dict[str, Any]) -> str:
    """The results of :func:`trivium.evaluation.run.run_tasks` as lines for people."""
    lines = []
    for model, tasks in results.items():
        lines.append(model)
        for task, figures in tasks.items():
            asked = ", ".join(f"{key} {value}" for key, value in figures.get("asked", {}).items())
            lines.append(f"  {task} ({figures['kind']}{', ' + asked if asked else ''})")
            for name, figure in figures.items():
                if name in ("kind", "asked", "classification"):
                    continue
                if isinstance(figure, dict) and "value" not in figure:
                    lines += [f"      {part:40} {with_interval(one)}" for part, one in figure.items()]
                else:
                    lines.append(f"    {name.replace('_', ' '):42} {with_interval(figure)}")
            for label, row in figures.get("classification", {}).get("classes", {}).items():
                lines.append(
                    f"      class {label:36} precision {row['precision']:.3f}  recall {row['recall']:.3f}  F1 "
                    f"{row['f1']:.3f}  n = {row['n']}"
                )
    return "\n".join(lines)


def with_interval(figure: Any) -> str:
    """A figure with its interval."""
    if isinstance(figure, dict):
        if figure["value"] is None:
            return "–"
        if figure["low"] is None:
            return f"{figure['value']:.4g} (no interval: {figure['n']} of one value), n = {figure['n']}"
        how = f"; {figure['method']}" if "method" in figure else ""
        return f"{figure['value']:.4g} [{figure['low']:.4g}, {figure['high']:.4g}], n = {figure['n']}{how}"
    return f"{figure:.4g}" if isinstance(figure, float) else str(figure)
