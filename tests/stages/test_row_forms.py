"""Every form of rows that docs/formats.md lists, read from the page, imported, and saying what all of them say."""

from __future__ import annotations

import json
import re
from pathlib import Path
from types import SimpleNamespace

import pytest

from trivium.progress import Progress
from trivium.stages.data.imports import Imports

PAGE = (Path(__file__).parents[2] / "docs/formats.md").read_text(encoding="utf-8")
ASKED, GOOD, WORSE = "Which sinks?", "Lead.", "Cork."


def rows_on_the_page(kind: str) -> list[tuple[str, str]]:
    """``(form, JSON)`` of the table below the paragraph that begins with ``kind`` in bold."""
    section = PAGE.split(f"\n**{kind}** (`imports.{kind.lower()}`)")[1].split("\n| form | a row |\n|---|---|\n")[1]
    return re.findall(r"^\| (.+?) \| `(.+)` \|$", section.split("\n\n")[0], re.MULTILINE)


def imported(folder, settings=None, **files):
    """The files that a stage `imports` leaves of rows, by name, and what it says."""
    said: list[str] = []
    progress = Progress(quiet=True)
    progress.say = said.append
    inputs: dict[str, object] = {"demonstrations": [], "comparisons": [], "thumbs": []}
    for kind, rows in files.items():
        path = rows if isinstance(rows, Path) else folder / f"{kind}.jsonl"
        if not isinstance(rows, Path):
            path.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows), encoding="utf-8")
        inputs[kind] = {kind: path}
    out = folder / "out"
    out.mkdir(exist_ok=True)
    given = {kind: {name: str(path) for name, path in place.items()} for kind, place in inputs.items()
             if isinstance(place, dict)}
    sources = dict.fromkeys(given, settings) if settings else {}
    Imports.model_validate({**given, "sources": sources}).run(
        SimpleNamespace(folder=out, progress=progress, seed=0, inputs=inputs))
    return {path.relative_to(out).with_suffix("").as_posix(): [
        json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()] for path in out.rglob("*.jsonl")
    }, said


@pytest.mark.parametrize(("form", "row"), rows_on_the_page("Demonstrations"))
def test_demonstrations_of_every_form(tmp_path, form, row):
    given = json.loads(row)
    found, said = imported(tmp_path, demonstrations=[given])
    assert found["rejects"] == [] and not any("not used" in line for line in said)
    if form.startswith("a text alone"):
        assert found["documents/texts"] == [{"text": "Lead sinks."}] and found["demonstrations"] == []
        return
    if form.startswith("a prompt alone"):
        prompts = found["prompts"] + found["evaluation"]
        assert [row["prompt"] for row in prompts] == [[{"role": "user", "content": ASKED}]]
        return
    [made] = found["demonstrations"]
    messages = made["messages"]
    asked = [message["content"] for message in messages if message["role"] == "user"]
    assert asked[-1] == (f"{ASKED}\n\nLead is heavy." if form == "Dolly" else ASKED)
    assert messages[-1]["content"] == (
        "Lead weighs 11 kg.\nThe answer is 11." if form.startswith("GSM8K") else GOOD)
    assert (messages[0] == {"role": "system", "content": "Be brief."}) == ("Be brief." in row)
    assert len(asked) == 1 + ("Which floats?" in row)
    if "tools" in form or "tool calls" in form:
        call = {"type": "function", "function": {"name": "weigh", "arguments": {"of": "lead"}}}
        called = messages[1]["tool_calls"][0]
        assert messages[1]["content"] == "" and {**called, "id": 1} == {**call, "id": 1}
        assert messages[2]["role"] == "tool" and messages[2]["content"] == "11 kg"
        assert made["tools"][0]["type"] == "function" and made["tools"][0]["function"]["name"] == "weigh"
    else:
        assert "tools" not in made
    assert ("reasoning_content" in messages[-1]) == ("reasoning" in form)
    not_learned = [message.get("train") for message in messages if message["role"] == "assistant"][:-1]
    assert (False in not_learned) == ("not learned" in form or "the same (Axolotl" in form)


@pytest.mark.parametrize(("form", "row"), rows_on_the_page("Comparisons"))
def test_comparisons_of_every_form(tmp_path, form, row):
    found, said = imported(tmp_path, comparisons=[json.loads(row)])
    assert found["rejects"] == [] and not any("not used" in line for line in said)
    [made] = found["comparisons"]
    ranked = [made["responses"][place].strip() for group in made["ranking"] for place in group]
    assert ranked == [GOOD, WORSE] and made["prompt"][-1] == {"role": "user", "content": ASKED}
    assert (made["prompt"][0] == {"role": "system", "content": "Be brief."}) == ("Be brief." in row)
    assert len(made["prompt"]) == 1 + ("Be brief." in row) + 2 * ("Which floats?" in row)


@pytest.mark.parametrize(("form", "row"), rows_on_the_page("Thumbs"))
def test_thumbs_of_every_form(tmp_path, form, row):
    found, said = imported(tmp_path, thumbs=[json.loads(row)])
    assert found["rejects"] == [] and not any("not used" in line for line in said)
    [made] = found["thumbs"]
    assert made["prompt"] == [{"role": "user", "content": ASKED}]
    assert made["completion"].replace("\n", "") == GOOD and made["label"] is True
    assert made["split"] in ("train", "heldout")
