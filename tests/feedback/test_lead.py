"""What the lead reads, settles and mends: every answer with its notes and flags, and who may come in."""

from __future__ import annotations

import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from annotating import Served, items
from test_web import PASSWORD

from trivium.errors import TriviumError
from trivium.feedback.accounts import TRIES_FOR_NAME, Accounts, TooManyTries
from trivium.feedback.catalogue import Catalogue, Wanted
from trivium.feedback.dashboard import disputed
from trivium.feedback.exports import export
from trivium.feedback.state import Item
from trivium.feedback.store import Store


def answered(store: Store) -> None:
    """An item that anna ranked, with a flag and a note, and ben skipped."""
    store.add_items(items(1))
    anna, ben = store.add_person("anna"), store.add_person("ben")
    first = store.next_work(anna)
    assert first is not None
    store.judge(first.id, anna, [[0], [1], [2]], [7, 4, 1], [[], [], ["harmful"]], note="C hurts people")
    second = store.next_work(ben)
    assert second is not None
    store.skip(second.id, ben, "other", "not my field")


def test_the_lead_reads_notes_and_flags_and_settles_with_them(served: Served) -> None:
    answered(served.store)
    with served.client("lead", "lead") as lead:
        page = lead.get("/lead/settle?item=item-0").text
        assert 'href="/lead/items/1"' in page
        assert "C hurts people" in page and "not my field" in page and page.count(">Harmful</span>") == 1
        said = {"item": "item-0", "ranking": [[1], [0], [2]], "flags": [["wrong"], [], ["harmful"]],
                "note": "B is true"}
        assert lead.post("/api/lead/settle", json=said).status_code == 200
        row = next(iter(export(served.store, "rankings")))
        assert (row["flags"], row["note"], row["annotator"]) == ([["wrong"], [], ["harmful"]], "B is true", "lead")
        assert "&#34;wrong&#34;" in lead.get("/lead/settle?item=item-0").text  # ticked when it is opened again
        bad = lead.post("/api/lead/settle", json={"item": "item-0", "all_bad": True, "note": "none is right"})
        assert bad.status_code == 200 and not list(export(served.store, "rankings"))
        assert [row["label"] for row in export(served.store, "thumbs")] == [False] * 3
        refused = lead.post("/api/lead/settle", json={"item": "item-0"})
        assert refused.status_code == 422 and "ranking" in refused.json()["error"]


def test_notes_are_exported_and_skips_too(store: Store) -> None:
    answered(store)
    assert [row["note"] for row in export(store, "rankings")] == ["C hurts people"]
    assert [(row["flags"], row["note"]) for row in export(store, "ratings")][2] == (["harmful"], "C hurts people")
    (skip,) = export(store, "skips")
    assert (skip["id"], skip["reason"], skip["note"], skip["annotator"]) == ("item-0", "other", "not my field", "ben")


def test_many_wrong_passwords_at_once_find_no_more_room(store: Store) -> None:
    desk = Accounts(store)
    desk.accept(desk.invite(), "anna", PASSWORD, "home")

    def guess(_: int) -> str:
        try:
            return desk.login("anna", "a wrong guess", "thief")
        except TooManyTries:
            return "stopped"
        except TriviumError:
            return "wrong"

    with ThreadPoolExecutor(24) as pool:
        outcomes = list(pool.map(guess, range(24)))
    assert outcomes.count("wrong") == TRIES_FOR_NAME and outcomes.count("stopped") == 24 - TRIES_FOR_NAME
    for _ in range(2 * TRIES_FOR_NAME):  # who is right is not counted
        assert desk.login("anna", PASSWORD, "home")


def test_guidelines_stand_beside_all_work(served: Served) -> None:
    served.store.change_settings(guidelines="Be kind and exact.")
    served.store.add_items([*items(1), {"prompt": "Write!"}])
    with served.client("anna") as anna:
        for path in ("/work", "/compare", "/write"):
            assert "Be kind and exact." in anna.get(path).text, path


