"""Checkpoints in the background: what they hold, when they come, which stay, and what is made of damaged ones."""

from __future__ import annotations

import hashlib
import json
import os
import random
import signal
import subprocess
import sys
import threading
import time

import pytest
import torch
from safetensors.torch import load_file, save_file
from test_loop import CONFIG, trees
from test_parallel import WORKER, end, finish, lines, start

from trivium.errors import TriviumError
from trivium.model import LanguageModel
from trivium.stages.pretraining.pretrain import LanguageModeling
from trivium.training import checkpoint, loop, saving
from trivium.training.checkpoint import DTYPES, write_tensors
from trivium.training.epochs import PackedEpochs
from trivium.training.log import Log
from trivium.training.loop import Evaluation, train
from trivium.training.parallel import World
from trivium.training.saving import Saver
from trivium.training.settings import Optimization, Saving

BATCHES = PackedEpochs(trees(), 32, 2, 0)
CPU = torch.device("cpu")


def go(folder, steps, said=None, **more):
    """A run's weights."""
    folder.mkdir(exist_ok=True)
    return train(LanguageModel(CONFIG).initialise(0), LanguageModeling(), BATCHES, steps,
                 Optimization(schedule="constant", warmup=0.0), scratch=folder, log=folder / "log.jsonl",
                 fingerprint="mine", say=(said if said is not None else []).append, **more).model


def same(one, other):
    return all(torch.equal(a, b) for a, b in zip(one.parameters(), other.parameters(), strict=True))


def steps_in(folder):
    return [int(path.stem[5:]) for path in sorted(folder.glob("step-????????.json"))]


@pytest.fixture
def every_step(monkeypatch):
    monkeypatch.setenv("TRIVIUM_SAVE_EVERY_STEP", "1")


def test_what_is_written_is_what_the_library_writes(tmp_path):
    tensors = {f"a{place}": torch.randint(0, 2, (3, place % 4)).to(kind)
               for place, kind in enumerate([*DTYPES, *DTYPES])}
    tensors |= {"one": torch.tensor(2.5), 'näme "x"': torch.randn(5, 7).T, "none": torch.zeros(0, 3)}
    digest = write_tensors(tmp_path / "ours", tensors)
    save_file({name: tensor.contiguous() for name, tensor in tensors.items()}, tmp_path / "theirs")
    assert (tmp_path / "ours").read_bytes() == (tmp_path / "theirs").read_bytes()
    assert digest == hashlib.sha256((tmp_path / "theirs").read_bytes()).hexdigest()


def test_training_goes_on_while_a_copy_is_written(tmp_path, monkeypatch, any_precision):
    """A writer that is held up: updates go on, and what it writes then are the weights of its own step."""
    free, whole = threading.Event(), checkpoint.write_tensors

    def held_up(path, parts):
        assert free.wait(60)
        return whole(path, parts)

    def watch(step, metrics):
        if step == 3:
            free.set()

    plain = go(tmp_path / "plain", 2, precision=any_precision)
    monkeypatch.setattr(checkpoint, "write_tensors", held_up)
    done = go(tmp_path / "run", 6, saving=Saving(seconds=0), watch=watch, precision=any_precision)
    monkeypatch.setattr(checkpoint, "write_tensors", whole)
    begun = load_file(tmp_path / "run/step-00000000.0.safetensors")
    fresh = dict(LanguageModel(CONFIG).initialise(0).named_parameters())
    for name, weight in begun.items():
        assert torch.equal(weight, fresh[name.removeprefix("model.")])
    later = tmp_path / "later"
    assert same(go(later, 6, precision=any_precision), done) and not same(plain, done)


def test_a_killed_run_goes_on_from_what_the_background_wrote(tmp_path, every_step, any_precision):
    """Stopped by an exception in the middle of an update, while a checkpoint is being written."""
    def stop(step, metrics):
        if step == 4:
            raise KeyboardInterrupt
    whole = go(tmp_path / "whole", 8, precision=any_precision)
    with pytest.raises(KeyboardInterrupt):
        go(tmp_path / "cut", 8, watch=stop, precision=any_precision)
    assert steps_in(tmp_path / "cut")[-1] == 4  # it was written to its end
    assert same(go(tmp_path / "cut", 8, precision=any_precision), whole)


# --------------------------------------------------------------------------------------------- when they are written


def saver_of(folder, **more):
    return Saver(folder, World(), CPU, **more)


