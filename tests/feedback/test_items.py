"""The lead looks through items and answers: filters, what was said about one, the last word, and taking items out."""

from __future__ import annotations

import time

import pytest
from annotating import Served, items

from trivium.errors import TriviumError
from trivium.feedback.exports import export
from trivium.feedback.items import Wanted, find, whole
from trivium.feedback.store import Store


def work(store: Store, name: str, kind: str = "compare"):
    person = store.person(name)
    number = person.id if person else store.add_person(name)
    return store.next_work(number, kind), number


@pytest.fixture
def worked(store: Store) -> Store:
    """Four items: on the first two people disagree, with a flag and a note; the second was skipped; the third is new;
    the fourth asks for an answer in words. Somebody wrote to a prompt of their own."""
    store.change_settings(overlap=2, uncertain_share=0.0, known_share=0.0, repeat_share=0.0, free_writing=True)
    store.add_items([*items(3), {"id": "ask", "prompt": "Which metal sinks?"}])
    first, anna = work(store, "anna")
    order = {number: number for number in range(3)}
    store.judge(first.id, anna, [[0], [1], [2]], [7, 4, 1], [["wrong"], [], ["harmful"]], note="I am 50% sure: \"_\"")
    while (task := work(store, "ben")[0]).item != first.item:
        store.skip(task.id, store.person("ben").id, "unclear", "which question?")
    store.judge(task.id, store.person("ben").id, [[2], [1], [0]], [1, 4, 7], all_bad=False)
    task, anna = work(store, "anna", "write")
    store.write(task.id, anna, [{"role": "user", "content": "Which metal sinks?"},
                                {"role": "assistant", "content": "Lead does."}])
    task, anna = work(store, "anna", "write")
    store.write(task.id, anna, [{"role": "user", "content": "汉字？"}, {"role": "assistant", "content": "是的。"}])
    store.disputed_item = first.item
    assert order
    return store


def names(store: Store, **wanted) -> list[str]:
    return [row["name"] for row in find(store, Wanted(**wanted), 0, 50)["rows"]]


def test_items_are_found_by_what_was_said(worked: Store) -> None:
    disputed, anna = worked.disputed_item, worked.person("anna").id
    everything = names(worked)
    assert len(everything) == 5 and everything[0].startswith("own:")
    assert names(worked, order="oldest") == everything[::-1]
    assert names(worked, state="disputed") == [disputed]
    assert names(worked, flag="harmful") == [disputed] and names(worked, flag="private") == []
    assert disputed in names(worked, person=anna) and len(names(worked, person=anna)) == 3
    assert disputed not in names(worked, answer="skipped")
    assert names(worked, answer="note", kind="compare", person=anna) == [disputed]
    assert names(worked, rating=7, kind="compare") == [disputed]
    assert names(worked, kind="write") == [everything[0], "ask"]
    assert names(worked, order="agreement")[0] == disputed
    assert find(worked, Wanted(), 3, 2)["total"] == 5 and len(find(worked, Wanted(), 3, 2)["rows"]) == 2


@pytest.mark.parametrize(("text", "found"), [
    ("LEAD DOES", ["ask"]), ("50% sure", None), ('"_"', None), ("50_ sure", []), ("汉字", "own"), ("no such", [])])
def test_texts_are_searched_as_they_are_written(worked: Store, text: str, found) -> None:
    got = names(worked, text=text)
    if found == "own":
        assert len(got) == 1 and got[0].startswith("own:")
    else:
        assert got == ([worked.disputed_item] if found is None else found)


@pytest.mark.parametrize("wanted", [{"state": "odd"}, {"flag": "x"}, {"answer": "__class__"}, {"order": "random"}])
def test_a_filter_that_there_is_not_is_refused(worked: Store, wanted) -> None:
    with pytest.raises(TriviumError, match="there is no"):
        find(worked, Wanted(**wanted), 0, 10)


def test_all_that_was_said_about_an_item_is_read(worked: Store) -> None:
    about = whole(worked, worked.disputed_item)
    anna, ben = about["answers"]
    assert (anna["name"], anna["note"], anna["flags"]) == ("anna", 'I am 50% sure: "_"', (("wrong",), (), ("harmful",)))
    assert ben["ranking"] == ((2,), (1,), (0,)) and about["state"] == "disputed" and len(about["responses"]) == 3
    written = whole(worked, "ask")["answers"]
    assert [one["written"] for one in written] == ["Lead does."]
    own = whole(worked, names(worked)[0])
    assert own["prompt"] == [{"role": "user", "content": "汉字？"}] and own["answers"][0]["written"] == "是的。"
    for name in ("none", "own:", "own:1", "own:9" * 9, "own:²"):
        with pytest.raises(TriviumError, match="there is no item"):
            whole(worked, name)


