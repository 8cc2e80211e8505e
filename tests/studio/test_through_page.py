"""The page "See through" in a real browser, with models that really compute."""

from __future__ import annotations

import re

import pytest
from playwright.sync_api import expect
from seen import CHAT, seen_run

import trivium

pytestmark = pytest.mark.browser


@pytest.fixture
def looked(opened, root):
    """Opens the page over a run of tiny models, and lets it look at the answer of the run's examination."""
    seen_run(root / "run")

    def open_page(**options):
        page = opened("/through?run=run", **options)
        page.locator("button.go").click()
        page.wait_for_selector(".strip >> nth=1")
        return page

    open_page.opened = opened
    return open_page


def chosen(page):
    return page.locator("[role=option][aria-selected=true]")


def refusal_is_known(looked):
    """The browser notes in its console what the studio refuses."""
    assert len(looked.opened.complaints) == 1 and "422" in looked.opened.complaints.pop()


def percents(page, table=0):
    return [float(text.split()[0]) for text in page.locator("table.likely").nth(table).locator(
        "tbody td:last-child").all_inner_texts()]


def test_the_policy_comes_with_what_it_was_made_from_and_an_answer(looked):
    page = looked()
    assert [page.locator(f"#t-{name}").input_value() for name in ("run", "model", "reward", "reference")] == [
        "run", "ppo", "reward", "sft"]
    assert [area.input_value() for area in page.locator("form textarea").all()] == [one["content"] for one in CHAT]


def test_tokens_are_walked_by_keyboard_and_tell_what_comes_next(looked, root):
    page, model = looked(), trivium.load(root / "run" / "ppo")
    ids, learned = model.tokenizer.encode_chat(CHAT)
    assert page.locator("[role=option]").count() == len(ids)
    assert page.locator("[role=option].loss").count() == sum(learned)
    assert page.locator("[role=option].special").count() == 4
    expect(chosen(page)).to_have_text("<|assistant|>")  # what the answer was drawn after
    chosen(page).focus()
    page.keyboard.press("Home")
    page.keyboard.press("ArrowRight")
    assert page.evaluate("document.activeElement.getAttribute('aria-label')").startswith("1: ")
    p = model.logits(ids).softmax(-1)[1]
    likeliest = (100 * p.sort(descending=True).values[:10]).tolist()
    rank = int((p > p[ids[2]]).sum()) + 1
    wanted = likeliest + ([100 * float(p[ids[2]])] if rank > 10 else [])
    assert percents(page) == pytest.approx(wanted, rel=0.06, abs=0.5)
    assert f"rank {rank}," in page.inner_text("main")
    page.keyboard.press("End")
    expect(chosen(page)).to_have_text("<|end|>")
    assert "Nothing follows yet" in page.inner_text("main")
    page.keyboard.press("ArrowRight")
    assert chosen(page).get_attribute("aria-label").startswith(f"{len(ids) - 1}: ")


def test_up_and_down_go_to_the_next_line(looked):
    page = looked(viewport={"width": 390, "height": 844})
    chosen(page).focus()
    page.keyboard.press("Home")
    top = chosen(page).bounding_box()["y"]
    page.keyboard.press("ArrowDown")
    assert chosen(page).bounding_box()["y"] > top + 5
    page.keyboard.press("ArrowUp")
    assert chosen(page).bounding_box()["y"] == pytest.approx(top, abs=3)


def test_id_bytes_and_place_are_told_on_hover(looked, root):
    page, model = looked(), trivium.load(root / "run" / "ppo")
    ids, _ = model.tokenizer.encode_chat(CHAT)
    page.locator("[role=option]").nth(3).hover()
    told = page.locator(".pieces + .tip").inner_text()
    spelt = model.tokenizer.decode([ids[3]]).encode().hex(" ")
    assert told.startswith("place 3 ") and f"id {ids[3]} " in told and f"bytes {spelt}" in told
    broken = page.locator("[role=option]", has_text=re.compile("⟨[0-9a-f]+⟩"))
    assert broken.count() == 6  # 你好, a byte a token


def test_one_goes_on_from_a_token_that_was_picked(looked):
    page = looked()
    before = page.locator("[role=option]").all_inner_texts()
    chosen(page).focus()
    page.keyboard.press("Home")
    for _ in range(2):
        page.keyboard.press("ArrowRight")
    page.locator("#t-next-1").focus()
    page.keyboard.press("Enter")
    expect(page.locator("[role=option]")).to_have_count(4)
    page.wait_for_selector("#t-next-0")
    assert page.locator("[role=option]").all_inner_texts()[:3] == before[:3]
    assert "added" in chosen(page).get_attribute("class")
    page.locator("#t-next-0").click()
    expect(page.locator("[role=option]")).to_have_count(5)
    page.get_by_role("button", name="Back to the text").click()
    expect(page.locator("[role=option]")).to_have_count(len(before))
    page.wait_for_selector(".strip >> nth=1")


