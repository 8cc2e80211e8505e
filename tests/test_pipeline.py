"""The pipeline, with small real stages that write files."""

from __future__ import annotations

import errno
import json
import os
import signal
import subprocess
import sys
import time
from types import SimpleNamespace
from typing import ClassVar

import pytest

from trivium.artifacts import open_artifact
from trivium.errors import TriviumError
from trivium.pipeline.one_stage import cores, plan
from trivium.pipeline.run import run
from trivium.progress import Progress
from trivium.recipe.load import load_recipe, parse_stage
from trivium.stage import Input, Stage


class Write(Stage):
    """Writes a word."""

    kind: ClassVar[str] = "write"
    source: Input | None = None
    word: str = "hello"
    times: int = 1


class Join(Stage):
    """Joins files."""

    kind: ClassVar[str] = "join"
    parts: list[Input] = []
    named: dict[str, Input] = {}


STAGES = {"write": Write, "join": Join}
RUNS: list[str] = []


def write(settings, context):
    RUNS.append(context.name)
    (context.folder / "text").write_text(settings.word * settings.times)
    (context.folder / "log.jsonl").write_text(json.dumps({"time": time.time()}) + "\n")
    return {"length": len(settings.word)}


def join(settings, context):
    RUNS.append(context.name)
    places = [*context.inputs["parts"], *context.inputs["named"].values()]
    (context.folder / "text").write_text("".join((place / "text").read_text() for place in places))
    return {}


RUNNERS = {"write": (write, 1), "join": (join, 1)}
RECIPE = """
name: trial
stages:
  write:
  other: {kind: write, word: bye}
  join: {parts: [write], named: {b: other}}
"""


@pytest.fixture
def recipe(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "recipe.yaml").write_text(RECIPE)
    RUNS.clear()
    return tmp_path / "recipe.yaml"


def go(recipe, *overrides, **more):
    return run(load_recipe(recipe, overrides, STAGES), runners=RUNNERS, **more)


def test_a_finished_stage_is_not_run_again(recipe):
    first = go(recipe)
    assert RUNS == ["write", "other", "join"]
    assert (first["join"].folder / "text").read_text() == "hellobye"
    again = go(recipe)
    assert RUNS == ["write", "other", "join"] and again["join"].digest == first["join"].digest


def test_a_changed_setting_runs_what_depends_on_it_and_the_old_result_is_kept(recipe, tmp_path):
    go(recipe)
    go(recipe, "other.word=ciao")
    assert RUNS == ["write", "other", "join", "other", "join"]
    assert (tmp_path / "runs/trial/join/text").read_text() == "hellociao"
    assert len(list((tmp_path / "runs/trial/superseded").iterdir())) == 2
    go(recipe)
    assert len(RUNS) == 5 and (tmp_path / "runs/trial/join/text").read_text() == "hellobye"


def test_timings_are_not_part_of_the_digest(recipe, tmp_path):
    first = go(recipe)["write"].digest
    assert go(recipe, "out=elsewhere")["write"].digest == first


def test_only_runs_what_is_needed(recipe):
    go(recipe, only=["other"])
    assert RUNS == ["other"]
    with pytest.raises(TriviumError, match="did you mean 'other'"):
        go(recipe, only=["othr"])


def test_a_changed_artifact_is_refused(recipe, tmp_path):
    go(recipe)
    text = tmp_path / "runs/trial/write/text"
    text.write_text("jello")
    with pytest.raises(TriviumError, match="digest mismatch"):
        open_artifact(text.parent, verify=True)
    with pytest.raises(TriviumError, match=r"write/text: changed.*digest mismatch"):
        go(recipe)  # of the same size, but younger than its manifest
    text.write_text("longer")
    with pytest.raises(TriviumError, match=r"write/text: changed.*digest mismatch"):
        go(recipe)
    text.unlink()
    with pytest.raises(TriviumError, match="missing"):
        go(recipe)


def test_a_stage_that_fails_leaves_the_others(recipe):
    def broken(settings, context):
        raise TriviumError("no luck")
    with pytest.raises(TriviumError, match="no luck"):
        run(load_recipe(recipe, (), STAGES), runners=RUNNERS | {"join": (broken, 1)})
    go(recipe)
    assert RUNS == ["write", "other", "join"]


