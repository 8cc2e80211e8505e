"""The studio's answers: runs, recipes, starting and stopping, and whom it lets in."""

from __future__ import annotations

import fcntl
import json
import os
import re
import shutil
import signal
import socket
import time

import httpx
import pytest
from started import recipe, state_of, studio_of, wait_for

from trivium.pipeline.run import run
from trivium.report.gather import gather
from trivium.report.page import render
from trivium.stages.registry import Stages
from trivium.studio.jobs import is_trivium
from trivium.studio.runs import Runs


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """Two finished runs that differ in one setting."""
    folder = tmp_path_factory.mktemp("made")
    for name, epochs in (("one", 1), ("two", 2)):
        file = folder / f"{name}.yaml"
        file.write_text(recipe(name, epochs))
        run(file, [f"out={folder}/runs"])
    return folder / "runs"


@pytest.fixture(scope="module")
def client(made):
    """A studio of these runs that starts nothing."""
    with studio_of(made, made) as start:
        yield start()


@pytest.fixture
def root(made):
    return made


def test_runs_are_listed_with_their_state(client, made):
    found = client.get("/api/runs").json()
    assert {"one", "two"} <= {one["name"] for one in found["runs"]} and found["counts"]["finished"] >= 2
    about = next(one for one in found["runs"] if one["name"] == "two")
    assert (about["state"], about["done"], about["stages"], about["error"]) == ("finished", 5, 5, "")
    assert about["recipe"].endswith("two.yaml") and about["ended"] >= about["begun"]
    assert client.get("/api/runs", params={"text": "TW"}).json()["total"] == 1
    assert client.get("/api/runs", params={"state": "failed"}).json()["runs"] == []


def test_a_run_is_told_with_its_stages_and_curves(client, made):
    about = client.get("/api/runs/one").json()
    assert [stage["name"] for stage in about["stages"]] == ["world", "corpus", "tokenizer", "tokens", "pretrain"]
    stage = about["stages"][-1]
    assert stage["state"] == "finished" and stage["digest"] and stage["settings"]["rows"] == 2
    assert any(one["key"] == "validation_bits_per_byte" for one in stage["figures"])
    assert about["text"] == recipe("one")
    logged = [json.loads(line)["loss"] for line in (made / "one/pretrain/log.jsonl").read_text().splitlines()]
    with client.stream("GET", "/api/runs/one/events") as stream:
        lines = stream.iter_lines()
        kinds = {}
        for line in lines:
            if line.startswith("event: "):
                kind = line.removeprefix("event: ")
                kinds[kind] = json.loads(next(lines).removeprefix("data: "))
            if len(kinds) == 2:
                break
    assert kinds["run"]["name"] == "one"
    assert [row["loss"] for row in kinds["rows"]["rows"] if "loss" in row] == logged


def test_runs_are_compared(client):
    found = client.get("/api/compare", params={"run": ["one", "two"]}).json()
    assert found["stages"]["pretrain"]["settings"] == {"epochs": ["1.0", "2.0"]}
    assert found["runs"] == ["one", "two"]
    lengths = [len(found["curves"][name]["pretrain"]["loss"]) for name in ("one", "two")]
    assert lengths[1] > lengths[0] > 1


def test_the_report_runs_apart(client):
    answer = client.get("/runs/one/report")
    policy = answer.headers["content-security-policy"]
    assert answer.status_code == 200 and "sandbox allow-scripts" in policy and "allow-same-origin" not in policy


@pytest.mark.parametrize("name", ["none", "..", ".studio", "%2e%2e", "one%2f..%2fone", "a" * 300, "%00"])
def test_only_runs_are_runs(client, name):
    for path in ("", "/events", "/answers?stage=x"):
        assert client.get(f"/api/runs/{name}{path}").status_code in (404, 422)


def test_a_recipe_is_checked_as_the_command_checks_it(client):
    good = client.post("/api/recipe/form", json={"text": recipe("new")}).json()
    assert (good["error"], good["run"], good["exists"]) == ("", "new", False)
    epochs = next(one for one in good["stages"][-1]["settings"] if one["name"] == "epochs")
    assert epochs["value"] == 1 and epochs["given"] and epochs["about"]
    bad = client.post("/api/recipe/form", json={"text": recipe("new").replace("rows: 2", "rows: 0")}).json()
    assert bad["error"].startswith("stages.pretrain.rows")
    assert client.post("/api/recipe/form", json={"text": "- 1"}).status_code == 422
    assert client.post("/api/recipe/form", json={"text": "a: [", "more": 1}).status_code == 422


@pytest.mark.parametrize(("setting", "value", "expected"), [
    ("pretrain.epochs", "3", "epochs: 3\n"), ("pretrain.optimization.learning_rate", "0.5", "learning_rate: 0.5\n"),
    ("pretrain.rows", None, None), ("pretrain.nothing.there", None, "rows: 2\n")])
