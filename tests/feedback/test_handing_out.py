"""What the lead says about who does what, how much and until when."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from annotating import Served, items
from playwright.sync_api import expect
from typer.testing import CliRunner

from trivium.cli.app import app
from trivium.errors import TriviumError
from trivium.feedback.dashboard import Dashboard, of_batches
from trivium.feedback.exports import export
from trivium.feedback.rows import moment
from trivium.feedback.store import Conflict, Store

NOON = 20_000 * 86_400 + 43_200.0
PLAIN = {"known_share": 0, "repeat_share": 0, "uncertain_share": 0}


def say(store: Store, person: int, now: float | None = None) -> str | None:
    """Do the next thing; the item's name."""
    task = store.next_work(person, now=now)
    if task is None:
        return None
    store.judge(task.id, person, [[0], [1], [2]], [6, 4, 2], now=now)
    return task.item


def test_given_comes_first_is_kept_for_them_and_needs_no_room(store: Store) -> None:
    store.change_settings(overlap=1, **PLAIN)
    store.add_items(items(6))
    anna, berta, carl = (store.add_person(name) for name in ("anna", "berta", "carl"))
    store.give("item-4", anna)
    store.give("item-2", anna)
    others = set()
    while item := say(store, berta):
        others.add(item)
    assert others == {"item-0", "item-1", "item-3", "item-5"}  # what is anna's waits for her
    assert [say(store, anna), say(store, anna), say(store, anna)] == ["item-4", "item-2", None]
    store.give("item-4", carl)  # one person is enough, but the lead wants another
    assert say(store, carl) == "item-4" and say(store, carl) is None
    with pytest.raises(Conflict, match="answered this item already"):
        store.give("item-4", carl)
    assert {row["chosen"] for row in export(store, "rankings") if row["id"] == "item-4"} == {"given"}
    with Store(store.project) as other, other.state() as state:  # the same from the log alone
        assert state.items["item-4"].given == () and state.given == {anna: {}, carl: {}}


def test_taken_goes_to_others_and_no_late_answer_counts(store: Store) -> None:
    store.change_settings(overlap=1, **PLAIN)
    store.add_items(items(1))
    anna, berta = store.add_person("anna"), store.add_person("berta")
    task = store.next_work(anna)
    assert task and store.next_work(berta) is None
    store.take("item-0", anna)
    for late in (lambda: store.judge(task.id, anna, [[0], [1], [2]], [6, 4, 2]), lambda: store.renew(task.id, anna),
                 lambda: store.skip(task.id, anna, "unclear")):
        with pytest.raises(Conflict, match="given this item to others"):
            late()
    assert store.next_work(anna) is None and say(store, berta) == "item-0"
    with pytest.raises(Conflict, match="answered"):
        store.take("item-0", berta)
    store.give("item-0", anna)  # she may have it back
    assert say(store, anna) == "item-0"


def test_who_leaves_keeps_nothing_from_others(store: Store) -> None:
    store.change_settings(overlap=1, **PLAIN)
    store.add_items(items(1))
    anna, berta = store.add_person("anna"), store.add_person("berta")
    store.give("item-0", anna)
    assert store.next_work(berta) is None
    store.remove_person(anna)
    assert say(store, berta) == "item-0"


def test_quotas_by_day_and_in_all(store: Store) -> None:
    store.change_settings(overlap=3, daily_quota=2, **PLAIN)
    store.add_items(items(20))
    anna, berta = store.add_person("anna"), store.add_person("berta")
    store.set_quota(berta, day=3, in_all=4)
    assert [bool(say(store, anna, NOON)) for _ in range(3)] == [True, True, False]
    assert [bool(say(store, berta, NOON)) for _ in range(4)] == [True, True, True, False]
    before = NOON + 43_199
    assert say(store, anna, before) is None and say(store, anna, before + 1)  # a new day, UTC
    assert say(store, berta, before + 1) and say(store, berta, before + 2) is None  # four in all
    with store.state() as state:
        assert state.left(berta, before + 2) == (2, 0) and state.left(anna, before + 2) == (1, None)
    store.set_quota(berta)
    with store.state() as state:
        assert state.left(berta, before + 2) == (1, None)
    task = store.next_work(anna, now=before + 3)
    assert task and store.next_work(anna, "write", now=before + 4) is None  # what she holds counts
    store.skip(task.id, anna, "unclear", now=before + 5)
    assert store.next_work(anna, now=before + 6)  # what she skipped does not
    with pytest.raises(TriviumError, match="from 0"):
        store.set_quota(anna, -1)


