"""Counters in Prometheus's text format."""

from __future__ import annotations

import threading
from collections import defaultdict
from collections.abc import Mapping

BUCKETS = (0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60)

Labels = tuple[tuple[str, str], ...]


class Metrics:
    """What has happened since the start. Label values come from a fixed set, never from clients."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._help: dict[str, tuple[str, str]] = {}
        self._values: dict[str, dict[Labels, float]] = defaultdict(lambda: defaultdict(float))
        self._seconds: dict[str, dict[Labels, list[float]]] = defaultdict(
            lambda: defaultdict(lambda: [0.0] * (len(BUCKETS) + 2)))

    def describe(self, name: str, kind: str, text: str) -> None:
        """Announce a metric: counter, gauge or histogram."""
        self._help[name] = (kind, text)

    def add(self, name: str, value: float = 1, **labels: str) -> None:
        """Count."""
        with self._lock:
            self._values[name][tuple(sorted(labels.items()))] += value

    def observe(self, name: str, seconds: float, **labels: str) -> None:
        """Put a duration into a histogram."""
        with self._lock:
            bins = self._seconds[name][tuple(sorted(labels.items()))]
            for place, bound in enumerate(BUCKETS):
                bins[place] += seconds <= bound
            bins[-2] += 1
            bins[-1] += seconds

    def text(self, gauges: Mapping[str, Mapping[Labels, float]]) -> str:
        """Everything, with gauges as they are now."""
        lines: list[str] = []
        with self._lock:
            for name, (kind, about) in self._help.items():
                lines += [f"# HELP {name} {about}", f"# TYPE {name} {kind}"]
                for labels, value in (gauges.get(name) or self._values.get(name) or {}).items():
                    lines.append(f"{name}{_braces(labels)} {value:g}")
                for labels, bins in self._seconds.get(name, {}).items():
                    for bound, value in zip((*map(str, BUCKETS), "+Inf"), bins, strict=False):
                        lines.append(f"{name}_bucket{_braces((*labels, ('le', bound)))} {value:g}")
                    lines += [
                        f"{name}_count{_braces(labels)} {bins[-2]:g}", f"{name}_sum{_braces(labels)} {bins[-1]:g}"
                    ]
        return "\n".join(lines) + "\n"


def _braces(labels: Labels) -> str:
    def escaped(value: str) -> str:
        return value.replace("\\", r"\\").replace('"', r"\"").replace("\n", r"\n")
    return "{" + ",".join(f'{name}="{escaped(value)}"' for name, value in labels) + "}" if labels else ""