def test_a_setting_is_changed_in_the_text(client, setting, value, expected):
    answer = client.post("/api/recipe/set", json={"text": recipe("new"), "setting": setting, "value": value})
    text = answer.json()["text"]
    assert expected in text if expected else "rows:" not in text.partition("pretrain:")[2]


def test_templates_are_recipes(client):
    templates = client.get("/api/templates").json()
    assert [one["name"] for one in templates] == ["fine-tune", "align", "whole", "clean"]
    for one in templates:
        found = client.post("/api/recipe/form", json={"text": one["text"]}).json()
        assert found["error"] == "" or re.search("no such file|no file is", found["error"])


def test_a_run_is_started_stopped_and_goes_on(studio, made):
    client = studio()
    text = recipe("long", 1000)
    assert client.post("/api/runs", json={"text": text}).json()["run"] == "long"
    assert client.post("/api/runs", json={"text": text}).status_code == 422  # it begins, and has no lock yet
    wait_for(lambda: any(stage.get("done") for stage in client.get("/api/runs/long").json().get("stages", [])
                         if stage["name"] == "pretrain"))
    refused = client.post("/api/runs", json={"text": text})
    assert refused.status_code == 422 and "under way" in refused.json()["error"]
    assert client.post("/api/runs/long/stop", json={}).status_code == 200
    wait_for(lambda: state_of(client, "long") == "interrupted")
    assert client.post("/api/runs/long/stop", json={}).status_code == 422
    reached = [json.loads(line) for line in next(made.glob("long/.work/pretrain-*/artifact/log.jsonl")
                                                 ).read_text().splitlines()]
    assert client.post("/api/runs/long/again").status_code == 200
    wait_for(lambda: state_of(client, "long") == "running")
    wait_for(lambda: client.get("/api/runs", params={"text": "long"}).json()["runs"][0]["now"])
    assert client.post("/api/runs/long/stop", json={"at_once": True}).status_code == 200
    wait_for(lambda: state_of(client, "long") == "killed")
    assert reached


def test_what_waits_starts_when_there_is_room_and_outlives_the_studio(studio, made):
    client = studio()
    client.post("/api/runs", json={"text": recipe("first", 1000)})
    wait_for(lambda: state_of(client, "first") == "running")
    job = client.post("/api/runs", json={"text": recipe("second", 0.1)}).json()
    other = client.post("/api/runs", json={"text": recipe("third", 0.1)}).json()
    assert [one["run"] for one in client.get("/api/runs").json()["waiting"]] == ["second", "third"]
    assert client.post(f"/api/jobs/{other['id']}/withdraw").status_code == 200
    assert client.post("/api/jobs/..%2f..%2fx/withdraw").status_code in (404, 422)
    client.process.send_signal(signal.SIGKILL)
    client.process.wait()
    client = studio()
    assert state_of(client, "first") == "running"  # the run lives on
    assert [one["id"] for one in client.get("/api/runs").json()["waiting"]] == [job["id"]]
    client.post("/api/runs/first/stop", json={})
    wait_for(lambda: state_of(client, "second") == "finished")
    assert state_of(client, "third") == ""


def test_a_wrong_recipe_starts_nothing(client):
    answer = client.post("/api/runs", json={"text": recipe("new").replace("vocab_size", "size")})
    assert answer.status_code == 422 and "tokenizer" in answer.json()["error"]
    assert client.get("/api/runs").json()["waiting"] == []


def test_a_file_is_kept_where_the_recipe_finds_it(client, made):
    found = client.post("/api/files", params={"name": "../../my rows.csv"}, content=b"question,answer\na,b\n").json()
    place = os.path.relpath(found["path"], made / ".studio/files")
    assert place.endswith("/my_rows.csv") and ".." not in place
    assert open(found["path"], "rb").read() == b"question,answer\na,b\n"
    long = client.post("/api/files", params={"name": "很" * 190 + ".jsonl"}, content=b"{}").json()
    assert long["path"].endswith("很.jsonl") and os.path.getsize(long["path"]) == 2
    again = client.post("/api/files", params={"name": "my rows.csv"}, content=b"x").json()
    assert again["path"] != found["path"]
    assert client.get("/api/runs", params={"text": ".studio"}).json()["total"] == 0


def test_other_sites_and_names_are_refused(client):
    body = {"text": recipe("new")}
    assert client.post("/api/runs", json=body, headers={"origin": "https://evil.example"}).status_code == 403
    assert client.post("/api/runs", json=body, headers={"sec-fetch-site": "cross-site"}).status_code == 403
    assert client.get("/api/runs", headers={"host": "evil.example"}).status_code == 421
    headers = client.get("/").headers
    assert "trusted-types 'none'" in headers["content-security-policy"]
    assert client.post("/api/recipe/form", content=b"{" * 3_000_000).status_code == 413