def test_the_leads_word_has_flags_and_may_say_all_bad(worked: Store) -> None:
    with_flags = {"item": worked.disputed_item, "ranking": [[1], [0], [2]], "flags": [["private"], [], []]}
    from annotating import serving
    with serving(worked) as served, served.client("boss", "lead") as lead:
        assert lead.post("/api/lead/settle", json=with_flags).status_code == 200
        page = lead.get("/lead/settle", params={"item": worked.disputed_item}).text
        assert ("I am 50% sure" in page and "Harmful" in page) or "harmful" in page.lower()
        row, = (row for row in export(worked, "rankings") if row["id"] == worked.disputed_item)
        assert row["flags"] == [["private"], [], []] and row["ranking"] == [[1], [0], [2]]
        bad = {"item": worked.disputed_item, "all_bad": True, "note": "none will do"}
        assert lead.post("/api/lead/settle", json=bad).status_code == 200
        assert not [row for row in export(worked, "rankings") if row["id"] == worked.disputed_item]
        assert whole(worked, worked.disputed_item)["settled"]["all_bad"]
        assert names(worked, text="none will do") == [worked.disputed_item]
        assert lead.post("/api/lead/settle", json={"item": worked.disputed_item}).status_code == 422


def test_notes_and_skips_are_exported(worked: Store) -> None:
    notes = [row["note"] for row in export(worked, "rankings") if "note" in row]
    assert notes == ['I am 50% sure: "_"']
    skips = list(export(worked, "skips"))
    assert all((row["reason"], row["note"], row["annotator"]) == ("unclear", "which question?", "ben") for row in skips)
    assert len(skips) == len(names(worked, answer="skipped"))


def test_an_item_that_is_taken_out_is_asked_and_exported_no_more(worked: Store) -> None:
    name = worked.disputed_item
    assert any(row["id"] == name for row in export(worked, "rankings"))
    worked.withdraw(name, None)
    assert not any(row.get("id") == name for kind in ("rankings", "pairs", "ratings") for row in export(worked, kind))
    worked.withdraw("item-2", None)
    seen = set()
    while (task := work(worked, "cleo")[0]) is not None:
        seen.add(task.item)
        worked.judge(task.id, worked.person("cleo").id, [[0], [1], [2]])
    assert name not in seen and "item-2" not in seen
    assert names(worked, state="withdrawn") and whole(worked, name)["state"] == "withdrawn"
    worked.withdraw(name, None, False)
    assert any(row["id"] == name for row in export(worked, "rankings"))
    events = worked._state.last
    worked.withdraw(name, None, False)
    assert worked._state.last == events


def test_the_lead_alone_sees_them(served: Served) -> None:
    served.store.add_items(items(1))
    with served.client("anna") as anna, served.client("boss", "lead") as lead:
        for path in ("/lead/items", "/lead/item?item=item-0"):
            assert anna.get(path).status_code == 403 and lead.get(path).status_code == 200
        assert lead.get("/lead/item?item=none").status_code == 404
        assert lead.get("/lead/items?state=odd").status_code == 422
        token = lead.headers["x-csrf-token"]
        gone = lead.post("/lead/item/withdraw", data={"csrf": token, "item": "item-0", "withdrawn": "true"})
        assert gone.headers["location"] == "/lead/item?item=item-0"
        assert "Bring it back" in lead.get("/lead/item?item=item-0").text


@pytest.mark.long
def test_a_hundred_thousand_items_are_looked_through_quickly(store: Store) -> None:
    store.add_items({"id": f"i{number}", "prompt": f"Question {number}? " + "words " * 40,
                     "responses": ["One answer", "Another answer"]} for number in range(100_000))
    for wanted in (Wanted(), Wanted(state="new"), Wanted(text="Question 77777?")):
        begun = time.perf_counter()
        assert find(store, wanted, 0, 50)["total"]
        print(wanted, f"{1000 * (time.perf_counter() - begun):.0f} ms")
