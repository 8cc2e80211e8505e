"""The chat page in a real browser."""

from __future__ import annotations

import json

import pytest

from trivium.feedback.exports import export
from trivium.feedback.store import Store
from trivium.serving.protocol import ChatRequest
from trivium.serving.signing import Signer, as_row

pytestmark = pytest.mark.browser


@pytest.fixture
def opened(chromium, server):
    """Opens the page; at the end, whatever the browser complained about fails the test."""
    complaints, contexts = [], []

    def open_page(**options):
        context = chromium.new_context(**{"locale": "en-US", "color_scheme": "light", **options})
        contexts.append(context)
        page = context.new_page()
        page.set_default_timeout(30_000)
        page.on(
            "console", lambda message: complaints.append(message.text)
            if message.type in ("error", "warning") and "net::ERR_FAILED" not in message.text else None)
        page.on("pageerror", lambda error: complaints.append(str(error)))
        page.goto(server)
        page.wait_for_selector("#model option:nth-child(2)", state="attached")
        page.evaluate(
            "document.querySelector('#temperature').value = 0")  # a random model's likeliest tokens are printable here
        return page

    yield open_page
    for context in contexts:
        context.close()
    assert complaints == []


def ask(page, text, done=".tools .up"):
    page.fill("#text", text)
    page.press("#text", "Enter")
    page.wait_for_selector(f"#log[aria-busy=false] .turn:last-child {done}")


def listen_slowly(page):
    """Let answers come at 20 kB a second, so that a long one is still being written when the page is looked at, however
    busy the machine."""
    session = page.context.new_cdp_session(page)
    session.send("Network.enable")
    session.send("Network.emulateNetworkConditions",
                 {"offline": False, "latency": 0, "downloadThroughput": 20_000, "uploadThroughput": -1})


def speak(page, feedback, *deltas):
    """Let the server's answer be given parts, signed as the server signs what it sampled."""
    with Store(feedback) as store:
        signer = Signer(store.secret)
    thought, words = ("".join(delta.get(name, "") for delta in deltas) for name in ("reasoning_content", "content"))

    def answer(route):
        asked = ChatRequest.model_validate(route.request.post_data_json)
        signature = signer.sign(asked.user or "", asked.model, asked.messages, as_row(thought, words))
        choices = [{"index": 0, "delta": delta, "finish_reason": None} for delta in deltas]
        choices.append({"index": 0, "delta": {}, "finish_reason": "stop", "signature": signature})
        body = "".join(f"data: {json.dumps({'choices': [choice]})}\n\n" for choice in choices)
        route.fulfill(body=body + "data: [DONE]\n\n", content_type="text/event-stream")

    page.route("**/v1/chat/completions", answer)


def test_a_conversation_and_a_thumb(opened, feedback):
    page = opened()
    page.select_option("#model", "two")
    assert page.inner_text("#stage") == "fine-tuned"
    ask(page, "To be?")
    ask(page, "Or not?")
    assert page.locator(".turn").count() == 4 and "two" in page.locator(".card .by").last.inner_text()
    assert page.locator(".card .words").last.inner_text().strip()
    with page.expect_request("**/feedback/thumb") as told:
        page.locator(".card .down").last.click()
    answer = told.value.post_data_json["completion"]
    page.wait_for_selector(".down[aria-pressed=true]")
    with Store(feedback) as store:
        (row,) = (row for row in export(store, "thumbs") if row["completion"] == answer)
    assert row["label"] is False and row["model"] == "two"
    assert [m["role"] for m in row["prompt"]] == ["user", "assistant", "user"]
    page.click("#fresh")
    assert page.locator(".turn").count() == 0 and page.is_visible("#welcome")


def test_side_by_side_is_blind_until_the_vote(opened, feedback):
    page = opened()
    page.click("#duel")
    ask(page, "To be?", ".vote")
    assert page.locator(".pair .card").count() == 2
    assert "one" not in page.inner_text("#log") and "two" not in page.inner_text("#log")
    assert page.is_disabled("#send")
    page.keyboard.press("2")
    page.wait_for_selector(".card.won")
    assert sorted(page.locator(".pair .by b").all_inner_texts()) == ["one", "two"]
    with Store(feedback) as store:
        row = next(row for row in export(store, "rankings") if row["annotator"].startswith("visitor-"))
    assert row["prompt"] == [{"role": "user", "content": "To be?"}] and row["ranking"] == [[1], [0]]
    assert row["models"] == page.locator(".pair .by b").all_inner_texts()


