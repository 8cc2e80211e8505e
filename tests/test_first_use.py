"""What a new user meets at the terminal: progress, the end of a run, a chat, tables over runs, wrong words, pipes."""

from __future__ import annotations

import json
import os
import pty
import subprocess
import sys
import time
from types import SimpleNamespace

import pytest

from test_cli import trivium
from trivium.artifacts import seal
from trivium.cli.app import main
from trivium.errors import TriviumError, unexpected
from trivium.progress import Pace, Progress, span
from trivium.report.brief import brief
from trivium.report.table import as_table, over_runs

SAY = "from trivium.cli.app import main; main()"
SMALL = ["world.size={documents_bytes: 60000, demonstrations: 60, preference_prompts: 20, evaluation_prompts: 20}",
         "tokenizer.vocab_size=400", "pretrain.steps=2", "sft.epochs=1", "sft.validation=0.2", "sft.evaluate_every=4",
         "pretrain.model={hidden_size: 32, intermediate_size: 48, num_layers: 1, num_heads: 2, num_kv_heads: 1, "
         "head_dim: 16}"]


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """A run of the quickstart's first stages, in float32, and what it said."""
    place = tmp_path_factory.mktemp("first")
    sets = [*SMALL, "pretrain.precision=float32", "sft.precision=float32"]
    words = [word for one in sets for word in ("--set", one)]
    done = trivium("run", "recipes/quickstart.yaml", "--only", "sft", *words, cwd=place)
    assert done.returncode == 0, done.stderr
    return SimpleNamespace(place=place, said=done.stderr, end=done.stdout)


@pytest.fixture
def say(monkeypatch, capsys):
    """Runs a command in this process: its status, and what it writes."""
    def command(*words, place=None):
        monkeypatch.setattr(sys, "argv", ["trivium", *map(str, words)])
        monkeypatch.setattr(sys, "warnoptions", ["default"])  # pytest's own stay as they are
        if place:
            monkeypatch.chdir(place)
        with pytest.raises(SystemExit) as ended:
            main()
        out, err = capsys.readouterr()
        return SimpleNamespace(returncode=ended.value.code, stdout=out, stderr=err)
    return command


def test_a_plain_log_says_the_rate_the_held_out_loss_and_the_time(run):
    lines = [line for line in run.said.splitlines() if line.startswith("sft")]
    assert any("held-out loss" in line and "before the first update" in line for line in lines)
    last = next(line for line in lines if "held-out loss" in line and " lr " in line)
    assert "loss " in last and "tokens/s" in last and last.endswith("passed")


def test_the_end_says_what_came_of_it_and_how_to_talk_with_it(run):
    lines = run.end.splitlines()
    assert lines[0].split() == ["stage", "digest", "seconds", "folder"] and lines[1].startswith("world ")
    sft = next(line for line in lines if line.startswith("  sft"))
    log = [json.loads(line) for line in (run.place / "runs/quickstart/sft/log.jsonl").read_text().splitlines()]
    before, after = (next(row[key] for row in rows if key in row) for key, rows in
                     (("validation_loss_before", log), ("validation_loss", log[::-1])))
    assert f"held-out loss {before:.3f} → {after:.3f}" in sft and after < before
    assert lines[-1] == "talk with it: trivium chat runs/quickstart/sft"


def test_what_is_left_is_told_by_the_pace_since_this_attempt_began(monkeypatch):
    clock = [100.0]
    monkeypatch.setattr(time, "monotonic", lambda: clock[0])
    pace = Pace()
    assert pace(50, 100) is None  # an earlier attempt made these
    clock[0] += 10
    assert pace(60, 100) == pytest.approx(40)
    clock[0] += 30
    assert pace(70, 100) == pytest.approx(60)
    assert pace(1, 20) is None  # another piece of work
    assert [span(s) for s in (4.4, 59.6, 200, 7500)] == ["4 s", "1:00 min", "3:20 min", "2:05 h"]


def test_a_plain_log_says_what_is_left_and_no_line_twice(capsys, monkeypatch):
    monkeypatch.setattr("trivium.progress.PLAIN_SECONDS", 0.0)
    with Progress() as progress:
        progress.stage("x")
        progress.update(1, 4, "going")
        progress.update(2, 4, "going")
        progress.update(4, 4, "going")
        progress.update(4, 4, "going")
    lines = capsys.readouterr().err.splitlines()
    assert "left" in lines[2] and sum("4/4" in line for line in lines) == 1


