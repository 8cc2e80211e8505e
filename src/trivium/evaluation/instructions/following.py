"""Whether a response follows the instructions of a row, strictly and loosely, and how many of them."""

from __future__ import annotations

from typing import Any

from trivium.errors import counted, nearest
from trivium.evaluation.instructions.checks import KINDS, LANGUAGES, RELATIONS
from trivium.files import Row

NAMES, ARGUMENTS = "instruction_id_list", "kwargs"
"""The fields of a row, as IFEval has them: names of kinds, and a mapping of arguments for each."""


def fault(row: Row) -> str:
    """What is wrong with a row's instructions; empty where they can be checked."""
    names, given = row.get(NAMES), row.get(ARGUMENTS)
    if not isinstance(names, list) or not names:
        return f"{NAMES} is missing or no list of instructions"
    if not isinstance(given, list) or len(given) != len(names) or not all(isinstance(one, dict) for one in given):
        return f"{ARGUMENTS} must be a list of {counted(len(names), 'mapping')}, one for each of {NAMES}"
    return next((found for name, one in zip(names, given, strict=True) if (found := _fault_of(name, one))), "")


def _fault_of(name: Any, given: dict[str, Any]) -> str:
    if not isinstance(name, str) or name not in KINDS:
        return f"there is no instruction {name!r}{nearest(str(name), KINDS)}"
    wanted, given = KINDS[name].arguments, _without_null(given)
    for argument, kind in wanted.items():
        if argument not in given:
            return f"{name} needs {argument!r}"
        if found := _fault_of_value(argument, kind, given[argument]):
            return f"{name}: {argument} is {given[argument]!r:.60}; {found}"
    if unknown := next((one for one in given if one not in wanted), None):
        return f"{name} takes no {unknown!r}{nearest(unknown, wanted)}"
    if name.endswith("nth_paragraph_first_word") and not 1 <= given["nth_paragraph"] <= given["num_paragraphs"]:
        return f"{name}: nth_paragraph is {given['nth_paragraph']}, of {given['num_paragraphs']} paragraphs"
    return ""


def _fault_of_value(argument: str, kind: type, value: Any) -> str:
    if kind is int:
        return "" if isinstance(value, int) and not isinstance(value, bool) and value >= 0 else "give a whole number"
    if kind is list:
        return "" if value and isinstance(value, list) and all(isinstance(one, str) and one.strip() for one in value) \
            else "give a list of words"
    if not isinstance(value, str) or not value.strip():
        return "give a text"
    if argument.endswith("relation") and value not in RELATIONS:
        return f"write {' or '.join(RELATIONS)}"
    if argument == "letter" and len(value) != 1:
        return "give one letter"
    if argument == "language" and value[:2] not in LANGUAGES:
        return "give the code of a language, such as en"
    return ""


def _without_null(given: dict[str, Any]) -> dict[str, Any]:
    """Arguments that are given; some copies of IFEval have null for those that an instruction does not take."""
    return {name: value for name, value in given.items() if value is not None}


def verdicts(row: Row, response: str, loose: bool = False) -> list[bool]:
    """Whether each instruction of a row is followed. ``loose`` takes whichever does best of the response with and
    without its first line, its last line and its asterisks (Zhou et al. 2023, section 2.2). What is empty follows
    nothing."""
    forms = [form for form in (_forms(response) if loose else [response]) if form.strip()]
    return [any(KINDS[name].follows(form, **_without_null(given)) for form in forms)
            for name, given in zip(row[NAMES], row[ARGUMENTS], strict=True)]


def _forms(response: str) -> list[str]:
    lines = response.split("\n")
    forms = [response, *("\n".join(part).strip() for part in (lines[1:], lines[:-1], lines[1:-1]))]
    return list(dict.fromkeys((*forms, *(form.replace("*", "") for form in forms))))


def share(row: Row, response: str) -> float:
    """The share of a row's instructions that are followed strictly."""
    followed = verdicts(row, response)
    return sum(followed) / len(followed)
