"""Errors marked in parts of an answer."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from annotating import Served
from hypothesis import given
from hypothesis import strategies as st
from playwright.sync_api import expect

from trivium.errors import TriviumError
from trivium.feedback.agreement import overlap
from trivium.feedback.dashboard import Dashboard
from trivium.feedback.exports import export
from trivium.feedback.store import Store
from trivium.feedback.web.places import shown, stored

Visit = Callable[..., Any]
KINDS = ("wrong fact", "off topic")
ANSWER = "A stone 🪨 sinks.\r\nLead floats.\r\nThe end."
OTHER = "No."


def mark(text: str, part: str, kind: str = KINDS[0]) -> dict[str, Any]:
    start = text.index(part)
    return {"start": start, "end": start + len(part), "kind": kind}


def prepared(store: Store) -> None:
    store.change_settings(error_kinds=[*KINDS, " wrong fact ", ""], known_share=0, repeat_share=0)
    store.add_items([{"id": "x", "prompt": "What sinks?", "responses": [ANSWER, OTHER]}])


def test_marks_are_stored_corrected_exported_and_counted(store: Store) -> None:
    prepared(store)
    assert store.settings.error_kinds == KINDS
    anna, berta = store.add_person("anna"), store.add_person("berta")
    task = store.next_work(anna)
    assert task
    said = [[mark(ANSWER, "sinks", KINDS[1]), mark(ANSWER, "Lead floats")], []]
    store.judge(task.id, anna, [[0], [1]], [2, 1], marks=[said[0][::-1], []])
    (row,) = export(store, "rankings")
    assert row["marks"] == said
    assert [(one["text"], one["kind"], one["annotator"]) for one in export(store, "marks")] == [
        ("sinks", "off topic", "anna"), ("Lead floats", "wrong fact", "anna")]
    other = store.next_work(berta)
    assert other
    store.judge(other.id, berta, [[0], [1]], [2, 1], marks=[[mark(ANSWER, "floats")], [mark(OTHER, "No")]])
    figures = Dashboard(store).figures()
    # anna marks 5 + 11 characters, berta 6 + 2; both mark the 6 of "floats" with one kind
    assert figures["agreement"]["marks"]["value"] == pytest.approx(2 * 6 / (16 + 8))
    assert figures["progress"]["marks"] == {"wrong fact": 3, "off topic": 1}
    store.judge(task.id, anna, [[0], [1]], [2, 1])  # taken off again
    assert len(list(export(store, "marks"))) == 2
    before = len(list(store.events()))
    store.judge(task.id, anna, [[0], [1]], [2, 1], marks=[[], []])  # that is the same
    assert len(list(store.events())) == before
    store.change_settings(error_kinds=["new"])  # what was marked before can be said again, in a correction too
    store.judge(other.id, berta, [[0], [1]], [3, 1], marks=[[mark(ANSWER, "floats")], []])
    with pytest.raises(TriviumError, match="unknown kind of error 'off topic'"):
        store.judge(task.id, anna, [[0], [1]], [2, 1], marks=[[mark(ANSWER, "floats", "off topic")], []])
    store.settle("x", anna, [[0], [1]], marks=[[mark(ANSWER, "sinks")], []])
    assert [one["text"] for one in export(store, "marks")] == ["sinks"]


@pytest.mark.parametrize(("marks", "reason"), [
    ([[mark(ANSWER, "sinks", "silly")], []], "unknown kind of error 'silly'"),
    ([[{"start": 0, "end": 1000, "kind": KINDS[0]}], []], "goes from 0 to 1000 of 40 characters"),
    ([[{"start": 3, "end": 3, "kind": KINDS[0]}], []], "goes from 3 to 3"),
    ([[{"start": True, "end": 3, "kind": KINDS[0]}], []], "goes from True"),
    ([[{"start": 0, "end": 3}], []], "no object of start, end and kind"), ([[]], "one list for each of the 2"),
    ([[{"start": 0, "end": at, "kind": KINDS[0]} for at in range(1, 202)], []], "201 marks, more than 200")])
def test_what_is_no_mark_is_refused(store: Store, marks: Any, reason: str) -> None:
    prepared(store)
    anna = store.add_person("anna")
    task = store.next_work(anna)
    assert task and len(ANSWER) == 40
    with pytest.raises(TriviumError, match=reason):
        store.judge(task.id, anna, [[0], [1]], [2, 1], marks=marks)


part = st.tuples(st.integers(0, 12), st.integers(0, 12), st.sampled_from("ab"))


@given(st.lists(st.lists(st.lists(part, max_size=4), min_size=2, max_size=2), min_size=2, max_size=4), st.booleans())
def test_overlap_by_counting_characters(judges: list[list[list[tuple[int, int, str]]]], by_kind: bool) -> None:
    def marked(judge: int, response: int, at: int, kind: str) -> bool:
        return any(start <= at < end and kind in (one, "") for start, end, one in judges[judge][response])
    kinds = "ab" if by_kind else [""]
    both = total = 0
    for first in range(len(judges)):
        for second in range(first + 1, len(judges)):
            for response in range(2):
                for at in range(13):
                    for kind in kinds:
                        mine, theirs = (marked(judge, response, at, kind) for judge in (first, second))
                        both += 2 * (mine and theirs)
                        total += mine + theirs
    assert overlap(judges, by_kind) == (both, total)


@given(st.lists(st.sampled_from(["a", "🪨", "\r\n", "\n", "\r"]), max_size=12).map("".join))
def test_places_where_lines_end_by_two_characters(text: str) -> None:
    plain = text.replace("\r\n", "\n")
    for at in range(len(plain) + 1):
        there = stored(text, at)
        assert text[:there].replace("\r\n", "\n") == plain[:at] and shown(text, there) == at


@pytest.mark.browser
@pytest.mark.parametrize("ending", ["\n", "\r\n"])
def test_marking_by_keys_alone(served: Served, visit: Visit, ending: str) -> None:
    store, answer = served.store, ANSWER.replace("\r\n", ending)
    store.change_settings(error_kinds=KINDS, known_share=0, repeat_share=0)
    store.add_items([{"id": "x", "prompt": "What sinks?", "responses": [answer, OTHER]}])
    page = visit("anna")
    page.goto("/compare")
    page.wait_for_selector(".chip")
    texts = page.locator(".response .text").all_inner_texts()
    place = next(at for at, text in enumerate(texts) if "sinks" in text)
    letter = "ab"[place]
    for key in (letter, "2", "ba"[place], "1", "=", letter, ";"):
        page.keyboard.press(key)
    area = page.locator(f"#response-{place} .marks textarea")
    expect(area).to_be_focused()
    panel = page.locator(f"#response-{place} .marks")
    panel.get_by_role("button", name="wrong fact").click()
    expect(page.locator("#fault")).to_contain_text("Select a part")
    area.focus()
    page.keyboard.type("x")
    assert "x" not in area.input_value()
    for key in ("Control+Home", "ArrowDown", "Home"):
        page.keyboard.press(key)
    for _ in range(len("Lead floats")):
        page.keyboard.press("Shift+ArrowRight")
    page.keyboard.press("Tab")
    page.keyboard.press("Enter")  # the first kind
    expect(panel.locator("li q")).to_have_text("Lead floats")
    area.focus()
    page.keyboard.press("Control+Home")
    for _ in range(8):
        page.keyboard.press("ArrowRight")
    for _ in range(3):
        page.keyboard.press("Shift+ArrowRight")
    page.keyboard.press("Tab")
    page.keyboard.press("Tab")
    page.keyboard.press("Space")
    expect(panel.locator("li q").first).to_have_text("🪨 s")
    page.reload()  # drafts hold marks
    expect(panel.locator("li")).to_have_count(2)
    page.keyboard.press("Control+Enter")
    page.wait_for_selector("#saved")
    found = [(one["text"], one["kind"]) for one in export(store, "marks")]
    assert found == [("🪨 s", "off topic"), ("Lead floats", "wrong fact")]
    page.click("#saved a")
    expect(panel.locator("li q").last).to_have_text("Lead floats")
    panel.locator("summary").click()
    panel.locator("li button").first.click()
    page.click("#submit")
    page.wait_for_url("**/history")
    assert [one["text"] for one in export(store, "marks")] == ["Lead floats"]
    lead = visit("boss", "lead")
    lead.goto("/lead/items?sort=imported")
    lead.click("tbody a")
    expect(lead.locator("q").first).to_have_text("Lead floats")
    lead.goto("/lead/settle?item=x")
    expect(lead.locator("#response-0 .marks .chosen")).to_have_text("(1)")  # what annotators marked
    for key in ("a", "Shift+ArrowUp", "b", "Shift+ArrowDown", "Enter"):
        lead.keyboard.press(key)
    lead.wait_for_url("**/lead/disputed")
    assert [(one["text"], one["annotator"]) for one in export(store, "marks")] == [("Lead floats", "boss")]
    lead.goto("/lead")
    expect(lead.locator("#marks")).to_contain_text("wrong fact")
    lead.goto("/lead/settings")
    assert lead.get_by_label("Kinds of errors").input_value() == "wrong fact\noff topic"
    lead.get_by_role("button", name="Save").click()
    lead.wait_for_url("**saved=true")
    assert store.settings.error_kinds == KINDS
