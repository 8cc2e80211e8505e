"""A studio that runs."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
from pathlib import Path

import httpx
import pytest

@pytest.fixture
def root(tmp_path: Path) -> Path:
    return tmp_path / "runs"


@pytest.fixture
def studio(root: Path, tmp_path: Path):
    """Starts the studio as the command does; its address. Options are the command's."""
    begun = []

    def start(*options: str, **environment: str) -> httpx.Client:
        process = subprocess.Popen([sys.executable, "-m", "trivium.cli", "studio", str(root), "--port", "0", *options],
                                   stdout=subprocess.PIPE, text=True, cwd=tmp_path, env=os.environ | environment)
        begun.append(process)
        line = process.stdout.readline()
        address = re.search(r"http://\S+", line)[0].replace("0.0.0.0", "127.0.0.1")
        client = httpx.Client(base_url=address, timeout=60)
        client.process = process
        return client

    yield start
    for process in begun:
        process.send_signal(signal.SIGTERM)
        process.wait(30)
