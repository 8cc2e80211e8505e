"""People at work, in a real browser."""

from __future__ import annotations

import time
from collections.abc import Callable
from datetime import datetime
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

import pytest
from annotating import Served, items
from playwright.sync_api import expect
from test_lead import filled

from trivium.feedback.accounts import Accounts
from trivium.feedback.exports import export
from trivium.feedback.store import Store

pytestmark = pytest.mark.browser
Visit = Callable[..., Any]


def centre(page: Any, selector: str) -> tuple[float, float]:
    box = page.locator(selector).bounding_box()
    return box["x"] + box["width"] / 3, box["y"] + box["height"] / 2


def drag(page: Any, chip: str, to: tuple[float, float]) -> None:
    page.mouse.move(*centre(page, chip))
    page.mouse.down()
    page.mouse.move(to[0], to[1], steps=6)
    page.mouse.up()


def shown_ranking(page: Any) -> list[list[int]]:
    return page.evaluate(
        "[...document.querySelectorAll('.rank')].map((row) => [...row.querySelectorAll('.chip')]"
        ".map((chip) => Number(chip.dataset.place)))"
    )


def said(store: Store) -> list[dict[str, Any]]:
    return [event.body for event in store.events(["judgement", "skip", "demonstration", "settled"])]


def by_place(store: Store, body: dict[str, Any]) -> list[list[int]]:
    """A stored ranking by places on the page, from the stored order."""
    order = next(event.body["order"] for event in store.events(["lease"]) if event.id == body["work"])
    return [sorted(order.index(number) for number in group) for group in body["ranking"]]


def test_ranking_by_mouse_with_a_tie_then_going_back_to_correct(served: Served, visit: Visit) -> None:
    served.store.add_items(items(2, 4))
    page = visit("anna")
    page.goto("/work")
    page.click("text=Start comparing")
    page.wait_for_selector(".chip")
    for place, rating in enumerate((6, 2, 7, 2)):
        page.locator(f"#response-{place} .rating label").nth(rating - 1).click()
    page.locator("#response-1 summary").click()
    page.locator("#response-1 input[value=wrong]").check()
    tray = "#tray .chip[data-place='{}']"
    drag(page, tray.format(2), centre(page, "#ranks"))
    left, _ = centre(page, "#ranks")
    box = page.locator("#ranks").bounding_box()
    drag(page, tray.format(1), (left, box["y"] + box["height"] - 1))  # below: the second rank
    drag(page, tray.format(3), centre(page, ".rank[data-at='1']"))  # onto it: a tie
    drag(page, tray.format(0), (left, page.locator(".rank[data-at='1']").bounding_box()["y"] - 1))  # between the two
    assert shown_ranking(page) == [[2], [0], [1, 3]]
    drag(page, ".rank .chip[data-place='3']", centre(page, "#tray"))  # back into the tray
    assert shown_ranking(page) == [[2], [0], [1]]
    page.click("#submit")
    assert "D" in page.locator("#fault").inner_text() and not said(served.store)
    drag(page, tray.format(3), centre(page, ".rank[data-at='2']"))
    page.click("#submit")
    page.wait_for_selector("#saved")
    stored = said(served.store)[0]
    assert by_place(served.store, stored) == [[2], [0], [1, 3]] and sorted(stored["ratings"]) == [2, 2, 6, 7]
    assert sum(map(bool, stored["flags"])) == 1 and 0 < stored["seconds"] < 60
    page.click("#saved a")  # back to the first, everything is as it was left
    page.wait_for_url("**/work/*")
    page.wait_for_selector(".chip")
    assert shown_ranking(page) == [[2], [0], [1, 3]] and page.locator("#response-1 input[value=wrong]").is_checked()
    drag(page, ".rank .chip[data-place='0']", (left, page.locator(".rank[data-at='0']").bounding_box()["y"] - 2))
    page.click("#submit")
    page.wait_for_url("**/history")
    assert by_place(served.store, said(served.store)[-1]) == [[0], [2], [1, 3]] and len(said(served.store)) == 2


