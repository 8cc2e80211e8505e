"""The chat page in a real browser."""

from __future__ import annotations

import json
import re

import pytest

from trivium.feedback.exports import export
from trivium.feedback.store import Store
from trivium.serving.protocol import ChatRequest
from trivium.serving.signing import Signer, as_row

pytestmark = pytest.mark.browser
EXPECTED = re.compile(r"net::ERR_FAILED|a status of (400|507)")
"""What browsers write of requests that a test lets fail."""


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
            if message.type in ("error", "warning") and not EXPECTED.search(message.text) else None)
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
    page.fill("#text", "To be?")
    page.press("#text", "Enter")
    page.wait_for_selector(".card.writing .words p")
    page.click("#fresh")  # begins a new chat in the middle of the answer
    page.wait_for_selector("#log[aria-busy=false]", state="attached")
    assert page.locator(".turn").count() == 0
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


def refuse(page, context, lengths):
    """Let the server say that the context is full: a prompt of so many messages has so many tokens."""
    sent = []

    def answer(route):
        asked = route.request.post_data_json
        sent.append(asked)
        prompt = lengths(asked["messages"])
        if prompt + asked.get("max_tokens", 1) > context:
            message = f"this model's context is {context} tokens; the prompt has {prompt} and more were asked for"
            return route.fulfill(status=400, json={"error": {"message": message, "code": "context_length_exceeded"}})
        choices = [{"choices": [{"index": 0, "delta": {"content": "Yes."}, "finish_reason": "stop"}]},
                   {"choices": [], "usage": {"completion_tokens": 3, "total_tokens": prompt + 3}}]
        route.fulfill(body="".join(f"data: {json.dumps(one)}\n\n" for one in choices) + "data: [DONE]\n\n",
                      content_type="text/event-stream")

    page.route("**/v1/chat/completions", answer)
    return sent


def test_a_full_context_ends_no_chat(opened):
    page = opened()
    sent = refuse(page, 300, lambda messages: 60 * len(messages))
    for number in range(4):
        ask(page, f"Message {number}", ".usage")
    kept = [[message["content"] for message in asked["messages"]] for asked in sent]
    assert kept[-1] == ["Message 2", "Yes.", "Message 3"]  # the oldest turns went
    assert "the oldest 4 messages" in page.locator(".trimmed").last.inner_text()
    assert any(asked["max_tokens"] == 300 - 60 * 3 for asked in sent)  # and before, the answer got what room there was
    assert re.search(r"183 / \d+$", page.locator(".usage").last.inner_text())


def test_a_message_that_no_context_holds_comes_back(opened):
    page = opened()
    sent = refuse(page, 300, lambda messages: sum(len(message["content"]) for message in messages))
    page.fill("#text", "word " * 100)
    page.press("#text", "Enter")
    page.wait_for_selector("#refused:has-text('longer than the model')")
    assert page.input_value("#text") == ("word " * 100).strip() and page.locator(".turn").count() == 0
    page.fill("#text", "Short.")
    page.press("#text", "Enter")
    page.wait_for_selector(".usage")
    assert sent[-1]["messages"] == [{"role": "user", "content": "Short."}]


def test_the_same_answer_twice_locks_nothing(opened, feedback):
    page = opened()
    page.click("#duel")
    speak(page, feedback, {"content": "7."})
    ask(page, "2 + 5?", ".up")
    assert "the same" in page.locator(".turn > .note").inner_text() and page.locator(".vote").count() == 0
    ask(page, "And 1 + 1?", ".up")
    assert page.locator(".pair").count() == 2


def test_a_vote_that_is_refused_can_be_left_out(opened):
    page = opened()
    page.route("**/feedback/choice", lambda route: route.fulfill(
        status=507, json={"error": {"message": "no space left"}}))
    page.click("#duel")
    ask(page, "To be?", ".vote")
    page.keyboard.press("1")
    page.wait_for_selector("legend:has-text('no space left')")
    page.keyboard.press("5")
    page.wait_for_selector("#log[aria-busy=false] .again")
    page.fill("#text", "Or not?")
    assert page.is_enabled("#send")


