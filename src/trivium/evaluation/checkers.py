"""Checkers: what says how good a response is, without a model. The world's truth, a number, an answer's words or
letter, its overlap with a reference, or a function of the user's own, which runs in a process of its own with a time
limit."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from trivium.errors import TriviumError, nearest
from trivium.evaluation import choices, comparing, hollow, numbers, overlap
from trivium.evaluation.function_process import FunctionProcess
from trivium.evaluation.instructions import following
from trivium.extensions import file_of, names, resolve
from trivium.files import Row
from trivium.world import rubric

Check = Callable[[Row, str], float]


def last_number(text: str) -> float | None:
    """The number that a response ends with, however it is written (:mod:`trivium.evaluation.numbers`); None when there
    is none."""
    found = numbers.last_of(text)
    return None if found is None else float(found.value)


def _number(row: Row, text: str) -> float:
    return float(numbers.agree(str(row["answer"]), text))


def _any(same: Callable[[str, str], bool], text: str, answer: Any) -> float:
    """1 where a text is the answer, or one of a list of them."""
    return float(any(same(text, str(one)) for one in (answer if isinstance(answer, list) else [answer])))


def _sound(row: Row, text: str) -> float:
    """0 for a response that is empty, repeats itself, or has none of the words that the row is ``about``."""
    return float(not (hollow.is_empty(text) or hollow.repeats(text) or hollow.misses(text, row.get("about") or ())))


def _by_row(row: Row, text: str) -> float:
    return CHECKS[row["check"]][1](row, text)


def _right_and_sound(row: Row, text: str) -> float:
    return float(_by_row(row, text) >= 1 and _sound(row, text))


CHECKS: dict[str, tuple[str, Check]] = {
    "world": ("truth", lambda row, text: float(rubric.is_right(row, text))),
    "rubric": ("truth", lambda row, text: float(rubric.score(row, text).total)),
    "number": ("answer", _number),
    "exact": ("answer", lambda row, text: _any(partial(comparing.exact, case=True), text, row["answer"])),
    "contains": ("answer", lambda row, text: _any(comparing.contains, text, row["answer"])),
    "choice": ("answer", lambda row, text: _any(choices.same_choice, text, row["answer"])),
    "instructions": (following.NAMES, following.share),
    "by_row": ("check", _by_row),
    "right_and_sound": ("check", _right_and_sound),
    "sound": ("prompt", _sound),
    "rouge_1": ("answer", lambda row, text: overlap.best(overlap.rouge_1, text, row["answer"])),
    "rouge_2": ("answer", lambda row, text: overlap.best(overlap.rouge_2, text, row["answer"])),
    "rouge_l": ("answer", lambda row, text: overlap.best(overlap.rouge_l, text, row["answer"])),
    "bleu": ("answer", lambda row, text: overlap.best(overlap.bleu, text, row["answer"])),
    "chrf": ("answer", lambda row, text: overlap.best(overlap.chrf, text, row["answer"])),
}
"""By name: the field that a prompt's row must have, and the check."""
SHARES = frozenset(CHECKS) - {"rubric"}
"""The checkers that give numbers from 0 to 1."""


def answer_fault(name: str, answer: Any) -> str:
    """What is wrong with a row's ``answer`` for the checker ``name``; empty where it will do."""
    given = answer if isinstance(answer, list) and name != "number" else [answer]
    if not given or not all(isinstance(one, (str, int, float)) and str(one).strip() for one in given):
        return "is empty or no text; give a text" + ("" if name == "number" else ", or a list of texts")
    if name == "choice" and not all(choices.letter_of(str(one)) for one in given):
        return "is no single letter or number of a choice; compare longer ones by `exact` or `contains`"
    return ""


def check_name(name: str, where: str = "") -> None:
    """Raise :class:`TriviumError` for a text that names no checker."""
    if name not in CHECKS and file_of(resolve(name, "rewards")) is None:
        known = [*CHECKS, *names("rewards")]
        raise TriviumError(f"{where}there is no checker {name!r}{nearest(name, known)}; one of your own is "
                           "FILE.py:FUNCTION")


