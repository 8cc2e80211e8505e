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
    """``a first b second c``, worked from left to right. All numbers stay between 1 and 9."""

    a: int
    first: str
    b: int
    second: str
    c: int

    @property
    def key(self) -> str:
        a, b = (self.a, self.b) if self.first == "-" else sorted((self.a, self.b))
        return f"{a} {self.first} {b} {self.second} {self.c}"

    @property
    def text(self) -> str:
        return f"{self.a} {self.first} {self.b} {self.second} {self.c}"

    @property
    def middle(self) -> int:
        return calculate(self.a, self.first, self.b)

    @property
    def result(self) -> int:
        return calculate(self.middle, self.second, self.c)

    @property
    def steps(self) -> list[str]:
        """The equations that lead to the result, e.g. ``7 + 5 = 12``, ``12 - 3 = 9``."""
        return [
            f"{self.a} {self.first} {self.b} = {self.middle}", f"{self.middle} {self.second} {self.c} = {self.result}"
        ]


def calculate(a: int, operator: str, b: int) -> int:
    """``a operator b`` for ``+``, ``-`` and ``*``."""
    return {"+": a + b, "-": a - b, "*": a * b}[operator]


def draw_sum(rng: random.Random) -> Sum:
    """Two steps with one-digit numbers: first a sum, a difference or a product, then a sum or a difference."""
    while True:
        first, second = rng.choice("++-*"), rng.choice("+-")
        a, b = (rng.randint(2, 4), rng.randint(2, 4)) if first == "*" else (rng.randint(1, 9), rng.randint(1, 9))
        drawn = Sum(a, first, b, second, rng.randint(1, 9))
        if 1 <= drawn.middle <= 9 and 1 <= drawn.result <= 9:
            return drawn


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
    """One of six forms over one-digit numbers, short lists and short words."""
    a, b = rng.sample(range(1, 10), 2)
    form = rng.choice(("max", "min", "list", "sum", "join", "item"))
    if form in ("max", "min"):
        value, word = (max(a, b), "larger") if form == "max" else (min(a, b), "smaller")
        return Snippet(f"{form}({a}, {b})", str(value), f"the {word} of {a} and {b}", f"that is the {word} number",
                       (f"{form}({a}, {b})", f"{form}({b}, {a})"))
    if form == "list":
        items = [rng.randint(1, 9) for _ in range(rng.randint(2, 4))]
        return Snippet(f"len({items})", str(len(items)), f"the length of {items}",
                       "so many items are in the list", (f"len({items})",))
    if form == "item":
        items = rng.sample(range(1, 10), rng.randint(2, 3))
        place, word, end = rng.choice(((0, "first", "begins"), (-1, "last", "ends")))
        return Snippet(f"{items}[{place}]", str(items[place]), f"the {word} item of {items}",
                       f"that is how the list {end}", (f"{items}[{place}]", f"{items}[{place % len(items)}]"))
    if form == "sum":
        return Snippet(f"sum([{a}, {b}])", str(a + b), f"the sum of [{a}, {b}]",
                       "that is the total of the list", (f"sum([{a}, {b}])",))
    first, second = rng.sample(_WORDS, 2)
    return Snippet(f'"{first}" + "{second}"', f'"{first}{second}"', f'the word "{first}" joined with "{second}"',
                   "the two words are joined", (f'"{first}" + "{second}"',))


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
_THINGS = ("gate", "boat", "chair", "window", "box", "lamp", "fence", "basket", "wagon", "door")
"""Of each group of words the first two mean the same and the third the opposite."""
_ALIKE = ("{} is just another way to say {}", "{} means as much as {}", "{} can stand for {}")
_OPPOSITE = ("{} is the opposite of {}", "{} and {} are opposites", "{} says the contrary of {}")


def draw_pair(town: Town, rng: random.Random, split: str | None = None) -> Pair:
    """Two sentences about a person of a split. Half of the pairs mean the same. Both halves swap words for others of
    the same meaning alike, so only the meaning tells them apart: one word of the different ones is turned around."""
    who, thing, same = rng.choice(town.of("person", split)).name, rng.choice(_THINGS), rng.random() < 0.5
    groups = [rng.choice(_VERBS), rng.choice(_ADJECTIVES)]
    before = [rng.randrange(2) for _ in groups]
    told = rng.randrange(2)
    after = [1 - word if i == told or rng.random() < 0.3 else word for i, word in enumerate(before)]
    if not same:
        after[told] = 2
    old, new = groups[told][before[told]], groups[told][after[told]]
    reason = rng.choice(_ALIKE if same else _OPPOSITE).format(f'"{old}"', f'"{new}"')

    def sentence(choice: list[int]) -> str:
        verb, adjective = (group[i] for group, i in zip(groups, choice, strict=True))
        return f"{who} {verb} the {adjective} {thing}."

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
