"""The studio in a real browser, with runs that really run."""

from __future__ import annotations

import json
import time

import pytest
from playwright.sync_api import expect
from started import recipe, state_of, wait_for

from trivium.artifacts import seal

pytestmark = pytest.mark.browser


def answered(root, name="exam", rows=30):
    """A run with an examination, written by hand."""
    folder = root / name / "evaluate"
    folder.mkdir(parents=True)
    (folder / "answers.jsonl").write_text("".join(json.dumps({
        "id": f"q{number}", "task": "sums", "prompt": [{"role": "user", "content": f"What is {number} + 1?"}],
        "answer": str(number + 1), "answers": {"sft": str(number + 1), "ppo": "<img src=x onerror=alert(1)>" * number},
        "checked": {"sft": {"right": 1.0}, "ppo": {"right": float(number == 3)}}}) + "\n" for number in range(rows)))
    seal(folder, kind="evaluate", name="evaluate", key="k" * 64, seed=0, settings={"models": {}}, inputs={},
         summary={"models": {}, "prompts": rows}, seconds=1.0, peak_memory_mb=10.0)


def test_a_run_is_started_watched_stopped_and_goes_on(opened, root):
    page = opened("/start")
    page.fill("#yaml", recipe("browser", 1000))
    page.wait_for_selector("#verdict.good")
    page.get_by_role("button", name="Start", exact=True).click()
    page.get_by_role("link", name="browser", exact=True).click()
    page.wait_for_selector(".chart path.line")
    drawn = page.locator(".chart path.line").first.get_attribute("d")
    wait_for(lambda: page.locator(".chart path.line").first.get_attribute("d") != drawn)
    assert "left" in page.inner_text("main p.soft")
    page.get_by_role("button", name="Stop", exact=True).click()
    page.wait_for_selector("h1 .state.interrupted")
    page.get_by_role("button", name="Go on").click()
    page.wait_for_selector("h1 .state.running")
    page.get_by_role("button", name="Stop without waiting").click()
    page.wait_for_selector("h1 .state.killed")
    assert state_of(opened.client, "browser") == "killed"


def test_rows_of_a_log_are_seen_within_two_seconds(opened, root):
    log = root / "live/.work/sft-0123456789ab/artifact/log.jsonl"
    log.parent.mkdir(parents=True)
    log.write_text("".join(json.dumps({"step": step, "loss": 3.0 - step / 10}) + "\n" for step in range(5)))
    page = opened("/run/live")
    page.wait_for_selector(".chart path.line")

    def delay(step):
        begun = time.monotonic()
        with open(log, "a") as file:
            file.write(json.dumps({"step": step, "loss": 50.0 + step}) + "\n")
        wait_for(lambda: str(50 + step) in page.locator(".chart .tip").first.inner_text(), every=0.05)
        return time.monotonic() - begun

    assert min(map(delay, range(5, 8))) < 2


def test_an_alarm_is_seen(opened, root):
    log = root / "bad/.work/sft-0123456789ab/artifact/log.jsonl"
    log.parent.mkdir(parents=True)
    log.write_text('{"step": 0, "loss": 2.0}\n{"step": 1, "loss": "nan"}\n')
    page = opened("/run/bad")
    assert "sft: loss is no number any more (step 1)" in page.wait_for_selector(".alarms li").inner_text()


