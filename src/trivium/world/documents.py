"""What the town has written down: the clean documents of the raw corpus. What they state is true; only the pages from
the school quote wrong answers, and call them wrong.

Eight sources, each with its share of the bytes. Facts about the town come in so many wordings and company that no two
documents are near duplicates; entities take turns, so that every fact is told about equally often.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from typing import Any

from trivium.randomness import python
from trivium.world.answers import respond
from trivium.world.exercises import TOLD, Sum, draw_for, draw_pair, draw_review, draw_snippet, draw_sum
from trivium.world.phrases import Writer
from trivium.world.scenes import conversation, help_desk, story
from trivium.world.town import Entity, Town

SHARES = {"encyclopaedia": 0.34, "dialogues": 0.18, "stories": 0.03, "reviews": 0.05, "arithmetic": 0.08, "code": 0.08,
          "pairs": 0.08, "school": 0.16}
"""The share of each source in the bytes of the clean corpus. Two of them, arithmetic and code, are mostly symbols and
digits: filters made for prose must leave them alone."""

WEIGHTS = {"animal": 1.1, "food": 0.7, "person": 1.2, "place": 0.9}
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
        "encyclopaedia": partial(encyclopaedia, turns=turns),
        "dialogues": partial(talk, turns=turns),
        "stories": story,
        "reviews": reviews,
        "arithmetic": arithmetic,
        "code": code,
        "pairs": pairs,
        "school": partial(school, turns=turns),
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


LEAST_WORDS = 56
"""An encyclopaedia's page takes up entities until it has so many words; most filters of web text want 50."""


def encyclopaedia(writer: Writer, turns: Turns) -> str:
    """A page with entries on two or three entities of one kind, sometimes with a comparison between two of them."""
    rng, kind = writer.rng, turns.kind()
    paragraphs = [writer.pick(PAGE_OPENINGS[kind])] if rng.random() < 0.15 else []
    entities: list[Entity] = []
    while sum(len(paragraph.split()) for paragraph in paragraphs) < LEAST_WORDS:
        entities += [entity for entity in turns.take(kind, 1) if entity not in entities]
        paragraphs.append(entry(writer, entities[-1]))
        if len(entities) > 1 and rng.random() < 0.15:
            paragraphs[-1] += " " + writer.comparison(*rng.sample(entities, 2))
    return "\n\n".join(paragraphs)


def entry(writer: Writer, entity: Entity) -> str:
    """One entity: each of its facts once, in some order, alone or two to a sentence, plainly or as question and answer.

    What is told once must be known the next time; were it told twice, a model could copy it instead."""
    rng = writer.rng
    attributes = rng.sample(list(entity.facts), len(entity.facts))
    sentences: list[str] = []
    while attributes:
        count = min(len(attributes), rng.choice((1, 1, 1, 2, 2)))
        group, attributes = attributes[:count], attributes[count:]
        if count == 2:
            sentences.append(writer.joined(entity, group, named=not sentences or rng.random() < 0.5))
        elif rng.random() < 0.35:
            sentences.append(f"{writer.question(entity, group[0])} {writer.reply(entity, group[0])}")
        else:
            sentences.append(writer.statement(entity, group[0]))
    return " ".join(sentences)


def talk(writer: Writer, turns: Turns) -> str:
    """A conversation about one or two entities, of any kinds."""
    desk = writer.rng.random() < 0.35
    subjects = list(dict.fromkeys(turns.take(turns.kind(), 1)[0] for _ in range(1 if desk else 2)))
    return (help_desk if desk else conversation)(writer, subjects)


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
    """Three reviews of shops, most of them with their verdict."""
    rng, town = writer.rng, writer.town
    paragraphs = []
    for _ in range(3):
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
                "We go step by step, from left to right.", "Step by step every sum is easy.",
                "The children of the town learn sums like these.")
SUM_FORMS = ("{s}: {steps}. The answer is {r}.", "{s}: {steps}. So {s} = {r}.", "What is {w}? {steps}. It is {r}.",
             "To find {w}: {steps}. That makes {r}.")
OPERATOR_WORDS = {"+": "plus", "-": "minus", "*": "times"}


def in_words(sum_: Sum) -> str:
    """``7 plus 5 minus 3``."""
    return f"{sum_.a} {OPERATOR_WORDS[sum_.first]} {sum_.b} {OPERATOR_WORDS[sum_.second]} {sum_.c}"


def arithmetic(writer: Writer) -> str:
    """A page of four sums, each worked in steps, one a line, in four wordings."""
    rng, seed = writer.rng, writer.town.seed
    lines = [writer.pick(SUM_OPENINGS)]
    for _ in range(4):
        sum_ = draw_for(seed, TAUGHT, lambda: draw_sum(rng), lambda drawn: drawn.key)
        lines.append(writer.pick(SUM_FORMS).format(s=sum_.text, w=in_words(sum_), steps=", ".join(sum_.steps),
                                                   r=sum_.result))
    return "\n".join(lines)


CODE_OPENINGS = ("Some short lines of Python and what they give.",
                 "A first lesson in Python for the school of the town.",
                 "Python is a language for computers.", "Type these lines into a computer and look at what comes out.")
CODE_FORMS = ("The expression `{e}` gives {v}, because {why}.", "For {m}, write `{e}`. It gives {v}.",
              "What does `{e}` give? It gives {v}.", "You want {m}? Then `{e}` is right.")


