"""What a run says of itself from outside: its status, and its logs as they grow."""

from __future__ import annotations

import fcntl
import json
import os
import signal
import subprocess
import sys

import pytest
from started import recipe, wait_for

from trivium.errors import TriviumError
from trivium.pipeline.run import run
from trivium.status import Status, logs_of, read_status, status_file
from trivium.studio.live import MOST_ROWS, Follower, alarms, spread


def write_log(file, rows):
    file.parent.mkdir(parents=True, exist_ok=True)
    with open(file, "a") as log:
        log.writelines(json.dumps(row) + "\n" for row in rows)


def rows_of(count, first=0, **columns):
    return [{"step": step, **{key: value(step) for key, value in columns.items()}}
            for step in range(first, first + count)]


def test_news_are_what_a_log_gained(tmp_path):
    log = tmp_path / "run/.work/sft-0123456789ab/artifact/log.jsonl"
    write_log(log, rows_of(2, loss=float))
    follower = Follower(tmp_path / "run")
    first, = follower.news()
    assert (first["stage"], first["anew"], [row["loss"] for row in first["rows"]]) == ("sft", True, [0.0, 1.0])
    assert list(follower.news()) == []
    with open(log, "a") as file:
        file.write('{"step": 2, "loss": 2.0}\n{"step": 3, "lo')
    second, = follower.news()
    assert (second["anew"], [row["step"] for row in second["rows"]]) == (False, [2])
    with open(log, "a") as file:
        file.write('ss": 3.0}\n')
    third, = follower.news()
    assert [row["loss"] for row in third["rows"]] == [3.0]


def test_a_stage_that_is_done_is_followed_to_its_place(tmp_path):
    log = tmp_path / "run/.work/sft-0123456789ab/artifact/log.jsonl"
    write_log(log, rows_of(3, loss=float))
    follower = Follower(tmp_path / "run")
    list(follower.news())
    os.rename(log.parent, tmp_path / "run/sft")
    assert list(follower.news()) == []  # the same file elsewhere: nothing is sent twice
    write_log(tmp_path / "run/sft/log.jsonl", rows_of(1, 3, loss=float))
    news, = follower.news()
    assert (news["anew"], len(news["rows"])) == (False, 1)


def test_a_stage_that_goes_back_to_its_checkpoint_is_told_anew(tmp_path):
    log = tmp_path / "run/.work/sft-0123456789ab/artifact/log.jsonl"
    write_log(log, rows_of(5, loss=float))
    follower = Follower(tmp_path / "run")
    list(follower.news())
    kept = log.read_bytes().splitlines(keepends=True)[:2]
    aside = log.with_name("aside")
    aside.write_bytes(b"".join(kept))
    os.replace(aside, log)
    news, = follower.news()
    assert (news["anew"], [row["step"] for row in news["rows"]]) == (True, [0, 1])


def test_of_attempts_with_other_settings_the_last_is_followed(tmp_path):
    old, new = (tmp_path / f"run/.work/dpo-{digits}/artifact/log.jsonl" for digits in ("0" * 12, "1" * 12))
    write_log(old, rows_of(1, loss=float))
    write_log(new, rows_of(1, loss=float))
    os.utime(old, (1, 1))
    assert logs_of(tmp_path / "run") == {"dpo": new}


def test_a_long_log_is_thinned_and_says_so(tmp_path):
    write_log(tmp_path / "run/sft/log.jsonl", rows_of(MOST_ROWS + 500, loss=float))
    news, = Follower(tmp_path / "run").news()
    assert (len(news["rows"]), news["left_out"]) == (MOST_ROWS, 500)
    assert (news["rows"][0]["step"], news["rows"][-1]["step"]) == (0, MOST_ROWS + 499)
    assert spread(rows_of(3), 5) == rows_of(3)


def test_what_is_not_finite_is_no_point_but_an_alarm(tmp_path):
    write_log(tmp_path / "run/sft/log.jsonl", [{"step": 0, "loss": 1.0}, {"step": 1, "loss": "nan"}])
    news, = Follower(tmp_path / "run").news()
    assert news["rows"] == [{"step": 0, "loss": 1.0}, {"step": 1}]
    assert news["alarms"] == [{"what": "not_finite", "key": "loss", "step": 1}]


