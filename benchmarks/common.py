"""What the benchmarks share: both sides run in turn in processes of their own, medians are compared, the last line is
JSON.

A worker is this package's or a peer's script, called with a JSON object of options; it prints one JSON object as its
last line. Peers live in an environment of their own under ``benchmarks/.envs/``, which is made when it is missing.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import statistics
import subprocess
import sys
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent
TORCH = os.environ.get("TRIVIUM_TORCH", "torch==2.13.0")

ALLOCATOR = {
    "MALLOC_MMAP_THRESHOLD_": str(1 << 30), "MALLOC_TRIM_THRESHOLD_": str((1 << 31) - 1),
    "MALLOC_TOP_PAD_": str(64 << 20)
}
"""What makes glibc keep large buffers: given to a peer in its tuned cases."""


@dataclass
class Result:
    """One line of the table."""

    case: str
    ours: float
    theirs: float
    unit: str
    goal: float | None = None
    lower_is_better: bool = False

    @property
    def ratio(self) -> float:
        """How many times better we are."""
        return self.theirs / self.ours if self.lower_is_better else self.ours / self.theirs


def arguments(description: str, only: Sequence[str] = (), rounds: int = 3) -> argparse.Namespace:
    """The options of every benchmark; ``only`` names parts of it that can be run alone, ``rounds`` is how many there
    are by default."""
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument("--quick", action="store_true", help="one short round")
    parser.add_argument("--rounds", type=int, default=rounds, help="how often both sides are run in turn")
    parser.add_argument("--data", type=Path, default=HERE.parent.parent / "shared/data",
                        help="folder with gsm8k/train.jsonl")
    parser.add_argument("--only", choices=only, help="run this part alone")
    parser.add_argument("--worker", help=argparse.SUPPRESS)
    return parser.parse_args()


def peers(name: str, *packages: str) -> str:
    """The Python of an environment with ``packages``, made when it is missing; what it lacks of them is installed."""
    folder = HERE / ".envs" / name
    python, ready = folder / "bin/python", folder / "ready"
    if not ready.exists():
        print(f"making {folder}", file=sys.stderr)
        subprocess.run([sys.executable, "-m", "venv", folder], check=True)
        subprocess.run([python, "-m", "pip", "install", "-q", TORCH], check=True)
        ready.touch()
    if missing := sorted({*packages} - {*ready.read_text().splitlines()}):
        print(f"installing {', '.join(missing)} there", file=sys.stderr)
        subprocess.run([python, "-m", "pip", "install", "-q", *missing], check=True)
        ready.write_text("\n".join(sorted({*packages, *ready.read_text().splitlines()})))
    return str(python)


def call(script: str | Path, options: dict[str, Any], python: str = sys.executable,
         environment: dict[str, str] | None = None) -> dict[str, Any]:
    """Run a worker; the JSON object that it prints last."""
    done = subprocess.run([python, str(script), "--worker", json.dumps(options)], capture_output=True, text=True,
                          check=False, env=os.environ | (environment or {}))
    if done.returncode:
        raise SystemExit(f"{script} {options} failed:\n{done.stderr[-3000:]}")
    found: dict[str, Any] = json.loads(done.stdout.strip().splitlines()[-1])
    return found


def in_turn(sides: dict[str, Callable[[], float]], rounds: int) -> dict[str, float]:
    """The median of each side over ``rounds`` in which every side has its turn."""
    seen: dict[str, list[float]] = {name: [] for name in sides}
    for number in range(rounds):
        for name, run in sides.items():
            seen[name].append(run())
            print(f"round {number + 1}  {name:28} {seen[name][-1]:,.1f}", file=sys.stderr, flush=True)
    return {name: statistics.median(values) for name, values in seen.items()}


def report(name: str, results: list[Result], **more: Any) -> None:
    """The table and the JSON line."""
    width = max(len(result.case) for result in results)
    print(f"{'case':{width}}  {'ours':>12}  {'theirs':>12}  {'ratio':>6}  {'goal':>5}  unit")
    for result in results:
        goal = "" if result.goal is None else f"{result.goal:g}"
        print(
            f"{result.case:{width}}  {result.ours:12,.1f}  {result.theirs:12,.1f}  {result.ratio:6.2f}  {goal:>5}  "
            f"{result.unit}"
        )
    rows = [{**asdict(result), "ratio": result.ratio} for result in results]
    print(json.dumps({"benchmark": name, "results": rows, "machine": machine(), **more}))


def machine() -> dict[str, Any]:
    """What the figures were measured on."""
    model = next((line.split(":", 1)[1].strip()
                  for line in Path("/proc/cpuinfo").read_text().splitlines() if line.startswith("model name")),
                 platform.processor())
    return {"cpu": model, "cores": len(os.sched_getaffinity(0)), "python": platform.python_version()}


def demonstrations(data: Path, count: int) -> list[dict[str, str]]:
    """Questions and worked answers: GSM8K's where they are, else the embedded world's."""
    path = data / "gsm8k/train.jsonl"
    if path.exists():
        with open(path, encoding="utf-8") as file:
            rows = [json.loads(line) for line, _ in zip(file, range(count))]
        return [{"prompt": f"Question: {row['question']}\nAnswer:", "completion": " " + row["answer"]} for row in rows]
    from trivium.world.tasks import demonstrations as of_the_world
    from trivium.world.town import Town
    return [{"prompt": row["messages"][0]["content"], "completion": row["messages"][1]["content"]}
            for row in of_the_world(Town(0), 0, count)]