class Checker:
    """A checker by its name, or ``FILE.py:FUNCTION`` with ``FUNCTION(row, responses) -> list of numbers``. Such a
    function may take a third argument, ``finished``: which of the responses ended by themselves; and ``tokens``: how
    many tokens each has.

    A function of the user's own is called in a process of its own. One that raises, hangs longer than ``seconds`` or
    gives anything but a finite number for each response ends the run with a :class:`TriviumError` that names the
    prompt. ``where`` and ``limit`` are what its messages call the setting that names it, and the one that holds the
    seconds."""

    def __init__(self, name: str, seconds: float = 10.0, where: str = "checker",
                 limit: str = "checker_seconds") -> None:
        if name in CHECKS and name in names("rewards"):
            raise TriviumError(f"{where}: {name!r} is a checker of Trivium's own, "
                               "and registered too; register it under another name")
        name = resolve(name, "rewards")
        self.name, self.seconds, self.where, self.limit = name, seconds, where, limit
        self.process: FunctionProcess | None = None
        self.needs: str | None
        self.check: Check | None
        self.needs, self.check = CHECKS.get(name, (None, None))
        if name in ("bleu", "chrf"):
            overlap.require()
        if self.check is None:
            file = file_of(name)
            if file is None:
                check_name(name, f"{where}: ")
            elif not file.is_file():
                raise TriviumError(f"{where}: {file}: no such file; it is looked for from {Path.cwd()}")

    def suits(self, rows: Sequence[Row]) -> None:
        """Raise :class:`TriviumError` where a row lacks what the checker needs."""
        if self.needs == "check":
            self._each_by_its_own(rows)
        for row in rows if self.needs else ():
            if self.needs not in row:
                raise TriviumError(f"{self.where} {self.name!r} needs the field {self.needs!r}, which prompt "
                                   f"{row.get('id')!r} does not have")
            if self.needs == "answer" and (fault := answer_fault(self.name, row["answer"])):
                raise TriviumError(f"{self.where} {self.name!r}: prompt {row.get('id')!r}: the answer "
                                   f"{str(row['answer'])[:60]!r} {fault}")
            if self.needs == following.NAMES and (fault := following.fault(row)):
                raise TriviumError(f"{self.where} {self.name!r}: prompt {row.get('id')!r}: {fault}")
        if self.name == "number":
            self._one_number_each(rows)

    def _each_by_its_own(self, rows: Sequence[Row]) -> None:
        """Raise :class:`TriviumError` where a row's ``check`` names no checker, or one that does not suit the row."""
        named: dict[str, list[Row]] = {}
        for row in rows:
            named.setdefault(str(row.get("check")), []).append(row)
        for name, some in named.items():
            if "check" not in some[0]:
                raise TriviumError(f"{self.where} {self.name!r} needs the field 'check', which prompt "
                                   f"{some[0].get('id')!r} does not have")
            if name not in CHECKS or CHECKS[name][0] == "check":
                raise TriviumError(f"{self.where} {self.name!r}: prompt {some[0].get('id')!r}: check: there is no "
                                   f"checker {name!r}{nearest(name, CHECKS)}")
            Checker(name, self.seconds, self.where, self.limit).suits(some)

    def _one_number_each(self, rows: Sequence[Row]) -> None:
        """Raise :class:`TriviumError` where the answer of a row is not one number."""
        bad = [row for row in rows if not numbers.is_one_number(str(row["answer"]))]
        if bad:
            latex = numbers.is_latex(str(bad[0]["answer"])) and not numbers.reads_expressions()
            more = "; pip install \"trivium[math]\" reads LaTeX's expressions" if latex else ""
            raise TriviumError(
                f"{self.where} 'number' compares one number: the answer of prompt {bad[0].get('id')!r} is "
                f"{bad[0]['answer']!r:.80} ({len(bad)} of {len(rows)} prompts have such answers); leave those prompts "
                f"out, write the number alone into `answer`, or take `exact` or a function of your own{more}")

    def __call__(self, row: Row, responses: Sequence[str], finished: Sequence[bool] | None = None,
                 tokens: Sequence[int] | None = None) -> list[float]:
        """How good each response is. ``finished`` says which ended by themselves; all of them, unless it is given.
        ``tokens`` says how many tokens each has, where that is known."""
        if self.check is not None:
            return [self.check(row, text) for text in responses]
        about = f"{self.where} {self.name}: at prompt {row.get('id')!r}"
        ended = [True] * len(responses) if finished is None else [bool(one) for one in finished]
        lengths = None if tokens is None else list(map(int, tokens))
        try:
            self.process = self.process or FunctionProcess(self.name)
            scores = self.process.call([row, list(responses), ended, lengths], self.seconds)
        except TimeoutError as error:
            self.close()
            raise TriviumError(f"{self.where} {self.name}: no answer about prompt {row.get('id')!r} within "
                               f"{self.seconds:g} seconds; raise `{self.limit}` or mend the function") from error
        except TriviumError as error:
            raise TriviumError(f"{about}: {error}") from error
        if not isinstance(scores, list) or len(scores) != len(responses) or not all(
                isinstance(value, (int, float)) and math.isfinite(value) for value in scores):
            raise TriviumError(f"{about}: {len(responses)} finite numbers were expected, not {scores!r:.200}")
        return [float(value) for value in scores]

    def close(self) -> None:
        """End the process, if there is one."""
        if self.process is not None:
            self.process.close()
            self.process = None

    def __enter__(self) -> Checker:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()
