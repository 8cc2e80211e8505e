"""Several projects in one app."""

from __future__ import annotations

import re
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
import uvicorn
from annotating import items
from playwright.sync_api import expect

from trivium.feedback.accounts import Accounts
from trivium.feedback.store import Store
from trivium.feedback.web.several import create_front, projects_in

SECRET = "a very long password"


class Together:
    """Two projects and their server."""

    def __init__(self, stores: dict[str, Store], url: str) -> None:
        self.stores, self.url = stores, url

    def invited(self, project: str, role: str = "annotator") -> str:
        return f"/p/{project}/invite/{Accounts(self.stores[project]).invite(role)}"

    def joined(self, project: str, name: str, role: str = "annotator", password: str = SECRET) -> None:
        desk = Accounts(self.stores[project])
        desk.accept(desk.invite(role), name, password, "here")


@pytest.fixture
def together(tmp_path: Path) -> Iterator[Together]:
    stores = {name: Store(tmp_path / "all" / name, create=True) for name in ("bread", "mei hua")}
    stores["bread"].change_settings(title="Bread", known_share=0, repeat_share=0)
    stores["mei hua"].change_settings(title="Flowers")
    assert [one.name for one in projects_in(tmp_path / "all")] == ["bread", "mei hua"]
    assert projects_in(tmp_path / "all" / "bread") == []
    with socket.create_server(("127.0.0.1", 0)) as listening:
        server = uvicorn.Server(uvicorn.Config(create_front(stores), log_level="error", timeout_graceful_shutdown=1))
        thread = threading.Thread(target=server.run, kwargs={"sockets": [listening]}, daemon=True)
        thread.start()
        while not server.started:
            time.sleep(0.01)
        yield Together(stores, f"http://127.0.0.1:{listening.getsockname()[1]}")
        server.should_exit = True
        thread.join(10)
    for store in stores.values():
        store.close()


def test_one_login_opens_every_project_one_is_in_and_no_other(together: Together) -> None:
    together.joined("bread", "anna")
    together.joined("mei hua", "anna", "lead")
    together.joined("bread", "berta")
    with httpx.Client(base_url=together.url) as client:
        assert "Bread" not in client.get("/").text  # who is nobody sees no project's name
        wrong = client.post("/login", data={"name": "anna", "password": "x"})
        assert wrong.status_code == 401 and "wrong" in wrong.text
        wrong = client.post("/login", data={"name": "anna", "password": "x"}, headers={"accept-language": "zh"})
        assert "名字或密码不正确" in wrong.text
        assert client.post("/login", data={"name": "anna", "password": SECRET}).headers["location"] == "/"
        page = client.get("/").text
        assert "Bread" in page and "Flowers" in page and 'href="/p/mei%20hua/"' in page
        assert client.get("/p/mei%20hua/lead").status_code == 200
        assert client.get("/p/bread/lead").status_code == 403  # a lead there, an annotator here
        assert client.get("/p/mei%20hua/").headers["location"] == "/p/mei%20hua/lead"
        assert client.get("/p/none/work").status_code == 404
        assert client.post("/login", data={"name": "anna", "password": SECRET},
                           headers={"origin": "http://elsewhere"}).status_code == 403
    with httpx.Client(base_url=together.url) as client:
        client.post("/login", data={"name": "berta", "password": SECRET})
        page = client.get("/").text
        assert "Bread" in page and "Flowers" not in page
        gone = client.get("/p/mei%20hua/work")
        assert gone.status_code == 303 and gone.headers["location"] == "/p/mei%20hua/login"


def test_a_session_of_one_project_is_none_of_another(together: Together) -> None:
    together.joined("bread", "anna", "lead")
    together.joined("mei hua", "anna", "lead", "another long password")
    with httpx.Client(base_url=together.url) as client:
        client.post("/login", data={"name": "anna", "password": SECRET})
        (name, value), = ((name, value) for name, value in client.cookies.items() if name.startswith("trivium_"))
        client.cookies.clear()
        for other in ("trivium_session", name[:-12] + "0" * 12):
            assert client.get("/p/mei%20hua/lead", cookies={other: value}).status_code == 303
            assert client.get("/p/bread/lead", cookies={other: value}).status_code == 303
            client.cookies.clear()


@pytest.mark.browser
def test_somebody_joins_a_second_project_and_works_in_both(together: Together, chromium: Any) -> None:
    complaints: list[str] = []
    for store in together.stores.values():
        store.add_items(items(2))
    page = chromium.new_context(base_url=together.url).new_page()
    page.on("pageerror", lambda error: complaints.append(str(error)))
    page.on("console", lambda message: complaints.append(message.text) if message.type == "error" else None)
    page.goto(together.invited("bread"))
    page.get_by_label("Name").fill("anna")
    page.get_by_label("Password").fill(SECRET)
    page.get_by_role("button", name="Join").click()
    page.wait_for_url("**/p/bread/work")
    page.goto(together.invited("mei hua", "lead"))
    page.get_by_role("button", name="Join as anna").click()
    page.wait_for_url("**/p/mei%20hua/lead")
    expect(page.locator("[data-number=open]")).to_have_text("0")  # the figures come
    page.get_by_title("Projects").click()
    page.get_by_role("link", name=re.compile("Bread")).click()
    page.get_by_role("link", name="Start comparing").click()
    page.wait_for_selector(".chip")
    page.keyboard.press("a")
    page.keyboard.press("5")
    other = page.context.new_page()  # the other project's work of the same number, at the same time
    other.goto("/p/mei%20hua/compare")
    other.wait_for_selector(".chip")
    assert other.locator(".rating input:checked").count() == 0  # no draft of the other project
    for one in (other, page):
        one.keyboard.press("0")
        one.keyboard.press("Enter")
        one.wait_for_selector("#saved")
    page.get_by_role("button", name="Log out").click()
    page.wait_for_url("**/p/bread/login")
    page.goto("/")
    assert page.get_by_role("link", name=re.compile("Flowers")).count() == 1  # there, one is still logged in
    assert page.get_by_role("link", name=re.compile("Bread")).count() == 0
    for store in together.stores.values():
        store.refresh()
        assert len(list(store.events(["judgement"]))) == 1
    assert not complaints


def test_from_the_command_line(together: Together, tmp_path: Path) -> None:
    together.joined("bread", "anna", "lead")
    process = subprocess.Popen([sys.executable, "-m", "trivium.cli", "annotate", str(tmp_path / "all"), "--port", "0"],
                               stdout=subprocess.PIPE, text=True)
    try:
        assert process.stdout
        lines = [process.stdout.readline() for _ in range(3)]
        assert "become the lead of mei hua" in lines[0] and "/p/mei%20hua/invite/" in lines[1]
        assert lines[2].startswith("2 projects: http://")
        assert httpx.get(lines[1].strip()).status_code == 200
    finally:
        process.terminate()
        process.wait(20)
        process.stdout.close()
    refused = subprocess.run([sys.executable, "-m", "trivium.cli", "annotate", str(tmp_path / "all"), "--set",
                              "overlap=1"], capture_output=True, text=True, check=False)
    assert "holds 2 projects: name one of them" in refused.stderr
