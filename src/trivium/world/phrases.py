"""How the town speaks of a fact: verb phrases, whole sentences, questions; and the writer that puts them together.

In every wording ``{v}`` is the value, ``{n}`` the subject inside a sentence ("the velorin"), ``{N}`` the same at its
start, ``{it}`` the pronoun. Names keep one spelling wherever they stand: animals and foods are lower case and follow
another word, people and places are always capitalised.
"""

from __future__ import annotations

import random
import re
from collections.abc import Sequence

from trivium.world.town import Entity, Town

VERBS: dict[str, tuple[str, ...]] = {
    "length": ("is {v} long", "measures {v} from nose to tail", "grows to a length of {v}", "reaches {v} in length"),
    "weight": ("weighs {v}", "has a weight of {v}", "comes to {v} on the scales", "is {v} in weight"),
    "eats": ("eats {v}", "feeds on {v}", "likes to eat {v}", "looks for {v} when it is hungry"),
    "habitat": ("lives in the {v}", "makes its home in the {v}", "is found in the {v}", "sleeps in the {v}"),
    "taste": ("is {v}", "tastes {v}", "has a {v} taste", "is {v} on the tongue"),
    "ingredient": ("is made from {v}", "is made of {v}", "is cooked from {v}", "has {v} as its main ingredient"),
    "job": ("works as a {v}", "is a {v}", "earns a living as a {v}", "has the job of a {v}"),
    "home": ("lives in {v}", "has a house in {v}", "makes a home in {v}", "comes home to {v} each evening"),
    "favourite": ("likes {v} best", "loves to eat {v}", "prefers {v} to any other food", "always orders {v}"),
    "pet": ("keeps a {v}", "has a pet {v}", "owns a {v}", "shares the house with a {v}"),
    "type": ("is a {v}", "has always been a {v}", "began as a {v} and still is one", "is no more than a {v}"),
    "known_for": ("is known for its {v}", "is famous for its {v}", "is proud of its {v}", "makes the best {v}"),
    "near": ("lies near {v}", "is close to {v}", "stands beside {v}", "is a short walk from {v}"),
}
"""What an entity of the right kind is or does, by attribute (attribute names differ between kinds)."""

STATEMENTS: dict[str, tuple[str, ...]] = {
    "length": ("The length of {n} is {v}.", "From nose to tail {n} measures {v}.",
               "Put a rope beside {n} and it must be {v} long."),
    "weight": ("The weight of {n} is {v}.", "On the scales {n} comes to {v}.", "To carry {n} you must lift {v}."),
    "eats": ("The food of {n} is {v}.", "You can please {n} with {v}.",
             "Where there is plenty of {v}, {n} is not far."),
    "habitat": ("The home of {n} is in the {v}.", "In the {v} you can meet {n}.",
                "To see {n}, go and wait in the {v}."),
    "taste": ("The taste of {n} is {v}.", "Anyone who tries {n} finds it {v}.", "People say {n} is {v}."),
    "ingredient": ("The main ingredient of {n} is {v}.", "To make {n}, a cook needs {v}.",
                   "Without {v} there is no {n}."),
    "job": ("The job of {n} is that of a {v}.", "If you need a {v}, ask {n}.", "People know {n} as a {v}."),
    "home": ("The home of {n} is in {v}.", "You can find {n} in {v}.", "Letters for {n} go to {v}."),
    "favourite": ("The favourite food of {n} is {v}.", "Nothing pleases {n} like a plate of {v}.",
                  "Cook {v} and {n} will come."),
    "pet": ("The pet of {n} is a {v}.", "In the house of {n} there is a {v}.", "You often see {n} with a {v}."),
    "type": ("On the map {n} is marked as a {v}.", "People call {n} a {v}.", "Visitors find that {n} is a {v}."),
    "known_for": ("People visit {n} for its {v}.", "Everyone has heard of the {v} of {n}.",
                  "The pride of {n} is its {v}."),
    "near": ("The nearest neighbour of {n} is {v}.", "From {n} you can walk to {v}.",
             "The road from {n} leads to {v}."),
}
"""Whole sentences that do not begin with their subject."""

QUESTIONS: dict[str, tuple[str, ...]] = {
    "length": ("How long is {n}?", "How long does {n} get?"),
    "weight": ("How heavy is {n}?", "How much does {n} weigh?"),
    "eats": ("What does {n} eat?", "What food does {n} look for?"),
    "habitat": ("Where does {n} live?", "Where is {n} found?"),
    "taste": ("How does {n} taste?", "What taste does {n} have?"),
    "ingredient": ("What is {n} made of?", "What goes into {n}?"),
    "job": ("What does {n} do?", "What work does {n} do?"),
    "home": ("Where does {n} live?", "Where is the house of {n}?"),
    "favourite": ("What does {n} like best to eat?", "Which food does {n} love?"),
    "pet": ("Which animal does {n} keep?", "What pet does {n} have?"),
    "type": ("What kind of place is {n}?", "What sort of place is {n}?"),
    "known_for": ("What is {n} known for?", "What is {n} proud of?"),
    "near": ("What is {n} near?", "Which place is close to {n}?"),
}
"""Questions as the documents ask them. Those put to the model are others: see :mod:`trivium.world.questions`."""

