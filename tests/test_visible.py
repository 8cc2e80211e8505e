"""Control characters of documents, rows, answers and names are shown, and never reach a terminal."""

import io
import json
import os
import pty
import re
import subprocess
import sys

from hypothesis import given
from hypothesis import strategies as st

from trivium.progress import Progress
from trivium.report.draw import Series, line_chart
from trivium.visible import Visible, visible

OBEYED = {chr(code) for code in (*range(32), *range(127, 160))} - {"\n", "\t"}
HOSTILE = "\x1b[2J\x1b]0;mine\x07\x9b31mred\x08\x7f\r"
anything = st.text(st.one_of(st.characters(), st.sampled_from(sorted(OBEYED) + list("\n\t\\x1b["))))


@given(anything)
def test_no_character_that_a_terminal_obeys_is_left_and_no_other_is_touched(text):
    shown = visible(text)
    assert not OBEYED & set(shown)
    assert visible(shown) == shown
    if not OBEYED & set(text):
        assert shown == text
    alone = visible(text, one_line=True)
    assert not (OBEYED | {"\n", "\t"}) & set(alone)


@given(anything)
def test_json_says_the_same_when_it_is_made_visible(text):
    assert json.loads(visible(json.dumps({"text": text}, ensure_ascii=False))) == {"text": text}


@given(st.lists(anything, max_size=4))
def test_a_stream_writes_all_of_every_text(texts):
    beneath = io.StringIO(newline="")
    stream = Visible(beneath)
    for text in texts:
        print(text, file=stream, end="")
    stream.writelines(texts)
    assert beneath.getvalue() == "".join(map(visible, texts)) * 2


def on_a_terminal(command, cwd):
    """Everything that a command writes to a terminal."""
    ours, theirs = pty.openpty()
    process = subprocess.Popen(
        [sys.executable, "-c", "from trivium.cli.__main__ import main; main()", *command],
        stdin=theirs,
        stdout=theirs,
        stderr=theirs,
        cwd=cwd,
        env={**os.environ, "TERM": "xterm"},
    )
    os.close(theirs)
    said = b""
    while True:
        try:
            piece = os.read(ours, 65536)
        except OSError:
            break
        if not piece:
            break
        said += piece
    os.close(ours)
    process.wait()
    return said.decode()


def corpus_with(folder, text):
    counts = {
        "documents": 1,
        "kept": 1,
        "rejected": 0,
        "copies": 0,
        "funnel": [{"step": text, "documents": 1, "bytes": 1, "source": {text: {"documents": 1, "bytes": 1}}}],
        "reasons": {text: {text: 1}},
        "contamination": {"texts": 0},
    }
    (folder / "documents").mkdir(parents=True)
    (folder / "rejects").mkdir()
    (folder / "counts.json").write_text(json.dumps(counts))
    row = {"id": text, "source": text, "language": text, "text": text}
    (folder / "documents/part-00000.jsonl").write_text(json.dumps(row) + "\n")
    (folder / "rejects/part-00000.jsonl").write_text(json.dumps({**row, "step": text, "reason": text}) + "\n")


def test_a_corpus_is_shown_without_its_escapes(tmp_path):
    corpus_with(tmp_path / "made", f"A{HOSTILE}Z")
    for more in (["--samples", "1", "--by", "source"], ["--samples", "1", "--json"]):
        said = on_a_terminal(["corpus", "inspect", "made", *more], tmp_path)
        assert said.count("mine") >= 3 and "A" in said and "Z" in said
        assert not (OBEYED - {"\r"}) & set(said) and "\r" not in said.replace("\r\n", "")


def test_errors_are_one_line_without_the_escapes_of_a_name(tmp_path):
    for command in (
        ["run", f"no{HOSTILE}\nerror: all is well.yaml"],
        ["corpus", "inspect", f"x{HOSTILE}"],
        ["chat", f"m{HOSTILE}"],
        [f"--op{HOSTILE}"],
        [f"co{HOSTILE}mmand"],
    ):
        said = on_a_terminal(command, tmp_path)
        assert said.startswith("error: ") and said.count("\n") == 1, said
        assert not (OBEYED - {"\r"}) & set(said)


def test_progress_shows_what_a_stage_says(monkeypatch):
    for live in (False, True):
        beneath = io.StringIO(newline="")
        monkeypatch.setattr(sys, "stderr", beneath)
        progress = Progress()
        progress.console._force_terminal = progress.live = live
        progress.stage(f"s{HOSTILE}")
        with progress:
            progress.update(1, 2, f"t{HOSTILE}")
            progress.say(f"u{HOSTILE}")
        said = re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", beneath.getvalue())  # rich's own
        assert "u\\x1b[2J" in said
        assert not (OBEYED - {"\r"}) & set(said) and "\x1b[2J" not in beneath.getvalue()


def test_a_stages_name_cannot_leave_an_attribute_of_a_chart():
    for key in ('c-a" onload="alert(1)-loss', "c-<script>x</script>-loss", "c-a b-loss", "c-é'-loss"):
        drawn = str(line_chart(("a", "b"), ("x", "x"), ("y", "y"), [Series('s"<', [(0.0, 1.0), (1.0, 2.0)])], key=key))
        ids = re.findall(r'id="([^"]*)"', drawn)
        label = re.search(r'aria-labelledby="([^"]*)"', drawn)[1].split()
        assert ids == label and len(ids) == 2
        assert "onload=" not in drawn and "<script" not in drawn and 's"<' not in drawn
    one, two = (
        re.search(
            r'id="([^"]*)"',
            str(line_chart(("a", "b"), ("x", "x"), ("y", "y"), [Series("s", [(0.0, 1.0), (1.0, 2.0)])], key=key)),
        )[1]
        for key in ("a b", "a-b")
    )
    assert one != two
