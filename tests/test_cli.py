"""The command line, as a program of its own."""

from __future__ import annotations

import json
import os
import subprocess
import sys

import pytest

from test_artifacts import made
from test_pipeline import STAGES, go, recipe  # noqa: F401

SAY = "from trivium.cli.app import main; main()"


def trivium(*arguments, code=SAY, **more):
    return subprocess.run([sys.executable, "-c", code, *map(str, arguments)], capture_output=True, text=True,
                          check=False, **more)


def test_help_and_schema_load_nothing_heavy():
    assert trivium("--help").returncode == 0
    heavy = (
        "import sys, trivium.cli.app; print([name for name in ('torch', 'pydantic', 'numpy') if name in "
        "sys.modules])"
    )
    assert trivium(code=heavy).stdout.strip() == "[]"
    listed = (
        "import sys; sys.argv = ['trivium', 'schema']\nfrom trivium.cli.app import app\ntry: app()\nexcept "
        "SystemExit: pass\nprint('torch' in sys.modules)"
    )
    assert trivium(code=listed).stdout.splitlines()[-1] == "False"


def test_the_version_is_told():
    import trivium as package
    done = trivium("--version")
    assert (done.returncode, done.stdout) == (0, f"trivium {package.__version__}\n")


@pytest.mark.parametrize(("arguments", "message"), [
    (["run", "none.yaml"], "error: none.yaml: no such file"),
    (["verify", "."], "no artifact here"),
    (["trace", "none"], "none: no such folder"),
    (["recipe", "schema", "pretrian"], "did you mean 'pretrain'"),
])
def test_a_fault_is_one_line_and_status_2(tmp_path, arguments, message):
    done = trivium(*arguments, cwd=tmp_path)
    assert done.returncode == 2 and message in done.stderr and done.stderr.count("\n") == 1


def test_trace_and_verify(recipe, tmp_path):  # noqa: F811
    (tmp_path / "raw.txt").write_text("raw")
    artifacts = go(recipe, "write.source=./raw.txt")
    lines = trivium("trace", "runs/trial/join", cwd=tmp_path).stdout.splitlines()
    assert artifacts["join"].digest[:12] in lines[0] and any("raw.txt" in line for line in lines)
    chain = json.loads(trivium("trace", "runs/trial/join", "--json", cwd=tmp_path).stdout)
    assert [link["depth"] for link in chain if not link["path"].endswith(".py")] == [0, 1, 1, 2]
    made(tmp_path / "one")
    assert "4 files as made" in trivium("verify", tmp_path / "one").stdout
    assert trivium("verify", "runs/trial", cwd=tmp_path).stdout.count("as made, digest") == len(artifacts)
    talk = trivium("chat", "runs/trial/join", "--prompt", "hi", cwd=tmp_path)
    assert talk.returncode == 2 and "the folder is what a stage of the kind 'join' made" in talk.stderr
    assert "runs/trial/jion: no such folder" in trivium("chat", "runs/trial/jion", "--prompt", "hi",
                                                        cwd=tmp_path).stderr
    next(path for path in (tmp_path / "runs/trial/join").iterdir() if path.name != "manifest.json").write_text("spoilt")
    spoilt = trivium("verify", "runs/trial", cwd=tmp_path)
    assert spoilt.returncode == 2 and f"1 of {len(artifacts)} artifacts are not as they were made" in spoilt.stderr



def test_the_schema_lists_groups_of_settings_with_defaults():
    shown = trivium("recipe", "schema", "pretrain").stdout
    assert "hidden_size = " in shown and "epochs = 1.0" in shown
    assert trivium("schema", "pretrain").stdout == shown


def test_an_interrupt_is_said_and_gives_130(tmp_path):
    code = ("import os, signal, time, trivium.pipeline.run\n"
            "signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell's background has it ignored\n"
            "def interrupted(*a, **k): os.kill(os.getpid(), signal.SIGINT); time.sleep(10)\n"
            "trivium.pipeline.run.run = interrupted\n" + SAY)
    done = trivium("run", "x.yaml", code=code)
    assert done.returncode == 130 and "goes on from here" in done.stderr


def test_a_full_disk_is_one_line():
    code = ("import errno, trivium.pipeline.run\ndef full(*a, **k): raise OSError(errno.ENOSPC, 'full', 'place')\n"
            "trivium.pipeline.run.run = full\n" + SAY)
    done = trivium("run", "x.yaml", code=code)
    assert done.returncode == 2 and done.stderr.startswith("error: place: the disk is full")


def test_training_goes_on_when_nobody_reads_its_words(tmp_path):
    code = ("import sys\nfrom trivium.progress import Progress\n"
            "with Progress() as progress:\n    progress.stage('x')\n    progress.say('word'); progress.update(1, 2)\n"
            "open('survived', 'w').close()")
    read, write = os.pipe()
    os.close(read)
    process = subprocess.run([sys.executable, "-c", code], stderr=write, cwd=tmp_path, check=False)
    os.close(write)
    assert process.returncode == 0 and (tmp_path / "survived").exists()


def test_the_python_face_takes_keywords(tmp_path):
    import trivium as package
    from trivium.errors import TriviumError
    (tmp_path / "recipe.yaml").write_text("name: trial\nstages: {tokens: }\n")
    with pytest.raises(TriviumError, match="stages.tokens.nothing: unknown setting"):
        package.run(tmp_path / "recipe.yaml", tokens__nothing=1)
