"""Curves elsewhere: each tracker as it is, offline, and one that fails."""

from __future__ import annotations

import json
import time

import pytest

from trivium.errors import TriviumError
from trivium.training import trackers
from trivium.training.log import Log
from trivium.training.trackers import Tracking, flat

SETTINGS = {"kind": "sft", "optimization": {"learning_rate": 0.01}, "inputs": {"model": "runs/base"}}


def logged(tmp_path, name, said=None):
    """A log of three steps, the last of them twice, as after a return; and the tracking."""
    tracking = Tracking([name], "town", "sft", SETTINGS, tmp_path / "tensorboard", tmp_path / ".work/sft-1/scratch")
    log = Log(tmp_path / "log.jsonl", 0, tracking, (said if said is not None else []).append)
    for step in range(3):
        log(step, {"loss": 3.0 - step, "sample": f"<b>said {step}</b>"})
    log.back(2)
    log(2, {"loss": 0.5, "sample": "again"})
    log.close()
    return tracking


def test_tensorboard_has_what_the_log_has(tmp_path):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
    logged(tmp_path, "tensorboard")
    events = EventAccumulator(str(tmp_path / "tensorboard")).Reload()
    assert [(one.step, one.value) for one in events.Scalars("loss")] == [(0, 3.0), (1, 2.0), (2, 0.5)]
    rows = [json.loads(line) for line in (tmp_path / "log.jsonl").read_text().splitlines()]
    assert [row["loss"] for row in rows] == [3.0, 2.0, 0.5]


def test_wandb_writes_a_run_for_later_sending(tmp_path, monkeypatch):
    pytest.importorskip("wandb")
    monkeypatch.setenv("WANDB_MODE", "offline")
    monkeypatch.setenv("WANDB_DIR", str(tmp_path))
    said = []
    tracking = logged(tmp_path, "wandb", said)
    assert said == []
    run, = tmp_path.glob(f"wandb/offline-run-*-{tracking.identity}/run-{tracking.identity}.wandb")
    end = time.monotonic() + 30
    while missing := [word for word in (b"loss", b"learning_rate", b"runs/base") if word not in run.read_bytes()]:
        assert time.monotonic() < end, missing  # a process of its own writes it
        time.sleep(0.1)
    assert any("&lt;b&gt;said 0" in page.read_text() for page in run.parent.rglob("*.html"))


def test_mlflow_has_the_settings_the_curves_and_the_texts(tmp_path, monkeypatch):
    pytest.importorskip("mlflow")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{tmp_path}/mlflow.db")
    monkeypatch.chdir(tmp_path)
    said = []
    logged(tmp_path, "mlflow", said)
    assert said == []
    from mlflow.tracking import MlflowClient
    client = MlflowClient()
    number = client.get_experiment_by_name("town").experiment_id
    run, = client.search_runs([number])
    assert run.data.params["optimization.learning_rate"] == "0.01" and run.info.status == "FINISHED"
    assert [one.value for one in client.get_metric_history(run.info.run_id, "loss") if one.step < 2] == [3.0, 2.0]
    logged(tmp_path, "mlflow")  # an attempt that goes on tells the same run
    assert len(client.search_runs([number])) == 1


def test_swanlab_writes_an_experiment_for_later_sending(tmp_path, monkeypatch):
    pytest.importorskip("swanlab")
    monkeypatch.setenv("SWANLAB_LOG_DIR", str(tmp_path / "swanlog"))
    monkeypatch.setenv("SWANLAB_SAVE_DIR", str(tmp_path / "swansave"))
    monkeypatch.chdir(tmp_path)
    said = []
    logged(tmp_path, "swanlab", said)
    assert said == []
    told = b"".join(file.read_bytes() for file in tmp_path.rglob("*") if file.is_file() and "swan" in str(file))
    assert b"loss" in told and b"learning_rate" in told


def test_a_tracker_that_fails_ends_no_training(tmp_path, monkeypatch):
    class Away:
        def __init__(self, tracking, step):
            self.told = 0

        def __call__(self, step, values):
            self.told += 1
            raise ConnectionError("the server is away")

        back = close = __call__

    monkeypatch.setitem(trackers.KNOWN, "wandb", Away)
    said = []
    logged(tmp_path, "wandb", said)
    assert said == ["WARNING: wandb takes no more (ConnectionError: the server is away); the log has all"]
    assert len((tmp_path / "log.jsonl").read_text().splitlines()) == 3


def test_a_tracker_that_cannot_begin_ends_no_training(tmp_path, monkeypatch):
    def away(tracking, step):
        raise ConnectionError("the server is away")

    monkeypatch.setitem(trackers.KNOWN, "mlflow", away)
    said = []
    logged(tmp_path, "mlflow", said)
    assert said == ["WARNING: mlflow takes no more (ConnectionError: the server is away); the log has all"]
    assert len((tmp_path / "log.jsonl").read_text().splitlines()) == 3


def test_a_tracker_that_is_not_installed_is_named(tmp_path, monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "swanlab", None)
    with pytest.raises(TriviumError, match=r'`track` needs SwanLab: pip install "trivium\[swanlab\]"'):
        Log(tmp_path / "log.jsonl", 0, Tracking(["swanlab"]))


def test_attempts_at_the_same_work_are_one_run(tmp_path):
    one, same, other = (Tracking(scratch=tmp_path / name) for name in ("a/scratch", "a/scratch", "b/scratch"))
    assert one.identity == same.identity != other.identity
    assert flat({"a": {"b": 1, "c": {}}, "d": [2]}) == [("a.b", 1), ("a.c", {}), ("d", [2])]
