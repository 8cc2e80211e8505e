"""Pages of other sites, and what the chat page says of itself."""

from __future__ import annotations

import httpx
import pytest
from served import running

from trivium.artifacts import seal
from trivium.cli.serving import serve, site
from trivium.errors import TriviumError
from trivium.serving.chat_page import TOWN, Page
from trivium.serving.models import Limits

HERE, THERE = "http://localhost:3000", "https://elsewhere.example"


def asked(origin):
    return {"origin": origin, "access-control-request-method": "POST",
            "access-control-request-headers": "authorization,content-type,x-stainless-lang"}


@pytest.fixture(scope="module")
def open_server(folders):
    with running({"one": folders["one"]}, Limits(rows=2), keys=["secret"], origins=[HERE]) as address:
        yield address


def test_a_named_site_may_call_the_api_and_no_other(open_server):
    with httpx.Client(base_url=open_server) as http:
        allowed = http.options("/v1/chat/completions", headers=asked(HERE))
        assert allowed.status_code == 200 and allowed.headers["access-control-allow-origin"] == HERE
        assert {"authorization", "content-type", "x-stainless-lang"} <= {
            name.strip() for name in allowed.headers["access-control-allow-headers"].split(",")}
        refused = http.options("/v1/chat/completions", headers=asked(THERE))
        assert refused.status_code == 400 and "access-control-allow-origin" not in refused.headers
        without = http.get("/v1/models", headers={"origin": HERE})  # faults can be read by the page, too
        assert without.status_code == 401 and without.headers["access-control-allow-origin"] == HERE
        key = {"authorization": "Bearer secret"}
        listed = http.get("/v1/models", headers={"origin": HERE} | key)
        assert listed.status_code == 200 and listed.headers["access-control-allow-origin"] == HERE
        assert "access-control-allow-origin" not in http.get("/v1/models", headers={"origin": THERE} | key).headers
        for path in ("/metrics", "/settings.json", "/"):
            assert "access-control-allow-origin" not in http.get(path, headers={"origin": HERE} | key).headers


def test_no_site_is_let_in_unless_named(server):
    with httpx.Client(base_url=server) as http:
        assert http.options("/v1/chat/completions", headers=asked(HERE)).status_code == 405
        assert "access-control-allow-origin" not in http.get("/v1/models", headers={"origin": HERE}).headers


@pytest.mark.parametrize(("given", "kept"), [("https://Chat.example.com/", "https://chat.example.com"),
                                             ("http://localhost:3000", HERE), ("*", "*")])
def test_origins_are_written_as_browsers_send_them(given, kept):
    assert site(given) == kept


@pytest.mark.parametrize("given", ["chat.example.com", "ftp://x", "https://x/path", "", "null", "https://"])
def test_what_is_no_origin_is_refused(given):
    with pytest.raises(TriviumError, match="--origin .*write it as https://HOST"):
        site(given)


def test_all_sites_need_a_key(folders, monkeypatch):
    monkeypatch.delenv("TRIVIUM_API_KEYS", raising=False)
    with pytest.raises(TriviumError, match=r"--origin '\*': .*set API keys"):
        serve([str(folders["one"])], api_keys=None, threads=0, rows=2, queue=2, max_body=9999, max_seconds=9.0,
              context=64, origin=["*"])


def chain(place, *kinds):
    """Folders that were made from one another; the last one's."""
    before = None
    for kind in kinds:
        (place / kind).mkdir(parents=True)
        inputs = {"model": {"path": f"../{before}", "digest": ""}} if before else {}
        seal(place / kind, kind=kind, name=kind, key="", seed=0, settings={}, inputs=inputs, summary={}, seconds=1.0,
             peak_memory_mb=1.0)
        before = kind
    return place / before


def test_the_page_says_nothing_of_a_model_that_its_manifests_do_not_show(tmp_path):
    (tmp_path / "foreign").mkdir()
    town = chain(tmp_path / "a", "world", "pretrain", "sft")
    own = chain(tmp_path / "b", "corpus", "pretrain", "dpo")
    tuned = chain(tmp_path / "c", "imports", "sft")
    assert Page.of([town]) == Page(ideas=TOWN, from_scratch=True)
    assert Page.of([own]) == Page(from_scratch=True)
    assert Page.of([tuned]) == Page.of([tmp_path / "foreign"]) == Page.of([town, tuned]) == Page()
    given = Page.of([town], "客服", "您好", ["怎么退货？"])
    assert (given.title, given.greeting, given.ideas) == ("客服", "您好", ("怎么退货？",))


@pytest.mark.browser
def test_a_page_of_ones_own_in_chinese(chromium, folders):
    page_of = Page(title="客服助手", greeting="您好，请问需要什么帮助？", ideas=("怎么退货？",))
    with running({"qwen": folders["one"]}, Limits(rows=2), page=page_of) as address:
        context = chromium.new_context(locale="zh-CN")
        page = context.new_page()
        page.goto(address)
        page.wait_for_selector("#ideas button")
        assert page.title() == page.inner_text("#title") == "客服助手"
        assert page.inner_text("#welcome h1") == "您好，请问需要什么帮助？"
        assert page.locator("#ideas button").all_inner_texts() == ["怎么退货？"]
        said = page.inner_text("body")
        assert "从原始文本" not in said and "Morira" not in said and page.input_value("#temperature") == "0.3"
        context.close()
