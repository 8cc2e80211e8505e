"""One small town and what is written and asked there, made once for all tests of the world."""

from __future__ import annotations

from typing import Any

import pytest

from trivium.world.documents import Document, documents
from trivium.world.tasks import prompts
from trivium.world.town import Town

SEED = 11


@pytest.fixture(scope="session")
def town() -> Town:
    return Town(SEED)


@pytest.fixture(scope="session")
def clean(town: Town) -> list[Document]:
    return documents(town, SEED, 1_000_000)


@pytest.fixture(scope="session")
def evaluation(town: Town) -> list[dict[str, Any]]:
    return prompts(town, SEED, 700, "evaluation")


@pytest.fixture(scope="session")
def preference(town: Town) -> list[dict[str, Any]]:
    return prompts(town, SEED, 1500, "preference")
