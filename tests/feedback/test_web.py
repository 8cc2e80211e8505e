"""The app over real HTTP: doors, what is refused, and what one may see of others."""

from __future__ import annotations

import re
from pathlib import Path

import httpx
import pytest
from annotating import Served, items, serving

from trivium.clients import names
from trivium.errors import TriviumError
from trivium.feedback import accounts as doors
from trivium.feedback.accounts import Accounts, TooManyTries
from trivium.feedback.store import Store
from trivium.feedback.texts import FAULTS, WORDS

PASSWORD = "correct horse battery"


def form_token(page: httpx.Response) -> str:
    found = re.search(r'name="csrf" value="([0-9a-f]+)"', page.text)
    assert found, page.text
    return found.group(1)


def enter(client: httpx.Client, path: str, **fields: str) -> httpx.Response:
    return client.post(path, data={"csrf": form_token(client.get(path)), **fields})


def test_only_requests_that_name_this_server_are_answered(store: Store) -> None:
    with serving(store, hosts=names("127.0.0.1", "labels.example.com")) as running:
        for host in ("127.0.0.1", "localhost:8600", "labels.example.com"):
            assert httpx.get(running.url + "/login", headers={"host": host}).status_code == 200
        for host in ("evil.example", "labels.example.com.evil.example", "10.0.0.1", ""):
            for path in ("/login", "/api/lead/figures"):
                assert httpx.get(running.url + path, headers={"host": host}).status_code == 421


def test_invited_people_join_log_out_and_in(served: Served) -> None:
    invite = Accounts(served.store).invite()
    with httpx.Client(base_url=served.url) as client:
        assert client.get("/work").headers["location"] == "/login"
        assert client.get("/api/lead/figures").status_code == 401
        short = enter(client, f"/invite/{invite}", name="anna", password="short")
        assert short.status_code == 422 and "too short" in short.text
        joined = enter(client, f"/invite/{invite}", name="anna", password=PASSWORD)
        cookie = joined.headers["set-cookie"].lower()
        assert joined.status_code == 303 and "httponly" in cookie and "samesite=lax" in cookie
        page = client.get("/work")
        assert "Hello, anna" in page.text
        assert client.get(f"/invite/{invite}").status_code == 422  # good once
        client.post("/logout", data={"csrf": form_token(page)})
        assert client.get("/work").status_code == 303
        assert enter(client, "/login", name="anna", password="wrong password").status_code == 401
        assert enter(client, "/login", name="anna", password=PASSWORD).headers["location"] == "/"
        assert "Hello, anna" in client.get("/work").text