SLOW = """
import sys, time
sys.path.insert(0, sys.argv[1])
from test_pipeline import STAGES, RUNNERS, write
from trivium.recipe.load import load_recipe
from trivium.pipeline.run import run
def slow(settings, context):
    mark = context.scratch / "half"
    if context.name == "write" and not mark.exists():
        mark.write_text("half")
        time.sleep(60)
    return write(settings, context)
run(load_recipe("recipe.yaml", (), STAGES), runners=RUNNERS | {"write": (slow, 1)})
"""


def test_a_killed_stage_finds_its_scratch_again(recipe, tmp_path):
    command = [sys.executable, "-c", SLOW, os.path.dirname(__file__)]
    process = subprocess.Popen(command)
    while not list((tmp_path / "runs").rglob("half")):
        assert process.poll() is None
        time.sleep(0.01)
    with pytest.raises(TriviumError, match="another run is writing"):
        go(recipe)
    time.sleep(3)  # longer than it takes to write the seconds down
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert not (tmp_path / "runs/trial/write").exists()
    assert subprocess.run(command, check=False).returncode == 0
    assert (tmp_path / "runs/trial/join/text").read_text() == "hellobye"
    assert open_artifact(tmp_path / "runs/trial/write").manifest["seconds"] > 1.5  # those of the killed attempt
    assert {place.name for place in (tmp_path / "runs/trial/.work").iterdir()} == {"lock", "status.json"}


def work_folder(recipe):
    """Where the stage `write` is made."""
    return recipe.folder / ".work" / f"write-{plan(recipe, 'write', recipe.stages['write'], {}, RUNNERS).work[:12]}"


def test_a_kill_between_the_two_renames_loses_nothing(recipe, tmp_path):
    go(recipe)
    new = go(recipe, "write.word=ciao")["write"]
    work = work_folder(load_recipe(recipe, ("write.word=ciao",), STAGES))
    work.mkdir()
    os.rename(new.folder, work / "artifact")  # the old one is superseded already, the new one not yet in its place
    go(recipe, "write.word=ciao")
    assert len(RUNS) == 5 and (tmp_path / "runs/trial/write/text").read_text() == "ciao" and not work.exists()
    go(recipe)
    assert len(RUNS) == 5 and (tmp_path / "runs/trial/join/text").read_text() == "hellobye"


def test_a_damaged_superseded_result_is_not_swapped_back(recipe, tmp_path):
    old = go(recipe)["write"].manifest["key"][:12]
    go(recipe, "write.word=ciao")
    (tmp_path / f"runs/trial/superseded/write-{old}/text").write_text("jello")
    with pytest.raises(TriviumError, match=r"superseded/write-.*text: changed"):
        go(recipe)
    assert (tmp_path / "runs/trial/write/text").read_text() == "ciao"


def test_a_new_version_of_a_stage_runs_again(recipe):
    go(recipe)
    run(load_recipe(recipe, (), STAGES), runners=RUNNERS | {"join": (join, 2)})
    assert RUNS == ["write", "other", "join", "join"]


def test_a_file_in_the_way_of_the_results(recipe, tmp_path):
    (tmp_path / "runs").write_text("")
    with pytest.raises(TriviumError, match="a file is in its way"):
        go(recipe)


def test_a_result_that_was_sealed_but_not_put_in_place_is_found(recipe, tmp_path):
    made = go(recipe)["write"]
    work = work_folder(load_recipe(recipe, (), STAGES))
    work.mkdir()
    os.rename(made.folder, work / "artifact")
    go(recipe)
    assert RUNS == ["write", "other", "join"] and (tmp_path / "runs/trial/write/text").exists()


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere a process does not begin with its parent's memory")
def test_peak_memory_is_not_that_of_the_process_that_started_this_one():
    big = b"x" * (300 << 20)  # written to, so that it is there
    told = subprocess.run(
        [sys.executable, "-c", "from trivium.resources import peak_memory_mb; print(peak_memory_mb())"],
        capture_output=True, text=True, check=True)
    assert 5 < float(told.stdout) < len(big) / 2**20


@pytest.mark.parametrize(("own", "child", "least", "most"), [(300, 0, 300, 400), (300, 100, 300, 400),
                                                             (100, 300, 400, 500)])
