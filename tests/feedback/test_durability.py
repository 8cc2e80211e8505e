"""A server that is killed under load loses no answer that it acknowledged."""

from __future__ import annotations

import http.client
import json
import os
import re
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest
from annotating import items

from trivium.feedback.accounts import Accounts
from trivium.feedback.store import Store
from trivium.feedback.web import COOKIE

ANNOTATORS = 50


def start(project: Path) -> tuple[subprocess.Popen[str], int]:
    process = subprocess.Popen([sys.executable, "-m", "trivium.cli.app", "annotate",
                                str(project), "--port", "0"], stdout=subprocess.PIPE, text=True,
                               env={**os.environ, "PYTHONUNBUFFERED": "1"})
    assert process.stdout is not None
    for line in process.stdout:
        if found := re.search(r"http://127\.0\.0\.1:(\d+) ", line):
            return process, int(found.group(1))
    raise AssertionError("the server did not start")


@pytest.mark.long
def test_kill_minus_nine_under_load(tmp_path: Path) -> None:
    project = tmp_path / "p"
    with Store(project, create=True) as store:
        store.change_settings(overlap=2, repeat_share=0.1, repeat_after=2)
        store.add_items(items(3000))
        desk = Accounts(store)
        people = {
            number: (token := desk.open_session(number), desk.csrf(token))
            for number in (store.add_person(f"p{i}") for i in range(ANNOTATORS))
        }
    acknowledged: dict[int, list[int]] = {}  # work -> the ratings that the server said it has
    lock, stop = threading.Lock(), threading.Event()

    def work(number: int, port: int) -> None:
        token, csrf = people[number]
        headers = {"cookie": f"{COOKIE}={token}", "x-csrf-token": csrf, "content-type": "application/json"}
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=30)
        turn = number
        try:
            while not stop.is_set():
                connection.request("GET", "/compare", headers=headers)
                page = connection.getresponse().read().decode()
                found = re.search(r'data-work="(\d+)"', page)
                if not found:
                    return
                turn += 1
                ratings = [turn % 7 + 1, (turn + 2) % 7 + 1, (turn + 4) % 7 + 1]
                connection.request("POST", f"/api/work/{found.group(1)}/judgement",
                                   json.dumps({"ranking": [[1], [0, 2]], "ratings": ratings}), headers)
                answer = connection.getresponse()
                answer.read()
                if answer.status == 200:
                    with lock:
                        acknowledged[int(found.group(1))] = ratings
        except (OSError, http.client.HTTPException):
            pass  # the server is gone: what it had not acknowledged may be lost
        finally:
            connection.close()

    for kills in range(2):
        process, port = start(project)
        threads = [threading.Thread(target=work, args=(number, port)) for number in people]
        for thread in threads:
            thread.start()
        deadline = time.monotonic() + 60
        while len(acknowledged) < 150 * (kills + 1) and time.monotonic() < deadline:
            time.sleep(0.02)
        process.send_signal(signal.SIGKILL)
        process.wait()
        stop.set()
        for thread in threads:
            thread.join(30)
        stop.clear()
        assert process.stdout is not None
        process.stdout.close()
        assert len(acknowledged) >= 150 * (kills + 1)
    with Store(project) as store, store.state() as state:
        lost = []
        for number, ratings in acknowledged.items():
            work = state.works.get(number)
            if work is None or work.ratings is None or [work.ratings[place] for place in work.order] != ratings:
                lost.append(number)
        assert not lost
        with store.engine.connect() as connection:
            assert connection.exec_driver_sql("PRAGMA integrity_check").scalar() == "ok"
    process, port = start(project)  # and it goes on from there
    process.terminate()
    process.wait(20)
    assert process.stdout is not None
    process.stdout.close()