def test_ranking_by_keys_alone(served: Served, visit: Visit) -> None:
    served.store.add_items(items(2, 4))
    page = visit("anna")
    page.goto("/compare")
    for key in ("a", "3", "ArrowDown", "7", "c", "5", "d", "5"):
        page.keyboard.press(key)
    page.keyboard.press("=")
    assert shown_ranking(page) == [[1], [2, 3], [0]]
    for key in ("d", "Shift+ArrowUp", "Shift+ArrowUp",
                "Shift+ArrowUp"):  # out of the tie, into one with the best, past it
        page.keyboard.press(key)
    assert shown_ranking(page) == [[3], [1], [2], [0]]
    page.keyboard.press("a")
    page.keyboard.press("Shift+ArrowUp")
    assert shown_ranking(page) == [[3], [1], [0, 2]]
    page.keyboard.press(".")
    page.keyboard.press("Space")
    assert page.locator("#response-0 .options input").first.is_checked()
    page.reload()  # a draft is kept until it is submitted
    page.wait_for_selector(".chip")
    assert shown_ranking(page) == [[3], [1], [0, 2]]
    page.keyboard.press("b")
    page.keyboard.press("Enter")
    page.wait_for_selector("#saved")
    assert by_place(served.store, said(served.store)[0]) == [[3], [1], [0, 2]]
    page.wait_for_selector(".chip")
    page.keyboard.press("0")
    page.keyboard.press("Enter")
    page.wait_for_selector("text=Nothing is left")
    assert said(served.store)[1]["all_bad"] and said(served.store)[1]["ratings"] is None


@pytest.mark.long
def test_ranking_by_touch_on_a_phone(served: Served, visit: Visit) -> None:
    served.store.add_items(items(1, 3))
    page = visit("anna", viewport={"width": 390, "height": 844}, has_touch=True, is_mobile=True, color_scheme="dark")
    page.goto("/compare")
    assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")
    for place in range(3):
        page.locator(f"#response-{place} .rating label").nth(3 + place).tap()
    touch = page.context.new_cdp_session(page)

    def swipe(start: tuple[float, float], end: tuple[float, float]) -> None:
        touch.send("Input.dispatchTouchEvent", {"type": "touchStart", "touchPoints": [{"x": start[0], "y": start[1]}]})
        for step in range(1, 6):
            touch.send("Input.dispatchTouchEvent", {"type": "touchMove", "touchPoints": [
                {"x": start[0] + (end[0] - start[0]) * step / 5, "y": start[1] + (end[1] - start[1]) * step / 5}]})
        touch.send("Input.dispatchTouchEvent", {"type": "touchEnd", "touchPoints": []})
    page.locator(".ranking").scroll_into_view_if_needed()
    page.locator("#submit").scroll_into_view_if_needed()
    swipe(centre(page, "#tray .chip[data-place='2']"), centre(page, "#ranks"))
    page.locator("#tray .chip[data-place='0'] .short").tap()  # a tap puts it last
    expect(page.locator(".rank")).to_have_count(2)
    assert shown_ranking(page) == [[2], [0]]
    swipe(centre(page, "#tray .chip[data-place='1']"), centre(page, ".rank[data-at='0']"))
    assert shown_ranking(page) == [[1, 2], [0]]
    page.locator(".rank .chip[data-place='1'] button").nth(
        1).click()  # or the buttons; a tap so soon would be taken for a double tap
    expect(page.locator(".rank")).to_have_count(3)
    assert shown_ranking(page) == [[2], [1], [0]]
    page.click("#submit")
    page.wait_for_selector("text=Nothing is left")
    assert by_place(served.store, said(served.store)[0]) == [[2], [1], [0]]


def test_writing_a_demonstration_and_one_of_ones_own(served: Served, visit: Visit) -> None:
    served.store.add_items(
        [{"prompt": [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "Name a fruit."}]}])
    page = visit("anna", locale="zh-CN")
    page.goto("/work")
    page.click("text=开始写作")
    page.wait_for_url("**/write")  # loaded, so that the script hears what is typed
    page.fill("#answer", "\nA pear.\nOr <b>a plum</b>.")
    page.reload()
    assert page.input_value("#answer") == "\nA pear.\nOr <b>a plum</b>."
    page.click("#submit")
    page.wait_for_selector("#prompt")
    page.fill("#prompt", "What is a plum?")
    page.fill("#answer", "A fruit.")
    page.keyboard.press("Control+Enter")
    expect(page.locator("#answer")).to_have_value("")  # the next one: the page before had said saved, too
    page.click("#saved a")
    expect(page.locator("#answer")).to_have_value("A fruit.")
    page.fill("#answer", "A stone fruit.")
    page.click("#submit")
    page.wait_for_url("**/history")
    assert [row["messages"][-1]["content"]
            for row in export(served.store, "demonstrations")] == ["A pear.\nOr <b>a plum</b>.", "A stone fruit."]
    assert len(said(served.store)) == 3