def test_peak_memory_counts_what_children_hold_and_not_what_they_began_with(own, child, least, most):
    """Both sizes in MiB; an interpreter takes some more."""
    code = (f"import subprocess, sys\nbig = b'x' * ({own} << 20)\n"
            f"subprocess.run([sys.executable, '-c', \"big = b'x' * ({child} << 20)\"], check=True)\n"
            "from trivium.resources import peak_memory_mb; print(peak_memory_mb())")
    told = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert least < float(told.stdout) < most


def test_the_environment_says_how_many_threads(monkeypatch):
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    assert cores(SimpleNamespace(threads=None)) == 1 and cores(SimpleNamespace(threads=2)) == 2
    monkeypatch.delenv("OMP_NUM_THREADS")
    every = cores(SimpleNamespace(threads=None))
    monkeypatch.setenv("OMP_NUM_THREADS", "1000")
    assert cores(SimpleNamespace(threads=None)) == every


HALF_WRITTEN = """
import os, signal, sys
sys.path.insert(0, sys.argv[1])
from test_pipeline import RUNNERS, STAGES, write
from trivium.files import write_text, written_aside
from trivium.pipeline.run import run
from trivium.recipe.load import load_recipe
def killed(settings, context):
    (context.folder / ".tmpAbCdEf").write_text("what a library keeps while it writes")
    (context.folder / "shard-9").write_text("what only this attempt writes")
    (context.folder / "log.jsonl").write_text("a record, which is gone on with")
    write_text(context.scratch / "checkpoint", "kept")
    with written_aside(context.folder / "text") as aside:
        aside.write_text("hel")
        os.kill(os.getpid(), signal.SIGKILL)
run(load_recipe("recipe.yaml", (), STAGES), runners=RUNNERS | {"write": (killed, 1)})
"""


def test_what_a_killed_attempt_half_wrote_is_not_sealed(recipe, tmp_path):
    wanted = go(recipe)["write"].digest
    os.rename(tmp_path / "runs", tmp_path / "undisturbed")
    command = [sys.executable, "-c", HALF_WRITTEN, os.path.dirname(__file__)]
    assert subprocess.run(command, check=False).returncode == -signal.SIGKILL
    work = work_folder(load_recipe(recipe, (), STAGES))
    assert list((work / "artifact").glob(".text.*.tmp/text"))
    found = {}

    def look(settings, context):
        if context.name == "write":
            found.update(left=sorted(path.name for path in context.folder.iterdir()),
                         scratch=[path.name for path in context.scratch.iterdir()])
        return write(settings, context)

    made = run(load_recipe(recipe, (), STAGES), runners=RUNNERS | {"write": (look, 1)})["write"]
    assert found["left"] == ["log.jsonl"] and found["scratch"] == ["checkpoint"]
    assert set(made.manifest["files"]) == {"text"} and open_artifact(made.folder, verify=True).summary["length"] == 5
    assert (made.folder / "text").read_text() == (tmp_path / "undisturbed/trial/write/text").read_text()
    assert wanted == made.digest


@pytest.mark.parametrize("kind", ["file", "folder", "pattern"])
@pytest.mark.parametrize("how", ["changed", "gone", "added"])
def test_an_input_that_changes_while_it_is_read_ends_the_stage(recipe, tmp_path, kind, how):
    if (kind, how) == ("file", "added"):
        return
    (tmp_path / "raw").mkdir()
    raw = tmp_path / "raw/a.txt"
    raw.write_text("one")
    source = {"file": "./raw/a.txt", "folder": "raw", "pattern": "raw/*.txt"}[kind]

    def meanwhile(settings, context):
        if how == "gone":
            raw.unlink()
        else:
            (raw if how == "changed" else tmp_path / "raw/b.txt").write_text("two")
        return write(settings, context)

    def attempt(runner):
        return run(load_recipe(recipe, (f"write.source={source}",), STAGES), runners=RUNNERS | {"write": (runner, 1)})

    with pytest.raises(TriviumError, match="write: source: .*(changed|went away).*run the same command again"):
        attempt(meanwhile)
    assert not (tmp_path / "runs/trial/write").exists()
    raw.write_text("one")
    assert attempt(write)["write"].manifest["inputs"]["source"]["digest"]


