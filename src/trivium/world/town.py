"""The truth: a small made-up town, its animals, foods, people and places, and every fact about them.

Nothing here exists outside this file, so whatever a model knows about it, it learned from the documents it was given.
Each value comes from a small closed set that is dealt out evenly: guessing is right about once in ten times, and no
answer is likelier than another. Two in three entities of each kind may be asked about in demonstrations, the third only
in the evaluation and is not even named in a demonstration: answering about that one takes knowledge from pretraining,
not from fine-tuning.
"""

from __future__ import annotations

import itertools
import math
import random
from dataclasses import dataclass

from trivium.errors import TriviumError
from trivium.randomness import python

KINDS = ("animal", "food", "person", "place")

SPLITS = ("demonstration", "demonstration", "evaluation")
"""Dealt out in turn to the entities of a kind."""

ATTRIBUTES: dict[str, tuple[str, ...]] = {
    "animal": ("length", "weight", "eats", "habitat"),
    "food": ("taste", "ingredient"),
    "person": ("job", "home", "favourite", "pet"),
    "place": ("type", "known_for", "near"),
}

CLOSED_SETS: dict[tuple[str, str], tuple[str, ...]] = {
    ("animal", "length"): (
        *(f"{n} centimetres" for n in (40, 50, 60, 70, 80, 90)),
        *(f"{n} metres" for n in (2, 3, 4, 5, 6, 7)),
    ),
    ("animal", "weight"): tuple(f"{n} kilograms" for n in (10, 15, 20, 25, 30, 35, 45, 55, 65, 75, 85, 95)),
    ("animal", "eats"): ("moss", "beetles", "berries", "fish", "acorns", "mushrooms", "clover", "snails", "honey",
                         "seeds"),
    ("animal", "habitat"): ("marsh", "forest", "hills", "caves", "orchard", "meadow", "reeds", "dunes", "valley",
                            "quarry"),
    ("food", "taste"): ("sweet", "sour", "salty", "bitter", "spicy", "smoky", "nutty", "mild"),
    ("food", "ingredient"): (
        "barley", "pears", "onions", "plums", "carrots", "cheese", "apples", "beans", "rice", "walnuts",
    ),
    ("person", "job"): (
        "baker", "miller", "teacher", "doctor", "farmer", "tailor", "potter", "gardener", "carpenter", "painter",
    ),
    ("place", "type"): ("village", "harbour", "farm", "castle", "lighthouse", "fort", "mill", "market town"),
    ("place", "known_for"): (
        "bells", "roses", "pots", "songs", "lanterns", "blankets", "clocks", "kites", "boats", "candles",
    ),
}
"""The values of every attribute that are plain words. The rest point at other entities: a person's home is a place,
the favourite a food, the pet an animal; a place is near another place."""

POINTERS = {("person", "home"): "place", ("person", "favourite"): "food", ("person", "pet"): "animal",
            ("place", "near"): "place"}

CHOICE = 12
"""How many foods may be someone's favourite, and how many animals someone's pet: keeps those sets small as well."""

_STEMS = {
    "animal": ("velo tamu bro gri kapa dru zanu hul joru kela quo rusa soro tevi wobu yaru plo monti nimo skar taffi "
               "lundi cruvo dabi"),
    "food": "bru cho do fe ga hoo ji kru lu ma ni pu ra so ti wa ske be",
    "person": "Bel Bran Dar Fen Gil Hes Jun Kal Lin Mor Nel Os Pel Quil Ros Sel Tam Ul Vir Wes Yas Zel",
    "place": "Tol Quen Bram Hask Wyn Fal Marl Pen Sut Ves Kir Lud Nor Gar Elm Rud",
}
_ENDINGS = {
    "animal": "rin ldok mbel gar ntus lisk vak dimp ssel bor",
    "food": "sket mpo ncha lto rzel vado zzo rnik",
    "person": "ira essa ona ando emir ovan",
    "place": "moor beck ford wick holm dale combe stead",
}
_PRONOUNS = {"ira": "she", "essa": "she", "ona": "she", "ando": "he", "emir": "he", "ovan": "he"}


@dataclass(frozen=True)
class Fact:
    """One thing that is true in the town, e.g. ``Fact("velorin", "animal", "length", "3 metres", "evaluation")``."""

    entity: str
    kind: str
    attribute: str
    value: str
    split: str


@dataclass(frozen=True, eq=False)
class Entity:
    """An animal, food, person or place. ``facts`` maps each attribute of its kind to its value."""

    name: str
    kind: str
    split: str
    """"demonstration" or "evaluation": in which stage questions about it may be asked."""
    facts: dict[str, str]
    pronoun: str = "it"


