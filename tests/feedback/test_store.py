"""The store: what is given out, what is taken in, and that nothing is lost."""

from __future__ import annotations

import json
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import sqlalchemy as sql
from annotating import items
from hypothesis import given, settings
from hypothesis import strategies as st
from typer.testing import CliRunner

from trivium.cli.app import app
from trivium.data.demonstrations import demonstration
from trivium.errors import TriviumError
from trivium.feedback import rows
from trivium.feedback.dashboard import Dashboard, disputed
from trivium.feedback.exports import export, export_all
from trivium.feedback.simulate import annotate, panel
from trivium.feedback.store import Conflict, Store
from trivium.stages.data.imports import comparison
from trivium.world.tasks import prompts
from trivium.world.town import Town

PROMPT = [{"role": "user", "content": "Hello"}]


def judge_all(store: Store, person: int, ranking: list[list[int]] | None = None) -> int:
    done = 0
    while task := store.next_work(person):
        store.judge(task.id, person, ranking or [[0], [1, 2]], [7, 3, 3], seconds=5.0)
        done += 1
    return done


def test_work_is_given_out_up_to_the_overlap_and_never_twice_to_one_person(store: Store) -> None:
    store.change_settings(overlap=2, repeat_share=0, known_share=0)
    assert store.add_items(items(6)).added == 6
    anna, ben, carl = (store.add_person(name) for name in ("anna", "ben", "carl"))
    task = store.next_work(anna)
    assert task is not None and store.next_work(anna) == task  # the same until it is done
    assert sorted(task.order) == [0, 1, 2] and task.shown == [task.responses[n] for n in task.order]
    assert judge_all(store, anna) == 6 and judge_all(store, ben) == 6 and judge_all(store, carl) == 0
    assert len(list(export(store, "rankings"))) == 12


def test_orders_differ_between_people_and_are_stored(store: Store) -> None:
    store.add_items(items(30, 4))
    orders = {}
    for name in ("anna", "ben"):
        person = store.add_person(name)
        while task := store.next_work(person):
            if task.why != "repeat":
                orders[name, task.item] = task.order
            store.judge(task.id, person, [[0], [1], [2], [3]], [7, 5, 4, 3])
    differing = sum(orders["anna", item["id"]] != orders["ben", item["id"]] for item in items(30))
    assert differing > 20 and len(set(orders.values())) > 12
    stored = {(event.who, event.body["item"]): tuple(event.body["order"])
              for event in store.events(["lease"])
              if event.body["why"] != "repeat"}
    assert len(stored) == 60 and stored[1, "item-7"] == orders["anna", "item-7"]


def test_a_lease_ends_and_the_work_comes_back(store: Store) -> None:
    store.change_settings(overlap=1, lease_minutes=10)
    store.add_items(items(1))
    anna, ben = store.add_person("anna"), store.add_person("ben")
    first = store.next_work(anna, now=1000.0)
    assert first is not None and store.next_work(ben, now=1599.0) is None
    assert store.renew(first.id, anna, now=1500.0) == 2100.0
    assert store.next_work(ben, now=1700.0) is None
    second = store.next_work(ben, now=2101.0)
    assert second is not None and second.item == first.item
    with pytest.raises(Conflict, match="with others now"):
        store.renew(first.id, anna, now=2102.0)
    store.judge(first.id, anna, [[0], [1], [2]], [3, 2, 1], now=2200.0)  # late, but the work was done
    store.judge(second.id, ben, [[0], [1], [2]], [3, 2, 1], now=2201.0)
    assert [event.body["late"] for event in store.events(["judgement"])] == [True, False]
    assert len(list(export(store, "rankings"))) == 2


def test_an_ended_lease_that_nobody_took_is_the_same_work_again(store: Store) -> None:
    store.add_items(items(1))
    anna = store.add_person("anna")
    first, again = store.next_work(anna, now=0.0), store.next_work(anna, now=1e6)
    assert first is not None and again is not None and first.id == again.id and first.order == again.order