def test_two_at_once_skip_and_the_lead_watches_and_settles(served: Served, visit: Visit) -> None:
    served.store.change_settings(overlap=2, disputed_below=0.9, repeat_share=0)
    served.store.add_items(items(2, 3))
    anna, ben, lead = visit("anna"), visit("ben"), visit("lead", "lead")
    lead.goto("/lead")
    expect(lead.locator("[data-number=judgements]")).to_have_text("0 / 4")
    for page in (anna, ben):
        page.goto("/compare")
    for page, keys in ((anna, "a7b4c1"), (ben, "a7b4c1")):
        for key in keys:
            page.keyboard.press(key)
        page.keyboard.press("=")
    ben.keyboard.press("Enter")
    ben.wait_for_selector("#saved")
    anna.keyboard.press("Enter")
    anna.wait_for_selector("#saved")
    anna.wait_for_selector(".chip")
    for key in "a7b4c1=":
        anna.keyboard.press(key)
    anna.keyboard.press("Enter")
    anna.wait_for_selector("text=Nothing is left")
    ben.wait_for_selector(".chip")
    ben.keyboard.press("/")
    ben.locator("#skip-form input[value=unqualified]").check()
    ben.fill("#skip-form [name=note]", "physics")
    ben.keyboard.press("Enter")
    ben.wait_for_selector("text=Nothing is left")
    assert next(event.body for event in served.store.events(["skip"]))["note"] == "physics"
    expect(lead.locator("[data-number=judgements]")).to_have_text("3 / 4",
                                                                  timeout=10_000)  # live, without loading it again
    assert lead.locator("[data-figure=agreement] .value").inner_text().endswith("%")
    assert lead.locator("[data-figure=alpha] svg").count() == 1 and lead.locator("#people tr").count() == 3
    lead.goto("/lead/disputed")
    with served.store.state() as state:
        agreed = next(item for item in state.items.values() if len(item.judgements()) == 2)
        assert len({work.ranking for work in agreed.judgements()}) == 2, "both ranked by place, in orders of their own"
    lead.click(".cover")
    lead.wait_for_selector(".chip")
    for key in ("a", "Shift+ArrowDown", "b", "Shift+ArrowDown", "c", "Shift+ArrowDown"):
        lead.keyboard.press(key)
    lead.click("#submit")
    lead.wait_for_selector("text=Nothing is disputed")
    assert [row["annotator"] for row in export(served.store, "rankings") if row["id"] == agreed.id] == ["lead"]


@pytest.mark.long
def test_a_lease_ends_while_somebody_is_away(served: Served, visit: Visit) -> None:
    served.store.change_settings(overlap=1, lease_minutes=8 / 60)
    served.store.add_items(items(1, 2))
    anna, ben = visit("anna"), visit("ben")
    anna.goto("/compare")
    anna.wait_for_selector(".chip")
    anna.evaluate(
        "() => { post = async () => { throw new Error('away'); }; }")  # the laptop is closed: nothing is renewed
    ben.goto("/compare")
    assert ben.locator("text=Nothing is left").count() == 1
    time.sleep(8.1)
    ben.goto("/compare")
    for key in "a6b2=":
        ben.keyboard.press(key)
    ben.keyboard.press("Enter")
    ben.wait_for_selector("text=Nothing is left")
    anna.goto("/compare")
    anna.wait_for_selector("text=Nothing is left")
    assert len(said(served.store)) == 1


@pytest.mark.long
def test_hostile_text_does_nothing_in_a_real_browser(served: Served, visit: Visit) -> None:
    evil = [
        "<script>document.title='owned'</script>", "<img src=x onerror=\"document.title='owned'\">",
        "[x](javascript:alert(1))"
    ]
    served.store.add_items([{"id": "evil", "prompt": evil[1], "responses": evil}])
    page = visit("lead", "lead")
    for path in ("/compare", "/lead/settle?item=evil"):
        page.goto(path)
        page.wait_for_selector(".chip")
        assert page.title().endswith(" · Feedback") and page.locator("main img, main script, .text a").count() == 0
        assert sorted(page.locator(".response .text").all_inner_texts()) == sorted(evil)


