"""Texts rendered or as their source, and pictures in prompts."""

from __future__ import annotations

import base64
import json
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sql
from annotating import Served
from playwright.sync_api import expect
from test_uploads import send

from trivium.errors import TriviumError
from trivium.feedback import rows
from trivium.feedback.exports import export
from trivium.feedback.pictures import apart
from trivium.feedback.store import Store

Visit = Callable[..., Any]
MARKDOWN = ("# Bread\n\nUse **water** and `salt`:\n\n| day | grams |\n|---|---:|\n| 1 | 200 |\n\n"
            "```python\nx = 1 < 2\n```\n\nArea \\[ a_1 + a_2 \\] or $x_i$.\n\n- one\n- two\n\n"
            "![a picture](https://elsewhere.example/x.png) <img src=x onerror=alert(1)> [bad](javascript:alert(1))")


def png(red: int = 200) -> bytes:
    """A picture of 40 by 30 points in one colour."""
    def chunk(kind: bytes, data: bytes) -> bytes:
        return len(data).to_bytes(4, "big") + kind + data + zlib.crc32(kind + data).to_bytes(4, "big")
    lines = b"".join(b"\0" + bytes([red, 90, 40]) * 40 for _ in range(30))
    return (b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", (40).to_bytes(4, "big") + (30).to_bytes(4, "big") + b"\x08\x02\0\0\0")
            + chunk(b"IDAT", zlib.compress(lines)) + chunk(b"IEND", b""))


def url(data: bytes, kind: str = "image/png") -> str:
    return f"data:{kind};base64,{base64.b64encode(data).decode()}"


def pictured(*urls: str, text: str = "What is this?", **more: Any) -> dict[str, Any]:
    parts = [{"type": "text", "text": text}, *({"type": "image_url", "image_url": {"url": one}} for one in urls)]
    return {"prompt": [{"role": "user", "content": parts}], **more}


def test_pictures_are_kept_shown_to_members_and_exported_as_they_came(served: Served) -> None:
    store, answers = served.store, ["A brown square.", "A cat."]
    given = [pictured(url(png()), responses=answers), pictured(url(png(7)), responses=answers),
             pictured(url(png()), text="")]
    outcome = store.add_items([*given, given[0]])
    assert (outcome.added, outcome.known_already) == (3, 1), outcome.rejects  # other pictures make another item
    anna = store.add_person("anna")
    task = store.next_work(anna)
    assert task and task.prompt == [{"role": "user", "content": "What is this?"}]
    name = task.pictures[0]["picture"]
    store.judge(task.id, anna, [[0], [1]], [7, 1])
    (row,) = export(store, "rankings")
    assert row["prompt"] in [one["prompt"] for one in given]
    work = store.next_work(anna, "write")
    assert work
    store.write(work.id, anna, [*work.prompt, {"role": "assistant", "content": "A square."}])
    (written,) = export(store, "demonstrations")
    assert written["messages"][0]["content"][1]["image_url"]["url"] == url(png())
    with served.client("anna") as client:
        shown = client.get(f"/picture/{name}")
        assert shown.content in (png(), png(7)) and shown.headers["content-type"] == "image/png"
        assert "img-src 'self'" in shown.headers["content-security-policy"]
        assert client.get(f"/picture/{'0' * 64}").status_code == 404
        client.cookies.clear()
        assert client.get(f"/picture/{name}").status_code == 303  # to the login


def test_rows_with_pictures_are_uploaded(served: Served) -> None:
    lines = [pictured(one, responses=["a", "b"]) for one in (url(png()), "https://elsewhere.example/x.png")]
    with served.client("boss", "lead") as lead:
        page = send(lead, "rows.jsonl", "\n".join(map(json.dumps, lines)).encode())
    assert "1 added, 0 there already, 1 refused" in page.text and "none is fetched" in page.text


@pytest.mark.parametrize(("part", "reason"), [
    ({"type": "image_url", "image_url": {"url": url(b"<svg/>", "image/svg+xml")}}, "type 'image/svg\\+xml'; known"),
    ({"type": "image_url", "image_url": {"url": url(b"no png")}}, "that is no image/png"),
    ({"type": "image_url", "image_url": "data:image/png;base64,?"}, "not base64"),
    ({"type": "image", "image": 7}, "does not come with the row"),
    ({"type": "image_url", "image_url": url(png() + bytes(4 << 20))}, "more than 4,194,304"),
    ({"type": "audio"}, "a part of kind 'audio'"), ("text", "a part of kind 'a text'")])
def test_what_is_no_picture_is_refused(part: Any, reason: str) -> None:
    with pytest.raises(TriviumError, match=reason):
        apart([{"role": "user", "content": [part]}])
    with pytest.raises(TriviumError, match=reason):
        rows.item({"prompt": [{"role": "user", "content": [part]}]})


def test_a_project_from_before_pictures_gets_its_table(project: Path) -> None:
    with Store(project, create=True) as store, store.engine.begin() as connection:
        connection.execute(sql.text("DROP TABLE pictures"))
    with Store(project) as store:
        assert store.add_items([pictured(url(png()))]).added == 1
        name = apart(pictured(url(png()))["prompt"])[1][0].name
        assert store.pictures([name]) == {name: ("image/png", png())}


@pytest.mark.browser
def test_texts_are_rendered_or_shown_as_their_source(served: Served, visit: Visit) -> None:
    served.store.add_items([{**pictured(url(png()), text=MARKDOWN), "responses": [MARKDOWN + " A", "plain *b*"]}])
    page = visit("anna")
    elsewhere: list[str] = []
    page.on("request", lambda request: elsewhere.append(request.url) if "elsewhere" in request.url else None)
    page.goto("/compare")
    prompt = page.locator(".prompt .text")
    expect(prompt.locator("table td.right")).to_have_text("200")
    assert prompt.locator("pre code").inner_text() == "x = 1 < 2" and prompt.locator("h2").inner_text() == "Bread"
    assert prompt.locator(".math").all_inner_texts() == ["a_1 + a_2", "x_i"]
    assert prompt.locator("img, script, a[href^=javascript]").count() == 0 and not elsewhere
    assert "<img src=x onerror=alert(1)>" in prompt.inner_text()
    shown = page.locator(".prompt .picture img")
    assert shown.evaluate("(one) => [one.complete, one.naturalWidth]") == [True, 40]
    before = page.locator(".chip .short").all_inner_texts()
    page.keyboard.press("a")
    page.keyboard.press(",")
    expect(page.locator("#rendered")).to_have_attribute("aria-pressed", "false")
    assert prompt.evaluate("(one) => one.textContent") == MARKDOWN and prompt.locator("table").count() == 0
    page.reload()  # the browser remembers
    expect(page.locator("#rendered")).to_have_attribute("aria-pressed", "false")
    page.locator("#rendered").focus()
    page.keyboard.press("Enter")
    expect(prompt.locator("table")).to_be_visible()
    assert page.locator(".chip .short").all_inner_texts() == before  # the source's words, either way
    page.locator("#note").evaluate("(one) => one.closest('details').open = true")
    page.locator("#note").press_sequentially("a, b")
    expect(prompt.locator("table")).to_be_visible()
    lead = visit("boss", "lead")
    lead.goto("/lead/items/1")
    expect(lead.locator(".rendered table").first).to_be_visible()
    served.store.change_settings(rendered=False)
    lead.reload()
    expect(lead.locator(".rendered")).to_have_count(0)