class Town:
    """The town of one seed. Everything else in this package is derived from it and the seed.

    ``entities`` holds all of them by kind in the order of :data:`KINDS`; ``values[kind, attribute]`` holds every value
    that the attribute can take, in a fixed order.
    """

    def __init__(self, seed: int, animals: int = 40, foods: int = 24, people: int = 32, places: int = 16) -> None:
        counts = {"animal": animals, "food": foods, "person": people, "place": places}
        for kind, count in counts.items():
            if count < 4:
                raise TriviumError(f"world: {count} of kind {kind!r}; the town needs at least 4 of each kind")
        self.seed = seed
        names: dict[str, list[str]] = {}
        for kind in KINDS:
            taken = list(itertools.chain.from_iterable(names.values()))
            names[kind] = make_names(python(seed, "world", "names", kind), kind, counts[kind], taken)
        self.values = {key: CLOSED_SETS.get(key) or tuple(sorted(names[POINTERS[key]]))
                       for kind in KINDS for key in ((kind, attribute) for attribute in ATTRIBUTES[kind])}
        self.splits = {
            name: split
            for kind in KINDS
            for name, split in zip(names[kind], deal(python(seed, "world", "split", kind), SPLITS, counts[kind]),
                                   strict=True)
        }
        for key in (("person", "favourite"), ("person", "pet")):
            rng = python(seed, "world", "choice", *key)
            chosen = [rng.sample(group, min(round(CHOICE * SPLITS.count(split) / len(SPLITS)), len(group)))
                      for split in dict.fromkeys(SPLITS)
                      for group in [[value for value in self.values[key] if self.splits[value] == split]]]
            self.values[key] = tuple(sorted(itertools.chain.from_iterable(chosen)))
        self.entities = tuple(itertools.chain.from_iterable(self._settle(kind, names[kind]) for kind in KINDS))
        self.by_name = {entity.name: entity for entity in self.entities}

    def _settle(self, kind: str, names: list[str]) -> list[Entity]:
        """Give each name of one kind its facts. What points at another entity points within its own split, so that
        demonstrations never name an entity of the evaluation."""
        facts: dict[str, dict[str, str]] = {name: {} for name in names}
        split = {which: [name for name in names if self.splits[name] == which] for which in dict.fromkeys(SPLITS)}
        for attribute in ATTRIBUTES[kind]:
            rng = python(self.seed, "world", "facts", kind, attribute)
            values = self.values[kind, attribute]
            if attribute == "near":
                dealt = [(group, pair_up(rng, group, split["demonstration"])) for group in split.values()]
            elif (kind, attribute) in POINTERS:
                dealt = [(group, deal(rng, tuple(value for value in values if self.splits[value] == which), len(group)))
                         for which, group in split.items()]
            else:
                dealt = [(names, deal(rng, values, len(names)))]
            for group, chosen in dealt:
                for name, value in zip(group, chosen, strict=True):
                    facts[name][attribute] = value
        return [Entity(name, kind, self.splits[name], facts[name],
                       next((p for ending, p in _PRONOUNS.items() if kind == "person" and name.endswith(ending)), "it"))
                for name in names]

    def of(self, kind: str, split: str | None = None) -> list[Entity]:
        """The entities of one kind, of one split or of both."""
        return [entity for entity in self.entities if entity.kind == kind and split in (None, entity.split)]

    def facts(self, split: str | None = None) -> list[Fact]:
        """Every fact, in a fixed order."""
        return [Fact(entity.name, entity.kind, attribute, value, entity.split)
                for entity in self.entities if split in (None, entity.split) for attribute,
                value in entity.facts.items()]

    def alternatives(self, entity: Entity, attribute: str) -> list[str]:
        """The wrong values: what else the attribute could have been."""
        return [value for value in self.values[entity.kind, attribute]
                if value not in (entity.facts[attribute], entity.name)]


def deal(rng: random.Random, values: tuple[str, ...], count: int) -> list[str]:
    """``count`` values in random order, each used equally often up to one."""
    deck = rng.sample(values, len(values)) * math.ceil(count / len(values))
    return rng.sample(deck[:count], count)


def pair_up(rng: random.Random, names: list[str], others: list[str]) -> list[str]:
    """Each name's neighbour: ``near`` goes both ways, save that an odd one out is near the first pair, and one alone
    near one of ``others``. Pairs are made within a split, as to know one end is to know the other."""
    if len(names) == 1:
        return [rng.choice(others)]
    order = rng.sample(names, len(names))
    neighbour = {order[-1]: order[0]}
    for a, b in zip(order[::2], order[1::2], strict=False):
        neighbour[a], neighbour[b] = b, a
    return [neighbour[name] for name in names]


def make_names(rng: random.Random, kind: str, count: int, taken: list[str]) -> list[str]:
    """``count`` names of one kind that cannot be mistaken for each other or for a name in ``taken``. Stems are used in
    turn, so that names begin as differently as they can."""
    stems, endings = _STEMS[kind].split(), _ENDINGS[kind].split()
    names: list[str] = []
    by_stem = {stem: rng.sample(endings, len(endings)) for stem in rng.sample(stems, len(stems))}
    for round_ in range(len(endings)):
        for stem, order in by_stem.items():
            name = stem + order[round_]
            if len(names) < count and not any(confusable(name.lower(), other.lower()) for other in (*taken, *names)):
                names.append(name)
    if len(names) < count:
        raise TriviumError(f"world: {count} names of kind {kind!r} are wanted, but only {len(names)} can be told apart")
    return names


def confusable(a: str, b: str) -> bool:
    """Whether one name begins with the other or one edit (insert, delete, replace) turns one into the other."""
    if len(a) > len(b):
        a, b = b, a
    if b.startswith(a):
        return True
    if len(b) - len(a) > 1:
        return False
    start = next(i for i in range(len(a)) if a[i] != b[i])
    return a[start + (len(a) == len(b)):] == b[start + 1:]