def test_a_correction_that_is_not_sent_survives_a_reload(served: Served, visit: Visit) -> None:
    served.store.add_items([*items(1, 2), {"prompt": "Write!"}])
    page = visit("anna")
    page.goto("/compare")
    for key in "a6b2=":
        page.keyboard.press(key)
    page.keyboard.press("Enter")
    page.wait_for_selector("#saved")
    page.click("#saved a")
    page.wait_for_url("**/work/*")
    page.wait_for_selector(".chip")
    page.locator("#response-0 .rating label").nth(0).click()
    page.reload()
    page.wait_for_selector(".chip")
    assert page.locator("#response-0 input:checked").get_attribute("value") == "1"
    page.click("#submit")
    page.wait_for_url("**/history")
    page.go_back()
    page.reload()
    page.wait_for_selector(".chip")
    assert page.locator("#response-0 input:checked").get_attribute("value") == "1"  # what was sent, and no draft
    page.goto("/write")
    page.fill("#answer", "One.")
    page.click("#submit")
    page.wait_for_selector("#saved")
    page.click("#saved a")
    page.wait_for_url("**/work/*")
    page.fill("#answer", "Two.")
    page.reload()
    assert page.input_value("#answer") == "Two."
    page.evaluate("localStorage.setItem(Object.keys(localStorage)[0], JSON.stringify({answer: 'Old.', base: 'other'}))")
    page.reload()
    assert page.input_value("#answer") == "One."  # a draft of something else does not hide what was answered


def test_the_lead_settles_with_flags_and_says_that_all_are_bad(served: Served, visit: Visit) -> None:
    served.store.add_items(items(1, 2))
    anna = served.store.add_person("anna")
    work = served.store.next_work(anna)
    assert work is not None
    served.store.judge(work.id, anna, [[0], [1]], [6, 2], [[], ["wrong"]])
    page = visit("lead", "lead")
    page.goto("/lead/settle?item=item-0")
    page.wait_for_selector(".chip")
    assert page.locator("#response-1 input[value=wrong]").is_checked()  # as the annotator said
    page.locator("#response-0 .flags summary").click()
    page.locator("#response-0 input[value=harmful]").check()
    page.keyboard.press("Escape")
    page.locator("#all-bad").check()
    page.click("#submit")
    page.wait_for_selector("text=Nothing is disputed")
    settled = said(served.store)[-1]
    assert settled["all_bad"] and settled["flags"] == [["harmful"], ["wrong"]]
    page.goto("/lead/settle?item=item-0")
    assert page.locator("#response-0 input[value=harmful]").is_checked() and page.locator("#all-bad").is_checked()


def test_the_lead_finds_an_item_by_keys_and_comes_back_to_the_list(served: Served, visit: Visit) -> None:
    filled(served.store)
    page = visit("boss", "lead", viewport={"width": 390, "height": 844}, timezone_id="Asia/Shanghai")
    page.goto("/lead")
    expect(page.locator("#flags a")).to_have_text("Harmful")
    page.locator("#flags a").focus()
    page.keyboard.press("Enter")
    page.wait_for_url("**/lead/items?flag=harmful")
    assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")
    page.locator("[name=q]").focus()
    page.keyboard.type("salt")
    page.keyboard.press("Enter")
    page.wait_for_url("**/lead/items?q=salt&flag=harmful")  # nothing but what was asked for
    found = page.url
    page.locator("tbody a").focus()
    page.keyboard.press("Enter")
    page.wait_for_selector("text=salt is missing")
    time_ = page.locator("article time").first
    moment = datetime.fromisoformat(time_.get_attribute("datetime"))
    there = moment.astimezone(ZoneInfo("Asia/Shanghai"))
    assert f"{there.hour % 12 or 12}:{there.minute:02}" in time_.inner_text()  # by the reader's clock
    page.click("text=Withdraw the item")
    page.wait_for_selector("text=Bring it back")
    page.go_back()
    page.click("#to-list")
    assert page.url == found
    page.goto("/lead/items?state=withdrawn")
    expect(page.locator("tbody tr")).to_have_count(1)


def test_single_keys_can_be_turned_off_and_arrows_rate(served: Served, visit: Visit) -> None:
    served.store.add_items(items(1, 2))
    page = visit("anna")
    page.goto("/compare")
    page.wait_for_selector(".chip")
    page.locator("#response-0 .rating input").nth(2).check()
    page.keyboard.press("ArrowDown")  # on a rating: the next rating, as in every group of radio buttons
    assert page.locator("#response-0 input:checked").get_attribute("value") == "4"
    page.locator(".keys summary").click()
    page.locator("#single-keys").uncheck()
    page.reload()
    page.wait_for_selector(".chip")
    for key in "b70":
        page.keyboard.press(key)
    assert page.locator("#response-1 input:checked").count() == 0 and not page.locator("#all-bad").is_checked()
    page.locator(".keys summary").click()
    page.locator("#single-keys").check()
    page.locator("#response-1").focus()
    page.keyboard.press("b")
    page.keyboard.press("7")
    assert page.locator("#response-1 input:checked").get_attribute("value") == "7"