def test_a_step_of_minutes_says_how_far_it_is(capsys, monkeypatch):
    clock = [1000.0]
    monkeypatch.setattr("trivium.progress.time", SimpleNamespace(monotonic=lambda: clock[0]))
    with Progress() as progress:
        progress.stage("x")
        progress.update(0, 3)
        for responses in (8, 16):  # only the second one is a while after the last line
            clock[0] += 9
            progress.within(responses, 16, "responses")
        clock[0] += 12
        progress.update(1, 3, "score +0.50")
        clock[0] += 15
        progress.within(2, 4, "updates")
    lines = capsys.readouterr().err.splitlines()
    assert lines[1:] == ["x  0/3, then 16/16 responses  18 s passed", "x  1/3 score +0.50  30 s passed, 1:00 min left",
                         "x  1/3, then 2/4 updates  45 s passed, 45 s left"]


def test_a_folder_of_a_run_or_a_misspelt_one_is_told(run, say):
    def refused(*words):
        done = say(*words, place=run.place)
        assert done.returncode == 2 and done.stderr.count("\n") == 1 and done.stdout == ""
        return done.stderr

    assert "name one of its models: runs/quickstart/pretrain, runs/quickstart/sft" in refused("chat", "runs/quickstart")
    assert "did you mean 'runs/quickstart/sft'?" in refused("chat", "runs/quickstart/sfft", "--prompt", "x")
    assert "runs/quickstart/sft" in refused("serve", "runs/quickstart")
    assert "name one of its stages: runs/quickstart/corpus" in refused("trace", "runs/quickstart")
    assert "trivium run other.yaml --only pretrain" in (
        (run.place / "other.yaml").write_text("name: o\nstages: {world: , corpus: , tokenizer: , tokens: , pretrain: , "
                                              "sft: {model: pretrain}}\n") and
        refused("inspect", "batch", "other.yaml", "--stage", "sft"))


@pytest.mark.parametrize(("words", "message"), [
    (["chat", "x", "--max-new-tokens", "many"], '--max-new-tokens is "many"; it must be a whole number'),
    (["chat", "x", "--temperature", "-1"], '--temperature is "-1"; it must be at least 0'),
    (["serve", "x", "--port", "99999"], '--port is "99999"; it must be at most 65535'),
    (["chat"], "missing argument"), (["chat", "x", "--temprature", "1"], "--temperature"), (["rnu"], "'run'"),
    (["schema", "nosuch"], "there is no stage of kind 'nosuch'; known: ai_feedback"),
    (["run", "recipes/quickstart.yaml", "--only", "nothing"], "the recipe has no such stage; known: corpus, dpo"),
    (["compare", "one"], "name another run's folder"),
])
def test_wrong_words_are_one_plain_line(words, message, tmp_path, say):
    done = say(*words, place=tmp_path)
    assert done.returncode == 2 and done.stderr.startswith("error: ") and done.stderr.count("\n") == 1
    assert message in done.stderr and "Input should" not in done.stderr
    assert words[0] != "schema" or " recipe," not in done.stderr


def test_a_models_place_may_be_a_gguf_file_and_no_other_file(tmp_path):
    from trivium.cli.places import check_model
    (tmp_path / "small.gguf").write_bytes(b"GGUF")
    (tmp_path / "rows.jsonl").write_text("{}\n")
    check_model(tmp_path / "small.gguf")
    for name, message in (("rows.jsonl", "a file; name the folder of a model, or a .gguf file"),
                          ("smal.gguf", "no such file; did you mean .*small.gguf")):
        with pytest.raises(TriviumError, match=message):
            check_model(tmp_path / name)


def test_a_fault_that_nobody_expected_is_one_line_with_its_details_in_a_file(tmp_path):
    code = "import trivium.pipeline.run\ndef bad(*a, **k): return {}['x']\ntrivium.pipeline.run.run = bad\n" + SAY
    done = trivium("run", "x.yaml", code=code, env={**os.environ, "TMPDIR": str(tmp_path)})
    assert done.returncode == 1 and done.stderr.count("\n") == 1 and "KeyError" not in done.stderr
    (details,) = tmp_path.glob("trivium-fault-*.txt")
    assert str(details) in done.stderr and "KeyError: 'x'" in details.read_text()
    shown = trivium("run", "x.yaml", code=code, env={**os.environ, "TRIVIUM_TRACEBACK": "1"})
    assert "Traceback" in shown.stderr
    try:
        raise ValueError("x")
    except ValueError as error:
        assert "test_first_use.py" in unexpected(error)


