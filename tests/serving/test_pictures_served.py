"""Pictures that clients send: seen by models that see, refused with a reason everywhere else."""

from __future__ import annotations

import base64
import json

import httpx
import numpy as np
import openai
import pytest
from playwright.sync_api import TimeoutError as PlaywrightTimeout
from served import running, write_model

from trivium.api import load
from trivium.feedback.exports import export
from trivium.feedback.store import Store
from trivium.model import folder
from trivium.model.config import VisionConfig
from trivium.model.images import data_url
from trivium.model.vision import SeeingModel
from trivium.serving.models import Limits
from trivium.tokenizer.chat import ChatTokenizer

DRAWN = np.random.default_rng(0).integers(0, 256, (8, 8), np.uint8)


@pytest.fixture(scope="module")
def places(tmp_path_factory):
    place = tmp_path_factory.mktemp("eyes")
    blind = write_model(place / "blind", 0)
    tokenizer = ChatTokenizer.load(blind)
    model = SeeingModel.from_language_model(
        folder.load(blind),
        VisionConfig(size=8, patch=4, hidden_size=24, intermediate_size=32, num_layers=1, num_heads=3, num_kv_heads=3,
                     head_dim=8), tokenizer.pad_id)
    model.vision.initialise(0)
    model.projector.initialise(0)
    model.projector.linear_2.weight.data.mul_(20)
    (place / "seeing").mkdir()
    folder.save(model, place / "seeing", tokenizer.ids)
    tokenizer.save(place / "seeing")
    return {"seeing": place / "seeing", "blind": blind}


@pytest.fixture(scope="module")
def project(tmp_path_factory):
    return tmp_path_factory.mktemp("feedback") / "project"


@pytest.fixture(scope="module")
def server(places, project):
    with running(places, Limits(rows=4, queue=4, body=100_000, context=64), feedback=project) as address:
        yield address


def asking(url, text="to be?"):
    return [{
        "role": "user", "content": [{"type": "image_url", "image_url": {"url": url}}, {"type": "text", "text": text}]
    }]


def test_the_official_client_sends_a_picture(server, places):
    with openai.OpenAI(base_url=server + "/v1", api_key="none", max_retries=0) as client:
        cards = {card.id: card.sees for card in client.models.list()}
        answers = [
            client.chat.completions.create(model="seeing", messages=asking(data_url(picture)), temperature=0,
                                           max_tokens=12) for picture in (DRAWN, 255 - DRAWN)
        ]
        stream = client.chat.completions.create(model="seeing", messages=asking(data_url(DRAWN)), temperature=0,
                                                max_tokens=12, stream=True)
        streamed = "".join(chunk.choices[0].delta.content or "" for chunk in stream)
    assert cards == {"seeing": True, "blind": False}
    said = [answer.choices[0].message.content for answer in answers]
    assert said[0] == streamed == load(places["seeing"]).generate(asking(data_url(DRAWN)), 0.0,
                                                                  12) and said[0] != said[1]
    assert answers[0].usage.prompt_tokens == 3 + 4 + len(ChatTokenizer.load(places["seeing"]).encode("to be?"))


@pytest.mark.parametrize(("model", "url", "says"), [
    ("seeing", "https://example.com/cat.png", "not fetched from an address"),
    ("seeing", "/etc/passwd", "not fetched from an address"),
    ("seeing", "data:image/png;base64,aGVsbG8=", "not a picture that can be read"),
    ("blind", data_url(DRAWN), "reads text alone"),
    ("seeing", {"href": "x"}, "messages.0.content"),
    ("seeing", 7, "messages.0.content"),
], ids=lambda value: str(value)[:24])
def test_what_cannot_be_seen_is_a_bad_request(server, model, url, says):
    answer = httpx.post(server + "/v1/chat/completions",
                        json={"model": model, "messages": asking(url), "max_tokens": 2})
    assert answer.status_code == 400 and says in answer.json()["error"]["message"]
    assert answer.json()["error"]["param"].startswith(
        "messages") and answer.json()["error"]["type"] == "invalid_request_error"


def test_more_pictures_than_the_context_holds_are_refused_unopened(server):
    message = asking("data:image/png;base64," + base64.b64encode(b"never opened").decode())[0]
    message["content"] *= 20
    answer = httpx.post(server + "/v1/chat/completions",
                        json={"model": "seeing", "messages": [message], "max_tokens": 2})
    assert answer.status_code == 400 and answer.json()["error"]["code"] == "context_length_exceeded"


@pytest.mark.browser
def test_a_picture_is_attached_shown_and_sent(chromium, server, project, tmp_path):
    (tmp_path / "a.png").write_bytes(base64.b64decode(data_url(DRAWN).partition(",")[2]))
    (tmp_path / "b.png").write_text("no picture")
    context = chromium.new_context(locale="en-US")
    page = context.new_page()
    page.set_default_timeout(30_000)
    complaints = []
    page.on("console", lambda message: complaints.append(message.text)
            if message.type in ("error", "warning") else None)
    page.goto(server)
    page.wait_for_selector("#model option:nth-child(2)", state="attached")
    page.evaluate("document.querySelector('#temperature').value = 0")  # what a random model draws may be no text
    page.select_option("#model", "blind")
    assert page.is_hidden("#attach")
    page.select_option("#model", "seeing")
    assert page.is_visible("#attach")
    page.fill("#text", "to be?")
    page.set_input_files("#file", tmp_path / "b.png")
    page.wait_for_selector("#refused:has-text('no picture')")  # seen beside what was typed
    assert page.is_hidden("#attached")
    page.set_input_files("#file", tmp_path / "a.png")
    page.wait_for_selector("#attached:not([hidden])")
    assert page.is_hidden("#refused")
    with page.expect_request("**/v1/chat/completions") as sent:
        page.press("#text", "Enter")
    content = json.loads(sent.value.post_data)["messages"][-1]["content"]
    assert [part["type"] for part in content
            ] == ["image_url", "text"] and content[0]["image_url"]["url"].startswith("data:image/png;base64,")
    page.wait_for_selector("#log[aria-busy=false] .turn:last-child .tools .up")
    assert page.locator(".mine img").evaluate("image => image.naturalWidth") == 8 and page.is_hidden("#attached")
    assert page.locator(".card .words").last.inner_text().strip()
    page.locator(".card .up").last.click()
    try:
        page.wait_for_selector(".card .up[aria-pressed=true]")
    except PlaywrightTimeout:
        pytest.fail(f"the thumb was not taken: {page.locator('.card .tools').last.inner_text()!r}, {complaints}")
    context.close()
    assert complaints == []
    with Store(project) as store:
        (row,) = export(store, "thumbs")
    assert row["prompt"][0]["content"].startswith("[picture ") and row["prompt"][0]["content"].endswith("to be?")