def test_a_chart_is_zoomed_smoothed_and_saved(opened, root):
    log = root / "one/sft/log.jsonl"
    log.parent.mkdir(parents=True)
    log.write_text("".join(json.dumps({"step": step, "loss": 5.0 - step / 50 + step % 2}) + "\n"
                           for step in range(200)))
    seal(log.parent, kind="sft", name="sft", key="k" * 64, seed=0, settings={}, inputs={}, summary={}, seconds=1.0,
         peak_memory_mb=1.0)
    page = opened("/run/one")
    chart = page.locator(".chart").first
    chart.locator("path.line").wait_for()
    with page.expect_download() as download:
        chart.get_by_role("button", name="CSV").click()
    rows = download.value.path().read_text().splitlines()
    assert (rows[0], rows[1], len(rows)) == ("step,line,value", "0,loss,5", 201)
    with page.expect_download() as download:
        chart.get_by_role("button", name="PNG").click()
    assert download.value.path().read_bytes().startswith(b"\x89PNG")
    before = chart.locator("path.line").first.get_attribute("d")
    box = chart.locator("svg").bounding_box()
    middle = box["y"] + box["height"] / 2
    page.mouse.move(box["x"] + box["width"] * 0.4, middle)
    page.mouse.down()
    page.mouse.move(box["x"] + box["width"] * 0.6, middle)
    page.mouse.up()
    zoomed = chart.locator("path.line").first.get_attribute("d")
    assert 10 < zoomed.count("L") < 80 < before.count("L")
    chart.get_by_role("button", name="Whole range").click()
    assert chart.locator("path.line").first.get_attribute("d") == before
    page.locator(".controls input[type=range]").fill("0.9")
    assert chart.locator("path.faint").count() == 1
    chart.locator("svg").focus()
    page.keyboard.press("+")
    assert chart.locator("path.line").first.get_attribute("d").count("L") < before.count("L")


def test_answers_are_filtered_and_linked_to(opened, root):
    answered(root)
    page = opened("/run/exam")
    page.get_by_text("Answers", exact=True).click()
    page.wait_for_selector("article .answers")
    assert page.locator("article").count() == 20
    page.get_by_label("is wrong").select_option("ppo")
    wait_for(lambda: "of 29" in page.inner_text("details [role=status]"))
    page.get_by_label("is right").select_option("ppo")
    wait_for(lambda: "of 0" in page.inner_text("details [role=status]"))
    page.get_by_label("is wrong").select_option("")
    wait_for(lambda: "of 1 " in page.inner_text("details [role=status]"))
    assert "What is 3 + 1?" in page.inner_text("article")
    link = page.get_by_role("link", name="Link to this row").get_attribute("href")
    other = opened(link)
    other.wait_for_selector("article .answers")
    assert other.locator("article .ask").first.inner_text() == "What is 3 + 1?"
    page.get_by_label("is right").select_option("")
    page.get_by_label("Find in prompts and answers").fill("17 +")
    wait_for(lambda: "of 1 " in page.inner_text("details [role=status]"))
    assert page.locator("article img").count() == 0


def test_the_form_and_the_text_say_the_same(opened):
    page = opened("/start")
    page.fill("#yaml", recipe("form"))
    page.wait_for_selector("#verdict.good")
    page.get_by_label("epochs", exact=True).fill("7")
    page.get_by_label("epochs", exact=True).press("Tab")
    wait_for(lambda: "epochs: 7" in page.input_value("#yaml"))
    page.get_by_label("epochs", exact=True).fill("-7")
    page.get_by_label("epochs", exact=True).press("Tab")
    page.wait_for_selector(".field.wrong")
    assert page.get_by_role("button", name="Start", exact=True).is_disabled()
    page.locator(".field.wrong").get_by_role("button", name="Default").click()
    page.wait_for_selector("#verdict.good")
    assert "epochs" not in page.input_value("#yaml")


def test_what_is_typed_outlives_a_check(opened):
    page = opened("/start")
    page.fill("#yaml", recipe("typed"))
    page.wait_for_selector("#verdict.good")
    page.route("**/api/recipe/form", lambda route: (time.sleep(1), route.continue_()))
    page.get_by_label("epochs", exact=True).fill("7")
    page.get_by_label("epochs", exact=True).press("Tab")
    page.get_by_label("epochs", exact=True).fill("8")  # while what is written stands at 7 and is being checked
    wait_for(lambda: "epochs: 7" in page.input_value("#yaml"))
    page.wait_for_timeout(2000)
    assert page.get_by_label("epochs", exact=True).input_value() == "8"
    page.get_by_label("epochs", exact=True).press("Tab")
    wait_for(lambda: "epochs: 8" in page.input_value("#yaml"))