def test_guessing_is_slowed_down_and_tells_nothing(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(doors, "TRIES_FOR_NAME", 3)
    monkeypatch.setattr(doors, "TRIES_FROM_ADDRESS", 5)
    desk = Accounts(store)
    desk.accept(desk.invite(now=0.0), "anna", PASSWORD, "home", now=0.0)
    reasons = set()
    for _ in range(2):
        for name in ("anna", "nobody"):
            with pytest.raises(TriviumError) as caught:
                desk.login(name, "a wrong guess", "thief", now=10.0)
            reasons.add(str(caught.value))
    assert len(reasons) == 1
    with pytest.raises(TriviumError):
        desk.login("anna", "a wrong guess", "thief", now=11.0)
    with pytest.raises(TooManyTries) as stopped:
        desk.login("anna", PASSWORD, "thief", now=12.0)  # even with the right one
    assert 800 < stopped.value.seconds <= 901
    with pytest.raises(TooManyTries):
        desk.look_up("any invite", "thief", now=12.0)  # the address as a whole
    assert desk.login("anna", PASSWORD, "home", now=12.0)  # who did not guess may come in
    assert desk.login("anna", PASSWORD, "thief", now=12.0 + 901)


def test_invites_and_sessions_end(store: Store) -> None:
    desk = Accounts(store)
    late = desk.invite(hours=1, now=0.0)
    with pytest.raises(TriviumError, match="not valid any more"):
        desk.accept(late, "anna", PASSWORD, "x", now=3601.0)
    token = desk.accept(desk.invite(now=0.0), "anna", PASSWORD, "x", now=0.0)
    anna = desk.visitor(token, now=1.0)
    assert anna is not None and desk.visitor(token, now=doors.SESSION_SECONDS + 1.0) is None
    with pytest.raises(TriviumError, match="taken"):
        desk.accept(again := desk.invite(now=0.0), "anna", PASSWORD, "x", now=0.0)
    desk.accept(again, "ben", PASSWORD, "x", now=0.0)  # the invite was not used up by that
    desk.accept(desk.invite(person=anna.id, now=0.0), "", "another long password", "x", now=0.0)
    assert desk.visitor(token, now=1.0) is None and desk.login("anna", "another long password", "y", now=2.0)
    with pytest.raises(TriviumError):
        desk.login("anna", PASSWORD, "y", now=2.0)
    store.remove_person(anna.id)
    with pytest.raises(TriviumError):
        desk.login("anna", "another long password", "y", now=3.0)


def test_every_answer_carries_the_policy_and_no_page_has_inline_code(served: Served) -> None:
    served.store.add_items(items(2))
    with served.client("lead", "lead") as lead:
        pages = [
            "/", "/login", "/work", "/compare", "/write", "/history", "/lead", "/lead/disputed",
            "/lead/settle?item=item-0", "/lead/items", "/lead/items/2", "/lead/people",
            "/lead/settings", "/lead/export", "/lead/upload", "/nowhere", "/work/99999", "/static/app.css",
            "/lead/export/rankings.jsonl", "/openapi.json"
        ]
        for language in ("en", "zh"):
            for path in pages:
                answer = lead.get(path, headers={"accept-language": language})
                policy = answer.headers["content-security-policy"]
                assert "default-src 'none'" in policy and "script-src 'self';" in policy
                assert "unsafe" not in policy and "frame-ancestors 'none'" in policy
                assert answer.headers["x-content-type-options"] == "nosniff" and answer.status_code < 500, path
                if "text/html" in answer.headers.get("content-type", ""):
                    assert not re.search(r"<script(?![^>]*\bsrc=)|<style|\sstyle=|\son\w+=|javascript:",
                                         answer.text), path


def test_a_hostile_response_is_text(served: Served) -> None:
    evil = [
        "<script>document.title='owned'</script>", "</textarea></div><img src=x onerror=alert(1)>",
        "[click](javascript:alert(1)) **bold** &amp; \u202eevil", "{{ 7 * 7 }}{% raw %}"
    ]
    served.store.add_items([{"id": "<b>\"'&/../x", "prompt": "<svg onload=alert(1)>", "responses": evil}])
    with served.client("anna") as anna, served.client("lead", "lead") as lead:
        page = anna.get("/compare").text
        assert "&lt;script&gt;document.title=" in page and "<img" not in page and "<svg" not in page
        assert "**bold** &amp;amp;" in page and "{{ 7 * 7 }}" in page
        settle = lead.get("/lead/settle", params={"item": "<b>\"'&/../x"})
        assert settle.status_code == 200 and "<img" not in settle.text and "<b>" not in settle.text.replace(
            "<b></b>", "")


def test_one_annotator_sees_nothing_of_another(served: Served) -> None:
    served.store.add_items(items(3))
    with served.client("anna") as anna, served.client("ben") as ben:
        assert "item-" not in anna.get("/compare").text  # an item's name might tell that its answer is known
        work = served.store.next_work(served.store.person("anna").id)  # type: ignore[union-attr]
        assert work is not None
        said = {
            "ranking": [[0], [1], [2]], "ratings": [7, 6, 1], "flags": [[], [], ["harmful"]], "note": "anna's secret"
        }
        assert anna.post(f"/api/work/{work.id}/judgement", json=said).json() == {"next": f"/compare?saved={work.id}"}
        assert "anna&#39;s secret" in anna.get(f"/work/{work.id}").text
        for path in (f"/work/{work.id}", "/history", "/compare", "/work", "/write"):
            assert "secret" not in ben.get(path).text
        assert ben.get(f"/work/{work.id}").status_code == 404
        for action, body in {
                "judgement": said, "skip": {"reason": "other"}, "renew": {}, "demonstration": {"answer": "x"}
        }.items():
            assert ben.post(f"/api/work/{work.id}/{action}", json=body).status_code == 404
        for path in ("/lead", "/lead/disputed", "/lead/people", "/lead/settings", "/lead/export",
                     "/lead/export/rankings.jsonl", "/api/lead/figures", "/lead/settle?item=item-0"):
            assert ben.get(path).status_code == 403, path
        assert ben.post("/api/lead/settle", json={"item": "item-0", "ranking": [[0], [1], [2]]}).status_code == 403
        assert ben.post("/lead/invites", data={"csrf": ben.headers["x-csrf-token"]}).status_code == 403


def test_forged_requests_are_refused(served: Served) -> None:
    served.store.add_items(items(2))
    with served.client("lead", "lead") as lead:
        work = served.store.next_work(served.store.person("lead").id)  # type: ignore[union-attr]
        assert work is not None
        said = {"ranking": [[0], [1], [2]], "ratings": [7, 6, 1]}
        token = lead.headers.pop("x-csrf-token")
        for headers in ({}, {"x-csrf-token": "0" * 64}, {"x-csrf-token": token, "origin": "http://evil.example"},
                        {"x-csrf-token": token,
                         "sec-fetch-site": "cross-site"}, {"x-csrf-token": token, "origin": "null"}):
            assert lead.post(f"/api/work/{work.id}/judgement", json=said, headers=headers).status_code == 403
            assert lead.post("/lead/invites", data={"csrf": "" if len(headers) < 2 else token},
                             headers=headers).status_code == 403
        assert lead.post("/logout", headers={"origin": served.url}).status_code == 403
        assert lead.post(f"/api/work/{work.id}/judgement", json=said,
                         headers={"x-csrf-token": token, "origin": served.url}).status_code == 200
        with httpx.Client(base_url=served.url) as stranger:
            assert stranger.post("/login", data={"name": "lead", "password": PASSWORD, "csrf": "1"}).status_code == 403


BAD = {
    "leaves out response 2": {"ranking": [[0], [1]], "ratings": [1, 2, 3]},
    "names response 3": {"ranking": [[0], [1], [3]], "ratings": [1, 2, 3]},
    "names response 1 twice": {"ranking": [[0], [1], [1]], "ratings": [1, 2, 3]},
    "tied": {"ranking": [[0, 1, 2]], "ratings": [1, 2, 3]},
    "rating 9": {"ranking": [[0], [1], [2]], "ratings": [1, 9, 3]},
    "rating null": {"ranking": [[0], [1], [2]], "ratings": [1, None, 3]},
    "`ratings` is missing": {"ranking": [[0], [1], [2]]},
    "`ranking` is missing": {"ratings": [1, 2, 3]},
    "one number for each": {"ranking": [[0], [1], [2]], "ratings": [1, 2, 3, 4][:2]},
    "unknown flag": {"ranking": [[0], [1], [2]], "ratings": [1, 2, 3], "flags": [["x"], [], []]},
    "Extra inputs": {"ranking": [[0], [1], [2]], "ratings": [1, 2, 3], "annotator": "ben"},
    "valid integer": {"ranking": [["0"], [1], [2]], "ratings": [1, 2, 3]},
}


def test_bad_answers_are_refused_with_a_reason_and_nothing_is_lost(served: Served) -> None:
    served.store.add_items(items(1))
    with served.client("anna") as anna:
        work = served.store.next_work(served.store.person("anna").id)  # type: ignore[union-attr]
        assert work is not None
        url = f"/api/work/{work.id}/judgement"
        for reason, body in BAD.items():
            refused = anna.post(url, json=body)
            wanted = reason if reason not in ("rating 9", "rating null", "one number for each") else reason.split()[-1]
            assert refused.status_code == 422 and wanted in refused.json()["error"], (reason, refused.text)
        assert anna.post(url, content=b"{", headers={"content-type": "application/json"}).status_code == 422
        assert anna.post(url, content=b"x" * 2_000_001).status_code == 413
        assert anna.post(url, content=(b"x" * 65_536 for _ in range(40))).status_code == 413  # of unknown length
        assert anna.post(f"/api/work/{work.id}/demonstration", json={"answer": "words"}).status_code == 422
        assert not list(served.store.events(["judgement"]))
        assert anna.post(url, json={"ranking": [[2], [0, 1]], "ratings": [1, 2, 3], "seconds": 1e9}).status_code == 200
        stored = next(iter(served.store.events(["judgement"]))).body
        # Places on the page became the item's own numbers, and no more time was taken than there was.
        assert stored["ranking"] == [[work.order[2]], sorted(work.order[place] for place in (0, 1))]
        assert [stored["ratings"][number] for number in work.order] == [1, 2, 3] and stored["seconds"] < 60


def test_the_lead_changes_settings_invites_and_removes(served: Served) -> None:
    with served.client("lead", "lead") as lead, served.client("anna") as anna:
        page = lead.get("/lead/settings")
        fields = dict(re.findall(r'name="(\w+)" type="\w+" value="([^"]*)"', page.text)) | {"csrf": form_token(page)}
        assert lead.post("/lead/settings", data={**fields, "overlap": "5",
                                                 "guidelines": "Be kind.\r\nBe fair."}).status_code == 303
        settings = served.store.settings
        assert settings.overlap == 5 and settings.guidelines == "Be kind.\nBe fair." and not settings.free_writing
        assert lead.post("/lead/settings", data={**fields, "overlap": "500"}).status_code == 422
        made = lead.post("/lead/invites", data={"csrf": fields["csrf"], "note": "Ben", "hours": "5"},
                         follow_redirects=True)
        link = re.search(r'value="(http://[^"]+/invite/[^"]+)"', made.text)
        assert link and httpx.get(link.group(1)).status_code == 200
        withdraw = re.search(r'name="token" value="([0-9a-f]+)"', made.text)
        assert withdraw and lead.post("/lead/invites/withdraw",
                                      data={"csrf": fields["csrf"], "token": withdraw.group(1)}).status_code == 303
        assert httpx.get(link.group(1)).status_code == 422
        number = served.store.person("anna").id  # type: ignore[union-attr]
        assert lead.post(f"/lead/people/{number}/role", data={"csrf": fields["csrf"],
                                                              "role": "lead"}).status_code == 303
        assert anna.get("/lead").status_code == 200
        assert lead.post(f"/lead/people/{number}/remove", data={"csrf": fields["csrf"]}).status_code == 303
        assert anna.get("/lead").status_code == 303


def test_languages(served: Served) -> None:
    assert all(len(both) == 2 for both in WORDS.values())
    gaps = re.compile(r"{\w+}")
    assert all(sorted(gaps.findall(en)) == sorted(gaps.findall(zh)) for en, zh in WORDS.values())
    with served.client("anna") as anna:
        assert "Start writing" in anna.get("/work").text
        assert "开始写作" in anna.get("/work", headers={"accept-language": "zh-CN,zh;q=0.9"}).text
        switched = anna.post("/language", data={"to": "zh", "back": "/work?x=1"})
        assert switched.headers["location"] == "/work?x=1" and "开始写作" in anna.get("/work").text
        for back in ("//evil.example/x", "https://evil.example/x", "/\\evil.example", "\\\\evil.example",
                     "/a\r\nset-cookie: x=y"):
            assert re.match(r"/(?![/\\])", anna.post("/language", data={"to": "en", "back": back}).headers["location"])


def test_what_is_wrong_is_said_in_the_visitors_language(served: Served) -> None:
    served.store.add_person("anna")
    used, fresh = Accounts(served.store).invite(hours=1, now=0.0), Accounts(served.store).invite()
    with httpx.Client(base_url=served.url, headers={"accept-language": "zh-CN"}) as guest:
        answers = {
            "名字或密码不正确": enter(guest, "/login", name="anna", password="no"),
            "密码太短，至少需要 10 个字符": enter(guest, f"/invite/{fresh}", name="a", password="x"),
            "名字 &#39;anna&#39; 已被使用": enter(guest, f"/invite/{fresh}", name="anna", password=PASSWORD),
            "此邀请已失效": guest.get(f"/invite/{used}"), "请先登录": guest.get("/api/lead/figures")
        }
        for chinese, answer in answers.items():
            assert chinese in answer.text and answer.status_code >= 400, answer.text
        for _ in range(doors.TRIES_FOR_NAME):
            stopped = enter(guest, "/login", name="anna", password="no")
        assert stopped.status_code == 429 and re.search("尝试次数过多，请等待 1[45] 分钟", stopped.text)
    said = "".join(file.read_text()
                   for file in Path(str(doors.__file__)).parent.rglob("*.py")
                   if file.name != "texts.py")
    for english in FAULTS:  # a message that is reworded is translated no more
        assert all(part in said for part in re.split(r"the name |the password |{\w+}", english)), english


def test_links_name_the_address_that_people_use(store: Store) -> None:
    with serving(store, "https://feedback.example/") as served, served.client("lead", "lead") as lead:
        made = lead.post("/lead/invites", data={"csrf": lead.headers["x-csrf-token"]}, follow_redirects=True)
        assert 'value="https://feedback.example/invite/' in made.text


def test_a_project_that_has_just_begun_says_what_to_do(served: Served) -> None:
    with served.client("lead", "lead") as lead:
        assert "trivium feedback import" in lead.get("/lead").text
        served.store.add_items(items(1))
        assert "trivium feedback import" not in lead.get(
            "/lead").text and 'class="button main" href="/lead/people"' in lead.get("/lead").text
        lead.get("/compare")
        assert 'class="button main" href="/lead/people"' not in lead.get("/lead").text


def test_every_word_of_a_page_is_in_the_dictionary() -> None:
    from importlib import resources
    root = resources.files("trivium.feedback")
    used = set()
    for file in (Path(str(root)) / "pages").glob("*.html"):
        used |= set(re.findall(r"\bt\('([a-z_]+)'(?! ~)", file.read_text()))
    for file in (Path(str(root)) / "static").glob("*.js"):
        used |= {f"js_{key}" for key in re.findall(r'\bsay\("([a-z_]+)"', file.read_text())}
    assert len(used) > 80 and used - {key for key in used if key.endswith("_")} <= set(WORDS)