def test_deadlines_by_item_and_batch(store: Store) -> None:
    store.change_settings(overlap=1, **PLAIN)
    given = items(6)
    given[3] |= {"batch": "may"}
    given[4] |= {"batch": "may", "deadline": "2024-10-06"}
    given[5] |= {"deadline": "no time"}
    outcome = store.add_items(given)
    assert outcome.added == 5 and "'no time' is no time" in outcome.rejects[0]["reason"]
    store.set_deadline(moment("2024-10-05T12:00Z"), batch="may")
    store.set_deadline(moment("2024-10-04T12:00+02:00"), item="item-2")
    store.set_deadline(moment("2024-10-03"), item="item-1")
    anna = store.add_person("anna")
    assert moment("2024-10-03") == moment("2024-10-03T23:59:59Z") and moment("2024-10-04T12:00") == NOON
    with store.state() as state:
        assert [item.id for item in state.most_due("compare")] == ["item-1", "item-2", "item-3", "item-4"]
    assert of_batches(store, NOON + 5 * 86_400) == [
        {"batch": "may", "deadline": NOON + 86_400, "items": 2, "finished": 0, "late": 2}]
    assert of_batches(store, NOON + 2 * 86_400)[0]["late"] == 1  # its own deadline stands before that of the batch
    assert [say(store, anna, NOON) for _ in range(5)] == ["item-1", "item-2", "item-3", "item-4", "item-0"]
    assert {row["id"]: row["chosen"] for row in export(store, "rankings")}["item-3"] == "due"
    with store.state() as state:
        assert not state.due["compare"]
    store.set_deadline(None, batch="may")
    with pytest.raises(TriviumError, match="did you mean 'may'"):
        store.set_deadline(None, batch="mai")
    assert Dashboard(store).figures()["progress"]["late"] == 0


@pytest.mark.parametrize("stores", [1, 2])
def test_many_at_once_break_neither_quotas_nor_what_was_given(project: Path, stores: int) -> None:
    """Sixteen browsers of eight people, by two servers too, while the lead gives and takes."""
    opened = [Store(project, create=True)]
    opened += [Store(project) for _ in range(stores - 1)]
    store = opened[0]
    store.change_settings(overlap=2, daily_quota=6, **PLAIN)
    store.add_items(items(60))
    people = [store.add_person(f"p{i}") for i in range(8)]
    for place, person in enumerate(people):
        store.set_quota(person, in_all=5 if place % 2 else None)
        store.give(f"item-{place}", person)

    def browser(place: int) -> None:
        mine, person = opened[place % stores], people[place % 8]
        for _ in range(12):
            task = mine.next_work(person)
            if task:
                mine.judge(task.id, person, [[0], [1], [2]], [6, 4, 2])

    def lead(place: int) -> None:
        for number in range(20, 40):
            try:
                opened[place % stores].take(f"item-{number}", people[number % 8])
                opened[place % stores].give(f"item-{number}", people[(number + 1) % 8])
            except Conflict:
                pass

    with ThreadPoolExecutor(17) as pool:
        for done in [pool.submit(lead, 1), *(pool.submit(browser, place) for place in range(16))]:
            done.result()
    for one in opened:
        rows = list(export(one, "rankings"))
        said = Counter(row["annotator"] for row in rows)
        assert all(said[f"p{i}"] == (5 if i % 2 else 6) for i in range(8)), said
        assert max(Counter((row["id"], row["annotator"]) for row in rows).values()) == 1
        assert all(any(row["id"] == f"item-{i}" and row["annotator"] == f"p{i}" for row in rows) for i in range(8))
        with one.state() as state:
            by_item = Counter(row["id"] for row in rows)
            for name, count in by_item.items():
                extra = sum(row["chosen"] == "given" for row in rows if row["id"] == name)
                assert count <= 2 + extra
            assert not any(work.taken and work.state != "open" for work in state.works.values())
        one.close()


