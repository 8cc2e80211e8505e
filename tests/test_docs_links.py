"""Every Markdown page: its links lead somewhere, and the commands that it shows exist."""

from __future__ import annotations

import re
import subprocess
from functools import cache
from pathlib import Path
from urllib.parse import unquote

import pytest
import typer
from typer.core import TyperGroup

from trivium.cli.app import app
from trivium.stages.registry import BUILT_IN

ROOT = Path(__file__).parents[1]
FENCE = re.compile(r"^```(?P<kind>\w*)\n(?P<text>.*?)^```", re.DOTALL | re.MULTILINE)
LINK = re.compile(r"\]\(\s*<?([^)\s>]+)>?[^)]*\)")
CALL = re.compile(r"(?:^|[\s/])trivium((?: +[a-z][a-z-]*)+)")


def pages() -> list[Path]:
    """Every Markdown file that git knows, or, where there is no git, those at their known places."""
    listed = subprocess.run(["git", "ls-files", "-co", "--exclude-standard", "*.md"], cwd=ROOT, capture_output=True,
                            text=True, check=False).stdout.split()
    return [ROOT / name for name in listed] or [*ROOT.glob("*.md"), *ROOT.glob("docs/**/*.md")]


PAGES = pages()


def name_of(page: Path) -> str:
    return page.relative_to(ROOT).as_posix()


def links(page: Path) -> list[str]:
    """The relative links and images of a page, but for what stands in blocks and spans of code."""
    prose = re.sub(r"`[^`]*`", "", FENCE.sub("", page.read_text(encoding="utf-8")))
    return [link for link in LINK.findall(prose) if not re.match(r"[a-z]+:", link)]


@cache
def anchors(page: Path) -> set[str]:
    """The anchors of a page's headings, as forges make them."""
    headings = re.findall(r"^#+ +(.+)$", FENCE.sub("", page.read_text(encoding="utf-8")), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.strip().lower()).replace(" ", "-") for heading in headings}


def fault_of(page: Path, link: str) -> str | None:
    """What is wrong with a relative link, if anything."""
    place, _, anchor = unquote(link).partition("#")
    target = (page.parent / place).resolve() if place else page
    if not target.exists():
        return f"{link}: no such file"
    if anchor and target.suffix == ".md" and anchor not in anchors(target):
        return f"{link}: no such heading"
    return None


def shell_lines(page: Path) -> list[str]:
    """The lines of shell on a page, without comments: of blocks, those that go on after a backslash put together, and
    of spans of code in its text."""
    text = page.read_text(encoding="utf-8")
    blocks = [block["text"] for block in FENCE.finditer(text) if block["kind"] in ("sh", "bash", "")]
    indented = re.findall(r"^    (trivium .*)$", text, re.MULTILINE)
    spans = re.findall(r"`(trivium [^`]*)`", FENCE.sub("", text))
    joined = "\n".join([*blocks, *indented, *spans]).replace("\\\n", " ")
    return [re.sub(r"(^|\s)#.*", "", line) for line in joined.splitlines()]


def commands(page: Path) -> list[list[str]]:
    """The words after ``trivium`` that may be commands: up to the first that is an option or an argument."""
    return [words.split() for line in shell_lines(page) for words in CALL.findall(line)]


def is_command(words: list[str]) -> bool:
    """Whether words begin with a command; of a group, with one of its commands."""
    known = typer.main.get_command(app)
    for word in words:
        if not isinstance(known, TyperGroup) or word not in known.commands:
            break
        known = known.commands[word]
    return type(known) is not TyperGroup  # a group of a class of its own, such as estimate, has a default


def test_there_are_pages_with_links_and_commands():
    assert {"README.md", "docs/design.md", "docs/extend.zh.md"} <= {name_of(page) for page in PAGES}
    assert "docs/extend.md" in links(ROOT / "README.md")
    assert ["run", "recipes"] in commands(ROOT / "README.md")
    assert ["corpus", "build", "my-corpus"] in commands(ROOT / "docs/corpus.md")


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_every_relative_link_leads_to_a_file_and_a_heading_that_exist(page):
    assert not [fault for link in links(page) if (fault := fault_of(page, link))]


def test_a_link_to_nowhere_is_found():
    page = ROOT / "README.md"
    assert fault_of(page, "docs/absent.md") and fault_of(page, "docs/design.md#absent")
    assert not fault_of(page, "docs/rlhf.md#rewards") and not fault_of(page, "docs/report.png")


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_every_command_that_is_shown_exists(page):
    assert not [" ".join(words) for words in commands(page) if not is_command(words)]


@pytest.mark.parametrize(("words", "real"), [
    (["run"], True), (["corpus", "build"], True), (["corpus", "absent"], False), (["absent"], False),
    (["feedback"], False), (["lesson", "line"], True), (["estimate", "memory"], True)])
def test_a_command_that_does_not_exist_is_found(words, real):
    assert is_command(words) == real


@pytest.mark.parametrize("page", ["README.md", "README.zh.md"])
def test_the_table_of_stages_names_every_stage(page):
    table = [line for line in (ROOT / page).read_text(encoding="utf-8").splitlines() if line.startswith("| `")]
    named = {name for line in table for name in re.findall(r"`(\w+)`", line.split("|")[1])}
    assert not set(BUILT_IN) - named


def test_both_languages_of_the_page_on_extending_show_the_same_blocks():
    shown = re.compile(r"(?:<!-- file: \S+ -->\n)?```.*?```", re.DOTALL)
    english, chinese = (shown.findall((ROOT / "docs" / name).read_text(encoding="utf-8"))
                        for name in ("extend.md", "extend.zh.md"))
    assert english == chinese
