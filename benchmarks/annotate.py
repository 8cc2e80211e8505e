"""The annotation app under 50 annotators: ``python benchmarks/annotate.py``.

The real server in a process of its own, over a SQLite project with 2,000 prompts of 4 responses, where every answer is
on the disk before it is acknowledged; and 50 annotators in another process, over HTTP. The two share two cores. An
annotator takes the page of the next comparison, thinks, and answers; the lead's dashboard asks for its figures every
three seconds meanwhile. Cases: a page and an answer, each annotator thinking for two seconds on average (much faster
than people are); and without thinking, as fast as the server goes. There is no peer here: "theirs" is the goal, 100 ms
at the 95th percentile.
"""

from __future__ import annotations

import asyncio
import json
import os
import platform
import random
import re
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from common import Result, arguments, report

ANNOTATORS, GOAL = 50, 100.0


class Connection:
    """One HTTP connection, kept open; just enough of a client not to cost more than the server does."""

    def __init__(self, port: int, cookie: str, csrf: str) -> None:
        self.port, self.head = port, f"host: 127.0.0.1:{port}\r\ncookie: {cookie}\r\nx-csrf-token: {csrf}\r\n"

    async def open(self) -> None:
        self.reader, self.writer = await asyncio.open_connection("127.0.0.1", self.port, limit=1 << 22)

    async def ask(self, method: str, path: str, body: str = "") -> tuple[int, str, float]:
        """Status, text and milliseconds."""
        data = body.encode()
        extra = f"content-type: application/json\r\ncontent-length: {len(data)}\r\n" if method == "POST" else ""
        started = time.perf_counter()
        self.writer.write(f"{method} {path} HTTP/1.1\r\n{self.head}{extra}\r\n".encode() + data)
        head = (await self.reader.readuntil(b"\r\n\r\n")).decode()
        length = re.search(r"content-length: (\d+)", head)
        assert length, head
        text = (await self.reader.readexactly(int(length.group(1)))).decode()
        return int(head.split()[1]), text, 1000 * (time.perf_counter() - started)


async def annotator(connection: Connection, until: float, think: float, times: dict[str, list[float]],
                    seed: int) -> None:
    rng = random.Random(seed)
    await connection.open()
    await asyncio.sleep(rng.uniform(0, think))
    while time.perf_counter() < until:
        status, page, took = await connection.ask("GET", "/compare")
        times["page"].append(took)
        work = re.search(r'data-work="(\d+)"', page)
        if status != 200 or not work:
            raise SystemExit(f"no work left, or status {status}: the project is too small for this run")
        await asyncio.sleep(rng.uniform(0.5, 1.5) * think)
        order = rng.sample(range(4), 4)
        body = json.dumps({
            "ranking": [[place] for place in order], "ratings": [rng.randint(1, 7) for _ in range(4)], "seconds": think
        })
        status, text, took = await connection.ask("POST", f"/api/work/{work.group(1)}/judgement", body)
        if status != 200:
            raise SystemExit(f"status {status}: {text}")
        times["answer"].append(took)
    connection.writer.close()


async def watcher(connection: Connection, until: float, times: dict[str, list[float]]) -> None:
    await connection.open()
    while time.perf_counter() < until:
        times["dashboard"].append((await connection.ask("GET", "/api/lead/figures"))[2])
        await asyncio.sleep(3)
    connection.writer.close()


def load(port: int, sessions: list[tuple[str, str]], think: float, seconds: float) -> dict[str, list[float]]:
    times: dict[str, list[float]] = {"page": [], "answer": [], "dashboard": []}

    async def everybody() -> None:
        until = time.perf_counter() + seconds
        lead, *people = [Connection(port, *session) for session in sessions]
        await asyncio.gather(watcher(lead, until, times),
                             *(annotator(one, until, think, times, seed) for seed, one in enumerate(people)))
    asyncio.run(everybody())
    return times


def main() -> None:
    options = arguments(__doc__ or "")
    if options.worker:
        given = json.loads(options.worker)
        print(json.dumps(load(given["port"], given["sessions"], given["think"], given["seconds"])))
        return
    os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[:2])
    from trivium.feedback.accounts import Accounts
    from trivium.feedback.store import Store
    from trivium.feedback.web import COOKIE
    results, speeds = [], {}
    with tempfile.TemporaryDirectory() as folder:
        project = Path(folder) / "project"
        with Store(project, create=True) as store:
            store.change_settings(overlap=50)
            texts = [
                "A response of a few sentences, as long as answers to everyday questions are. " * n
                for n in (2, 4, 6, 8)
            ]
            store.add_items({
                "prompt": f"Question {i}: what would you do?",
                "responses": [f"{i}.{j} {text}" for j, text in enumerate(texts)]
            } for i in range(2000))
            desk, people = Accounts(store), [
                store.add_person("lead", "lead"), *(store.add_person(f"annotator {i}") for i in range(ANNOTATORS))
            ]
            tokens = [desk.open_session(person) for person in people]
            sessions = [(f"{COOKIE}={token}", desk.csrf(token)) for token in tokens]
        server = subprocess.Popen([sys.executable, "-m", "trivium.cli.app", "annotate",
                                   str(project), "--port", "0"], stdout=subprocess.PIPE, text=True,
                                  env={**os.environ, "PYTHONUNBUFFERED": "1"})
        try:
            assert server.stdout is not None
            port = next(
                int(found.group(1)) for line in server.stdout
                if (found := re.search(r"http://127\.0\.0\.1:(\d+) ", line)))
            for think in (2.0, 0.0):
                rounds: list[dict[str, list[float]]] = []
                for _ in range(1 if options.quick else options.rounds):
                    seconds = 12.0 if options.quick else 25.0
                    given = json.dumps({"port": port, "sessions": sessions, "think": think, "seconds": seconds})
                    said = subprocess.run([sys.executable, __file__, "--worker", given], stdout=subprocess.PIPE,
                                          text=True, check=True)
                    rounds.append(json.loads(said.stdout))
                    speeds[think] = sum(len(times) for times in rounds[-1].values()) / seconds
                for kind in ("page", "answer"):
                    p95 = statistics.median(statistics.quantiles(times[kind], n=20)[-1] for times in rounds)
                    p50 = statistics.median(statistics.median(times[kind]) for times in rounds)
                    name = "thinking 2 s" if think else "without thinking"
                    print(
                        f"{name}: {kind}: median {p50:.1f} ms, p95 {p95:.1f} ms, worst "
                        f"{max(max(times[kind]) for times in rounds):.0f} ms, {speeds[think]:.0f} requests/s",
                        file=sys.stderr)
                    results.append(
                        Result(f"{kind}, p95, 50 annotators {name}", p95, GOAL, "ms", goal=1.0 if think else None,
                               lower_is_better=True))
        finally:
            server.terminate()
            server.wait(20)
    print(f"server and annotators share 2 cores of {platform.processor() or platform.machine()}", file=sys.stderr)
    report("annotate", results)


if __name__ == "__main__":
    main()