def test_corrections_are_appended_and_the_newest_counts(store: Store) -> None:
    store.add_items(items(1))
    anna = store.add_person("anna")
    task = store.next_work(anna)
    assert task is not None
    store.skip(task.id, anna, "unclear")
    store.judge(task.id, anna, [[0], [1], [2]], [7, 4, 1])
    store.judge(task.id, anna, [[0], [1], [2]], [7, 4, 1])  # a repeated request adds nothing
    store.judge(task.id, anna, [[2], [0, 1]], [1, 1, 7], flags=[["wrong"], [], []])
    assert [event.kind for event in store.events(["judgement", "skip"])] == ["skip", "judgement", "judgement"]
    assert [row["ranking"] for row in export(store, "rankings")] == [[[2], [0, 1]]]
    with pytest.raises(Conflict):
        store.skip(task.id, anna, "unclear")


def test_events_cannot_be_changed_by_the_store(store: Store, project: Path) -> None:
    store.add_items(items(3))
    anna = store.add_person("anna")
    task = store.next_work(anna)
    assert task is not None
    before = list(store.events())
    store.judge(task.id, anna, [[0], [1], [2]], [7, 4, 1])
    store.remove_person(anna)
    assert list(store.events())[:len(before)] == before
    with Store(project) as again:  # the state is what the events say, whoever reads them
        with again.state() as one, store.state() as other:
            assert one.works == other.works and one.last == other.last


def test_known_answers_and_repetitions_are_mixed_in_unseen(store: Store) -> None:
    store.change_settings(overlap=1, known_share=0.2, repeat_share=0.2, repeat_after=3)
    store.add_items(
        items(120) +
        [{"id": f"known-{i}", "prompt": f"Known {i}", "responses": ["a", "b", "c"], "known": [[0], [1], [2]]}
         for i in range(15)])
    anna = store.add_person("anna")
    seen: dict[str, list[tuple[int, ...]]] = {}
    whys = Counter()
    while task := store.next_work(anna):
        whys[task.why] += 1
        seen.setdefault(str(task.item), []).append(task.order)
        store.judge(task.id, anna, [[0], [1], [2]] if task.why != "repeat" else [[0], [2], [1]], [7, 4, 1])
    assert whys["random"] == 120 and 8 < whys["known"] <= 15 and 15 < whys["repeat"] < 70
    assert all(len(orders) <= 2
               for orders in seen.values()) and all(len(seen[name]) == 1 for name in seen if name.startswith("known"))
    assert any(orders[0] != orders[1] for orders in seen.values() if len(orders) == 2)
    assert len(list(export(store, "rankings"))) == 120  # neither of them is exported
    figures = Dashboard(store).figures()["agreement"]
    assert figures["known"]["value"] == 1.0 and figures["known"]["n"] == whys["known"]
    assert figures["themselves"]["value"] == pytest.approx(2 / 3) and figures["themselves"]["n"] == whys["repeat"]


def test_uncertain_items_come_first_but_never_from_the_test_split(store: Store) -> None:
    store.change_settings(overlap=1, uncertain_share=1.0, heldout=0.3, repeat_share=0)
    given = items(200, 2)
    for place, item in enumerate(given):
        item["scores"] = [[0.0, 0.0], [0.0, place / 50]]  # the later, the more disputed
    store.add_items(given)
    anna = store.add_person("anna")
    order, whys = [], Counter()
    for _ in range(60):
        task = store.next_work(anna)
        assert task is not None
        split = rows.split_of(rows.prompt_key(task.prompt), 0.3)
        whys[task.why, split] += 1
        if task.why == "uncertain":
            order.append(int(str(task.item).removeprefix("item-")))
        store.judge(task.id, anna, [[0], [1]], [5, 3])
    assert order == sorted(order, reverse=True) and order[0] > 190
    assert whys["uncertain", "heldout"] == 0 and whys["random", "heldout"] > 8 and whys["uncertain", "train"] > 25
    chosen = {row["id"]: (row["chosen"], row["split"]) for row in export(store, "rankings")}
    assert {why for why, split in chosen.values() if split == "heldout"} == {"random"}
    # The held-out items are asked in the order of a hash: their scores have no say in it.
    held = [int(row["id"].removeprefix("item-")) for row in export(store, "rankings") if row["split"] == "heldout"]
    assert max(held) - min(held) > 60


