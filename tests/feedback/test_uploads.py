"""Rows that a lead uploads in the browser."""

from __future__ import annotations

import io
import json
from pathlib import Path
from typing import Any

import httpx
import pytest
from annotating import Served
from typer.testing import CliRunner

from trivium.cli.app import app
from trivium.feedback.store import Store
from trivium.feedback.uploads import item_of

LINES = [{"prompt": "A?", "responses": ["x", "y"]}, {"instruction": "Write!", "system": "Be brief."},
         {"prompt": "B?", "responses": ["only one"]}, {"prompt": "C?", "chosen": "good", "rejected": "bad"}]


def jsonl() -> bytes:
    return "\n".join(json.dumps(row) for row in LINES).encode() + b"\nno json\n"


def csv() -> bytes:
    return ("id,问题,response_a,response_b,response_c\n"
            "one,\"Why, though?\",because,\"it, is\",\n"
            "two,第二,甲,乙,丙\n"
            "three,,x,y,z\n").encode()


def xlsx() -> bytes:
    openpyxl = pytest.importorskip("openpyxl")
    book = openpyxl.Workbook()
    for row in (["prompt", "responses"], ["D?", '["one", "two"]'], ["E?", None]):
        book.active.append(row)
    kept = io.BytesIO()
    book.save(kept)
    return kept.getvalue()


def send(lead: httpx.Client, name: str, data: bytes, csrf: str | None = None) -> httpx.Response:
    return lead.post("/lead/upload", data={"csrf": csrf or lead.headers["x-csrf-token"]}, files={"file": (name, data)})


def kept(store: Store) -> dict[str, tuple[str, list[str]]]:
    """Every item's prompt and responses."""
    return {event.body["item"]: (event.body["prompt"][-1]["content"], event.body.get("responses", []))
            for event in store.events(["item"])}


def test_rows_of_every_kind_come_in_and_what_is_refused_is_shown(served: Served) -> None:
    with served.client("boss", "lead") as lead:
        page = send(lead, "rows.jsonl", jsonl())
        assert page.status_code == 200 and "3 added, 0 there already, 2 refused" in page.text
        assert "one response only" in page.text and '<th scope="row">3</th>' in page.text
        assert '<th scope="row">5</th>' in page.text and "no json" in page.text
        assert "0 added, 3 there already" in send(lead, "rows.jsonl", jsonl()).text
        page = send(lead, "rows.csv", csv())
        assert "2 added, 0 there already, 1 refused" in page.text and "there is no prompt" in page.text
        assert "2 added" in send(lead, "../../rows.XLSX", xlsx()).text
        found = kept(served.store)
        assert found["one"] == ("Why, though?", ["because", "it, is"]) and found["two"] == ("第二", ["甲", "乙", "丙"])
        assert sorted(found.values())[:2] == [("A?", ["x", "y"]), ("C?", ["good", "bad"])]
        assert ("D?", ["one", "two"]) in found.values() and ("E?", []) in found.values()
        assert [event.who for event in served.store.events(["item"])] == [1] * 7


def test_what_is_no_file_of_rows_is_refused(served: Served) -> None:
    with served.client("boss", "lead") as lead, served.client("anna") as anna:
        for name, data in {"a.pdf": b"%PDF", "": b"x", "rows": b"{}", "a.jsonl\0.exe": b"{}"}.items():
            answer = send(lead, name, data)
            assert answer.status_code == 422 and not kept(served.store), name
        broken = send(lead, "a.xlsx", b"PK\x03\x04 no archive")
        assert broken.status_code == 200 and "0 added, 0 there already, 1 refused" in broken.text
        evil = send(lead, "<b>.jsonl", b'{"prompt": "<script>alert(1)</script>", "responses": ["<img>"]}')
        assert "<script>alert" not in evil.text and "<b>.jsonl" not in evil.text
        assert send(lead, "a.jsonl", b" " * 2_000_001).status_code == 413
        assert send(lead, "a.jsonl", jsonl(), csrf="0" * 64).status_code == 403
        assert send(anna, "a.jsonl", jsonl()).status_code == 403 and anna.get("/lead/upload").status_code == 403
        assert not kept(served.store)


def test_the_command_line_reads_the_same_files(tmp_path: Path) -> None:
    (tmp_path / "rows.csv").write_bytes(csv())
    done = CliRunner().invoke(app, ["feedback", "create", str(tmp_path / "p")])
    assert done.exit_code == 0
    done = CliRunner().invoke(app, ["feedback", "import", str(tmp_path / "p"), str(tmp_path / "rows.csv")])
    assert done.exit_code == 0 and "2 added, 0 there already, 1 refused" in done.output, done.output
    (refused,) = (tmp_path / "rows.csv.rejects.jsonl").read_text().splitlines()
    assert json.loads(refused)["row"] == 3
    with Store(tmp_path / "p") as store:
        assert set(kept(store)) == {"one", "two"}


def test_what_a_row_lacks_is_said_so_that_it_can_be_mended(store: Store) -> None:
    outcome = store.add_items([{"prompts": "A?"}, {"text": "A?"}, {"prompt": [
        {"role": "user", "content": [{"type": "image_url", "image_url": {"url": "x"}}]}]}])
    assert [reject["reason"] for reject in outcome.rejects] == [
        "the field `prompt` is missing; call 'prompts' so", "the field `prompt` is missing",
        "message 1 has a picture that does not come with the row, and none is fetched; write it as "
        "data:image/png;base64,..."]


