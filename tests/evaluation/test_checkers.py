"""Checkers: numbers, exact answers, and functions of the user's own that misbehave."""

from __future__ import annotations

import subprocess
import sys
import time

import pytest

from trivium.errors import TriviumError
from trivium.evaluation.checkers import Checker, last_number

OWN = """
import os, time
def good(row, responses): return [len(text) for text in responses]
def raises(row, responses): raise ValueError("no such thing")
def hangs(row, responses): time.sleep(60)
def short(row, responses): return [1.0]
def infinite(row, responses): return [float("nan")] * len(responses)
def dies(row, responses): os._exit(3)
def ended(row, responses, finished): return [float(one) for one in finished]
def talks(row, responses): print("hm", flush=True); return [len(text) for text in responses]
def all_about(row, responses): return [float(len(str(row)) + len(text)) for text in responses]
"""

UNGUARDED = """
import sys
from trivium.evaluation.checkers import Checker
with Checker(sys.argv[1]) as checker:
    print(checker({"id": "p"}, ["a", "bc"]))
"""


@pytest.mark.parametrize("text, number", [("it is 1,234.50.", 1234.5), ("3 and then -4", -4), ("none", None),
                                          ("#### 18", 18), ("5.", 5)])
def test_the_last_number_counts(text, number):
    assert last_number(text) == number


def test_checks_by_name():
    row = {"id": "a", "answer": "#### 1,200"}
    assert Checker("number")(row, ["So 1200", "1201", "nothing"]) == [1.0, 0.0, 0.0]
    assert Checker("exact")({"answer": "yes"}, [" yes\n", "Yes"]) == [1.0, 0.0]
    with pytest.raises(TriviumError, match="needs the field 'answer'.*'b'"):
        Checker("number").suits([row, {"id": "b"}])


@pytest.mark.parametrize("name, message", [("nunber", "did you mean 'number'"),
                                           ("absent.py:f", "absent.py: no such file")])
def test_unknown_checkers_are_refused(name, message):
    with pytest.raises(TriviumError, match=message):
        Checker(name)


@pytest.mark.parametrize("function, message", [("raises", "prompt 'p': ValueError: no such thing"),
                                               ("hangs", "no answer about prompt 'p' within 1 seconds"),
                                               ("short", "prompt 'p': 2 finite numbers were expected"),
                                               ("infinite", "2 finite numbers"), ("dies", "its process ended"),
                                               ("absent", "there is no 'absent' in it")])
def test_functions_of_ones_own_may_misbehave(tmp_path, function, message):
    (tmp_path / "own.py").write_text(OWN)
    begun = time.monotonic()
    with Checker(f"{tmp_path}/own.py:{function}", 1.0) as checker, pytest.raises(TriviumError, match=message):
        checker({"id": "p"}, ["a", "bc"])
    assert time.monotonic() - begun < 30


def test_a_function_of_ones_own_is_asked(tmp_path):
    (tmp_path / "own.py").write_text(OWN)
    with Checker(f"{tmp_path}/own.py:good") as checker:
        assert checker({"id": "p"}, ["a", "bc"]) == [1.0, 2.0]
        assert checker({"id": "q"}, ["abc"]) == [3.0]


def test_a_function_is_told_what_ended_where_it_asks(tmp_path):
    (tmp_path / "own.py").write_text(OWN)
    with Checker(f"{tmp_path}/own.py:ended") as checker:
        assert checker({"id": "p"}, ["a", "bc"], [True, False]) == [1.0, 0.0]
        assert checker({"id": "p"}, ["a", "bc"]) == [1.0, 1.0]
    with Checker(f"{tmp_path}/own.py:good") as checker:  # and is not told where it does not
        assert checker({"id": "p"}, ["a", "bc"], [True, False]) == [1.0, 2.0]


def test_what_a_function_prints_is_no_answer(tmp_path):
    (tmp_path / "own.py").write_text(OWN)
    with Checker(f"{tmp_path}/own.py:talks") as checker:
        assert checker({"id": "p"}, ["a", "bc"]) == [1.0, 2.0]


def test_a_long_row_reaches_a_function_whole(tmp_path):
    (tmp_path / "own.py").write_text(OWN)
    row = {"id": "p", "text": "é" * 300_000}
    with Checker(f"{tmp_path}/own.py:all_about", 60.0) as checker:
        assert checker(row, ["a", "b" * 200_000]) == [len(str(row)) + 1.0, len(str(row)) + 200_000.0]


def test_a_program_that_uses_a_function_needs_no_guard(tmp_path):
    (tmp_path / "own.py").write_text(OWN)
    (tmp_path / "program.py").write_text(UNGUARDED)
    done = subprocess.run([sys.executable, tmp_path / "program.py", f"{tmp_path}/own.py:good"],
                          capture_output=True,
                          text=True,
                          timeout=100)
    assert done.stdout == "[1.0, 2.0]\n", done.stderr
