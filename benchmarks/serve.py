"""The server under 32 concurrent clients, and under a mixture of good and bad ones for as long as you like.

    python benchmarks/serve.py [--quick] [--model FOLDER]
    python benchmarks/serve.py --soak SECONDS [--model FOLDER]

Starts `trivium serve` on a free port. Clients are threads of this process, which share the machine with the server, and
ask for chat answers of up to 64 tokens one after the other, half of them streamed. Prints p50, p99 and tokens a second;
there is no peer beside it. ``--soak`` mixes in malformed, impatient and impossible requests and prints the server's
memory over time.
"""

from __future__ import annotations

import argparse
import json
import random
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path
from typing import Any

import common
import httpx


def small_model(place: Path) -> Path:
    """The benchmark's 6.8M Llama with random weights and a tokenizer, when no model is named."""
    import torch

    from trivium.model import LanguageModel, ModelConfig, folder
    from trivium.tokenizer import train
    from trivium.tokenizer.chat import ChatTokenizer
    tokenizer = ChatTokenizer(
        train.train((row["prompt"] + row["completion"] for row in common.demonstrations(Path("/nowhere"), 3000)), 4096))
    model = LanguageModel(
        ModelConfig(vocab_size=4096, hidden_size=256, intermediate_size=688, num_layers=6, num_heads=4, num_kv_heads=4,
                    head_dim=64, max_positions=1024, qk_norm=False, tie_embeddings=False)).initialise(0)
    with torch.no_grad():
        model.lm_head.weight[:6] = 0
    place.mkdir(exist_ok=True)
    folder.save(model, place, {"eos": tokenizer.end_id, "pad": tokenizer.pad_id})
    tokenizer.save(place)
    return place


def start(model: Path, *more: str) -> tuple[subprocess.Popen[str], str]:
    """A server, and its address once it listens."""
    process = subprocess.Popen(
        [sys.executable, "-m", "trivium.cli.app", "serve", f"model={model}", "--port", "0",
         *([] if "--feedback" in more else ["--feedback", ""]), *more],
        stdout=subprocess.PIPE, text=True)
    assert process.stdout
    return process, next(line for line in process.stdout if line.startswith("chat at ")).split()[2]


def body(seed: int, tokens: int = 64, **more: Any) -> dict[str, Any]:
    """A chat request."""
    return {
        "model": "model", "messages": [{"role": "user", "content": f"Tell me about number {seed}, please."}],
        "max_tokens": tokens, "seed": seed, **more
    }


def ask(http: httpx.Client, seed: int) -> tuple[float, float, int]:
    """Seconds to the first token (or the whole answer), seconds to the end, and tokens of one request."""
    begun = time.perf_counter()
    if seed % 2:
        answer = http.post("/v1/chat/completions", json=body(seed))
        answer.raise_for_status()
        end = time.perf_counter() - begun
        return end, end, answer.json()["usage"]["completion_tokens"]
    first, tokens = 0.0, 0
    with http.stream("POST", "/v1/chat/completions", json=body(seed, stream=True,
                                                               stream_options={"include_usage": True})) as answer:
        answer.raise_for_status()
        for line in answer.iter_lines():
            if line.startswith("data: {"):
                first = first or time.perf_counter() - begun
                tokens = ((json.loads(line[6:]).get("usage") if '"usage":{' in line else None)
                          or {}).get("completion_tokens", tokens)
    return first, time.perf_counter() - begun, tokens