def test_the_interval_counts_from_the_end_and_is_twenty_times_the_cost(tmp_path, monkeypatch):
    model, whole = LanguageModel(CONFIG).initialise(0), checkpoint.write_tensors

    def slow(path, parts):
        until = time.thread_time() + 0.05
        while time.thread_time() < until:
            sum(range(1000))
        time.sleep(0.1)
        return whole(path, parts)
    monkeypatch.setattr(checkpoint, "write_tensors", slow)
    with saver_of(tmp_path, least=0.0) as saver:
        begun = time.monotonic()
        saver.save(1, model, [], {})
        assert not saver.due(1)  # it is being written
        saver.wait()
        assert saver.ended - begun > 0.15
        threads = torch.get_num_threads()
        assert saver.cost > 0.05 / threads and saver.interval == pytest.approx(20 * saver.cost)
        assert not saver.due(2)
        monkeypatch.setattr(time, "monotonic", lambda: saver.ended + saver.interval + 0.01)
        assert saver.due(3)


def test_settings_say_when(tmp_path):
    assert saver_of(tmp_path).interval == 20
    assert saver_of(tmp_path, saving=Saving(seconds=600)).interval == 600
    due = [step for step in range(1, 10) if saver_of(tmp_path, saving=Saving(steps=3, keep_every=5)).due(step)]
    assert due == [3, 5, 6, 9]
    for name in ("seconds", "steps", "keep_every"):
        with pytest.raises(TriviumError, match=f"checkpoints: {name} is -1"):
            Saving(**{name: -1})


def test_without_memory_for_a_copy_training_waits(tmp_path, monkeypatch):
    monkeypatch.setattr(saving, "available_memory", lambda: 1e4)
    said = []
    with saver_of(tmp_path, say=said.append) as saver:
        saver.save(1, LanguageModel(CONFIG).initialise(0), [], {})
        assert not saver.pending and steps_in(tmp_path) == [1]
    assert "too little memory for a copy" in said[0]


# ------------------------------------------------------------------------------------------------------- which stay


def test_the_newest_two_and_one_to_go_back_to_stay(tmp_path, every_step, monkeypatch):
    monkeypatch.setattr(loop, "ANCHOR", 4)
    go(tmp_path, 11)
    assert steps_in(tmp_path) == [8, 10, 11]
    assert {path.name.partition(".")[0] for path in tmp_path.glob("step-*")} == {
        "step-00000008", "step-00000010", "step-00000011"}


def test_every_nth_stays_for_good(tmp_path):
    go(tmp_path / "run", 7, saving=Saving(keep_every=3), kept=tmp_path / "kept")
    assert steps_in(tmp_path / "kept") == [3, 6]
    (tmp_path / "again").mkdir()
    for file in (tmp_path / "kept").glob("step-00000003.*"):
        (tmp_path / "again" / file.name).write_bytes(file.read_bytes())
    assert same(go(tmp_path / "again", 7), go(tmp_path / "plain", 7))


def test_the_best_weights_stay_as_long_as_a_checkpoint_tells_of_them(tmp_path):
    with saver_of(tmp_path) as saver:
        model = LanguageModel(CONFIG).initialise(0)
        for step, best in ((1, 1), (2, 2), (3, 0), (4, 4), (5, 5), (6, 0)):
            if best:
                saver.save(step, model, [], {"fingerprint": "x"}, best=True)
            told = best or {3: 2, 6: 5}[step]
            saver.save(step, model, [], {"state": {"best": {"step": told}}})
    assert steps_in(tmp_path) == [5, 6] and steps_in(tmp_path / "best") == [5]


def test_the_best_weights_are_put_back_or_missed(tmp_path, every_step):
    evaluation = Evaluation(2, lambda part, parts: BATCHES(0, part, parts), keep_best=True)
    go(tmp_path, 6, evaluation=evaluation)
    for file in (tmp_path / "best").glob("*.safetensors"):
        file.write_bytes(file.read_bytes()[:-1] + b"x")
    with pytest.raises(TriviumError, match="best weights, of step .*damaged"):
        go(tmp_path, 6, evaluation=evaluation)


def test_what_killed_attempts_left_goes(tmp_path):
    (tmp_path / ".step-00000007.0.safetensors.12.half.tmp").mkdir()
    for name in ("step-00000009.0.safetensors", "step-00000009.1.json"):
        (tmp_path / name).write_bytes(b"half")
    go(tmp_path, 2)
    assert {path.name for path in tmp_path.iterdir()} == {
        "log.jsonl", *(f"step-{step:08d}{ending}" for step in (0, 2)
                       for ending in (".json", ".0.json", ".0.safetensors"))}


