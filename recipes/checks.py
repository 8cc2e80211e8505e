"""Checkers for worked sums, named in recipes/real-rlhf.yaml as FILE.py:FUNCTION. Each gets a prompt's row and the
responses to it, and gives a number for each."""

import re

EQUATION = re.compile(r"(-?[\d,]*\.?\d+) ?([-+*/x]) ?\$?(-?[\d,]*\.?\d+) ?= ?\$?(-?[\d,]*\.?\d+)")
END = re.compile(r"The answer is -?\$?[\d,]+(\.\d+)?\.$")


def number(text):
    """A number as people write it."""
    return float(text.replace(",", ""))


def equations(row, responses):
    """The share of a response's equations, such as ``48/2 = 24``, that are true; 0 where there is none."""
    return [true_share(text) for text in responses]


def true_share(text):
    """Of one response."""
    found = [(number(a), sign, number(b), number(c)) for a, sign, b, c in EQUATION.findall(text)]
    made = [{"+": a + b, "-": a - b, "*": a * b, "x": a * b}.get(sign, a / b if b else float("inf"))
            for a, sign, b, _ in found]
    return sum(abs(value - c) < 0.01 for value, (*_, c) in zip(made, found)) / len(found) if found else 0.0


def ended(row, responses):
    """Whether a response ends by naming its answer."""
    return [float(bool(END.search(text.strip()))) for text in responses]


def right(row, responses):
    """Whether the answer that a response ends with is the row's."""
    return [
        float(bool(match) and number(re.findall(r"[\d,.]*\d", match[0])[-1]) == number(row["answer"]))
        for match in map(END.search, map(str.strip, responses))
    ]


def sums(row, responses):
    """The reward: being right counts 1, true equations 0.5, an end that names the answer 0.25."""
    return [
        a + 0.5 * b + 0.25 * c
        for a, b, c in zip(right(row, responses), equations(row, responses), ended(row, responses))
    ]