def load(address: str, clients: int, each: int) -> dict[str, float]:
    """What ``clients`` at once see, each asking ``each`` times."""
    seen: list[tuple[float, float, int]] = []

    def client(number: int) -> None:
        with httpx.Client(base_url=address, timeout=120) as http:
            for turn in range(each):
                seen.append(ask(http, number * 1000 + turn * 3 + number % 2))

    threads = [threading.Thread(target=client, args=(number,)) for number in range(clients)]
    begun = time.perf_counter()
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    seconds = time.perf_counter() - begun
    ends = sorted(end for _, end, _ in seen)
    return {
        "clients": clients, "requests": len(seen), "tokens_per_second": sum(tokens for _, _, tokens in seen) / seconds,
        "p50_seconds": statistics.median(ends), "p99_seconds": ends[min(len(ends) - 1, int(len(ends) * 0.99))],
        "requests_per_second": len(seen) / seconds,
        "first_token_p50_seconds": statistics.median(first for first, end, _ in seen if first < end)
    }


def resident(pid: int) -> float:
    """A process's memory, in MiB."""
    line = next(line for line in Path(f"/proc/{pid}/status").read_text().splitlines() if line.startswith("VmRSS"))
    return int(line.split()[1]) / 1024


def soak(address: str, pid: int, seconds: float) -> dict[str, Any]:
    """Good and bad requests from 8 clients for a while; memory every tenth of it, and what the server answered."""
    end, statuses, lock = time.time() + seconds, {}, threading.Lock()
    bad: list[dict[str, Any]] = [{"content": b"{"}, {"content": b"\xff\xfe"}, {"content": b"x" * 2_000_000}, {
        "json": body(1, temperature=-1)
    }, {"json": body(1, stop=["x"] * 1000)}, {"json": body(1) | {"model": "nobody"}}, {"json": body(1, 10**6)},
                                 {"json": body(1, messages=[{"role": "user", "content": "long " * 5000}])}]

    def client(number: int) -> None:
        chance = random.Random(number)
        with httpx.Client(base_url=address, timeout=60, headers={"content-type": "application/json"}) as http:
            while time.time() < end:
                seed, kind = chance.randrange(10**6), chance.random()
                try:
                    if kind < 0.4:
                        ask(http, seed)
                        status = 200
                    elif kind < 0.6:  # goes away in the middle
                        with http.stream("POST", "/v1/chat/completions", json=body(seed, 400, stream=True)) as answer:
                            for _ in zip(answer.iter_lines(), range(4)):
                                pass
                        status = 0
                    else:
                        status = http.post(chance.choice(["/v1/chat/completions", "/v1/completions", "/v1/x"]),
                                           **chance.choice(bad)).status_code
                except httpx.HTTPStatusError as error:
                    status = error.response.status_code
                except httpx.TransportError:  # the server closed while a large body was on its way
                    status = -1
                with lock:
                    statuses[status] = statuses.get(status, 0) + 1

    threads = [threading.Thread(target=client, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    memory = []
    for _ in range(10):
        time.sleep(seconds / 10)
        memory.append(round(resident(pid), 1))
        print(f"{memory[-1]:8.1f} MiB  {dict(sorted(statuses.items()))}", file=sys.stderr, flush=True)
    for thread in threads:
        thread.join()
    return {
        "seconds": seconds, "memory_mib": memory,
        "statuses": {str(status): count
                     for status, count in sorted(statuses.items())}
    }


def main() -> None:
    """Start, load, stop."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--soak", type=float, help="seconds of good and bad requests instead")
    parser.add_argument("--model", type=Path, help="a model's folder; a 6.8M Llama of random weights when left out")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        process, address = start(options.model or small_model(Path(scratch)))
        try:
            load(address, 2, 1)  # warms up
            if options.soak:
                print(
                    json.dumps({
                        "benchmark": "serve", "soak": soak(address, process.pid, options.soak),
                        "machine": common.machine()
                    }))
                return
            rows = [load(address, clients, 2 if options.quick else 6) for clients in (1, 8, 32)]
            for row in rows:
                print("  ".join(f"{name} {value:,.3g}" for name, value in row.items()))
            print(json.dumps({"benchmark": "serve", "results": rows, "machine": common.machine()}))
        finally:
            process.terminate()
            process.wait(30)


if __name__ == "__main__":
    main()