@pytest.mark.parametrize(("row", "prompt", "responses"), [
    ({"query": "Q", "回答1": "a", "回答2": "b"}, "Q", ["a", "b"]),
    ({"question": "Q", "answer_2": "b", "answer_10": "j", "answer_1": "a"}, "Q", ["a", "b", "j"]),
    ({"messages": [{"role": "user", "content": "Q"}], "responses": ["a", "b"]}, "Q", ["a", "b"]),
    ({"提示": "Q"}, "Q", None), ({"prompt": "Q", "response_1": "", "response_2": None}, "Q", None),
    ({"prompt": "Q", "response_1": "a", "response_2": ""}, "Q", ["a"]), ({"prompt": "Q", "chosen": "a"}, "Q", ["a"]),
])
def test_columns_have_the_names_that_recipes_know(row: dict[str, object], prompt: str,
                                                  responses: list[str] | None) -> None:
    made = item_of(row)
    assert made["prompt"][-1]["content"] == prompt and made.get("responses") == responses


def parquet() -> bytes:
    """Columns whose names say nothing, and a conversation of several turns as a list."""
    import pyarrow
    import pyarrow.parquet
    talk = [{"role": "user", "content": "Bake?"}, {"role": "assistant", "content": "What?"},
            {"role": "user", "content": "Bread."}]
    kept = io.BytesIO()
    pyarrow.parquet.write_table(pyarrow.table({
        "q": [talk, [{"role": "user", "content": "Second?"}]], "left": ["Flour.", "x"], "right": ["Water.", "y"],
        "nr": ["a1", "a2"], "note": ["n", "m"], "junk": [1, 2]}), kept)
    return kept.getvalue()


TALK = ["Bake?", "What?", "Bread."]


def test_columns_of_a_parquet_file_are_named_on_the_page(served: Served) -> None:
    with served.client("boss", "lead") as lead, served.client("other", "lead") as other:
        page = send(lead, "rows.parquet", parquet())  # no row has a prompt, so it asks
        assert "What are the columns?" in page.text and "there is no prompt" in page.text and "Flour." in page.text
        token = page.text.partition('name="token" value="')[2].partition('"')[0]
        columns = ["q", "left", "right", "nr", "note", "junk"]

        def say(client: httpx.Client, **roles: str) -> httpx.Response:
            return client.post("/lead/upload/columns", data={
                "csrf": client.headers["x-csrf-token"], "token": token, "column": columns,
                "role": [roles.get(one, "") for one in columns]})
        again = say(lead, left="response")
        assert "Choose the column of the prompt" in again.text
        token = again.text.partition('name="token" value="')[2].partition('"')[0]
        roles = {"q": "prompt", "left": "response", "right": "response", "nr": "id", "note": "keep"}
        assert say(other, **roles).status_code == 422  # another's file
        assert "2 added, 0 there already, 0 refused" in say(lead, **roles).text
        assert "upload it again" in say(lead, **roles).text
    item = served.store.item("a1")
    assert [message["content"] for message in item["prompt"]] == TALK and item["more"] == {"note": "n"}
    assert item["responses"] == ["Flour.", "Water."]


def test_conversations_that_end_differently_are_compared(served: Served) -> None:
    turns = [{"role": role, "content": text} for role, text in zip(("user", "assistant", "user"), TALK)]
    row = {"chosen": [*turns, {"role": "assistant", "content": "Flour."}],
           "rejected": [*turns, {"role": "assistant", "content": "Sand."}]}
    spoken = {name: "".join(f"\n\n{who}: {text}" for who, text in zip(
        ("Human", "Assistant", "Human", "Assistant"), [*TALK, answer])) for name, answer in
        (("chosen", "Gold."), ("rejected", "Lead."))}
    with served.client("boss", "lead") as lead:
        page = send(lead, "rows.jsonl", "\n".join(map(json.dumps, (row, spoken))).encode())
        assert "2 added" in page.text
    anna = served.store.add_person("anna")
    for expected in (["Flour.", "Sand."], ["Gold.", "Lead."]):
        task = served.store.next_work(anna)
        assert task and [message["content"] for message in task.prompt] == TALK
        assert sorted(task.responses) in (["Flour.", "Sand."], ["Gold.", "Lead."]) and expected
        served.store.judge(task.id, anna, [[0], [1]], [7, 1])
    from trivium.feedback.exports import export
    assert all([message["content"] for message in one["prompt"]] == TALK for one in export(served.store, "rankings"))


@pytest.mark.browser
def test_columns_are_chosen_in_the_browser(served: Served, visit: Any) -> None:
    page = visit("boss", "lead", locale="zh-CN", viewport={"width": 390, "height": 844})
    page.goto("/lead/upload")
    rows = b"question,mine,theirs\nWhy?,yes,no\nWhere?," + 30 * b"long " + b",no\n"
    page.locator("input[type=file]").set_input_files({"name": "r.csv", "mimeType": "text/csv", "buffer": rows})
    page.get_by_role("button", name="指定各列的含义").click()
    assert page.get_by_label("question").input_value() == "prompt"  # guessed by its name
    page.get_by_label("mine").select_option("response")
    page.get_by_label("theirs").select_option("response")
    assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")
    page.keyboard.press("Tab")
    page.get_by_role("button", name="上传", exact=True).press("Enter")
    page.wait_for_selector(".message.good")
    assert list(kept(served.store).values()) == [
        ("Why?", ["yes", "no"]), ("Where?", [30 * "long ", "no"])]
