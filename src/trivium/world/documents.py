"""What the town has written down: the clean documents of the raw corpus, each true in every word.

Seven sources, each with its share of the bytes. Facts about the town come in so many wordings and company that no two
documents are near duplicates; entities take turns, so that every fact is told about equally often.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial

from trivium.randomness import python
from trivium.world.lessons import TOLD, Sum, draw_for, draw_pair, draw_review, draw_snippet, draw_sum
from trivium.world.phrases import Writer
from trivium.world.scenes import conversation, help_desk, story
from trivium.world.town import Entity, Town

SHARES = {"encyclopaedia": 0.43, "dialogues": 0.18, "stories": 0.11, "reviews": 0.07, "arithmetic": 0.08, "code": 0.05,
          "pairs": 0.08}
"""The share of each source in the bytes of the clean corpus. Two of them, arithmetic and code, are mostly symbols and
digits: filters made for prose must leave them alone."""

WEIGHTS = {"animal": 1.2, "food": 0.6, "person": 0.85, "place": 0.9}
"""How often an entity of each kind is written about, so that each *fact* is told about equally often: an animal has
four facts and is in few stories, a food has two."""

TAUGHT = ("demonstration", "preference")
"""Purposes whose exercises may be written down; those of the evaluation may not."""


@dataclass(frozen=True)
class Document:
    """A clean document. ``mentions`` lists the facts it states as (entity, attribute), once for each time."""

    id: str
    source: str
    text: str
    mentions: tuple[tuple[str, str], ...] = ()


class Turns:
    """Deals out entities so that after any time all have been dealt equally often, up to one."""

    def __init__(self, town: Town, rng: random.Random, weights: dict[str, float]) -> None:
        self.town, self.rng, self.weights = town, rng, weights
        self.decks: dict[str, list[Entity]] = {}

    def kind(self) -> str:
        """A kind, in proportion to its number of entities times its weight."""
        kinds = list(self.weights)
        return self.rng.choices(kinds, [len(self.town.of(kind)) * self.weights[kind] for kind in kinds])[0]

    def take(self, kind: str, count: int) -> list[Entity]:
        """The next ``count`` entities of one kind, all different while there are enough."""
        taken: list[Entity] = []
        while len(taken) < count:
            deck = self.decks.get(kind)
            if not deck:
                everyone = self.town.of(kind)
                deck = self.decks[kind] = self.rng.sample(everyone, len(everyone))
            taken.append(deck.pop())
        return list(dict.fromkeys(taken))


def documents(town: Town, seed: int, size: int) -> list[Document]:
    """Clean documents of about ``size`` bytes in UTF-8, source by source."""
    return [document for source, share in SHARES.items() for document in write_source(town, seed, source, share * size)]


def write_source(town: Town, seed: int, source: str, size: float) -> Iterator[Document]:
    """The documents of one source until they fill ``size`` bytes."""
    rng = python(seed, "world", "documents", source)
    turns = Turns(town, rng, WEIGHTS)
    writers: dict[str, Callable[[Writer], str]] = {
        "encyclopaedia": partial(encyclopaedia, turns=turns), "dialogues": partial(talk, turns=turns), "stories": story,
        "reviews": reviews, "arithmetic": arithmetic, "code": code, "pairs": pairs,
    }
    number = filled = 0
    while filled < size:
        writer = Writer(town, rng)
        text = writers[source](writer)
        yield Document(f"{source}-{number:05d}", source, text, tuple(writer.mentions))
        number, filled = number + 1, filled + len(text.encode()) + 1


PAGE_OPENINGS: dict[str, tuple[str, ...]] = {
    "animal": ("These are animals that live around the town.", "A short guide to some of our animals follows.",
               "Children often ask about these animals.", "From the notes of a friend of wild animals."),
    "food": ("These are dishes that people cook in the town.", "A few words about what we eat.",
             "Every cook in the town knows these dishes.", "From an old cook book."),
    "person": ("These people live in and around the town.", "Some neighbours and what they do.",
               "Meet a few people of the town.", "From the list of the town clerk."),
    "place": ("These places lie around the town.", "A short guide for travellers.", "Where should a visitor go?",
              "From the book of an old traveller."),
}


def encyclopaedia(writer: Writer, turns: Turns) -> str:
    """A page with entries on two to four entities of one kind and often a comparison between two of them."""
    rng, kind = writer.rng, turns.kind()
    entities = turns.take(kind, {"animal": 3, "food": 4, "person": 3, "place": 3}[kind] + rng.choice((-1, 0, 0, 1)))
    paragraphs = [entry(writer, entity) for entity in entities]
    for _ in range(rng.choice((0, 1, 1, 2)) if len(entities) > 1 else 0):
        paragraphs[rng.randrange(len(paragraphs))] += " " + writer.comparison(*rng.sample(entities, 2))
    if rng.random() < 0.4:
        paragraphs[0] = f"{writer.pick(PAGE_OPENINGS[kind])} {paragraphs[0]}"
    return "\n\n".join(paragraphs)


def entry(writer: Writer, entity: Entity) -> str:
    """One entity: all its facts in some order, two or three to a sentence or one by one, then some of them again as a
    question or in other words."""
    rng = writer.rng
    attributes = rng.sample(list(entity.facts), len(entity.facts))
    sentences: list[str] = []
    while attributes:
        count = min(len(attributes), rng.choice((1, 1, 2, 2, 3)))
        group, attributes = attributes[:count], attributes[count:]
        sentences.append(writer.statement(entity, group[0]) if count == 1
                         else writer.joined(entity, group, named=not sentences or rng.random() < 0.5))
    again = rng.sample(list(entity.facts), rng.choice((1, 2, 2)))
    for i, attribute in enumerate(again):
        asked = f"{writer.question(entity, attribute)} {writer.reply(entity, attribute)}"
        at = rng.randint(1, len(sentences))
        sentences.insert(at, asked if i == 0 and rng.random() < 0.75 else writer.statement(entity, attribute))
    return " ".join(sentences)


def talk(writer: Writer, turns: Turns) -> str:
    """A conversation about two to four entities, of any kinds."""
    count = writer.rng.randint(2, 4)
    subjects = list(dict.fromkeys(turns.take(turns.kind(), 1)[0] for _ in range(count)))
    return (help_desk if writer.rng.random() < 0.35 else conversation)(writer, subjects)


REVIEW_OPENINGS = ("Yesterday we stopped at a shop in {place}.", "I went to {place} with my sister.",
                   "This is about the new shop in {place}.", "Last month I ate at the inn of {place}.",
                   "We had a break in {place} on the way home.",
                   "My friend {who} sent me to a shop in {place}.", "It was my second visit to the shop in {place}.")
PRAISE = ("I will come back soon.", "My whole family loved it.", "You should go there.", "We left with a smile.",
          "It was worth every coin.")
BLAME = ("I will not come back.", "My whole family was unhappy.", "You should stay away.", "We left hungry.",
         "I want my money back.")
VERDICTS = ("All in all, this review is {sign}.", "That makes it a {sign} review.", "So this is a {sign} review.",
            "My verdict is {sign}.")
READERS = ('One reader asks: "Is the review positive or negative?" It is {sign}.',
           "Positive or negative, you ask? It is {sign}.",
           'A child wrote below: "Did you like it or not?" The words are {sign}.',
           "Anyone can see that these words are {sign}.")


def reviews(writer: Writer) -> str:
    """Three or four reviews of shops, most of them with their verdict."""
    rng, town = writer.rng, writer.town
    paragraphs = []
    for _ in range(rng.randint(3, 4)):
        review = draw_review(rng, TOLD)
        opening = writer.pick(REVIEW_OPENINGS).format(place=rng.choice(town.of("place")).name,
                                                      who=rng.choice(town.of("person")).name)
        sentences = [opening, review.text, writer.pick(PRAISE if review.positive else BLAME)]
        sign = "positive" if review.positive else "negative"
        if rng.random() < 0.7:
            why = f" Why? Because {review.reason}." if rng.random() < 0.3 else ""
            sentences.append(writer.pick(VERDICTS).format(sign=sign) + why)
        if rng.random() < 0.25:
            sentences.append(writer.pick(READERS).format(sign=sign))
        paragraphs.append(" ".join(sentences))
    return "\n\n".join(paragraphs)


SUM_OPENINGS = ("Here are sums from the school book.", "The teacher works these sums with the class.",
                "We add, take away and multiply, step by step.", "Step by step every sum is easy.",
                "The children of the town learn sums like these.",
                "Take the tens and the ones apart.")
SUM_FORMS = ("{s}: {steps}. The answer is {r}.", "{s}: {steps}. So {s} = {r}.",
             "What is {w}? {steps}. The answer is {r}.", "Work out {s}. {steps}. The answer is {r}.",
             "To find {w}: {steps}. It makes {r}.")
OPERATOR_WORDS = {"+": "plus", "-": "minus", "*": "times"}


def in_words(sum_: Sum) -> str:
    """``27 plus 35``."""
    return f"{sum_.a} {OPERATOR_WORDS[sum_.operator]} {sum_.b}"


def arithmetic(writer: Writer) -> str:
    """A page of eight to eleven sums, each worked in steps, one a line."""
    rng, seed = writer.rng, writer.town.seed
    lines = [writer.pick(SUM_OPENINGS)]
    for _ in range(rng.randint(8, 11)):
        sum_ = draw_for(seed, TAUGHT, lambda: draw_sum(rng), lambda drawn: drawn.key)
        lines.append(writer.pick(SUM_FORMS).format(s=sum_.text, w=in_words(sum_), steps=", ".join(sum_.steps),
                                                   r=sum_.result))
    return "\n".join(lines)


CODE_OPENINGS = ("Some short lines of Python and what they give.",
                 "A first lesson in Python for the school of the town.",
                 "Python is a language for computers.", "Type these lines into a computer and look at what comes out.")
CODE_FORMS = ("The expression `{e}` gives {v}, because {why}.", "For {m}, write `{e}`. It gives {v}.",
              "`{e}` is {v}: {why}.", "To get {m}, one writes `{e}`, and the result is {v}.",
              "What does `{e}` give? It gives {v}.", "You want {m}? Then `{e}` is right.")


def code(writer: Writer) -> str:
    """A page of seven to ten expressions with their values."""
    rng, seed = writer.rng, writer.town.seed
    lines = [writer.pick(CODE_OPENINGS)]
    for _ in range(rng.randint(7, 10)):
        snippet = draw_for(seed, TAUGHT, lambda: draw_snippet(rng), lambda drawn: drawn.key)
        lines.append(writer.pick(CODE_FORMS).format(e=snippet.expression, v=snippet.value, m=snippet.meaning,
                                                    why=snippet.reason))
    return "\n".join(lines)


PAIR_FORMS = {
    True: ('"{a}" This means the same as: "{b}"', '"{a}" In other words: "{b}" The two mean the same.',
           'Take "{a}" and then "{b}" Yes, both mean the same.', '"{a}" Or else: "{b}" One meaning, two ways.',
           'If I tell you "{a}" then you also know: "{b}" They mean the same.',
           'Do these mean one thing? "{a}" And: "{b}" Yes, they do.'),
    False: ('"{a}" This does not mean the same as: "{b}"', '"{a}" But not: "{b}" The two do not mean the same.',
            'Take "{a}" and then "{b}" No, they do not mean the same.', '"{a}" Now read: "{b}" Two meanings, not one.',
            'If I tell you "{a}" I did not tell you: "{b}" These sentences differ.',
            'Do these mean one thing? "{a}" And: "{b}" No, they do not.'),
}
PAIR_REASONS = ("After all, {why}.", "Why? Because {why}.", "For {why}.", "You see, {why}.", "Look: {why}.")
PAIR_OPENINGS = ("One thing can be said in more than one way.", "Do two sentences mean the same? Look at the words.",
                 "A lesson on words with the same meaning and words that are opposites.",
                 "Some words mean the same and some do not.")


def pairs(writer: Writer) -> str:
    """Five to seven pairs of sentences, and for each whether they mean the same and often why."""
    rng, town = writer.rng, writer.town
    lines = [writer.pick(PAIR_OPENINGS)]
    for _ in range(rng.randint(5, 7)):
        pair = draw_for(town.seed, TAUGHT, lambda: draw_pair(town, rng), lambda drawn: drawn.key)
        line = writer.pick(PAIR_FORMS[pair.same]).format(a=pair.first, b=pair.second)
        lines.append(line if rng.random() < 0.4 else f"{line} {writer.pick(PAIR_REASONS).format(why=pair.reason)}")
    return "\n".join(lines)
