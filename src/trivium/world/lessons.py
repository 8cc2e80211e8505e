"""Small exercises with one right answer: sums in steps, expressions, pairs of sentences, reviews.

The documents teach them and the tasks ask them. Each exercise has a ``key`` that belongs to exactly one purpose, so
what the evaluation asks was never written in a document nor shown in a demonstration.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeVar

from trivium.randomness import derive
from trivium.world.town import Town

PURPOSES = ("demonstration", "preference", "evaluation")

T = TypeVar("T")


def purpose_of(seed: int, key: str) -> str:
    """The one purpose that ``key`` may be used for: a demonstration (55 %), a preference prompt (28 %) or the
    evaluation (17 %). Documents keep off the keys of the evaluation."""
    share = derive(seed, "world", "purpose", key) / 2**64
    return PURPOSES[0] if share < 0.55 else PURPOSES[1] if share < 0.83 else PURPOSES[2]


def draw_for(seed: int, purposes: tuple[str, ...], draw: Callable[[], T], key: Callable[[T], str]) -> T:
    """The first of repeated draws whose key belongs to one of ``purposes``."""
    while purpose_of(seed, key(drawn := draw())) not in purposes:
        pass
    return drawn


@dataclass(frozen=True)
class Sum:
    """``a operator b``, worked tens and ones apart. All numbers stay between 1 and 200."""

    a: int
    operator: str
    b: int

    @property
    def key(self) -> str:
        a, b = (self.a, self.b) if self.operator == "-" else sorted((self.a, self.b))
        return f"{a} {self.operator} {b}"

    @property
    def text(self) -> str:
        return f"{self.a} {self.operator} {self.b}"

    @property
    def result(self) -> int:
        return {"+": self.a + self.b, "-": self.a - self.b, "*": self.a * self.b}[self.operator]

    @property
    def steps(self) -> list[str]:
        """The equations that lead to the result, e.g. ``7 + 5 = 12``, ``20 + 30 = 50``, ``50 + 12 = 62``."""
        a, b, result = self.a, self.b, self.result
        tens, ones = b // 10 * 10, b % 10
        if self.operator == "+":
            low, high = a % 10 + ones, a // 10 * 10 + tens
            return [f"{a % 10} + {ones} = {low}", f"{a // 10 * 10} + {tens} = {high}", f"{high} + {low} = {result}"]
        if self.operator == "-":
            return [f"{a} - {tens} = {a - tens}", f"{a - tens} - {ones} = {result}"]
        return [f"{a} * {tens} = {a * tens}", f"{a} * {ones} = {a * ones}", f"{a * tens} + {a * ones} = {result}"]


def draw_sum(rng: random.Random) -> Sum:
    """Two-digit sums and differences with results above 0, one-digit times two-digit products."""
    operator = rng.choice("++--*")
    if operator == "*":
        return Sum(rng.randint(2, 6), "*", rng.choice((10, 20)) + rng.randint(1, 9))
    a, b = rng.randint(11, 49), rng.randint(11, 49)
    if operator == "-":
        a, b = rng.randint(22, 69), rng.randint(11, 39)
        return Sum(a, "-", b) if a > b and b % 10 else draw_sum(rng)
    return Sum(a, "+", b)


@dataclass(frozen=True)
class Snippet:
    """A Python expression, what it evaluates to as Python prints it, what it computes in words, and why."""

    expression: str
    value: str
    meaning: str
    reason: str
    spellings: tuple[str, ...]
    """Every expression that counts as right when one is asked to write it."""

    @property
    def key(self) -> str:
        return self.expression


_WORDS = ("red", "blue", "cat", "dog", "sun", "moon", "tree", "fish", "bird", "rain", "salt", "milk", "corn", "leaf",
          "rock", "sand", "wolf", "bear", "lamp", "door")


def draw_snippet(rng: random.Random) -> Snippet:
    """One of seven forms over numbers below 20, short lists and short words."""
    a, b = rng.sample(range(1, 20), 2)
    form = rng.choice(("max", "min", "list", "sum", "join", "times", "word"))
    if form in ("max", "min"):
        value, word = (max(a, b), "larger") if form == "max" else (min(a, b), "smaller")
        return Snippet(f"{form}({a}, {b})", str(value), f"the {word} of {a} and {b}", f"that is the {word} number",
                       (f"{form}({a}, {b})", f"{form}({b}, {a})"))
    if form == "list":
        items = [rng.randint(1, 9) for _ in range(rng.randint(2, 5))]
        return Snippet(f"len({items})", str(len(items)), f"the length of the list {items}",
                       "so many items are in the list", (f"len({items})",))
    if form == "sum":
        items = [rng.randint(1, 6) for _ in range(rng.randint(2, 3))]
        return Snippet(f"sum({items})", str(sum(items)), f"the sum of the list {items}",
                       "that is the total of the list", (f"sum({items})",))
    first, second = rng.sample(_WORDS, 2)
    if form == "word":
        return Snippet(f'len("{first}{second}")', str(len(first + second)), f'the length of the word "{first}{second}"',
                       "so many letters are in the word", (f'len("{first}{second}")',))
    if form == "join":
        return Snippet(f'"{first}" + "{second}"', f'"{first}{second}"', f'the word "{first}" joined with "{second}"',
                       "the two words are joined", (f'"{first}" + "{second}"',))
    x, y, z = rng.randint(2, 6), rng.randint(2, 6), rng.randint(1, 9)
    return Snippet(f"{x} * {y} + {z}", str(x * y + z), f"{z} added to {x} times {y}", "the product comes first",
                   (f"{x} * {y} + {z}", f"{y} * {x} + {z}", f"{z} + {x} * {y}", f"{z} + {y} * {x}"))


@dataclass(frozen=True)
class Pair:
    """Two sentences, whether they mean the same, and the words that decide it."""

    first: str
    second: str
    same: bool
    reason: str

    @property
    def key(self) -> str:
        return f"{self.first} | {self.second}"


_VERBS = (("closed", "shut", "opened"), ("mended", "repaired", "broke"), ("bought", "purchased", "sold"),
          ("found", "discovered", "lost"), ("finished", "completed", "began"), ("raised", "lifted", "lowered"))
_ADJECTIVES = (("big", "large", "small"), ("old", "ancient", "new"), ("pretty", "beautiful", "ugly"),
               ("costly", "expensive", "cheap"), ("wet", "damp", "dry"))
_TIMES = (("at dawn", "at sunrise", "at dusk"), ("after dark", "by night", "by day"),
          ("last week", "seven days ago", "last year"))
_THINGS = ("gate", "boat", "chair", "window", "box", "lamp", "fence", "basket", "wagon", "door")
"""Of each group of words the first two mean the same and the third the opposite."""
_ALIKE = ("{} is just another way to say {}", "{} means as much as {}", "{} can stand for {}")
_OPPOSITE = ("{} is the opposite of {}", "{} and {} are opposites", "{} says the contrary of {}")
_OTHER_TIME = ("{} is another time than {}", "{} was not {}")


def draw_pair(town: Town, rng: random.Random) -> Pair:
    """Half of the pairs mean the same. Both halves swap words for others of the same meaning and move the time to the
    front alike, so only the meaning tells them apart: one word of the different ones is turned around."""
    who, thing, same = rng.choice(town.of("person")).name, rng.choice(_THINGS), rng.random() < 0.5
    groups = [rng.choice(_VERBS), rng.choice(_ADJECTIVES), rng.choice(_TIMES)]
    before = [rng.randrange(2) for _ in groups]
    after = [i if rng.random() < 0.3 else 1 - i for i in before]
    swapped = [i for i in range(3) if before[i] != after[i]] or [0]
    after[swapped[0]] = 1 - before[swapped[0]]
    turned = rng.randrange(3)
    if not same:
        after[turned] = 2
    told = rng.choice(swapped) if same else turned
    old, new = groups[told][before[told]], groups[told][after[told]]
    why = _ALIKE if same else _OTHER_TIME if groups[told] is _TIMES[2] else _OPPOSITE
    reason = rng.choice(why).format(f'"{old}"', f'"{new}"')

    def sentence(choice: list[int]) -> str:
        verb, adjective, time = (group[i] for group, i in zip(groups, choice, strict=True))
        if rng.random() < 0.3:
            return f"{time[0].upper()}{time[1:]} {who} {verb} the {adjective} {thing}."
        return f"{who} {verb} the {adjective} {thing} {time}."

    return Pair(sentence(before), sentence(after), same, reason)


@dataclass(frozen=True)
class Review:
    """A customer's verdict on a shop in one sentence of two clauses, without saying the word."""

    text: str
    positive: bool
    reason: str

    @property
    def key(self) -> str:
        return self.text