def test_from_elsewhere_the_key_is_asked_for(studio):
    client = studio("--host", "0.0.0.0", TRIVIUM_STUDIO_KEY="sesame")
    assert client.get("/api/runs").status_code == 401
    assert client.get("/").headers["location"] == "/login"
    assert client.get("/login").status_code == 200 and client.get("/studio.css").status_code == 200
    assert client.post("/login", json={"key": "wrong"}).status_code == 401
    assert client.post("/login", json={"key": "sesame"}).status_code == 200
    assert client.get("/api/runs").status_code == 200


def test_a_made_up_key_is_printed_once(studio):
    client = studio("--host", "0.0.0.0")
    line = client.process.stdout.readline()
    assert line.startswith("its key: ")
    assert client.post("/login", json={"key": line.removeprefix("its key: ").strip()}).status_code == 200


def test_a_process_of_another_program_is_not_ours():
    assert not is_trivium(1) and not is_trivium(0) and not is_trivium(2**22 + 1)


def test_ten_thousand_runs_stay_quick(tmp_path):
    told = {"state": "finished", "error": "", "process": 1, "begun": 1.0, "ended": 2.0, "recipe": "", "overrides": [],
            "said": [], "stages": {"sft": {"state": "finished"}}}
    for number in range(10_000):
        folder = tmp_path / f"run-{number}" / ".work"
        folder.mkdir(parents=True)
        (folder / "status.json").write_text(json.dumps(told))
    runs = Runs(tmp_path, {})
    runs.listed()
    reads = 0

    class Counting(Runs):
        def read(self, name, folder):
            nonlocal reads
            reads += 1
            return super().read(name, folder)

    counting = Counting(tmp_path, {}, keep=0)
    counting.listed()
    assert reads == 10_000
    (tmp_path / "run-7/.work/status.json").write_text(json.dumps(told | {"ended": 3.0}))
    os.utime(tmp_path / "run-7/.work/status.json", ns=(time.time_ns(), time.time_ns()))
    found = counting.listed(count=5)
    assert reads == 10_001 and found["total"] == 10_000 and found["runs"][0]["name"] == "run-7"


def test_what_carries_loss_is_shown_before_anything_runs(client, tmp_path):
    text = recipe("look") + "  sft: {model: pretrain, demonstrations: world, length: 64}\n"
    found = client.post("/api/recipe/preview", json={"text": text, "stage": "sft"}).json()
    learned = [token["loss"] for token in found["tokens"]]
    assert 0 < sum(learned) < len(learned)
    assert client.get("/api/runs", params={"text": "look"}).json()["total"] == 0
    assert client.post("/api/recipe/preview", json={"text": text, "stage": "none"}).status_code == 422


def test_a_stage_that_is_under_way_is_in_the_report(made, tmp_path):
    folder = tmp_path / "half"
    shutil.copytree(made / "one", folder)
    shutil.move(folder / "pretrain", folder / ".work/pretrain-0123456789ab/artifact")
    (folder / ".work/pretrain-0123456789ab/artifact/manifest.json").unlink()
    page = render(gather(folder, Stages()))
    assert "not finished" in page and "pretrain" in page.partition('id="curves"')[2]
    told = json.loads((folder / ".work/status.json").read_text())
    told["stages"]["pretrain"] = {"state": "running", "done": 3, "total": 9}
    (folder / ".work/status.json").write_text(json.dumps(told | {"state": "running"}))
    with open(folder / ".work/lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        assert "under way" in (page := render(gather(folder, Stages()))) and "3/9" in page


def test_models_of_a_run_are_talked_with(studio, tmp_path):
    root = tmp_path / "runs"
    file = tmp_path / "recipe.yaml"
    file.write_text(recipe("talking", 0.2) + "  sft: {model: pretrain, demonstrations: world, length: 64, epochs: 1}\n")
    run(file, [f"out={root}"])
    with studio_of(root, tmp_path) as start:
        client = start()
        stages = client.get("/api/runs/talking").json()["stages"]
        assert [stage["name"] for stage in stages if stage.get("chats")] == ["sft"]
        port = client.post("/api/runs/talking/talk", json={"stages": ["sft"]}).json()["port"]
        assert client.post("/api/runs/talking/talk", json={"stages": ["sft"]}).json()["port"] == port
        models = httpx.get(f"http://127.0.0.1:{port}/v1/models").json()["data"]
        assert [model["id"] for model in models] == ["sft"]
        refused = client.post("/api/runs/talking/talk", json={"stages": ["world"]})
        assert refused.status_code == 422 and refused.json()["error"]
    wait_for(lambda: is_away(port))


def is_away(port):
    """Whether nobody listens on a port."""
    with socket.socket() as tried:
        return tried.connect_ex(("127.0.0.1", port)) != 0