def filled(store: Store) -> dict[str, int]:
    """Four comparisons, a prompt to answer, one of ben's own, and what anna, ben and the lead said of them; their
    numbers."""
    store.change_settings(overlap=2, repeat_share=0, known_share=0)
    store.add_items([*items(4), {"id": "fruit", "prompt": "说出一种水果。"}])
    anna, ben, lead = store.add_person("anna"), store.add_person("ben"), store.add_person("boss", "lead")
    for person, ranking, note in ((anna, [[0], [1], [2]], "salt is missing"), (ben, [[2], [1], [0]], "")):
        store.add_judgements([{"id": "item-0", "annotator": "anna" if person == anna else "ben", "ranking": ranking,
                               "ratings": [7, 4, 1], "note": note,
                               "flags": [[], [], ["harmful"] if person == anna else []]}])
    store.add_judgements([{"id": "item-1", "annotator": "ben", "ranking": [[0], [1, 2]], "ratings": [2, 2, 2]}])
    store.settle("item-1", lead, [[1], [0], [2]], note="settled by hand")
    for person, text in ((anna, "苹果和梨都是水果"), (ben, "A plum")):
        work = store.next_work(person, "write")
        assert work is not None
        prompt = work.prompt or [{"role": "user", "content": "Name a stone fruit"}]
        store.write(work.id, person, [*prompt, {"role": "assistant", "content": text}])
    with store.state() as state:
        return {entry.id if isinstance(entry, Item) else "own": number for number, entry in state.entries.items()}


@pytest.mark.parametrize(("asked", "names"), [
    ({}, {"item-0", "item-1", "item-2", "item-3", "fruit", "own"}),
    ({"text": "\"number 2\""}, {"item-2"}), ({"text": "quest numb"}, {"item-0", "item-1", "item-2", "item-3"}),
    ({"text": '"answer 1 to question 3"'}, {"item-3"}), ({"text": '"to answer"'}, set()),
    ({"text": "salt"}, {"item-0"}), ({"text": "hand"}, {"item-1"}), ({"text": "水果"}, {"fruit"}),
    ({"text": "果水"}, set()), ({"text": "plum"}, {"own"}), ({"text": "?!"}, set()),
    ({"kind": "write"}, {"fruit", "own"}), ({"state": "waiting"}, {"item-2", "item-3"}),
    ({"state": "disputed"}, {"item-0"}), ({"state": "settled"}, {"item-1"}),
    ({"state": "finished"}, {"item-0", "item-1", "fruit", "own"}), ({"agreement": 0.5}, {"item-0"}),
    ({"flag": "harmful"}, {"item-0"}), ({"flag": "harmful", "person": 2}, set()), ({"rating": 2}, {"item-1"}),
    ({"person": 1}, {"item-0", "fruit"}), ({"noted": True}, {"item-0", "item-1"}), ({"skipped": True}, set()),
])
def test_items_are_found_by_words_and_by_what_was_said(store: Store, asked: dict[str, Any], names: set[str]) -> None:
    numbers = filled(store)
    count, listed = Catalogue(store).find(Wanted(**asked))
    assert {one.number for one in listed} == {numbers[name] for name in names} and count == len(names)


def test_the_list_follows_what_happens_and_what_others_write(store: Store, project: Path) -> None:
    numbers = filled(store)
    catalogue = Catalogue(store)
    catalogue.find(Wanted(text="question"))
    with Store(project) as other:
        other.add_items([{"id": "late", "prompt": "Which question comes last?"}])
        anna = other.person("anna")
        assert anna is not None
        work = other.next_work(anna.id)
        assert work is not None and work.item in ("item-2", "item-3")
        assert [one.item for one in catalogue.find(Wanted(state="held"))[1]] == [work.item]
        assert not catalogue.find(Wanted(state="held"), now=time.time() + 3600)[0]
        other.judge(work.id, anna.id, [[0], [1], [2]], [5, 4, 3])
        other.judge(work.id, anna.id, [[2], [1], [0]], [3, 4, 5], note="I misread it")
    assert [one.item for one in catalogue.find(Wanted(text="misread"))[1]] == [work.item]
    assert [one.item for one in catalogue.find(Wanted(corrected=True))[1]] == [work.item]
    assert [one.item for one in catalogue.find(Wanted(text="question comes"))[1]] == ["late"]
    assert catalogue.find(Wanted(state="finished"))[0] == 4
    store.change_settings(overlap=1)
    assert catalogue.find(Wanted(state="finished"))[0] == 5
    for sort in ("agreement", "-rating"):
        assert catalogue.find(Wanted(sort=sort))[1][0].number == numbers["item-0"]
    assert [one.item for one in catalogue.find(Wanted(sort="imported"))[1]][:2] == ["item-0", "item-1"]