def test_a_head_is_chosen_and_seen(looked, root):
    page = looked()
    page.locator("#t-layer").select_option("1")
    page.locator("#t-head").select_option("3")
    expect(page.locator("canvas.heat")).to_have_attribute("aria-label", "Attention: layer 1, head 3")
    chosen(page).focus()
    page.keyboard.press("End")
    found = page.evaluate("""async () => {
        const ids = [...document.querySelectorAll('[role=option]')].map((one) => Number(one.title.split(' · ')[1]));
        const answer = await fetch('/api/runs/run/through/attention', { method: 'POST', headers: {
            'content-type': 'application/json' }, body: JSON.stringify({ model: 'ppo', ids, layer: 1, head: 3 }) });
        return (await answer.json()).weights.at(-1); }""")
    assert percents(page, 1) == pytest.approx([100 * one for one in sorted(found, reverse=True)[:5]], rel=0.06,
                                              abs=0.5)
    painted = page.evaluate("""() => { const canvas = document.querySelector('canvas.heat');
        return new Set(canvas.getContext('2d').getImageData(0, 0, canvas.width, canvas.height).data).size; }""")
    assert painted > 20
    page.locator("#t-colour").select_option("attention")
    weights = [float(one.evaluate("(node) => node.style.getPropertyValue('--w')"))
               for one in page.locator("[role=option]").all()]
    assert weights == pytest.approx(found, abs=1e-6)


def test_scores_and_divergence_are_lines_over_the_tokens(looked):
    page = looked()
    learned = page.locator("[role=option].loss").count()
    every = page.locator("[role=option]").count()
    scores, divergence = page.locator(".strip").all()
    assert scores.locator("circle").count() == learned and divergence.locator("circle").count() == 2 * (every - 1)
    assert divergence.locator(".label").count() == every
    with page.expect_download() as download:
        divergence.get_by_role("button", name="CSV").click()
    rows = download.value.path().read_text().splitlines()
    assert rows[0] == "place,id,token,log p − log r,KL(p ‖ r)" and len(rows) == every + 1
    page.locator("#t-reward").select_option("")
    expect(page.locator(".strip")).to_have_count(1)
    page.locator("#t-reference").select_option("other")
    page.get_by_text("different tokenizers").wait_for()
    refusal_is_known(looked)
    page.locator("#t-reference").select_option("sft")
    page.locator("#t-reward").select_option("reward")
    expect(page.locator(".strip")).to_have_count(2)


def test_a_text_that_is_too_long_is_refused_with_a_word(looked):
    page = looked()
    page.get_by_label("A text", exact=True).first.check()
    page.locator("form textarea").fill("2 " * 600)
    page.get_by_role("button", name="Look", exact=True).click()
    page.get_by_text("at most 512 are looked at").wait_for()
    refusal_is_known(looked)
    page.locator("form textarea").fill("<b>2</b>\n2")
    page.get_by_role("button", name="Look", exact=True).click()
    page.wait_for_selector(".pieces")
    assert page.locator(".pieces b").count() == 0 and page.locator("[role=option].special").count() == 0
    assert "".join(page.locator("[role=option]").all_text_contents()) == "<b>2</b>↵\n2"


@pytest.mark.parametrize(("width", "scheme", "locale"), [(390, "dark", "zh-CN"), (1280, "light", "en-US")])
def test_it_fits_and_speaks_and_keeps_what_was_looked_at(looked, width, scheme, locale):
    page = looked(viewport={"width": width, "height": 844}, color_scheme=scheme, locale=locale)
    assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")
    nameless = page.evaluate("""[...document.querySelectorAll('input, select, textarea, button, [role=img]')].filter(
        (one) => one.checkVisibility() && !(one.labels?.length || one.getAttribute('aria-label') ||
        one.textContent.trim())).map((one) => one.outerHTML)""")
    assert nameless == []
    page.locator("form textarea").first.fill("changed")
    before = page.locator("[role=option]").all_inner_texts()
    page.locator("#switches button").first.click()
    page.wait_for_selector(".strip >> nth=1")
    expect(page.locator("h1")).to_have_text("See through" if locale == "zh-CN" else "透视")
    assert page.locator("[role=option]").all_inner_texts() == before
    assert page.locator("form textarea").first.input_value() == "changed"
    colour = "document.querySelector('canvas.heat').getContext('2d').getImageData(300, 90, 1, 1).data.join()"
    shade = page.evaluate(colour)
    page.locator("#switches button").nth(1).click()
    page.wait_for_function(f"{colour} !== '{shade}'")
