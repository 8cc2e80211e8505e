"""Every Markdown page: its links lead somewhere, and the commands that it shows exist."""

from __future__ import annotations

import re
import subprocess
from functools import cache
from itertools import groupby
from pathlib import Path
from urllib.parse import unquote

import pytest
import typer
from typer.core import TyperGroup

from trivium.cli.app import app
from trivium.stages.registry import BUILT_IN

ROOT = Path(__file__).parents[1]
FENCE = re.compile(r"^```(?P<kind>\w*)\n(?P<text>.*?)^```", re.DOTALL | re.MULTILINE)
SHOWN = re.compile(r"(?:<!-- file: \S+ -->\n)?```.*?^```", re.DOTALL | re.MULTILINE)
LINK = re.compile(r"\]\(\s*<?([^)\s>]+)>?[^)]*\)")
CALL = re.compile(r"(?:^|[\s/])trivium((?: +[a-z][a-z-]*)+)")


def pages() -> list[Path]:
    """Every Markdown file that git knows, or, where there is no git, those at their known places."""
    listed = subprocess.run(["git", "ls-files", "-co", "--exclude-standard", "*.md"], cwd=ROOT, capture_output=True,
                            text=True, check=False).stdout.split()
    return [ROOT / name for name in listed] or [*ROOT.glob("*.md"), *ROOT.glob("docs/**/*.md")]


PAGES = pages()
CHINESE = [page for page in PAGES if page.name.endswith(".zh.md")]


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


def english_of(chinese: Path) -> Path:
    """The English page beside a Chinese one."""
    return chinese.with_name(chinese.name.removesuffix(".zh.md") + ".md")


def beginning(page: Path) -> str:
    """What stands below a page's title."""
    return page.read_text(encoding="utf-8").split("\n\n")[1]


def code_of(text: str) -> list[str]:
    """A page's blocks of code and the files' names above them, without comments, which are in the page's language."""
    return [re.sub(r"(^|\s+)#(?!!)[^\n]*", "", block[0]) for block in SHOWN.finditer(text)]


def tables_of(text: str) -> list[int]:
    """How many lines each table of a page has."""
    lines = [line.startswith("|") for line in FENCE.sub("", text).splitlines()]
    return [len(list(group)) for is_row, group in groupby(lines) if is_row]


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


def test_there_are_pages_in_both_languages():
    assert {"README.zh.md", "docs/index.zh.md", "docs/extend.zh.md", "docs/sft.zh.md"} <= set(map(name_of, CHINESE))


@pytest.mark.parametrize("chinese", CHINESE, ids=name_of)
def test_both_languages_of_a_page_link_to_each_other_below_the_title(chinese):
    english = english_of(chinese)
    assert beginning(chinese).startswith(f"[English]({english.name})")
    assert beginning(english).startswith(f"[中文]({chinese.name})")


@pytest.mark.parametrize("chinese", [page for page in CHINESE if page.name != "README.zh.md"], ids=name_of)
def test_both_languages_of_a_page_show_the_same_code_and_tables(chinese):
    """But for the READMEs: the Chinese one is a choice of its own."""
    english, here = (page.read_text(encoding="utf-8") for page in (english_of(chinese), chinese))
    assert code_of(here) == code_of(english)
    assert tables_of(here) == tables_of(english)


def test_another_block_or_table_is_found():
    page = "```sh\ntrivium run  # on\n```\n\n| a |\n|---|\n| b |\n"
    assert code_of(page) == code_of(page.replace("# on", "# 接着"))
    assert code_of(page) != code_of(page.replace("run", "chat")) and code_of(page) != code_of(page + page)
    assert code_of("<!-- file: a.py -->\n" + page) != code_of("<!-- file: b.py -->\n" + page)
    assert tables_of(page) == [3] and tables_of(page + "| c |\n\nd\n\n| e |") == [4, 1]
