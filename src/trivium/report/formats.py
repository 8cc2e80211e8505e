"""Numbers, rates and times as text for people."""

from __future__ import annotations

from typing import Any


def is_rate(value: Any) -> bool:
    """Whether a figure comes with its interval."""
    return isinstance(value, dict) and {"value", "low", "high"} <= value.keys()


def is_known_rate(value: Any) -> bool:
    """Whether a figure comes with its interval and was counted over anything at all."""
    return is_rate(value) and value["value"] is not None


def is_number(value: Any) -> bool:
    """Whether a figure is a number; true and false are none."""
    return isinstance(value, (int, float)) and not isinstance(value, bool)


def is_share(rate: dict[str, Any]) -> bool:
    """Whether a rate and its interval lie between 0 and 1, and it is no number that happens to lie there."""
    return has_interval(rate) and bool(rate["low"] >= 0 and rate["high"] <= 1) and str(
        rate.get("method", "Wilson")).startswith("Wilson")


def has_interval(rate: dict[str, Any]) -> bool:
    """Whether a rate's interval is known: of a single number of an unknown range it is not."""
    return rate["low"] is not None


def number(value: float) -> str:
    """A number for people."""
    if value == 0:
        return "0"
    size = abs(value)
    if size >= 1e6:
        return f"{value / 1e6:.3g}M"
    if size >= 1e4:
        return f"{value / 1e3:.3g}k"
    if size >= 1000:
        return f"{value:,.0f}"
    return f"{value:.3g}"


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


def signed(value: float, places: int = 1) -> str:
    """A difference, with its sign."""
    text = f"{value:+.{places}f}"
    return "±0" if not text.strip("+-0.") else text.replace("-", "−")