def test_rows_in_a_csv_become_a_recipe(opened, tmp_path):
    rows = tmp_path / "my rows.csv"
    rows.write_text("question,answer\nWhich sinks?,Lead.\n")
    page = opened("/start")
    page.wait_for_selector("#verdict.bad")
    page.set_input_files("#file", str(rows))
    page.wait_for_selector("#verdict.good")
    assert "my_rows.csv" in page.input_value("#yaml")


@pytest.mark.parametrize(("width", "scheme", "locale"), [(390, "dark", "zh-CN"), (1280, "light", "en-US")])
def test_every_page_fits_speaks_and_names_its_parts(opened, root, width, scheme, locale):
    answered(root)
    for path, heading in (("/", ("Runs", "运行")), ("/run/exam", ("exam finished", "exam 已完成")),
                          ("/start", ("Start a run", "开始运行")), ("/compare?run=exam", ("Compare", "比较")),
                          ("/through", ("See through", "透视"))):
        page = opened(path, viewport={"width": width, "height": 844}, color_scheme=scheme, locale=locale)
        page.wait_for_load_state()
        expect(page.locator("h1")).to_have_text(heading[locale == "zh-CN"])
        assert page.evaluate("document.documentElement.scrollWidth <= innerWidth"), path
        nameless = page.evaluate("""[...document.querySelectorAll('input, select, textarea, button')].filter((one) =>
            one.checkVisibility() && !(one.labels?.length || one.getAttribute('aria-label') || one.textContent.trim()))
            .map((one) => one.outerHTML)""")
        assert nameless == [], path
        assert page.evaluate("document.documentElement.lang") == ("zh-Hans" if locale == "zh-CN" else "en")


def test_every_word_has_both_languages(opened):
    page = opened()
    missing = page.evaluate("""async () => {
        const text = await (await fetch('/words.js')).text();
        const known = new Set([...text.matchAll(/(?:^|[ ,{])"?([\\w-]+)"?: \\["/gm)].map((found) => found[1]));
        const used = new Set();
        for (const file of ['main', 'runs', 'run', 'answers', 'compare', 'start', 'through', 'plot', 'dom', 'login']) {
            const source = await (await fetch(`/${file}.js`)).text();
            for (const found of source.matchAll(/word\\("([\\w-]+)"\\)/g)) used.add(found[1]);
        }
        return [...used].filter((one) => !known.has(one));
    }""")
    assert missing == []


def test_the_list_is_worked_by_keyboard(opened, root):
    answered(root, "first")
    answered(root, "second")
    page = opened()
    page.wait_for_selector("tbody tr:nth-child(2)")
    for _ in range(2):
        box = page.locator("tbody input[type=checkbox]:not(:checked)").first
        box.focus()
        page.keyboard.press("Space")
    page.get_by_role("link", name="Compare what is ticked").focus()
    page.keyboard.press("Enter")
    wait_for(lambda: "run=first" in page.url and "run=second" in page.url)


def test_what_a_run_leaves_open_goes_to_people_by_one_click(opened, root):
    """The reward model's part is tested with the command; here are the answers that no rubric tells apart."""
    answered(root, rows=5)
    folder = root / "exam" / "evaluate"
    (folder / "manifest.json").unlink()
    seal(folder, kind="evaluate", name="evaluate", key="k" * 64, seed=0, settings={"models": {"sft": "s", "ppo": "p"}},
         inputs={}, summary={"models": {}, "prompts": 5}, seconds=1.0, peak_memory_mb=10.0)
    page = opened("/run/exam")
    refused = opened.client.post("/api/runs/exam/ask", json={"project": "../outside"})
    assert refused.status_code == 422 and "a new one is a folder's name alone" in refused.json()["error"]
    page.get_by_label("in the feedback project").fill("people")
    page.keyboard.press("Enter")
    found = page.get_by_text("4 disagreements found; new in the project: 4")  # one answer was empty
    expect(found).to_be_visible(timeout=60_000)
    expect(page.get_by_text("trivium annotate people")).to_be_visible()
    assert opened.client.get("/api/projects").json() == {"projects": ["people"]}
    page.get_by_role("button", name="Ask people what it leaves open").click()
    expect(page.get_by_text("4 disagreements found; new in the project: 0")).to_be_visible(timeout=60_000)