# ------------------------------------------------------------------------------------------------------------ damage


def flipped(data, seed):
    place = random.Random(seed).randrange(len(data))
    return data[:place] + bytes([data[place] ^ 1 << seed % 8]) + data[place + 1:]


HARM = {
    "empty": lambda data: b"", "torn": lambda data: data[:len(data) // 2], "zeroed": lambda data: bytes(len(data)),
    "a list": lambda data: b"[1, 2]", "a number": lambda data: b"7", "no UTF-8": lambda data: b"\xff\xfe" + data,
    "deep": lambda data: b"[" * 100_000, "another step": lambda data: data.replace(b"5", b"6"),
    **{f"flipped {seed}": (lambda data, seed=seed: flipped(data, seed)) for seed in range(8)}}


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """A run of six updates with its last two checkpoints, and its weights."""
    folder = tmp_path_factory.mktemp("made")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("TRIVIUM_SAVE_EVERY_STEP", "1")
        go(folder / "run", 6)
    return folder / "run", go(folder / "whole", 6)


@pytest.mark.parametrize("name", ["step-00000006.json", "step-00000006.0.json", "step-00000006.0.safetensors"])
def test_from_a_damaged_checkpoint_it_falls_back_and_says_so(tmp_path, made, name):
    for kind, harm in HARM.items():
        folder = tmp_path / kind
        folder.mkdir()
        for file in made[0].glob("*.*"):
            (folder / file.name).write_bytes(file.read_bytes())
        (folder / name).write_bytes(harm((folder / name).read_bytes()))
        said: list[str] = []
        assert same(go(folder, 6, said), made[1]), kind
        assert any("step 6 is damaged (step-00000006" in line and line.endswith("goes on from step 5")
                   for line in said), (kind, said)


def test_with_all_damaged_it_begins_anew(tmp_path, made):
    for file in made[0].glob("step-*"):
        (tmp_path / file.name).write_bytes(b"" if file.suffix == ".json" else file.read_bytes())
    said: list[str] = []
    assert same(go(tmp_path, 6, said), made[1])
    assert any("step 6 is damaged (step-00000006.json is empty), that of step 5" in line and "begins anew" in line
               for line in said)


def test_a_mixture_of_two_attempts_is_no_checkpoint(tmp_path, made):
    for file in made[0].glob("step-*"):
        (tmp_path / file.name).write_bytes(file.read_bytes())
    note = tmp_path / "step-00000006.0.json"
    about = json.loads(note.read_bytes())
    del about["digest"]
    checkpoint.write_note(note, about | {"attempt": 1})
    said: list[str] = []
    assert same(go(tmp_path, 6, said), made[1]) and any("another attempt" in line for line in said)


def test_checkpoints_of_earlier_versions_are_taken(tmp_path, made):
    """Their notes had no digests, and counted the returns."""
    for file in made[0].glob("step-00000006.*"):
        (tmp_path / file.name).write_bytes(file.read_bytes())
        if file.suffix == ".json":
            values = json.loads(file.read_bytes())
            if "extra" in values:
                values["extra"]["state"].pop("turns")
                values["extra"]["state"]["returns"] = 0
            (tmp_path / file.name).write_text(json.dumps(
                {name: value for name, value in values.items() if name not in ("digest", "attempt")}))
    said: list[str] = []
    assert same(go(tmp_path, 6, said), made[1]) and not any("damaged" in line for line in said)


def test_damaged_lines_of_a_log_are_left_out_and_counted(tmp_path):
    place, said = tmp_path / "log.jsonl", []
    place.write_bytes(b'{"step": 0}\n\xff\xfe\n[1]\n{"step": 1}\n7\n{"step": "x"}\n{"step": 2}\n{"step": 3}\n{"st')
    Log(place, 3, say=said.append)
    assert place.read_bytes() == b'{"step": 0}\n{"step": 1}\n{"step": 2}\n'
    assert said == [f"{place}: 4 damaged lines were left out"]


def test_damaged_seconds_are_only_a_stopwatch(tmp_path):
    from trivium.pipeline.one_stage import clock
    for harm in (b"", b'{"sec', b"[1]", b"\xff", b'{"seconds": "x"}', b'{"seconds": NaN}', b'{"seconds": null}'):
        (tmp_path / "attempts.json").write_bytes(harm)
        said, earlier = [], []
        with clock(tmp_path, earlier, said.append) as spent:
            assert 0 <= spent() < 5
        assert earlier == [] and "attempts.json is damaged" in said[0]


# ------------------------------------------------------------------------------------------------------------- stops

STOPPED = """
import sys, os, signal, pathlib
sys.path.insert(0, sys.argv[2])
import test_saving
from trivium.training import checkpoint
whole = checkpoint.write_tensors
def slow(path, parts):
    if "step-00000003" in path.name:
        (path.parent / "writing").touch()
        import time
        time.sleep(1)
    return whole(path, parts)
checkpoint.write_tensors = slow
test_saving.go(pathlib.Path(sys.argv[1]), 10**6)
"""


@pytest.mark.long
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_stopped_run_writes_its_checkpoint_to_the_end(tmp_path, number):
    process = subprocess.Popen([sys.executable, "-c", STOPPED, str(tmp_path), os.path.dirname(__file__)],
                               env=os.environ | {"TRIVIUM_SAVE_EVERY_STEP": "1"}, stderr=subprocess.DEVNULL)
    deadline = time.monotonic() + 120
    while not (tmp_path / "writing").exists():
        assert process.poll() is None and time.monotonic() < deadline
        time.sleep(0.01)
    process.send_signal(number)
    code = process.wait(60)
    assert code == -number if number == signal.SIGTERM else code != 0
    assert steps_in(tmp_path)[-1] >= 3 and not list(tmp_path.glob(".*.tmp"))


HELD_UP = """
import json, os, sys, time
from pathlib import Path
from trivium.training import checkpoint
whole, rank = checkpoint.write_tensors, os.environ["RANK"]
def slow(path, parts):
    digest = whole(path, parts)
    if path.name.startswith("step-00000005") and rank in json.loads(sys.argv[3])["held_up"]:
        (Path(sys.argv[1]) / f"writing-{rank}").write_text(str(os.getpid()))
        time.sleep(300)
    return digest
checkpoint.write_tensors = slow
"""


@pytest.mark.long
@pytest.mark.parametrize("precision", ["float32", "bf16-weights"])
def test_processes_killed_during_a_save_go_on_to_the_same_bits(tmp_path, precision):
    """One of two, and both, while the one, the other or both have their part of a checkpoint not yet whole."""
    options = {"precision": precision, "evaluate": True}
    finish(start(tmp_path / "whole", 2, every_step=True, **options))
    wanted = load_file(tmp_path / "whole/final.safetensors")
    for held_up, killed in (("1", "1"), ("01", "01"), ("0", "01")):
        folder = tmp_path / f"{held_up}-{killed}"
        process = start(folder, 2, every_step=True, script=HELD_UP + WORKER, **options, held_up=held_up)
        deadline = time.monotonic() + 200
        places = [folder / f"writing-{rank}" for rank in held_up]
        while not all(place.exists() and place.read_text() for place in places):
            assert process.poll() is None and time.monotonic() < deadline, process.communicate()[0][-3000:]
            time.sleep(0.01)
        time.sleep(0.3)  # the other one is done with its part
        if killed == "01":
            end(process)
        else:
            os.kill(int((folder / f"writing-{killed}").read_text()), signal.SIGKILL)
            process.communicate(timeout=100)
            assert process.returncode != 0
        assert not (folder / "scratch/step-00000005.json").exists()
        assert (folder / "scratch/step-00000004.json").exists()
        finish(start(folder, 2, every_step=True, **options))
        found = load_file(folder / "final.safetensors")
        assert all(torch.equal(found[name], weight) for name, weight in wanted.items()), (held_up, killed)
        assert [line["step"] for line in lines(folder) if "loss" in line] == list(range(12))


@pytest.mark.long
@pytest.mark.parametrize("precision", ["float32", "bf16-weights"])
def test_the_weights_of_135_million_parameters_leave_the_step_within_a_second(tmp_path, precision):
    sys.path.insert(0, os.path.join(os.path.dirname(__file__), "../../benchmarks"))
    from checkpoints import SHAPES, background, trained
    trainer = trained(SHAPES[135], precision)
    assert sum(weight.numel() for weight in trainer.model.parameters()) > 134e6
    _, ran, _, share = background(trainer, tmp_path)  # others on the machine do not lengthen the time it ran
    assert min(ran) < 1 and share < 0.05