def test_finished_items_leave_the_queue_and_come_back(store: Store) -> None:
    """Whoever looks for work looks past nothing that is done. What is asked again, or of more people, is back."""
    store.change_settings(overlap=1, repeat_share=0, heldout=0.3)
    store.add_items([{**item, "scores": [[0, 1, 2], [2, place, 0]]} for place, item in enumerate(items(8))])
    anna, ben = store.add_person("anna"), store.add_person("ben")

    def waiting() -> tuple[set[str], int]:
        with store.state() as state:
            return {name for queue in state.random.values() for _, name in queue}, len(state.uncertain)
    everything, disputed_by_models = waiting()
    assert everything == {item["id"] for item in items(8)} and disputed_by_models > 3
    assert judge_all(store, anna) == 8 and waiting() == (set(), 0) and judge_all(store, ben) == 0
    store.add_scores([{"id": "item-5", "scores": [[0, 1, 2], [9, 1, 0]]}])  # of a finished one: nothing to ask
    assert waiting() == (set(), 0)
    store.change_settings(overlap=2)
    assert waiting()[0] == {item["id"] for item in items(8)}
    assert judge_all(store, ben) == 8 and judge_all(store, anna) == 0 and waiting() == (set(), 0)


def test_scores_that_come_later_change_what_is_asked(store: Store) -> None:
    store.change_settings(uncertain_share=1.0, heldout=0.0)
    store.add_items(items(20, 2))
    outcome = store.add_scores([{"id": "item-3", "scores": [[0, 5], [5, 0]]},
                                {"id": "nobody", "scores": [[0, 5], [5, 0]]}, {"id": "item-4", "scores": [[0]]},
                                {"id": "item-5", "scores": [[0, float("nan")], [1, 2]]}])
    assert outcome.added == 1 and [reject["row"] for reject in outcome.rejects] == [2, 3, 4]
    task = store.next_work(store.add_person("anna"))
    assert task is not None and task.item == "item-3" and task.why == "uncertain"


BAD_ITEMS = {
    "one response only": {"prompt": "x", "responses": ["a"]},
    "no response only": {"prompt": "x", "responses": []},
    "responses 0 and 2 are the same": {"prompt": "x", "responses": ["a", "b", "a"]},
    "response 1 is empty": {"prompt": "x", "responses": ["a", "  "]},
    "`prompt` is missing": {"responses": ["a", "b"]},
    "unknown role": {"prompt": [{"role": "usr", "content": "x"}], "responses": ["a", "b"]},
    "leaves out response 2": {"prompt": "x", "responses": ["a", "b", "c"], "known": [[0], [1]]},
    "names response 5": {"prompt": "x", "responses": ["a", "b"], "known": [[5], [1]]},
    "no finite number": {"prompt": "x", "responses": ["a", "b"], "scores": [[1, float("inf")]]},
    "are no text": {"prompt": "x\ud800", "responses": ["a", "b"]},
    "belongs to an item with other texts": {"id": "item-0", "prompt": "other", "responses": ["a", "b"]},
    "or another known answer": {**items(1)[0], "known": [[0], [1], [2]]},
    "not a list": ["a list"],
}


