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


@pytest.fixture
def opened(chromium, studio, root):
    """Opens a page of the studio; at the end, whatever the browser complained about fails the test."""
    complaints, contexts = [], []
    client = studio()

    def open_page(path="/", **options):
        context = chromium.new_context(**{"locale": "en-US", "color_scheme": "light", **options})
        contexts.append(context)
        page = context.new_page()
        page.set_default_timeout(60_000)
        page.on("console", lambda message: complaints.append(message.text)
                if message.type in ("error", "warning") else None)
        page.on("pageerror", lambda error: complaints.append(str(error)))
        page.goto(str(client.base_url.join(path)))
        page.wait_for_selector("h1")
        return page

    open_page.client, open_page.complaints = client, complaints
    yield open_page
    for context in contexts:
        context.close()
    assert complaints == []
