"""Checkers: numbers, exact answers, and functions of the user's own that misbehave."""

from __future__ import annotations

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
"""


@pytest.mark.parametrize("text, number", [("it is 1,234.50.", 1234.5), ("3 and then -4", -4), ("none", None), ("#### 18", 18), ("5.", 5)])
def test_the_last_number_counts(text, number):
    assert last_number(text) == number


def test_checks_by_name():
    row = {"id": "a", "answer": "#### 1,200"}
    assert Checker("number")(row, ["So 1200", "1201", "nothing"]) == [1.0, 0.0, 0.0]
    assert Checker("exact")({"answer": "yes"}, [" yes\n", "Yes"]) == [1.0, 0.0]
    with pytest.raises(TriviumError, match="needs the field 'answer'.*'b'"):
        Checker("number").suits([row, {"id": "b"}])


@pytest.mark.parametrize("name, message", [("nunber", "did you mean 'number'"), ("absent.py:f", "absent.py: no such file")])
def test_unknown_checkers_are_refused(name, message):
    with pytest.raises(TriviumError, match=message):
        Checker(name)


@pytest.mark.parametrize("function, message", [
    ("raises", "prompt 'p': ValueError: no such thing"), ("hangs", "no answer about prompt 'p' within 1 seconds"),
    ("short", "2 finite numbers were expected for prompt 'p'"), ("infinite", "2 finite numbers"), ("dies", "its process ended"),
    ("absent", "has no attribute 'absent'")])
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