def test_another_encoding_than_utf_8_is_written_in(run):
    done = subprocess.run(
        [sys.executable, "-c", SAY, "chat", "runs/quickstart/sft", "--prompt", "你好", "--temperature", "1.5"],
        capture_output=True, cwd=run.place, env={**os.environ, "PYTHONIOENCODING": "gbk"}, check=False)
    assert done.returncode == 0 and done.stderr == b"" and done.stdout.decode("gbk")


def test_json_survives_an_encoding_that_lacks_its_characters(tmp_path):
    code = ("from trivium.cli.output import any_encoding, to_json\nany_encoding()\n"
            "print(to_json({'x': '你\\U0001f600'}))")
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, check=True,
                          env={**os.environ, "PYTHONIOENCODING": "ascii"})
    assert json.loads(done.stdout) == {"x": "你\U0001f600"}


def test_a_reader_that_goes_away_is_no_fault():
    read, write = os.pipe()
    os.close(read)
    done = subprocess.run([sys.executable, "-c", SAY, "schema"], stdout=write, stderr=subprocess.PIPE, check=False)
    os.close(write)
    assert done.returncode != 0 and done.stderr == b""


def test_a_chat_lists_its_commands_and_sends_none_to_the_model(run):
    ours, theirs = pty.openpty()
    process = subprocess.Popen([sys.executable, "-c", SAY, "chat", "runs/quickstart/sft", "--max-new-tokens", "4"],
                               stdin=theirs, stdout=theirs, stderr=theirs, cwd=run.place,
                               env={**os.environ, "TERM": "dumb", "COLUMNS": "200"})
    os.close(theirs)
    os.write(ours, b"/help\n/claer\nhello\n/again\n/quit\n")
    said = b""
    while True:
        try:
            piece = os.read(ours, 4096)
        except OSError:  # the terminal's other end is closed
            break
        said += piece
        if not piece:
            break
    text = said.decode("utf-8", "replace")
    assert process.wait(60) == 0 and text.count("/clear forgets the conversation") == 2
    assert "there is no command '/claer'; did you mean '/clear'?" in text and text.count("model:") == 2


def sealed(place, name, seed, learning_rate, loss, inputs=None):
    """A stage of a run that trained, with its log."""
    folder = place / name
    folder.mkdir(parents=True)
    (folder / "weights").write_text(f"{seed} {learning_rate}")
    rows = [{"step": n, "loss": 4.0 - n} for n in range(3)]
    (folder / "log.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    seal(folder, kind="dpo", name=name, key=f"{seed}{learning_rate}", seed=seed,
         settings={"optimization": {"learning_rate": learning_rate}, "rows": 2}, inputs=inputs or {},
         summary={"loss": loss, "preference_accuracy": {"value": 0.5, "low": 0.4, "high": 0.6, "n": 9}}, seconds=1.0,
         peak_memory_mb=1.0)


def test_a_table_over_runs_has_what_differs_and_means_over_seeds(tmp_path, say):
    from statistics import mean, stdev
    losses = {"a": 0.5, "b": 0.25, "c": 0.75, "d": 0.125}
    for (name, loss), (seed, rate) in zip(losses.items(), [(0, 1e-3), (1, 1e-3), (2, 1e-3), (0, 1e-4)]):
        sealed(tmp_path / name, "dpo", seed, rate, loss)
    found = over_runs([tmp_path / name for name in losses])
    stage = found["stages"]["dpo"]
    assert stage["settings"] == {"optimization.learning_rate": ["0.001", "0.001", "0.001", "0.0001"],
                                 "seed": ["0", "1", "2", "0"]}
    (group,) = stage["groups"]
    three = [0.5, 0.25, 0.75]
    assert group["runs"] == [0, 1, 2]
    assert group["results"]["loss"] == {"mean": mean(three), "deviation": stdev(three), "n": 3}
    text = as_table(found)
    assert "mean ± deviation of 3 seeds" in text and "0.5 ± 0.25" in text and "0.0001" in text
    done = say("compare", *(tmp_path / name for name in losses))
    assert done.returncode == 0 and done.stdout.rstrip() == text


def test_no_mean_over_runs_that_were_made_from_other_files(tmp_path):
    rows = {"a": "old", "b": "old", "c": "new"}  # one path, whose rows were edited before the third run
    for seed, (name, digest) in enumerate(rows.items()):
        sealed(tmp_path / name, "dpo", seed, 1e-3, 0.5 + seed, {"preferences": {"path": "../rows", "digest": digest}})
        made = json.loads((tmp_path / name / "dpo/manifest.json").read_text())["digest"]
        sealed(tmp_path / name, "again", seed, 1e-3, seed, {"model": {"path": "../dpo", "digest": made}})
    found = over_runs([tmp_path / name for name in rows])
    for stage in ("dpo", "again"):
        assert [group["runs"] for group in found["stages"][stage]["groups"]] == [[0, 1]]


