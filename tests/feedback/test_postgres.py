"""The same store on a real PostgreSQL server, which the test makes and ends."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import time
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from annotating import items

from trivium.errors import TriviumError
from trivium.feedback.accounts import Accounts
from trivium.feedback.catalogue import Catalogue, Wanted
from trivium.feedback.dashboard import Dashboard
from trivium.feedback.exports import export
from trivium.feedback.store import Store

pytestmark = pytest.mark.long


@pytest.fixture
def url() -> Iterator[str]:
    programs = sorted(Path("/usr/lib/postgresql").glob("*/bin/initdb"))
    if not programs:
        pytest.fail("this test needs a PostgreSQL server: apt-get install postgresql")
    binaries, folder = programs[-1].parent, Path(subprocess.check_output(["mktemp", "-d"], text=True).strip())
    as_user = ["runuser", "-u", "postgres", "--"] if os.getuid() == 0 else []  # initdb refuses to be root
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
    try:
        if as_user:
            shutil.chown(folder, "postgres")
        subprocess.run([*as_user, binaries / "initdb", "-D", folder / "data", "-U", "tester", "--auth", "trust"],
                       check=True, stdout=subprocess.DEVNULL, cwd="/")
        subprocess.run([
            *as_user, binaries / "pg_ctl", "-D", folder / "data", "-w", "-l", folder / "log", "-o",
            f"-p {port} -k {folder} -h 127.0.0.1", "start"
        ], check=True, stdout=subprocess.DEVNULL, cwd="/")
        yield f"postgresql://tester@127.0.0.1:{port}/postgres"
    finally:
        subprocess.run([*as_user, binaries / "pg_ctl", "-D", folder / "data", "-m", "immediate", "stop"], check=False,
                       stdout=subprocess.DEVNULL, cwd="/")
        time.sleep(0.2)
        shutil.rmtree(folder, ignore_errors=True)


def test_a_project_in_postgresql(url: str) -> None:
    with pytest.raises(TriviumError, match="no feedback project"):
        Store(url)
    with Store(url, create=True) as store, Store(url) as other:
        store.change_settings(overlap=2, repeat_share=0)
        assert store.add_items([*items(30), {"prompt": "x", "responses": ["a"]}]).added == 30
        people = [store.add_person(f"p{i}") for i in range(6)]

        def work(place: int) -> int:
            mine, done = (store, other)[place % 2], 0
            while task := mine.next_work(people[place]):
                mine.judge(task.id, people[place], [[0], [1, 2]], [7, 3, 3], seconds=2.0)
                done += 1
            return done
        with ThreadPoolExecutor(6) as pool:
            assert sum(pool.map(work, range(6))) == 60
        assert set(Counter(row["id"] for row in export(other, "rankings")).values()) == {2}
        assert Dashboard(other).figures()["agreement"]["agreement"]["value"] == 1.0
        desk = Accounts(store)
        token = desk.accept(desk.invite("lead"), "boss", "a very long password", "here")
        visitor = Accounts(other).visitor(token)
        assert visitor is not None and visitor.role == "lead" and desk.login("boss", "a very long password", "here")
        with pytest.raises(TriviumError, match="taken"):
            other.add_person("boss")
        for one in (store, other):  # the second finds the index that the first has made
            for text in ('"question number 7" answ', "nummer"):
                assert [row.item for row in Catalogue(one).find(Wanted(text=text))[1]] == (
                    ["item-7"] if "7" in text else [])
        other.add_items([{"id": "late", "prompt": "它是一个苹果吗？"}])
        assert [row.item for row in Catalogue(store).find(Wanted(text="苹果"))[1]] == ["late"]
        store.change_settings(overlap=4, daily_quota=30)
        for place, person in enumerate(people):
            store.give(f"item-{place}", people[(place + 1) % 6]) if all(
                row["annotator"] != f"p{(place + 1) % 6}" for row in export(store, "rankings")
                if row["id"] == f"item-{place}") else other.set_quota(person, in_all=10)
        with ThreadPoolExecutor(12) as pool:  # two browsers of each
            list(pool.map(work, [*range(6), *range(6)]))
        assert max(Counter(row["annotator"] for row in export(store, "rankings")).values()) <= 30
        with store.state() as state, other.state() as same:
            assert state.given == same.given and len(state.given) > 1
        other.remove_person(people[0])
        assert len(list(export(store, "rankings"))) >= 60
        ids = [event.id for event in store.events()]
        assert ids == sorted(ids)
