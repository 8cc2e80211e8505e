"""Programs that a model wrote: what they may not do, and what counts as having passed."""

from __future__ import annotations

import os
import sys

import pytest

from trivium.evaluation.sandbox import apart, run_programs

pytestmark = pytest.mark.skipif(os.name != "posix", reason="a system without limits for processes")

PROGRAMS = {
    "ends": ("total = sum(range(5))\nassert total == 10", ""),
    "its tests fail": ("assert 1 + 1 == 3, 'three'", "AssertionError: three"),
    "leaves before its tests": ("import os\nos._exit(0)\nassert False", "it ended before its last line"),
    "leaves politely": ("raise SystemExit(0)", "it ended before its last line"),
    "does not compile": ("def f(:\n", "SyntaxError: invalid syntax"),
    "takes too much memory": ("a = bytearray(3 << 30)", "MemoryError"),
    "writes too much": ("open('a', 'wb').write(b'a' * (64 << 20))", "OSError: [Errno 27] File too large"),
    "writes a little": ("open('a', 'w').write('a')\nassert open('a').read() == 'a'", ""),
    "reads what is asked": ("input()", "EOFError: EOF when reading a line"),
    "sees our secrets": ("import os\nassert 'TRIVIUM_SECRET' not in os.environ", ""),
    "opens many files": ("a = [open('/dev/null') for _ in range(200)]", "OSError: [Errno 24] Too many open files: "
                         "'/dev/null'"),
}


def test_a_program_has_what_it_needs_and_no_more(monkeypatch):
    monkeypatch.setenv("TRIVIUM_SECRET", "word")
    found = run_programs([program for program, _ in PROGRAMS.values()], seconds=5)
    assert {name: one.why for name, one in zip(PROGRAMS, found, strict=True)} == {
        name: why for name, (_, why) in PROGRAMS.items()}
    assert [one.passed for one in found] == [not why for _, why in PROGRAMS.values()]


def test_a_program_that_does_not_end_is_ended():
    found = run_programs(["while True: pass", "import time\ntime.sleep(60)"], seconds=0.5, at_once=2)
    assert not any(one.passed for one in found) and "time was up" in found[0].why and "time was up" in found[1].why


@pytest.mark.skipif(not sys.platform.startswith("linux") or not apart(), reason="a kernel that gives no namespaces")
def test_a_program_is_alone_where_the_kernel_allows(tmp_path):
    other = tmp_path / "kept.txt"
    other.write_text("kept")
    programs = {
        "network": ("import socket\nsocket.create_connection(('127.0.0.1', 9), 2)", "Network is unreachable"),
        "other files": (f"open({str(other)!r}, 'w').write('x')", "rror"),
        "deleting": (f"import os\nos.unlink({str(other)!r})", "rror"),
        "other processes": ("import os\nassert len([p for p in os.listdir('/proc') if p.isdigit()]) < 4", None),
        "many processes": ("import os\nwhile True:\n    os.fork()", "rror"),
    }
    found = run_programs([program for program, _ in programs.values()], seconds=3)
    for (name, (_, why)), one in zip(programs.items(), found, strict=True):
        assert one.passed is (why is None) and (why or "") in one.why, (name, one)
    assert other.read_text() == "kept"