@pytest.mark.parametrize(("rows", "expected"), [
    (rows_of(30, entropy=lambda step: 3.0 / (step + 1)), ["collapse"]),
    (rows_of(30, entropy=lambda step: 3.0 - step / 20), []),
    ([{"step": step, "watched_score": step / 10, "watched_gold": gold} for step, gold in enumerate((5, 4, 3))],
     ["fooled"]),
    ([{"step": step, "watched_score": step / 10, "watched_gold": gold} for step, gold in enumerate((5, 3, 4))], []),
    (rows_of(200, loss=lambda step: 2 + (step % 7) / 10), ["plateau"]),
    (rows_of(200, loss=lambda step: 9 - step / 25 + (step % 7) / 50), []),
    ([], []),
])
def test_alarms(rows, expected):
    assert [one["what"] for one in alarms(rows)] == expected


def test_the_samples_of_a_policy_are_sent(tmp_path):
    write_log(tmp_path / "run/grpo/log.jsonl",
              [{"step": 0, "sample_prompt": "2 + 2?", "sample": "4" * 9000, "sample_score": 1.0}])
    news, = Follower(tmp_path / "run").news()
    sample, = news["samples"]
    assert (sample["prompt"], len(sample["text"]), sample["score"]) == ("2 + 2?", 4000, 1.0)


def test_a_run_says_what_it_did(tmp_path):
    file = tmp_path / "recipe.yaml"
    file.write_text(recipe("told", 0.5))
    run(file, [f"out={tmp_path}/runs"], only=["tokens"])
    status = read_status(tmp_path / "runs/told")
    assert (status["state"], status["recipe"], status["overrides"]) == (
        "finished", str(file), [f"out={tmp_path}/runs"])
    assert {name: one["state"] for name, one in status["stages"].items()} == dict.fromkeys(
        ("world", "corpus", "tokenizer", "tokens"), "finished")
    assert any(line.startswith("done in") for _, _, line in status["said"])


def test_stages_side_by_side_are_told_of(tmp_path):
    file = tmp_path / "recipe.yaml"
    file.write_text(recipe("beside").replace("  corpus: {", "  corpus: {threads: 1, "))
    run(file, [f"out={tmp_path}/runs"], only=["corpus"])
    status = read_status(tmp_path / "runs/beside")
    assert {name: one["state"] for name, one in status["stages"].items()} == {"world": "finished",
                                                                              "corpus": "finished"}


def test_a_run_that_fails_says_why(tmp_path):
    file = tmp_path / "recipe.yaml"
    (tmp_path / "rows.jsonl").write_text("{}\n")
    file.write_text(f"{recipe('failing')}  imports: {{demonstrations: [{tmp_path}/rows.jsonl]}}\n")
    with pytest.raises(TriviumError) as caught:
        run(file, [f"out={tmp_path}/runs"], only=["world", "imports"])
    status = read_status(tmp_path / "runs/failing")
    assert (status["state"], status["error"]) == ("failed", str(caught.value))
    assert {name: one["state"] for name, one in status["stages"].items()} == {"world": "finished",
                                                                              "imports": "failed"}


def test_a_killed_run_is_known_by_its_lock(tmp_path):
    file = tmp_path / "recipe.yaml"
    file.write_text(recipe("killed", 1000))
    process = subprocess.Popen([sys.executable, "-m", "trivium.cli", "run", str(file), "--set",
                                f"out={tmp_path}/runs", "--quiet"])
    folder = tmp_path / "runs/killed"

    def steps():
        status = read_status(folder)
        return status and status["stages"]["pretrain"].get("done")

    try:
        wait_for(steps)
        assert read_status(folder)["state"] == "running" and read_status(folder)["process"] == process.pid
    finally:
        process.send_signal(signal.SIGKILL)
        process.wait()
    status = wait_for(lambda: (found := read_status(folder))["state"] != "running" and found)
    assert status["state"] == "killed" and status["stages"]["pretrain"]["state"] == "waiting"


def test_a_folder_that_cannot_be_written_stops_no_run(tmp_path):
    status = Status(tmp_path / "away", "recipe.yaml", [], ["sft"])
    status("sft", {"begun": True})
    status.end("finished")
    assert read_status(tmp_path / "away") is None


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b'{"stages": 3}', b'{"stages": {}}', b"\xff", b"[" * 100_000])
def test_a_damaged_status_is_none(tmp_path, content):
    status_file(tmp_path).parent.mkdir()
    status_file(tmp_path).write_bytes(content)
    assert read_status(tmp_path) is None


def test_looking_does_not_take_the_lock(tmp_path):
    Status(tmp_path, "", [], [])  # no folder yet
    (tmp_path / ".work").mkdir()
    Status(tmp_path, "", [], ["sft"])
    with open(tmp_path / ".work/lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        assert read_status(tmp_path)["state"] == "running"
    assert read_status(tmp_path)["state"] == "killed"
    with open(tmp_path / ".work/lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