def test_an_item_is_read_with_all_that_was_said_and_when(served: Served) -> None:
    numbers = filled(served.store)
    with served.client("boss", "lead") as lead, served.client("anna") as anna:
        listed = lead.get("/lead/items", params={"q": "salt", "flag": "harmful", "kind": "", "page": "0"}).text
        assert f'href="/lead/items/{numbers["item-0"]}"' in listed and "1 to 1 of 1" in listed
        for name, said in {"item-0": ["salt is missing", ">Harmful<", "anna", "ben", "<time datetime=", "disputed"],
                           "item-1": ["settled by hand", "boss"], "fruit": ["苹果和梨都是水果"],
                           "own": ["A plum", "Name a stone fruit"]}.items():
            page = lead.get(f"/lead/items/{numbers[name]}").text
            assert all(one in page for one in said), name
        for path in ("/lead/items", f"/lead/items/{numbers['item-0']}"):
            assert anna.get(path).status_code == 403
        assert anna.post(f"/lead/items/{numbers['item-0']}/withdraw",
                         data={"csrf": anna.headers["x-csrf-token"]}).status_code == 403
        assert lead.post(f"/lead/items/{numbers['item-0']}/withdraw").status_code == 403  # without the token
        assert lead.get("/lead/items/999999").status_code == 404
        for query in ("rating=8", "state=x", "page=-1", "person=a", "sort=x"):
            assert lead.get(f"/lead/items?{query}").status_code == 422, query
        assert lead.get("/lead/items?flag=x&person=&agreement=&rating=").status_code == 200


def test_a_withdrawn_item_is_given_to_nobody_and_exported_nowhere(served: Served) -> None:
    numbers, store = filled(served.store), served.store
    assert {row["id"] for row in export(store, "rankings")} == {"item-0", "item-1"}
    with served.client("boss", "lead") as lead:
        form = {"csrf": lead.headers["x-csrf-token"]}
        for name in ("item-0", "item-2", "item-3", "fruit"):
            answer = lead.post(f"/lead/items/{numbers[name]}/withdraw", data=form)
            assert answer.headers["location"] == f"/lead/items/{numbers[name]}"
        assert lead.post(f"/lead/items/{numbers['own']}/withdraw", data=form).status_code == 404
        assert {row["id"] for row in export(store, "rankings")} == {"item-1"}
        assert [row["messages"][-1]["content"] for row in export(store, "demonstrations")] == ["A plum"]
        anna = store.person("anna")
        assert anna is not None and store.next_work(anna.id) is None
        assert "withdrawn" in lead.get(f"/lead/items/{numbers['item-0']}").text
        with store.state() as state:
            assert not disputed(state)
        lead.post(f"/lead/items/{numbers['item-2']}/restore", data=form)
        work = store.next_work(anna.id)
        assert work is not None and work.item == "item-2"
        lead.post(f"/lead/items/{numbers['item-2']}/withdraw", data=form)
        assert store.next_work(anna.id) is None  # nor does who holds it see it again
    assert [event.body["item"] for event in store.events(["close"])] == ["item-0", "item-2", "item-3", "fruit",
                                                                         "item-2"]


@pytest.mark.parametrize("name", ["Lead", "ⅼead", "1ead", "Iead", "lеad", "  lead ", "ｌｅａｄ", "le\u0301ad"])
def test_names_that_look_alike_are_refused(store: Store, name: str) -> None:
    desk = Accounts(store)
    store.add_person("lead")
    with pytest.raises(TriviumError, match="taken"):
        desk.accept(desk.invite(), name, PASSWORD, "here")
    assert len(desk.open_invites()) == 1  # the invite is not used up by that
    for other in ("leader", "李雷", "がく", "かく"):
        store.add_person(other)