def test_from_the_command_line(project: Path, store: Store, tmp_path: Path) -> None:
    store.add_person("anna")
    file = tmp_path / "rows.jsonl"
    file.write_text('{"id": "a", "prompt": "?", "responses": ["x", "y"]}\n{"id": "b", "prompt": "!"}\n')

    def trivium(*words: str) -> str:
        done = CliRunner().invoke(app, ["feedback", *words])
        return done.output if done.exit_code == 0 else str(done.exception)
    assert "2 added" in trivium("import", str(project), str(file), "--batch", "one", "--deadline", "2030-12-31")
    trivium("give", str(project), "a", "anna")
    trivium("quota", str(project), "anna", "--day", "7")
    trivium("deadline", str(project), "2031-01-01T00:00Z", "--item", "b")
    assert "either --item or --batch" in trivium("deadline", str(project), "none")
    with store.state() as state:
        assert state.items["a"].given == (1,) and state.quotas == {1: (7, None)}
        deadlines = [state.deadline(state.items[name]) for name in "ab"]
        assert deadlines == [moment("2030-12-31"), moment("2031-01-01T00:00Z")]
    trivium("take", str(project), "a", "anna")
    with store.state() as state:
        assert state.items["a"].taken == (1,)


Visit = Callable[..., Any]


@pytest.mark.browser
def test_the_lead_hands_out_and_the_labeler_sees_it(served: Served, visit: Visit) -> None:
    store = served.store
    store.change_settings(overlap=1, **PLAIN)
    store.add_items([{**one, "batch": "first"} for one in items(3)])
    anna = store.add_person("anna")
    lead = visit("boss", "lead", timezone_id="Asia/Shanghai")
    lead.goto("/lead/items")
    lead.click("text=item-1 >> xpath=.. >> a")
    lead.get_by_label("Person").select_option("anna")
    lead.click("text=Give it to them")
    expect(lead.get_by_text("given to them")).to_be_visible()
    lead.get_by_label("Deadline").fill("2024-10-04T20:00")
    lead.locator("form[action$=deadline] button").click()
    expect(lead.locator("main").get_by_text("late", exact=True)).to_be_visible()
    with store.state() as state:
        assert state.items["item-1"].deadline == NOON  # eight in the evening in Shanghai
    assert lead.get_by_label("Deadline").input_value() == "2024-10-04T20:00"
    lead.goto("/lead/items?state=late")
    assert lead.locator("tbody tr").count() == 1
    lead.goto("/lead/batches")
    lead.get_by_label("Deadline").fill("2034-10-03T20:00")
    lead.click("text=Save")
    expect(lead.get_by_text("0 of 3 finished")).to_be_visible()
    lead.goto("/lead/people")
    row = lead.locator(".person", has_text="anna")
    row.locator(".quota summary").click()
    row.get_by_label("At most a day").fill("2")
    row.get_by_role("button", name="Save").click()
    expect(lead.locator(".person", has_text="anna").get_by_text("2 left today")).to_be_visible()
    page = visit("anna")
    page.goto("/work")
    assert "2 left today" in page.locator("#left").inner_text() and "1." in page.locator("#given").inner_text()
    page.click("text=Start comparing")
    assert "late" in page.locator("#due").inner_text() and "Question number 1" in page.inner_text(".prompt")
    assert say(store, anna) == "item-1" and say(store, anna)
    page.goto("/compare")
    expect(page.get_by_text("You have done all for today")).to_be_visible()
    page.goto("/work")
    assert "0 left today" in page.locator("#left").inner_text() and page.locator("#given").count() == 0
    assert time.time() > NOON
