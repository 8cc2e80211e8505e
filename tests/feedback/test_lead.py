"""What the lead reads, settles and mends: every answer with its notes and flags, and who may come in."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

from annotating import Served, items
from test_web import PASSWORD

from trivium.errors import TriviumError
from trivium.feedback.accounts import TRIES_FOR_NAME, Accounts, TooManyTries
from trivium.feedback.exports import export
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