def test_markup_of_a_model_stays_text(opened, feedback):
    page = opened()
    speak(page, feedback, {"content":
        "<img src=x onerror=\"document.title='broken'\"><script>document.title='broken'</script>\n\n"
        "**bold** and `code`\n\n```\n<b>x</b>\n```"})
    ask(page, "<b onmouseover=alert(1)>hello</b>")
    assert page.inner_text(".mine .words") == "<b onmouseover=alert(1)>hello</b>"
    words = page.locator(".card .words")
    assert "<img src=x" in words.inner_text() and "<script>" in words.inner_text()
    assert words.locator("img, script, b").count() == 0 and page.title() == "Trivium"
    assert words.locator("strong").inner_text() == "bold" and words.locator("pre code").inner_text() == "<b>x</b>"


def test_stopping_and_the_keyboard(opened):
    page = opened()
    listen_slowly(page)
    page.evaluate("document.querySelector('#length').max = 1900; document.querySelector('#length').value = 1900")
    page.fill("#text", "To be?")
    page.press("#text", "Shift+Enter")
    assert page.input_value("#text") == "To be?\n"
    page.press("#text", "Enter")
    page.wait_for_selector(".card.writing .words p")
    page.keyboard.press("Escape")
    page.wait_for_selector("text=Stopped.")
    page.wait_for_selector("#log[aria-busy=false]")


def test_errors_are_shown(opened):
    page = opened()
    page.route("**/v1/chat/completions", lambda route: route.abort())
    page.fill("#text", "Hello")
    page.press("#text", "Enter")
    page.wait_for_selector(".fault:has-text('cannot be reached')")
    page.unroute("**/v1/chat/completions")
    with page.expect_response("**/v1/chat/completions"):
        page.click(".fault button")
    page.wait_for_selector("#log[aria-busy=false] .up")


def test_on_a_dark_phone_in_chinese(opened):
    page = opened(locale="zh-CN", color_scheme="dark", viewport={"width": 360, "height": 700}, is_mobile=True,
                  has_touch=True)
    assert page.get_attribute("html", "lang") == "zh-CN" and "说点什么吧" in page.inner_text("h1")
    page.click("#duel")
    ask(page, "你好，世界。" * 20, ".vote")
    assert "哪个回答更好" in page.inner_text(".vote legend")
    assert page.evaluate("document.documentElement.scrollWidth") <= 360
    assert page.evaluate("document.querySelector('.top').offsetHeight") < 64  # one row
    assert page.evaluate(
        "[...document.querySelectorAll('button')].filter((one) => one.offsetParent)"
        ".every((one) => Math.min(one.offsetWidth, one.offsetHeight) >= 40)"
    )
    assert page.evaluate("getComputedStyle(document.documentElement).colorScheme") == "dark"
    page.click(".vote button")
    page.wait_for_selector(".card.won")
    assert page.locator(".by .stage").all_inner_texts() == ["监督微调"
                                                            ] * 2 and page.locator(".by .stage").first.is_visible()
    page.click("#language")
    assert page.get_attribute("html", "lang") == "en" and page.get_attribute("#text",
                                                                             "placeholder") == "Write a message"


def test_a_chat_that_is_left_forgets_its_unfinished_answer(opened, feedback):
    page = opened()
    listen_slowly(page)
    page.evaluate("document.querySelector('#length').max = 1900; document.querySelector('#length').value = 1900")
    for leave, back in (("#fresh", None), ("#duel", "#duel")):
        page.fill("#text", "To be?")
        page.press("#text", "Enter")
        page.wait_for_selector(".card.writing .words p")
        page.click(leave)  # begins a new chat in the middle of the answer
        page.wait_for_selector("#log[aria-busy=false]", state="attached")
        assert page.locator(".turn").count() == 0
        if back:
            page.click(back)
    speak(page, feedback, {"content": "Not to be."})
    with page.expect_request("**/v1/chat/completions") as asked:
        ask(page, "Or not?")
    assert asked.value.post_data_json["messages"] == [{"role": "user", "content": "Or not?"}]


def test_reasoning_is_folded_and_goes_with_a_thumb(opened, feedback, tmp_path):
    page = opened()
    speak(page, feedback, {"reasoning_content": "add **"}, {"reasoning_content": "them**"}, {"content": "Four."})
    sent = []
    page.on("request", lambda request: sent.append(request.post_data_json) if "thumb" in request.url else None)
    ask(page, "2+2, thoughtfully?")
    assert page.inner_text(".card > .words") == "Four." and not page.is_visible(".thought .words")
    page.click(".thought summary")
    assert page.inner_text(".thought .words strong") == "them"
    page.click(".tools .up")
    page.wait_for_selector(".tools .up[aria-pressed=true]")
    assert sent[0]["completion"] == "<think>\nadd **them**\n</think>\n\nFour."