def test_bad_items_are_kept_aside_with_their_reason(store: Store) -> None:
    store.add_items(items(1))
    outcome = store.add_items([*BAD_ITEMS.values(), *items(2)])  # type: ignore[list-item]
    assert outcome.added == 1 and outcome.known_already == 1 and len(outcome.rejects) == len(BAD_ITEMS)
    for row, reason in enumerate(BAD_ITEMS, 1):
        assert reason in next(reject["reason"] for reject in outcome.rejects if reject["row"] == row), reason
    assert {reject["row"] for reject in outcome.rejects} == set(range(1, len(BAD_ITEMS) + 1))


BAD_JUDGEMENTS = {
    "leaves out response 2": {"id": "item-0", "annotator": "anna", "ranking": [[0], [1]]},
    "names response 9": {"id": "item-0", "annotator": "anna", "ranking": [[0], [1], [9]]},
    "names response 0 twice": {"id": "item-0", "annotator": "anna", "ranking": [[0], [0], [1]]},
    "all responses are tied": {"id": "item-0", "annotator": "anna", "ranking": [[0, 1, 2]]},
    "has the rating 9": {"id": "item-0", "annotator": "anna", "ranking": [[0], [1], [2]], "ratings": [9, 1, 1]},
    "unknown flag": {"id": "item-0", "annotator": "anna", "ranking": [[0], [1], [2]], "flags": [["boring"], [], []]},
    "no annotator 'zoe'": {"id": "item-0", "annotator": "zoe", "ranking": [[0], [1], [2]]},
    "no comparison 'item-77'": {"id": "item-77", "annotator": "anna", "ranking": [[0], [1], [2]]},
    "the prompt is not that of the item": {
        "id": "item-0", "annotator": "anna", "ranking": [[0], [1], [2]], "prompt": "Another question?"
    },
    "not those of the item": {
        "id": "item-0", "annotator": "anna", "ranking": [[0], [1], [2]], "responses": ["other", "b", "c"]
    },
    "`ranking` is missing": {"id": "item-0", "annotator": "anna"},
}


def test_bad_judgements_are_kept_aside_and_good_ones_taken(store: Store) -> None:
    store.add_items(items(2))
    store.add_person("anna")
    good = {"id": "item-0", "annotator": "anna", "ranking": [[2], [0, 1]], "ratings": [1, 1, 7], "seconds": 12.5}
    by_text = {**items(2)[1], "annotator": "anna", "ranking": [[0], [1], [2]]}
    outcome = store.add_judgements([*BAD_JUDGEMENTS.values(), good, good, by_text])
    assert outcome.added == 2 and outcome.known_already == 1
    for reason, reject in zip(BAD_JUDGEMENTS, outcome.rejects, strict=True):
        assert reason in reject["reason"], reject
    assert store.add_judgements([BAD_JUDGEMENTS["no annotator 'zoe'"]], add_people=True).added == 1
    assert sorted((row["id"], row["annotator"]) for row in export(store, "rankings")) == [("item-0", "anna"),
                                                                                          ("item-0", "zoe"),
                                                                                          ("item-1", "anna")]


@settings(max_examples=80, deadline=None)
@given(st.lists(st.lists(st.integers(-2, 6), max_size=4), max_size=5), st.integers(2, 5))
def test_a_ranking_is_taken_only_when_it_names_each_response_once(ranking: list[list[int]], count: int) -> None:
    good = sorted(index for group in ranking for index in group) == list(range(count)) and all(ranking)
    try:
        assert rows.ranking(ranking, count, tied=True) == [sorted(group) for group in ranking] and good
    except TriviumError:
        assert not good


def test_removing_a_person_keeps_the_work(store: Store) -> None:
    store.add_items(items(4))
    lead, anna = store.add_person("lead", "lead"), store.add_person("anna")
    judge_all(store, anna)
    store.remove_person(anna, forget=True)
    assert len(list(export(store, "rankings"))) == 4 and {row["annotator"]
                                                          for row in export(store, "rankings")} == {f"person {anna}"}
    with pytest.raises(Conflict):
        store.next_work(anna)
    assert store.add_person("anna") != anna  # the name is free again
    with pytest.raises(Conflict, match="last lead"):
        store.remove_person(lead)
    with pytest.raises(Conflict, match="last lead"):
        store.change_role(lead, "annotator")