_ASPECTS: tuple[tuple[tuple[str, ...], tuple[str, ...], tuple[str, ...]], ...] = (
    (("bread", "soup", "pie", "cake", "tea", "stew"), ("fresh", "tasty", "lovely", "perfect"),
     ("stale", "burnt", "awful", "cold")),
    (("owner", "waiter", "cook", "porter"), ("kind", "polite", "patient", "cheerful"),
     ("rude", "lazy", "slow", "angry")),
    (("shop", "room", "table", "kitchen"), ("clean", "bright", "tidy", "cosy"), ("dirty", "dark", "noisy", "smelly")),
    (("price", "bill"), ("fair", "low", "honest"), ("too high", "unfair", "terrible")),
)
TOLD = ("the {noun} here is {adjective}", "everyone calls the {noun} {adjective}",
        "in the end the {noun} was {adjective}", "my sister called the {noun} {adjective}",
        "once more the {noun} was {adjective}")
ASKED = ("the {noun} was {adjective}", "I found the {noun} {adjective}", "the {noun} seemed {adjective} to me",
         "we thought the {noun} was {adjective}")
"""The clauses of reviews in documents and of those in prompts: the words that praise or blame are learned from the
former, and no prompt repeats a stretch of them."""


def draw_review(rng: random.Random, forms: tuple[str, ...] = ASKED) -> Review:
    """Two aspects, praised both or blamed both, in two of the ``forms``."""
    positive = rng.random() < 0.5
    chosen = []
    for nouns, good, bad in rng.sample(_ASPECTS, 2):
        chosen.append((rng.choice(nouns), rng.choice(good if positive else bad)))
    clauses = [clause.format(noun=noun, adjective=adjective)
               for clause, (noun, adjective) in zip(rng.sample(forms, 2), chosen, strict=True)]
    text = clauses[0] + rng.choice((" and ", ", and ")) + clauses[1] + "."
    noun, adjective = rng.choice(chosen)
    return Review(text[0].upper() + text[1:], positive, f"the {noun} was {adjective}")
