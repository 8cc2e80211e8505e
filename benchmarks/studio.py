"""How quick the studio's list and live curves stay: 10,000 runs, three of them live, and 50 people who look.

    python benchmarks/studio.py [--runs 10000] [--people 50] [--seconds 20]

Each person asks for the list every two seconds, as the page does, and searches in it; three watch a run whose log grows
ten times a second. Printed: the median, the 95th and the worst of the list's answers, and how long a row of a log takes
from the file to whoever watches. The goal is 100 ms for the 95th, and 2 s for a row.
"""

from __future__ import annotations

import argparse
import json
import re
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

import common
import httpx


def fill(root: Path, count: int) -> None:
    """Runs that have finished."""
    told = {"state": "finished", "error": "", "process": 1, "begun": 1.0, "ended": 2.0, "recipe": "", "overrides": [],
            "said": [], "stages": {"sft": {"state": "finished"}}}
    for number in range(count):
        folder = root / f"run-{number}" / ".work"
        folder.mkdir(parents=True)
        (folder / "status.json").write_text(json.dumps(told))


def grow(log: Path, ended: threading.Event) -> None:
    """Write a row ten times a second, with the time."""
    log.parent.mkdir(parents=True)
    for step in range(10**6):
        if ended.wait(0.1):
            return
        with open(log, "a") as file:
            file.write(json.dumps({"step": step, "loss": 1.0, "at": time.time()}) + "\n")


def look(address: str, begin: float, ended: threading.Event, taken: list[float]) -> None:
    """One person who looks at the list."""
    with httpx.Client(base_url=address, timeout=30) as client:
        ended.wait(begin)
        while not ended.is_set():
            begun = time.perf_counter()
            client.get("/api/runs", params={"text": "7" if len(taken) % 5 == 0 else ""}).raise_for_status()
            taken.append(time.perf_counter() - begun)
            ended.wait(2)


def watch(address: str, name: str, ended: threading.Event, taken: list[float]) -> None:
    """One person who watches a run."""
    with httpx.Client(base_url=address, timeout=30) as client, client.stream("GET", f"/api/runs/{name}/events") as live:
        seen = 0
        for line in live.iter_lines():
            if ended.is_set():
                return
            if line.startswith('data: {"stage"'):
                rows = json.loads(line.removeprefix("data: "))["rows"]
                now = time.time()
                taken += [now - row["at"] for row in rows] if seen else []
                seen += 1


def share(values: list[float], part: float) -> float:
    """A quantile."""
    return sorted(values)[min(len(values) - 1, int(part * len(values)))]


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name, default in (("runs", 10_000), ("people", 50), ("seconds", 20)):
        parser.add_argument(f"--{name}", type=int, default=default)
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        root, ended = Path(folder), threading.Event()
        fill(root, given.runs)
        server = subprocess.Popen([sys.executable, "-m", "trivium.cli", "studio", folder, "--port", "0"],
                                  stdout=subprocess.PIPE, text=True)
        try:
            assert server.stdout
            address = re.search(r"http://\S+", server.stdout.readline())[0]  # type: ignore[index]
            httpx.get(address + "/api/runs", timeout=120)
            lists: list[float] = []
            rows: list[float] = []
            logs = [root / f"live-{number}/.work/sft-0123456789ab/artifact/log.jsonl" for number in range(3)]
            threads = [threading.Thread(target=grow, args=(log, ended)) for log in logs]
            for thread in threads:
                thread.start()
            time.sleep(1)
            threads += [threading.Thread(target=watch, args=(address, f"live-{number}", ended, rows))
                        for number in range(3)]
            threads += [threading.Thread(target=look, args=(address, 2 * number / given.people, ended, lists))
                        for number in range(given.people)]
            for thread in threads[3:]:
                thread.start()
            time.sleep(given.seconds)
            ended.set()
            for thread in threads:
                thread.join(30)
        finally:
            server.terminate()
            server.wait()
    here = common.machine()
    print(f"{here['cpu']}, {here['cores']} cores; {given.runs:,} runs, {given.people} people, 3 live")
    for what, values in (("the list", lists), ("a row, from file to page", rows)):
        print(f"{what}: median {share(values, 0.5) * 1000:.0f} ms, 95th {share(values, 0.95) * 1000:.0f} ms, worst "
              f"{max(values) * 1000:.0f} ms, n {len(values)}")


if __name__ == "__main__":
    main()