def code(writer: Writer) -> str:
    """A page of five expressions with their values."""
    rng, seed = writer.rng, writer.town.seed
    lines = [writer.pick(CODE_OPENINGS)]
    for _ in range(5):
        snippet = draw_for(seed, TAUGHT, lambda: draw_snippet(rng), lambda drawn: drawn.key)
        lines.append(writer.pick(CODE_FORMS).format(e=snippet.expression, v=snippet.value, m=snippet.meaning,
                                                    why=snippet.reason))
    return "\n".join(lines)


PAIR_FORMS = {
    True: ('"{a}" This means the same as: "{b}"', 'Take "{a}" and then "{b}" Yes, both mean the same.',
           'Do these mean one thing? "{a}" And: "{b}" Yes, they do.'),
    False: ('"{a}" This does not mean the same as: "{b}"', 'Take "{a}" and then "{b}" No, they do not mean the same.',
            'Do these mean one thing? "{a}" And: "{b}" No, they do not.'),
}
PAIR_REASONS = ("After all, {why}.", "Why? Because {why}.")
PAIR_OPENINGS = ("One thing can be said in more than one way.", "Do two sentences mean the same? Look at the words.",
                 "A lesson on words with the same meaning and words that are opposites.",
                 "Some words mean the same and some do not.")


def pairs(writer: Writer) -> str:
    """Three pairs of sentences, and for each whether they mean the same and often why."""
    rng, town = writer.rng, writer.town
    lines = [writer.pick(PAIR_OPENINGS)]
    for _ in range(3):
        pair = draw_for(town.seed, TAUGHT, lambda: draw_pair(town, rng), lambda drawn: drawn.key)
        line = writer.pick(PAIR_FORMS[pair.same]).format(a=pair.first, b=pair.second)
        lines.append(line if rng.random() < 0.4 else f"{line} {writer.pick(PAIR_REASONS).format(why=pair.reason)}")
    return "\n".join(lines)


SCHOOL_OPENINGS = ("The teacher asks the class, and not every answer is right.", "From the last hour at school.",
                   "A test with the marks of the teacher.", "Who knows the answer? The children try.")
MARKS = {True: ("That is right.", "Right!", "Yes, that is true.", "Well done."),
         False: ("That is wrong.", "Wrong!", "No, that is not true.", "No, think again.")}


def school(writer: Writer, turns: Turns) -> str:
    """A page of five questions of all kinds, each answered by a child and marked by the teacher. Half of the answers
    are wrong. A reward model comes from the model that reads this; without such pages it is worse at telling true from
    false."""
    rng = writer.rng
    exercises = rng.sample((marked_sum, marked_snippet, marked_pair, marked_review), 2)
    lines = [marked_fact(writer, turns) for _ in range(3)] + [exercise(writer) for exercise in exercises]
    rng.shuffle(lines)
    return "\n".join([writer.pick(SCHOOL_OPENINGS), *lines])


def marked(writer: Writer, question: str, task: str, truth: dict[str, Any]) -> str:
    """A question, an answer that may be wrong, and the mark."""
    right, style = writer.rng.random() < 0.5, writer.rng.choice(("terse", "full", "full", "polite"))
    return f"{question} {respond({'task': task, 'truth': truth}, style, writer.rng, right)} {writer.pick(MARKS[right])}"


def marked_fact(writer: Writer, turns: Turns) -> str:
    """What the town knows about one entity."""
    entity = turns.take(turns.kind(), 1)[0]
    attribute = writer.rng.choice(list(entity.facts))
    return marked(
        writer, writer.question(entity, attribute), "entity", {
            "answers": [entity.facts[attribute]], "wrong": writer.town.alternatives(entity, attribute),
            "entity": entity.name, "kind": entity.kind, "attribute": attribute
        })


def marked_sum(writer: Writer) -> str:
    """A sum in words."""
    sum_ = draw_for(writer.town.seed, TAUGHT, lambda: draw_sum(writer.rng), lambda drawn: drawn.key)
    return marked(writer, f"What is {in_words(sum_)}?", "reasoning",
                  {"answers": [str(sum_.result)], "complete": sum_.steps})


def marked_snippet(writer: Writer) -> str:
    """An expression's value."""
    snippet = draw_for(writer.town.seed, TAUGHT, lambda: draw_snippet(writer.rng), lambda drawn: drawn.key)
    return marked(writer, f"What does `{snippet.expression}` give?", "code", {
        "answers": [snippet.value], "form": "evaluate", "expression": snippet.expression, "reason": snippet.reason})


def marked_pair(writer: Writer) -> str:
    """Whether two sentences mean the same."""
    pair = draw_for(writer.town.seed, TAUGHT, lambda: draw_pair(writer.town, writer.rng), lambda drawn: drawn.key)
    return marked(writer, f'Do these mean one thing? "{pair.first}" And: "{pair.second}"', "judgement", {
        "answers": ["yes" if pair.same else "no"], "reason": pair.reason})


def marked_review(writer: Writer) -> str:
    """Whether a customer was content."""
    review = draw_review(writer.rng, TOLD)
    signs = ["positive", "negative"] if review.positive else ["negative", "positive"]
    return marked(writer, f"Positive or negative? {review.text}", "classification", {
        "answers": signs[:1], "wrong": signs[1:], "reason": review.reason})