def test_an_answer_without_a_word_is_no_message(opened, feedback):
    page = opened()
    speak(page, feedback, {"content": ""})
    ask(page, "Hello?", ".note")
    page.unroute("**/v1/chat/completions")
    speak(page, feedback, {"content": "Here."})
    with page.expect_request("**/v1/chat/completions") as sent:
        ask(page, "Anybody?")
    assert sent.value.post_data_json["messages"] == [{"role": "user", "content": "Hello?\n\nAnybody?"}]
    with page.expect_request("**/feedback/thumb"):
        page.locator(".card .up").last.click()
    page.wait_for_selector(".up[aria-pressed=true]")


def test_trouble_at_the_start_is_seen(chromium, server):
    context = chromium.new_context(locale="en-US")
    page = context.new_page()
    page.route("**/v1/models", lambda route: route.abort())
    page.goto(server)
    page.wait_for_selector("#refused:has-text('cannot be reached')")
    page.unroute("**/v1/models")
    page.click("#refused button")
    page.wait_for_selector("#refused", state="hidden")
    page.wait_for_selector("#model option", state="attached")
    context.close()


def test_enter_that_ends_a_composition_sends_nothing(opened):
    page = opened()
    page.fill("#text", "nihao")
    page.evaluate("""document.querySelector('#text').dispatchEvent(
        new KeyboardEvent('keydown', {key: 'Enter', keyCode: 229, bubbles: true, cancelable: true}))""")
    assert page.input_value("#text") == "nihao" and page.locator(".turn").count() == 0


def test_chats_are_kept_found_renamed_exported_and_removed(opened, feedback):
    page = opened()
    speak(page, feedback, {"content": "**Lead** sinks."})
    ask(page, "Which metal sinks?")
    page.click("#fresh")
    ask(page, "And which swims?")
    page.reload()
    page.wait_for_selector(".mine")
    assert page.inner_text(".mine .words") == "And which swims?" and page.inner_text(".card strong") == "Lead"
    page.click("#history")
    page.wait_for_selector("#chats-list li:nth-child(2)")
    page.fill("#chats-find", "metal")
    page.wait_for_selector("#chats-list li:only-child")
    with page.expect_download() as saved:
        page.click("#chats-list .saveMarkdown")
    assert saved.value.path().read_text().split("\n\n") == [
        "# Which metal sinks?", "## You", "Which metal sinks?", "## one", "**Lead** sinks.\n"]
    page.click("#chats-list .rename")
    page.fill("#chats-list input", "Metals")
    page.press("#chats-list input", "Enter")
    page.wait_for_selector("#chats-list .name:has-text('Metals')")
    page.click("#chats-list .name")
    assert page.inner_text(".mine .words") == "Which metal sinks?"
    page.click("#history")
    page.fill("#chats-find", "")
    page.click("#chats-list li:has-text('Metals') .remove")
    page.wait_for_selector("#chats-list li:only-child")
    page.uncheck("#chats-keep")
    page.reload()
    page.wait_for_selector("#model option", state="attached")
    assert page.locator(".turn").count() == 0


def test_versions_of_messages_and_answers_stay(opened, feedback):
    page = opened()
    speak(page, feedback, {"content": "First."})
    ask(page, "One?")
    page.unroute("**/v1/chat/completions")
    speak(page, feedback, {"content": "Second."})
    page.click(".again")
    page.wait_for_selector(".card .words:has-text('Second.')")
    assert "2/2" in page.inner_text(".card .tools")
    page.click(".card .earlierVersion")
    page.wait_for_selector(".card .words:has-text('First.')")
    page.click(".mine .edit")
    page.fill(".editing textarea", "Two?")
    with page.expect_request("**/v1/chat/completions") as sent:
        page.press(".editing textarea", "Enter")
    assert sent.value.post_data_json["messages"] == [{"role": "user", "content": "Two?"}]
    page.wait_for_selector("#log[aria-busy=false] .card .up")
    page.click(".mine .earlierVersion")
    assert page.inner_text(".mine .words") == "One?"