def test_disputed_items_are_settled_and_the_settled_ranking_is_exported(store: Store) -> None:
    store.change_settings(disputed_below=0.6, disputed_skips=2, overlap=3)
    store.add_items(items(3))
    people = [store.add_person(name) for name in ("anna", "ben", "carl")]
    lead = store.add_person("lead", "lead")
    for person in people:
        while task := store.next_work(person):
            if task.item == "item-2" and person != people[0]:
                store.skip(task.id, person, "unclear")
            else:
                upside_down = task.item == "item-1" and person == people[1]
                store.judge(task.id, person, [[2], [1], [0]] if upside_down else [[0], [1], [2]], [4, 4, 4])
    with store.state() as state:
        assert next((item.id, round(agreed, 3), skips)
                    for item, agreed, skips in disputed(state)) == ("item-1", round(1 / 3, 3), 0)
        assert {item.id for item, _, _ in disputed(state)} == {"item-1", "item-2"}
    store.settle("item-1", lead, [[1], [0], [2]])
    with store.state() as state:
        assert {item.id for item, _, _ in disputed(state)} == {"item-2"}
    assert [row["annotator"] for row in export(store, "rankings") if row["id"] == "item-1"] == ["lead"]


def test_exports_are_read_by_the_stages_and_split_by_prompt(store: Store, tmp_path: Path) -> None:
    store.change_settings(heldout=0.4, overlap=2, repeat_share=0)
    store.add_items(items(40) + [{"prompt": "Tell me"}])
    anna, ben = store.add_person("anna"), store.add_person("ben")
    judge_all(store, anna)
    judge_all(store, ben, [[2], [0], [1]])
    task = store.next_work(anna, "write")
    assert task is not None and task.prompt == [{"role": "user", "content": "Tell me"}]
    store.write(task.id, anna, [*task.prompt, {"role": "assistant", "content": "Gladly."}])
    own = store.next_work(anna, "write")
    assert own is not None and own.item is None
    store.write(own.id, anna, [{"role": "user", "content": "My own"}, {"role": "assistant", "content": "Yes."}])
    store.add_thumb(PROMPT, "Hi!", True, who="visitor", model="m")
    store.add_thumb(PROMPT, "Hi!", False, who="visitor", model="m")  # changed their mind
    store.add_thumb(PROMPT, "Ho!", True, who="visitor")
    store.add_thumb(PROMPT, "Ho!", None, who="visitor")  # took it back
    store.add_choice(PROMPT, ["Hi!", "Ho!"], [[1], [0]], who="visitor", models=["a", "b"])
    store.add_choice("Bye", ["1", "2"], None)
    counts = export_all(store, tmp_path / "out")
    assert counts == {
        "demonstrations": 2, "rankings": 81, "pairs": 40 * 2 + 40 * 3 + 1, "ratings": 240,
        "thumbs": 240 + 1 + 2, "skips": 0, "marks": 0
    }
    read = {
        kind: [json.loads(line)
               for line in (tmp_path / "out" / f"{kind}.jsonl").read_text().splitlines()]
        for kind in counts
    }
    assert all(comparison(row)["ranking"] == row["ranking"]
               for row in read["rankings"]) and all(comparison(row) for row in read["pairs"])
    assert [demonstration(row)["messages"][-1]["content"] for row in read["demonstrations"]] == ["Gladly.", "Yes."]
    assert next(row["label"] for row in read["thumbs"] if row["source"] == "chat") is False
    splits: dict[str, set[str]] = {}
    for kind in ("rankings", "pairs", "ratings", "thumbs"):
        for row in read[kind]:
            splits.setdefault(rows.prompt_key(row["prompt"]), set()).add(row["split"])
    assert all(len(found) == 1 for found in splits.values()) and Counter(map(str, splits.values()))["{'heldout'}"] > 6