def test_damaged_notes_of_an_attempt_are_passed_over(recipe, tmp_path):
    work = work_folder(load_recipe(recipe, (), STAGES))
    for damage in ("", "[1", "[]", '{"seconds": "many"}', "\x00\x01"):
        (work / "scratch").mkdir(parents=True)
        for name in ("attempts.json", "code.json"):
            (work / name).write_text(damage)
        (work / "scratch/checkpoint").touch()
        assert go(recipe)["write"].manifest["seconds"] < 60
        os.rename(tmp_path / "runs", tmp_path / f"runs{len(list(tmp_path.iterdir()))}")


@pytest.mark.skipif(os.getuid() != 0, reason="only root can become somebody else")
def test_a_colleagues_finished_run_can_be_looked_at_but_not_written(recipe, tmp_path):
    go(recipe)

    def say(*overrides):
        # what may be read of the interpreter itself is no matter here: it is a fork that becomes somebody else
        read, write = os.pipe()
        if not (child := os.fork()):
            os.setgid(65534)
            os.setuid(65534)
            try:
                said = f"{len(run(load_recipe(recipe, overrides, STAGES), runners=RUNNERS))} artifacts"
            except BaseException as error:
                said = f"{type(error).__name__} {error}"
            os.write(write, said.encode())
            os._exit(0)
        os.waitpid(child, 0)
        os.close(write)
        with os.fdopen(read) as file:
            return file.read()

    for folder in (tmp_path, *tmp_path.parents):
        if folder.owner() == "root" and folder.stat().st_mode & 0o005 != 0o005 and folder != folder.parent:
            folder.chmod(folder.stat().st_mode | 0o055)
    assert say() == "3 artifacts"
    assert say("write.word=ciao").startswith("TriviumError") and "cannot be written" in say("write.word=ciao")
    (tmp_path / "runs/trial/.work/lock").unlink()
    assert say() == "3 artifacts"


@pytest.mark.parametrize("number", [errno.ENOSYS, errno.EOPNOTSUPP, errno.ENOLCK])
def test_a_file_system_without_locks_will_do_and_is_told_of(recipe, monkeypatch, number):
    def refuse(*_):
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr("fcntl.flock", refuse)
    said = []
    progress = Progress(quiet=True)
    progress.say = said.append
    made = run(load_recipe(recipe, (), STAGES), runners=RUNNERS, progress=progress)
    assert len(made) == 3 and any("has no locks" in text for text in said)


def test_a_file_in_the_way_of_what_is_kept_is_one_line(recipe, tmp_path):
    go(recipe)
    (tmp_path / "runs/trial/superseded").touch()
    with pytest.raises(TriviumError, match="superseded: something else is in the way"):
        go(recipe, "write.word=ciao")
    (tmp_path / "runs/trial/superseded").unlink()
    assert go(recipe, "write.word=ciao")["write"].summary == {"length": 4}


@pytest.mark.parametrize("name", ["n" * 256, "null\0byte", "../up", ".hidden", "é" * 120])
def test_names_that_no_folder_can_have_are_refused(recipe, name):
    with pytest.raises(TriviumError, match="cannot be a folder's name"):
        go(recipe, f"name={json.dumps(name)}")
    with pytest.raises(TriviumError, match="cannot be a stage's name"):
        parse_stage(name, {"kind": "write"}, STAGES)


def test_a_path_that_is_too_long_is_one_line(recipe):
    with pytest.raises(TriviumError, match="too long"):
        go(recipe, f"out={'/'.join(['deep' * 40] * 30)}")
    with pytest.raises(TriviumError, match="cannot be a folder's name"):
        go(recipe, 'out="a\\0b"')


def test_a_result_of_a_later_trivium_is_not_taken(recipe, tmp_path):
    go(recipe)
    place = tmp_path / "runs/trial/write/manifest.json"
    place.write_text(json.dumps(json.loads(place.read_text()) | {"format": 99}))
    with pytest.raises(TriviumError, match="update Trivium"):
        go(recipe)
    place.write_text("[]")
    with pytest.raises(TriviumError, match="not a manifest"):
        go(recipe)


def test_an_input_that_holds_the_run_is_refused(tmp_path):
    (tmp_path / "a.txt").write_text("A page of text.\n")
    (tmp_path / "r.yaml").write_text(
        f"name: x\nout: {tmp_path}/runs\nstages:\n  corpus: {{documents: ['{tmp_path}']}}\n")
    with pytest.raises(TriviumError, match=r"corpus: documents.0: .* holds this run's own folder, .*runs/x"):
        run(tmp_path / "r.yaml")
