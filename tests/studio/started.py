"""A recipe that is quick and learns, and waiting for what a studio does."""

from __future__ import annotations

import contextlib
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import httpx

from trivium.status import read_status

RECIPE = """name: NAME
seed: 0
stages:
  world: {size: {animals: 4, foods: 4, people: 4, places: 4, documents_bytes: 200000, demonstrations: 20,
    preference_prompts: 8, evaluation_prompts: 8}}
  corpus: {documents: [world], settings: {language: {enabled: false}}}
  tokenizer: {vocab_size: 400}
  tokens:
  pretrain:
    model: {hidden_size: 32, intermediate_size: 64, num_layers: 1, num_heads: 2, num_kv_heads: 2, head_dim: 16}
    length: 64
    rows: 2
    epochs: EPOCHS
"""


def recipe(name: str, epochs: float = 1) -> str:
    """The text of a recipe."""
    return RECIPE.replace("NAME", name).replace("EPOCHS", str(epochs))


def wait_for(look, seconds: float = 120, every: float = 0.1):
    """What ``look`` gives as soon as it gives anything."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        if found := look():
            return found
        time.sleep(every)
    raise AssertionError("it did not happen in time")


def state_of(client: httpx.Client, name: str) -> str:
    """A run's state; empty where there is none."""
    answer = client.get(f"/api/runs/{name}")
    return answer.json()["state"] if answer.status_code == 200 else ""


@contextlib.contextmanager
def studio_of(root: Path, here: Path):
    """Starts the studio as the command does; gives a client of it. Options are the command's. At the end the runs that
    are still under way end too, also after a test that failed: they outlive a studio."""
    begun = []

    def start(*options: str, **environment: str) -> httpx.Client:
        process = subprocess.Popen([sys.executable, "-m", "trivium.cli", "studio", str(root), "--port", "0", *options],
                                   stdout=subprocess.PIPE, text=True, cwd=here, env=os.environ | environment)
        line = process.stdout.readline()
        client = httpx.Client(base_url=re.search(r"http://\S+", line)[0].replace("0.0.0.0", "127.0.0.1"), timeout=60)
        client.process = process
        begun.append(client)
        return client

    try:
        yield start
    finally:
        for client in begun:
            client.close()
            client.process.send_signal(signal.SIGTERM)
            client.process.wait(30)
            client.process.stdout.close()
        for file in root.glob("*/.work/status.json"):
            status = read_status(file.parents[1])
            if status and status["state"] == "running" and status["process"] != os.getpid():
                with contextlib.suppress(ProcessLookupError):
                    os.kill(status["process"], signal.SIGKILL)