def test_all_bad_needs_no_ranking_and_prefers_nothing(store: Store) -> None:
    store.add_items(items(1))
    anna = store.add_person("anna")
    task = store.next_work(anna)
    assert task is not None
    with pytest.raises(TriviumError, match="tied"):
        store.judge(task.id, anna, [[0, 1, 2]], [4, 4, 4])
    store.judge(task.id, anna, all_bad=True)
    assert not list(export(store, "rankings")) and not list(export(store, "pairs"))
    assert [row["label"] for row in export(store, "thumbs")] == [False] * 3


def test_nobody_answers_for_others(store: Store) -> None:
    store.add_items(items(2))
    anna, ben = store.add_person("anna"), store.add_person("ben")
    task = store.next_work(anna)
    assert task is not None
    for call in (lambda: store.judge(task.id, ben, [[0], [1], [2]]), lambda: store.task(task.id, ben),
                 lambda: store.skip(task.id, ben, "other"), lambda: store.renew(task.id, ben),
                 lambda: store.task(10**9, ben)):
        with pytest.raises(Conflict):
            call()


def test_two_stores_on_one_project_share_its_work(store: Store, project: Path) -> None:
    """Many threads in two stores, as of two processes: nobody gets an item twice, no overlap is exceeded, no answer is
    lost."""
    store.change_settings(overlap=2, repeat_share=0)
    store.add_items(items(12))
    people = [store.add_person(f"p{i}") for i in range(6)]
    with Store(project) as other, ThreadPoolExecutor(6) as pool:
        done = list(
            pool.map(lambda pair: judge_all(pair[0], pair[1]),
                     [((store, other)[i % 2], person) for i, person in enumerate(people)]))
    found = [(row["id"], row["annotator"]) for row in export(store, "rankings")]
    assert sum(done) == 24 == len(found) == len(set(found)) and set(Counter(item for item, _ in found).values()) == {2}


def test_settings_are_checked_and_kept(store: Store, project: Path) -> None:
    with pytest.raises(TriviumError, match="did you mean 'overlap'"):
        store.change_settings(overlpa=3)
    with pytest.raises(TriviumError, match="overlap is 0; it must be at least 1"):
        store.change_settings(overlap=0)
    store.change_settings(overlap=4, title="Taste")
    with Store(project) as again:
        assert again.settings.overlap == 4 and again.settings.title == "Taste"


def test_the_panel_agrees_about_as_often_as_people_do(store: Store) -> None:
    """Simulated annotators through the same store; a program judging the true order is an annotator like any other."""
    wanted = prompts(Town(3), 3, 40, "preference")
    store.add_items([{
        **row, "responses": [
            row["truth"].get("answer", "Yes.") if isinstance(row["truth"], dict) else "Yes.", "I do not know.",
            "Hello there!", ""
            "You should ask somebody else, because I really have no idea about it at all."
        ]
    } for row in wanted])
    store.change_settings(overlap=3, repeat_share=0)
    counts = panel(store, annotators=3, seed=1)
    assert sum(counts.values()) > 60
    assert annotate(store, "oracle", lambda task, item: {"ranking": [[0], [1], [2], [3]]}, most=2) <= 2
    made = Dashboard(store).figures()
    figures, people = made["agreement"], made["people"]
    agreement = figures["agreement"]
    assert 0.55 < agreement["value"] < 0.95 and agreement["low"] < agreement["value"] < agreement["high"]
    assert 0.3 < figures["first"]["value"] < 0.7 and figures["alpha"]["n"] > 20
    assert made["progress"]["seconds"] is not None
    assert {person["kind"] for person in people} == {"simulated", "ai"} and people[0]["agreement"]["n"] > 10


