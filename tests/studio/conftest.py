"""A studio that runs."""

from __future__ import annotations

from pathlib import Path

import pytest
from started import studio_of


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return tmp_path / "runs"


@pytest.fixture
def studio(root: Path, tmp_path: Path):
    with studio_of(root, tmp_path) as start:
        yield start