def test_a_stage_in_brief(tmp_path):
    from trivium.artifacts import open_artifact
    sealed(tmp_path, "dpo", 0, 1e-3, 0.5)
    from trivium.stages.registry import Stages
    assert brief(open_artifact(tmp_path / "dpo"), Stages()) == (
        "loss 4.000 → 2.000, held-out pairs ordered right 50.0 % [40.0 – 60.0 %]")
    rate = {"value": 0.5, "low": 0.25, "high": 0.75, "n": 9, "method": "Wilson"}
    loss = {"value": 2.0, "low": 1.5, "high": 3.0, "n": 9, "method": "BCa (clusters)"}
    summary = {"baseline": "before", "models": {
        "after": {"answer_loss": loss, "answer_loss_difference_vs_before": loss, "polite": rate,
                  "polite_difference_vs_before": rate}, "before": {"answer_loss": loss, "polite": rate, "other": rate}}}
    of_each = "answer loss 2 [1.5, 3], polite 50.0 % [25.0 – 75.0 %]"
    assert brief(SimpleNamespace(kind="evaluate", summary=summary), Stages()) == f"before: {of_each}; after: {of_each}"


def test_the_status_of_a_project_with_thumbs_alone_is_short(tmp_path, say):
    from trivium.feedback.store import Store
    with Store(str(tmp_path / "project"), create=True):
        pass
    empty = say("feedback", "status", tmp_path / "project")
    assert empty.returncode == 0 and empty.stdout.startswith("nothing yet: ")
    with Store(str(tmp_path / "project")) as store:
        store.add_thumb([{"role": "user", "content": "x"}], "y", True, "me", "m")
    shown = say("feedback", "status", tmp_path / "project")
    assert shown.returncode == 0 and shown.stdout.split() == ["thumbs", "1"]


def test_code_that_cannot_be_imported_is_told_from_a_file(tmp_path, monkeypatch):
    from trivium.recipe.load import load_recipe
    monkeypatch.chdir(tmp_path)
    (tmp_path / "sft").mkdir()
    (tmp_path / "r.yaml").write_text(
        "name: x\nstages: {ppo: {model: ./sft, prompts: ./sft, reward: 'nosuch.rewards:score'}}")
    with pytest.raises(TriviumError, match=r"stages.ppo.reward: nosuch.rewards:score: there is no module 'nosuch.rew"):
        load_recipe(tmp_path / "r.yaml")


def test_warnings_of_libraries_stay_off_the_terminal():
    code = ("import trivium.pipeline.run, warnings\ndef noisy(*a, **k): warnings.warn('inner words'); return {}\n"
            "trivium.pipeline.run.run = noisy\n" + SAY)
    quiet = trivium("run", "x.yaml", code=code, env={k: v for k, v in os.environ.items() if k != "PYTHONWARNINGS"})
    assert quiet.returncode == 0 and quiet.stderr == ""
    assert "inner words" in trivium("run", "x.yaml", code=code,
                                    env={**os.environ, "PYTHONWARNINGS": "default"}).stderr


def test_a_machine_that_is_busy_is_told_once(monkeypatch):
    from trivium.stages import training
    spent, clock, said = [(0.0, 0.0)], [0.0], []
    monkeypatch.setattr(training, "running_and_waiting", lambda: spent[0])
    monkeypatch.setattr(training.time, "monotonic", lambda: clock[0])
    monkeypatch.setattr(training.torch, "get_num_threads", lambda: 2)
    progress = SimpleNamespace(update=lambda *told: None, say=said.append)
    told = training.Watched(SimpleNamespace(progress=progress))
    told(1, 9, "")
    spent[0], clock[0] = (10.0, 8.0), 11.0
    told(2, 9, "")
    told(3, 9, "")
    assert len(said) == 1 and "OMP_NUM_THREADS=1" in said[0]


def test_the_system_says_how_long_threads_ran_and_waited():
    from trivium.resources import running_and_waiting
    ran, waited = running_and_waiting()
    end = time.process_time() + 0.2
    while time.process_time() < end:
        pass
    after, later = running_and_waiting()
    assert later >= waited and (after == ran == 0 or after - ran > 0.15)