def test_side_by_side_goes_on_with_the_chat(opened, feedback):
    page = opened()
    ask(page, "To be?")
    page.click("#duel")
    assert page.locator(".turn").count() == 2
    page.select_option("#model", "one")
    page.select_option("#other", "one")
    with page.expect_request("**/v1/chat/completions") as sent:
        page.fill("#text", "Or not?")
        page.press("#text", "Enter")
    assert sent.value.post_data_json["model"] == "one" and len(sent.value.post_data_json["messages"]) == 3


def test_all_that_the_api_takes_can_be_asked(opened):
    page = opened()
    page.click("#options")
    for name, value in (("top_p", "0.9"), ("top_k", "40"), ("min_p", "0.05"), ("repetition_penalty", "1.1"),
                        ("seed", "7"), ("stop", "END\nSTOP")):
        page.fill(f"#{name}", value)
    page.fill("#system", "Be brief.")
    page.click("#preset-keep")
    with page.expect_request("**/v1/chat/completions") as sent:
        ask(page, "Go on", ".tools *")
    asked = sent.value.post_data_json
    assert {name: asked[name] for name in ("top_p", "top_k", "min_p", "repetition_penalty", "seed", "stop")} == {
        "top_p": 0.9, "top_k": 40, "min_p": 0.05, "repetition_penalty": 1.1, "seed": 7, "stop": ["END", "STOP"]}
    page.reload()
    page.wait_for_selector("#preset option:nth-child(2)", state="attached")
    page.click("#options")
    page.fill("#system", "")
    page.select_option("#preset", "Be brief.")
    assert page.input_value("#system") == "Be brief."


MARKDOWN = """# Title

A *slanted*, ~~struck~~ `a*b` [link](https://example.com/a_(b)) and [bad](javascript:alert(1)), $x^2$.

- one
- two
  1. inner
  2. more

> said **so**

| a | b |
|---|--:|
| 1 | 2 |

```python
print("<b>")
```
"""


def test_markdown_becomes_elements(opened, feedback):
    page = opened()
    speak(page, feedback, {"content": MARKDOWN})
    ask(page, "Write")
    words = page.locator(".card > .words")
    for selector, text in (("h2", "Title"), ("em", "slanted"), ("del", "struck"), ("p code", "a*b"),
                           ("ul > li ol li:nth-child(2)", "more"), ("blockquote strong", "so"), ("td.right", "2"),
                           ("pre code", 'print("<b>")'), (".math", "x^2")):
        assert words.locator(selector).first.inner_text() == text, selector
    link = words.locator("a")
    assert link.count() == 1 and link.get_attribute("href") == "https://example.com/a_(b)"
    assert link.get_attribute("rel") == "noopener noreferrer nofollow" and "javascript:alert(1)" in words.inner_text()
    assert words.locator(".source .copy").count() == 1


def test_a_long_answer_is_not_drawn_again_for_every_piece(opened):
    page = opened()
    drawn = page.evaluate("""async () => {
        const { draw } = await import('/markdown.js');
        const node = document.createElement('div');
        let made = 0, text = '';
        new MutationObserver(() => {}).observe(node, { childList: true });
        const append = node.append.bind(node);
        node.append = (...parts) => { made += parts.length; append(...parts); };
        for (let piece = 0; piece < 2000; piece += 1) {
            text += piece % 10 ? 'some more words here ' : '\\n\\nA new paragraph ';
            draw(node, text);
        }
        const whole = document.createElement('div');
        draw(whole, text);
        return [made, node.children.length, node.innerHTML === whole.innerHTML];
    }""")
    assert drawn[0] < 2500 and drawn[1] == 200 and drawn[2]