CONTRASTS = """() => {
  const numbers = (colour) => colour.match(/[\\d.]+/g).map(Number);
  const light = (colour) => numbers(colour).slice(0, 3).map((x) => x / 255)
    .map((x) => x <= 0.04045 ? x / 12.92 : ((x + 0.055) / 1.055) ** 2.4)
    .reduce((sum, x, at) => sum + x * [0.2126, 0.7152, 0.0722][at], 0);
  const faint = [];
  for (const node of document.querySelectorAll("body *")) {
    const text = [...node.childNodes].some((one) => one.nodeType === 3 && one.data.trim());
    if (!text || !node.checkVisibility() || node.closest("[hidden], .sr-only, noscript, button:disabled")) continue;
    let under = node;
    const clear = (one) => (numbers(getComputedStyle(one).backgroundColor)[3] ?? 1) === 0;
    while (under.parentElement && clear(under)) under = under.parentElement;
    const colours = [getComputedStyle(node).color, getComputedStyle(under).backgroundColor];
    const both = colours.map(light).sort((a, b) => b - a);
    const opacity = [...function* () { for (let one = node; one; one = one.parentElement) yield one; }()]
      .reduce((all, one) => all * Number(getComputedStyle(one).opacity), 1);
    if ((both[0] + 0.05) / (both[1] + 0.05) < 4.5 || opacity < 1) faint.push(node.outerHTML.slice(0, 90));
  }
  return faint;
}"""


def test_every_page_has_a_name_a_heading_and_colours_that_can_be_read(served: Served, visit: Visit) -> None:
    numbers = filled(served.store)
    served.store.remove_person(served.store.add_person("gone"))
    for scheme in ("light", "dark"):
        page = visit("boss", "lead", color_scheme=scheme)
        titles = set()
        paths = ["/work", "/compare", "/write", "/history", "/lead", "/lead/items", f"/lead/items/{numbers['item-0']}",
                 "/lead/disputed", "/lead/settle?item=item-0", "/lead/people", "/lead/export", "/lead/settings",
                 "/lead/upload"]
        for path in paths:
            page.goto(path)
            if path == "/lead":
                page.wait_for_selector("svg")
            titles.add(page.title())
            assert page.locator("h1").count() == 1, path
            assert not page.evaluate(CONTRASTS), path
            assert page.locator("svg[role=img]:not([aria-label]), .scroll:not([tabindex])").count() == 0, path
        assert len(titles) == len(paths) and all(title.endswith(" · Feedback") for title in titles)


def test_a_removed_person_comes_back_and_a_link_is_made_once(served: Served, visit: Visit) -> None:
    served.store.add_person("anna")
    page = visit("boss", "lead")
    page.goto("/lead/people")
    page.click("text=Make a link")
    assert "/invite/" in page.input_value("#link")
    page.reload()
    assert page.locator("#link").count() == 0 and len(Accounts(served.store).open_invites()) == 1
    row = page.locator("li.person", has_text="anna")
    row.locator(".confirm summary").click()  # one click alone removes nobody
    assert served.store.person("anna") is not None
    row.get_by_text("Yes, remove anna").click()
    page.wait_for_selector("text=Bring back")
    assert served.store.person("anna") is None
    page.click("text=Bring back")
    page.wait_for_selector("li.person:has-text('anna') summary")
    assert served.store.person("anna") is not None


def test_a_file_is_uploaded_by_keys(served: Served, visit: Visit, tmp_path: Path) -> None:
    (tmp_path / "rows.csv").write_text("prompt,response_1,response_2\nWhich?,this,that\nNone?,one,\n,x,y\n")
    page = visit("boss", "lead", viewport={"width": 390, "height": 844})
    page.goto("/lead/items")
    page.click("text=Upload items")
    page.set_input_files("[name=file]", tmp_path / "rows.csv")
    page.locator("main button.main").focus()
    page.keyboard.press("Enter")
    expect(page.locator("[role=status]")).to_contain_text("1 added, 0 there already, 2 refused")
    assert [row.inner_text() for row in page.locator("tbody th").all()] == ["2", "3"]
    assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")
