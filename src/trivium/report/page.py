"""The report page: one HTML file that needs no network."""

from __future__ import annotations

from importlib.resources import files
from typing import Any

import plotly.graph_objects as go
from jinja2 import Environment
from plotly.offline import get_plotlyjs

CURVES = {  # which logged quantities are drawn for a stage that logs them, with their axes' names
    "loss": "loss (nats)", "validation_loss": "held-out loss (nats)", "accuracy": "pairs ordered right", "score": "reward model's score", "kl": "KL to the start (nats)",
    "entropy": "entropy (nats a token)", "clip_fraction": "tokens clipped", "explained_variance": "explained variance",
    "tokens_per_second": "tokens per second",
}

HEADLINES = (("pretrain", "validation_bits_per_byte", "bits a byte, after pretraining"), ("sft", "right_answers", "right answers, after fine-tuning"),
             ("reward", "accuracy", "comparisons the reward model orders right"), ("ppo", "win_rate_vs_sft", "PPO wins against SFT"),
             ("dpo", "win_rate_vs_sft", "DPO wins against SFT"))


def render(name: str, metrics: dict[str, Any], manifests: dict[str, dict[str, Any]], logs: dict[str, list[dict[str, Any]]],
           answers: list[dict[str, Any]]) -> str:
    """The page as HTML. Everything that models or documents wrote is escaped."""
    template = files("trivium.report").joinpath("page.html").read_text(encoding="utf-8")
    environment = Environment(autoescape=True)
    environment.filters["rate"] = rate
    return environment.from_string(template).render(
        name=name, metrics=metrics, manifests=manifests, plotly=get_plotlyjs(), answers=answers[:24],
        headlines=[(label, headline(metrics["stages"][stage][key])) for stage, key, label in HEADLINES
                   if key in metrics["stages"].get(stage, {})],
        seconds=_figure(_seconds(metrics)), rates=_figure(_rates(metrics)),
        curves={stage: [_figure(_curve(rows, key, label)) for key, label in CURVES.items() if any(key in row for row in rows)]
                for stage, rows in logs.items() if rows})


def rate(value: Any) -> str:
    """A figure as text; a rate with its interval."""
    if isinstance(value, dict) and {"value", "low", "high"} <= value.keys():
        if value["value"] is None:
            return "–"
        return f"{value['value']:.1%} [{value['low']:.1%}, {value['high']:.1%}], n = {value['n']}"
    return f"{value:,.4g}" if isinstance(value, float) else str(value)


def headline(value: Any) -> tuple[str, str]:
    """A figure in large and, for a rate, its interval in small."""
    if isinstance(value, dict):
        if value["value"] is None:
            return "–", ""
        return f"{value['value']:.0%}", f"{value['low']:.0%} to {value['high']:.0%}"
    return f"{value:.3g}", ""


def _figure(figure: go.Figure) -> str:
    figure.update_layout(template="plotly_white", height=280, margin={"l": 60, "r": 20, "t": 30, "b": 45},
                         paper_bgcolor="rgba(0,0,0,0)", plot_bgcolor="rgba(0,0,0,0)", font={"color": "#888"})
    return figure.to_html(full_html=False, include_plotlyjs=False, config={"displaylogo": False, "displayModeBar": False,
                                                                                    "responsive": True})


def _seconds(metrics: dict[str, Any]) -> go.Figure:
    stages = metrics["stages"]
    return go.Figure(go.Bar(x=[stages[s]["seconds"] for s in stages], y=list(stages), orientation="h"),
                     {"xaxis": {"title": {"text": "seconds"}}, "yaxis": {"autorange": "reversed"}})


def _rates(metrics: dict[str, Any]) -> go.Figure:
    bars = [(f"{stage}: {key.replace('_', ' ')}", value) for stage, figures in metrics["stages"].items()
            for key, value in figures.items() if isinstance(value, dict) and {"value", "low", "high"} <= value.keys()]
    return go.Figure(go.Bar(
        y=[label for label, _ in bars], x=[v["value"] for _, v in bars], orientation="h",
        error_x={"type": "data", "symmetric": False, "array": [v["high"] - v["value"] for _, v in bars],
                 "arrayminus": [v["value"] - v["low"] for _, v in bars]}),
        {"xaxis": {"title": {"text": "rate, with its 95 % interval"}, "range": [0, 1], "tickformat": ".0%"},
         "yaxis": {"autorange": "reversed", "automargin": True}})


def _curve(rows: list[dict[str, Any]], key: str, label: str) -> go.Figure:
    points = [(row["step"], row[key]) for row in rows if isinstance(row.get(key), (int, float))]
    return go.Figure(go.Scatter(x=[x for x, _ in points], y=[y for _, y in points], mode="lines"),
                     {"xaxis": {"title": {"text": "step"}}, "yaxis": {"title": {"text": label}}})