def test_without_a_project_there_is_a_clear_error(tmp_path: Path) -> None:
    with pytest.raises(TriviumError, match="no feedback project"):
        Store(tmp_path / "nothing")
    (tmp_path / "feedback.sqlite").write_bytes(b"this is no database at all, only some text that is long enough")
    with pytest.raises(TriviumError, match="cannot be opened"):
        Store(tmp_path)
    with pytest.raises(TriviumError, match="not a PostgreSQL URL"):
        Store("mysql://somebody:secret@host/name")


def test_from_the_command_line(tmp_path: Path) -> None:
    run, project = CliRunner().invoke, str(tmp_path / "p")
    lines = [json.dumps(row) for row in items(5)]
    (tmp_path / "items.jsonl").write_text(
        "\n".join([*lines, "no json", json.dumps({"prompt": "x", "responses": ["a"]}), lines[0]]) + "\n")
    (tmp_path / "said.jsonl").write_text("".join(
        json.dumps({"id": f"item-{i}", "annotator": who, "ranking": [[0], [1], [2]]}) + "\n"
        for i in range(5)
        for who in ("anna", "ben")))
    assert run(app, ["feedback", "create", project, "--set", "overlap=3"]).exit_code == 0
    said = run(app, ["feedback", "import", project, str(tmp_path / "items.jsonl")])
    assert "5 added, 1 there already, 2 refused" in said.output
    refused = [json.loads(line) for line in (tmp_path / "items.jsonl.rejects.jsonl").read_text().splitlines()]
    assert [(row["row"], row["text"].strip()) for row in refused] == [(6, "no json"),
                                                                      (7, '{"prompt": "x", "responses": ["a"]}')]
    assert "0 added, 0 there already, 10 refused" in run(
        app, ["feedback", "judgements", project, str(tmp_path / "said.jsonl")]).output
    both = [str(tmp_path / "items.jsonl"), str(tmp_path / "more.jsonl"), "--rejects", str(tmp_path / "kept.jsonl")]
    (tmp_path / "more.jsonl").write_text('{"prompt": "y", "responses": ["b"]}\n')
    assert run(app, ["feedback", "import", project, *both
                     ]).exit_code == 0  # what is refused of one file is not lost by the next
    assert [Path(json.loads(line)["file"]).name
            for line in (tmp_path / "kept.jsonl").read_text().splitlines()] == ["items.jsonl"] * 2 + ["more.jsonl"]
    assert "10 added" in run(app, ["feedback", "judgements", project,
                                   str(tmp_path / "said.jsonl"), "--add-people"]).output
    assert "/invite/" in run(app, ["feedback", "invite", project, "--role", "lead"]).output
    assert "anna" in run(app, ["feedback", "people", project]).output
    assert json.loads(run(app,
                          ["feedback", "status", project, "--json"]).output)["agreement"]["agreement"]["value"] == 1.0
    assert "Kendall's W of the rankings" in run(app, ["feedback", "status", project]).output
    assert run(app, ["feedback", "remove", project, "anna", "--forget"]).exit_code == 0
    assert "rankings.jsonl: 10 rows" in run(app, ["feedback", "export", project, "--to", str(tmp_path / "out")]).output
    with pytest.raises(TriviumError, match="no person 'zoe'"):
        run(app, ["feedback", "remove", project, "zoe"], catch_exceptions=False)


def test_passwords_and_tokens_are_not_in_the_database(store: Store) -> None:
    from trivium.feedback.accounts import Accounts
    doors = Accounts(store)
    session = doors.accept(invite := doors.invite(), "anna", "a very long password", "here")
    with store.engine.connect() as connection:
        held = "".join(
            str(tuple(row))
            for table in ("people", "sessions", "invites", "events")
            for row in connection.execute(sql.text(f"SELECT * FROM {table}")))
    assert "$argon2id$" in held and not any(secret in held for secret in (invite, session, "a very long password"))