SHARED: dict[str, str] = {
    "eats": "{A} and {b} both eat {v}.", "habitat": "{A} and {b} both live in the {v}.",
    "taste": "{A} and {b} are both {v}.",
    "ingredient": "{A} and {b} are both made from {v}.", "job": "{A} and {b} both work as a {v}.",
    "home": "{A} and {b} both live in {v}.", "favourite": "{A} and {b} both like {v} best.",
    "pet": "{A} and {b} both keep a {v}.", "type": "{A} and {b} are each a {v}.",
    "known_for": "{A} and {b} are both known for {v}.",
    "length": "{A} and {b} are both {v} long.", "weight": "{A} and {b} both weigh {v}.",
}
_MEALS = ("the dish called", "a plate of", "a bowl of", "a bite of")


def capital(text: str) -> str:
    """The text with its first letter in upper case."""
    return text[:1].upper() + text[1:]


def list_words(words: Sequence[str]) -> str:
    """``a, b and c``."""
    return words[0] if len(words) == 1 else ", ".join(words[:-1]) + " and " + words[-1]


def value_number(value: str) -> float | None:
    """A length in centimetres or a weight in kilograms; None for any other value."""
    found = re.fullmatch(r"(\d+) (centimetres|metres|kilograms)", value)
    return None if found is None else float(found[1]) * (100 if found[2] == "metres" else 1)


class Writer:
    """Puts facts about the town into words for one document.

    A wording is not used twice in a document before the others had their turn; ``mentions`` counts what was stated, as
    ``(entity, attribute)`` pairs.
    """

    def __init__(self, town: Town, rng: random.Random) -> None:
        self.town, self.rng = town, rng
        self.mentions: list[tuple[str, str]] = []
        self._unused: dict[tuple[str, ...], list[str]] = {}

    def pick(self, options: tuple[str, ...]) -> str:
        """One of ``options``, each once before any comes again."""
        unused = self._unused.get(options)
        if not unused:
            unused = self._unused[options] = self.rng.sample(options, len(options))
        return unused.pop()

    def noun(self, entity: Entity) -> str:
        """The entity inside a sentence: "the velorin", "a bowl of brusket", "Belira"."""
        if entity.kind == "animal":
            return self.rng.choice(("the ", "a ", "the ")) + entity.name
        if entity.kind == "food":
            return f"{self.rng.choice(_MEALS)} {entity.name}"
        return entity.name

    def inner(self, entity: Entity) -> str:
        """The entity inside a sentence, where a food needs no dish."""
        return entity.name if entity.kind == "food" else self.noun(entity)

    def verb(self, entity: Entity, attribute: str) -> str:
        """A verb phrase that states one fact: "feeds on moss"."""
        self.mentions.append((entity.name, attribute))
        return self.pick(VERBS[attribute]).format(v=entity.facts[attribute])

    def statement(self, entity: Entity, attribute: str) -> str:
        """A whole sentence that states one fact and names the entity."""
        if self.rng.random() < 0.5:
            return capital(f"{self.noun(entity)} {self.verb(entity, attribute)}.")
        self.mentions.append((entity.name, attribute))
        return self.pick(STATEMENTS[attribute]).format(n=self.inner(entity), v=entity.facts[attribute])

    def joined(self, entity: Entity, attributes: Sequence[str], named: bool = True) -> str:
        """One sentence that states two or three facts; ``named`` or with the pronoun for its subject."""
        subject = capital(self.noun(entity) if named else entity.pronoun)
        verbs = [self.verb(entity, attribute) for attribute in attributes]
        if len(verbs) == 2 and named and self.rng.random() < 0.35:
            return f"{subject}, {'who' if entity.kind == 'person' else 'which'} {verbs[0]}, {verbs[1]}."
        if len(verbs) == 2 and self.rng.random() < 0.4:
            return f"{subject} {verbs[0]}, and {entity.pronoun} {verbs[1]}."
        return f"{subject} {list_words(verbs)}."

    def question(self, entity: Entity, attribute: str) -> str:
        """A question about one fact."""
        return self.pick(QUESTIONS[attribute]).format(n=self.inner(entity))

    def reply(self, entity: Entity, attribute: str) -> str:
        """The fact as one says it right after being asked: mostly with the name, else with the pronoun."""
        subject = capital(entity.pronoun) if self.rng.random() < 0.15 else capital(self.noun(entity))
        return f"{subject} {self.verb(entity, attribute)}."

    def comparison(self, a: Entity, b: Entity) -> str:
        """One sentence on two entities of a kind: what they share, which is more, or how they differ."""
        attributes = [attribute for attribute in a.facts if attribute != "near"]
        attribute = next((x for x in attributes if a.facts[x] == b.facts[x]), None) or self.rng.choice(attributes)
        self.mentions += [(a.name, attribute), (b.name, attribute)]
        first, second = a.facts[attribute], b.facts[attribute]
        if first == second:
            return SHARED[attribute].format(A=capital(self.noun(a)), b=self.noun(b), v=first)
        one, two = value_number(first), value_number(second)
        if one is not None and two is not None and self.rng.random() < 0.7:
            more = {"length": ("longer", "shorter"), "weight": ("heavier", "lighter")}[attribute][one < two]
            return f"The {a.name} is {more} than the {b.name}: {first} against {second}."
        link = self.pick((", while ", ", but ", ", and "))
        del self.mentions[-2:]
        return capital(f"{self.noun(a)} {self.verb(a, attribute)}{link}{self.noun(b)} {self.verb(b, attribute)}.")
